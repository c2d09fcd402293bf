"""What Asterisk tells of its own witnesses is an alarm, whatever numbers are in it."""

import pytest
from tests.parse.corpus import SOURCE

from ringfence.parse.own import read_logger, read_security_events
from ringfence.parse.reading import Alarm, Why


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"Log queue threshold (10) exceeded.  Discarding new messages.", Alarm.QUEUE_FULL),
        (b"Logging resumed.  3 messages discarded.", Alarm.QUEUE_RESUMED),
        (b"Log queue", Why.NOT_EVIDENCE),
    ],
)
def test_the_queue(text: bytes, said: Alarm | Why) -> None:
    """A full queue loses lines, and its end says how many."""
    assert read_logger(text, SOURCE, 0.0) is said


def test_a_silenced_event() -> None:
    """Every kind is one."""
    text = b"Failed to issue security event of type InvalidPassword."
    assert read_security_events(text, SOURCE, 0.0) is Alarm.SILENCED
    assert read_security_events(b"x" + text, SOURCE, 0.0) is Why.NOT_EVIDENCE
