"""NOTICE, WARNING and ERROR lines of chan_sip (``channels/chan_sip.c``), Asterisk 1.4 to 20.

``Registration from '%s' failed for '%s' - %s``: the To header is the sender's text and stands before the
address. So the last ``' failed for '…' - <a known reason>`` at the end of the message counts. Up to 1.6
the address has no port.

This address is the true source, even where chan_sip's security events name another one. There are two
exceptions. It can be forged if the reason contains an ``m``. An ESC at the end of the To header makes the
log leave out all text up to the next ``m``, and so the true address. The To header itself may contain the
same words with another address. So a line with such a reason is marked ``forgeable``. So is a message that
may be cut within the To header (:mod:`~ringfence.parse.log_messages`).

``Call from '%s' (%s) to extension '%s' rejected …``: the extension is the sender's text and may hold
newlines; before 1.8.1 the line names no address. The account is the name of the peer, and is empty for
a guest.

``hacking attempt detected '%s'``: a patched chan_sip writes this, for that of 16.28 has no such message.
In fail2ban's example it stands right before ``Sending fake auth rejection for device …`` and names the
address of the packet. So it reports a refused call without an account. It counts as a probe, because AMI
may report the same request as a guess (InvalidAccountID). If both were guesses, one request would count
twice.

``Failed to authenticate …``, ``Sending fake auth rejection …``, ``username mismatch …`` and ``Peer … is
trying to register …`` name no source: an address in them is the sender's text.
"""

import re

from ringfence.parse.line_result import OpenMessage, Parsed, Reason, make_event, sip_user, text_of
from ringfence.values.event import EventKind, Service, SourceId

_FAILED = b"' failed for '"
_TAIL = re.compile(rb"([^'\n]{1,255}+)' - ([^'\n]{1,64}+)\Z")
_REASONS: dict[bytes, tuple[EventKind, str] | None] = {
    b"Wrong password": (EventKind.INVALID_PASSWORD, ""),
    b"Username/auth name mismatch": (EventKind.CHALLENGE_RESPONSE_FAILED, ""),
    b"No matching peer found": (EventKind.INVALID_ACCOUNT_ID, ""),
    b"Not a local domain": (EventKind.FAILED_ACL, "domain_must_match"),
    b"Peer is not supposed to register": (EventKind.FAILED_ACL, "peer_not_dynamic"),
    b"Device does not match ACL": (EventKind.FAILED_ACL, "device_must_match_acl"),
    b"ACL error (permit/deny)": (EventKind.FAILED_ACL, "device_must_match_acl"),
    b"Device not configured to use this transport type": (EventKind.INVALID_TRANSPORT, ""),
    b"RTP initialization failed": None,
    b"Unknown failure": None,
}
_CALL = re.compile(rb"' \(([^)\n]{1,80}+)\) to extension '")
_CALL_FROM = b"Call from '"
CALL_END = re.compile(rb"' rejected because extension not found(?: in context '[^'\n]*+')?\.\Z")
_HACKING = re.compile(rb"hacking attempt detected '([^'\n]{2,80}+)'\Z")
_NO_SOURCE = re.compile(
    rb"Failed to authenticate |Sending fake auth rejection for |username mismatch, have <"
    rb"|Peer '[^\n]{0,512}' is trying to register, but not configured as host=dynamic"
)


def parse_chan_sip(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse a message that chan_sip logged at ``time`` (epoch); return its event, alarm, or why neither."""
    if text.startswith(b"Registration from '"):
        return _parse_registration(text, source, time)
    if text.startswith(_CALL_FROM):
        return _parse_call(text, source, time)
    hacking = _HACKING.match(text)
    if hacking is not None:
        kind, acl_name = EventKind.FAILED_ACL, "hacking_attempt"
        return make_event(source, Service.SIP, kind, hacking[1], time, acl_name=acl_name)
    return Reason.NO_SOURCE if _NO_SOURCE.match(text) else Reason.NOT_EVIDENCE


def _parse_registration(text: bytes, source: SourceId, time: float) -> Parsed:
    at = text.rfind(_FAILED)
    tail = _TAIL.match(text, at + len(_FAILED)) if at >= 0 else None
    if tail is None:
        return Reason.CUT
    found = _REASONS.get(tail[2], Reason.UNKNOWN_WORDING)
    if isinstance(found, Reason) or found is None:
        return found or Reason.NO_ATTEMPT
    kind, acl_name = found
    account = sip_user(text[len(b"Registration from '") : at])
    forgeable = b"m" in tail[2]
    return make_event(
        source, Service.SIP, kind, tail[1], time, account, acl_name=acl_name, forgeable=forgeable
    )


def _parse_call(text: bytes, source: SourceId, time: float) -> Parsed:
    claims = list(_CALL.finditer(text))
    whole = CALL_END.search(text, max(0, len(text) - 512))
    if not claims:
        return Reason.NO_SOURCE if whole else OpenMessage(Reason.CUT, CALL_END)
    if len(claims) > 1:
        return Reason.AMBIGUOUS if whole else OpenMessage(Reason.AMBIGUOUS, CALL_END)
    claim = claims[0]
    result = make_event(
        source,
        Service.SIP,
        EventKind.FAILED_ACL,
        claim[1],
        time,
        text_of(text[len(_CALL_FROM) : claim.start()]),
        acl_name="no_extension_match",
    )
    return result if whole else OpenMessage(result, CALL_END)
