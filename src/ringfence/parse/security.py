"""Security events in their two notations: AMI packets, and SECURITY lines of a log.

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
from ipaddress import ip_address
from itertools import compress, product

from attrs import frozen

from ringfence.parse.address import LONGEST, MAX_PORT, MAX_PORT_DIGITS, unmapped
from ringfence.parse.line_result import OpenMessage, Parsed, Reason, text_of
from ringfence.parse.prefix import parse_prefix
from ringfence.values.event import (
    MOST_ACCOUNT,
    MOST_KEPT,
    MOST_SESSION,
    Endpoint,
    EventKind,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
    short_account,
    short_session,
)
from ringfence.values.fast import evolve
from ringfence.values.network import Address
from ringfence.values.text import LAST

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


def _rest(required: str = "", optional: str = "Module SessionTV") -> re.Pattern[bytes]:
    """Return the pattern of a security event's last headers: ``required``, then ``optional`` ones.

    Both are names separated by blanks, in the order in which Asterisk writes the headers.
    """

    def header(name: str) -> bytes:
        value = _TIME if name == "SessionTV" else rb"[^\r]*+"
        return rb"\r\n%s: (?P<%s>%s)" % (name.encode(), name.encode(), value)

    return re.compile(
        b"".join(header(name) for name in required.split())
        + b"".join(b"(?:" + header(name) + b")?" for name in optional.split())
    )


_AMI = b"AMI"
_POINTER = re.compile(rb"0x[0-9a-f]{1,16}+")
_BY_TCP = re.compile(rb"IPV[46]/(?:TCP|TLS)/[0-9a-fA-F:.]{2,45}+(?:%[^/\r]{1,16}+)?/[0-9]{1,5}+")

# The headers after the tail, by kind: those that are required, and those that may follow
# (main/security_events.c, `sec_events[]`).
_RESTS: dict[EventKind, re.Pattern[bytes]] = {
    EventKind.FAILED_ACL: _rest(optional="Module ACLName SessionTV"),
    EventKind.INVALID_ACCOUNT_ID: _rest(),
    EventKind.SESSION_LIMIT: _rest(),
    EventKind.MEMORY_LIMIT: _rest(),
    EventKind.LOAD_AVERAGE_LIMIT: _rest(),
    EventKind.REQUEST_NOT_SUPPORTED: _rest("RequestType"),
    EventKind.REQUEST_NOT_ALLOWED: _rest("RequestType", "Module SessionTV RequestParams"),
    EventKind.AUTH_METHOD_NOT_ALLOWED: _rest("AuthMethod"),
    EventKind.REQUEST_BAD_FORMAT: _rest("RequestType", "Module SessionTV AccountID RequestParams"),
    EventKind.SUCCESSFUL_AUTH: _rest("UsingPassword"),
    EventKind.UNEXPECTED_ADDRESS: _rest("ExpectedAddress"),
    EventKind.CHALLENGE_RESPONSE_FAILED: _rest("Challenge Response ExpectedResponse"),
    EventKind.INVALID_PASSWORD: _rest(optional="Module SessionTV Challenge ReceivedChallenge ReceivedHash"),
    EventKind.CHALLENGE_SENT: _rest("Challenge"),
    EventKind.INVALID_TRANSPORT: _rest("AttemptedTransport"),
}
# The kinds with details: fields after the tail that are kept.
WITH_DETAILS = {
    EventKind.FAILED_ACL,
    EventKind.CHALLENGE_RESPONSE_FAILED,
    EventKind.INVALID_PASSWORD,
    EventKind.CHALLENGE_SENT,
}
USED = b"1"
"""The value of an event's header ``UsingPassword`` if a password was verified."""
KINDS = {str(kind).encode(): kind for kind in _RESTS}
_SERVICES = {str(service).encode(): service for service in Service}
_WITHOUT_ACCOUNT = str(EventKind.REQUEST_BAD_FORMAT).encode()


def starts_security_event(packet: bytes) -> bool:
    """Whether ``packet`` begins as Asterisk begins a security event, up to its account.

    ``AccountID`` must follow the first headers (the head). Otherwise a sender could end an event early by a
    forged tail, and begin another event by a forged head: both fit into the 255 bytes of a chan_sip header.
    With ``AccountID`` they do not fit. Only RequestBadFormat may lack ``AccountID``. Its name is long, so a
    forged tail and a forged head of this kind do not fit either.
    """
    head = _HEAD.match(packet)
    if head is None:
        return False
    return packet.startswith(b"AccountID: ", head.end()) or head["kind"] == _WITHOUT_ACCOUNT


