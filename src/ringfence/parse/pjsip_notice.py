"""NOTICE and WARNING lines of res_pjsip: the distributor, the session, the registrar, the ACLs.

``res/res_pjsip/pjsip_distributor.c:log_failed_request`` logs a line for each security event of a failed
request, except ChallengeSent. The form depends on the release:

- 12, 13.0-13.9: ``Request from '%s' failed for '%s:%d' (callid: %s) - No matching endpoint found``
- 13.10-16.0: ``Request '%s' from '%s' failed for '%s:%d' (callid: %s) - %s``; IPv6 without brackets
- later: ``Request '%s' from '%s' failed for '%s' (callid: %s) - %s``, perhaps `` after %u tries in %.3f ms``

The sender writes the method and the From before the address, and the Call-ID after it. So each address
between ``' failed for '`` and ``' (callid: `` may be the true one. A message with several addresses, or with
an ESC, gives an event with ``readings``: one event for each address, at most ``_MOST_CLAIMS``. The reason is
the text after the last ``) - ``. A message with one address and no ESC can be forged too. The log leaves out
an ESC in the display name and everything after it up to the next ``m``, which may be in the Call-ID. So
nothing shows that text is missing, and these events are marked ``forgeable``.

``res/res_pjsip_session.c``: the address stands before the extension, which is the sender's text and may hold
line feeds. ``res/res_pjsip_registrar.c`` reports faults in the configuration of phones that have sent the
right password. ``res/res_pjsip_acl.c`` prints, for a contact ACL, the address in the Contact header: the
sender's text.
"""

import re

from ringfence.event_values import evolve
from ringfence.model import EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.parse.address import parse_source
from ringfence.parse.line_result import OpenMessage, Parsed, Reason, make_event, sip_user, text_of

_CLAIM = re.compile(rb"' failed for '([^'\n]{1,80}+)' \(callid: ")
_START = re.compile(rb"Request (?:'[^ \n]{0,8192}+ )?from '")
# The form of nearly all messages: one address, and no character that could hide another.
_SIMPLE = re.compile(
    rb"Request (?:'[^' \n\x1b]{1,64}+' )?from '([^'\n\x1b]*+)' failed for '([^'\n\x1b]{1,80}+)' "
    rb"\(callid: ([^')\n\x1b]*+)\) - ([A-Za-z ]{1,64}+)"
)
_TRIES = re.compile(rb" after \d{1,10}+ tries in \d{1,10}+\.\d{1,3}+ ms")
_REASONS: dict[bytes, tuple[EventKind, str]] = {
    b"No matching endpoint found": (EventKind.INVALID_ACCOUNT_ID, ""),
    b"Not match Endpoint ACL": (EventKind.FAILED_ACL, "not_match_endpoint_acl"),
    b"Not match Endpoint Contact ACL": (EventKind.FAILED_ACL, "not_match_endpoint_contact_acl"),
    b"Failed to authenticate": (EventKind.CHALLENGE_RESPONSE_FAILED, ""),
    b"Error to authenticate": (EventKind.CHALLENGE_RESPONSE_FAILED, ""),
}
_ESC = b"\x1b"
_MOST_CLAIMS = 8
"""The maximum number of addresses in a line. A line with more gives no event.

If a line names several addresses, an address counts if it has a TCP connection from the named port. Without
this limit, a sender could write a victim's address with many ports into one line. One of these ports could be
that of a true connection of the victim.
"""


