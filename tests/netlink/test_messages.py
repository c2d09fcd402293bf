"""Netlink messages: framing, attributes, and builders of nfnetlink messages."""

import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.netlink import connection


@pytest.mark.skipif(sys.byteorder != "little", reason="the expected headers are little-endian")
def test_a_message_has_its_length_and_padding() -> None:
    """Attributes are padded to four bytes; the message's length counts the padding, theirs does not."""
    built = connection.message(
        0x0601, connection.NLM_F_ACK, 2, connection.text(2, "ab"), connection.number(6, 258), resource=10
    )

    assert built.hex(" ", -4) == (
        "24000000 01060500 00000000 00000000 0200000a 07000200 61620000 08000640 00000102"
    )


FRAMES = connection.message(3, 0, 0) + connection.message(2, 0, 0, connection.text(1, "abc"))


def test_a_datagram_is_split_into_messages() -> None:
    """Each message has its type and its place in the datagram."""
    assert [(frame.kind, frame.start, frame.end) for frame in connection.frames(FRAMES)] == [
        (3, 0, 20),
        (2, 20, 48),
    ]


@pytest.mark.parametrize("cut", [1, 15, 19, 47])
def test_a_cut_datagram_is_an_error(cut: int) -> None:
    """A datagram that ends within a message is a NetlinkMessageError."""
    with pytest.raises(connection.NetlinkMessageError):
        list(connection.frames(FRAMES[:cut]))


def test_the_attributes_of_a_message() -> None:
    """Attributes are found by type, without flags; a missing integer is 0, a missing text is an error."""
    inner = connection.attribute(4 | connection.NESTED, connection.number(1, 258))
    found = connection.parse(connection.message(7, 0, 0, connection.text(2, "ab"), inner), 7)

    assert (connection.string(found, 2), connection.integer(connection.nested(found, 4), 1)) == ("ab", 258)
    assert (connection.integer(found, 9), connection.nested(found, 9)) == (0, {})
    with pytest.raises(connection.NetlinkMessageError, match="lacks attribute 9"):
        connection.string(found, 9)
    with pytest.raises(connection.NetlinkMessageError, match="instead of type 0x8"):
        connection.parse(connection.message(7, 0, 0), 8)


@given(st.binary(max_size=64))
def test_any_bytes_are_attributes_or_an_error(noise: bytes) -> None:
    """Arbitrary bytes are parsed as attributes, or are a NetlinkMessageError."""
    with suppress(connection.NetlinkMessageError):
        assert all(len(value) < len(noise) for _, value in connection.attributes(memoryview(noise)))


@pytest.mark.parametrize(("payload", "code"), [(b"", None), (bytes(4), 0), (b"\xfe\xff\xff\xff", 2)])
def test_the_result_of_a_request(payload: bytes, code: int | None) -> None:
    """An answer without a result has none; a result is an error number, or 0."""
    datagram = connection.FRAME.pack(16 + len(payload), connection.NLMSG_ERROR, 0, 1, 0) + payload
    [frame] = connection.frames(datagram)

    assert connection.result_of(datagram, frame) == code


def test_an_integer_has_at_most_eight_bytes() -> None:
    """A longer one is an error: as a number of milliseconds it would be none that Python can convert."""
    for size in (0, 1, 8):
        found = {1: memoryview(b"\xff" * size)}
        assert connection.integer(found, 1) == 256**size - 1
    with pytest.raises(connection.NetlinkMessageError, match="an integer of 9 bytes"):
        connection.integer({1: memoryview(bytes(9))}, 1)