def begins_manager_event(packet: bytes) -> bool:
    """Whether an AMI packet begins as a security event about a manager login or action does."""
    head = _HEAD.match(packet)
    return head is not None and head["service"] == _AMI and starts_security_event(packet)


def parse_strict(packet: bytes, source: SourceId) -> SecurityEvent | None:
    """Parse a security event (an AMI packet without its empty line) of correct form; None for any other."""
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
    password = False
    if kind is EventKind.CHALLENGE_SENT:  # nearly all events are of this kind or the next two
        challenge = found["Challenge"]
    elif kind is EventKind.CHALLENGE_RESPONSE_FAILED:
        challenge, response = found.group("Challenge", "Response")
    elif kind is EventKind.SUCCESSFUL_AUTH:
        password = found["UsingPassword"] == USED
    elif kind in WITH_DETAILS:
        acl_name, challenge, response = details_of(kind, found.groupdict(b""))
    details = acl_name, challenge, response
    return build_event(source, kind, service, time, account, session, remote, *details, password=password)


def _parse_without_account(packet: bytes, source: SourceId) -> SecurityEvent | None:
    """Parse the security event RequestBadFormat, whose account may be missing or at another position."""
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

    That is: the session is a pointer in hexadecimal digits, and both addresses have TCP or TLS.
    """
    return all(
        form.fullmatch(value) for form, value in ((_POINTER, session), (_BY_TCP, local), (_BY_TCP, remote))
    )


def has_tail(packet: bytes) -> bool:
    """Whether ``packet`` holds the three headers that Asterisk writes after the account."""
    return _last_tail(packet) is not None


def parse_tampered(packet: bytes, source: SourceId) -> SecurityEvent | None:
    """Parse a security event whose account breaks the form of the packet; None without an address.

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
    details = details_of(kind, fields)
    event = build_event(source, kind, head["service"], head["time"], account, session, remote, *details)
    return evolve(event, tampered=True) if event is not None else None


_NAMES = {
    name.encode(): name for name in ("Challenge", "Response", "ReceivedChallenge", "ReceivedHash", "ACLName")
}
_TAIL_PATTERN = re.compile(_TAIL)
_TAIL_START = b"\r\nSessionID: "


def _last_tail(packet: bytes, end: int | None = None) -> re.Match[bytes] | None:
    """Return the last match of session and both addresses that begins before the position ``end``.

    Return None if no such headers are complete.
    """
    start = packet.rfind(_TAIL_START, 0, end)
    while start >= 0:
        tail = _TAIL_PATTERN.match(packet, start + len(EOL))
        if tail is not None:
            return tail
        start = packet.rfind(_TAIL_START, 0, start)
    return None


def details_of(kind: EventKind, fields: Mapping[str, bytes]) -> tuple[bytes, bytes, bytes]:
    """Return the ACL's name, and the challenge and response that the client sent, from an event's headers.

    In InvalidPassword (chan_sip), ``Challenge`` is Asterisk's own value, which proves nothing about the
    client. Asterisk leaves out the client's value if it is empty.
    """
    own = kind is EventKind.INVALID_PASSWORD
    names = ("ACLName", "ReceivedChallenge", "ReceivedHash") if own else ("ACLName", "Challenge", "Response")
    acl_name, challenge, response = (fields.get(name, b"") for name in names)
    return acl_name, challenge, response


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
    *,
    password: bool = False,
) -> SecurityEvent | None:
    """Return the event with these values of a message's headers; None if address or time is invalid."""
    endpoint = parse_endpoint(remote)
    seconds = event_seconds(time)
    if endpoint is None or seconds is None:
        return None
    name = account[:MOST_KEPT].decode(errors="backslashreplace")  # as text_of, which is slow for each event
    return SecurityEvent(
        source,
        kind,
        _SERVICES[service],
        endpoint,
        seconds,
        name if len(name) <= MOST_ACCOUNT and name.isascii() else short_account(name),
        session if len(session) <= MOST_SESSION else short_session(session),
        text_of(acl_name) if acl_name else "",
        challenge[:MOST_KEPT],
        response[:MOST_KEPT],
        password=password,
    )


# ``IPV4/UDP/192.0.2.1/5060`` (``main/json.c:ast_json_ipaddr``). Asterisk leaves out an unknown transport and
# its slash. An unset address is ``(null)``. IPv6 has no brackets, and a link-local address has a ``%zone``.
_VERSIONS = {b"IPV4": 4, b"IPV6": 6}
_TRANSPORTS = {str(t).encode(): t for t in Transport if t is not Transport.UNKNOWN}


