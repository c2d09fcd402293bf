"""Records of TLS that this host sends: which of them are answers."""

import struct
from ipaddress import ip_address

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from tests.judge.packets import syns
from tests.parse.worst import is_linear

from ringfence.parse.packet import SEQUENCES
from ringfence.parse.request_stream import RequestStreams
from ringfence.parse.tls_records import (
    FREE,
    LEAST_ANSWER,
    LEAST_ASKED,
    MOST_FLIGHTS,
    Flow,
    TlsStreams,
    parse_exchange,
)
from ringfence.values.event import Transport
from ringfence.values.packet import CopiedRequest, Exchange

KEY = b"connection"
A = ip_address("198.18.1.1")
FIRST = SEQUENCES - 100  # the numbers wrap soon
ACKNOWLEDGED = SEQUENCES - 300
ANSWER = 540
UPGRADE = 175


def record(kind: int, length: int) -> bytes:
    """Return a record without meaning."""
    return bytes((kind, 3, 3)) + length.to_bytes(2, "big") + bytes(length)


def hello(modern: int = 0x13, session: int = 32) -> bytes:
    """Return the record of a server's hello, of TLS 1.3 or another version."""
    content = bytes((2, 0, 0, 99, 3, 3)) + bytes(32) + bytes((session,)) + bytes(session) + bytes((modern, 1))
    content += bytes(46)
    return b"\x16\x03\x03" + len(content).to_bytes(2, "big") + content


@frozen
class Sent:
    """Bytes that this host sends after the client has sent ``asked`` more bytes."""

    asked: int
    data: bytes


def expected(sent: list[Sent], *, pages: bool) -> int:
    """Count by the rules in the module's head, record by record; the first one is the hello."""
    credit = found = flight = total = 0
    modern = b"\x13\x01" in sent[0].data
    upgraded = not pages
    for index, one in enumerate(sent):
        total += one.asked
        credit += one.asked if index else 0
        kind, length = one.data[0], int.from_bytes(one.data[3:5], "big")
        if kind == 0x16:
            flight = total
        if kind != 0x17 or (modern and total == flight):
            continue
        upgraded = upgraded or length == UPGRADE
        if length >= LEAST_ANSWER and credit >= LEAST_ASKED and upgraded:
            credit -= LEAST_ASKED
            found += 1
    return found


def segments(sent: list[Sent], cuts: list[int]) -> list[tuple[int, int, bytes]]:
    """Return the segments as sequence number, acknowledgement number and data."""
    found, at, acknowledged = list[tuple[int, int, bytes]](), 0, ACKNOWLEDGED
    for one in sent:
        acknowledged = (acknowledged + one.asked) % SEQUENCES
        ends = sorted({cut - at for cut in cuts if 0 < cut - at < len(one.data)})
        for start, end in zip([0, *ends], [*ends, len(one.data)], strict=True):
            found.append(((FIRST + at + start) % SEQUENCES, acknowledged, one.data[start:end]))
        at += len(one.data)
    return found


def read(parts: list[tuple[int, int, bytes]], *, pages: bool = False) -> int:
    """Read segments, and return the number of answers."""
    streams = TlsStreams()
    return sum(streams.read(KEY, *part, pages=pages).answers for part in parts)


HELLOS = st.builds(hello, st.sampled_from([0x13, 0xC0]), st.integers(0, 32)).map(lambda data: Sent(300, data))
RECORDS = st.builds(
    record,
    st.sampled_from([0x14, 0x15, 0x16, 0x17, 0x17, 0x17, 0x17]),
    st.sampled_from([0, 50, UPGRADE, 250, LEAST_ANSWER - 1, LEAST_ANSWER, ANSWER]),
)
SENT = st.lists(st.builds(Sent, st.sampled_from([0, 80, 199, 200, 500]), RECORDS), max_size=10)
CUTS = st.lists(st.integers(0, 5_000), max_size=20)


@given(first=HELLOS, others=SENT, cuts=CUTS, pages=st.booleans())
def test_any_cuts_give_what_was_sent(
    *, first: Sent, others: list[Sent], cuts: list[int], pages: bool
) -> None:
    """The naive model counts the same, also if each segment is sent twice, and byte by byte."""
    sent = [first, *others]
    parts = segments(sent, cuts)
    assert read(parts, pages=pages) == expected(sent, pages=pages)
    assert read([part for part in parts for _ in range(2)], pages=pages) == expected(sent, pages=pages)
    assert read(segments(sent, [*range(5_000)]), pages=pages) == expected(sent, pages=pages)


