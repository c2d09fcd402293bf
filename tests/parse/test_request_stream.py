"""Requests in TCP segments: what is read, and what makes a connection unread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.judge.packets import syns
from tests.parse.worst import is_linear_in, seconds

from ringfence.parse.packet import SEQUENCES
from ringfence.parse.request_stream import (
    KEPT,
    LEAST_ROOM,
    MOST_EARLY,
    MOST_EARLY_BYTES,
    MOST_MESSAGE,
    MOST_NEWLY,
    MOST_TOGETHER,
    RequestStreams,
)
from ringfence.parse.requests import parse_requests
from ringfence.parse.tls_records import TlsStreams, parse_exchange
from ringfence.values.event import Transport
from ringfence.values.packet import CopiedRequest, Exchange

KEY = b"connection"
FIRST = SEQUENCES - 100  # the numbers wrap soon
ASK = b"REGISTER sip:a SIP/2.0\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n"
CALL = b"INVITE sip:a SIP/2.0\r\nCall-ID: d\r\nl : 4\r\n\r\n"
ANSWER = b"SIP/2.0 200 OK\r\nContent-Length:0\r\n\r\n"
BODY = b"\0\r\n\xff"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nUPGRADE: WebSocket\r\nSec-WebSocket-Key: x\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\r\n"
PAGE = UPGRADE.replace(b"Host: a\r\n", b"Host: a\r\nORIGIN:  %b \r\n")


def framed(content: bytes, kind: int = 0x81, mask: bytes = b"\x01\x02\x03\xf4") -> bytes:
    """Return a frame of a client."""
    size = len(content)
    form = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes((kind,)) + form + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))


def connect(streams: RequestStreams, first: int = FIRST, scale: int = 0, key: bytes = KEY) -> None:
    """Open a connection whose first byte has that number."""
    streams.offer(key, (first - 1) % SEQUENCES, scale)
    streams.begin(key, first)


def begun(first: int = FIRST, **bounds: int) -> RequestStreams:
    """Return the streams with one connection, whose first byte has that number."""
    streams = RequestStreams(**bounds)
    connect(streams, first)
    return streams


def read(streams: RequestStreams, data: bytes, at: int = 0) -> list[bytes] | None:
    """Read a segment that begins ``at`` bytes after the first one."""
    return streams.read(KEY, (FIRST + at) % SEQUENCES, data)


def upgraded() -> RequestStreams:
    """Return the streams with one connection, on which frames come next, after ``UPGRADE``."""
    streams = begun((FIRST - len(UPGRADE)) % SEQUENCES)
    assert read(streams, UPGRADE, -len(UPGRADE)) == []
    assert not streams.answer(KEY, SWITCHED)
    return streams


def in_pieces(data: bytes, cuts: list[int], streams: RequestStreams | None = None) -> list[bytes] | None:
    """Read data that is cut at these places, and return all heads; None if the connection becomes unread."""
    streams, found, start = streams or begun(), list[bytes](), 0
    for end in [*sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]:
        heads = read(streams, data[start:end], start)
        if heads is None:
            return None
        found += heads
        start = end
    assert streams.pending == 0
    return found


PARTS = [(ASK, b""), (CALL, BODY), (ANSWER, b""), (b"\r\n\r\n", b"")]


@given(st.lists(st.sampled_from(PARTS), max_size=8), st.lists(st.integers(0, 600)))
def test_any_cuts_give_the_messages_that_were_sent(parts: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    """The naive model: the heads of the messages, without their bodies and the keep-alives."""
    data = b"".join(head + body for head, body in parts)
    heads = [head for head, _ in parts if head.strip()]
    assert in_pieces(data, cuts) == heads
    assert in_pieces(data, list(range(len(data)))) == heads


@given(st.lists(st.sampled_from(PARTS), max_size=8), st.lists(st.integers(0, 900)))
def test_any_cuts_give_the_messages_of_a_websocket(parts: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    """After the upgrade each frame holds one message; pings and keep-alives hold none."""
    frames = b"".join(framed(head + body) for head, body in parts)
    data = framed(b"ping", 0x89) + frames + framed(ASK.replace(b"\r\nContent-Length: 0", b""), 0x82)
    heads = [*(head for head, _ in parts if head.strip()), ASK.replace(b"\r\nContent-Length: 0", b"")]
    assert in_pieces(data, cuts, upgraded()) == heads


@pytest.mark.parametrize("websocket", [False, True])
def test_requests_count_wherever_they_are_cut(websocket: bool) -> None:  # noqa: FBT001 - a parameter
    """Cut at each byte, bare or in frames, also long ones: the heads are read whole, in order, once."""
    long = ASK.replace(b"Call-ID: c", b"Call-ID: " + b"c" * 200)
    messages = [ASK, CALL + BODY, b"\r\n\r\n", ANSWER, long]
    data = framed(b"", 0x8A) + b"".join(map(framed, messages)) if websocket else b"".join(messages)
    for cuts in (*([cut] for cut in range(1, len(data))), list(range(len(data)))):
        assert in_pieces(data, cuts, upgraded() if websocket else None) == [ASK, CALL, ANSWER, long]


@pytest.mark.parametrize("text", [b"c\rd", b"c\r", b"\r\rl: 5", b"c\rContent-Length: 5"])
def test_a_bare_cr_within_a_line_hides_no_request(text: bytes) -> None:
    """PJSIP and chan_sip find the end of a message by LF alone, so the messages are the same for all."""
    head = ASK.replace(b"Call-ID: c", b"Call-ID: " + text)
    assert read(begun(), head + ANSWER) == [head, ANSWER]
    assert read(upgraded(), framed(head)) == [head]


@pytest.mark.parametrize(
    "folded",
    [
        b"Call-ID:\r\n c",
        b"Call-ID\r\n\t: c",
        b"X: a\r\n Content-Length: 5\r\n\tl: 7\r\nCall-ID: c",
        b"X:\r\n \r\ni:c",
    ],
)
def test_a_folded_line_hides_no_request(folded: bytes) -> None:
    """No Content-Length stands in a line that begins with a blank, so all agree on where messages end."""
    head = ASK.replace(b"Call-ID: c", folded)
    assert read(begun(), head + CALL + BODY + ASK) == [head, CALL, ASK]
    assert read(begun(), ASK.replace(b"\r\n", b"\r\n X: y\r\n", 1) + CALL + BODY) is not None
    assert read(upgraded(), framed(head) + framed(ASK)) == [head, ASK]


@pytest.mark.parametrize("kinds", [(1, 0x80), (2, 0x80), (1, 0x81), (2, 0x82), (0, 0x80), (0, 0x82)])
def test_fragments_hide_no_request(kinds: tuple[int, int]) -> None:
    """Asterisk joins all data frames up to one with FIN, with control frames and empty ones among them."""
    first, last = kinds
    for cut in (0, 1, 30, len(ASK)):
        parts = framed(ASK[:cut], first), framed(b"ping", 0x89), framed(b"", 0), framed(ASK[cut:], last)
        assert in_pieces(b"".join(parts) + framed(CALL + BODY), [cut, 200], upgraded()) == [ASK, CALL]
    assert read(upgraded(), framed(b"\r\n", 1) + framed(b"\r\n", 0x80) + framed(ASK)) == [ASK]


def test_fragments_are_bounded() -> None:
    """They count among the bytes of incomplete messages, until the message is whole or nothing is read."""
    data = framed(ASK[:40], 1)
    streams = upgraded()
    assert read(streams, data) == []
    assert streams.pending == 40
    assert read(streams, framed(ASK[40:], 0x80), len(data)) == [ASK]
    assert streams.pending == 0
    streams = upgraded()
    assert read(streams, data + framed(b"x" * 20, 0) + b"\xc1\x80") is None
    assert streams.pending == 0


@pytest.mark.parametrize(
    "data",
    [
        ASK.replace(b"Content-Length: 0", b"X: 0"),
        ASK.replace(b"Content-Length: 0", b"Content-Length: 0\r\nl: 0"),
        ASK.replace(b"Content-Length: 0", b"Content-Length: 0\r\nContent-LengthX: 0"),
        ASK.replace(b"Content-Length: 0", b"Content-Length: 0;a"),
        ASK.replace(b"Content-Length: 0", b"Content-Length:\r\n 0"),
        ASK.replace(b"Content-Length: 0", b"Content-Length\r\n : 0"),
        ASK.replace(b"Content-Length: 0", b"Content-Length: 0\r\n 5"),
        ASK.replace(b"Call-ID: c", b"Call-ID: c\nX: d"),
        ASK.replace(b"Call-ID: c", b"Call-ID: c\r\n\rX: d"),
        ASK.replace(b"Call-ID: c", b"Call-ID: c\0"),
        b" " + ASK,
        b"\x80" + ASK,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        UPGRADE.replace(b"WebSocket\r\n", b"WebSocket\r\n x\r\n"),
        UPGRADE.replace(b"Host: a", b"Host: a\0"),
        b"x" * (MOST_MESSAGE + 1),
        CALL.replace(b": 4", b": %d" % MOST_MESSAGE),
        UPGRADE + framed(ASK),
        UPGRADE.replace(b"Host: a", b"Content-Length: 8"),
        UPGRADE.replace(b"Host: a", b"TRANSFER-Encoding: chunked"),
    ],
)
def test_what_can_be_read_in_several_ways_is_not_read(data: bytes) -> None:
    """The connection is unread from there on; this is reported once, and ends with the next connection."""
    streams = begun()
    assert read(streams, data) is None
    assert read(streams, ASK, len(data)) == []
    assert streams.pending == 0
    connect(streams)
    assert read(streams, ASK) == [ASK]


@pytest.mark.parametrize(
    "data",
    [
        ASK,
        framed(ASK, 0xC1),
        framed(ASK, 0x83),
        framed(b"ping", 0x09),
        framed(b"x" * 3_000, 1) + framed(b"x" * 1_001, 0x80),
        framed(ASK[:9], 1) + framed(ASK[9:-2], 0x80),
        b"\x81\x01a",
        b"\x81\xff" + (MOST_MESSAGE + 1).to_bytes(8, "big") + b"mask",
        framed(ASK + ASK),
        framed(CALL + b"abc"),
        framed(ASK[:-2]),
        framed(ASK.replace(b"Content-Length: 0", b"l: 0\r\nl: 0")),
        framed(ASK.replace(b"Content-Length: 0", b"l:\r\n 0")),
        framed(ASK.replace(b"Call-ID: c", b"Call-ID: c\0X: d")),
        framed(b"x" + ASK.replace(b"REGISTER sip:a", b"")),
    ],
)
def test_frames_that_can_be_read_in_several_ways_are_not_read(data: bytes) -> None:
    """They make the connection unread too."""
    streams = upgraded()
    assert read(streams, data) is None
    assert (read(streams, framed(ASK), len(data)), streams.pending) == ([], 0)


def test_only_this_hosts_101_makes_frames_of_what_follows() -> None:
    """For Asterisk it is text otherwise, which may hold guesses: PJSIP's own ports know no WebSocket."""
    for answer in (b"HTTP/1.1 404 Not Found", b"SIP/2.0 405"):
        streams = begun()
        assert read(streams, UPGRADE) == []
        assert streams.answer(KEY, answer)
        assert read(streams, framed(ASK), len(UPGRADE)) == []
    streams = begun()
    assert not streams.answer(b"other", SWITCHED)
    assert read(streams, ASK) == [ASK]
    assert not streams.answer(KEY, ANSWER)
    assert streams.answer(KEY, SWITCHED)
    assert not streams.answer(KEY, SWITCHED)
    streams = begun()
    assert read(streams, ASK) == [ASK]
    assert not streams.answer(KEY, b'SIP/2.0 401 Unauthorized\r\nFrom: "HTTP/1.1 101"')
    assert read(streams, UPGRADE, len(ASK)) == []
    assert streams.answer(KEY, SWITCHED)  # a part of the answer that the kernel sends again


