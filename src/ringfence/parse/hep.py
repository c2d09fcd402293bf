r"""Parser of HEP, by which Asterisk exports its decrypted SIP messages: those of TLS and WSS.

One datagram has one message of Asterisk's module ``res_hep_pjsip`` (HEP version 3, all numbers big endian):

    "HEP3", total length (16 bits), then chunks: vendor, type, length with this head (16 bits each), data

The chunks may come in any order. Their lengths are Asterisk's own, so no text of a sender moves them. The
remote address and port are those of the connection. Only the *payload* chunk has text of the sender.

**Whose message it is.** HEP shows no direction. A stranger may send an answer to Asterisk that looks like one
of Asterisk's, and Asterisk exports its own requests too. So a message counts by its addresses: an answer only
from one of this host's addresses and a TLS or WSS port of Asterisk, a request only to one. The ports also
show which messages are of interest: UDP, TCP and WebSocket are read on the wire, and must not count twice.

**Requests that share a read.** The payload of a request is everything that Asterisk has read from the
connection at once. Two requests in one TLS record come as two datagrams with the same payload. The chunk
*UUID* has the Call-ID, as PJSIP reads it. So the request is the one with this Call-ID; if several have it,
the first datagram with this UUID stands for the first one, and so on. If the payload is not plain
(``request_stream.py``), each datagram stands for all of it.

**Suppression.** Asterisk cannot send datagrams of over 65 507 bytes. So a sender can suppress the export of a
request by a read of 64 kB, and that of request and answer by a Call-ID of 33 kB. No phone does that. So an
answer that refuses a request which was not exported is ``evasive``.

**Long messages.** The kernel copies only the beginning of a packet (``firewall/contract.py``): otherwise a
sender of 61 kB could have Asterisk export 13 MB. If the Call-ID alone is longer, the status of an answer is
unknown; it counts as an evasive refusal, because no phone sends such a Call-ID. If the head of a request is
cut off, the request may have credentials, and counts as one that has.

Bounds: ``MOST_CONNECTIONS`` connections, of which the least recently used are forgotten first. All steps take
linear time.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b
from struct import Struct

from attrs import Factory, define, frozen

from ringfence.parse.answers import parse_message
from ringfence.parse.packet import UDP, ip_payload, packed_address
from ringfence.parse.request_stream import heads_in
from ringfence.parse.requests import parse_request
from ringfence.values.event import Endpoint, Transport, ambiguous_fingerprint, short_session
from ringfence.values.fast import evolve
from ringfence.values.network import Address
from ringfence.values.packet import CopiedAnswer, CopiedRequest

MOST_CONNECTIONS = 4_096
MOST_SHARED = 64
"""The number of Call-IDs of one read whose datagrams are counted each."""

_MAGIC = b"HEP3"
_BEGIN = 6  # bytes: the magic, and the total length
_CHUNK = Struct(">HHH")
_MOST_CHUNKS = 32  # Asterisk sends 15
_UDP_HEADER = 8
_FAMILY, _PROTOCOL, _SOURCE_PORT, _TARGET_PORT, _KIND, _PAYLOAD, _UUID = 1, 2, 7, 8, 11, 15, 17
_ADDRESSES = {b"\x02": (3, 4, 4), b"\x0a": (5, 6, 16)}  # by family: types of source and target, length
_TCP, _SIP = b"\x06", b"\x01"
_PORT = 2  # bytes
_EOL = b"\r\n"
_ANSWER, _ACK = b"SIP/2.0 ", b"ACK "
_CODE = slice(8, 11)  # of the status in an answer
_REFUSALS = (b"401", b"403", b"407")
_FINAL = b"2"  # final answers have a code of at least 200
_DIGEST = 16  # bytes

AddressTest = Callable[[Address], bool]
"""A function that returns whether an address has a property, such as being one of this host."""


@frozen
class Exported:
    """A decrypted SIP message between Asterisk and ``remote`` by TLS or WSS, which Asterisk exported (HEP).

    ``message`` is None if it is of no interest: ``remote`` is known, Asterisk sent the request, or the text
    is cut off. ``unasked``: Asterisk refused a request that it did not export.
    """

    remote: Endpoint
    message: CopiedAnswer | CopiedRequest | None = None
    unasked: bool = False


@frozen
class _Frame:
    """The contents of a HEP datagram: one SIP message with its addresses. ``cut``: its end is missing."""

    source: Address
    source_port: int
    target: Address
    target_port: int
    uuid: bytes
    payload: bytes
    cut: bool


@define
class _Connection:
    """State of a connection: its requests without an answer, and the datagrams that share its last read.

    ``payload`` is a digest of what was read. ``total`` is the number of its datagrams, and ``numbers`` has
    that of each Call-ID (UUID), by a digest.
    """

    open: int = 0
    payload: bytes = b""
    total: int = 0
    numbers: dict[bytes, int] = Factory(dict)

    def number(self, payload: bytes, uuid: bytes) -> int:
        """Return how many datagrams with this payload and UUID came before this one, since another payload.

        Beyond ``MOST_SHARED`` UUIDs, return a number that no other of these datagrams has.
        """
        read, key = (blake2b(one, digest_size=_DIGEST).digest() for one in (payload, uuid))
        if read != self.payload:
            self.payload, self.total, self.numbers = read, 0, {}
        self.total += 1
        known = self.numbers.get(key)
        if known is None and len(self.numbers) >= MOST_SHARED:
            return self.total
        self.numbers[key] = (known or 0) + 1
        return known or 0


class Exports:
    """Reads the decrypted SIP messages of TLS and WSS that Asterisk exports by HEP.

    ``ports`` are Asterisk's ports of TLS and WSS. ``is_own`` decides whether an address is this host's, and
    ``is_known`` whether a remote address is a friend's or allowed.
    """

    def __init__(self, ports: Mapping[int, Transport], is_own: AddressTest, is_known: AddressTest) -> None:
        self._ports = ports
        self._is_own = is_own
        self._is_known = is_known
        self._connections: OrderedDict[Endpoint, _Connection] = OrderedDict()
        # The latest payload of a request, and its requests with their Call-IDs.
        self._latest: tuple[bytes, list[tuple[bytes, tuple[bytes, ...]]]] = (b"", [])

    def read(self, packet: bytes, *, sure: bool) -> Exported | None:
        """Parse a copied packet, from its IP header on; None unless it has a message of TLS or WSS.

        ``sure``: no earlier packet is missing, so an answer without a request was unasked.
        """
        frame = _frame_in(packet)
        if frame is None:
            return None
        outgoing = frame.source_port in self._ports and self._is_own(frame.source)
        if outgoing == (frame.target_port in self._ports and self._is_own(frame.target)):
            return None  # between other hosts, or within this one
        if outgoing:
            remote = Endpoint(frame.target, frame.target_port, self._ports[frame.source_port])
        else:
            remote = Endpoint(frame.source, frame.source_port, self._ports[frame.target_port])
        connection = self._connection(remote)
        is_answer = frame.payload.lstrip(_EOL).startswith(_ANSWER) or (outgoing and not frame.payload)
        if is_answer != outgoing:
            return Exported(remote)
        known = self._is_known(remote.address)
        if not outgoing:
            return self._on_request(frame, remote, connection, known=known)
        unasked = sure and not connection.open and frame.payload[_CODE] in _REFUSALS
        if not frame.payload or frame.payload[_CODE] >= _FINAL:
            connection.open = max(connection.open - 1, 0)
        return Exported(remote, None if known else _answer(frame, remote, evasive=unasked), unasked)

    def _connection(self, remote: Endpoint) -> _Connection:
        known = self._connections.setdefault(remote, _Connection())
        self._connections.move_to_end(remote)
        if len(self._connections) > MOST_CONNECTIONS:
            self._connections.popitem(last=False)
        return known

    def _on_request(
        self, frame: _Frame, remote: Endpoint, connection: _Connection, *, known: bool
    ) -> Exported:
        if known or not frame.payload:
            connection.open += 1
            return Exported(remote)
        number = connection.number(frame.payload, frame.uuid)
        own = self._request_in(frame, number)
        text = own or frame.payload
        if not text.lstrip(_EOL).startswith(_ACK):
            connection.open += 1
        return Exported(remote, _request(frame, remote, text, None if own else number))

    def _request_in(self, frame: _Frame, number: int) -> bytes | None:
        """Return the request of the datagram ``number`` (from 0) of those with this payload and UUID.

        Return None if it is unknown.
        """
        payload, heads = self._latest
        if payload != frame.payload:
            heads = [
                (head, parse_request(frame.source, 0, head).call_ids) for head in heads_in(frame.payload)
            ]
            self._latest = frame.payload, heads
        call_id = short_session(frame.uuid)
        own = [head for head, call_ids in heads if call_id in call_ids and frame.uuid in head]
        # It may be in the part that is cut off, or the sender has chosen the number of the datagram.
        if not own or (number >= len(own) and (frame.cut or number > MOST_SHARED)):
            return None
        return own[number % len(own)]


def _frame_in(packet: bytes) -> _Frame | None:
    """Return the contents of a HEP packet about a SIP message by TCP or TLS; None for any other packet."""
    whole = ip_payload(packet)
    if whole is None or whole[0] != UDP or len(whole[3]) < _UDP_HEADER:
        return None
    length = int.from_bytes(whole[3][4:6]) - _UDP_HEADER
    chunks = _chunks(whole[3][_UDP_HEADER:], length)
    if chunks is None or chunks.get(_PROTOCOL) != _TCP or chunks.get(_KIND) != _SIP:
        return None
    known = _ADDRESSES.get(chunks.get(_FAMILY, b""))
    if known is None:
        return None
    source, target = (chunks.get(kind, b"") for kind in known[:2])
    ports = [chunks.get(kind, b"") for kind in (_SOURCE_PORT, _TARGET_PORT)]
    if {len(source), len(target)} != {known[2]} or {len(port) for port in ports} != {_PORT}:
        return None
    source_port, target_port = (int.from_bytes(port) for port in ports)
    payload, uuid = chunks.get(_PAYLOAD, b""), chunks.get(_UUID, b"")
    cut = len(whole[3]) - _UDP_HEADER < length
    if not (payload or cut):
        return None
    return _Frame(
        packed_address(source), source_port, packed_address(target), target_port, uuid, payload, cut
    )


def _chunks(data: bytes, total: int) -> dict[int, bytes] | None:
    """Return the chunks of a HEP datagram by type; None if it is not HEP.

    ``total`` is the datagram's length, of which ``data`` has the beginning. The last chunk may be cut off.
    """
    if not data.startswith(_MAGIC) or int.from_bytes(data[4:_BEGIN]) != total or len(data) > total:
        return None
    found: dict[int, bytes] = {}
    at = _BEGIN
    while at < len(data):
        if len(data) - at < _CHUNK.size:
            return found if len(data) < total else None
        vendor, kind, length = _CHUNK.unpack_from(data, at)
        if length < _CHUNK.size or at + length > total:
            return None
        if not vendor:
            if kind in found or len(found) == _MOST_CHUNKS:
                return None
            found[kind] = data[at + _CHUNK.size : at + length]
        at += length
    return found


def _request(frame: _Frame, remote: Endpoint, text: bytes, number: int | None) -> CopiedRequest:
    """Parse a SIP request of ``remote``.

    ``number`` is None, or that of its datagram, if ``text`` is a whole payload in which the request is not
    found.
    """
    request = parse_request(remote.address, remote.port, text, transport=remote.transport)
    first = request.call_ids[:1] == (short_session(frame.uuid),)
    if frame.uuid:
        request = evolve(request, call_ids=(short_session(frame.uuid),))
    if number is not None:  # each datagram is another request
        unread = frame.cut and (number > 0 or not first or _EOL + _EOL not in text)
        digest = blake2b(b"%d %b %b" % (number, request.digest, frame.uuid), digest_size=_DIGEST).digest()
        request = evolve(request, digest=digest, unread=unread, credentials=request.credentials or unread)
        if request.credentials:  # they may be those of another request in the payload
            account = "" if unread else request.account
            request = evolve(request, account=account, fingerprint=ambiguous_fingerprint(digest))
    return request


def _answer(frame: _Frame, remote: Endpoint, *, evasive: bool) -> CopiedAnswer | None:
    call_id = short_session(frame.uuid)
    if not frame.payload:  # the Call-ID is so long that the rest is cut off
        return CopiedAnswer(
            *(remote.address, remote.port, frame.source, frame.source_port, call_id, b""),
            evasive=True,
            transport=remote.transport,
        )
    answer = parse_message(
        frame.payload, remote.address, remote.port, frame.source, frame.source_port, remote.transport
    )
    if answer is None:
        return None
    return evolve(answer, call_id=call_id or answer.call_id, evasive=answer.evasive or evasive)
