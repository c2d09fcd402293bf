"""Bans and contents of messages for the tests of notifications."""

from ipaddress import ip_address, ip_network
from typing import Any

from tests.features.report.test_summary import alarm as alarm_row
from tests.features.report.test_summary import answers, ended, top

from ringfence.alarm_codes import AlarmCode, AnyAlarmCode
from ringfence.alarms import BEGAN, AlarmEvent
from ringfence.features.notify import notifications
from ringfence.features.notify.outbox import Digest
from ringfence.features.report.summary import summary_of
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Ban
from ringfence.values.event import EventKind, Service, Transport
from ringfence.values.text import printable

WALL = 1_795_154_701.0
"""2026-11-20 06:05:01 UTC."""

HOSTILE = (
    "<script>alert(1)</script>",
    "</b><a href='http://evil.example'>x</a>",
    "[x](http://evil.example) *b* _i_ `c` ~s~ @everyone <!channel> #c",
    "\x1b[2J\x1b]0;x\x07",
    "\u202egnp.exe",
    "a\r\nBcc: victim@example.com\r\n\r\nbody",
    "$(touch /tmp/pwned); `id` | sh && x",
    "A" * 65_536,
    "\x00\udcff",
)
"""Names that a sender may choose, against HTML, Markdown, a terminal, a mail and a shell."""


def ban(number: int = 1, account: str = "alice", rule: str = "guess") -> Ban:
    """Return a ban of 198.18.0.0/15 with one attempt."""
    address = ip_address(0xC6120000 + number)
    attempt = Attempt(
        "pbx", address, AttemptKind.GUESS, Proof.NONCE, Service.PJSIP, Transport.UDP, account,
        EventKind.CHALLENGE_RESPONSE_FAILED, WALL, trusted=True,
    )  # fmt: skip
    return Ban(
        ip_network(address),
        since=WALL,
        expires=WALL + 3600,
        rule=rule,
        reason="five guesses",
        attempts=(attempt,),
    )


def alarm(
    code: AnyAlarmCode = AlarmCode.PHONE_BROKEN, subject: str = "204", text: str = "fails"
) -> AlarmEvent:
    """Return an alarm that began."""
    return AlarmEvent(code, subject, text, BEGAN, WALL)


def content(*collected: notifications.Notification) -> dict[str, Any]:
    """Return the content of a message with these notifications."""
    digest = Digest()
    for notification in collected:
        digest.add(notification)
    return {**digest.as_json(), "dropped": {"messages": 0, "events": 0}}


def report_content(name: str = "alice") -> dict[str, Any]:
    """Return the content of a report, in which a sender's text is everywhere that it can be."""
    text = printable(name)
    rows = [top("198.18.1.1", 9), top("198.18.2.1", 8)]
    where = {"country": "DE", "asn": "AS64496", "organisation": text[:64]}
    phone = alarm_row("phone.broken", "2026-11-20T00:00:00Z") | {"subject": text, "text": f"{text} fails"}
    report = summary_of(
        answers(
            addresses=rows,
            accounts=[top(text[:48], 6)],
            alarms=[phone],
            ended=[ended(601)],
            locations={"198.18.1.1": where},
        )
    )
    moment = "2026-11-21T06:00:00Z"
    head = {"severity": "info", "first": moment, "last": moment, "total": 1, "counts": {"report": {"": 1}}}
    return {**head, "events": [], "report": report, "dropped": {"messages": 0, "events": 0}}


def hostile_content(*names: str) -> dict[str, Any]:
    """Return a message with a ban and an alarm for each text of a sender, which is everywhere it can be."""
    bans = (notifications.of_ban(ban(account=name), WALL) for name in names)
    alarms = (alarm(subject=name, text=f"an account {name} fails") for name in names)
    return content(*bans, *map(notifications.of_alarm, alarms))
