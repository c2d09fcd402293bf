"""The packets of an AMI connection: the same at any split of the bytes, and bounded."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.parse.ami import END, MAX_BANNER, MAX_PACKET, MOST_HEAD, PacketSplitter, Piece, SkippedBytes
from ringfence.parse.ami_http import Banner

BANNER = b"Asterisk Call Manager/11.0.0\r\n"


def split(*parts: bytes) -> list[Piece]:
    """Return the pieces of a connection whose bytes come in these parts."""
    splitter = PacketSplitter()
    return [piece for part in parts for piece in splitter.receive(part)]


def skipped(pieces: list[Piece]) -> int:
    """Return the number of skipped bytes."""
    return sum(piece.size for piece in pieces if isinstance(piece, SkippedBytes))


@pytest.mark.parametrize(
    ("line", "banner", "rest"),
    [
        (b"Asterisk Call Manager/5.0.5\r\n", "5.0.5", True),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "", True),
        (b"x Asterisk Call Manager/5.0.5\r\n", "", True),
        (b"\r\n", "", True),
        (b"a" * MAX_BANNER + b"\r\n", "", True),
        (b"a" * (MAX_BANNER + 1) + b"\r\n", "", False),
        (b"a" * 10_000 + END, "", True),
    ],
)
def test_the_first_line_shows_whether_the_peer_is_an_ami(line: bytes, banner: str, rest: bool) -> None:  # noqa: FBT001
    """A banner gives its version; garbage and a line that is too long give an empty one, at any split."""
    stream = line + b"good" + END
    whole = split(stream)
    assert whole[0] == Banner(banner)
    assert (whole[-1] == b"good") is rest
    assert split(*(bytes([byte]) for byte in stream)) == whole
    for cut in range(MAX_BANNER - 2, MAX_BANNER + 4):
        assert split(stream[:cut], stream[cut:]) == whole


def test_nothing_is_returned_before_the_banner() -> None:
    """Until the first line is complete there is no banner."""
    assert split(BANNER[:-1]) == []


def test_a_packet_ends_with_an_empty_line_only() -> None:
    """A line end within a packet stays in it, and the empty line after it is removed."""
    assert split(BANNER + b"a\r\nb" + END + b"c\n\nd" + END + b"e")[1:] == [b"a\r\nb", b"c\n\nd"]


@pytest.mark.parametrize("excess", [-1, 0, 1, 2])
def test_a_packet_beyond_the_limit_is_skipped(excess: int) -> None:
    """A packet of the greatest length is kept; of a longer one only the size and the head are returned."""
    long = b"h" * (MAX_PACKET + excess)
    for cut in range(len(long) - 2, len(long) + 3):
        _, *pieces, last = split(BANNER, (long + END)[:cut], (long + END)[cut:] + b"good" + END)
        assert last == b"good"
        if excess <= 0:
            assert pieces == [long]
        else:
            assert skipped(pieces) == len(long)
            assert [piece.head for piece in pieces if isinstance(piece, SkippedBytes) and piece.head] == [
                b"h" * MOST_HEAD
            ]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50) | st.just(END) | st.just(BANNER), max_size=12))
def test_the_split_of_the_bytes_makes_no_difference(parts: list[bytes]) -> None:
    """Whole, in parts and byte by byte, a connection has the same packets."""
    stream = b"".join(parts)
    assert split(*parts) == split(*(bytes([byte]) for byte in stream)) == split(stream)


def test_each_byte_is_searched_once_at_any_split() -> None:
    """After each byte of a long packet, only the possible beginning of its end is left to search."""
    splitter = PacketSplitter()
    splitter.receive(BANNER)
    for size in range(1, 100_000):
        splitter.receive(b"x")
        assert splitter._searched >= size - len(END) + 1