@given(SENT, CUTS, st.sets(st.integers(1, 30)))
def test_lost_segments_give_fewer_answers(others: list[Sent], cuts: list[int], lost: set[int]) -> None:
    """Whatever is lost after the hello, no answer is counted that was not sent."""
    sent = [Sent(300, hello()), *(one for one in others if one.data[0] != 0x16)]
    parts = segments(sent, cuts)
    found = read([part for index, part in enumerate(parts) if index not in lost])
    assert found <= expected(sent, pages=False)


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=60)), max_size=8))
def test_any_bytes_can_be_read(first: bytes, others: list[tuple[int, bytes]]) -> None:
    """Nothing raises an error, and what is no record counts nothing."""
    streams = TlsStreams()
    streams.read(KEY, 0, 0, first, pages=False)
    for at, data in others:
        assert streams.read(KEY, at, at * 200, data, pages=False).answers <= 60 // 5 + 1


@pytest.mark.parametrize("cuts", [[], [*range(5_000)]])
@pytest.mark.parametrize(("modern", "pages", "found"), [(0x13, False, 1), (0xC0, False, 2), (0x13, True, 1)])
def test_a_connection_from_its_beginning(*, modern: int, pages: bool, found: int, cuts: list[int]) -> None:
    """Certificates, tickets, alerts and web pages are no answers; what follows a WebSocket's 101 is one."""
    sent = [
        Sent(300, hello(modern)),
        Sent(0, record(0x14, 1)),
        Sent(0, record(0x17, 900)),
        Sent(80, record(0x17, 250)),
        *([Sent(500, record(0x17, ANSWER)), Sent(0, record(0x17, UPGRADE))] if pages else []),
        Sent(500, record(0x17, ANSWER)),
        Sent(0, record(0x15, 50)),
    ]
    if modern != 0x13:  # the record of 900 bytes answers a request
        sent[2] = Sent(200, record(0x17, 900))
    assert read(segments(sent, cuts), pages=pages) == expected(sent, pages=pages) == found


@pytest.mark.parametrize("cuts", [[], [*range(5_000)]])
@pytest.mark.parametrize(("pages", "found"), [(False, 2), (True, 0)])
def test_a_longer_answer_to_a_websocket(*, pages: bool, found: int, cuts: list[int]) -> None:
    """Where strangers read no pages, answers count after a 101 of any length, also behind a pong."""
    sent = [
        Sent(300, hello()),
        Sent(80, record(0x17, 250)),
        Sent(250, record(0x17, UPGRADE + 40)),
        Sent(500, record(0x17, ANSWER)),
        Sent(500, record(0x17, UPGRADE + 1)),
        Sent(0, record(0x17, ANSWER)),
    ]
    assert read(segments(sent, cuts), pages=pages) == expected(sent, pages=pages) == found


@pytest.mark.parametrize("cuts", [[], [*range(20_000)]])
def test_a_page_whose_requests_are_short(cuts: list[int]) -> None:
    """A page in many records is no more answers than its request can hold; a short header is no answer."""
    page = [Sent(250, record(0x17, 240)), *(Sent(0, record(0x17, 4_118)) for _ in range(4))]
    sent = [Sent(300, hello()), Sent(80, record(0x17, 250)), *page]
    assert read(segments(sent, cuts)) == expected(sent, pages=False) == 1


def test_a_hole_and_an_old_acknowledgement() -> None:
    """After lost bytes, reading goes on at a record; a segment that acknowledges less adds nothing."""
    streams, one = TlsStreams(), record(0x17, ANSWER)
    at = len(hello())
    assert streams.read(KEY, 0, 1_000, hello(), pages=False).answers == 0
    assert streams.read(KEY, at + 700, 1_450, one, pages=False).answers == 1
    assert streams.read(KEY, at + 700 + len(one), 900, one, pages=False).answers == 1
    assert streams.read(KEY, at + 700 + 2 * len(one), 1_500, one, pages=False).answers == 0
    assert streams.read(KEY, at + 9_000, 2_700, b"x", pages=False).answers == 0


def test_one_segment_holds_several_answers() -> None:
    """Answers to requests that came together count each, even if they leave in one segment."""
    sent = [Sent(300, hello()), Sent(50 * LEAST_ASKED, b"")]
    three = record(0x17, ANSWER) * 3
    assert read([*segments(sent, []), ((FIRST + len(hello())) % SEQUENCES, 10_000, three)]) == 3