def parse_endpoint(text: bytes) -> Endpoint | None:
    """Parse an address with transport and port as Asterisk's events write it; None for any other text.

    An IPv4-mapped IPv6 address (``::ffff:a.b.c.d``) becomes the IPv4 address that the packets carry. A zone
    is dropped because firewall sets do not support zones.
    """
    return _parse_endpoint(text) if len(text) <= LONGEST else None


# Cached, because attackers send many packets from one port or one host. The cached texts are short.
@lru_cache(maxsize=4096)
def _parse_endpoint(text: bytes) -> Endpoint | None:
    head, slash, digits = text.rpartition(b"/")
    if not slash or not digits.isdigit() or len(digits) > MAX_PORT_DIGITS:
        return None
    port, host = int(digits), _parse_host(head)
    if host is None or port > MAX_PORT:
        return None
    address, transport = host
    return Endpoint(address, port, transport)


@lru_cache(maxsize=4096)
def _parse_host(text: bytes) -> tuple[Address, Transport] | None:
    family, _, rest = text.partition(b"/")
    token, slash, host = rest.partition(b"/")
    if not slash:
        host = rest
    transport = _TRANSPORTS.get(token) if slash else Transport.UNKNOWN
    if family not in _VERSIONS or transport is None:
        return None
    try:
        address = ip_address(host.decode("ascii"))
    except ValueError:  # includes UnicodeDecodeError
        return None
    return (unmapped(address), transport) if address.version == _VERSIONS[family] else None


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
        seconds = datetime.fromisoformat(text.decode("ascii")).timestamp()
    except (ValueError, OverflowError):  # the date does not exist
        return None
    return seconds if 0.0 <= seconds < LAST else None


# -- SECURITY lines: ``SecurityEvent="InvalidPassword",EventTV="…",…`` (``res/res_security_log.c``)
#
# The names and their order are those of ``main/security_events.c``, as in the packets of AMI above.
# Values are not escaped. The account and the session (a Call-ID) are the sender's text and stand before the
# true address. They may hold quotes, whole forged fields and, in the account, newlines. After the address
# every quote is escaped. So the true address follows the last ``oteAddress="``. This is only the end of the
# name ``RemoteAddress``. The beginning may be missing: an ESC at the end of a Call-ID makes the log leave
# out everything up to the next ``m`` (``main/term.c:term_strip``).
#
# A line is first split at its quotes. If its names are then one of the known sequences, no value contains a
# quote. Any other line is parsed from both ends. It is marked as tampered if it shows a second address, a
# newline, or a session without an end.
#
# A message is cut at 8191 bytes, without a newline: the address is missing if it stands after the cut,
# and another message may follow on the same line. If a message holds a second head, the last address
# belongs to the last head, whether Asterisk or the sender wrote that head. The event is parsed from the
# last head on, and marked as tampered. If other text follows the values, the last address may be the
# sender's, and the event is marked as forgeable too.


_LINE_HEAD = (
    rb'SecurityEvent="(?P<kind>[A-Za-z]{1,32}+)",EventTV="(?P<time>[^"\n]{1,40}+)",'
    rb'Severity="(?:Informational|Error)",Service="(?P<service>PJSIP|SIP|AMI)",EventVersion="\d{1,3}+",'
)
_LOOSE = re.compile(_LINE_HEAD + rb'(?:AccountID=")?')
_FIELD = re.compile(rb',([A-Za-z]{1,24}+)="([^"]*+)"')
_FIELDS = re.compile(rb'(?>(?:,[A-Za-z]{1,24}+="[^"\\]*+(?>(?:\\.[^"\\]*+)*)")*)')
_ADDRESS = b'oteAddress="'
LINE_END = re.compile(rb'oteAddress="[^"\n]*+"[^\n]*+\Z')
_INNER = b'res_security_log.c: SecurityEvent="'
FILE = b"res_security_log.c"
MAX_ACCOUNT = 256
"""The maximum length in bytes of an account with newlines.

chan_sip copies a header into 256 bytes, PJSIP a user into 37.
"""
_LEVEL = b"SECURITY"
_PREFIX = 512
"""The maximum length in bytes of a log line's prefix (all text before the message: date, level, file)."""
_START_OF_HEAD = b'SecurityEvent="'
_TIMED = rb'SecurityEvent="[A-Za-z]{1,32}+",EventTV="([^"\n]{1,40}+)",Severity="(?:Informational|Error)",'
_TIMED_HEAD = re.compile(_TIMED + rb'Service="(?:PJSIP|SIP)",')
_WHOLE_HEAD = re.compile(_TIMED + rb'Service="(?:PJSIP|SIP|AMI)",')
# A whole line with the prefix that Asterisk writes to a file. It is tried first, because half of the lines
# match.
_WHOLE = re.compile(
    rb"\[[^\[\]\n]{5,48}+\] SECURITY\[\d{1,10}+\](?:\[C-[0-9a-fA-F]{1,16}+\])? res_security_log\.c: "
    + _WHOLE_HEAD.pattern
)


