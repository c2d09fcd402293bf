"""The condition of a source.

``ringfence status`` shows the words of :class:`State`, and scripts may compare them.
"""

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
    NO_CHALLENGE = "no md5 challenge"  # AMI does not offer MD5, the only login that hides the secret
    LOGIN_REFUSED = "login refused"
    UNRESPONSIVE = "unresponsive"  # AMI accepts connections, but does not answer in time
    LOST = "lost"  # the connection, or the program that reads the source, has ended
    ABSENT = "absent"  # this kernel lacks the feature that the source reads
    DENIED = "denied"  # this process may not read the source
    WAITING = "waiting"  # the log does not exist, or the search has found none that may be read
    UNREADABLE = "unreadable"  # a log that cannot be read
    FULL = "disk full"  # Asterisk cannot write to the log, because its disk is full
    DEFECT = "defect"  # an error of ringfence's own, logged in full


@frozen
class Condition:
    """A source's state, with details for the administrator (never a secret)."""

    state: State
    detail: str = ""


class EndError(SourceError):
    """The end of a source's session, such as a connection; ``condition`` is the source's state after it."""

    def __init__(self, state: State, detail: str) -> None:
        super().__init__(detail)
        self.condition = Condition(state, detail)
