"""Log lines in which Asterisk reports faults of its own log or events: alarms, never evidence.

``main/logger.c``: the log loses lines if more than ``logger_queue_limit`` (1000) messages wait.
``main/security_events.c``: Asterisk reports no event with a byte that is not UTF-8, neither on the manager
interface nor in the log. So a sender that puts such a byte into a Call-ID stays hidden in both.
"""

import re

from ringfence.model import SourceId
from ringfence.parse.line_result import LogAlarm, Parsed, Reason

OPENED = re.compile(
    rb"\[[^\[\]\n]{5,48}+\] Asterisk \S{1,200}+ built by \S{1,100}+ @ \S{1,255}+"
    rb" on a \S{1,100}+ running \S{1,100}+ on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
)
"""The line that Asterisk writes when it opens a log, after the older contents (``main/logger.c``).

The reader of the log ignores such a line. A sender gains nothing by forging it within a message: Asterisk's
own end of the message follows on a later line, which is not ignored.
"""


def parse_logger(text: bytes, source: SourceId, time: float) -> Parsed:  # noqa: ARG001 - gives no event
    """Parse a message of Asterisk's logger about itself: lines were lost, or are no longer lost."""
    if text.startswith(b"Log queue threshold ("):
        return LogAlarm.QUEUE_FULL
    return LogAlarm.QUEUE_RESUMED if text.startswith(b"Logging resumed.") else Reason.NOT_EVIDENCE


def parse_security_events(text: bytes, source: SourceId, time: float) -> Parsed:  # noqa: ARG001 - gives no event
    """Parse Asterisk's message about a security event that it could not report."""
    silenced = text.startswith(b"Failed to issue security event of type ")
    return LogAlarm.SILENCED if silenced else Reason.NOT_EVIDENCE
