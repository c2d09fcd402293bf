"""Sets of networks: the same answers as ipaddress gives, in both versions."""

import time
from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.detect.networks import NetworkSet
from ringfence.model import Address, Network


def cut(address: Address, length: int) -> Network:
    """Give the network of a length around an address."""
    return ip_network((address, min(length, address.max_prefixlen)), strict=False)


# Few networks of all there are have anything in common; some are drawn from where they do.
ADDRESSES: st.SearchStrategy[Address] = st.one_of(
    st.ip_addresses(),
    st.ip_addresses(network="192.0.2.0/29"),
    st.ip_addresses(network="2001:db8::/125"),
    st.ip_addresses(network="2001:db8::/61"),
    st.ip_addresses(network="::192.0.2.0/125"),
)
NETWORKS = st.builds(cut, ADDRESSES, st.integers(0, 128) | st.sampled_from([24, 29, 32, 61, 64, 125, 128]))


def overlap(one: Network, other: Network) -> bool:
    """Ask ipaddress, which compares networks of one version only."""
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def inside(one: Network, other: Network) -> bool:
    """Ask ipaddress whether ``one`` lies in ``other``."""
    return overlap(one, other) and one.prefixlen >= other.prefixlen


@given(st.lists(NETWORKS, max_size=8), ADDRESSES, st.lists(NETWORKS, max_size=8))
@settings(deadline=None, max_examples=500)
def test_the_answers_are_those_of_ipaddress(
    networks: list[Network], address: Address, others: list[Network]
) -> None:
    """Covering, touching, holding a part and the whole, for any networks of both versions together."""
    kept = NetworkSet(networks)
    assert kept.networks == frozenset(networks)
    assert kept.covers(address) == any(address in network for network in networks)
    for other in [*others, *networks]:
        assert kept.touches(other) == any(overlap(network, other) for network in networks)
        assert kept.has_part_of(other) == any(inside(network, other) for network in networks)
        whole = any(inside(other, network) for network in networks)
        assert kept.contains(other) == whole
        assert kept.contains_prefix(other.version, int(other.network_address), other.prefixlen) == whole
    assert bool(kept) == bool(networks)


def test_an_empty_set_covers_and_touches_nothing() -> None:
    """Without networks the answer is no, even for the whole internet."""
    empty = NetworkSet()
    for network in (ip_network("0.0.0.0/0"), ip_network("::/0")):
        assert not empty.covers(network.network_address)
        assert not empty.touches(network)
        assert not empty.has_part_of(network)
        assert not empty.contains(network)


def test_the_cost_does_not_grow_with_the_number_of_networks() -> None:
    """A thousand times as many networks of one length do not take a hundred times as long to ask."""

    def seconds(count: int) -> float:
        kept = NetworkSet(IPv6Network((number << 64, 96)) for number in range(count))
        subject = IPv6Network((1 << 100, 64))
        assert not kept.has_part_of(subject)
        began = time.thread_time()
        for _ in range(1000):
            kept.has_part_of(subject)
            kept.covers(subject.network_address)
        return time.thread_time() - began

    assert any(seconds(10_000) < 100 * seconds(10) for _ in range(5))