def test_a_segment_that_overlaps_is_read_once() -> None:
    """A retransmission that also holds new bytes gives these."""
    streams = TlsStreams()
    one = record(0x17, ANSWER)
    assert streams.read(KEY, 0, 0, hello(), pages=False).answers == 0
    assert streams.read(KEY, len(hello()), 500, one, pages=False).answers == 1
    assert streams.read(KEY, len(hello()), 1_000, one + one, pages=False).answers == 1
    assert streams.read(KEY, 0, 1_500, b"", pages=False).answers == 0


def test_what_is_no_tls_is_not_remembered() -> None:
    """A connection in clear text takes no room."""
    streams = TlsStreams()
    assert streams.read(KEY, 0, 0, b"SIP/2.0 200 OK\r\n", pages=False).answers == 0
    assert len(streams) == 0


def test_a_new_connection_forgets_the_old_one() -> None:
    """A SYN begins a connection, which may use the ports of an old one."""
    streams = TlsStreams()
    streams.read(KEY, 0, 0, hello(), pages=False)
    streams.begin(KEY)
    assert len(streams) == 0
    streams.begin(KEY)


def test_a_connection_that_was_open_before() -> None:
    """Its first answer shows where to count from; later ones count."""
    streams = TlsStreams()
    one = record(0x17, ANSWER)
    counts = [
        streams.read(KEY, index * len(one), index * 600, one, pages=False).answers for index in range(3)
    ]
    assert counts == [0, 1, 1]


def test_a_connection_begins_with_the_hello_of_this_host() -> None:
    """One that the reader sees from its middle on has not begun there, but one that it forgot may have."""
    streams, one, requests = TlsStreams(1), record(0x17, ANSWER), RequestStreams()

    def begun(data: bytes, at: int, acknowledged: int, port: int = 5061) -> bool:
        parsed = parse_exchange(packet(data, at, acknowledged, port), streams, requests, lambda _: False)
        [found] = [item for item in parsed if isinstance(item, Exchange)]
        return found.begun

    parse_exchange(packet(one, 0, 300), streams, requests, lambda _: False)
    assert not begun(b"", len(one), 900)
    parse_exchange(packet(hello(), 0, 300, 5062), streams, requests, lambda _: False)
    assert begun(b"", len(hello()), 900, 5062)
    parse_exchange(packet(one, 0, 300), streams, requests, lambda _: False)
    assert begun(b"", len(one), 900)


@pytest.mark.parametrize(
    "header", [b"\x13\x03\x03\0\1", b"\x19\x03\x03\0\1", b"\x17\x02\3\0\1", b"\x17\3\3\xff\1"]
)
def test_what_is_no_record_is_skipped(header: bytes) -> None:
    """Reading goes on at the next segment that begins with a record of application data."""
    streams = TlsStreams()
    one = record(0x17, ANSWER)
    streams.read(KEY, 0, 0, hello(), pages=False)
    at = len(hello())
    assert streams.read(KEY, at, 600, header + one, pages=False).answers == 0
    at += len(header + one)
    assert streams.read(KEY, at, 1_200, b"x" + one, pages=False).answers == 0
    assert streams.read(KEY, at + 1 + len(one), 1_800, one, pages=False).answers == 1


def test_the_number_of_connections_is_bounded() -> None:
    """The least recently used one is forgotten first."""
    streams = TlsStreams(2)
    for key in (b"a", b"b", b"a", b"c"):
        streams.read(key, 0, 0, hello(), pages=False)
    assert len(streams) == 2
    assert streams.read(b"a", len(hello()), 600, record(0x17, ANSWER), pages=False).answers == 1


def test_reading_takes_linear_time() -> None:
    """Many short records in one segment take no more time each."""

    def read_all(data: bytes) -> int:
        return TlsStreams().read(KEY, 0, 0, data, pages=False).answers

    assert is_linear(read_all, hello(), record(0x17, 0))


def flows(sent: list[Sent], *, pages: bool = False) -> list[Flow]:
    """Read what was sent, a segment for each, and return what each one shows."""
    streams = TlsStreams()
    return [streams.read(KEY, *part, pages=pages) for part in _whole(sent)]


def _whole(sent: list[Sent]) -> list[tuple[int, int, bytes]]:
    """Return a segment for each, also for those without data."""
    found, at, acknowledged = list[tuple[int, int, bytes]](), FIRST, ACKNOWLEDGED
    for one in sent:
        acknowledged = (acknowledged + one.asked) % SEQUENCES
        found.append((at, acknowledged, one.data))
        at = (at + len(one.data)) % SEQUENCES
    return found


