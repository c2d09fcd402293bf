"""Builders of nfnetlink messages."""

import sys

import pytest

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
