"""The result of parsing one line of a log: an event, an alarm, or a reason why there is neither.

The texts of :class:`Reason` explain the result to administrators (``ringfence parse``).
"""

import enum
import re

from attrs import define, frozen

from ringfence.parse.address import parse_source
from ringfence.values.event import (
    EventKind,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
    short_account,
    short_session,
)


class Level(enum.StrEnum):
    """The levels of log lines that may report attempts (``main/logger.c``)."""

    SECURITY = "SECURITY"
    NOTICE = "NOTICE"
    WARNING = "WARNING"
    ERROR = "ERROR"


LEVELS = {str(level).encode(): str(level) for level in Level}
"""The name of each level of log lines as text, by its bytes in a line."""


class Reason(enum.StrEnum):
    """The reason why a log line gives no security event."""

    NOT_EVIDENCE = "not evidence"
    NO_ATTEMPT = "shows no attempt"
    NO_PREFIX = "no log prefix"
    CONTINUATION = "part of the message above"
    NO_SOURCE = "names no source"
    NOT_AN_ADDRESS = "no address where one should be"
    SENDERS_TEXT = "the address is the sender's own text"
    AMBIGUOUS = "ambiguous"
    RAW_DUMP = "raw packet dump"
    INSIDE_ANOTHER = "inside another message"
    DUPLICATE = "already reported"
    STANDBY = "skipped, because AMI delivers it"
    UNKNOWN_WORDING = "unknown wording"
    CUT = "cut short"
    TOO_LONG = "too long"


NOT_UNDERSTOOD = frozenset(
    {
        Reason.NOT_AN_ADDRESS,
        Reason.AMBIGUOUS,
        Reason.INSIDE_ANOTHER,
        Reason.UNKNOWN_WORDING,
        Reason.CUT,
        Reason.TOO_LONG,
    }
)
"""The reasons of log lines that seem to report an attempt but could not be parsed."""


class LogAlarm(enum.StrEnum):
    """A fault that a log line shows in the log itself; the value is the text of the alarm."""

    QUEUE_FULL = "the log's queue is full, lines are lost"
    QUEUE_RESUMED = "lines of the log were lost"
    SILENCED = "a security event was silenced"
    TAMPERED = "text in the log imitates log lines"
    CLOCK = "the log's times are wrong: see the clock and the time zone"
    JOURNAL_DROPS = "the journal drops lines: raise its RateLimitBurst="
    JOURNAL_USER = "Asterisk's lines of a user who is not in journal_users do not count"


@define
class LineResult:
    """The result of parsing one log line. ``line`` is the line's number in the log, from 1.

    ``reason`` is None if there is an event, or if the line is only an alarm. ``level`` is that of the
    message; "" if it is unknown. ``alarm`` is the fault of the log that the line shows. ``ambiguous`` is an
    event whose address is uncertain; its ``readings`` has one event for each address that the line names.
    """

    line: int
    event: SecurityEvent | None = None
    level: str = ""
    reason: Reason | None = None
    alarm: LogAlarm | None = None
    ambiguous: SecurityEvent | None = None


@define
class LogCounts:
    """Numbers of what one log's reader has read.

    ``tampered``: events from messages that break Asterisk's grammar, and messages that were inside a sender's
    text. ``garbled``: lines that seem to report an attempt and could not be parsed. ``dropped_bytes``: bytes
    of lines that were too long. ``standby``: SECURITY messages that were skipped, because AMI delivers the
    same events.
    """

    lines: int = 0
    events: int = 0
    tampered: int = 0
    garbled: int = 0
    dropped_bytes: int = 0
    standby: int = 0


@frozen
class OpenMessage:
    """A log message whose end has not come yet. The pattern ``end`` finds the end in a later line.

    ``result`` is the result of the first line alone, in case no end comes. ``may_span``: lines before the end
    that look like other messages are part of this message, as the sender's text. If ``may_span`` is false,
    the end after such lines may belong to one of them, and the result is ambiguous.
    """

    result: SecurityEvent | Reason
    end: re.Pattern[bytes]
    may_span: bool = True


Parsed = SecurityEvent | Reason | LogAlarm | OpenMessage


def result_of(
    number: int, parsed: SecurityEvent | Reason | LogAlarm, level: bytes, *, standby: bool
) -> LineResult:
    """Return the result of the log line ``number``, of which ``parsed`` is what the parser returned.

    ``standby``: AMI delivers the events of SECURITY messages, so the result of such a message has no event.
    """
    name = LEVELS.get(level) or level.decode("ascii", "replace")
    if isinstance(parsed, SecurityEvent):
        if parsed.readings:
            return LineResult(number, None, name, Reason.AMBIGUOUS, ambiguous=parsed)
        alarm = LogAlarm.TAMPERED if parsed.tampered else None
        if standby and name == Level.SECURITY:
            return LineResult(number, None, name, Reason.STANDBY, alarm)
        return LineResult(number, parsed, name, None, alarm)
    if isinstance(parsed, LogAlarm):
        return LineResult(number, None, name, None, parsed)
    return LineResult(number, None, name, parsed)


def text_of(raw: bytes) -> str:
    r"""Return bytes that a sender wrote as text for people: bytes that are not UTF-8 become ``\xNN``."""
    return raw.decode(errors="backslashreplace")


_USER = re.compile(rb"sips?:([^@<>;\s]*+)@")
_MAX_HEADER = 512


def sip_user(header: bytes) -> str:
    """Return the user of a From or To header as text for people.

    Return the beginning of the header if it has no user.
    """
    users = _USER.findall(header[-_MAX_HEADER:])
    return text_of(users[-1] if users else header[:_MAX_HEADER])


def make_event(
    source: SourceId,
    service: Service,
    kind: EventKind,
    address: bytes,
    time: float,
    account: str = "",
    *,
    acl_name: str = "",
    session: bytes = b"",
    transport: Transport = Transport.UNKNOWN,
    has_port: bool = False,
    forgeable: bool = False,
    evidence: str = "",
) -> SecurityEvent | Reason:
    """Return the security event of a log line, or NOT_AN_ADDRESS if ``address`` is not an IP address.

    The address may have a port. ``has_port``: it always has one, even after IPv6 without brackets. ``time``
    is that of the line (seconds since the epoch). For the other arguments see :class:`SecurityEvent`.
    """
    remote = parse_source(address, transport, has_port=has_port)
    if remote is None:
        return Reason.NOT_AN_ADDRESS
    return SecurityEvent(
        *(source, kind, service, remote, time, short_account(account), short_session(session), acl_name),
        forgeable=forgeable,
        evidence=short_account(evidence),
    )
