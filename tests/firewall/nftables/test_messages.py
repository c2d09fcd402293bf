"""The nftables messages: byte by byte, and the kernel's answers to them."""

import errno
import sys
from socket import AF_INET6

import pytest
from tests.support.netns import run

from ringfence.firewall.nftables import messages as nft_messages
from ringfence.firewall.nftables.messages import NftChain, NftCounter
from ringfence.netlink.connection import NetlinkConnection, NetlinkError, NetlinkMessageError

# nft 'add table inet t; add chain inet t c { ... }' and so on: one of each object.
TABLE = """\
table inet t {
  counter met { packets 5 bytes 500 }
  set many { type ipv4_addr; flags timeout; counter; size 64; }
  chain c { ip saddr @many counter packets 7 bytes 700 drop comment "ours"
            counter name "met"
  }
  chain base { type filter hook prerouting priority raw; policy drop; jump c; }
}
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the recorded headers are little-endian")
def test_messages_equal_those_of_nft() -> None:
    """The messages equal those for the commands above them, with deletions only of empty objects."""
    # nft list table ip6 raw
    assert (
        nft_messages.get_table("raw", family=AF_INET6).hex(" ", -4)
        == "1c000000 010a0500 00000000 00000000 0a000000 08000100 72617700"
    )
    # nft 'delete chain ip raw PREROUTING; delete chain ip raw OUTPUT; delete table ip raw'
    assert [message.hex(" ", -4) for message in nft_messages.delete_empty_table(4)] == [
        "2c000000 050a0101 00000000 00000000 02000000 08000100 72617700 0f000300 50524552 4f555449 4e470000",
        "28000000 050a0101 00000000 00000000 02000000 08000100 72617700 0b000300 4f555450 55540000",
        "1c000000 020a0101 00000000 00000000 02000000 08000100 72617700",
    ]
    # nft list chain ip raw OUTPUT (the dump of its table's rules)
    assert (
        nft_messages.get_rules("raw", family=2).hex(" ", -4)
        == "1c000000 070a0103 00000000 00000000 02000000 08000100 72617700"
    )
    # nft 'delete table inet ringfence'
    assert (
        nft_messages.delete_table("ringfence").hex(" ", -4)
        == "24000000 020a0100 00000000 00000000 01000000 0e000100 72696e67 66656e63 65000000"
    )


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_objects_are_parsed() -> None:
    """Tables, chains, rules, comments, counters and set headers are parsed as made."""
    run("nft", "-f", "-", text=TABLE)
    run("nft", "add element inet t many { 192.0.2.1 timeout 60s }")
    with NetlinkConnection() as kernel:
        [table] = nft_messages.tables_of(kernel.request(nft_messages.get_table("t")))
        chains = nft_messages.chains_of(kernel.request(nft_messages.get_chains()))
        rules = nft_messages.rules_of(kernel.request(nft_messages.get_rules("t")))
        [many] = nft_messages.sets_of(kernel.request(nft_messages.get_sets("t")))
        counters = nft_messages.counters_of(kernel.request(nft_messages.get_counters("t")))

        assert (table.name, table.dormant) == ("t", False)
        assert chains == [
            NftChain("t", "c", chains[0].handle),
            NftChain("t", "base", chains[1].handle, hook=0, priority=-300, policy=0),
        ]
        assert [(rule.chain, rule.comment) for rule in rules] == [("c", "ours"), ("c", ""), ("base", "")]
        assert (many.name, many.flags, many.key_length, many.size) == ("many", 16, 4, 64)
        assert many.elements in (1, None)
        assert counters == [NftCounter("met", 5, 500)]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_replaced_rule_has_another_body() -> None:
    """A changed rule has another body; packets do not change it."""
    run("nft", "-f", "-", text=TABLE)
    with NetlinkConnection() as kernel:
        before = nft_messages.rules_of(kernel.request(nft_messages.get_rules("t")))
        run("nft", "replace", "rule", "inet", "t", "c", "handle", str(before[0].handle), "accept")
        after = nft_messages.rules_of(kernel.request(nft_messages.get_rules("t")))

    assert after[0].body != before[0].body
    assert after[1:] == before[1:]
    run("nft", "flush table inet t; add rule inet t c counter packets 1 bytes 1; add rule inet t c counter")
    with NetlinkConnection() as kernel:
        one, other = nft_messages.rules_of(kernel.request(nft_messages.get_rules("t")))
    assert one.body == other.body


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_unchanged_rules_and_sets_are_parsed_once() -> None:
    """The answers to a second request give the same objects, and a changed set gives another."""
    run("nft", "-f", "-", text=TABLE)
    with NetlinkConnection() as kernel:
        rules = [nft_messages.rules_of(kernel.request(nft_messages.get_rules("t"))) for _ in range(2)]
        sets = [nft_messages.sets_of(kernel.request(nft_messages.get_sets("t"))) for _ in range(2)]
        run("nft", "flush chain inet t c; delete set inet t many; add set inet t many { type ipv6_addr; }")
        [changed] = nft_messages.sets_of(kernel.request(nft_messages.get_sets("t")))
    assert all(one is other for one, other in zip(*rules, strict=True))
    assert sets[0][0] is sets[1][0]
    assert (sets[0][0].key_length, changed.key_length) == (4, 16)


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_rules_of_iptables_are_parsed() -> None:
    """Rules of iptables-nft are parsed in the table of their family."""
    run("iptables-nft", "-t", "raw", "-A", "OUTPUT", "-j", "ACCEPT")
    with NetlinkConnection() as kernel:
        [rule] = nft_messages.rules_of(kernel.request(nft_messages.get_rules("raw", family=2)))
    assert (rule.table, rule.chain) == ("raw", "OUTPUT")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_missing_objects_are_reported() -> None:
    """A missing table has no rules or is ENOENT; there is always a generation."""
    with NetlinkConnection() as kernel:
        assert kernel.request(nft_messages.get_rules("absent")) == []
        assert kernel.request(nft_messages.get_counters("absent")) == []
        for message in (nft_messages.get_table("absent"), nft_messages.get_sets("absent")):
            with pytest.raises(NetlinkError) as caught:
                kernel.request(message)
            assert caught.value.code == errno.ENOENT
        before = nft_messages.generation_of(kernel.request(nft_messages.get_generation())[0])
        run("nft", "add", "table", "inet", "t")
        after = nft_messages.generation_of(kernel.request(nft_messages.get_generation())[0])
    assert before is not None
    assert after is not None
    assert after.number == before.number + 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        bytes(20),
        bytes.fromhex("18000000 060a0000 00000000 00000000 01000000 ff000100"),
        bytes.fromhex("18000000 060a0000 00000000 00000000 01000000 00000100"),
        bytes.fromhex("17000000 060a0000 00000000 00000000 01000000 040001"),
        bytes.fromhex("14000000 060a0000 00000000 00000000 01000000"),
        bytes.fromhex("ff000000 060a0000 00000000 00000000 01000000"),
    ],
)
def test_invalid_bytes_are_an_error(answer: bytes) -> None:
    """Wrong lengths, other messages and missing names raise NetlinkMessageError, and nothing else."""
    with pytest.raises(NetlinkMessageError):
        nft_messages.rules_of([answer])
