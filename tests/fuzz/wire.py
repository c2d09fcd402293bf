"""Readers of packets: what the kernel copies (NFLOG), SIP, TCP streams, TLS records, HEP, and netlink."""

import errno
import itertools
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from socket import AF_INET

from tests.firewall.ipset import test_messages as ipset_listed
from tests.fuzz.asterisk import VICTIM, hostile_requests
from tests.fuzz.promises import Target, joined, parts_of, require
from tests.judge import packets
from tests.parse import test_answer_stream as of_stream
from tests.parse import test_answers as of_answers
from tests.parse import test_hep as of_hep
from tests.parse import test_request_stream as of_requests
from tests.parse import test_requests as of_request
from tests.parse import test_tls_records as of_tls

from ringfence.errors import FirewallError
from ringfence.features.hep.guard import ExportReader
from ringfence.firewall.ipset import messages as ipset
from ringfence.firewall.nftables import elements as nft_elements
from ringfence.firewall.nftables import messages as nft
from ringfence.host.closed import _parse as parse_closed
from ringfence.netlink.connection import (
    FRAME,
    NLM_F_ACK_TLVS,
    NLMSG_ERROR,
    NetlinkMessageError,
    _answers,
    _collect_answers,
    attribute,
    frames,
    message,
    result_of,
)
from ringfence.netlink.nflog import Acknowledged, Logged, read_datagram
from ringfence.netlink.sock_diag import _received, address_of, delivered_packets, tcp_info
from ringfence.parse.answer_stream import MOST_PENDING, AnswerStreams
from ringfence.parse.answers import continues, parse_answers, parse_message
from ringfence.parse.hep import MOST_CONNECTIONS
from ringfence.parse.packet import SEQUENCES
from ringfence.parse.request_stream import MOST_EARLY_BYTES, MOST_MESSAGE, RequestStreams, heads_in
from ringfence.parse.requests import MOST_CALL_IDS, MOST_NONCES, MOST_SEQUENCES, parse_request, parse_requests
from ringfence.parse.tls_records import TlsStreams, parse_exchange
from ringfence.sources.wire import DROPPED, REQUEST, WireItem, WireSink, WireSource
from ringfence.values.ban import Scope
from ringfence.values.event import MOST_ACCOUNT, MOST_KEPT, MOST_SESSION, Transport
from ringfence.values.packet import CopiedAnswer, CopiedRequest

ADDRESS = ip_address(VICTIM.address)
MOST, MOST_BYTES = 4, 16_384
"""The bounds of the streams here: small, so that inputs reach them."""


def require_request(request: CopiedRequest) -> None:
    """Require that what is kept of a request is bounded."""
    require(len(request.nonces) <= MOST_NONCES, "the nonces of a request")
    require(len(request.call_ids) <= MOST_CALL_IDS, "the Call-IDs of a request")
    require(len(request.sequences) <= MOST_SEQUENCES, "the numbers of a request")
    require(len(request.account) <= MOST_ACCOUNT, "the account of a request")
    require(max(map(len, request.call_ids), default=0) <= MOST_SESSION, "a Call-ID of a request")
    require(max(map(len, request.nonces), default=0) <= MOST_KEPT, "a nonce of a request")


def require_answer(answer: CopiedAnswer) -> None:
    """Require that what is kept of an answer is bounded."""
    require(len(answer.call_id) <= MOST_SESSION, "the Call-ID of an answer")
    require(len(answer.nonce) <= MOST_KEPT, "the nonce of an answer")
    require(len(answer.account) <= MOST_ACCOUNT, "the account of an answer")


def require_items(items: Iterable[object]) -> None:
    """Require that what is kept of each request and answer is bounded."""
    for item in items:
        if isinstance(item, CopiedRequest):
            require_request(item)
        elif isinstance(item, CopiedAnswer):
            require_answer(item)


# -- SIP messages


def read_request(data: bytes) -> None:
    """Read a SIP request, and what TLS carried at once."""
    for transport in (Transport.UDP, Transport.TLS):
        require_request(parse_request(ADDRESS, 5060, data, transport=transport))
    heads = heads_in(data)
    require(sum(map(len, heads)) <= len(data), "the heads of requests")
    require_items(parse_requests(of_request.packet(data[:60_000]), RequestStreams()) or ())


def requests() -> Iterator[bytes]:
    """Yield requests: one of a phone, hostile ones, and one for a WebSocket."""
    yield of_request.REQUEST
    yield of_requests.ASK + of_requests.CALL + of_requests.BODY
    yield of_requests.PAGE % b"https://example.com"
    yield of_request.REQUEST.replace(b";rport", b";rport;m%61ddr=192.0.2.9")
    yield from hostile_requests()
    for change in (b"\r", b"\r\n ", b"\n\t", b"%4e", b"&i:"):
        yield of_request.REQUEST.replace(b" ", change, 12)


