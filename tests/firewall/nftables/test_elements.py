"""Elements of nftables sets: byte by byte, parsed as written, and invalid messages."""

import itertools
import sys
from ipaddress import IPv4Network, ip_network

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.support.netns import run

from ringfence.firewall.contract import Element, Remembered
from ringfence.firewall.nftables import elements as nft_elements
from ringfence.netlink.connection import NetlinkConnection, NetlinkMessageError, attribute, message
from ringfence.values.ban import Scope
from ringfence.values.network import Network

TABLE = """\
table inet ringfence {
  set ban4_32 { type ipv4_addr; flags timeout; counter; size 64; }
  set ban4_24 { type ipv4_addr; flags timeout; counter; size 64; }
  set ban6_64 { type ipv6_addr; flags timeout; counter; size 64; }
  set allow4 { type ipv4_addr; flags interval; }
  set allow6 { type ipv6_addr; flags interval; }
  set flood6 { type ipv6_addr; flags dynamic,timeout; timeout 10s; size 64; }
}
"""
little = pytest.mark.skipif(sys.byteorder != "little", reason="the recorded headers are little-endian")


@little
def test_messages_equal_those_of_nft() -> None:
    """Each message equals that of the nft command above it, with NLM_F_ACK instead of a set ID."""
    # nft add element inet ringfence ban4_32 { 1.2.3.5 timeout 60s }
    assert nft_elements.add_elements("ringfence", "ban4_32", [(ip_network("1.2.3.5"), 60)]).hex(" ", -4) == (
        "50000000 0c0a0504 00000000 00000000 01000000 0e000100 72696e67 66656e63 65000000 0c000200 62616e34"
        " 5f333200 20000380 1c000180 0c000400 00000000 0000ea60 0c000180 08000100 01020305"
    )
    # nft create element inet ringfence ban4_24 { 1.2.3.0 timeout 60s }
    assert nft_elements.add_elements(
        "ringfence", "ban4_24", [(ip_network("1.2.3.0/24"), 60)], exclusive=True
    ).hex(" ", -4) == (
        "50000000 0c0a0506 00000000 00000000 01000000 0e000100 72696e67 66656e63 65000000 0c000200 62616e34"
        " 5f323400 20000380 1c000180 0c000400 00000000 0000ea60 0c000180 08000100 01020300"
    )
    # nft add element inet ringfence ban6_64 { 2001:db8:: timeout 60s expires 60s }
    assert nft_elements.add_elements(
        "ringfence", "ban6_64", [(ip_network("2001:db8::/64"), 60)], renewing=True
    ).hex(" ", -4) == (
        "68000000 0c0a0504 00000000 00000000 01000000 0e000100 72696e67 66656e63 65000000 0c000200 62616e36"
        " 5f363400 38000380 34000180 0c000400 00000000 0000ea60 0c000500 00000000 0000ea60 18000180 14000100"
        " 20010db8 00000000 00000000 00000000"
    )
    # nft delete element inet ringfence ban4_32 { 1.2.3.5 }
    assert nft_elements.delete_elements("ringfence", "ban4_32", [ip_network("1.2.3.5")]).hex(" ", -4) == (
        "44000000 0e0a0500 00000000 00000000 01000000 0e000100 72696e67 66656e63 65000000 0c000200 62616e34"
        " 5f333200 14000380 10000180 0c000180 08000100 01020305"
    )
    # nft destroy element inet ringfence ban4_32 { 1.2.3.5 }
    assert nft_elements.delete_elements("ringfence", "ban4_32", [ip_network("1.2.3.5")], lenient=True)[
        4:6
    ].hex() == ("1e0a")
    # nft add element inet ringfence allow4 { 10.0.0.0/8 } (which numbers them, and begins with an end at 0)
    [message] = nft_elements.intervals(
        "ringfence", "allow4", 4, nft_elements.merged([ip_network("10.0.0.0/8")])
    )
    assert message.hex(" ", -4) == (
        "5c000000 0c0a0504 00000000 00000000 01000000 0e000100 72696e67 66656e63 65000000 0b000200 616c6c6f"
        " 77340000 2c000380 10000180 0c000180 08000100 0a000000 18000180 08000300 00000001 0c000180 08000100"
        " 0b000000"
    )
    # nft flush set inet ringfence allow4
    assert nft_elements.clear_elements("ringfence", "allow4").hex(" ", -4) == (
        "30000000 0e0a0500 00000000 00000000 01000000 0e000100 72696e67 66656e63 65000000 0b000200 616c6c6f"
        " 77340000"
    )


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_elements_are_parsed_as_written() -> None:
    """Bans of both families are parsed with times and lengths, also elements of other programs."""
    run("nft", "-f", "-", text=TABLE)
    v4, v6 = ip_network("192.0.2.1"), ip_network("2001:db8:1::/64")
    with NetlinkConnection(extended=True) as kernel:

        def read(name: str, version: int, length: int) -> list[Element]:
            return [
                element
                for answer in kernel.stream(nft_elements.dump_elements("ringfence", name))
                for element in nft_elements.bans_of(answer, version, length, Scope.FULL)
            ]

        messages = [
            nft_elements.add_elements("ringfence", "ban4_32", [(v4, 600)]),
            nft_elements.add_elements("ringfence", "ban6_64", [(v6, 60)], renewing=True),
        ]
        assert kernel.transact(*messages) == []
        [first], [second] = read("ban4_32", 4, 32), read("ban6_64", 6, 64)
        assert (first.network, second.network) == (v4, v6)
        assert 599 < first.timeout <= 600
        assert 59 < second.timeout <= 60
        assert read("ban4_24", 4, 24) == []

        run("nft", "add element inet ringfence ban4_24 { 10.0.0.0 }")
        run("nft", 'add element inet ringfence ban4_24 { 10.0.1.0 timeout 60s comment "x" }')
        found = {element.network: element.timeout for element in read("ban4_24", 4, 24)}
        assert found.keys() == {ip_network("10.0.0.0/24"), ip_network("10.0.1.0/24")}
        assert found[ip_network("10.0.0.0/24")] == float("inf")
        run("nft", "add element inet ringfence ban4_24 { 10.0.2.1 timeout 60s }")
        with pytest.raises(NetlinkMessageError, match="not a network of length 24"):
            read("ban4_24", 4, 24)


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_counters_are_read() -> None:
    """Counters of bans and of flooders are parsed."""
    run("nft", "-f", "-", text=TABLE)
    run("nft", "add element inet ringfence ban4_32 { 192.0.2.1 counter packets 3 bytes 300 timeout 60s }")
    run("nft", "add element inet ringfence flood6 { 2001:db8:: counter packets 7 bytes 700 }")
    with NetlinkConnection(extended=True) as kernel:
        answers = list(kernel.stream(nft_elements.dump_elements("ringfence", "ban4_32")))
        [element] = (e for answer in answers for e in nft_elements.bans_of(answer, 4, 32, Scope.SIP_UDP))
        dumped = list(kernel.stream(nft_elements.dump_elements("ringfence", "flood6")))

    assert (element.packets, element.bytes, element.scope) == (3, 300, Scope.SIP_UDP)
    flooders = [flooder for answer in dumped for flooder in nft_elements.remembered_of(answer, whole=False)]
    assert flooders == [Remembered(ip_network("2001:db8::/64"), 7)]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_intervals_are_listed_by_nft() -> None:
    """Intervals are listed by nft as the networks that they cover, up to both ends of the address range."""
    run("nft", "-f", "-", text=TABLE)
    texts = ("0.0.0.0/8", "10.0.0.0/24", "10.0.0.128/25", "10.0.1.0/24", "192.0.2.1", "255.0.0.0/8")
    ranges = nft_elements.merged([ip_network(text) for text in texts])
    all_addresses = nft_elements.merged([ip_network("::/0")])
    with NetlinkConnection(extended=True) as kernel:
        for _ in range(2):
            messages = [
                nft_elements.clear_elements("ringfence", "allow4"),
                *nft_elements.intervals("ringfence", "allow4", 4, ranges),
                nft_elements.clear_elements("ringfence", "allow6"),
                *nft_elements.intervals("ringfence", "allow6", 6, all_addresses),
            ]
            assert kernel.transact(*messages) == []
    listed = " ".join(run("nft", "list", "set", "inet", "ringfence", "allow4").split())
    assert "elements = { 0.0.0.0/8, 10.0.0.0/23, 192.0.2.1, 255.0.0.0/8 }" in listed
    assert "elements = { ::/0 }" in run("nft", "list", "set", "inet", "ringfence", "allow6")


