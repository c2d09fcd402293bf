"""Messages from one segment of TCP: their bounds, and nothing beyond what is certain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parse.worst import is_linear_in, seconds

from ringfence.parse.stream import MOST_MESSAGES, messages

ANSWER = b"SIP/2.0 401 X\r\nContent-Length:  0\r\n\r\n"
BODY = b"SIP/2.0 200 OK\r\nl: 3\r\n\r\nabc"


def test_messages_back_to_back() -> None:
    """Each has its offset and its own body, also with requests between answers."""
    request = b"NOTIFY sip:x SIP/2.0\r\nContent-Length: 2\r\n\r\nab"
    parts = [ANSWER, BODY, request, ANSWER]
    offsets = [sum(map(len, parts[:number])) for number in range(len(parts))]
    assert list(messages(b"".join(parts))) == list(zip(offsets, parts, strict=True))


def test_a_frame_holds_one_message() -> None:
    """Short and long frames give their content; the offset is the frame's."""
    long = ANSWER.replace(b"X", b"X" * 200)
    data = b"\x81" + bytes([len(ANSWER)]) + ANSWER + b"\x81\x7e" + len(long).to_bytes(2, "big") + long
    assert list(messages(data)) == [(0, ANSWER), (2 + len(ANSWER), long)]


@pytest.mark.parametrize(
    "uncertain",
    [
        b"SIP/2.0 401 X\r\n\r\n",
        b"SIP/2.0 401 X\r\nContent-Length: x\r\n\r\n",
        b"SIP/2.0 401 X\r\nContent-Length: 0\r\nl: 0\r\n\r\n",
        b"SIP/2.0 401 X\r\nContent-Length: 0 1\r\n\r\n",
        b"SIP/2.0 401 X\r\nContent-Length: 1234567890\r\n\r\n",
        b"SIP/2.0 401 X\r\nContent-Length: 500\r\n\r\n",
    ],
)
def test_nothing_follows_an_uncertain_end(uncertain: bytes) -> None:
    """Without a plain length, with two, or with one beyond the segment, the rest is one message."""
    assert list(messages(uncertain + ANSWER)) == [(0, uncertain + ANSWER)]


def test_the_last_message_may_be_incomplete() -> None:
    """The existing bytes are returned, at every length."""
    for size in range(len(ANSWER) + 1, 2 * len(ANSWER)):
        whole = (ANSWER * 2)[:size]
        assert list(messages(whole)) == [(0, ANSWER), (len(ANSWER), whole[len(ANSWER) :])]


def test_the_number_of_messages_is_bounded() -> None:
    """A segment of 64 kB takes bounded time."""
    assert len(list(messages(ANSWER * 1000))) == MOST_MESSAGES


@pytest.mark.parametrize(
    "unit", [b"\r\n\r\n", b"l:", b"\r\nl: 0", b"\x81\x00", b"\x81\x7e\x00\x00", ANSWER, b" "]
)
def test_the_worst_segment_takes_linear_time(unit: bytes) -> None:
    """No byte is read again and again."""

    def measure(size: int) -> float:
        return seconds(lambda data: list(messages(data)), ANSWER[:-2] + unit * (size // len(unit)))

    assert is_linear_in(measure, 65_000)


@given(st.lists(st.sampled_from([ANSWER, BODY, b"\x81", b"\x7e", b"\0", b"\r\n", b"SIP/2.0 "]), max_size=20))
def test_every_message_stands_in_the_segment(parts: list[bytes]) -> None:
    """Any parts give messages in order, each a part of the segment after its offset."""
    data = b"".join(parts)
    last = 0
    for offset, message in messages(data):
        assert offset >= last
        assert data.find(message, offset) in range(offset, offset + 5)
        last = offset