def test_what_a_client_asks_without_an_answer() -> None:
    """Segments without data acknowledge it too; the end of the handshake is left out, and an old number."""
    sent = [Sent(300, hello()), Sent(80, b""), Sent(20 + 330, b""), Sent(330, b""), Sent(0, b"")]
    assert [flow.asked for flow in flows(sent)] == [0, 0, 330, 330, 0]
    assert flows([*sent, Sent(-330, b""), Sent(430, record(0x17, ANSWER))])[5:] == [Flow(), Flow(1, 100)]


def test_a_handshake_of_an_older_version() -> None:
    """The client's key comes after our hello, and our next handshake record shows that it was one."""
    sent = [Sent(300, hello(0xC0)), Sent(330, record(0x14, 1) + record(0x16, 40)), Sent(500, b"")]
    assert flows(sent) == [Flow(), Flow(0, 330 - FREE, opens=True), Flow(0, 500)]
    again = [sent[0], *[Sent(400, record(0x16, 40))] * (MOST_FLIGHTS + 2)]
    assert sum(flow.opens for flow in flows(again)) == MOST_FLIGHTS


@pytest.mark.parametrize("pages", [False, True])
def test_the_request_for_a_websocket_opens_it(*, pages: bool) -> None:
    """Its bytes are no guess. At a port with pages, nothing before it counts, and all after it does."""
    sent = [Sent(300, hello()), Sent(600, b""), Sent(0, record(0x17, UPGRADE)), Sent(500, b"")]
    found = flows([*sent, Sent(500, record(0x17, UPGRADE))], pages=pages)
    assert found[1:] == [
        Flow(0, 0 if pages else 600 - FREE),
        Flow(0, 0, opens=True),
        Flow(0, 500),
        Flow(0, 500),
    ]


def test_a_segment_without_data_begins_no_connection() -> None:
    """Nothing shows that it carries TLS."""
    assert TlsStreams().read(KEY, 0, 500, b"", pages=False) == Flow()


def packet(data: bytes, sequence: int, acknowledged: int, port: int = 5061) -> bytes:
    """Return an IPv4 packet of this host with a TCP segment, from ``port`` to port 4000."""
    ends = ip_address("198.18.0.1").packed + ip_address("198.18.1.1").packed
    tcp = struct.pack("!HHIIBBHHH", port, 4000, sequence, acknowledged, 5 << 4, 0x18, 1024, 0, 0) + data
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + ends + tcp


def test_exchanges_in_packets() -> None:
    """An answer names its destination; other packets give nothing."""
    streams, one, requests = TlsStreams(), record(0x17, ANSWER), RequestStreams()

    def parsed(data: bytes) -> list[Exchange | CopiedRequest]:
        return parse_exchange(data, streams, requests, lambda port: port != 5061)

    assert parsed(syns("198.18.1.1", 4000, "198.18.0.1")[1]) == []
    assert parsed(packet(hello(), 0, 300)) == []
    assert parsed(packet(one, len(hello()), 900)) == [Exchange(A, 4000, 1, 5061, 600 - FREE)]
    assert parsed(packet(b"", 0, 1_200)) == [Exchange(A, 4000, 0, 5061, 300)]
    whole = packet(one, 0, 0)
    streams = TlsStreams()
    assert all(parsed(whole[:end]) == [] for end in range(len(whole)))
    assert parsed(whole[:9] + b"\x11" + whole[10:]) == []


@pytest.mark.parametrize("port", [5060, 5061])
def test_a_reset_shows_nothing(port: int) -> None:
    """The kernel sends it for a closed connection, with the acknowledgement number 0 or one of a forger."""
    back = A.packed + ip_address("198.18.0.1").packed + struct.pack("!HH", 4000, 5060)
    streams, requests = TlsStreams(), RequestStreams()
    requests.lose(back)
    for data in (hello(), record(0x17, ANSWER)) if port == 5061 else (b"", b""):
        parse_exchange(packet(data, 0, 3_000_000_000, port), streams, requests, lambda _: False)
    reset = bytearray(packet(b"", 0, 3_000_000_500, port))
    reset[20 + 13] = 0x04

    assert parse_exchange(bytes(reset), streams, requests, lambda _: False) == []
    reset[20 + 13] = 0x10
    assert parse_exchange(bytes(reset), streams, requests, lambda _: False) != []


def test_what_came_while_nothing_was_copied_does_not_count() -> None:
    """A friend's packets are copied again days later; the first of them acknowledges all that came since."""
    streams, at = TlsStreams(), len(hello())
    assert streams.read(KEY, 0, 1_000, hello(), pages=False) == Flow()
    assert streams.read(KEY, at + 5_000, 301_000, b"", pages=False).asked == 0
    assert streams.read(KEY, at + 5_000, 302_000, b"", pages=False).asked == 1_000


