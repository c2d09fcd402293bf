"""The text of messages: titles, summaries, and text from outside."""

import pytest
from attrs import evolve
from tests.features.notify.samples import HOSTILE, WALL, alarm, ban, content, hostile_content

from ringfence.features.notify import notifications
from ringfence.features.notify.message import SHOWN, compose, without_links, without_markup
from ringfence.features.notify.notifications import Notification
from ringfence.features.notify.topics import Severity, Topic


def test_a_single_ban_is_in_the_title() -> None:
    """The title names address and rule; the body adds the length, the accounts and the place."""
    found = content(notifications.of_ban(ban(7), WALL))
    found["events"][0] |= {"country": "DE", "asn": "AS64496", "organisation": "Example Net"}
    message = compose(found, "pbx1")

    assert message.title == "[ringfence pbx1] 198.18.0.7 banned (guess)"
    assert message.body == (
        "ringfence on pbx1, 2026-11-20 06:05:01 UTC\n"
        "\n"
        "1 ban: 1 guess\n"
        "  2026-11-20 06:05:01  198.18.0.7  guess (1h); accounts: alice; DE AS64496 Example Net\n"
    )


def test_a_storm_is_a_summary() -> None:
    """A thousand bans are counted by rule, and the first ones are listed."""
    many = [
        notifications.of_ban(ban(at, rule="decoy" if at % 10 == 0 else "guess"), WALL) for at in range(1_000)
    ]
    message = compose(content(*many, notifications.of_alarm(evolve(alarm(), time=WALL + 30))), "pbx1")
    lines = message.body.split("\n")

    assert message.title == "[ringfence pbx1] 1000 bans, 1 alarm"
    assert lines[0] == "ringfence on pbx1, 2026-11-20 06:05:01 to 2026-11-20 06:05:31 UTC"
    assert "1000 bans: 900 guess, 100 decoy" in lines
    assert sum("198.18." in line for line in lines) == SHOWN
    assert f"  and {1_000 - SHOWN} more; see: ringfence bans" in lines
    assert lines[-2] == "  2026-11-20 06:05:31  phone.broken 204: fails"


@pytest.mark.parametrize(
    ("notification", "title"),
    [
        (notifications.of_alarm(alarm()), "alarm phone.broken 204"),
        (notifications.of_unban(["198.18.0.1"], "", WALL), "198.18.0.1 unbanned"),
        (Notification(Topic.STOP, Severity.INFO, WALL, text="bans stay in place"), "stop"),
    ],
)
def test_a_single_event_is_in_the_title(notification: Notification, title: str) -> None:
    """The title alone shows what happened."""
    assert compose(content(notification), "h").title == f"[ringfence h] {title}"


def test_dropped_messages_are_reported() -> None:
    """The next message states how much is missing."""
    found = content(notifications.of_ban(ban(), WALL)) | {"dropped": {"messages": 2, "events": 40}}

    assert "2 earlier messages with 40 events could not be sent." in compose(found, "h").body


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_adds_no_line_and_no_control_character(name: str) -> None:
    """The title stays one line, the body has the lines of harmless text, and both are short."""
    message, harmless = (compose(hostile_content(one), "h") for one in (name, "bob"))

    assert message.title.isprintable()
    assert all(line.isprintable() for line in message.body.split("\n"))
    assert message.body.count("\n") == harmless.body.count("\n")
    assert len(message.body) < 20_000


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_has_no_markup(name: str) -> None:
    """For chats no character from outside that HTML, Markdown or Slack interprets remains."""
    message = compose(hostile_content(name), "h", without_markup)

    assert not set(message.body) & set("<>&*~`[]|@#")
    assert "://" not in message.body
    assert not set(message.title.removeprefix("[ringfence h]")) & set("<>&*~`[]|@#")


def test_an_underscore_within_a_word_stays() -> None:
    """Names such as trunk_1 are readable; at the edge of a word an underscore would be emphasis."""
    assert without_markup("trunk_1 _b_ http://x a:b") == r"trunk_1 \x5fb\x5f http\x3a//x a:b"


LINKS = {
    "evil.com/login": r"evil\x2ecom/login",
    "www.evil.example": r"www\x2eevil\x2eexample",
    "http://localhost/x": r"http\x3a//localhost/x",
    "1.2.3.4/login": r"1\x2e2.3.4/login",
    "1.2.3.4:8080/x": r"1\x2e2.3.4:8080/x",
    "bob@evil.com": r"bob\x40evil\x2ecom",
    "mailto:bob": r"mailto\x3abob",
    "SIP:bob": r"SIP\x3abob",
    r"\\evil\share": r"\x5c\evil\share",
    "=?utf-8?q?evil=2ecom?=": r"\x3d?utf-8?q?evil=2ecom?=",
    "evil\u3002com": r"evil\u3002com",
    "evil.\u0440\u0444": "evil\\x2e\u0440\u0444",
    "x.toml/../evil.conf?x": r"x\x2etoml/../evil\x2econf?x",
}
"""Texts from which a mail program or a chat makes a link, and what is sent instead."""


@pytest.mark.parametrize(("text", "harmless"), LINKS.items())
def test_no_text_from_outside_is_a_link(text: str, harmless: str) -> None:
    """Neither a mail nor a chat has a link that a sender or an operator wrote."""
    assert without_links(text) == harmless
    found = hostile_content(text)
    found["events"][0] |= {"country": text, "asn": text, "organisation": text}
    found["events"].append(notifications.of_unban([text], text, WALL).as_json())
    found["counts"]["unban"] = {"": 1}
    for escape in (without_links, without_markup):
        message = compose(found, "h", escape)
        assert text not in message.body
        assert harmless in message.body
    single = compose(content(notifications.of_alarm(alarm(subject=text, text=text))), "h")
    assert text not in single.title + single.body


OUR_OWN = {"event", "severity", "time", "name", "seconds", "scope", "offence", "attempts"}
"""The fields of an event in which no sender can write."""


def test_every_field_of_a_notification_is_without_links() -> None:
    """A field that is added later is checked, too: all texts of an event are hostile here."""
    for original in hostile_content("bob")["events"]:
        for key in original.keys() - OUR_OWN:
            value = ["evil.com/login"] if isinstance(original[key], list) else "evil.com/login"
            found = hostile_content("bob") | {"events": [{**original, key: value}]}
            found["counts"] = {original["event"]: {"": 2}}
            body = compose(found, "h").body
            assert "evil.com" not in body
            assert r"evil\x2ecom/login" in body or (original["event"], key) == ("ban", "text")


@pytest.mark.parametrize(
    "text",
    [
        "198.18.0.7 198.18.0.0/24 fd00::/64",
        "/etc/ringfence/ringfence.toml: not read",
        "asterisk/log:/var/log/asterisk/full",
        "cannot read asterisk.secret: denied; fix: chgrp",
        "3.5 s, ext 100",
    ],
)
def test_harmless_text_stays_readable(text: str) -> None:
    """Addresses, our own files and numbers are not changed."""
    assert without_links(text) == text
