"""Lines of chan_iax2 (``channels/chan_iax2.c``), which raises no security events.

Names are the sender's text and may hold anything. If the address stands before the name, it is read right
after the first words; otherwise at the end of the message. The digests that Asterisk prints (even the
expected one) are never kept. In lines about RSA the "host" is the name of a peer, so these lines name no
address.
"""

import re

from ringfence.model import EventKind, Service, SourceId, Transport
from ringfence.parse.line_result import OpenMessage, Parsed, Reason, make_event, text_of

_HOST = rb"([^ ',\n]{2,80}+)"
_FAILED_MD5 = re.compile(rb"Host " + _HOST + rb" failed MD5 authentication for '")
_DIGESTS = re.compile(rb"' \([^() \n]{0,80}+ != [^() \n]{0,80}+\)\Z")
_BEFORE_DIGESTS = b"' ("
_QUOTE = re.compile(rb"'\Z")
_NOT_EXIST = re.compile(rb"' does not exist\Z")
_ANY = re.compile(rb"\Z")

# Messages with the address first: the words, the end of the message, the kind, the ACL name.
_FIRST: tuple[tuple[re.Pattern[bytes], re.Pattern[bytes], EventKind, str], ...] = (
    (_FAILED_MD5, _DIGESTS, EventKind.INVALID_PASSWORD, ""),
    (
        re.compile(rb"Host " + _HOST + rb" did not provide proper plaintext password for '"),
        _QUOTE,
        EventKind.INVALID_PASSWORD,
        "",
    ),
    (
        re.compile(rb"Host " + _HOST + rb" denied access to register peer '"),
        _QUOTE,
        EventKind.FAILED_ACL,
        "device_must_match_acl",
    ),
    (re.compile(rb"Host " + _HOST + rb" failed to authenticate as "), _ANY, EventKind.INVALID_PASSWORD, ""),
    (
        re.compile(rb"Rejected connect attempt from " + _HOST + rb", who was trying to reach '"),
        _QUOTE,
        EventKind.FAILED_ACL,
        "connect_rejected",
    ),
    (
        re.compile(rb"Rejected connect attempt from " + _HOST + rb", request(?:ed)? '"),
        _NOT_EXIST,
        EventKind.FAILED_ACL,
        "no_extension_match",
    ),
    (re.compile(rb"Empty registration from " + _HOST + rb"\Z"), _ANY, EventKind.INVALID_ACCOUNT_ID, ""),
    (
        re.compile(rb"Address " + _HOST + rb" failed CallToken hash inspection\Z"),
        _ANY,
        EventKind.FAILED_ACL,
        "call_token",
    ),
    (
        re.compile(
            rb"Call rejected, CallToken Support required\. If unexpected, resolve by placing address "
            + _HOST
            + rb" in the calltokenoptional list or setting user "
        ),
        re.compile(rb" requirecalltoken=no\Z"),
        EventKind.FAILED_ACL,
        "call_token_required",
    ),
)
# Messages with the name first: the words before it, the words after it, the kind, the ACL name.
_LAST: tuple[tuple[bytes, bytes, EventKind, str], ...] = (
    (b"No registration for peer '", b"' (from ", EventKind.INVALID_ACCOUNT_ID, ""),
    (b"Peer '", b"' is not dynamic (from ", EventKind.FAILED_ACL, "peer_not_dynamic"),
)
END = re.compile(rb" \(from [^ ()\n]{2,80}+\)\Z")
_NO_SOURCE = re.compile(
    rb"Host '?[^\n]{0,255}'? (?:failed RSA authentication with inkeys|trying to do RSA authentication)"
)


def parse(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse a message that chan_iax2 logged."""
    for words, ends, kind, acl_name in _FIRST:
        found = words.match(text)
        if found is not None:
            end = ends.search(text, max(found.end(), len(text) - 256))
            account = text[found.end() : end.start() if end else len(text)].partition(_BEFORE_DIGESTS)[0]
            result = make_event(
                source,
                Service.IAX2,
                kind,
                found[1],
                time,
                text_of(account.strip(b"'")),
                acl_name=acl_name,
                transport=Transport.UDP,
            )
            return result if end else OpenMessage(result, ends)
    for start, middle, kind, acl_name in _LAST:
        if text.startswith(start):
            at = text.rfind(middle)
            address = text[at + len(middle) : -1]
            if at < len(start) - 1 or not text.endswith(b")"):
                return (
                    Reason.NOT_EVIDENCE
                    if text.find(b"' ", len(start)) >= 0
                    else OpenMessage(Reason.CUT, END, may_span=False)
                )
            account = text[len(start) : max(at, len(start))]
            return make_event(
                source,
                Service.IAX2,
                kind,
                address,
                time,
                text_of(account),
                acl_name=acl_name,
                transport=Transport.UDP,
            )
    return Reason.NO_SOURCE if _NO_SOURCE.match(text) else Reason.NOT_EVIDENCE
