"""The condition of a source. ``status`` shows these words, and scripts may compare them."""

import enum

from attrs import frozen

from ringfence.errors import SourceError


class State(enum.StrEnum):
    """The conditions of a source. Only LISTENING is good; CONNECTING is temporary."""

    CONNECTING = "connecting"
    LISTENING = "listening"
    NO_EVENTS = "no events"  # logged in, but the security class is not granted or its events are switched off
    UNREACHABLE = "unreachable"
    TLS_FAILED = "tls failed"
    NOT_AMI = "not ami"
    NO_CHALLENGE = "no md5 challenge"  # the server does not offer the login that keeps the secret secret
    LOGIN_REFUSED = "login refused"
    UNRESPONSIVE = "unresponsive"
    LOST = "lost"
    ABSENT = "absent"  # this kernel lacks the feature that the source reads
    DENIED = "denied"  # this process may not read it
    WAITING = "waiting"  # a log that is not there yet
    UNREADABLE = "unreadable"  # a log that cannot be read
    FULL = "disk full"  # a log that cannot be written to
    DEFECT = "defect"  # an error of ringfence's own, logged in full


@frozen
class Condition:
    """A source's state, with details for the administrator (never a secret)."""

    state: State
    detail: str = ""


class EndError(SourceError):
    """The end of a connection or binding, with the resulting condition of the source."""

    def __init__(self, state: State, detail: str) -> None:
        super().__init__(detail)
        self.condition = Condition(state, detail)
