"""NOTICE lines of failed logins to the manager interface (``main/manager.c:authenticate``).

The address comes first, without a port. The user is the sender's text, and over HTTP it may hold line feeds.
There are three messages: ``… tried to authenticate with nonexistent user '…'``, ``… failed to pass IP ACL as
'…'`` and ``… failed to authenticate as '…'``. After each of the first two, Asterisk also logs the third for
the same login. That line does not count (:class:`LoginDeduplicator`).
"""

import re
from collections import OrderedDict

from ringfence.model import Address, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.parse.line_result import OpenMessage, Parsed, Reason, make_event, text_of

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


def parse(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse a message that manager.c logged."""
    login = _LOGIN.match(text)
    if login is None:
        return Reason.NOT_EVIDENCE
    whole = _LOGIN_END.search(text, max(login.end(), len(text) - 1))
    account = text_of(text[login.end() : len(text) - 1 if whole else len(text)])
    result = make_event(
        source, Service.AMI, _KINDS[login[2]], login[1], time, account, transport=Transport.TCP
    )
    return result if whole else OpenMessage(result, _LOGIN_END)


class LoginDeduplicator:
    """Recognises ``failed to authenticate`` messages for logins that another message has already reported.

    The two messages must name the same address and user, and be at most ``_WITHIN`` seconds apart. Otherwise
    both count.
    """

    _MOST = 256
    _WITHIN = 5.0  # seconds, by the log's own time

    def __init__(self) -> None:
        self._reported: OrderedDict[tuple[Address, str], float] = OrderedDict()

    def deduplicate(self, event: SecurityEvent) -> SecurityEvent | Reason:
        """Return the event, or DUPLICATE if another message has already reported this login."""
        key = event.remote.address, event.account
        if event.kind is not EventKind.INVALID_PASSWORD:
            self._reported[key] = event.time
            self._reported.move_to_end(key)
            if len(self._reported) > self._MOST:
                self._reported.popitem(last=False)
            return event
        reported = self._reported.pop(key, None)
        return (
            Reason.DUPLICATE if reported is not None and abs(event.time - reported) <= self._WITHIN else event
        )
