"""SECURITY lines: ``SecurityEvent="InvalidPassword",EventTV="…",…`` (``res/res_security_log.c``).

The names and their order are those of ``main/security_events.c``, as in :mod:`ringfence.parse.security`.
Values are not escaped. The account and the session (a Call-ID) are the sender's text, stand before the true
address, and may hold quotes, whole forged fields and, in the account, line feeds. Behind the address no quote
comes that is not escaped. So the true address follows the last ``oteAddress="``: of its name only that is
always left, since the log swallows everything from an ESC (at the end of a Call-ID) up to the next ``m``
(``main/term.c:term_strip``).

A line whose values hold no quote and no second address is read by one pattern; any other is read from both
its ends, and is marked as tampered where it shows a second address, or a session that has no end.

A message is cut at 8191 bytes, without a line feed: what stands before its address then is all there is, and
another message may follow it on the same line. Where a second head stands in a message, the last address is
that of the last head, whoever wrote it: the event is read from there, and marked as tampered.
"""

import re

from attrs import evolve

from ringfence.model import EventKind, SecurityEvent, SourceId
from ringfence.parse.reading import Open, Said, Why
from ringfence.parse.security import KINDS, TELLING, build_event, details_of

_HEAD = (
    rb'SecurityEvent="(?P<kind>[A-Za-z]{1,32}+)",EventTV="(?P<time>[^"\n]{1,40}+)",'
    rb'Severity="(?:Informational|Error)",Service="(?P<service>PJSIP|SIP|AMI)",EventVersion="\d{1,3}+",'
)
_STRICT = re.compile(
    _HEAD + rb'(?:AccountID="([^"\n]*+)",)?+SessionID="([^"\n]*+)",LocalAddress="[^"\n]*+",'
    rb'RemoteAddress="([^"\n]*+)"'
    rb'(?:,Challenge="([^"\n]*+)"(?:,Response="([^"\n]*+)",ExpectedResponse="[^"\n]*+")?+)?+'
    rb'((?:,[A-Za-z]{1,24}+="[^"\n]*+")*+)'
)
_LOOSE = re.compile(_HEAD + rb'(?:AccountID=")?+')
_FIELD = re.compile(rb',([A-Za-z]{1,24}+)="([^"]*+)"')
_ADDRESS = b'oteAddress="'
END = re.compile(rb'oteAddress="[^"\n]*+"[^\n]*+\Z')
_INNER = b'res_security_log.c: SecurityEvent="'
_ACCOUNT = "AccountID"


def read(text: bytes, source: SourceId, now: float) -> Said:  # noqa: ARG001 - a line has its own time
    """Read the message of a SECURITY line."""
    found = _STRICT.fullmatch(text)
    if found is None or text.rfind(_ADDRESS) + len(_ADDRESS) != found.start(6):
        return _read_loose(text, source)
    name, time, service, account, session, remote, challenge, response, rest = found.groups(b"")
    kind = KINDS.get(name)
    if kind is None:
        return Why.UNKNOWN_WORDING
    acl_name = b""
    if rest:
        said = _fields(text[found.end(6) :])
        account = said.get(_ACCOUNT, account)
        acl_name, challenge, response = details_of(said)
    if kind not in TELLING:
        acl_name = challenge = response = b""
    event = build_event(source, kind, service, time, account, session, remote, acl_name, challenge, response)
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
        return evolve(said, tampered=True) if isinstance(said, SecurityEvent) else Why.AMBIGUOUS
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
    if event is None:
        return Why.NOT_AN_ADDRESS
    alone = _ADDRESS not in between and b"\n" not in between
    return event if intact and alone else evolve(event, tampered=True)