def read_answer(data: bytes) -> None:
    """Read a SIP answer as PJSIP's and chan_sip's: by UDP, whole, and cut."""
    ends = ADDRESS, 5062, ip_address("198.18.0.1"), 5060
    for transport in (Transport.UDP, Transport.TCP):
        require_items(filter(None, [parse_message(data, *ends, transport)]))
    require_items(of_answers.answers_in(of_answers.ipv4(of_answers.udp(data[:60_000]))))
    require_items(of_answers.answers_in(of_answers.ipv6(of_answers.udp(data[:60_000]))))


def answers() -> Iterator[bytes]:
    """Yield answers of PJSIP and chan_sip, also with hostile Vias."""
    yield of_answers.PJSIP
    yield of_answers.CHAN_SIP
    yield of_answers.ORDINARY
    for via in of_answers.MAKINGS:
        yield of_answers.PJSIP.replace(b";branch", via + b";branch", 1)


# -- TCP streams. A part of an input is a segment, whose number says how it follows the one before


def _numbers(data: bytes, first: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield what to do with each segment, its sequence number and its bytes."""
    following = first
    for number, part in parts_of(data):
        ahead = (0, 0, 0, 0, 1, 40, -1, -len(part) // 2)[number & 7] * (1 + (number >> 5))
        sequence = (following + ahead) % SEQUENCES
        if ahead == 0:
            following = (following + len(part)) % SEQUENCES
        yield number, sequence, part


def read_request_stream(data: bytes) -> None:
    """Read segments of strangers, of several connections."""
    streams = RequestStreams(MOST, MOST_BYTES)
    first = of_requests.FIRST
    key = of_requests.KEY
    of_requests.connect(streams)
    for number, sequence, part in _numbers(data, first):
        match number >> 3 & 3:
            case 1:
                streams.room(key, number << 8 & 0xFFFF)
                streams.acknowledge(key, sequence)
                streams.answer(key, part)
            case 2:
                other = b"other %d" % (number & 7)
                of_requests.connect(streams, (sequence + 1) % SEQUENCES, number & 3, other)
                streams.read(other, (sequence + 1) % SEQUENCES, part)
            case 3 if not part:
                streams.lose(key)
                require(streams.has_begun(key), "a connection that was begun is known")
            case _:
                found = streams.read(key, sequence, part) or []
                require(all(len(one) <= MOST_MESSAGE for one in found), "the head of a request")
        held = sum(stream.held for stream in streams._streams.values())
        require(streams.pending == held, "the bytes of incomplete requests are counted")
        require(held <= MOST_BYTES, "the bytes of incomplete requests")
        require(len(streams._streams) <= MOST, "the number of connections")
        for stream in streams._streams.values():
            require(stream.held <= 2 * MOST_MESSAGE + MOST_EARLY_BYTES, "the bytes of one connection")


def request_streams() -> Iterator[bytes]:
    """Yield segments with requests, in frames too, in and out of order."""
    yield joined((0, of_requests.ASK), (0, of_requests.CALL), (0, of_requests.BODY))
    yield joined((0, of_requests.ASK[:40]), (5, of_requests.ASK[40:]), (0, of_requests.ASK[40:]))
    frames_ = [of_requests.framed(of_requests.ASK), of_requests.framed(of_requests.CALL[:20], 0x01)]
    switched = (0, of_requests.UPGRADE), (12, of_requests.SWITCHED)
    yield joined(*switched, *((0, one) for one in frames_), (8, b""), (16, of_requests.ASK))
    yield joined((0, of_requests.ASK[:40]), (24, b""), (0, of_requests.ASK[40:]))
    yield joined((5, bytes(MOST_BYTES + 1)), (24, b""))  # forgotten because of its bytes
    yield joined(*((0, of_requests.ASK[at : at + 9]) for at in range(0, len(of_requests.ASK), 9)))


def read_answer_stream(data: bytes) -> None:
    """Read segments of this host, of several connections."""
    streams = AnswerStreams(MOST, MOST_BYTES)
    key, first = of_stream.KEY, of_stream.FIRST
    streams.begin(key, first - 1)
    for number, sequence, part in _numbers(data, first):
        match number >> 3 & 3:
            case 1:
                require(sum(len(one) for _, one in streams.cut()) <= 2 * MOST_BYTES + 60_000, "cut answers")
            case 2:
                other = b"other %d" % (number & 7)
                streams.begin(other, sequence)
                streams.read(other, sequence, part)
            case _:
                streams.read(key, sequence, part)
                is_next = bool(part) and not number & 7 and key in streams._streams
                require(not is_next or key in streams, "a connection of which data was read continues")
        pending = sum(len(stream.pending) for stream in streams._streams.values())
        require(streams.pending == pending, "the bytes of incomplete answers are counted")
        require(pending <= MOST_BYTES, "the bytes of incomplete answers")
        require(len(streams._streams) <= MOST, "the number of connections")
        require(streams._begun.keys() <= streams._streams.keys(), "incomplete answers of known connections")
        require(streams._lost_bytes <= MOST_BYTES, "the bytes of lost answers")
        require(all(len(one.pending) <= MOST_PENDING for one in streams._streams.values()), "one answer")


def answer_streams() -> Iterator[bytes]:
    """Yield segments with answers, in frames too, with holes and late segments."""
    one, other = of_stream.ANSWER, of_stream.WITH_BODY
    yield joined((0, one + other), (0, of_stream.FINE), (8, b""), (0, one[:50]), (8, b""), (0, one[50:]))
    yield joined((0, of_stream.UPGRADE), (0, of_stream.framed(one)), (0, of_stream.framed(b"", 0x8A)))
    yield joined((5, one), (0, other), (6, one), (16, one), (17, one[:30]), (7, of_stream.GONE * 9))


def read_tls(data: bytes) -> None:
    """Read segments with TLS records, as packets too."""
    streams, requests_ = TlsStreams(MOST), RequestStreams(MOST, MOST_BYTES)
    acknowledged = of_tls.ACKNOWLEDGED
    for number, sequence, part in _numbers(data, of_tls.FIRST):
        acknowledged = (acknowledged + (number << 3)) % SEQUENCES
        key = b"other %d" % number if number >> 3 & 3 == 3 else of_tls.KEY
        flow = streams.read(key, sequence, acknowledged, part, pages=bool(number & 64))
        require(flow.answers <= 1 + len(part) // 5, "the number of answers in records")
        packet = of_tls.packet(part[:60_000], sequence, acknowledged, 5061 + (number & 1))
        require_items(parse_exchange(packet, streams, requests_, lambda port: port == 5061))
        require(len(streams) <= MOST, "the number of connections")
        for stream in streams._streams.values():
            require(len(stream.head) + len(stream.hello) <= 100, "the bytes that are kept of records")


def tls_streams() -> Iterator[bytes]:
    """Yield a hello, a certificate, answers and a WebSocket, of both versions."""
    for modern in (0x13, 0xC0):
        one, small = of_tls.record(0x17, of_tls.ANSWER), of_tls.record(0x17, of_tls.UPGRADE)
        yield joined(
            (0, of_tls.hello(modern)), (40, one), (96, small), (32, one * 3), (64, one[:90]), (32, one[90:])
        )


# -- copies of packets: a part of an input is a packet, whose number says who sent it


class _Sink(WireSink):
    """Requires that what is passed on is bounded."""

    def on_packets(self, seen: Sequence[WireItem], now: float) -> None:
        """Check each item."""
        require_items(seen)


_PREFIXES = (b"", REQUEST, DROPPED, b"hep")


def read_copies(data: bytes) -> None:
    """Read copied packets of strangers, of this host and of containers, with all state between them."""
    wire = WireSource(_Sink(), containers=[ip_network("172.17.0.0/16")])
    exports = of_hep.exports()

    class Exported(ExportReader):
        def __init__(self) -> None:
            pass

        def read(self, packet: bytes, now: float, lost: float) -> Sequence[WireItem] | None:
            found = exports.read(packet, sure=True)
            return None if found is None else [one for one in (found.message,) if one is not None]

    wire.readers[b"hep"] = Exported()
    for now, (number, packet) in enumerate(parts_of(data)):
        user = None if number & 8 else 100
        wire.on_packet(Logged(now, packet, bool(number & 4), _PREFIXES[number & 3], user), float(now))
        wire.on_turn(float(now), more=bool(number & 16))


def copies() -> Iterator[bytes]:
    """Yield packets with requests and answers by UDP, TCP and IPv6, and Asterisk's exports."""
    yield joined(
        (1, of_request.packet(of_request.REQUEST)), (4, of_answers.ipv4(of_answers.udp(of_answers.PJSIP)))
    )
    answer = of_answers.PJSIP.replace(b"/UDP", b"/TCP")
    syn, segment = of_answers.SYN, of_answers.tcp(answer)
    yield joined((4, of_answers.ipv4(syn, kind=6)), (4, of_answers.ipv4(segment, kind=6)), (20, b""))
    yield joined(
        (1, of_answers.ipv4(syn, kind=6)), (1, of_answers.ipv6(of_answers.tcp(of_requests.ASK), kind=6))
    )
    yield joined(
        (0, of_answers.ipv6(of_answers.udp(of_answers.CHAN_SIP))), (2, of_request.packet(of_request.REQUEST))
    )
    ends = VICTIM.address, 40_000, "198.18.0.1"
    asks, accepts = packets.syns(*ends)
    page = packets.segment(*ends, packets.PORT, of_requests.PAGE % b"https://example.com")
    yield joined((1, asks), (4, accepts), (1, page))
    yield joined(*((7, of_hep.packet(one)) for one in exports()))


def read_hep(data: bytes) -> None:
    """Read datagrams of Asterisk's export; a part of an input is a datagram."""
    reader = of_hep.exports()
    for _, part in parts_of(data):
        found = reader.read(of_hep.packet(part[:60_000]), sure=True)
        if found is not None:
            require_items([found.message])
    of_hep.exports().read(data, sure=False)
    require(len(reader._connections) <= MOST_CONNECTIONS, "the number of connections")


def exports() -> Iterator[bytes]:
    """Yield exported requests and answers, in both orders of chunks."""
    for text, outgoing, version in itertools.product(
        (of_hep.register(more=of_hep.CREDENTIALS), of_hep.register() * 2, of_hep.answer()),
        (True, False),
        (4, 6),
    ):
        yield of_hep.hep(of_hep.chunks(text, outgoing=outgoing, version=version))


def hep_datagrams() -> Iterator[bytes]:
    """Yield a request with its answer, and the same request twice."""
    found = [*exports()]
    yield joined(*((0, one) for one in found))
    yield joined((0, found[2]), (0, found[2]), (0, found[-1]))


def read_nflog(data: bytes) -> None:
    """Read a datagram of the packet log, and the packets in it."""
    for one in read_datagram(data):
        if isinstance(one, Logged):
            require(one.sequence is None or 0 <= one.sequence < SEQUENCES, "the number of a packet")
            require(len(one.payload) <= len(data), "the length of a packet")
            answers_ = AnswerStreams(MOST, MOST_BYTES)
            parse_answers(one.payload, answers_)
            continues(one.payload, answers_)
            parse_requests(one.payload, RequestStreams(MOST, MOST_BYTES))
        else:
            require(one is None or isinstance(one, Acknowledged), "the kinds of messages")


def nflog_datagrams() -> Iterator[bytes]:
    """Yield a packet of each direction, an acknowledgement, and several messages."""
    packet, answer = of_request.packet(of_request.REQUEST), of_answers.ipv4(of_answers.udp(of_answers.PJSIP))
    found = [
        message(
            0x400,
            0,
            AF_INET,
            attribute(1, bytes([8, 0, hook, 0])),
            attribute(10, prefix + b"\0"),
            attribute(11, bytes(4)),
            attribute(12, bytes(4)),
            attribute(9, payload),
        )
        for hook, prefix, payload in ((0, b"request", packet), (3, b"", answer))
    ]
    yield from found
    yield struct.pack("=IHHIIi", 20, 2, 0, 1, 1, -1) + found[0]


# -- other messages of the kernel


def _all(data: bytes, *readers: Callable[[bytes], object]) -> None:
    """Read a message with each reader; each may find that it is no message of its kind."""
    for read in readers:
        with suppress(NetlinkMessageError):
            found = read(data)
            if isinstance(found, Iterator):
                for _ in found:
                    pass


def read_netlink(data: bytes) -> None:
    """Read a message of the kernel as each kind of nftables, ipset and the list of sockets."""
    _all(
        data,
        nft.generation_of,
        lambda one: nft.tables_of([one]),
        lambda one: nft.chains_of([one]),
        lambda one: nft.rules_of([one]),
        lambda one: nft.sets_of([one]),
        lambda one: nft.counters_of([one]),
        lambda one: nft_elements.bans_of(one, 4, 32, Scope.FULL),
        lambda one: nft_elements.bans_of(one, 6, 64, Scope.FULL),
        lambda one: nft_elements.remembered_of(one, whole=True),
        lambda one: nft_elements.remembered_of(one, whole=False),
        lambda one: nft_elements.refused_index(one, len(one) // 2),
        lambda one: ipset.version_of(one, ipset.Command.PROTOCOL),
        ipset.parse_name,
        ipset.parse_header,
        ipset.parse_elements,
        ipset.refused_index,
        parse_closed,
        _read_sockets,
        _read_answers,
    )


def _read_sockets(data: bytes) -> None:
    if len(data) in {4, 16}:
        address_of(data)
    for frame in frames(data):
        result_of(data, frame)
        _received(data, frame), delivered_packets(tcp_info(data, frame))


def _read_answers(data: bytes) -> None:
    answers_: list[bytes] = []
    for read in (lambda: _collect_answers(data, 1, answers_), lambda: [*_answers(data, {1: 0})]):
        with suppress(FirewallError):  # the kernel refuses a request
            read()
    require(sum(map(len, answers_)) <= len(data), "the bytes of answers")


def netlink_messages() -> Iterator[bytes]:
    """Yield messages of nftables and ipset with elements, rules, sets and counters; a closed connection."""
    yield ip_address("192.0.2.7").packed
    yield ip_address("::ffff:192.0.2.7").packed
    why = attribute(1, b"not so\0") + attribute(2, (20).to_bytes(4, sys.byteorder))
    refused = struct.pack("=i", -errno.EINVAL) + bytes(FRAME.size) + why
    for flags, body in ((0, struct.pack("=i", -errno.EPERM)), (NLM_F_ACK_TLVS, refused)):
        yield FRAME.pack(FRAME.size + len(body), NLMSG_ERROR, flags, 1, 0) + body
    networks = [ip_network("192.0.2.7"), ip_network("192.0.2.8")]
    wide = [ip_network("2001:db8:7::/64")]
    yield nft_elements.add_elements("ringfence", "ban4_32", [(one, 60_000) for one in networks])
    yield nft_elements.add_elements("ringfence", "ban6_64", [(one, 60_000) for one in wide])
    key = attribute(1, attribute(1, networks[0].network_address.packed))
    yield message(
        nft.MessageType.NEWSETELEM, 0, 1, attribute(3, attribute(1, key + attribute(5, b"\xff" * 200)))
    )
    for kind in nft.MessageType:
        inner = attribute(1, b"counter\0") + attribute(2, attribute(1, bytes(8)) + attribute(2, bytes(8)))
        yield message(
            kind,
            0,
            1,
            *(attribute(number, b"name\0") for number in (1, 2, 3)),
            attribute(4, attribute(1, inner)),
            attribute(7, b"\0\x05text\0"),
            attribute(9, attribute(1, bytes(4))),
        )
    yield ipset.add("ringfence", [(one, 60) for one in networks])
    yield ipset.create("ringfence", 4, hashsize=64, maxelem=10)
    yield from (ipset_listed.LISTED4, ipset_listed.LISTED6, ipset_listed.LISTED_WITH_COMMENTS)
    yield (
        struct.pack("=IHHII", 92 + 4 + 200, 20, 0, 0, 0)
        + struct.pack("=4B2s2s16s16s", 2, 7, 0, 0, b"\x13\xc4", b"\x9c\x40", bytes(16), bytes(16)).ljust(
            72, b"\0"
        )
        + attribute(2, bytes(200))
    )


def _of(*names: str) -> tuple[str, ...]:
    return tuple(f"parse/{name}.py" for name in names)


_NETLINK = ("netlink/connection.py", "netlink/nflog.py")
TARGETS = (
    Target("request", read_request, requests, _of("requests", "request_stream", "packet"), tries=500),
    Target("answer", read_answer, answers, _of("answers", "packet", "address"), tries=1_000),
    Target("request-stream", read_request_stream, request_streams, _of("request_stream"), tries=500),
    Target("answer-stream", read_answer_stream, answer_streams, _of("answer_stream"), tries=1_000),
    Target("tls", read_tls, tls_streams, _of("tls_records"), tries=300, longest=15_000),
    Target(
        "copies",
        read_copies,
        copies,
        (
            "sources/wire.py",
            *_of("packet", "requests", "request_stream", "answers", "answer_stream", "tls_records", "hep"),
        ),
        per_byte=200,
        tries=500,
    ),
    Target("hep", read_hep, hep_datagrams, _of("hep"), tries=500),
    Target("nflog", read_nflog, nflog_datagrams, (*_NETLINK, *_of("packet")), tries=1_000),
    Target(
        "netlink",
        read_netlink,
        netlink_messages,
        (
            *_NETLINK,
            *(f"firewall/nftables/{name}.py" for name in ("messages", "elements")),
            *("firewall/ipset/messages.py", "host/closed.py", "netlink/sock_diag.py"),
        ),
        tries=500,
    ),
)
