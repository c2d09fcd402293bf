"""SECURITY lines: ``SecurityEvent="InvalidPassword",EventTV="…",…`` (``res/res_security_log.c``).

The names and their order are those of ``main/security_events.c``, as in :mod:`ringfence.parse.security`.
Values are not escaped. The account and the session (a Call-ID) are the sender's text and stand before the
true address. They may hold quotes, whole forged fields and, in the account, line feeds. After the address
every quote is escaped. So the true address follows the last ``oteAddress="``. This is only the end of the
name ``RemoteAddress``. The beginning may be missing: an ESC at the end of a Call-ID makes the log leave out
everything up to the next ``m`` (``main/term.c:term_strip``).

A line is first split at its quotes. If its names are then one of the known sequences, no value contains a
quote. Any other line is parsed from both ends. It is marked as tampered if it shows a second address, a line
feed, or a session without an end.

A message is cut at 8191 bytes, without a line feed: the address is missing if it stands after the cut, and
another message may follow on the same line. If a message holds a second head, the last address belongs to the
last head, whether Asterisk or the sender wrote that head. The event is parsed from the last head on, and
marked as tampered.
"""

import re
from itertools import compress, product

from attrs import evolve, frozen

from ringfence.model import EventKind, SecurityEvent, SourceId
from ringfence.parse.line_result import OpenMessage, Parsed, Reason
from ringfence.parse.prefix import parse_prefix
from ringfence.parse.security import (
    KINDS,
    WITH_DETAILS,
    build_event,
    details_of,
    event_seconds,
    with_password,
)

_HEAD = (
    rb'SecurityEvent="(?P<kind>[A-Za-z]{1,32}+)",EventTV="(?P<time>[^"\n]{1,40}+)",'
    rb'Severity="(?:Informational|Error)",Service="(?P<service>PJSIP|SIP|AMI)",EventVersion="\d{1,3}+",'
)
_LOOSE = re.compile(_HEAD + rb'(?:AccountID=")?')
_FIELD = re.compile(rb',([A-Za-z]{1,24}+)="([^"]*+)"')
_ADDRESS = b'oteAddress="'
END = re.compile(rb'oteAddress="[^"\n]*+"[^\n]*+\Z')
_INNER = b'res_security_log.c: SecurityEvent="'
FILE = b"res_security_log.c"
MAX_ACCOUNT = 256
"""The maximum length of an account with line feeds.

chan_sip copies a header into 256 bytes, PJSIP a user into 37.
"""
_LEVEL = b"SECURITY"
_PREFIX = 512
"""The prefix of a line (date, level, file: all text before the message) is shorter than this (bytes)."""
_START_OF_HEAD = b'SecurityEvent="'
_TIMED_HEAD = re.compile(
    rb'SecurityEvent="[A-Za-z]{1,32}+",EventTV="([^"\n]{1,40}+)",'
    rb'Severity="(?:Informational|Error)",Service="(?:PJSIP|SIP)",'
)
_WHOLE_HEAD = re.compile(
    rb'SecurityEvent="[A-Za-z]{1,32}+",EventTV="[^"\n]{1,40}+",'
    rb'Severity="(?:Informational|Error)",Service="(?:PJSIP|SIP|AMI)",'
)
# A whole line with the prefix that Asterisk writes to a file. It is tried first, because half of the lines
# match.
_WHOLE = re.compile(
    rb"\[[^\[\]\n]{5,48}+\] SECURITY\[\d{1,10}+\](?:\[C-[0-9a-fA-F]{1,16}+\])? res_security_log\.c: "
    + _WHOLE_HEAD.pattern
)


@frozen
class _Shape:
    """The positions of the kept fields among a message's values.

    A missing field has the position after the last value, where :func:`parse` adds an empty one.
    """

    account: int
    session: int
    address: int
    challenge: int
    response: int
    acl_name: int
    password: int


# For each kind of event: the names that it must have, and those that it may have after them
# (main/security_events.c, `sec_events[]`).
_START = "SecurityEvent EventTV Severity Service EventVersion"
_TAIL = "SessionID LocalAddress RemoteAddress"
_PLAIN = "Module SessionTV"
_ROWS = (
    (f"{_START} AccountID {_TAIL}", "Module ACLName SessionTV"),
    (f"{_START} AccountID {_TAIL}", f"{_PLAIN} Challenge ReceivedChallenge ReceivedHash"),
    (f"{_START} AccountID {_TAIL} RequestType", f"{_PLAIN} RequestParams"),
    (f"{_START} AccountID {_TAIL} AuthMethod", _PLAIN),
    (f"{_START} AccountID {_TAIL} UsingPassword", _PLAIN),
    (f"{_START} AccountID {_TAIL} ExpectedAddress", _PLAIN),
    (f"{_START} AccountID {_TAIL} Challenge Response ExpectedResponse", _PLAIN),
    (f"{_START} AccountID {_TAIL} Challenge", _PLAIN),
    (f"{_START} AccountID {_TAIL} AttemptedTransport", _PLAIN),
    (f"{_START} {_TAIL} RequestType", f"{_PLAIN} AccountID RequestParams"),
)


