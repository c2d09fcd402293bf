"""Parser of the SIP requests of strangers, which the kernel copied.

The sender wrote the whole request. If a nonce occurs anywhere in it, the sender knows that nonce. So the
whole request is searched for nonces. It is read twice, as PJSIP and as chan_sip read it. Tested with a
right password on Asterisk 16.28 (chan_sip) and 22.10.1 (PJSIP):

- Both find the parameter ``nonce`` in upper or lower case, and end a quoted value at the next quote. They
  undo no escapes, so a nonce with backslashes or ``%XX`` is invalid. Of several nonces in a header the
  last one counts.
- PJSIP allows white space and folds around ``=``. Its nonces contain a slash, so they are always quoted.
- chan_sip first removes every CR, joins folded lines and shortens white space
  (``channels/chan_sip.c:lws2sws``). It accepts an unquoted nonce, one without a closing quote, and one
  that a NUL ends, and it ignores case. Asterisk's own nonces are in lower case, so nonces are returned in
  lower case.
- Both answer with the first Call-ID or i header, and keep white space after its value. PJSIP ends a line
  at CR LF, LF, CR, and at ``&`` after a number; chan_sip at LF. chan_sip leaves out all bytes up to 0x20
  before the value, and ends it at a NUL.

A sender can write other user names before the one that Asterisk checks. Here chan_sip checks 300:

    X: username="204"
    Authorization: Digest username=300, …

And here PJSIP does:

    Authorization: Digest username="204", realm="another", …
    Authorization: Digest username
     ="300", …

So a user name counts only if all parameters ``username`` of the request have the same quoted value, and no
parameter's name has an escape.

Limits: a sender can hide the true nonce or Call-ID by writing more of them than are kept. Then the request
is ``crowded``. If a request is fragmented, the kernel copies only the first fragment, unless connection
tracking reassembles the request.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from ipaddress import ip_address
from itertools import islice
from typing import TypeVar

from ringfence.parse.address import unmapped
from ringfence.parse.line_result import text_of
from ringfence.parse.packet import (
    IPV6_ADDRESS,
    TCP,
    UDP,
    Segment,
    ends_of,
    ip_payload,
    packed_address,
    tcp_segment,
    udp_datagram,
)
from ringfence.parse.request_stream import PAGE, RequestStreams
from ringfence.values.event import (
    Transport,
    ambiguous_fingerprint,
    fingerprint,
    method_of,
    short_account,
    short_session,
)
from ringfence.values.network import Address
from ringfence.values.packet import CopiedRequest

_EOL = b"\r\n"
_DIGEST = 16  # bytes of the hash of a request

MOST_NONCES = 64
MOST_CALL_IDS = 4
MOST_SEQUENCES = 4

# The maximum number of occurrences of "nonce" that are examined, which bounds the time. The true one may lie
# in what looks like the value of an earlier one (``x="nonce=", nonce="…"``). So values are searched too.
_MOST_LOOKED_AT = 512
# These patterns search a text in lower case. Otherwise their searches would take five times as long.
# They begin with a literal where they can, because Python finds that much faster.
_NONCE = re.compile(rb"nonce(?<![-.!%*_+`'~0-9a-z]nonce)[ \t\r\n]*+=[ \t\r\n]*+")
_VALUE = re.compile(rb'"([^"\0\r\n]{1,256}+)(?=["\0\r\n]|\Z)|([^\s",;\0]{1,256}+)(?![^\s",;\0])')
_CALL_IDS = re.compile(
    rb"[\r\n&](?:call-id|i)(?>(?:[ \t]|[\r\n]++[ \t])*):(?>(?:[ \t]|\r?+\n[ \t])*)([^\r\n\0]*+)"
)
_SEQUENCES = re.compile(
    rb"cseq(?<=[\r\n&]cseq)(?>(?:[\x01-\t\x0b-\x20]|\n[ \t])*):[\x01-\x20]*+\+?(?=[0-9])0*+([0-9]{0,10})"
)
# PJSIP resolves the escapes of a parameter's name.
_MADDR = re.compile(rb"(?:m|%[46]d)(?:a|%[46]1)(?:d|%[46]4)(?:d|%[46]4)(?:r|%[57]2)")
_MADDR_VALUE = re.compile(_MADDR.pattern + rb"[ \t\r\n]*+=[ \t\r\n]*+\[?+([0-9a-f.:]*+)")
_VIAS = re.compile(
    rb"[\r\n](?:via|v)(?>(?:[ \t]|[\r\n]++[ \t])*):([^\r\n\0]*+(?>(?:(?:\r(?=\n[ \t])|\n[ \t])[^\r\n\0]*+)*))"
)
# A request that both read alike: lines that end with CR LF, without folds, control characters and ``&``.
_PLAIN = re.compile(rb"[^\0-\x1f&]*+(?>(?:\r\n(?! )[^\0-\x1f&]*+)*)")
_PLAIN_CALL_IDS = re.compile(rb"\n(?:call-id|i) *+: *+([^\r]*+)")
_CREDENTIALS = b"authorization"
# Also of Proxy-Authorization. Both read a header only if a colon follows its name, perhaps after white space
# (``pjsip/src/pjsip/sip_parser.c:int_parse_msg``). It may be anywhere: a sender may hide it in a body.
_CREDENTIALS_HEADER = re.compile(_CREDENTIALS + rb"[\0-\x20]*+:")
_ACK = b"ACK "
_LONGEST_METHOD = 16
_SIP = b"SIP/2.0 "  # an answer begins with it
_ORIGIN = re.compile(rb"\r\norigin[ \t]*+:[ \t]*+(?:[a-z][a-z0-9+.-]*+://)?([^\r\n \t]++)", re.IGNORECASE)
_USERNAME = re.compile(rb"username[ \t\r\n]*+=")
_QUOTED = re.compile(rb'[ \t\r\n]*+"([^"\r\n]{0,128}+)"')
_RESPONSE = re.compile(rb'response[ \t\r\n]*+=[ \t\r\n]*+"([^"\0\r\n]{1,255}+)"')
# The end of a parameter's name with an escape, which PJSIP resolves. The longest name is ``username``.
_ESCAPED_NAME = re.compile(rb"%[0-9a-f]{2}[a-z0-9%]{0,24}+[ \t\r\n]*+=")
_CALL_ID_OF_CHAN_SIP = re.compile(
    rb"\n(?:call-id|i)(?>(?:[\x01-\t\x0b-\x20]|\n[ \t])*):([^\n\0]*+(?:\n[ \t][^\n\0]*+)*)"
)
_BLANK = bytes(range(1, 0x21))
_WHITE_RUNS = re.compile(rb"([ \t])[ \t]++")
_MOST_SHORTENED = 1024  # bytes; the white space inside a longer Call-ID stays as it is


def parse_requests(
    packet: bytes, streams: RequestStreams, *, dropped: bool = False
) -> list[CopiedRequest] | None:
    """Parse a stranger's SIP requests in a copied packet, from its IP header on; None if it is not valid.

    A later fragment is not valid. ``streams`` puts the segments of a TCP connection together. If that fails,
    return a request with ``unread``. If the sender has no more room for answers, return one with
    ``diverted``. ``dropped``: a ban drops the packet.
    """
    whole = ip_payload(packet)
    if whole is None:
        return None
    protocol, source, target, payload, may_be_cut = whole
    if protocol == UDP:
        datagram = udp_datagram(payload, may_be_cut=may_be_cut, jumbo=len(source) == IPV6_ADDRESS)
        if datagram is None:
            return None
        port, _, request = datagram
        return [parse_request(packed_address(source), port, request, dropped=dropped, unread=may_be_cut)]
    segment = tcp_segment(source, target, payload) if protocol == TCP else None
    if segment is None or dropped:
        return None if segment is None else []
    return _requests_in(segment, streams, may_be_cut=may_be_cut)


def _requests_in(segment: Segment, streams: RequestStreams, *, may_be_cut: bool) -> list[CopiedRequest]:
    """Parse the SIP requests that a TCP segment completes."""
    source, target, _, _ = ends_of(segment.connection)
    address, local = packed_address(source), packed_address(target)
    port, by_tcp = segment.port, Transport.TCP
    heads = _heads_in(segment, streams, may_be_cut=may_be_cut)
    if heads is None:
        return [CopiedRequest(address, port, (), (), unread=True, transport=by_tcp)]
    room, changed = (True, False) if segment.begins else streams.room(segment.connection, segment.window)
    if changed and not (room or heads):
        return [CopiedRequest(address, port, (), (), diverted=True, transport=by_tcp)]
    pages = [head for head in heads if PAGE.match(head) and _is_of_page(head, local)]
    opened = [CopiedRequest(address, port, (), (), transport=by_tcp, page=True) for _ in pages]
    return opened + [
        parse_request(address, port, head, transport=by_tcp, closed=not room)
        for head in heads
        if not (head.startswith(_SIP) or PAGE.match(head))
    ]


def _is_of_page(head: bytes, local: Address) -> bool:
    """Whether a request for a WebSocket names a web page of another site (RFC 6454 §7, RFC 6455 §4.1).

    Browsers always name the page, and the page cannot change that. A page of this host has its address. A
    name proves nothing: its owner decides to which address it leads.
    """
    origin = _ORIGIN.search(head)
    if origin is None:
        return False
    host = origin[1].decode("latin-1")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return unmapped(ip_address(name)) != local
    except ValueError:
        return True


def _heads_in(segment: Segment, streams: RequestStreams, *, may_be_cut: bool) -> list[bytes] | None:
    """Return the heads of the SIP messages that a segment completes; None if the connection cannot be read.

    ``may_be_cut``: the end of the segment may be missing. Asterisk does not get an urgent byte, so it would
    read another text.
    """
    connection, data = segment.connection, segment.data
    if segment.begins:
        streams.offer(connection, segment.sequence, segment.scale)
        return None if data else []
    if may_be_cut or segment.is_urgent:
        streams.lose(connection)
        return None
    return streams.read(connection, segment.sequence, data) if data else []


def parse_request(
    address: Address,
    port: int,
    request: bytes,
    *,
    dropped: bool = False,
    unread: bool = False,
    transport: Transport = Transport.UDP,
    closed: bool = False,
) -> CopiedRequest:
    """Parse one SIP request of ``address`` and ``port``, from its first line on.

    ``closed``: the sender has no room for an answer by TCP. For the other arguments see
    :class:`CopiedRequest`. An ACK gets no CSeq number and no credentials: it repeats those of its INVITE, and
    nothing answers it.
    """
    reading = request.lower()
    plain = _plain_call_id(request, reading)
    by_chan_sip = request if plain is not None else request.replace(b"\r", b"")
    readings = [reading, reading if plain is not None else by_chan_sip.lower()]
    # Without a bare CR, both read the same nonces and numbers.
    different = readings[: 1 if plain is not None or request.count(b"\r") == request.count(_EOL) else 2]
    start = request.lstrip(_EOL)[:_LONGEST_METHOD]
    answerable = not start.startswith(_ACK)
    credentials = answerable and _has_credentials(readings[1])
    nonces, more_nonces = _first(_nonces(different), MOST_NONCES)
    call_ids, more_call_ids = plain or _first(_call_ids((request, by_chan_sip), readings), MOST_CALL_IDS)
    sequences, more_sequences = _first(_sequences(different), MOST_SEQUENCES)
    diverted = transport is Transport.UDP and _has_maddr(readings[1])
    digest = blake2b(request, digest_size=_DIGEST).digest()
    account, number = "", 0
    if credentials:
        # If the rest of the head was not copied, it may have other credentials.
        whole = not unread or _EOL + _EOL in request.lstrip(_EOL)
        is_certain = whole and not any(map(_has_escaped_name, different))
        account = _account_in((request, by_chan_sip), different) if is_certain else ""
        number = (_fingerprint_in(different, nonces) if is_certain else 0) or ambiguous_fingerprint(digest)
    return CopiedRequest(
        address,
        port,
        nonces,
        tuple(map(short_session, call_ids)),
        sequences if answerable else (),
        credentials,
        digest,
        dropped,
        unread,
        account,
        transport,
        method_of(start.partition(b" ")[0]),
        more_nonces or more_call_ids or more_sequences,
        diverted or closed,
        diverted and answerable and _redirects(different, address),
        fingerprint=number,
    )


def _has_credentials(reading: bytes) -> bool:
    return _CREDENTIALS in reading and _CREDENTIALS_HEADER.search(reading) is not None


def _has_escaped_name(reading: bytes) -> bool:
    """Whether the name of a parameter in a request may have an escape (``%75sername``)."""
    return b"%" in reading and _ESCAPED_NAME.search(reading) is not None


def _has_maddr(reading: bytes) -> bool:
    return (b"maddr" in reading or b"%" in reading) and _MADDR.search(reading) is not None


def _plain_call_id(request: bytes, reading: bytes) -> tuple[tuple[bytes, ...], bool] | None:
    """Return the Call-ID of a plain request, and False (there are no more); None for any other request.

    PJSIP and chan_sip read a plain request alike: it has one Call-ID, without white space, and ``_PLAIN``
    matches it. ``reading`` is the request in lower case.
    """
    if _PLAIN.fullmatch(request) is None:
        return None
    found = [request[slice(*one.span(1))] for one in islice(_PLAIN_CALL_IDS.finditer(reading), 2)]
    return ((found[0],), False) if len(found) == 1 and b" " not in found[0] else None


def _redirects(readings: list[bytes], address: Address) -> bool:
    """Whether a request's Via has the answer sent to another address than the sender's, ``address``.

    ``readings`` are the ways to read the request, in lower case. A ``maddr`` in another header, such as a
    Contact or a Route, is usual and changes nothing. An answer has the Vias of its request.
    """
    own = str(address).encode()
    return any(
        value[1] != own
        for reading in readings
        if not reading.lstrip(_EOL).startswith(_SIP.lower())
        for via in _VIAS.finditer(reading)
        for value in _MADDR_VALUE.finditer(via[1])
    )


def _account_in(texts: Iterable[bytes], readings: Sequence[bytes]) -> str:
    """Return the user name in a request's credentials, if it is quoted and the same in all places.

    Otherwise return "": only Asterisk knows which name it checks. ``readings`` are the ways to read the
    request, in lower case. ``texts`` are the same in the sender's case; there may be more of them.
    """
    found: set[bytes] = set()
    for text, reading in zip(texts, readings, strict=False):
        for name in _looked_at(_USERNAME, reading):
            value = _QUOTED.match(reading, name.end()) if name is not None else None
            if value is None:
                return ""
            found.add(text[slice(*value.span(1))])
    return short_account(text_of(found.pop())) if len(found) == 1 else ""


def _fingerprint_in(readings: Sequence[bytes], nonces: Sequence[bytes]) -> int:
    """Return the fingerprint of a request with one nonce and one response; 0 if it may have several.

    ``readings`` are the ways to read the request, in lower case.
    """
    reading = readings[0]
    names = reading.count(b"nonce") - reading.count(b"cnonce")
    if len(readings) > 1 or len(nonces) != 1 or names != 1 or reading.count(b"response") != 1:
        return 0
    response = _RESPONSE.match(reading, reading.find(b"response"))
    return fingerprint(nonces[0], response[1]) if response is not None else 0


_Value = TypeVar("_Value", bytes, int)


def _first(values: Iterator[_Value | None], most: int) -> tuple[tuple[_Value, ...], bool]:
    """Return the first ``most`` distinct values, and whether there may be more (also if one is None)."""
    found: dict[_Value, None] = {}
    for value in values:
        if value is None or (len(found) == most and value not in found):
            return tuple(found), True
        found[value] = None
    return tuple(found), False


def _looked_at(pattern: re.Pattern[bytes], text: bytes) -> Iterator[re.Match[bytes] | None]:
    """Yield the first ``_MOST_LOOKED_AT`` matches of a pattern in ``text``; then None if there are more."""
    for number, found in enumerate(pattern.finditer(text)):
        yield found if number < _MOST_LOOKED_AT else None


def _nonces(readings: Iterable[bytes]) -> Iterator[bytes | None]:
    for text in readings:
        if b"nonce" not in text:  # in most requests, and much faster than the pattern
            continue
        for name in _looked_at(_NONCE, text):
            value = _VALUE.match(text, name.end()) if name is not None else None
            if value is not None:
                yield value[1] or value[2]
            elif name is None:
                yield None


def _sequences(readings: Iterable[bytes]) -> Iterator[int | None]:
    for text in readings:
        for found in _looked_at(_SEQUENCES, text):
            yield int(found[1] or 0) if found is not None else None


def _call_ids(texts: tuple[bytes, bytes], readings: Sequence[bytes]) -> Iterator[bytes | None]:
    """Yield the Call-ID that chan_sip uses, and then each that PJSIP may use.

    ``texts`` are the request and the same as chan_sip reads it (without CR), ``readings`` both in lower case.
    """
    request, by_chan_sip = texts
    match = _CALL_ID_OF_CHAN_SIP.search(readings[1])
    if match is not None:
        value = by_chan_sip[slice(*match.span(1))].replace(b"\n", b"")
        if len(value) <= _MOST_SHORTENED and (b" " in value or b"\t" in value):
            value = _WHITE_RUNS.sub(rb"\1", value)
        yield value.lstrip(_BLANK)
    for found in _looked_at(_CALL_IDS, readings[0]):
        yield request[slice(*found.span(1))] if found is not None else None