@frozen
class _Shape:
    """The positions of the fields that ringfence needs among the values of a SECURITY log message.

    A missing field has the position after the last value, where :func:`parse_line` adds an empty one.
    """

    account: int
    session: int
    address: int
    challenge: int
    response: int
    received_challenge: int
    received_hash: int
    acl_name: int
    password: int


# For each kind of event: the names that it must have, and those that it may have after them
# (main/security_events.c, `sec_events[]`).
_START = "SecurityEvent EventTV Severity Service EventVersion"
_LINE_TAIL, _PLAIN = "SessionID LocalAddress RemoteAddress", "Module SessionTV"
_ROWS = (
    (f"{_START} AccountID {_LINE_TAIL}", "Module ACLName SessionTV"),
    (f"{_START} AccountID {_LINE_TAIL}", f"{_PLAIN} Challenge ReceivedChallenge ReceivedHash"),
    (f"{_START} AccountID {_LINE_TAIL} RequestType", f"{_PLAIN} RequestParams"),
    (f"{_START} AccountID {_LINE_TAIL} AuthMethod", _PLAIN),
    (f"{_START} AccountID {_LINE_TAIL} UsingPassword", _PLAIN),
    (f"{_START} AccountID {_LINE_TAIL} ExpectedAddress", _PLAIN),
    (f"{_START} AccountID {_LINE_TAIL} Challenge Response ExpectedResponse", _PLAIN),
    (f"{_START} AccountID {_LINE_TAIL} Challenge", _PLAIN),
    (f"{_START} AccountID {_LINE_TAIL} AttemptedTransport", _PLAIN),
    (f"{_START} {_LINE_TAIL} RequestType", f"{_PLAIN} AccountID RequestParams"),
)


def _shape(names: list[str]) -> _Shape:
    def at(name: str) -> int:
        return names.index(name) if name in names else len(names)

    return _Shape(
        account=at("AccountID"),
        session=at("SessionID"),
        address=at("RemoteAddress"),
        challenge=at("Challenge"),
        response=at("Response"),
        received_challenge=at("ReceivedChallenge"),
        received_hash=at("ReceivedHash"),
        acl_name=at("ACLName"),
        password=at("UsingPassword"),
    )


def _shapes() -> dict[tuple[bytes, ...], _Shape]:
    """Return the positions of the needed fields for each sequence of names that Asterisk writes.

    The keys are these sequences, with each name as the line has it between two values: ``,SessionID=``.
    """
    shapes: dict[tuple[bytes, ...], _Shape] = {}
    for required, optional in _ROWS:
        for present in product((False, True), repeat=len(optional.split())):
            names = [*required.split(), *compress(optional.split(), present)]
            between = f",{'=|,'.join(names)}=|".encode().removeprefix(b",").split(b"|")
            shapes[tuple(between)] = _shape(names)
    return shapes


_SHAPES = _shapes()
_MOST_QUOTES = 2 * max(map(len, _SHAPES))
_LINE_SERVICES = frozenset({b"PJSIP", b"SIP", b"AMI"})
_SEVERITIES = frozenset({b"Informational", b"Error"})


def is_whole(line: bytes) -> bool:
    """Whether a log line looks like a whole SECURITY message: first names, an address, a quote at the end.

    A sender's account can imitate such an end and continue after a newline. The reader of the log
    recognizes that by the lines that follow (:mod:`ringfence.parse.log`).
    """
    if not line.endswith(b'"') or _ADDRESS not in line:
        return False
    if _WHOLE.match(line) is not None:
        return True
    # Parse after the text that syslog, the journal or a container's log adds before the message.
    prefix = parse_prefix(line) if _LEVEL in line[:_PREFIX] else None
    known = prefix is not None and (prefix.level, prefix.file) == (_LEVEL, FILE)
    return prefix is not None and known and _WHOLE_HEAD.match(line, prefix.end) is not None


