"""The nftables messages: byte by byte; what they do is tried in test_ipset.py."""

import sys

import pytest

from ringfence.firewall import nft_messages


@pytest.mark.skipif(sys.byteorder != "little", reason="the recorded headers are little-endian")
def test_messages_are_the_tools() -> None:
    """The messages are those for the commands above them, with deletions only of what is empty."""
    # nft list table ip6 raw
    assert (
        nft_messages.table_query(6).hex(" ", -4)
        == "1c000000 010a0500 00000000 00000000 0a000000 08000100 72617700"
    )
    # nft 'delete chain ip raw PREROUTING; delete chain ip raw OUTPUT; delete table ip raw'
    assert [message.hex(" ", -4) for message in nft_messages.delete_empty_table(4)] == [
        "14000000 10000100 00000000 00000000 0000000a",
        "2c000000 050a0101 00000000 00000000 02000000 08000100 72617700 0f000300 50524552 4f555449 4e470000",
        "28000000 050a0101 00000000 00000000 02000000 08000100 72617700 0b000300 4f555450 55540000",
        "1c000000 020a0501 00000000 00000000 02000000 08000100 72617700",
        "14000000 11000100 00000000 00000000 0000000a",
    ]
