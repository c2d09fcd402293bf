"""Answers in TCP segments: wherever they are cut, sent again, lost or late, and within bounds."""

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.parse.worst import is_linear_in, seconds

from ringfence.parse.answer_stream import MOST_HOLES, MOST_PENDING, AnswerStreams
from ringfence.parse.packet import SEQUENCES

KEY = b"connection"
ANSWER = b"SIP/2.0 401 X\r\nVia: SIP/2.0/TCP a\r\nContent-Length:  0\r\n\r\n"
REFUSED = b"SIP/2.0 403 Forbidden\r\nv: SIP/2.0/TCP a\r\nl: 0\r\n\r\n"
WITH_BODY = REFUSED.replace(b"l: 0", b"l: 3") + b"abc"
GONE = b"SIP/2.0 481 Call does not exist\r\nVia: SIP/2.0/TCP a\r\nContent-Length: 0\r\n\r\n"
FINE = b"SIP/2.0 200 OK\r\nl: 12\r\n\r\nSIP/2.0 401 "
REQUEST = b"NOTIFY sip:x SIP/2.0\r\nContent-Length: 2\r\n\r\nab"
UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
REFUSALS = (ANSWER, REFUSED)
FIRST = SEQUENCES - 150  # the numbers wrap soon


def framed(message: bytes, kind: int = 0x81) -> bytes:
    """Return a frame of a server that holds a message."""
    size = len(message)
    if size < 126:
        return bytes((kind, size)) + message
    return bytes((kind, 126)) + size.to_bytes(2, "big") + message


def begun(first: int = FIRST) -> AnswerStreams:
    """Return the streams with one connection, whose first byte has that number."""
    streams = AnswerStreams()
    streams.begin(KEY, (first - 1) % SEQUENCES)
    return streams


def read(streams: AnswerStreams, data: bytes, at: int = 0, first: int = FIRST) -> list[bytes]:
    """Read a segment that begins ``at`` bytes after the first one."""
    return streams.read(KEY, (first + at) % SEQUENCES, data)


