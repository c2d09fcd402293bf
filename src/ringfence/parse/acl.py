"""NOTICE lines of ``main/acl.c``: ``%sRejecting '%s' due to a failure to pass ACL '%s'``.

The words before ``Rejecting`` name the part of Asterisk that checked the address against the ACL. The
detector must not count this line: except for HTTP, another line of the log reports the same attempt. So the
event gets the ACL name ``acl:<name of the list>``, and the detector counts no event with such a name.
chan_iax2 checks the address against the list of every user, so its line does not always mean a refusal.
"""

import re

from ringfence.model import EventKind, Service, SourceId
from ringfence.parse.line_result import Parsed, Reason, make_event, text_of

_REJECTING = re.compile(
    rb"(SIP|SIP Contact|SIP Peer|IAX2 user|IAX2 Peer|Manager User|HTTP Path)(?: ACL)?:? ?"
    rb"Rejecting '([^'\n]{2,80}+)' due to a failure to pass ACL '([^'\n]{0,128}+)'\Z"
)
_SERVICES = {
    b"SIP": Service.PJSIP,
    b"SIP Peer": Service.SIP,
    b"IAX2 user": Service.IAX2,
    b"IAX2 Peer": Service.IAX2,
    b"Manager User": Service.AMI,
    b"HTTP Path": Service.AMI,
}


def parse(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse a message that Asterisk's acl.c logged.

    A message of ``SIP Contact ACL`` gives no event, because it prints the address of the Contact header,
    which the sender wrote.
    """
    found = _REJECTING.match(text)
    if found is None:
        return Reason.NOT_EVIDENCE
    if found[1] == b"SIP Contact":
        return Reason.SENDERS_TEXT
    name = "acl:" + text_of(found[3])
    return make_event(source, _SERVICES[found[1]], EventKind.FAILED_ACL, found[2], time, acl_name=name)