def test_an_upgrade_may_say_that_it_has_no_body() -> None:
    """Some clients write a Content-Length of 0."""
    streams = begun()
    upgrade = UPGRADE.replace(b"Host: a", b"Content-Length: 0")
    assert read(streams, upgrade) == []
    assert not streams.answer(KEY, SWITCHED)
    assert read(streams, framed(ASK), len(upgrade)) == [ASK]


@pytest.mark.parametrize("at", [0, 10, len(ASK) - 1, len(ASK)])
def test_a_segment_that_comes_again_is_read_once(at: int) -> None:
    """It may hold new bytes too. With other bytes, it is unknown which of the two Asterisk got."""
    data = ASK + CALL + BODY
    streams = begun()
    assert read(streams, ASK) == [ASK]
    assert read(streams, b"", 5) == []
    assert read(streams, data[at:], at) == [CALL]
    assert read(streams, data[at:], at) == []
    assert read(streams, b"x" + data[at + 1 :], at) is None
    assert read(streams, ASK, len(data)) == []


@pytest.mark.parametrize("at", [-1, (1 << 31) + 100, -KEPT])
def test_what_cannot_be_compared_makes_a_connection_unread(at: int) -> None:
    """These are segments from before the connection, and much older ones."""
    streams = begun()
    assert read(streams, ASK) == [ASK]
    assert read(streams, ASK, at) is None
    assert read(streams, ASK, len(ASK)) == []