def time_of(line: bytes) -> float | None:
    """Return the time of the SIP event in a line that :func:`is_whole` accepts; None for other events.

    Callers compare this time with the last event from AMI, to see whether AMI has delivered the line's event.
    AMI may leave out failed manager logins (``eventfilter``), so their times are not used.
    """
    head = _TIMED_HEAD.match(line, max(0, line.find(_START_OF_HEAD)))
    return event_seconds(head[1]) if head is not None else None


def ends_message(line: bytes) -> bool:
    """Whether ``line`` ends as a SECURITY message does: with a quote, and the remote address before it.

    The message may begin on an earlier line.
    """
    return line.endswith(b'"') and LINE_END.search(line) is not None


def parse_line(text: bytes, source: SourceId, now: float) -> Parsed:  # noqa: ARG001 - a line has its own time
    """Return the event of a log message of level SECURITY, or the reason why it gives none.

    ``text`` is the message without its prefix, and ``now`` the time of the line.
    """
    parts = text.split(b'"', _MOST_QUOTES)
    shape = _SHAPES.get(tuple(parts[::2]))
    if shape is None or b"\n" in text:
        return _parse_loose(text, source)
    values = parts[1::2]
    values.append(b"")
    name, time, severity, service = values[:4]
    kind = KINDS.get(name)
    if kind is None or service not in _LINE_SERVICES or severity not in _SEVERITIES:
        return Reason.UNKNOWN_WORDING
    acl_name = challenge = response = b""
    if kind is EventKind.INVALID_PASSWORD:  # see :func:`details_of`
        challenge, response = values[shape.received_challenge], values[shape.received_hash]
    elif kind in WITH_DETAILS:
        acl_name, challenge = values[shape.acl_name], values[shape.challenge]
        response = values[shape.response]
    account, session, remote = values[shape.account], values[shape.session], values[shape.address]
    details = acl_name, challenge, response
    password = values[shape.password] == USED
    event = build_event(source, kind, service, time, account, session, remote, *details, password=password)
    return Reason.NOT_AN_ADDRESS if event is None else event


def _fields(rest: bytes) -> dict[str, bytes]:
    return {name.decode("ascii"): value for name, value in _FIELD.findall(rest)}


def _parse_loose(text: bytes, source: SourceId) -> Parsed:
    head = _LOOSE.match(text)
    if head is None:
        return Reason.UNKNOWN_WORDING
    inner = text.rfind(_INNER)
    if inner >= 0:
        event = parse_line(text[inner + _INNER.index(b"S") :], source, 0.0)
        return _as_tampered(event) if isinstance(event, SecurityEvent) else Reason.AMBIGUOUS
    kind = KINDS.get(head["kind"])
    last = text.rfind(_ADDRESS)
    if kind is None:
        return Reason.UNKNOWN_WORDING
    remote, quote, rest = text[last + len(_ADDRESS) :].partition(b'"')
    if last < head.end() or not quote or b"\n" in rest:
        # An account of PJSIP has no room for a complete message. So a message before the end is Asterisk's
        # own, and not part of this one. An account of chan_sip (service SIP) has room.
        return OpenMessage(Reason.CUT, LINE_END, may_span=head["service"] == b"SIP")
    return _event_of(text[head.end() : last], head, kind, remote, rest, source)


def _event_of(
    between: bytes, head: re.Match[bytes], kind: EventKind, remote: bytes, rest: bytes, source: SourceId
) -> SecurityEvent | Reason:
    """Build the event of a SECURITY message that was split at ``head`` and at its last address ``remote``.

    ``between`` is the text between the two, with the sender's account and session. ``rest`` is the text after
    the address.
    """
    account, known, session = between.partition(b'",SessionID="')
    if not known:
        account, session = b"", between.removeprefix(b'SessionID="')
    middle = session.rfind(b'",LocalAddress="')
    intact = middle >= 0 and session.endswith(b'",Rem')
    alone = _ADDRESS not in between and b"\n" not in between
    fields = _fields(rest) if kind in WITH_DETAILS else {}
    password = kind is EventKind.SUCCESSFUL_AUTH and _fields(rest).get("UsingPassword") == USED
    event = build_event(
        source,
        kind,
        head["service"],
        head["time"],
        account,
        session[:middle] if middle >= 0 else session,
        remote,
        *details_of(kind, fields),
        password=password,
    )
    if event is None:
        return Reason.NOT_AN_ADDRESS
    if not _FIELDS.fullmatch(rest):
        return evolve(_as_tampered(event), forgeable=True)
    return event if intact and alone else _as_tampered(event)


def _as_tampered(event: SecurityEvent) -> SecurityEvent:
    return evolve(event, tampered=True, password=False)
