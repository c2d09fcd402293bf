"""The lines of Asterisk's log that are not security events: one section for each of Asterisk's source files.

The lines of chan_sip have a module of their own (:mod:`~ringfence.parse.chan_sip`).

Each function that :mod:`~ringfence.parse.log` calls takes the bytes after the line's prefix, the source, and
the time of the line. It returns an event, an alarm, or the reason why there is neither. The address in such a
line may come from the sender's text, so each section states what the sender can write, and where.
"""

import re
from collections import OrderedDict
from typing import TYPE_CHECKING

from ringfence.parse.address import parse_source
from ringfence.parse.line_result import LogAlarm, OpenMessage, Parsed, Reason, make_event, sip_user, text_of
from ringfence.values.event import (
    UNNAMED,
    EventKind,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
    method_of,
    short_account,
    short_session,
)
from ringfence.values.fast import evolve

if TYPE_CHECKING:
    from ringfence.values.network import Address

# -- NOTICE and WARNING lines of res_pjsip: the distributor, the session, the registrar, the ACLs
#
# ``res/res_pjsip/pjsip_distributor.c:log_failed_request`` logs a line for each security event of a failed
# request, except ChallengeSent. The form depends on the release:
#
# - 12, 13.0-13.9: ``Request from '%s' failed for '%s:%d' (callid: %s) - No matching endpoint found``
# - 13.10-16.0: ``Request '%s' from '%s' failed for '%s:%d' (callid: %s) - %s``; IPv6 without brackets
# - later: ``Request '%s' from '%s' failed for '%s' (callid: %s) - %s``, perhaps `` after %u tries in %.3f
#   ms``
#
# The sender writes the method and the From before the address, and the Call-ID after it. So each address
# between ``' failed for '`` and ``' (callid: `` may be the true one. A message with several addresses, or
# with an ESC, gives an event with ``readings``: one event for each address, at most ``_MOST_CLAIMS``. The
# reason is the text after the last ``) - ``. A message with one address and no ESC can be forged too. The
# log leaves out an ESC in the display name and everything after it up to the next ``m``, which may be in
# the Call-ID. So nothing shows that text is missing, and these events are marked ``forgeable``.
#
# ``res/res_pjsip_session.c``: the address stands before the extension, which is the sender's text and may
# hold newlines. ``res/res_pjsip_registrar.c`` reports faults in the configuration of phones that have
# sent the right password. ``res/res_pjsip_acl.c`` prints, for a contact ACL, the address in the Contact
# header: the sender's text.


_CLAIM = re.compile(rb"' failed for '([^'\n]{1,80}+)' \(callid: ")
_START = re.compile(rb"Request (?:'([^ \n]{0,8192}+) )?from '")
# The form of nearly all messages: one address, and no character that could hide another.
_SIMPLE = re.compile(
    rb"Request (?:'([^' \n\x1b]{1,64}+)' )?from '([^'\n\x1b]*+)' failed for '([^'\n\x1b]{1,80}+)' "
    rb"\(callid: ([^')\n\x1b]*+)\) - ([A-Za-z ]{1,64}+)"
)
_TRIES = re.compile(rb" after \d{1,10}+ tries in \d{1,10}+\.\d{1,3}+ ms")
_PJSIP_REASONS: dict[bytes, tuple[EventKind, str]] = {
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
    """Parse PJSIP's log message ``Request '…' from '…' failed for '…' (callid: …) - …``.

    Return its event, or why it gives none. ``time`` is that of the line (seconds since the epoch).
    """
    simple = _SIMPLE.fullmatch(text)
    if simple is not None:
        method, header, address, session, reason = simple.groups()
        return _failed(method, header, address, session, reason, source, time)
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
        _failed(
            start[1] and start[1].removesuffix(b"'"),
            *(text[start.end() : claim.start()], claim[1], before[claim.end() :], reason, source, time),
        )
        for claim in claims
    ]
    if len(readings) == 1 and _ESC not in text:
        return readings[0]
    events = tuple(reading for reading in readings if isinstance(reading, SecurityEvent))
    return evolve(events[0], readings=events) if events else Reason.AMBIGUOUS


def _failed(
    method: bytes | None,
    header: bytes,
    address: bytes,
    session: bytes,
    reason: bytes,
    source: SourceId,
    time: float,
) -> SecurityEvent | Reason:
    """Return the event of PJSIP's notice, at ``time`` (epoch), that a request failed, or why there is none.

    The ``bytes`` are parts of the notice: the SIP method (None if not named), the From header, the sender's
    address with a port, the Call-ID and the reason.
    """
    found = _PJSIP_REASONS.get(reason) or _after_tries(reason)
    if found is None:
        return Reason.UNKNOWN_WORDING
    remote = parse_source(address, has_port=True)  # before 13.24 without brackets, also for IPv6
    if remote is None:
        return Reason.NOT_AN_ADDRESS
    kind, acl_name = found
    return SecurityEvent(
        source,
        kind,
        Service.PJSIP,
        remote,
        time,
        short_account(sip_user(header)),
        short_session(session),
        acl_name,
        forgeable=True,
        method=UNNAMED if method is None else method_of(method),
    )


