"""Exchanges that cannot be read: answers by TLS, and how much a stranger asked. Nothing is decrypted.

The clear part of a record is its header: a type, a version and a length (RFC 8446 §5.1). Asterisk writes each
SIP message, and each frame of a WebSocket, into one record of application data (tried with PJSIP and
chan_sip, over TLS and WSS). So its answers can be counted, and no text of a sender can hide them.

Only what this host sends is read, because a sender writes its own segments as it likes. How much of the
sender's data has arrived stands in the acknowledgement numbers of our own segments. These records are no
answers to requests:

- *too short*: the shortest refusal has some 380 bytes. Session tickets, the 101 that opens a WebSocket, pongs
  and alerts are shorter. (A 403 of PJSIP may be shorter, but follows no wrong password.)
- *the handshake of TLS 1.3*: certificates are records of application data too. They leave before anything
  arrives that the client sends after its hello, so the acknowledgement number is that of our hello.
- *not asked for*: for each answer the client must have sent ``LEAST_ASKED`` bytes since its hello. So a page
  in many records is one or two answers, and what a WebSocket of ARI reports by itself is none.
- *web pages*, if strangers may read them at this port (``https_pages``): there a connection counts only after
  a record that has exactly the length of Asterisk's 101 for a WebSocket. A sender can evade this: Asterisk
  repeats the blanks of ``Sec-WebSocket-Protocol: x,   sip`` in its 101 (tried on 16 and 22). No rule
  separates what follows from pages: these have any length, and a pong before each answer looks like the
  header before a page.

A sender can also keep the answers from leaving: it closes its receive window. So what it asks is reported
too, in bytes: of TLS without the handshake, and of plain TCP from where ``parse/request_stream.py`` cannot
read on. ``detect/unexplained.py`` decides what these bytes are. At a port with web pages, the bytes of a
connection count only after such a record, like its answers.

A lost segment makes fewer answers, never more: reading goes on at a segment that begins with a record of
application data. What was sent before the reader saw the connection is not known: its first answer then only
shows where to count from, and a WebSocket among pages that was open before is not counted. Such a connection
has not ``begun`` here, unless the reader may have seen and forgotten its beginning.

    SYN-ACK, 16 03 03 (our hello), 17 03 03 (certificate)      acknowledges the client's hello
    17 03 03, 250 bytes, twice                                 session tickets
    17 03 03, 540 bytes                                        an exchange

Bounds: ``MOST_STREAMS`` connections, of which the least recently used are forgotten first. A connection needs
data of this host to be remembered, so forged SYNs push none out. PJSIP holds 5 000 connections at most.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from attrs import define

from ringfence.parse.packet import SEQUENCES, Segment, ends_of, other_way, packed_address, segment_in
from ringfence.parse.request_stream import RequestStreams
from ringfence.values.event import Transport
from ringfence.values.packet import CopiedRequest, Exchange

MOST_STREAMS = 16_384
LEAST_ANSWER = 336
"""The minimum size in bytes of a TLS record that may be a SIP refusal, 16 of them for encryption."""
LEAST_ASKED = 200
"""The minimum number of bytes that a client sends for one SIP answer by TLS. No guess is shorter."""

FREE = 100
"""The number of bytes from a client, after the server's hello, that belong to the handshake of TLS 1.3."""
MOST_FLIGHTS = 3
"""How often this host may send TLS handshake records after client bytes. More are a renegotiation."""

_HANDSHAKE, _DATA = 0x16, 0x17
_FIRST, _LAST = 0x14, 0x18  # the types of records
_MAJOR = 3
_HEADER = 5
_MOST_RECORD = (1 << 14) + 2048
_GREETING = b"\x16"
_APPLICATION = b"\x17\x03\x03"
_HALF = SEQUENCES // 2
# A server's hello: type, length, version, random; then the length of the session id, the id, and the cipher.
_SESSION_LENGTH = 4 + 2 + 32
_MOST_SESSION = 32
_HELLO = _SESSION_LENGTH + 1 + _MOST_SESSION + 2
_MODERN = 0x13  # the first byte of each cipher of TLS 1.3
# Asterisk's 101 has 158 bytes with the protocol "sip" (``res_http_websocket.c``), here with each encryption:
# CHACHA20 and CCM_8 of TLS 1.2, TLS 1.3, GCM and CCM of TLS 1.2, and CBC with each hash.
_UPGRADES = frozenset({174, 175, 182, 196, 208, 224})


