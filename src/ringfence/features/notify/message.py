"""Composes the text of a message from its content, which the daemon collected (:meth:`Digest.as_json`).

The functions here have an argument ``escape``. It is the channel's function to escape text from outside:
account names, alarm texts, and the locations of addresses.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from ringfence.clock import format_duration
from ringfence.plurals import counted
from ringfence.values.ban import phrases_of
from ringfence.values.location import parts_of
from ringfence.values.text import readable_time

Event = Mapping[str, Any]
Escape = Callable[[str], str]

SHOWN = 20
"""The maximum number of events of each topic that a message shows."""

_NOUNS = {
    "ban": ("ban", "bans"),
    "unban": ("unban by a command", "unbans by a command"),
    "list": ("change of a list", "changes of lists"),
    "alarm": ("alarm", "alarms"),
    "cleared": ("alarm cleared", "alarms cleared"),
    "start": ("start", "starts"),
    "stop": ("stop", "stops"),
    "test": ("test message", "test messages"),
}
_WHERE = {"ban": "ringfence bans", "alarm": "ringfence status", "cleared": "ringfence status"}


@frozen
class Message:
    """A message as text: a title of one line, and a body."""

    title: str
    body: str


def compose(content: Mapping[str, Any], host: str, escape: Escape | None = None) -> Message:
    """Return the message about the events in ``content``.

    ``host`` is the name of this host. ``escape`` is applied to text from outside; by default it is
    :func:`without_links`.
    """
    escape = escape or without_links
    events: list[Event] = content["events"]
    head = f"[ringfence {host}]"
    first, last = readable_time(content["first"]), readable_time(content["last"])
    span = first if first == last else f"{first} to {last}"
    lines = [f"ringfence on {host}, {span} UTC"]
    for topic, counts in content["counts"].items():
        mine = [event for event in events if event["event"] == topic]
        lines += ["", *_part(topic, counts, mine, escape)]
    lines += dropped_lines(content)
    if content["total"] == 1 and events:
        return Message(f"{head} {_title(events[0], escape)}", "\n".join(lines) + "\n")
    parts = (counted(sum(counts.values()), *_NOUNS[topic]) for topic, counts in content["counts"].items())
    return Message(f"{head} {', '.join(parts)}", "\n".join(lines) + "\n")


def dropped_lines(content: Mapping[str, Any]) -> list[str]:
    """Return the lines about earlier messages that were dropped, [] if no message was dropped."""
    dropped = content.get("dropped", {})
    if not dropped.get("messages"):
        return []
    lost = counted(dropped["messages"], "earlier message", "earlier messages")
    return ["", f"{lost} with {counted(dropped['events'], 'event')} could not be sent."]


def _part(topic: str, counts: Mapping[str, int], events: list[Event], escape: Escape) -> Iterator[str]:
    total = sum(counts.values())
    names = ", ".join(f"{number} {name}" for name, number in counts.items() if name)
    yield counted(total, *_NOUNS[topic]) + (f": {names}" if names else "")
    for event in events[:SHOWN]:
        yield f"  {readable_time(event['time'])}  {_line(event, escape)}"
    if total > SHOWN:
        where = f"; see: {_WHERE[topic]}" if topic in _WHERE else ""
        yield f"  and {total - min(SHOWN, len(events))} more{where}"


def _title(event: Event, escape: Escape) -> str:
    """Return the title of a message about one event; ``escape`` is applied to text from outside."""
    subject = escape(event["subject"])
    match event["event"]:
        case "ban":
            return f"{subject} banned ({event['name']})"
        case "unban":
            return f"{subject} unbanned"
        case "list":
            return f"{event['name']}: {subject}" if subject else str(event["name"])
        case "alarm" | "cleared" as topic:
            return " ".join(filter(None, [topic, event["name"], subject]))
        case topic:
            return str(topic)


def _line(event: Event, escape: Escape) -> str:
    if event["event"] == "ban":
        return _ban_line(event, escape)
    head = " ".join(filter(None, [event["name"], escape(event["subject"])]))
    return ": ".join(filter(None, [head, escape(event["text"])]))


def _ban_line(event: Event, escape: Escape) -> str:
    accounts = ", ".join(map(escape, event.get("accounts", ())))
    location = " ".join(map(escape, parts_of(event)))
    ports = "" if event["scope"] == "full" else f"{event['scope']}, "
    parts = [
        f"{escape(event['subject'])}  {event['name']} ({ports}{format_duration(event['seconds'])})",
        f"accounts: {accounts}" if accounts else "",
        location,
        *map(escape, phrases_of(event)),
        escape(event["text"]) if event["name"] == "admin" else "",
    ]
    return "; ".join(filter(None, parts))


_LINK = re.compile(
    r"\.(?=[^\W\d_])"  # evil.com; a domain ends with letters
    r"(?!(?:conf|db|log|secret|service|sock|socket|toml|yml)(?![\w.@/?#-]|:\S))"  # files, and no domains
    # 1.2.3.4/login, but not 1.2.3.0/24
    r"|\.(?=\d{1,3}\.\d{1,3}\.\d{1,3}(?::\d+)?[/?#](?!\d{1,3}(?![\w/?#])))"
    r"|[\u3002\uff0e\uff61]"  # full stops that browsers read as dots
    r"|:(?=//)|@(?=\w)|\\(?=\\)"  # http://…, a mail address, and \\server\share of Windows
    r"|=(?=\?)"  # =?utf-8?q?evil=2ecom?= in a mail's subject (RFC 2047)
    r"|(?i:(?<=\bmailto)|(?<=\bxmpp)|(?<=\bskype)|(?<=\bcallto)|(?<=\bmagnet)|(?<=\btel)|(?<=\bsip)|(?<=\bsips)):(?=\S)"
)
_MARKUP = re.compile(r"[<>&*~`\[\]|@#]|(?<![^\W_])_|_(?![^\W_])")


def without_links(text: str) -> str:
    r"""Return ``text`` with ``\xNN`` for each character that lets a mail program or a chat make a link.

    Attacker A calls an account ``evil.com/login``. Without this, the administrator gets a message of their
    own PBX with a link to A's page. Addresses, networks and names of our own files stay readable.
    """
    return _LINK.sub(_escaped, text)


def without_markup(text: str) -> str:
    """Return ``text`` without links, and without characters that HTML, Markdown or chats interpret."""
    return _MARKUP.sub(_escaped, without_links(text))


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return f"\\x{ord(character):02x}" if character.isascii() else f"\\u{ord(character):04x}"
