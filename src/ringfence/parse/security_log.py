"""SECURITY lines: ``SecurityEvent="InvalidPassword",EventTV="…",…`` (``res/res_security_log.c``).

The names and their order are those of ``main/security_events.c``, as in :mod:`ringfence.parse.security`.
Values are not escaped. The account and the session (a Call-ID) are the sender's text, stand before the true
address, and may hold quotes, whole forged fields and, in the account, line feeds. Behind the address no quote
comes that is not escaped. So the true address follows the last ``oteAddress="``: of its name only that is
always left, since the log swallows everything from an ESC (at the end of a Call-ID) up to the next ``m``
(``main/term.c:term_strip``).

A line whose values hold no quote is cut at its quotes, and has one of the known rows of names. Any other is
read from both its ends, and is marked as tampered where it shows a second address, or a session that has no
end.

A message is cut at 8191 bytes, without a line feed: what stands before its address then is all there is, and
another message may follow it on the same line. Where a second head stands in a message, the last address is
that of the last head, whoever wrote it: the event is read from there, and marked as tampered.
"""

import re
from itertools import compress, product

from attrs import evolve, frozen

from ringfence.model import EventKind, SecurityEvent, SourceId
from ringfence.parse.reading import Open, Said, Why
from ringfence.parse.security import KINDS, TELLING, build_event, details_of, proved_by

_HEAD = (
    rb'SecurityEvent="(?P<kind>[A-Za-z]{1,32}+)",EventTV="(?P<time>[^"\n]{1,40}+)",'
    rb'Severity="(?:Informational|Error)",Service="(?P<service>PJSIP|SIP|AMI)",EventVersion="\d{1,3}+",'
)
_LOOSE = re.compile(_HEAD + rb'(?:AccountID=")?')
_FIELD = re.compile(rb',([A-Za-z]{1,24}+)="([^"]*+)"')
_ADDRESS = b'oteAddress="'
END = re.compile(rb'oteAddress="[^"\n]*+"[^\n]*+\Z')
_INNER = b'res_security_log.c: SecurityEvent="'


@frozen
class _Shape:
    """Where among a message's values is what is kept; behind the last one there is an empty one."""

    account: int
    session: int
    address: int
    challenge: int
    response: int
    acl_name: int
    password: int


# main/security_events.c, `sec_events[]`: what each kind must have behind the tail, and what it may.
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
        # With a hash that came back, what Asterisk sent is not what came back with it.
        challenge=at("ReceivedChallenge", *([] if "ReceivedHash" in names else ["Challenge"])),
        response=at("ReceivedHash", "Response"),
        acl_name=at("ACLName"),
        password=at("UsingPassword"),
    )


def _shapes() -> dict[tuple[bytes, ...], _Shape]:
    """Give every row of names that Asterisk writes, as it stands between the quotes."""
    shapes: dict[tuple[bytes, ...], _Shape] = {}
    for required, optional in _ROWS:
        for present in product((False, True), repeat=len(optional.split())):
            names = [*required.split(), *compress(optional.split(), present)]
            between = f",{'=|,'.join(names)}=|".encode().removeprefix(b",").split(b"|")
            shapes[tuple(between)] = _shape(names)
    return shapes


_SHAPES = _shapes()
_MOST_QUOTES = 2 * max(map(len, _SHAPES))
_SPEAKING = frozenset({b"PJSIP", b"SIP", b"AMI"})
_SEVERITIES = frozenset({b"Informational", b"Error"})


def read(text: bytes, source: SourceId, now: float) -> Said:  # noqa: ARG001 - a line has its own time
    """Read the message of a SECURITY line."""
    parts = text.split(b'"', _MOST_QUOTES)
    shape = _SHAPES.get(tuple(parts[::2]))
    if shape is None or b"\n" in text:
        return _read_loose(text, source)
    values = parts[1::2]
    values.append(b"")
    name, time, severity, service = values[:4]
    kind = KINDS.get(name)
    if kind is None or service not in _SPEAKING or severity not in _SEVERITIES:
        return Why.UNKNOWN_WORDING
    acl_name = challenge = response = b""
    if kind in TELLING:
        acl_name, challenge, response = (
            values[shape.acl_name],
            values[shape.challenge],
            values[shape.response],
        )
    account, session, remote = values[shape.account], values[shape.session], values[shape.address]
    event = build_event(source, kind, service, time, account, session, remote, acl_name, challenge, response)
    if kind is EventKind.SUCCESSFUL_AUTH:
        event = proved_by(values[shape.password], event)
    return Why.NOT_AN_ADDRESS if event is None else event


def _fields(rest: bytes) -> dict[str, bytes]:
    return {name.decode("ascii"): value for name, value in _FIELD.findall(rest)}


def _read_loose(text: bytes, source: SourceId) -> Said:
    head = _LOOSE.match(text)
    if head is None:
        return Why.UNKNOWN_WORDING
    inner = text.rfind(_INNER)
    if inner >= 0:
        said = read(text[inner + _INNER.index(b"S") :], source, 0.0)
        return _doubted(said) if isinstance(said, SecurityEvent) else Why.AMBIGUOUS
    kind = KINDS.get(head["kind"])
    last = text.rfind(_ADDRESS)
    if kind is None:
        return Why.UNKNOWN_WORDING
    remote, quote, rest = text[last + len(_ADDRESS) :].partition(b'"')
    if last < head.end() or not quote or b"\n" in rest:
        # Under PJSIP no message of its own fits into the account: what has one inside is not of one piece.
        return Open(Why.CUT, END, over=head["service"] == b"SIP")
    return _event_of(text[head.end() : last], head, kind, remote, rest, source)


def _event_of(
    between: bytes, head: re.Match[bytes], kind: EventKind, remote: bytes, rest: bytes, source: SourceId
) -> SecurityEvent | Why:
    """Make an event of what Asterisk wrote at both ends and the sender ``between`` them."""
    account, known, session = between.partition(b'",SessionID="')
    if not known:
        account, session = b"", between.removeprefix(b'SessionID="')
    middle = session.rfind(b'",LocalAddress="')
    intact = middle >= 0 and session.endswith(b'",Rem')
    alone = _ADDRESS not in between and b"\n" not in between
    said = _fields(rest) if kind in TELLING else {}
    event = build_event(
        source,
        kind,
        head["service"],
        head["time"],
        account,
        session[:middle] if middle >= 0 else session,
        remote,
        *details_of(said),
    )
    if kind is EventKind.SUCCESSFUL_AUTH:
        event = proved_by(_fields(rest).get("UsingPassword"), event)
    if event is None:
        return Why.NOT_AN_ADDRESS
    return event if intact and alone else _doubted(event)


def _doubted(event: SecurityEvent) -> SecurityEvent:
    return evolve(event, tampered=True, password=False)
