"""Asterisk's reports of its own faults are alarms, whatever numbers they hold."""

import pytest
from tests.parse.corpus import SOURCE

from ringfence.parse.line_result import LogAlarm, Reason
from ringfence.parse.notices import parse_logger, parse_security_events


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (b"Log queue threshold (10) exceeded.  Discarding new messages.", LogAlarm.QUEUE_FULL),
        (
            b"Log queue WARNING / ERROR threshold (10) exceeded.  Discarding new messages.",
            LogAlarm.QUEUE_FULL,
        ),
        (b"Log queue does not have any non-WARNING/ERROR messages left to discard.", LogAlarm.QUEUE_FULL),
        (b"Logging resumed.  3 messages discarded.", LogAlarm.QUEUE_RESUMED),
        (b"Log queue", Reason.NOT_EVIDENCE),
    ],
)
def test_the_queue(text: bytes, result: LogAlarm | Reason) -> None:
    """A full queue loses lines, and its end reports how many."""
    assert parse_logger(text, SOURCE, 0.0) is result


def test_a_silenced_event() -> None:
    """Every kind of event gives the alarm."""
    text = b"Failed to issue security event of type InvalidPassword."
    assert parse_security_events(text, SOURCE, 0.0) is LogAlarm.SILENCED
    assert parse_security_events(b"x" + text, SOURCE, 0.0) is Reason.NOT_EVIDENCE
