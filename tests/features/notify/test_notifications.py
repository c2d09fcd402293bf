"""Notifications: their fields, their severity, and hostile text in them."""

import json

import pytest
from tests.features.notify.samples import HOSTILE, WALL, alarm, ban

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import CLEARED, AlarmEvent
from ringfence.features.notify.notifications import MAX_TEXT, of_alarm, of_ban, of_unban, severity_of
from ringfence.features.notify.topics import Severity, Topic
from ringfence.values.text import shown


def test_a_ban_has_its_rule_length_and_accounts() -> None:
    """A ban names the address without its prefix length, and what led to it."""
    found = of_ban(ban(7), WALL).as_json()

    assert found == {
        "event": "ban",
        "severity": "info",
        "time": "2026-11-20T06:05:01Z",
        "name": "guess",
        "subject": "198.18.0.7",
        "text": "five guesses",
        "seconds": 3600,
        "scope": "full",
        "offence": 1,
        "attempts": 1,
        "accounts": ["alice"],
    }


def test_an_alarm_and_its_end_have_one_severity() -> None:
    """A channel for critical alarms also learns that they are over."""
    code = AlarmCode.SOURCE_SILENT
    began = of_alarm(alarm(code))
    ended = of_alarm(AlarmEvent(code, "pbx/ami", "x", CLEARED, WALL))

    assert (began.topic, ended.topic) == (Topic.ALARM, Topic.CLEARED)
    assert began.severity is ended.severity is Severity.CRITICAL


def test_every_severity_has_alarms() -> None:
    """Alarms without anything to do are informing, and those without protection are critical."""
    assert severity_of(AlarmCode.EVIDENCE_HIDDEN) is Severity.INFO
    assert severity_of(AlarmCode.PHONE_BROKEN) is Severity.WARNING
    assert severity_of(AlarmCode.FIREWALL_NOT_ENFORCED) is Severity.CRITICAL
    assert [severity.rank for severity in Severity] == [0, 1, 2]


def test_an_unban_names_what_was_asked() -> None:
    """The networks of the command are the subject, its notes the text."""
    found = of_unban(["198.18.0.1", "198.18.0.2"], "", WALL)

    assert (found.topic, found.subject) == (Topic.UNBAN, "198.18.0.1, 198.18.0.2")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_escaped_and_shortened(name: str) -> None:
    """No control character, direction override or endless name leaves a notification."""
    for found in (of_ban(ban(account=name), WALL), of_alarm(alarm(subject=name, text=name))):
        document = found.as_json()
        texts = [str(document["subject"]), str(document["text"]), *document.get("accounts", [])]  # type: ignore[misc]
        assert all(text.isprintable() for text in texts)
        assert len(json.dumps(document)) < 20 * MAX_TEXT


def test_a_shortened_text_ends_with_an_ellipsis() -> None:
    """A text that just fits is not changed."""
    assert shown("abc", 3) == "abc"
    assert shown("abcd", 3) == "abc…"