@define
class _Stream:
    """How far the TLS records that this host sends on one connection have been read.

    ``next`` is the sequence number of the next byte, ``left`` how many bytes of the present record follow,
    and ``head`` the part of a record's header that has been read. ``synced``: the next byte belongs to a
    known record. ``greets``: this host's ServerHello comes next or is being read. ``hello`` is what has been
    read of it, until it shows whether this is TLS 1.3 (``modern``). ``flight`` is the TCP acknowledgement
    number of the last record of the handshake that this host sent, ``acknowledged`` the latest number of any
    segment. ``asked`` is how many bytes of the client came since the last answer to it. ``upgraded``: an
    answer had the length of one that upgrades to WebSocket. ``free`` is how many more bytes of the client
    count for the handshake and not as a question; ``flights`` is the number of answers to such bytes.
    ``begun``: the reader saw its beginning, or may have forgotten it.
    """

    next: int
    acknowledged: int
    left: int = 0
    head: bytes = b""
    synced: bool = True
    greets: bool = False
    hello: bytes = b""
    modern: bool = False
    flight: int | None = None
    asked: int = 0
    upgraded: bool = False
    free: int = FREE
    flights: int = 0
    begun: bool = True


class Flow(NamedTuple):
    """What a TCP segment with TLS shows: how many answers begin in it, and the client bytes it acknowledges.

    ``opens``: bytes before belonged to the handshake of TLS, or to the request for a WebSocket. ``begun`` is
    as in :class:`Exchange`.
    """

    answers: int = 0
    asked: int = 0
    opens: bool = False
    begun: bool = True


_NOTHING = Flow()


class TlsStreams:
    """Reads the TLS records that this host sends to strangers.

    The key of a connection is its addresses and ports, as packed bytes.
    """

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most = most
        self._streams: OrderedDict[bytes, _Stream] = OrderedDict()
        self._forgot = False  # whether any connection was forgotten to make room

    def __len__(self) -> int:
        """Return the number of TLS connections that are remembered."""
        return len(self._streams)

    def __contains__(self, connection: bytes) -> bool:
        """Whether a connection (its packed addresses and ports) is known to carry TLS."""
        return connection in self._streams

    def begin(self, connection: bytes) -> None:
        """Forget what is known of a connection, because a new one has the same key ``connection``."""
        self._streams.pop(connection, None)

    def read(self, connection: bytes, sequence: int, acknowledged: int, data: bytes, *, pages: bool) -> Flow:
        """Return how many answers begin in a TCP segment of this host, and what it acknowledges.

        ``connection`` is its packed addresses and ports (this host's first), ``data`` its payload, and
        ``sequence`` and ``acknowledged`` are the numbers in its header. ``pages``: strangers may read web
        pages at its port. The result is empty if the connection carries no TLS.
        """
        stream = self._streams.get(connection)
        if stream is None:
            greets = data.startswith(_GREETING)
            if not greets and not data.startswith(_APPLICATION):
                return _NOTHING
            stream = _Stream(sequence, acknowledged, greets=greets, begun=greets or self._forgot)
            self._streams[connection] = stream
            if len(self._streams) > self._most:
                self._streams.popitem(last=False)
                self._forgot = True
        self._streams.move_to_end(connection)
        newly = (acknowledged - stream.acknowledged) % SEQUENCES
        if newly >= _HALF:
            newly = 0
        else:
            stream.acknowledged, stream.asked = acknowledged, stream.asked + newly
        free = min(newly, stream.free)
        stream.free -= free
        # Segments of this host were not copied, as those to a friend. What it acknowledged meanwhile may be
        # days old. A FIN takes a number, but is no byte.
        missed = 1 < (sequence - stream.next) % SEQUENCES < _HALF
        upgraded, flights = stream.upgraded, stream.flights
        answers = self._answers(stream, sequence, acknowledged, data, pages=pages)
        opens = stream.flights > flights or (stream.upgraded and not upgraded)
        asked = 0 if missed or (pages and not stream.upgraded) else newly - free
        return Flow(answers, asked, opens, stream.begun)

    def _answers(self, stream: _Stream, sequence: int, acknowledged: int, data: bytes, *, pages: bool) -> int:
        """Return how many answers begin in ``data``, the TLS records of a TCP segment; update ``stream``."""
        ahead = (sequence - stream.next) % SEQUENCES
        if ahead >= _HALF:  # it begins before the next byte
            data = data[SEQUENCES - ahead :]
        elif ahead:
            stream.synced, stream.left, stream.head, stream.next = False, 0, b"", sequence
        stream.next = (stream.next + len(data)) % SEQUENCES
        if not stream.synced and not data.startswith(_APPLICATION):
            return 0
        stream.synced = True
        return _count(stream, acknowledged, data, pages=pages)