def test_unread_connections_in_clear_text() -> None:
    """From where the requests cannot be read on, what this host acknowledges counts, and its answers do."""
    back = A.packed + ip_address("198.18.0.1").packed + struct.pack("!HH", 4000, 5060)
    streams, requests = TlsStreams(), RequestStreams()

    def parsed(data: bytes, acknowledged: int) -> list[Exchange | CopiedRequest]:
        return parse_exchange(packet(data, 1, acknowledged, 5060), streams, requests, lambda _: False)

    assert parsed(b"SIP/2.0 200 OK", 900) == []
    requests.offer(back, 99)
    requests.begin(back, 100)
    assert requests.read(back, 100, b"REGISTER") == []
    assert parsed(b"", 108) == []
    assert requests.read(back, 108, b"\0\r\n\r\n") is None
    one = Exchange(A, 4000, 0, 5060, 13, transport=Transport.TCP)
    assert parsed(b"", 113) == [one]
    assert parsed(b"", 113) == []
    assert parsed(b"x" * LEAST_ASKED, 613) == [Exchange(A, 4000, 1, 5060, 500, transport=Transport.TCP)]
    assert parsed(b"x" * LEAST_ASKED, 600) == [Exchange(A, 4000, 1, 5060, 0, transport=Transport.TCP)]


def test_a_clear_connection_begins_with_the_syn_that_this_host_answers() -> None:
    """One that the reader sees from its middle on has not begun there, but one that it forgot may have."""
    ends = [A.packed + ip_address("198.18.0.1").packed + struct.pack("!HH", 4000, port) for port in (1, 2, 3)]
    streams, requests = TlsStreams(), RequestStreams(2)

    def begun(port: int) -> bool:
        [found] = parse_exchange(packet(b"", 1, 400, port), streams, requests, lambda _: False)[-1:]
        assert isinstance(found, Exchange)
        return found.begun

    requests.lose(ends[0])
    parse_exchange(packet(b"", 1, 100, 1), streams, requests, lambda _: False)
    requests.offer(ends[1], 99)
    requests.begin(ends[1], 100)
    requests.lose(ends[1])
    assert [begun(1), begun(2)] == [False, True]
    requests.lose(ends[2])
    requests.lose(ends[0])
    parse_exchange(packet(b"", 1, 100, 1), streams, requests, lambda _: False)
    assert begun(1)


def test_no_part_of_an_answer_in_clear_text_is_tls() -> None:
    """Its sender acknowledges it up to a byte of its own in it, and the kernel sends the rest again."""
    back = A.packed + ip_address("198.18.0.1").packed + struct.pack("!HH", 4000, 5060)
    streams, requests = TlsStreams(), RequestStreams()
    requests.lose(back)

    def parsed(data: bytes, acknowledged: int) -> list[Exchange | CopiedRequest]:
        return parse_exchange(packet(data, 1, acknowledged, 5060), streams, requests, lambda _: True)

    assert parsed(b"SIP/2.0 401 Unauthorized", 100) == []
    assert parsed(hello(), 100) == []
    assert parsed(b"", 700) == [Exchange(A, 4000, 0, 5060, 600, transport=Transport.TCP, begun=False)]


def test_tls_at_a_port_whose_requests_are_copied() -> None:
    """The requests by WSS are copied and unread too, so their bytes must not count a second time."""
    back = A.packed + ip_address("198.18.0.1").packed + struct.pack("!HH", 4000, 8089)
    streams, requests = TlsStreams(), RequestStreams()
    requests.lose(back)
    found = [
        parse_exchange(packet(data, at, acknowledged, 8089), streams, requests, lambda _: False)
        for data, at, acknowledged in ((hello(), 0, 300), (b"", len(hello()), 900), (b"", len(hello()), 900))
    ]
    assert found == [[], [Exchange(A, 4000, 0, 8089, 600 - FREE)], []]


def test_a_missing_copy_makes_a_connection_unread() -> None:
    """If this host acknowledges what no copy showed, the requests are not all known; a FIN is no byte."""
    back = A.packed + ip_address("198.18.0.1").packed + struct.pack("!HH", 4000, 5060)
    streams, requests = TlsStreams(), RequestStreams()
    requests.offer(back, 99)
    requests.begin(back, 100)
    assert parse_exchange(packet(b"", 1, 101, 5060), streams, requests, lambda _: False) == []
    found = parse_exchange(packet(b"", 1, 400, 5060), streams, requests, lambda _: False)
    assert found == [
        CopiedRequest(A, 4000, (), (), unread=True, transport=Transport.TCP),
        Exchange(A, 4000, 0, 5060, 300, transport=Transport.TCP),
    ]
