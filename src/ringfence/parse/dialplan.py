"""Lines that well-known dialplans write themselves (``apps/app_verbose.c``, ``Log()``).

FreePBX writes ``Ext. s: "Rejecting unknown SIP connection from 203.0.113.9"``. Pages about fail2ban recommend
to administrators ``Incoming SIP connection from unknown peer failed for … - Unknown connection from peer``
and ``hacking attempt detected '…'``. The extension before the message is what the caller dialled, and may
imitate these words. So only their last occurrence counts, and the address that follows must end the message.
"""

import re

from ringfence.model import EventKind, Service, SourceId
from ringfence.parse.line_result import OpenMessage, Parsed, Reason, make_event

_ADDRESS = rb"([^ '\"\n]{2,80}+)"
# The words before the address, the end of the message, and the ACL name of the event.
_WORDS: tuple[tuple[bytes, re.Pattern[bytes], str], ...] = (
    (b"Rejecting unknown SIP connection from ", re.compile(_ADDRESS + rb"\"?\Z"), "unknown_sip_connection"),
    (
        b"Incoming SIP connection from unknown peer failed for ",
        re.compile(rb"'?" + _ADDRESS + rb"'? - Unknown connection from peer\"?\Z"),
        "unknown_peer",
    ),
    (b"hacking attempt detected '", re.compile(_ADDRESS + rb"'\"?\Z"), "hacking_attempt"),
)
END = re.compile(
    rb"(?:Rejecting unknown SIP connection from |Incoming SIP connection from unknown peer failed for "
    rb"|hacking attempt detected ')[^\n]{2,160}+\Z"
)
_WHOLE = re.compile(rb"[^:\n]{1,80}+:")


def parse(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse a message of the dialplan; ``text`` begins with the extension."""
    for words, tail, acl_name in _WORDS:
        at = text.rfind(words)
        found = tail.match(text, at + len(words)) if at >= 0 else None
        if found is not None:
            return make_event(
                source, Service.DIALPLAN, EventKind.FAILED_ACL, found[1], time, acl_name=acl_name
            )
    return Reason.NOT_EVIDENCE if _WHOLE.match(text) else OpenMessage(Reason.CUT, END, may_span=False)
