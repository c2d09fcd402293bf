"""Results of lines: their texts, and the user of a header."""

import pytest
from attrs import evolve
from tests.parse.corpus import SOURCE

from ringfence.parse.line_result import (
    NOT_UNDERSTOOD,
    LineResult,
    LogAlarm,
    Reason,
    make_event,
    result_of,
    sip_user,
    text_of,
)
from ringfence.values.event import EventKind, SecurityEvent, Service


@pytest.mark.parametrize(
    ("header", "user"),
    [
        (b"<sip:alice@h>", "alice"),
        (b'"sip:x@y" <sips:alice@h;transport=tls>;tag=1', "alice"),
        (b'"100"sip:100@h', "100"),
        (b"<sip:h>", "<sip:h>"),
        (b"", ""),
        (b"<sip:a\xff@h>", "a\\xff"),
        (b"<sip:" + b"a" * 1_000_000, "<sip:" + "a" * 507),
    ],
)
def test_the_user_of_a_header(header: bytes, user: str) -> None:
    """The user of the last address is returned, or the header's beginning if it has none."""
    assert sip_user(header) == user


def test_text_for_people() -> None:
    """Bytes that are not UTF-8 become readable."""
    assert text_of(b"\xc3\xa4\xff") == "\u00e4\\xff"


def test_a_line_without_an_address_gives_no_event() -> None:
    """A host name is no address, and nothing is resolved."""
    result = make_event(SOURCE, Service.SIP, EventKind.INVALID_PASSWORD, b"localhost", 1.0)
    assert result is Reason.NOT_AN_ADDRESS
    assert isinstance(make_event(SOURCE, Service.SIP, EventKind.INVALID_PASSWORD, b"::1", 1.0), SecurityEvent)


def test_understood_reasons_are_not_reported() -> None:
    """Lines without evidence, or known to name no source, count as understood."""
    understood = {
        Reason.NOT_EVIDENCE,
        Reason.NO_ATTEMPT,
        Reason.NO_PREFIX,
        Reason.CONTINUATION,
        Reason.NO_SOURCE,
    }
    understood |= {Reason.SENDERS_TEXT, Reason.RAW_DUMP, Reason.DUPLICATE, Reason.STANDBY}
    assert set(Reason) - NOT_UNDERSTOOD == understood


@pytest.mark.parametrize("tampered", [False, True])
@pytest.mark.parametrize(
    ("level", "standby", "counts"),
    [(b"SECURITY", False, True), (b"SECURITY", True, False), (b"NOTICE", True, True)],
)
def test_in_standby_security_messages_have_no_event(
    level: bytes, *, standby: bool, counts: bool, tampered: bool
) -> None:
    """A SECURITY message is skipped in standby; text that imitates log lines is an alarm all the same."""
    event = make_event(SOURCE, Service.SIP, EventKind.INVALID_PASSWORD, b"192.0.2.7", 1.0)
    assert isinstance(event, SecurityEvent)
    event = evolve(event, tampered=tampered)
    result = result_of(7, event, level, standby=standby)
    alarm = LogAlarm.TAMPERED if tampered else None
    expected = event if counts else None
    reason = None if counts else Reason.STANDBY
    assert result == LineResult(7, expected, level.decode(), reason, alarm)


def test_the_level_of_any_line_is_named() -> None:
    """A line without an event has its level and the reason, or the alarm that it is."""
    assert result_of(1, Reason.NO_ATTEMPT, b"DEBUG", standby=False) == LineResult(
        1, None, "DEBUG", Reason.NO_ATTEMPT
    )
    assert result_of(2, LogAlarm.QUEUE_FULL, b"WARNING", standby=True) == LineResult(
        2, None, "WARNING", None, LogAlarm.QUEUE_FULL
    )