@given(st.permutations(range(6)), st.integers(1, 9))
def test_segments_in_any_order_give_the_messages(order: list[int], overlap: int) -> None:
    """A segment that comes too early waits for those before it, and may overlap them."""
    data = (ASK + CALL + BODY) * 3
    size = -(-len(data) // 6)
    streams, found = begun(), list[bytes]()
    for number in order:
        start = max(0, number * size - overlap)
        found += read(streams, data[start : (number + 1) * size], start) or []
    assert found == [ASK, CALL] * 3
    assert streams.pending == 0


def test_a_segment_whose_number_is_0_may_come_early() -> None:
    """The numbers begin again at 0 in the middle of a message."""
    streams = begun()
    data = CALL.replace(b"Call-ID", b"X: " + b"x" * 100 + b"\r\nCall-ID")
    wrap = SEQUENCES - FIRST
    assert read(streams, data[wrap:], wrap) == []
    assert read(streams, data[:wrap]) == [data]


@pytest.mark.parametrize(
    "segments",
    [
        [(5, b"x"), (5, b"y")],
        [(5, b"x"), (0, b"REGISTER")],
        [(10 + 2 * number, b"x") for number in range(MOST_EARLY + 1)],
        [(10, b"x" * MOST_EARLY_BYTES), (MOST_EARLY_BYTES + 10, b"x")],
    ],
)
def test_early_segments_are_bounded_and_compared(segments: list[tuple[int, bytes]]) -> None:
    """Too many, or others in their place, make the connection unread."""
    streams = begun()
    *others, last = segments
    for at, data in others:
        assert read(streams, data, at) == []
    assert read(streams, last[1], last[0]) is None
    assert streams.pending == 0


@pytest.mark.parametrize(("scale", "window"), [(0, LEAST_ROOM), (7, LEAST_ROOM >> 7)])
def test_the_room_for_answers(scale: int, window: int) -> None:
    """The window of each segment, scaled by the SYN, shows it; an unread connection shows nothing."""
    streams = RequestStreams()
    assert streams.room(KEY, 0) == (True, False)
    connect(streams, scale=scale)
    found = [streams.room(KEY, size) for size in (window, window - 1, 0, window)]
    assert found == [(True, False), (False, True), (False, False), (True, True)]
    streams.lose(KEY)
    assert streams.room(KEY, 0) == (True, False)


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("numbers", [[1_000], [2_000, 1_000], [2_000, 3_000, 1_000]])
def test_another_syn_does_not_make_the_window_larger(numbers: list[int], *, answered: bool) -> None:
    """The kernel keeps the options of the first SYN, and ignores one with another number."""
    streams = RequestStreams()
    streams.offer(KEY, 1_000, 0)
    if answered:
        streams.begin(KEY, 1_001)
    for number in numbers:
        streams.offer(KEY, number, 14)
    streams.begin(KEY, 1_001)  # sent again
    assert streams.room(KEY, 1) == (False, True)


@pytest.mark.parametrize("copied", [True, False])
def test_a_new_connection_has_a_scale_of_its_own(copied: bool) -> None:  # noqa: FBT001 - a parameter
    """A host may use its port again, also after a connection whose SYN was not copied."""
    streams = begun(1_001) if copied else RequestStreams()
    streams.read(KEY, 1_001, ASK)
    connect(streams, 2_001, 14)
    assert streams.room(KEY, 1) == (True, False)


def test_a_syn_with_data_names_the_scale() -> None:
    """The kernel ignores its data, and keeps its options when it comes again without them."""
    syn, _ = syns("192.0.2.7", 5062, "198.18.0.1")
    syn = syn[:32] + b"\x60" + syn[33:40]  # a header of 24 bytes
    streams = RequestStreams()

    def offer(scale: bytes, data: bytes) -> list[CopiedRequest] | None:
        return parse_requests(segment_like(syn, 0, b"\x03\x03" + scale + b"\0" + data, 0x02), streams)

    [unread] = offer(b"\x00", ASK) or []
    assert unread.unread
    assert offer(b"\x0e", b"") == []
    streams.begin(syn[12:24], 1)
    [closed] = parse_requests(segment_like(syn[:34] + b"\0\1" + syn[36:], 1, b"\0" * 4 + ASK), streams) or []
    assert closed.diverted


@pytest.mark.parametrize("data", [b"", ASK])
def test_a_syn_within_a_connection_hides_nothing(data: bytes) -> None:
    """The kernel ignores it, so the connection is read on, and what cannot be read is counted."""
    syn, accepts = syns("192.0.2.7", 5062, "198.18.0.1")
    streams = RequestStreams()

    def acknowledged(number: int) -> list[Exchange | CopiedRequest]:
        packet = accepts[:28] + number.to_bytes(4, "big") + b"\x50\x10" + accepts[34:]
        return parse_exchange(packet, TlsStreams(), streams, lambda _: False)

    assert parse_requests(syn, streams) == []
    assert parse_exchange(accepts, TlsStreams(), streams, lambda _: False) == []
    assert len(parse_requests(segment_like(syn, 1, ASK), streams) or []) == 1
    found = parse_requests(segment_like(syn, 1 << 30, data, 0x02), streams)
    assert [one.unread for one in found or []] == [True] * bool(data)
    assert len(parse_requests(segment_like(syn, 1 + len(ASK), ASK), streams) or []) == 1
    assert acknowledged(1 + 2 * len(ASK)) == []
    [unread] = parse_requests(segment_like(syn, 1 + 2 * len(ASK), b"OPTIONS \0\r\n\r\n"), streams) or []
    assert unread.unread
    [exchange] = acknowledged(1 + 2 * len(ASK) + 9)
    assert isinstance(exchange, Exchange)
    assert exchange.asked == 9


def test_what_this_host_acknowledges() -> None:
    """Of an unread connection its bytes are counted, from where reading ended."""
    streams = begun()
    assert streams.acknowledge(b"other", 0) == (None, False)
    assert read(streams, ASK + b"OPTI") == [ASK]
    assert streams.acknowledge(KEY, (FIRST + len(ASK) + 5) % SEQUENCES) == (None, False)
    assert read(streams, b"\0\r\n\r\n", len(ASK) + 4) is None
    found = [streams.acknowledge(KEY, (FIRST + len(ASK) + at) % SEQUENCES) for at in (0, 9, 5, 20)]
    assert found == [(0, False), (9, False), (0, False), (15, False)]
    streams.lose(b"other")
    assert [streams.acknowledge(b"other", at) for at in (700, 900)] == [(0, False), (200, False)]


def test_bytes_that_come_again_after_their_acknowledgement_are_ignored() -> None:
    """So does the kernel, whatever they are; those after the acknowledged ones are compared."""
    data = ASK + CALL + BODY
    streams = begun()
    assert read(streams, ASK + CALL[:9]) == [ASK]
    assert streams.acknowledge(KEY, (FIRST + len(ASK)) % SEQUENCES) == (None, False)
    assert read(streams, b"x" * len(ASK)) == []
    assert read(streams, b"x" * len(ASK) + data[len(ASK) :]) == [CALL]
    assert read(streams, b"x" * (len(ASK) + 1), 1) is None


def test_what_this_host_has_not_acknowledged_is_compared() -> None:
    """A late acknowledgement settles nothing new; more than ``KEPT`` bytes on, nothing can be compared."""
    streams = begun()
    assert read(streams, ASK) == [ASK]
    for at in (len(ASK), 5, len(ASK)):
        assert streams.acknowledge(KEY, (FIRST + at) % SEQUENCES) == (None, False)
    more = ASK * (KEPT // len(ASK) + 1)
    assert read(streams, more, len(ASK)) == [ASK] * (KEPT // len(ASK) + 1)
    assert read(streams, ASK) is None


def test_bytes_of_which_no_copy_came() -> None:
    """If this host has got them, nothing more is read, and they are counted."""
    streams = begun()
    assert read(streams, ASK) == [ASK]
    assert streams.acknowledge(KEY, (FIRST + len(ASK)) % SEQUENCES) == (None, False)
    assert read(streams, b"x" * 9, len(ASK) + 50) == []
    assert streams.acknowledge(KEY, (FIRST + len(ASK) + 59) % SEQUENCES) == (59, True)
    assert (read(streams, ASK, len(ASK) + 59), streams.pending) == ([], 0)


@pytest.mark.parametrize("offered", [[], [FIRST - 1], [FIRST - 1, FIRST + 4]])
def test_a_connection_without_an_answered_syn_is_unread(offered: list[int]) -> None:
    """One that is older than the reader, or was forgotten, is unread; this is reported once."""
    streams = RequestStreams()
    for sequence in offered:
        streams.offer(KEY, sequence)
    streams.begin(KEY, FIRST + 9)
    assert read(streams, ASK) is None
    assert read(streams, ASK, len(ASK)) == []
    assert [streams.acknowledge(KEY, at) for at in (700, 900)] == [(0, False), (200, False)]


def test_connections_and_bytes_are_bounded() -> None:
    """The connection that was used longest ago is forgotten first, and is unread then."""
    for streams in (begun(most=2), begun(most_bytes=100)):
        assert read(streams, b"x" * 60) == []
        for name in (b"a", b"b"):
            connect(streams, 1, key=name)
            assert streams.read(name, 1, b"x" * 50) == []
        assert streams.pending <= 100
        assert read(streams, b"x", 60) is None
        assert streams.has_begun(KEY)  # or it may be forgotten


def test_a_syn_that_gets_no_answer_begins_nothing() -> None:
    """The kernel may drop it, for instance for a wrong checksum, and answer one that came before it."""
    streams = RequestStreams()
    streams.offer(KEY, FIRST - 1)
    streams.offer(KEY, FIRST - 1_000)
    streams.begin(KEY, FIRST)
    assert read(streams, ASK) == [ASK]


def test_a_connection_whose_syn_was_not_copied_ends_the_old_one() -> None:
    """Otherwise its bytes could pass for old ones. They are counted from the first one."""
    streams = begun()
    assert read(streams, ASK) == [ASK]
    streams.begin(KEY, FIRST)  # a SYN-ACK that is sent again
    assert read(streams, ASK, len(ASK)) == [ASK]
    streams.begin(KEY, 5_000)
    assert streams.read(KEY, 5_000, ASK) is None
    assert streams.acknowledge(KEY, 5_000 + len(ASK)) == (len(ASK), False)
    streams.begin(b"other", 5_000)
    assert streams.acknowledge(b"other", 6_000) == (None, False)


def test_the_stranger_may_choose_one_of_several_answered_syns() -> None:
    """While many connections wait, Linux answers each SYN, and remembers none (SYN cookies)."""
    for number in (FIRST, FIRST - 5_000, FIRST + 5_000):
        streams = begun()
        connect(streams, number % SEQUENCES)
        assert read(streams, ASK[:9]) == []
        assert read(streams, ASK[9:], 9) == [ASK]
    streams = begun()
    connect(streams, FIRST - (1 << 30))
    assert read(streams, b"\0\r\n\r\n", 5) == []
    assert streams.acknowledge(KEY, (FIRST + 10) % SEQUENCES) == (10, True)
    streams = begun()
    connect(streams, FIRST + 3_000)
    assert read(streams, ASK, 1) is None
    assert streams.acknowledge(KEY, (FIRST + 3_001) % SEQUENCES) == (3_001, False)


def test_a_syn_to_another_port_changes_nothing() -> None:
    """It may have the number of another connection from its port, before or after this host's SYN-ACK."""
    stranger, port = bytes((192, 0, 2, 7)) + bytes((198, 18, 0, 1)), b"\x13\xc6"
    names = [stranger + port + number.to_bytes(2) for number in range(5_060, 5_070)]
    for at in range(10):
        streams = RequestStreams()
        for name in [*names[1 : at + 1], names[0], *names[at + 1 :]]:
            streams.offer(name, FIRST - 1)
        streams.begin(names[0], FIRST)
        for name in names[1:]:
            streams.offer(name, FIRST - 1)
        streams.begin(names[0], FIRST)  # sent again
        assert streams.read(names[0], FIRST, ASK) == [ASK]
        assert streams.acknowledge(names[0], FIRST + 999) == (999, True)


def test_packets_of_this_host_may_have_another_address() -> None:
    """The SYN is copied before destination NAT, which leads to a container, and the SYN-ACK comes from it."""
    stranger, port = bytes((192, 0, 2, 7)), b"\x13\xc6"
    outside = stranger + bytes((198, 18, 0, 1)) + port + b"\x13\xc4"
    inside = stranger + bytes((172, 17, 0, 2)) + port + b"\x13\xe2"
    streams = RequestStreams(most=1)
    streams.offer(outside, FIRST - 1)
    streams.begin(inside, FIRST)
    assert streams.read(outside, FIRST, ASK) == [ASK]
    assert streams.acknowledge(inside, (FIRST + len(ASK)) % SEQUENCES) == (None, False)
    assert streams.read(outside, (FIRST + len(ASK)) % SEQUENCES, b"\0\r\n\r\n") is None
    assert streams.acknowledge(inside, (FIRST + len(ASK) + 5) % SEQUENCES) == (5, False)
    streams.begin(inside, 7)
    assert streams.acknowledge(inside, 9) == (2, False)
    streams.lose(KEY)
    assert streams.acknowledge(inside, 19) == (None, False)


def test_one_address_inside_may_have_several_outside() -> None:
    """What forgets the first connection leaves the second one alone."""
    stranger, port = bytes((192, 0, 2, 7)), b"\x13\xc6"
    inside = stranger + bytes((172, 17, 0, 2)) + port + b"\x13\xe2"
    streams = RequestStreams(most=2)
    outsides = [stranger + bytes((198, 18, 0, last)) + port + b"\x13\xc4" for last in (1, 2)]
    for number, outside in enumerate(outsides, 1):
        streams.offer(outside, 100 * number - 1)
        streams.begin(inside, 100 * number)
    streams.lose(KEY)
    assert streams.read(outsides[1], 200, b"\0\r\n\r\n") is None
    assert streams.acknowledge(inside, 205) == (5, False)


def test_what_asterisk_never_got_hides_no_bytes() -> None:
    """A copy may have a wrong checksum. So bytes count from what this host has acknowledged."""
    streams = begun()
    assert read(streams, b"\r\n" * 300) == []
    assert read(streams, ASK) is None
    assert streams.acknowledge(KEY, (FIRST + len(ASK)) % SEQUENCES) == (len(ASK), False)


def test_a_number_that_jumps_is_of_another_connection() -> None:
    """No segment acknowledges more than a receive window."""
    streams = RequestStreams()
    streams.lose(KEY)
    numbers = (0, MOST_NEWLY, 2 * MOST_NEWLY + 1, 2 * MOST_NEWLY + 2)
    assert [streams.acknowledge(KEY, one)[0] for one in numbers] == [0, MOST_NEWLY, 0, 1]


def test_unanswered_syns_are_bounded() -> None:
    """They push out each other, and no connection."""
    streams = begun(most=2)
    names = [one * 12 for one in (b"a", b"b", b"c")]
    for name in names:
        streams.offer(name, 0)
    for name in names[:2]:
        streams.begin(name, 1)
    assert read(streams, ASK) == [ASK]
    assert [streams.read(name, 1, ASK) for name in names[1::-1]] == [[ASK], None]


def test_tiny_messages_are_bounded() -> None:
    """A segment of 64 kB would be 3 000 requests of 19 bytes, which take longer to judge than to send."""
    tiny = b"AB SIP/2.0\r\nl:0\r\n\r\n"
    assert read(begun(), tiny * MOST_TOGETHER) == [tiny] * MOST_TOGETHER
    assert read(begun(), tiny * (MOST_TOGETHER + 1)) is None
    streams = begun()
    for number in range(1, 4):
        assert read(streams, tiny * 50, number * 50 * len(tiny)) == []
    assert read(streams, tiny * 50) is None


def test_forged_segments_push_out_no_connection() -> None:
    """If this host acknowledges bytes of it, it is none that anyone can forge; two of these do not last."""
    streams = begun(most=2)
    assert read(streams, ASK[:9] + b"\0\r\n\r\n") is None
    assert streams.acknowledge(KEY, (FIRST + 9) % SEQUENCES) == (9, False)
    for forged in (b"a", b"b", b"c"):
        assert streams.read(forged, 0, ASK) is None
    assert streams.acknowledge(KEY, (FIRST + 20) % SEQUENCES) == (11, False)
    for number in (0, 100):
        streams.acknowledge(b"c", number)
    assert streams.read(b"d", 0, ASK) is None
    assert streams.acknowledge(KEY, (FIRST + 30) % SEQUENCES) == (None, False)


def test_a_segment_that_was_copied_in_part_makes_its_connection_unread() -> None:
    """This holds for a known connection and for an unknown one."""
    streams = begun()
    assert read(streams, ASK[:9]) == []
    streams.lose(KEY)
    streams.lose(b"other")
    assert (read(streams, ASK, 9), streams.pending) == ([], 0)
    assert streams.read(b"other", 0, ASK) == []


def segment_like(syn: bytes, number: int, data: bytes, flags: int = 0x18) -> bytes:
    """Return a segment of the connection that a packet with a SYN begins."""
    packet = bytearray(syn + data)
    packet[2:4] = len(packet).to_bytes(2, "big")
    packet[24:28], packet[33] = number.to_bytes(4, "big"), flags
    assert packet[4:24] == syn[4:24]
    return bytes(packet)


def test_requests_come_from_packets() -> None:
    """A SYN begins a connection; its answers are no requests, and what is not plain gives an unread one."""
    syn, _ = syns("192.0.2.7", 5062, "198.18.0.1")
    streams = RequestStreams()

    def segment(number: int, data: bytes, flags: int = 0x18) -> bytes:
        return segment_like(syn, number, data, flags)

    assert parse_requests(syn, streams) == []
    streams.begin(syn[12:24], 1)
    assert parse_requests(segment(1, b"", 0x10), streams) == []
    assert parse_requests(segment(1, ASK), streams, dropped=True) == []
    [asked] = parse_requests(segment(1, ANSWER + ASK), streams) or []
    assert (str(asked.address), asked.port, asked.transport) == ("192.0.2.7", 5062, Transport.TCP)
    assert (asked.call_ids, asked.sequences, asked.unread, asked.diverted) == ((b"c",), (1,), False, False)
    for again in (segment(1, ASK + ASK), segment(0, ASK, 0x02), segment(1, ASK)[:-1], segment(1, ASK, 0x38)):
        [unread] = parse_requests(again, streams) or []
        assert (unread.unread, unread.call_ids, unread.transport) == (True, (), Transport.TCP)
        assert (str(unread.address), unread.port) == ("192.0.2.7", 5062)
    assert parse_requests(segment(1, ASK)[:30], streams) is None


def test_a_sip_request_may_be_called_get() -> None:
    """PJSIP asks for a password for any method. So a guess cannot hide as a request for a web page."""
    syn, _ = syns("192.0.2.7", 5062, "198.18.0.1")
    streams = RequestStreams()
    parse_requests(syn, streams)
    streams.begin(syn[12:24], 1)
    [asked] = parse_requests(segment_like(syn, 1, ASK.replace(b"REGISTER sip", b"GET sip")), streams) or []

    assert (asked.call_ids, asked.unread, asked.page) == ((b"c",), False, False)


def test_requests_of_a_sender_without_room_are_diverted() -> None:
    """The window in their segment shows it; one that closes later is reported once, for those before it."""
    syn, _ = syns("192.0.2.7", 5062, "198.18.0.1")
    streams = RequestStreams()

    def segment(number: int, data: bytes, window: int) -> list[bool]:
        packet = bytearray(syn + data)
        packet[2:4] = len(packet).to_bytes(2, "big")
        packet[24:28], packet[33], packet[34:36] = number.to_bytes(4, "big"), 0x18, window.to_bytes(2, "big")
        found = parse_requests(bytes(packet), streams)
        assert found is not None
        assert [bool(one.call_ids) for one in found] == [bool(data)] * len(found)
        return [one.diverted for one in found]

    small = bytearray(syn)
    small[34:36] = bytes(2)  # the window of a SYN has no scale yet, and no data follows it
    assert parse_requests(bytes(small), streams) == []
    streams.begin(syn[12:24], 1)
    assert segment(1, ASK, LEAST_ROOM) == [False]
    assert segment(1 + len(ASK), b"", 0) == [True]
    assert segment(1 + len(ASK), b"", 0) == []
    assert segment(1 + len(ASK), ASK + ASK, 9) == [True, True]
    assert segment(1 + 3 * len(ASK), b"", LEAST_ROOM) == []
    assert segment(1 + 3 * len(ASK), ASK, LEAST_ROOM - 1) == [True]


@pytest.mark.parametrize("unit", [b"\r\n", b"x\r\n", b"x\r\n ", b"l:1\r\n", ASK, b" ", b"GET "])
def test_the_time_is_linear(unit: bytes) -> None:
    """A segment holds 64 kB of it."""

    def took(size: int) -> float:
        return seconds(lambda data: begun().read(KEY, FIRST, data), unit * (size // len(unit)) + b"\r\n\r\n")

    assert is_linear_in(took, 60_000)


@pytest.mark.parametrize(
    ("origin", "is_page"),
    [
        (b"http://evil.example", True),
        (b"null", True),
        (b"https://198.18.0.9:8443", True),
        (b"http://198.18.0.1:8088", False),
        (b"http://198.18.0.1", False),
        (b"http://[::ffff:198.18.0.1]:8088", False),
        (b"http://[::1]", True),
        (b"http://[", True),
        (b"", False),
    ],
)
def test_a_websocket_of_a_page(origin: bytes, *, is_page: bool) -> None:
    """A browser names the page that opens a WebSocket; a page of this host has this host's address."""
    syn, _ = syns("192.0.2.7", 5062, "198.18.0.1")
    streams = RequestStreams()
    assert parse_requests(syn, streams) == []
    streams.begin(syn[12:24], 1)
    page = PAGE % origin
    found = parse_requests(segment_like(syn, 1, page), streams)
    assert found is not None
    assert [one.page for one in found] == [True] * is_page
    assert not streams.answer(syn[12:24], SWITCHED)
    [asked] = parse_requests(segment_like(syn, 1 + len(page), framed(ASK)), streams) or []
    assert (asked.page, asked.method) == (False, "REGISTER")


def test_it_takes_linear_time_to_find_what_to_forget() -> None:
    """Idle connections, which hold no bytes, do not slow this down."""

    def read_all(number: int) -> None:
        streams = RequestStreams(most_bytes=1)
        for key in (b"%d" % each for each in range(2 * number)):
            connect(streams, 1, key=key)
            assert streams.read(key, 1, b"\r\n") == []
        for key in (b"%d" % each for each in range(number, 2 * number)):
            assert streams.read(key, 3, b"x") == []
        assert streams.pending == 1

    assert is_linear_in(lambda size: seconds(read_all, size), 2_000)