networks = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, 32),
)


@given(st.lists(networks, max_size=20))
def test_merged_ranges_cover_the_same(given_networks: list[Network]) -> None:
    """Merged ranges are in order, neither overlap nor touch, and begin and end where networks do."""
    ranges = nft_elements.merged(given_networks)

    assert all(first <= last for first, last in ranges)
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(ranges))
    ends = [(int(one.network_address), int(one.broadcast_address)) for one in given_networks]
    assert all(any(first <= a and b <= last for first, last in ranges) for a, b in ends)
    assert {first for first, _ in ranges} <= {a for a, _ in ends}
    assert {last for _, last in ranges} <= {b for _, b in ends}


@little
@pytest.mark.parametrize("index", [0, 1, 6])
def test_the_refused_element_is_found(index: int) -> None:
    """The offset of an error leads to the element's index, at its first byte and at its last."""
    bans = [(ip_network((0x0A000000 + n, 32)), 60) for n in range(7)]
    message = nft_elements.add_elements("ringfence", "ban4_32", bans, renewing=True)
    begin = len(message) - 7 * 40
    for offset in (begin + 40 * index, begin + 40 * index + 39):
        assert nft_elements.refused_index(message, offset) == index


@little
def test_an_error_outside_the_elements_has_no_index() -> None:
    """An error without an offset, or with one outside the elements, has no index."""
    message = nft_elements.add_elements("ringfence", "ban4_32", [(ip_network("192.0.2.1"), 60)])
    assert [nft_elements.refused_index(message, offset) for offset in (None, 0, 36, 4000)] == [None] * 4
    assert nft_elements.refused_index(b"", 36) is None