def _after_tries(reason: bytes) -> tuple[EventKind, str] | None:
    words, _, _ = reason.partition(b" after ")
    return _PJSIP_REASONS.get(words) if _TRIES.fullmatch(reason, len(words)) else None


_PJSIP_CALL = re.compile(
    rb"(?:Call from '(?P<old>[^'\n]{0,128}+)' |(?P<name>[^\n:]{0,128}+): Call )"
    rb"\((?P<transport>[A-Za-z]{2,6}+):(?P<address>[^)\n]{1,80}+)\) to extension '"
)
PJSIP_CALL_END = re.compile(rb"' rejected because extension not found in context '[^'\n]*+'\.\Z")
_TRANSPORTS = {str(t).lower().encode(): t for t in Transport if t is not Transport.UNKNOWN}


def parse_session(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse PJSIP's log message ``alice: Call (UDP:…) to extension '…' rejected …``.

    Return its event, or why it gives none. ``time`` is that of the line (seconds since the epoch). The
    account is the name in the line. Some versions write the endpoint, others the channel.
    """
    call = _PJSIP_CALL.match(text)
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
    return (
        result
        if PJSIP_CALL_END.search(text, max(0, len(text) - 512))
        else OpenMessage(result, PJSIP_CALL_END)
    )


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
    """Parse the log message by which PJSIP's registrar refuses an AOR, whose name the sender wrote.

    Return its event, or why it gives none. ``time`` is that of the line (seconds since the epoch).
    """
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


def parse_pjsip_acl(text: bytes, source: SourceId, time: float) -> Parsed:  # noqa: ARG001 - gives no event
    """Parse PJSIP's log message ``Incoming SIP message from … did not pass ACL test``.

    Return the reason why it gives no event: its address may be the sender's text.
    """
    is_refusal = text.startswith(b"Incoming SIP message from ") and text.endswith(b" did not pass ACL test")
    return Reason.SENDERS_TEXT if is_refusal else Reason.NOT_EVIDENCE


# -- lines of chan_iax2 (``channels/chan_iax2.c``), which raises no security events
#
# Names are the sender's text and may hold anything. If the address stands before the name, it is read right
# after the first words; otherwise at the end of the message. The digests that Asterisk prints (even the
# expected one) are never kept. In lines about RSA the "host" is the name of a peer, so these lines name no
# address.


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
IAX2_END = re.compile(rb" \(from [^ ()\n]{2,80}+\)\Z")
IAX2_ENDS = (_DIGESTS, _NOT_EXIST, _QUOTE)
WEAK_ENDS = frozenset({_QUOTE})
"""Patterns of a message's end that fit many log lines, so they count only near the message's beginning."""
_NO_IAX2_SOURCE = re.compile(
    rb"Host '?[^\n]{0,255}'? (?:failed RSA authentication with inkeys|trying to do RSA authentication)"
)


def parse_iax2(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse a message that chan_iax2 logged at ``time`` (epoch); return its event, or why it gives none."""
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
                    if b"' " in text[len(start) :]
                    else OpenMessage(Reason.CUT, IAX2_END, may_span=False)
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
    return Reason.NO_SOURCE if _NO_IAX2_SOURCE.match(text) else Reason.NOT_EVIDENCE


# -- NOTICE lines of ``main/acl.c``: ``%sRejecting '%s' due to a failure to pass ACL '%s'``
#
# The words before ``Rejecting`` name the part of Asterisk that checked the address against the ACL. The
# detector must not count this line: except for HTTP, another line of the log reports the same attempt. So
# the event gets the ACL name ``acl:<name of the list>``, and the detector counts no event with such a name.
# chan_iax2 checks the address against the list of every user, so its line does not always mean a refusal.


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


def parse_acl(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse a message that Asterisk's acl.c logged at ``time`` (epoch); return its event, or why none.

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


# -- lines that well-known dialplans write themselves (``apps/app_verbose.c``, ``Log()``)
#
# FreePBX writes ``Ext. s: "Rejecting unknown SIP connection from 203.0.113.9"``. Pages about fail2ban
# recommend to administrators ``Incoming SIP connection from unknown peer failed for … - Unknown connection
# from peer`` and ``hacking attempt detected '…'``. The extension before the message is what the caller
# dialled, and may imitate these words. So only their last occurrence counts, and the address that follows
# must end the message.


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
DIALPLAN_END = re.compile(
    b"(?:" + b"|".join(re.escape(words) + tail.pattern for words, tail, _ in _WORDS) + b")"
)
_WHOLE = re.compile(rb"[^:\n]{1,80}+:")


def parse_dialplan(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse a log message that the dialplan wrote at ``time`` (epoch); ``text`` begins with the extension.

    Return its event, or why it gives none.
    """
    for words, tail, acl_name in _WORDS:
        at = text.rfind(words)
        found = tail.match(text, at + len(words)) if at >= 0 else None
        if found is not None:
            return make_event(
                source, Service.DIALPLAN, EventKind.FAILED_ACL, found[1], time, acl_name=acl_name
            )
    return (
        Reason.NOT_EVIDENCE if _WHOLE.match(text) else OpenMessage(Reason.CUT, DIALPLAN_END, may_span=False)
    )


# -- NOTICE lines of failed logins to the manager interface (``main/manager.c:authenticate``)
#
# The address comes first, without a port. The user is the sender's text, and over HTTP it may hold
# newlines. There are three messages: ``… tried to authenticate with nonexistent user '…'``, ``… failed to
# pass IP ACL as '…'`` and ``… failed to authenticate as '…'``. After each of the first two, Asterisk also
# logs the third for the same login. That line does not count (:class:`LoginDeduplicator`).


_LOGIN = re.compile(
    rb"([^ '\n]{2,80}+) (tried to authenticate with nonexistent user|failed to pass IP ACL as"
    rb"|failed to authenticate as) '"
)
LOGIN_END = _QUOTE
_KINDS = {
    b"tried to authenticate with nonexistent user": EventKind.INVALID_ACCOUNT_ID,
    b"failed to pass IP ACL as": EventKind.FAILED_ACL,
    b"failed to authenticate as": EventKind.INVALID_PASSWORD,
}


def parse_manager(text: bytes, source: SourceId, time: float) -> Parsed:
    """Parse a message that Asterisk's manager.c logged at ``time`` (epoch); return its event, or why none."""
    login = _LOGIN.match(text)
    if login is None:
        return Reason.NOT_EVIDENCE
    whole = LOGIN_END.search(text, max(login.end(), len(text) - 1))
    account = text_of(text[login.end() : len(text) - 1 if whole else len(text)])
    result = make_event(
        source, Service.AMI, _KINDS[login[2]], login[1], time, account, transport=Transport.TCP
    )
    return result if whole else OpenMessage(result, LOGIN_END)


class LoginDeduplicator:
    """Finds ``failed to authenticate`` messages of AMI logins that another message already reported.

    The two messages must name the same address and user, and be at most ``_WITHIN`` seconds apart. Otherwise
    both count.
    """

    _MOST = 256
    _WITHIN = 5.0  # seconds, by the log's own time

    def __init__(self) -> None:
        self._reported: OrderedDict[tuple[Address, str], float] = OrderedDict()

    def deduplicate(self, event: SecurityEvent) -> SecurityEvent | Reason:
        """Record a failed login; return its event, or DUPLICATE if another message has reported it."""
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


# -- log lines in which Asterisk reports faults of its own log or events: alarms, never evidence
#
# ``main/logger.c``: the log loses lines if more than ``logger_queue_limit`` (1000) messages wait.
# ``main/security_events.c``: Asterisk reports no event with a byte that is not UTF-8, neither on the
# manager interface nor in the log. So a sender that puts such a byte into a Call-ID stays hidden in both.


_QUEUE_FULL = (
    b"Log queue threshold (",
    # Since August 2026 Asterisk discards notices and security events first, and the others later.
    b"Log queue WARNING / ERROR threshold (",
    b"Log queue does not have any non-WARNING/ERROR messages left",
)
OPENED = re.compile(
    rb"\[[^\[\]\n]{5,48}+\] Asterisk \S{1,200}+ built by \S{1,100}+ @ \S{1,255}+"
    rb" on a \S{1,100}+ running \S{1,100}+ on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
)
"""The line that Asterisk writes when it opens a log, after the older contents (``main/logger.c``).

The reader of the log ignores such a line. A sender gains nothing by forging it within a message: Asterisk's
own end of the message follows on a later line, which is not ignored.
"""


def parse_logger(text: bytes, source: SourceId, time: float) -> Parsed:  # noqa: ARG001 - gives no event
    """Return the alarm of a message of Asterisk's logger that lines were lost, or are no longer lost.

    Return NOT_EVIDENCE for any other message.
    """
    if text.startswith(_QUEUE_FULL):
        return LogAlarm.QUEUE_FULL
    return LogAlarm.QUEUE_RESUMED if text.startswith(b"Logging resumed.") else Reason.NOT_EVIDENCE


def parse_security_events(text: bytes, source: SourceId, time: float) -> Parsed:  # noqa: ARG001 - gives no event
    """Return the alarm of the message by which Asterisk logs that it could not report a security event.

    Return NOT_EVIDENCE for any other message.
    """
    silenced = text.startswith(b"Failed to issue security event of type ")
    return LogAlarm.SILENCED if silenced else Reason.NOT_EVIDENCE
