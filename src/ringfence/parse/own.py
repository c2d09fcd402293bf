"""Lines in which Asterisk tells of its own witnesses: alarms, never evidence.

``main/logger.c``: beyond ``logger_queue_limit`` (1000) waiting messages the log loses lines.
``main/security_events.c``: an event with a byte that is not UTF-8 is not raised, on the manager interface and
in the log alike, so whoever puts one into a Call-ID is silent there.
"""

from ringfence.model import SourceId
from ringfence.parse.reading import Alarm, Said, Why


def read_logger(text: bytes, source: SourceId, time: float) -> Said:  # noqa: ARG001 - names nobody
    """Read what the logger says of itself."""
    if text.startswith(b"Log queue threshold ("):
        return Alarm.QUEUE_FULL
    return Alarm.QUEUE_RESUMED if text.startswith(b"Logging resumed.") else Why.NOT_EVIDENCE


def read_security_events(text: bytes, source: SourceId, time: float) -> Said:  # noqa: ARG001 - names nobody
    """Read that a security event was not raised."""
    silenced = text.startswith(b"Failed to issue security event of type ")
    return Alarm.SILENCED if silenced else Why.NOT_EVIDENCE
