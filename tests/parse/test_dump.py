"""The beginning and the end of a raw packet in a log."""

import pytest

from ringfence.parse.dump import begins_dump, end_of_dump
from ringfence.parse.prefix import parse_prefix

FIRST = b"[2026-11-20 06:05:22] ERROR[7] pjproject: \tx.c Error processing packet from 192.0.2.7:5060: x"
END = b"-- end of packet."


@pytest.mark.parametrize(
    ("lines", "final", "end"),
    [
        ([FIRST, b"x", END, b"y"], True, 3),
        ([FIRST, b"x", END, b"forged", END, b"y"], True, 5),
        ([FIRST, b"x", END], False, None),
        ([FIRST, b"x", END, FIRST, END], True, 3),
        ([FIRST, b"x", END, FIRST.replace(b"[7]", b"[8]"), END], True, 5),
        ([FIRST, b"x"], True, 2),
        ([FIRST, b"x" * 2_000, END], True, 1),
    ],
)
def test_a_packet_reaches_to_the_last_end_within_its_length(
    lines: list[bytes],
    final: bool,  # noqa: FBT001
    end: int | None,
) -> None:
    """A sender can write an end mark; only another packet of the same thread shows that a mark was true."""
    prefix = parse_prefix(FIRST)
    assert prefix is not None
    assert end_of_dump(lines, 0, prefix, 0, 1_000, final=final) == end


def test_a_packet_of_known_size_has_that_size() -> None:
    """If Asterisk states the size, no end mark counts."""
    prefix = parse_prefix(FIRST)
    assert prefix is not None
    assert end_of_dump([FIRST, b"12345", END, b"x"], 0, prefix, 6, 1_000, final=True) == 2


def test_a_line_without_a_prefix_begins_no_packet() -> None:
    """A packet's own text does not begin another packet."""
    prefix = parse_prefix(FIRST)
    assert prefix is not None
    assert begins_dump(FIRST, prefix)
    assert not begins_dump(FIRST[24:], parse_prefix(FIRST.replace(b"[7]", b"[8]")) or prefix)
    assert not begins_dump(b"Error processing packet from x", prefix)
