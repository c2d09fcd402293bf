"""How a source is, in words that ``status`` shows and scripts may compare."""

import enum

import structlog
from attrs import frozen

from ringfence.errors import SourceError


class State(enum.StrEnum):
    """The conditions a source can be in. Only LISTENING is good; CONNECTING is on the way."""

    CONNECTING = "connecting"
    LISTENING = "listening"
    DEAF = "deaf"  # logged in, but the security class is not granted or its events are switched off
    UNREACHABLE = "unreachable"
    TLS_FAILED = "tls failed"
    NOT_AMI = "not ami"
    LOGIN_REFUSED = "login refused"
    UNRESPONSIVE = "unresponsive"
    LOST = "lost"
    ABSENT = "absent"  # this kernel cannot give what the source reads
    DENIED = "denied"  # this process may not read it
    WAITING = "waiting"  # a log that is not there yet
    UNREADABLE = "unreadable"  # a log that may not be read, or cannot
    FULL = "disk full"  # a log that nobody can write to
    DEFECT = "defect"  # an error of ringfence's own, logged in full


@frozen
class Condition:
    """A source's state, and what an administrator should know about it (never a secret)."""

    state: State
    detail: str = ""


class EndError(SourceError):
    """The end of a connection or binding, with the condition that it leaves the source in."""

    def __init__(self, state: State, detail: str) -> None:
        super().__init__(detail)
        self.condition = Condition(state, detail)


def log_condition(log: structlog.stdlib.BoundLogger, condition: Condition) -> None:
    """Say in the log how a source is now: loudly, unless it listens."""
    good = condition.state is State.LISTENING
    (log.info if good else log.warning)("source.state", state=str(condition.state), detail=condition.detail)
