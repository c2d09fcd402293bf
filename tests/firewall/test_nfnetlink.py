"""The shape of messages."""

import sys

import pytest

from ringfence.firewall import nfnetlink


@pytest.mark.skipif(sys.byteorder != "little", reason="the expected headers are little-endian")
def test_a_message_has_its_length_and_padding() -> None:
    """Attributes are padded to four bytes, which their own length does not count and the message's does."""
    built = nfnetlink.message(
        0x0601, nfnetlink.NLM_F_ACK, 2, nfnetlink.text(2, "ab"), nfnetlink.number(6, 258), resource=10
    )

    assert built.hex(" ", -4) == (
        "24000000 01060500 00000000 00000000 0200000a 07000200 61620000 08000640 00000102"
    )