def _count(stream: _Stream, acknowledged: int, data: bytes, *, pages: bool) -> int:
    """Read the next bytes of this host's TLS records; return how many answers begin in them.

    For ``acknowledged`` and ``pages`` see :meth:`TlsStreams.read`.
    """
    found = at = 0
    while at < len(data):
        if stream.left:
            part = data[at : at + stream.left]
            if stream.greets:
                _greet(stream, part)
            at += len(part)
            stream.left -= len(part)
            continue
        part = data[at : at + _HEADER - len(stream.head)]
        stream.head += part
        at += len(part)
        if len(stream.head) < _HEADER:
            break
        kind, major, length = stream.head[0], stream.head[1], int.from_bytes(stream.head[3:])
        if not _FIRST <= kind <= _LAST or major != _MAJOR or length > _MOST_RECORD:
            stream.synced, stream.head = False, b""
            break
        stream.left, stream.head = length, b""
        if kind == _HANDSHAKE:
            if stream.flight not in (None, acknowledged) and stream.flights < MOST_FLIGHTS:
                stream.flights += 1
            stream.flight = acknowledged
        elif kind == _DATA:
            found += _is_answer(stream, acknowledged, length, pages=pages)
    return found


def _greet(stream: _Stream, part: bytes) -> None:
    """Read the beginning of the server's hello, whose cipher shows whether this is TLS 1.3."""
    stream.hello += part[: _HELLO - len(stream.hello)]
    if len(stream.hello) <= _SESSION_LENGTH:
        return
    at = _SESSION_LENGTH + 1 + min(stream.hello[_SESSION_LENGTH], _MOST_SESSION)
    if len(stream.hello) > at:
        stream.modern = stream.hello[at] == _MODERN
        stream.greets, stream.hello = False, b""


def _is_answer(stream: _Stream, acknowledged: int, length: int, *, pages: bool) -> bool:
    """Whether a TLS record may be a SIP answer; if so, use up client bytes, so that they count once.

    For ``acknowledged`` and ``pages`` see :meth:`TlsStreams.read`.
    """
    if stream.modern and acknowledged == stream.flight:
        return False
    if length in _UPGRADES:
        stream.upgraded = True
    if length < LEAST_ANSWER or stream.asked < LEAST_ASKED or (pages and not stream.upgraded):
        return False
    stream.asked -= LEAST_ASKED
    return True


def parse_exchange(
    packet: bytes,
    streams: TlsStreams,
    requests: RequestStreams,
    has_pages: Callable[[int], bool],
) -> list[Exchange | CopiedRequest]:
    """Return what a TCP packet of this host (bytes from its IP header on) shows of its connection.

    Of a connection in ``streams`` (TLS), the records are read. Of one in ``requests`` (plain) that cannot be
    read, the bytes that the packet acknowledges are counted. Both tables are changed. ``has_pages`` returns
    whether strangers may read web pages at a port.
    """
    segment = segment_in(packet)
    if segment is None or segment.is_reset:  # a reset may acknowledge any number
        return []
    back = other_way(segment.connection)
    if segment.begins:
        streams.begin(segment.connection)
        requests.begin(back, segment.acknowledged)
        return []
    # The sender of a request in clear text can have any part of an answer sent again, as a segment.
    if not requests.is_clear(back):
        flow = streams.read(
            *(segment.connection, segment.sequence, segment.acknowledged, segment.data),
            pages=has_pages(segment.port),
        )
        if segment.connection in streams:
            return _exchange_of(segment, flow)
    return _unread_by(segment, requests, back)


def _exchange_of(segment: Segment, flow: Flow) -> list[Exchange | CopiedRequest]:
    """Return what ``segment`` of this host, of a TLS connection with this ``flow``, shows of requests."""
    if not (flow.answers or flow.asked or flow.opens):
        return []
    address = packed_address(ends_of(segment.connection)[1])
    found = Exchange(
        *(address, segment.target_port, flow.answers, segment.port, flow.asked, flow.opens), begun=flow.begun
    )
    return [found]


def _unread_by(segment: Segment, requests: RequestStreams, back: bytes) -> list[Exchange | CopiedRequest]:
    """Return what ``segment`` of this host shows of requests in clear text that cannot be read.

    ``back`` is the key of its connection in ``requests``. If reading fails from now on, the result has a
    :class:`CopiedRequest` that is ``unread``.
    """
    address, port = packed_address(ends_of(segment.connection)[1]), segment.target_port
    misread = bool(segment.data) and requests.answer(back, segment.data)
    asked, lost = requests.acknowledge(back, segment.acknowledged)
    found: list[Exchange | CopiedRequest] = []
    if misread or lost:
        found.append(CopiedRequest(address, port, (), (), unread=True, transport=Transport.TCP))
    number = int(len(segment.data) >= LEAST_ASKED)
    if asked is not None and (asked or number):
        ends = address, port, number, segment.port, asked
        found.append(Exchange(*ends, transport=Transport.TCP, begun=requests.has_begun(back)))
    return found