@given(st.binary(max_size=200))
def test_invalid_elements_are_an_error(tail: bytes) -> None:
    """Arbitrary bytes in an element message are parsed, or a NetlinkMessageError, and nothing else."""
    elements = (4 + len(tail)).to_bytes(2, sys.byteorder) + (3).to_bytes(2, sys.byteorder) + tail
    head = (20 + len(elements)).to_bytes(4, sys.byteorder) + (0x0A0C).to_bytes(2, sys.byteorder)
    answer = head + bytes(14) + elements
    for read in (
        lambda: list(nft_elements.bans_of(answer, 4, 24, Scope.FULL)),
        lambda: list(nft_elements.bans_of(answer, 6, 64, Scope.FULL)),
        lambda: list(nft_elements.remembered_of(answer, whole=False)),
    ):
        try:
            read()
        except NetlinkMessageError:
            continue


def test_a_time_of_any_length_is_an_error_or_a_time() -> None:
    """The time left of an element is eight bytes. With two hundred, the message is invalid."""
    key = attribute(1, attribute(1, ip_network("192.0.2.1").network_address.packed))
    for size in (8, 9, 200):
        element = attribute(1, key + attribute(5, b"\xff" * size))
        answer = message(0x0A0C, 0, 1, attribute(3, element))
        try:
            [found] = nft_elements.bans_of(answer, 4, 32, Scope.FULL)
        except NetlinkMessageError:
            assert size > 8
        else:
            assert (size, found.timeout) == (8, (256**8 - 1) / 1000)


@pytest.mark.parametrize("answer", [b"", bytes(19), bytes(20), bytes.fromhex("ff000000 0c0a") + bytes(14)])
def test_other_messages_are_an_error(answer: bytes) -> None:
    """Other messages raise NetlinkMessageError."""
    with pytest.raises(NetlinkMessageError):
        list(nft_elements.bans_of(answer, 4, 32, Scope.FULL))