def parse_distributor(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse ``Request '…' from '…' failed for '…' (callid: …) - …``."""
    simple = _SIMPLE.fullmatch(text)
    if simple is not None:
        header, address, session, reason = simple.groups()
        return _failed(header, address, session, reason, source, time)
    start = _START.match(text)
    if start is None:
        return Reason.NOT_EVIDENCE
    claims = list(_CLAIM.finditer(text, start.end() - 1))
    if not 1 <= len(claims) <= _MOST_CLAIMS:
        return Reason.AMBIGUOUS
    before, end, reason = text.rpartition(b") - ")
    if not end or len(before) < claims[-1].end():
        return Reason.CUT
    readings = [
        _failed(text[start.end() : claim.start()], claim[1], before[claim.end() :], reason, source, time)
        for claim in claims
    ]
    if len(readings) == 1 and _ESC not in text:
        return readings[0]
    events = tuple(reading for reading in readings if isinstance(reading, SecurityEvent))
    return evolve(events[0], readings=events) if events else Reason.AMBIGUOUS


def _failed(
    header: bytes, address: bytes, session: bytes, reason: bytes, source: SourceId, time: float
) -> SecurityEvent | Reason:
    found = _REASONS.get(reason) or _after_tries(reason)
    if found is None:
        return Reason.UNKNOWN_WORDING
    # Before 13.24 an IPv6 address had no brackets, and always a port.
    remote = parse_source(address, has_port=address.count(b":") > 1 and address[:1] != b"[")
    if remote is None:
        return Reason.NOT_AN_ADDRESS
    kind, acl_name = found
    return SecurityEvent(
        source, kind, Service.PJSIP, remote, time, sip_user(header), session, acl_name, forgeable=True
    )


def _after_tries(reason: bytes) -> tuple[EventKind, str] | None:
    words, _, _ = reason.partition(b" after ")
    return _REASONS.get(words) if _TRIES.fullmatch(reason, len(words)) else None


_CALL = re.compile(
    rb"(?:Call from '(?P<old>[^'\n]{0,128}+)' |(?P<name>[^\n:]{0,128}+): Call )"
    rb"\((?P<transport>[A-Za-z]{2,6}+):(?P<address>[^)\n]{1,80}+)\) to extension '"
)
_CALL_END = re.compile(rb"' rejected because extension not found in context '[^'\n]*+'\.\Z")
_TRANSPORTS = {str(t).lower().encode(): t for t in Transport if t is not Transport.UNKNOWN}


def parse_session(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse ``alice: Call (UDP:…) to extension '…' rejected …``.

    The account is the name in the line. Some versions write the endpoint, others the channel.
    """
    call = _CALL.match(text)
    if call is None:
        return Reason.NOT_EVIDENCE
    result = make_event(
        source,
        Service.PJSIP,
        EventKind.FAILED_ACL,
        call["address"],
        time,
        text_of(call["name"] if call["old"] is None else call["old"]),
        acl_name="no_extension_match",
        transport=_TRANSPORTS.get(call["transport"].lower(), Transport.UNKNOWN),
    )
    return result if _CALL_END.search(text, max(0, len(text) - 512)) else OpenMessage(result, _CALL_END)


_REGISTRAR: tuple[tuple[re.Pattern[bytes], EventKind, str], ...] = (
    (
        re.compile(
            rb"Registration attempt from endpoint '(?P<a>[^'\n]{0,128}+)' \((?P<ip>[^)\n]{1,80}+)\) to AOR '"
        ),
        EventKind.FAILED_ACL,
        "registrar_attempt_exceeds_maximum_configured_contacts",
    ),
    (
        re.compile(rb"Endpoint '(?P<a>[^'\n]{0,128}+)' \((?P<ip>[^)\n]{1,80}+)\) has no configured AORs"),
        EventKind.FAILED_ACL,
        "registrar_attempt_without_configured_aors",
    ),
    (
        re.compile(
            rb"Endpoint '(?P<a>[^'\n]{0,128}+)' \((?P<ip>[^)\n]{1,80}+)\) attempted to register to an AOR "
        ),
        EventKind.FAILED_ACL,
        "registrar_invalid_uri_in_to_received",
    ),
)
_AOR_ENDS: tuple[tuple[bytes, re.Pattern[bytes]], ...] = (
    (
        b"' not found for endpoint '",
        re.compile(rb"(?P<a>[^'\n]{0,128}+)' \((?P<ip>[^)\n]{1,80}+)\)\Z"),
    ),
    (
        b"' has no configured max_contacts. Endpoint '",
        re.compile(rb"(?P<a>[^'\n]{0,128}+)' \((?P<ip>[^)\n]{1,80}+)\) unable to register\Z"),
    ),
)
REGISTRAR_END = re.compile(
    rb"(?:' not found for endpoint '[^'\n]{0,128}+' \([^)\n]{1,80}+\)"
    rb"|' has no configured max_contacts\. Endpoint '[^'\n]{0,128}+' \([^)\n]{1,80}+\) unable to register)\Z"
)


def parse_registrar(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse the registrar's refusal of an endpoint; the name of the AOR is the sender's text."""
    for pattern, kind, acl_name in _REGISTRAR:
        found = pattern.match(text)
        if found is not None:
            account = text_of(found["a"])
            return make_event(
                source, Service.PJSIP, kind, found["ip"], time, account, acl_name=acl_name, has_port=True
            )
    if not text.startswith(b"AOR '"):
        return Reason.NOT_EVIDENCE
    for middle, tail in _AOR_ENDS:
        at = text.rfind(middle)
        found = tail.match(text, at + len(middle)) if at >= 0 else None
        if found is not None:
            kind, account = EventKind.REQUEST_NOT_SUPPORTED, text_of(found["a"])
            return make_event(source, Service.PJSIP, kind, found["ip"], time, account, has_port=True)
    return OpenMessage(Reason.CUT, REGISTRAR_END, may_span=False)


def parse_acl(text: bytes, source: SourceId, time: float) -> Parsed:  # noqa: ARG001 - gives no event
    """Parse ``Incoming SIP message from … did not pass ACL test``.

    It gives no event, because its address may be the sender's text.
    """
    is_refusal = text.startswith(b"Incoming SIP message from ") and text.endswith(b" did not pass ACL test")
    return Reason.SENDERS_TEXT if is_refusal else Reason.NOT_EVIDENCE
