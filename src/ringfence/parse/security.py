"""The grammar of a security event as an AMI packet: which headers, in which order.

From ``main/security_events.c`` and ``main/manager.c:__manager_event_sessions_va``, the same from Asterisk 12
to 23: a head that Asterisk writes, the account that the sender writes, a tail of three headers, then headers
that depend on the kind. Values are not escaped and have no length limit. The account may hold anything, CR LF
included (pjproject percent-decodes the user of a SIP URI). Only one value after it can contain CR LF: the
name of an action that came over HTTP, which has no room for a tail. So the first head before the account
and the last tail after it are Asterisk's own.

Strict and loose parsing are two functions: :func:`parse_strict` accepts only packets that follow the grammar
exactly, and :func:`parse_tampered` parses the others. Every pattern is anchored, matched whole, and
possessive, so each byte is examined a bounded number of times.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from attrs import evolve

from ringfence.model import EventKind, SecurityEvent, Service, SourceId
from ringfence.parse.address import parse_endpoint

EOL = b"\r\n"

_TIME = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}[+-]\d{4}"
_HEAD = re.compile(
    rb"Event: (?P<kind>[A-Za-z]{1,32}+)\r\n"
    rb"Privilege: security,all\r\n"
    # Asterisk writes these only if timestampevents, debug or systemname is set.
    rb"(?:(?:Timestamp|SequenceNumber|File|Line|Func|SystemName): [^\r]*+\r\n){0,6}"
    rb"EventTV: (?P<time>" + _TIME + rb")\r\n"
    rb"Severity: (?:Informational|Error)\r\n"
    rb"Service: (?P<service>PJSIP|SIP|AMI)\r\n"
    rb"EventVersion: \d{1,3}+\r\n"
)
_ACCOUNT = rb"AccountID: (?P<account>[^\r]*+)\r\n"
_TAIL = (
    rb"SessionID: (?P<session>[^\r]*+)\r\n"
    rb"LocalAddress: (?P<local>[^\r]*+)\r\n"
    rb"RemoteAddress: (?P<remote>[^\r]*+)"
)
_PACKET = re.compile(_HEAD.pattern + _ACCOUNT + _TAIL + rb"(?P<rest>(?:\r\n[^\r]*+)*)")
_PACKET_WITHOUT_ACCOUNT = re.compile(_HEAD.pattern + _TAIL + rb"(?P<rest>(?:\r\n[^\r]*+)*)")


def _rest(required: str = "", optional: str = "Module ACLName SessionTV") -> re.Pattern[bytes]:
    """Compile the pattern of the headers after the tail (``_TAIL``): ``required``, then ``optional`` ones.

    Both are names separated by blanks, in the order in which Asterisk writes the headers.
    """

    def header(name: str) -> bytes:
        return rb"\r\n%s: (?P<%s>%s)" % (
            name.encode(),
            name.encode(),
            _TIME if name == "SessionTV" else rb"[^\r]*+",
        )

    return re.compile(
        b"".join(header(name) for name in required.split())
        + b"".join(b"(?:" + header(name) + b")?" for name in optional.split())
    )


_AMI = b"AMI"
_POINTER = re.compile(rb"0x[0-9a-f]{1,16}+")
_BY_TCP = re.compile(rb"IPV[46]/(?:TCP|TLS)/[0-9a-fA-F:.]{2,45}+(?:%[^/\r]{1,16}+)?/[0-9]{1,5}+")

# The headers after the tail, by kind: those that are required, and those that may follow
# (main/security_events.c, `sec_events[]`).
_PLAIN = "Module SessionTV"
_RESTS: dict[EventKind, re.Pattern[bytes]] = {
    EventKind.FAILED_ACL: _rest(optional="Module ACLName SessionTV"),
    EventKind.INVALID_ACCOUNT_ID: _rest(optional=_PLAIN),
    EventKind.SESSION_LIMIT: _rest(optional=_PLAIN),
    EventKind.MEMORY_LIMIT: _rest(optional=_PLAIN),
    EventKind.LOAD_AVERAGE_LIMIT: _rest(optional=_PLAIN),
    EventKind.REQUEST_NOT_SUPPORTED: _rest("RequestType", _PLAIN),
    EventKind.REQUEST_NOT_ALLOWED: _rest("RequestType", "Module SessionTV RequestParams"),
    EventKind.AUTH_METHOD_NOT_ALLOWED: _rest("AuthMethod", _PLAIN),
    EventKind.REQUEST_BAD_FORMAT: _rest("RequestType", "Module SessionTV AccountID RequestParams"),
    EventKind.SUCCESSFUL_AUTH: _rest("UsingPassword", _PLAIN),
    EventKind.UNEXPECTED_ADDRESS: _rest("ExpectedAddress", _PLAIN),
    EventKind.CHALLENGE_RESPONSE_FAILED: _rest("Challenge Response ExpectedResponse", _PLAIN),
    EventKind.INVALID_PASSWORD: _rest(optional="Module SessionTV Challenge ReceivedChallenge ReceivedHash"),
    EventKind.CHALLENGE_SENT: _rest("Challenge", _PLAIN),
    EventKind.INVALID_TRANSPORT: _rest("AttemptedTransport", _PLAIN),
}
# The kinds with details: fields after the tail that are kept.
WITH_DETAILS = frozenset(
    {
        EventKind.FAILED_ACL,
        EventKind.CHALLENGE_RESPONSE_FAILED,
        EventKind.INVALID_PASSWORD,
        EventKind.CHALLENGE_SENT,
    }
)
USED = b"1"
"""The value of ``UsingPassword`` if a password was verified."""
KINDS = {str(kind).encode(): kind for kind in _RESTS}
_SERVICES = {str(service).encode(): service for service in Service}
_WITHOUT_ACCOUNT = str(EventKind.REQUEST_BAD_FORMAT).encode()


def starts_security_event(packet: bytes) -> bool:
    """Whether ``packet`` begins as Asterisk begins a security event, up to its account.

    ``AccountID`` must follow the head. Otherwise a sender could end an event early by a forged tail, and
    begin another event by a forged head: both fit into the 255 bytes of a chan_sip header. With ``AccountID``
    they do not fit. Only RequestBadFormat may lack ``AccountID``. Its name is long, so a forged tail and a
    forged head of this kind do not fit either.
    """
    head = _HEAD.match(packet)
    if head is None:
        return False
    return packet.startswith(b"AccountID: ", head.end()) or head["kind"] == _WITHOUT_ACCOUNT


def begins_manager_event(packet: bytes) -> bool:
    """Whether ``packet`` begins as an event of service AMI does, up to its account."""
    head = _HEAD.match(packet)
    return head is not None and head["service"] == _AMI and starts_security_event(packet)


def parse_strict(packet: bytes, source: SourceId) -> SecurityEvent | None:
    """Parse a packet (without its closing empty line) that keeps the grammar; None for any other."""
    match = _PACKET.fullmatch(packet)
    if match is None:
        return _parse_without_account(packet, source)
    name, time, service, account, session, local, remote, rest = match.groups()
    kind = KINDS.get(name)
    if kind is None or kind is EventKind.REQUEST_BAD_FORMAT:
        return None
    if service == _AMI and not _is_of_manager(session, local, remote):
        return None
    found = _RESTS[kind].fullmatch(rest)
    if found is None:
        return None
    acl_name = challenge = response = b""
    if kind is EventKind.CHALLENGE_SENT:
        challenge = found["Challenge"]
    elif kind is EventKind.CHALLENGE_RESPONSE_FAILED:  # nearly all events are of this kind or the one above
        challenge, response = found.group("Challenge", "Response")
    elif kind is EventKind.SUCCESSFUL_AUTH:
        event = build_event(source, kind, service, time, account, session, remote)
        return with_password(found["UsingPassword"], event)
    elif kind in WITH_DETAILS:
        acl_name, challenge, response = details_of(found.groupdict(b""))
    return build_event(source, kind, service, time, account, session, remote, acl_name, challenge, response)


def with_password(used: bytes | None, event: SecurityEvent | None) -> SecurityEvent | None:
    """Return the event of a success, with ``password`` set if a password was verified.

    ``used`` is the value of ``UsingPassword``. This is a separate step because few logins succeed, and
    copying an event takes time.
    """
    return evolve(event, password=True) if event is not None and used == USED else event


def _parse_without_account(packet: bytes, source: SourceId) -> SecurityEvent | None:
    """Parse RequestBadFormat, the only kind whose account is missing or not at its usual position."""
    match = _PACKET_WITHOUT_ACCOUNT.fullmatch(packet)
    if match is None:
        return None
    name, time, service, session, local, remote, rest = match.groups()
    found = _RESTS[EventKind.REQUEST_BAD_FORMAT].fullmatch(rest)
    if service == _AMI and not _is_of_manager(session, local, remote):
        return None
    if KINDS.get(name) is not EventKind.REQUEST_BAD_FORMAT or found is None:
        return None
    account = found["AccountID"] or b""
    return build_event(source, EventKind.REQUEST_BAD_FORMAT, service, time, account, session, remote)


def _is_of_manager(session: bytes, local: bytes, remote: bytes) -> bool:
    """Whether an event's session and addresses have the form that ``main/manager.c`` writes.

    The session is a pointer in hexadecimal digits, and both addresses have TCP or TLS.
    """
    return all(
        form.fullmatch(value) for form, value in ((_POINTER, session), (_BY_TCP, local), (_BY_TCP, remote))
    )


def has_tail(packet: bytes) -> bool:
    """Whether ``packet`` holds the three headers that Asterisk writes after the account."""
    return _last_tail(packet) is not None


def parse_tampered(packet: bytes, source: SourceId) -> SecurityEvent | None:
    """Parse a packet whose account broke the grammar; return None if it yields no address.

    ``packet`` holds a head (the headers before the account) and, perhaps after several empty lines, a tail
    (the session and both addresses). If there are several tails, the last one with a valid address counts.
    After the tail, the first value of each header counts.
    """
    head = _HEAD.match(packet)
    tail = _last_tail(packet)
    # Skip tails without a valid address, because a client may have forged them. Over HTTP it can write 55
    # bytes with CR LF into RequestType, after the true tail. A forged tail with a valid address needs 60.
    while tail is not None and parse_endpoint(tail["remote"]) is None:
        tail = _last_tail(packet, tail.start())
    if head is None or tail is None:
        return None
    kind = KINDS.get(head["kind"])
    if kind is None:
        return None
    fields: dict[str, bytes] = {}
    for line in packet[tail.end() :].split(EOL):
        name, colon, value = line.partition(b": ")
        if colon and name in _NAMES:
            fields.setdefault(_NAMES[name], value)
    account = packet[head.end() : tail.start()].removeprefix(b"AccountID: ").removesuffix(EOL)
    session, _, remote = tail.groups()
    details = details_of(fields)
    event = build_event(source, kind, head["service"], head["time"], account, session, remote, *details)
    return evolve(event, tampered=True) if event is not None else None


_NAMES = {
    name.encode(): name for name in ("Challenge", "Response", "ReceivedChallenge", "ReceivedHash", "ACLName")
}
_TAIL_PATTERN = re.compile(_TAIL)
_TAIL_START = b"\r\nSessionID: "


def _last_tail(packet: bytes, end: int | None = None) -> re.Match[bytes] | None:
    """Return the last tail (session and both addresses) that begins before the position ``end``.

    Return None if there is none. The tail must be complete.
    """
    start = packet.rfind(_TAIL_START, 0, end)
    while start >= 0:
        tail = _TAIL_PATTERN.match(packet, start + len(EOL))
        if tail is not None:
            return tail
        start = packet.rfind(_TAIL_START, 0, start)
    return None


def details_of(fields: Mapping[str, bytes]) -> tuple[bytes, bytes, bytes]:
    """Return the ACL's name, and the challenge and response that the client sent.

    chan_sip calls its own value ``Challenge`` and the client's value ``ReceivedChallenge``. If
    ``ReceivedChallenge`` is present, it is returned, even if it is empty.
    """
    return (
        fields.get("ACLName", b""),
        fields.get("ReceivedChallenge", fields.get("Challenge", b"")),
        fields.get("ReceivedHash") or fields.get("Response", b""),
    )


def build_event(
    source: SourceId,
    kind: EventKind,
    service: bytes,
    time: bytes,
    account: bytes,
    session: bytes,
    remote: bytes,
    acl_name: bytes = b"",
    challenge: bytes = b"",
    response: bytes = b"",
) -> SecurityEvent | None:
    """Return the event with these values; None if the address or the time is invalid."""
    endpoint = parse_endpoint(remote)
    seconds = event_seconds(time)
    if endpoint is None or seconds is None:
        return None
    return SecurityEvent(
        source,
        kind,
        _SERVICES[service],
        endpoint,
        seconds,
        account.decode("utf-8", "backslashreplace"),
        session,
        acl_name.decode("utf-8", "backslashreplace") if acl_name else "",
        challenge,
        response,
    )


_EPOCH_DIGITS, _MICRO_DIGITS = 10, 6


# Cached, because during an attack several events have the same millisecond.
@lru_cache(maxsize=256)
def event_seconds(text: bytes) -> float | None:
    """Parse an ``EventTV`` to seconds since the epoch; None if it is invalid.

    Asterisk 1.8 to 11 wrote it as ``<sec>-<usec>``.
    """
    whole, _, micro = text.partition(b"-")
    if len(whole) == _EPOCH_DIGITS and whole.isdigit() and micro.isdigit() and len(micro) <= _MICRO_DIGITS:
        return int(whole) + int(micro) / 1e6
    try:
        return datetime.fromisoformat(text.decode("ascii")).timestamp()
    except ValueError:  # the date does not exist
        return None