def _shape(names: list[str]) -> _Shape:
    def at(*wanted: str) -> int:
        return next((names.index(name) for name in wanted if name in names), len(names))

    return _Shape(
        account=at("AccountID"),
        session=at("SessionID"),
        address=at("RemoteAddress"),
        # If the message has ``ReceivedHash``, ``Challenge`` is Asterisk's value, not the client's.
        challenge=at("ReceivedChallenge", *([] if "ReceivedHash" in names else ["Challenge"])),
        response=at("ReceivedHash", "Response"),
        acl_name=at("ACLName"),
        password=at("UsingPassword"),
    )


def _shapes() -> dict[tuple[bytes, ...], _Shape]:
    """Return the shape of each sequence of names that Asterisk writes.

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
_SERVICES = frozenset({b"PJSIP", b"SIP", b"AMI"})
_SEVERITIES = frozenset({b"Informational", b"Error"})


def is_whole(line: bytes) -> bool:
    """Whether ``line`` looks like a whole SECURITY message: a head, an address, and a quote at the end.

    A sender's account can imitate such an end and continue after a line feed. The reader of the log
    recognises that by the lines that follow (:mod:`ringfence.parse.log`).
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
    return line.endswith(b'"') and END.search(line) is not None


def parse(text: bytes, source: SourceId, now: float) -> Parsed:  # noqa: ARG001 - a line has its own time
    """Parse the message of a SECURITY line."""
    parts = text.split(b'"', _MOST_QUOTES)
    shape = _SHAPES.get(tuple(parts[::2]))
    if shape is None or b"\n" in text:
        return _parse_loose(text, source)
    values = parts[1::2]
    values.append(b"")
    name, time, severity, service = values[:4]
    kind = KINDS.get(name)
    if kind is None or service not in _SERVICES or severity not in _SEVERITIES:
        return Reason.UNKNOWN_WORDING
    acl_name = challenge = response = b""
    if kind in WITH_DETAILS:
        acl_name, challenge, response = (
            values[shape.acl_name],
            values[shape.challenge],
            values[shape.response],
        )
    account, session, remote = values[shape.account], values[shape.session], values[shape.address]
    event = build_event(source, kind, service, time, account, session, remote, acl_name, challenge, response)
    if kind is EventKind.SUCCESSFUL_AUTH:
        event = with_password(values[shape.password], event)
    return Reason.NOT_AN_ADDRESS if event is None else event


def _fields(rest: bytes) -> dict[str, bytes]:
    return {name.decode("ascii"): value for name, value in _FIELD.findall(rest)}


def _parse_loose(text: bytes, source: SourceId) -> Parsed:
    head = _LOOSE.match(text)
    if head is None:
        return Reason.UNKNOWN_WORDING
    inner = text.rfind(_INNER)
    if inner >= 0:
        fields = parse(text[inner + _INNER.index(b"S") :], source, 0.0)
        return _as_tampered(fields) if isinstance(fields, SecurityEvent) else Reason.AMBIGUOUS
    kind = KINDS.get(head["kind"])
    last = text.rfind(_ADDRESS)
    if kind is None:
        return Reason.UNKNOWN_WORDING
    remote, quote, rest = text[last + len(_ADDRESS) :].partition(b'"')
    if last < head.end() or not quote or b"\n" in rest:
        # An account of PJSIP has no room for a complete message. So a message before the end is Asterisk's
        # own, and not part of this one. An account of chan_sip (service SIP) has room.
        return OpenMessage(Reason.CUT, END, may_span=head["service"] == b"SIP")
    return _event_of(text[head.end() : last], head, kind, remote, rest, source)


def _event_of(
    between: bytes, head: re.Match[bytes], kind: EventKind, remote: bytes, rest: bytes, source: SourceId
) -> SecurityEvent | Reason:
    """Build the event of a line that was split at its head and at its last address ``remote``.

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
    event = build_event(
        source,
        kind,
        head["service"],
        head["time"],
        account,
        session[:middle] if middle >= 0 else session,
        remote,
        *details_of(fields),
    )
    if kind is EventKind.SUCCESSFUL_AUTH:
        event = with_password(_fields(rest).get("UsingPassword"), event)
    if event is None:
        return Reason.NOT_AN_ADDRESS
    return event if intact and alone else _as_tampered(event)


def _as_tampered(event: SecurityEvent) -> SecurityEvent:
    return evolve(event, tampered=True, password=False)
