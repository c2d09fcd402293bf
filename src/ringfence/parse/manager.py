"""NOTICE lines of failed logins to the manager interface (``main/manager.c:authenticate``).

The address comes first, without port; the user is the sender's text, and over HTTP may hold line feeds.
``… failed to authenticate as '…'`` follows each of the other two, so it counts only where none of them came
before it (:class:`Twins`).
"""

import re
from collections import OrderedDict

from ringfence.model import Address, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.parse.reading import Open, Said, Why, notice, text_of

_LOGIN = re.compile(
    rb"([^ '\n]{2,80}+) (tried to authenticate with nonexistent user|failed to pass IP ACL as"
    rb"|failed to authenticate as) '"
)
_LOGIN_END = re.compile(rb"'\Z")
_KINDS = {
    b"tried to authenticate with nonexistent user": EventKind.INVALID_ACCOUNT_ID,
    b"failed to pass IP ACL as": EventKind.FAILED_ACL,
    b"failed to authenticate as": EventKind.INVALID_PASSWORD,
}


def read(text: bytes, source: SourceId, time: float) -> Said:
    """Read the message of a line of manager.c."""
    login = _LOGIN.match(text)
    if login is None:
        return Why.NOT_EVIDENCE
    whole = _LOGIN_END.search(text, max(login.end(), len(text) - 1))
    account = text_of(text[login.end() : len(text) - 1 if whole else len(text)])
    said = notice(source, Service.AMI, _KINDS[login[2]], login[1], time, account, transport=Transport.TCP)
    return said if whole else Open(said, _LOGIN_END)


class Twins:
    """Knows which failed login a ``failed to authenticate`` repeats; at worst it counts too much."""

    _MOST = 256
    _WITHIN = 5.0  # seconds, by the log's own time

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[Address, str], float] = OrderedDict()

    def once(self, event: SecurityEvent) -> SecurityEvent | Why:
        """Give the event, or say that the line before has told it."""
        key = event.remote.address, event.account
        if event.kind is not EventKind.INVALID_PASSWORD:
            self._told[key] = event.time
            self._told.move_to_end(key)
            if len(self._told) > self._MOST:
                self._told.popitem(last=False)
            return event
        told = self._told.pop(key, None)
        return Why.TOLD_TWICE if told is not None and abs(event.time - told) <= self._WITHIN else event
