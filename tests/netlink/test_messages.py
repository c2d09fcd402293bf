"""Netlink messages: framing, attributes, and builders of nfnetlink messages."""

import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.netlink import messages


@pytest.mark.skipif(sys.byteorder != "little", reason="the expected headers are little-endian")
def test_a_message_has_its_length_and_padding() -> None:
    """Attributes are padded to four bytes; the message's length counts the padding, theirs does not."""
    built = messages.message(
        0x0601, messages.NLM_F_ACK, 2, messages.text(2, "ab"), messages.number(6, 258), resource=10
    )

    assert built.hex(" ", -4) == (
        "24000000 01060500 00000000 00000000 0200000a 07000200 61620000 08000640 00000102"
    )


FRAMES = messages.message(3, 0, 0) + messages.message(2, 0, 0, messages.text(1, "abc"))


def test_a_datagram_is_split_into_messages() -> None:
    """Each message has its type and its place in the datagram."""
    assert [(frame.kind, frame.start, frame.end) for frame in messages.frames(FRAMES)] == [
        (3, 0, 20),
        (2, 20, 48),
    ]


@pytest.mark.parametrize("cut", [1, 15, 19, 47])
def test_a_cut_datagram_is_an_error(cut: int) -> None:
    """A datagram that ends within a message is a NetlinkMessageError."""
    with pytest.raises(messages.NetlinkMessageError):
        list(messages.frames(FRAMES[:cut]))


def test_the_attributes_of_a_message() -> None:
    """Attributes are found by type, without flags; a missing integer is 0, a missing text is an error."""
    inner = messages.attribute(4 | messages.NESTED, messages.number(1, 258))
    found = messages.parse(messages.message(7, 0, 0, messages.text(2, "ab"), inner), 7)

    assert (messages.string(found, 2), messages.integer(messages.nested(found, 4), 1)) == ("ab", 258)
    assert (messages.integer(found, 9), messages.nested(found, 9)) == (0, {})
    with pytest.raises(messages.NetlinkMessageError, match="lacks attribute 9"):
        messages.string(found, 9)
    with pytest.raises(messages.NetlinkMessageError, match="instead of type 0x8"):
        messages.parse(messages.message(7, 0, 0), 8)


@given(st.binary(max_size=64))
def test_any_bytes_are_attributes_or_an_error(noise: bytes) -> None:
    """Arbitrary bytes are parsed as attributes, or are a NetlinkMessageError."""
    with suppress(messages.NetlinkMessageError):
        assert all(len(value) < len(noise) for _, value in messages.attributes(memoryview(noise)))


@pytest.mark.parametrize(("payload", "code"), [(b"", None), (bytes(4), 0), (b"\xfe\xff\xff\xff", 2)])
def test_the_result_of_a_request(payload: bytes, code: int | None) -> None:
    """An answer without a result has none; a result is an error number, or 0."""
    datagram = messages.FRAME.pack(16 + len(payload), messages.NLMSG_ERROR, 0, 1, 0) + payload
    [frame] = messages.frames(datagram)

    assert messages.result_of(datagram, frame) == code
