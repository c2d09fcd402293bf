"""Random SIP requests: guesses at a password whose bytes are changed, by structure and at random.

The same seed results in the same changes. A guess is *clear* if its first line and its digest are unchanged,
and it has no other digest: then a refusal shows that Asterisk has checked the password.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence

from attrs import evolve, frozen
from tests.live.truth import MARK
from tests.support.hostile_text import LINES, Victim, named
from tests.support.sip_raw import Raw, request_of
from tests.support.sip_wire import Challenge

METHODS = (b"REGISTER", b"REGISTER", b"REGISTER", b"INVITE", b"SUBSCRIBE", b"MESSAGE", b"OPTIONS", b"PUBLISH")
_SHORT: Mapping[bytes, bytes] = {
    b"Via": b"v",
    b"From": b"f",
    b"To": b"t",
    b"Call-ID": b"i",
    b"Contact": b"m",
    b"Content-Length": b"l",
    b"Content-Type": b"c",
    b"Event": b"o",
}
_PIECES = (
    *(b"\0", b"\x1b", b"\x1b[0m", b"\xff", b"\xc3", b"\xe2\x80\xae", b"\t", b"\r", b"\n", b"%0d%0a", b"%00"),
    *(b'"', b"'", b"<", b">", b";", b",", b"\\", b"%", b"()", b"(", b"@", b":", b" ", b"  "),
    *(b";rport", b";rport=1", b";alias", b";lr", b";tag=x", b";branch=z9hG4bKx", b"x" * 2_000, b"9" * 300),
)
_HEADERS = (
    *(b"Authorization: Digest x", b"Authorization: Basic YWxpY2U6eA==", b"Proxy-Authorization: Digest"),
    *(b"Require: 100rel", b"Supported: path", b"Path: <sip:{v};lr>", b"Route: <sip:198.18.0.1;lr>"),
    *(
        b"Via: SIP/2.0/UDP {v}:{p};branch=z9hG4bKv",
        b"Via: SIP/2.0/TCP {v}:{p}",
        b"Record-Route: <sip:{v};lr>",
    ),
    *(
        b"Contact: <sip:a@{v}:{p}>",
        b"X-Forwarded-For: {v}",
        b"P-Asserted-Identity: <sip:a@{v}>",
        b"Expires: 0",
    ),
    *(
        b"Content-Length: 0",
        b"Content-Length: 99999",
        b"Max-Forwards: 0",
        b"Call-ID: other",
        b"CSeq: 9 INVITE",
    ),
)
_VIA_PARAMETERS = (b";maddr={v}", b";received={v}", b";sent-by={v}", b";transport=tcp", b";maddr={v};rport")
_AUTHORIZATION = re.compile(rb"\r\n[ \t]*(?:proxy-)?authorization[ \t]*:", re.IGNORECASE)
_BYTE_RATE = 0.25
"""The share of the requests of which a byte is changed."""
_BODY = b"SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP {v}:{p}\r\n\r\n"

Change = Callable[[random.Random, list[bytes], Victim], None]
"""Changes the lines of a request."""


@frozen
class Request:
    """The bytes of a request with its mark, and whether it is a clear guess, or an unchanged question."""

    mark: int
    data: bytes
    clear: bool
    question: bool


def plain(chosen: random.Random, account: bytes, mark: int) -> Raw:
    """Return a request without changes and without credentials."""
    raw = request_of(chosen.choice(METHODS), account)
    return evolve(raw, call_id=b"call-%d" % mark)


def changed(
    chosen: random.Random, raw: Raw, where: tuple[str, str], mark: int, victim: Victim, most: int
) -> Request:
    """Return the bytes of a request with at most so many random changes of its lines, and perhaps of a byte.

    ``where`` is the sender's own address with its port, and its transport.
    """
    data = raw.encode(*where, MARK.format(mark))
    lines = data.split(b"\r\n")
    for _ in range(chosen.randint(0, most)):
        chosen.choice(_CHANGES)(chosen, lines, victim)
    changed_data = b"\r\n".join(lines)
    if most and chosen.random() < _BYTE_RATE:
        changed_data = _with_changed_byte(chosen, changed_data)
    question = not raw.extra and changed_data == data
    return Request(mark, changed_data, is_clear(raw, data, changed_data), question)


def guess(raw: Raw, challenge: Challenge, number: int) -> Raw:
    """Return the same request with a wrong password, as the ``number``-th guess of its call, from 0."""
    return evolve(raw, cseq=raw.cseq + number).answering(challenge, f"wrong-{number}")


def is_clear(raw: Raw, before: bytes, after: bytes) -> bool:
    """Whether the first line and the digest are unchanged, and no other digest is present.

    No stray CR, LF or NUL may end the headers before the digest.
    """
    if not raw.extra or after.partition(b"\r\n")[0] != before.partition(b"\r\n")[0]:
        return False
    head = after.partition(b"\r\n\r\n")[0] + b"\r\n"
    _, found, rest = head.partition(b"\r\n" + raw.extra)
    broken = any(byte in b"\r\n\0" for byte in head.replace(b"\r\n", b""))
    is_whole = bool(found) and not rest.startswith((b" ", b"\t"))
    return is_whole and not broken and len(_AUTHORIZATION.findall(head)) == 1


def _filled(text: bytes, victim: Victim) -> bytes:
    return text.replace(b"{v}", victim.address.encode()).replace(b"{p}", b"%d" % victim.port)


def _line(chosen: random.Random, lines: Sequence[bytes]) -> int:
    """Return the number of one of the header lines."""
    return chosen.randrange(1, max(2, len(lines) - 2))


def _twice(chosen: random.Random, lines: list[bytes], _: Victim) -> None:
    lines.insert(_line(chosen, lines), lines[_line(chosen, lines)])


def _without(chosen: random.Random, lines: list[bytes], _: Victim) -> None:
    if len(lines) > 4:
        del lines[_line(chosen, lines)]


def _swapped(chosen: random.Random, lines: list[bytes], _: Victim) -> None:
    first, second = _line(chosen, lines), _line(chosen, lines)
    lines[first], lines[second] = lines[second], lines[first]


def _folded(chosen: random.Random, lines: list[bytes], _: Victim) -> None:
    at = _line(chosen, lines)
    lines[at] = lines[at].replace(b" ", chosen.choice((b"\r\n ", b"\r\n\t", b"\n ", b" \r\n \r\n ")), 1)


def _shortened(chosen: random.Random, lines: list[bytes], _: Victim) -> None:
    at = _line(chosen, lines)
    name, colon, rest = lines[at].partition(b":")
    lines[at] = _SHORT.get(name, chosen.choice((name.upper(), name.lower(), name + b" "))) + colon + rest


def _with_piece(chosen: random.Random, lines: list[bytes], _: Victim) -> None:
    at = _line(chosen, lines)
    place = chosen.randint(0, len(lines[at]))
    lines[at] = lines[at][:place] + chosen.choice(_PIECES) + lines[at][place:]


def _with_header(chosen: random.Random, lines: list[bytes], victim: Victim) -> None:
    lines.insert(_line(chosen, lines), _filled(chosen.choice(_HEADERS), victim))


def _with_via_parameter(chosen: random.Random, lines: list[bytes], victim: Victim) -> None:
    at = chosen.choice((1, 1, 1, _line(chosen, lines)))
    lines[at] += _filled(chosen.choice(_VIA_PARAMETERS), victim)


def _with_line(chosen: random.Random, lines: list[bytes], victim: Victim) -> None:
    """Insert text that looks like a line of Asterisk's log, or like a part of an event."""
    at = _line(chosen, lines)
    text = named(chosen.choice(tuple(LINES)), victim).replace(b"\r\n", b"\n")
    before = chosen.choice((b"", b"\n", b"\x1b", b"\xff", b'"', b"\0"))
    place = chosen.choice((len(lines[at]), lines[at].find(b":") + 2))
    lines[at] = lines[at][:place] + before + text + lines[at][place:]


def _with_body(chosen: random.Random, lines: list[bytes], victim: Victim) -> None:
    body = _filled(_BODY, victim)
    lines[-1] += body
    if chosen.random() < 0.7:
        for at, line in enumerate(lines):
            if line.startswith(b"Content-Length:"):
                lines[at] = b"Content-Length: %d" % len(lines[-1])


def _behind_blank_lines(_: random.Random, lines: list[bytes], __: Victim) -> None:
    lines[:0] = [b"", b""]


_CHANGES: Sequence[Change] = (
    *(_twice, _without, _swapped, _folded, _shortened, _with_piece, _with_piece, _with_header),
    *(_with_via_parameter, _with_line, _with_body, _behind_blank_lines),
)


def _with_changed_byte(chosen: random.Random, data: bytes) -> bytes:
    """Return the bytes with one of them changed, removed or repeated."""
    at = chosen.randrange(len(data))
    byte = bytes([chosen.randrange(256)])
    return (
        data[:at]
        + chosen.choice((b"", byte, byte + data[at : at + 1], data[at : at + 40] * 3))
        + data[at + 1 :]
    )