def in_pieces(streams: AnswerStreams, data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Read data that is cut at these places, and return all answers."""
    ends = [*sorted(cut for cut in set(cuts) if 0 < cut < len(data)), len(data)]
    starts = [0, *ends[:-1]]
    return [
        answer
        for start, end in zip(starts, ends, strict=True)
        for answer in read(streams, data[start:end], start)
    ]


messages = st.lists(
    st.sampled_from(
        [ANSWER, WITH_BODY, GONE, FINE, REQUEST, b"\r\n", b"\r\n\r\n", ANSWER.replace(b"X", b"Y" * 200)]
    ),
    min_size=1,
    max_size=12,
)


def answers(parts: Sequence[bytes]) -> list[bytes]:
    """Return the heads of the answers among whole messages."""
    return [part[: part.index(b"\r\n\r\n") + 4] for part in parts if part.startswith(b"SIP/2.0 ")]


def test_an_answer_counts_wherever_it_is_cut() -> None:
    """Cut at each byte, behind other messages: the answers are read whole, in order, once."""
    parts = [GONE, ANSWER, FINE, WITH_BODY, REQUEST, ANSWER]
    data = b"".join(parts)
    for cut in range(1, len(data)):
        assert in_pieces(begun(), data, [cut]) == answers(parts)
    assert in_pieces(begun(), data, range(len(data))) == answers(parts)


@pytest.mark.parametrize("kind", [0x81, 0x82])
def test_an_answer_in_a_frame_counts_wherever_it_is_cut(kind: int) -> None:
    """After the upgrade, each frame holds one message; pings and closes hold none."""
    long = ANSWER.replace(b"X", b"X" * 200)
    frames = [framed(part, kind) for part in (GONE, ANSWER, long, FINE, REFUSED)]
    data = UPGRADE + b"\x89\x01a" + b"".join(frames) + b"\x88\x00"
    wanted = answers([GONE, ANSWER, long, FINE, REFUSED])
    for cut in range(1, len(data)):
        assert in_pieces(begun(), data, [cut]) == wanted
    assert in_pieces(begun(), data, range(len(data))) == wanted


@given(messages, st.lists(st.integers(0, 2_000)), st.booleans())
def test_any_cuts_give_what_a_whole_stream_gives(parts: list[bytes], cuts: list[int], frames: bool) -> None:  # noqa: FBT001 - hypothesis
    """The naive model: the answers among the messages that were sent."""
    sent = [framed(part) for part in parts if part.strip()] if frames else parts
    assert in_pieces(begun(), b"".join(sent), cuts) == answers(parts)


@given(
    messages,
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, 600)), max_size=30),
    st.integers(1, 400),
)
def test_what_is_sent_again_counts_once(parts: list[bytes], again: list[tuple[int, int]], size: int) -> None:
    """Earlier bytes may come again between the segments, cut differently, or with new bytes behind them."""
    data = b"".join(parts)
    streams, found, end = begun(), list[bytes](), 0
    while end < len(data):
        found += read(streams, data[end : end + size], end)
        end = min(end + size, len(data))
        if again:
            start, length = again.pop()
            start = min(start, end)
            found += read(streams, data[start : start + length], start)
            end = max(end, min(start + length, len(data)))
    assert found == answers(parts)


@settings(max_examples=2 * settings().max_examples)
@given(messages, st.integers(40, 400), st.randoms(), st.integers(0, 3))
def test_loss_and_disorder_add_no_answer(
    parts: list[bytes], size: int, order: random.Random, lost: int
) -> None:
    """Segments in any order, some of them lost: no more answers than were sent, and nothing raises."""
    data = b"".join(parts)
    segments = [(at, data[at : at + size]) for at in range(0, len(data), size)]
    order.shuffle(segments)
    streams = begun()
    found = [answer for at, piece in segments[lost:] for answer in read(streams, piece, at)]
    found += [message for _, message in streams.cut()]
    assert len(found) <= data.count(b"SIP/2.0 ")
    assert streams.pending <= len(data)


def test_answers_after_a_hole_and_in_a_late_segment_are_read() -> None:
    """After a lost segment the next refusal is found; a segment that was late is read once.

    Of such a connection no other answer counts, because a sender's text may look like one.
    """
    streams = begun()
    half = len(ANSWER) // 2
    assert read(streams, GONE) == [GONE]
    behind = len(GONE) + len(ANSWER)
    assert read(streams, ANSWER[half:] + REFUSED, behind + half) == [REFUSED]
    assert read(streams, ANSWER, len(GONE)) == [ANSWER]
    assert read(streams, ANSWER, len(GONE)) == []
    assert read(streams, GONE + ANSWER + ANSWER[:half]) == [ANSWER[:half]]
    assert read(streams, GONE + ANSWER + ANSWER[:half]) == []
    assert read(streams, FINE + REFUSED, behind + len(ANSWER) + len(REFUSED)) == [REFUSED]


def test_an_empty_frame_is_read_at_once() -> None:
    """A pong without content has two bytes, and nothing of it waits for more."""
    streams = begun()
    assert read(streams, framed(b"", 0x8A)) == []
    assert streams.pending == 0


def test_a_hole_of_one_byte_is_filled_once() -> None:
    """A segment fills a hole of one byte, even if it begins before it and ends behind it."""
    streams = begun()
    assert read(streams, ANSWER) == [ANSWER]
    assert read(streams, ANSWER, len(ANSWER) + 1) == [ANSWER]
    assert len(streams._streams[KEY].holes) == 1
    assert read(streams, b"\n", len(ANSWER)) == []
    assert streams._streams[KEY].holes == []


def test_the_number_of_holes_is_bounded() -> None:
    """Only the latest holes are remembered; a late segment in an older one does not count."""
    streams = begun()
    step = len(ANSWER)
    for number in range(1, MOST_HOLES + 2):
        assert read(streams, ANSWER, 2 * number * step) == [ANSWER]
    assert read(streams, ANSWER, step) == []
    assert read(streams, ANSWER, 3 * step) == [ANSWER]


@settings(max_examples=2 * settings().max_examples)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), max_size=60),
    st.sampled_from([0, SEQUENCES - 20 * len(ANSWER)]),
)
def test_holes_are_filled_as_by_a_naive_reassembly(segments: list[tuple[int, int]], first: int) -> None:
    """Each answer counts once, when it first arrives, unless it is in a hole that was forgotten.

    The naive model has a flag for each answer. The segments begin and end between two answers.
    """
    streams, step, end = begun(first), len(ANSWER), 0
    missing: list[int] = []
    for start, number in segments:
        part = range(start, start + number)
        expected = [one for one in part if one in missing or one >= end]
        missing = [*missing, *range(end, start)]
        missing = [one for one in missing if one not in part]
        end = max(end, part.stop)
        begins = [one for one in missing if one - 1 not in missing]
        if len(begins) > MOST_HOLES:
            missing = [one for one in missing if one >= begins[-MOST_HOLES]]
        assert len(read(streams, ANSWER * number, start * step, first)) == len(expected)


@given(st.lists(st.integers(-15, 15), max_size=40))
@example([15, 15, 15, -6, -2, -2, 8])
def test_holes_end_before_the_numbers_repeat(jumps: list[int]) -> None:
    """Numbers repeat after 4 GB. Wherever a sender jumps, no segment counts for a hole of another round.

    The naive model has positions without an end, and forgets a hole that begins 2 GB before the next byte.
    """
    streams, step, at, end = begun(), len(ANSWER), 0, 0
    holes: list[tuple[int, int]] = []
    for jump in jumps:
        at = max(at + jump * (SEQUENCES // 32), end - SEQUENCES // 2 + 1, 0)
        if at >= end:
            found, at = 1, min(at, end + SEQUENCES // 2 - 1)
            holes = [*holes, (end, at)][-MOST_HOLES:] if at > end else holes
            end = at + step
        else:
            cut = [(first, last) for first, last in holes if first < at + step and at < last]
            if cut and not (len(cut) == 1 and cut[0][0] <= at and at + step <= cut[0][1]):
                return  # only a part of it is missing
            found = len(cut)
            parts = [[(a, b)] if (a, b) not in cut else [(a, at), (at + step, b)] for a, b in holes]
            holes = [(a, b) for part in parts for a, b in part if a < b][-MOST_HOLES:]
        holes = [(a, b) for a, b in holes if end - a < SEQUENCES // 2]
        assert read(streams, ANSWER, at) == [ANSWER] * found


def test_a_connection_without_a_beginning_is_searched() -> None:
    """If the reader starts in the middle of a connection, it finds the next answer, also in a frame."""
    for data in (b"x" * 500 + ANSWER, b"bc" + framed(ANSWER), REQUEST[5:] + ANSWER):
        assert in_pieces(AnswerStreams(), data + REFUSED, [3, 17]) == [ANSWER, REFUSED]
    text = b'To: "SIP/2.0 401 X" <sip:a>\r\nFrom: a\r\nContent-Length: 0\r\n\r\n'
    assert in_pieces(AnswerStreams(), text + ANSWER, []) == [ANSWER]


def test_a_connection_with_the_same_ports_begins_again() -> None:
    """A SYN discards the earlier connection, also if the numbers of the new one are lower."""
    streams = begun()
    assert read(streams, ANSWER) == [ANSWER]
    assert read(streams, REFUSED, -300) == []
    streams.begin(KEY, (FIRST - 301) % SEQUENCES)
    assert read(streams, REFUSED, -300) == [REFUSED]
    streams.begin(KEY, (FIRST - 301) % SEQUENCES)  # not the same numbers: more was sent since
    assert read(streams, REFUSED, -300) == [REFUSED]


def test_an_answer_after_a_keep_alive_is_read() -> None:
    """Empty lines between messages (RFC 5626) are no part of the next one."""
    assert read(begun(), b"\r\n\r\n" + ANSWER + b"\r\n" + REFUSED) == [ANSWER, REFUSED]


def test_a_syn_that_is_sent_again_changes_nothing() -> None:
    """The second copy of a SYN discards no connection, and the first answer is read once."""
    streams = begun()
    streams.begin(KEY, (FIRST - 1) % SEQUENCES)
    assert read(streams, ANSWER) == [ANSWER]
    assert read(streams, ANSWER) == []


def test_an_answer_that_is_kept_from_leaving_counts_once() -> None:
    """The sent part is returned once when nothing waits, if it is long enough to show the refusal."""
    for size in range(1, len(ANSWER)):
        streams = begun()
        assert read(streams, GONE + ANSWER[:size]) == [GONE]
        shows = size >= len(b"SIP/2.0 4")
        assert streams.cut() == ([(KEY, ANSWER[:size])] if shows else [])
        assert streams.cut() == []
        rest = read(streams, ANSWER[size:] + REFUSED, len(GONE) + size)
        assert rest == ([REFUSED] if shows else [ANSWER, REFUSED])
    streams = begun()
    read(streams, GONE[:40])
    assert streams.cut() == []


def test_a_forgotten_connection_still_counts_its_incomplete_answer() -> None:
    """Connections beyond the bounds are forgotten, the oldest first, and lose no answer."""
    for streams in (AnswerStreams(most=2), AnswerStreams(most_bytes=2 * len(ANSWER) - 1)):
        for name in (b"a", b"b", b"c"):
            streams.begin(name, 0)
            streams.read(name, 1, ANSWER[:-1])
        assert b"a" not in streams
        assert b"c" in streams
        assert {name for name, _ in streams.cut()} == {b"a", b"b", b"c"}
        assert streams.pending <= 2 * len(ANSWER)


def test_incomplete_answers_may_fill_the_bound() -> None:
    """With as many bytes as are kept, no connection is forgotten."""
    streams = AnswerStreams(most_bytes=2 * len(ANSWER[:-1]))
    for name in (b"a", b"b"):
        streams.begin(name, 0)
        streams.read(name, 1, ANSWER[:-1])
    assert streams.pending == 2 * len(ANSWER[:-1])


def test_incomplete_answers_that_are_not_fetched_are_bounded() -> None:
    """A flood keeps the reader from fetching them: the oldest ones are forgotten, and the newest stay."""
    streams = AnswerStreams(most=2, most_bytes=1_000)
    begin = b"SIP/2.0 401 " + b"x" * 288
    for number in range(50):
        key = b"%d" % number
        streams.begin(key, 0)
        streams.read(key, 1, begin)
    found = streams.cut()
    assert {name for name, _ in found} == {b"45", b"46", b"47", b"48", b"49"}
    assert streams.cut() == []


def test_an_endless_message_is_bounded() -> None:
    """A head without an end is cut off at the bound, counts once, and what follows is searched."""
    streams = begun()
    head = ANSWER[:-4]
    at = 0
    for piece in (head, *[b"a" * 10_000] * 20):
        read(streams, piece, at)
        at += len(piece)
        assert streams.pending <= MOST_PENDING + 10_000
    assert [message[: len(head)] for _, message in streams.cut()] == [head]
    assert read(streams, REFUSED, at) == [REFUSED]


@pytest.mark.parametrize("other", [b"\x16\x03\x01\x00\x50", b"Asterisk Call Manager/9.0.0\r\n"])
def test_another_protocol_is_not_searched(other: bytes) -> None:
    """A connection that begins with TLS, or with the manager interface, has no answers."""
    assert in_pieces(begun(), other + ANSWER, []) == []
    later = begun()
    assert read(later, REFUSED + other + ANSWER) == [REFUSED, ANSWER]
    assert read(later, other + ANSWER, len(REFUSED + other + ANSWER)) == [ANSWER]


@pytest.mark.parametrize(
    "uncertain",
    [
        b"SIP/2.0 401 X\r\nVia: a\r\n\r\n",
        b"SIP/2.0 401 X\r\nVia: a\r\nContent-Length: x\r\n\r\n",
        b"SIP/2.0 401 X\r\nVia: a\r\nContent-Length: 0\r\nl: 0\r\n\r\n",
        b"SIP/2.0 401 X\r\nVia: a\r\nContent-Length: 0 1\r\n\r\n",
        b"SIP/2.0 401 X\r\nVia: a\r\nContent-Length: 1234567890\r\n\r\n",
    ],
)
def test_after_an_uncertain_end_the_next_answer_is_found(uncertain: bytes) -> None:
    """Without a plain length, or with two, the answer counts, and so do those behind it."""
    assert in_pieces(begun(), uncertain + b"body" + ANSWER + REFUSED, []) == [uncertain, ANSWER, REFUSED]


@pytest.mark.parametrize(
    "head", [b"\x81\xfe", b"\x83\x05", b"\x81\x7f" + b"\xff" * 8, b"\x81\x7f" + bytes(8)]
)
def test_bytes_that_are_no_frame_are_searched(head: bytes) -> None:
    """A mask, an unknown kind, and an impossible length do not hide what follows."""
    assert in_pieces(begun(), head + b"ab" + ANSWER, [1, 3]) == [ANSWER]


def test_every_answer_of_a_large_segment_is_read() -> None:
    """A segment of 64 kB, as the kernel logs it before the network card splits it."""
    assert len(read(begun(), ANSWER * 1_000)) == 1_000


@given(
    st.lists(st.tuples(st.integers(0, SEQUENCES - 1), st.binary(max_size=60) | st.just(ANSWER)), max_size=8)
)
def test_no_bytes_raise(segments: list[tuple[int, bytes]]) -> None:
    """Any bytes at any number raise no exception, and only answers are returned."""
    streams = begun()
    for number, data in segments:
        assert all(found.startswith(b"SIP/2.0 ") for found in streams.read(KEY, number, data))
    streams.cut()


@pytest.mark.parametrize(
    "unit",
    [
        b"\r\n\r\n",
        b"l:",
        b"\r\nl: 0",
        b"\x81\x00",
        b"\x81\x7e\x00\x00",
        ANSWER,
        b" ",
        b"SIP/2.0 401 ",
        b"a\r\n",
    ],
)
def test_the_worst_segment_takes_linear_time(unit: bytes) -> None:
    """Hostile data of twice the size takes about twice the time, with and without a known beginning."""
    for make in (begun, AnswerStreams):

        def took(size: int, make: Callable[[], AnswerStreams] = make) -> float:
            return seconds(lambda data: read(make(), data), unit * (size // len(unit)))

        assert is_linear_in(took, 65_000)
