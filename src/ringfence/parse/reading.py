"""What is made of one line of a log: an event, an alarm, or why it says nothing.

The words for *why* are written for an administrator who asks what became of a line.
"""

import enum
import re

from attrs import define, frozen

from ringfence.model import EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.parse.address import parse_source


class Level(enum.StrEnum):
    """The levels that may carry evidence (``main/logger.c``)."""

    SECURITY = "SECURITY"
    NOTICE = "NOTICE"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Why(enum.StrEnum):
    """Why a line gives no event."""

    NOT_EVIDENCE = "not evidence"
    NO_ATTEMPT = "tells of no attempt"
    NO_PREFIX = "no log prefix"
    CONTINUATION = "part of the message above"
    NO_SOURCE = "names no source"
    NOT_AN_ADDRESS = "no address where one should be"
    SENDERS_TEXT = "the address is the sender's own text"
    AMBIGUOUS = "ambiguous"
    RAW_DUMP = "raw packet dump"
    INSIDE_ANOTHER = "inside another message"
    TOLD_TWICE = "told by another line"
    UNKNOWN_WORDING = "unknown wording"
    CUT = "cut short"
    TOO_LONG = "too long"


NOT_UNDERSTOOD = frozenset(
    {
        Why.NOT_AN_ADDRESS,
        Why.AMBIGUOUS,
        Why.INSIDE_ANOTHER,
        Why.UNKNOWN_WORDING,
        Why.CUT,
        Why.TOO_LONG,
    }
)
"""The reasons of a line that looks like evidence and was not understood."""


class Alarm(enum.StrEnum):
    """What a line tells of the witness itself."""

    QUEUE_FULL = "the log's queue is full, lines are lost"
    QUEUE_RESUMED = "lines of the log were lost"
    SILENCED = "a security event was silenced"
    TAMPERED = "somebody tampers with the log"


@frozen
class Reading:
    """What became of the line with this number; ``line`` counts from 1.

    ``why`` is None exactly where there is an event or the line is only an alarm.
    """

    line: int
    event: SecurityEvent | None = None
    level: str = ""
    why: Why | None = None
    alarm: Alarm | None = None


@define
class LogCounts:
    """What a reader has met so far, as :class:`ringfence.parse.ami.AmiCounts` for a connection.

    ``tampered``: events of messages outside Asterisk's grammar, and lines that were somebody's text.
    ``garbled``: lines that look like evidence and were not understood. ``dropped_bytes``: of lines too long.
    """

    lines: int = 0
    events: int = 0
    tampered: int = 0
    garbled: int = 0
    dropped_bytes: int = 0


@frozen
class Open:
    """A message whose end has not come: ``ends`` finds it in the last of the lines that follow.

    ``said`` is what the first line alone is worth, where no such end comes. ``over``: it stays this message
    where lines that look like others stand before that end; else nobody is named, since the end may be
    another's.
    """

    said: SecurityEvent | Why
    ends: re.Pattern[bytes]
    over: bool = True


Said = SecurityEvent | Why | Alarm | Open


def text_of(raw: bytes) -> str:
    r"""Give the sender's bytes as text for people: what is not UTF-8 is written as ``\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


_USER = re.compile(rb"sips?:([^@<>;\s]*+)@")
_MAX_HEADER = 512


def sip_user(header: bytes) -> str:
    """Give the user of a From or To header for people to read, or the header where it has none."""
    users = _USER.findall(header[-_MAX_HEADER:])
    return text_of(users[-1] if users else header[:_MAX_HEADER])


def notice(
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
    ported: bool = False,
    hearsay: bool = False,
) -> SecurityEvent | Why:
    """Make the event that a line tells of, where its address is one."""
    remote = parse_source(address, transport, ported=ported)
    if remote is None:
        return Why.NOT_AN_ADDRESS
    return SecurityEvent(source, kind, service, remote, time, account, session, acl_name, hearsay=hearsay)
