"""How a source is, in words that ``status`` shows and scripts may compare."""

import enum

from attrs import frozen


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
