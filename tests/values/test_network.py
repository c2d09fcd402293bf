"""Networks: the network of one host and of one party, and sets of networks compared with ipaddress."""

import time
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.values.network import (
    PREFIX_LENGTHS,
    Address,
    Network,
    NetworkSet,
    contains,
    is_loopback,
    is_one_host,
    narrowest,
    overlap,
    prefix_of,
    sender_key,
    sender_of,
    whole_sender,
    without,
)


@pytest.mark.parametrize(
    ("address", "sender", "prefix"),
    [
        ("192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("64:ff9b::c000:207", "64:ff9b::c000:207/128", "64:ff9b::c000:200/120"),
        ("64:ff9b::", "64:ff9b::/128", "64:ff9b::/120"),
        ("64:ff9b::ffff:ffff", "64:ff9b::ffff:ffff/128", "64:ff9b::ffff:ff00/120"),
        ("64:ff9b::1:0:0", "64:ff9b::/64", "64:ff9b::/48"),  # outside of the /96
        ("64:ff9b:1::c000:207", "64:ff9b:1::c000:207/128", "64:ff9b:1::c000:200/120"),
        ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff/128", None),
        ("64:ff9b:2::1", "64:ff9b:2::/64", "64:ff9b:2::/48"),  # outside of the /48
        ("64:ff9a:ffff::1", "64:ff9a:ffff::/64", "64:ff9a:ffff::/48"),
    ],
)
def test_what_one_host_and_one_party_have(address: str, sender: str, prefix: str | None) -> None:
    """An IPv4 address is one host, also as NAT64 writes it; any other IPv6 host has a /64."""
    found = ip_address(address)
    assert str(sender_of(found)) == sender
    assert is_one_host(found) == (sender_of(found).num_addresses == 1)
    assert prefix_of(found).prefixlen in PREFIX_LENGTHS
    assert prefix is None or str(prefix_of(found)) == prefix


@pytest.mark.parametrize(
    ("prefix", "members", "found"),
    [
        ("2001:db8::/48", ["2001:db8:0:1::/64", "2001:db8:0:f::/64"], "2001:db8::/60"),
        ("2001:db8::/48", ["2001:db8:0:1::/64", "2001:db8:0:10::/64"], "2001:db8::/56"),
        ("2001:db8::/48", ["2001:db8:0:f100::/64", "2001:db8:0:f200::7/128"], "2001:db8:0:f000::/52"),
        ("2001:db8::/48", ["2001:db8:0:1::/64", "2001:db8:0:f000::/64"], "2001:db8::/48"),
        ("192.0.2.0/24", ["192.0.2.1/32", "192.0.2.2/32"], "192.0.2.0/24"),
        ("64:ff9b::c000:200/120", ["64:ff9b::c000:201/128"], "64:ff9b::c000:200/120"),
    ],
)
def test_the_narrowest_network_of_a_customer_is_found(prefix: str, members: list[str], found: str) -> None:
    """Of a /48 it contains all members; other prefixes stay as they are."""
    assert str(narrowest(ip_network(prefix), [ip_network(one) for one in members])) == found


def test_a_key_is_that_of_the_host() -> None:
    """Two addresses of one /64 have the same key, two addresses of NAT64 do not."""
    keys = [
        sender_key(ip_address(text)) for text in ("2001:db8::1", "2001:db8::2", "64:ff9b::1", "64:ff9b::2")
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def cut(address: Address, length: int) -> Network:
    """Return the network of a length around an address."""
    return ip_network((address, min(length, address.max_prefixlen)), strict=False)


# Random networks rarely overlap, so some are drawn from small ranges.
ADDRESSES: st.SearchStrategy[Address] = st.one_of(
    st.ip_addresses(),
    st.ip_addresses(network="192.0.2.0/29"),
    st.ip_addresses(network="2001:db8::/125"),
    st.ip_addresses(network="2001:db8::/61"),
    st.ip_addresses(network="::192.0.2.0/125"),
)
NETWORKS = st.builds(cut, ADDRESSES, st.integers(0, 128) | st.sampled_from([24, 29, 32, 61, 64, 125, 128]))


def overlapping(one: Network, other: Network) -> bool:
    """Whether two networks overlap by ipaddress, which compares networks of one version only."""
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def inside(one: Network, other: Network) -> bool:
    """Whether ``one`` lies in ``other``, by ipaddress."""
    return overlapping(one, other) and one.prefixlen >= other.prefixlen


@given(NETWORKS, NETWORKS | st.integers(0, 128))
def test_networks_overlap_and_contain_others_as_with_ipaddress(one: Network, drawn: Network | int) -> None:
    """For any two networks of both versions, nested ones included, the result equals that of ipaddress."""
    other = one.supernet(new_prefix=min(drawn, one.prefixlen)) if isinstance(drawn, int) else drawn
    assert overlap(one, other) == overlap(other, one) == overlapping(one, other)
    assert contains(other, one) == inside(one, other)


@given(NETWORKS, NETWORKS)
def test_the_rest_of_a_network_has_all_but_the_part(network: Network, part: Network) -> None:
    """The rest and the removed part are the network; without a narrower part there is no rest."""
    rest = without(network, part)
    if not inside(part, network) or part == network:
        assert rest == ()
    else:
        assert sum(one.num_addresses for one in (*rest, part)) == network.num_addresses
        assert all(inside(one, network) and not overlap(one, part) for one in rest)


@pytest.mark.parametrize(
    ("network", "whole"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:db8::7", "2001:db8::/64"),
        ("2001:db8::/127", "2001:db8::/64"),
        ("2001:db8::/64", "2001:db8::/64"),
        ("2001:db8::/48", "2001:db8::/48"),
        ("64:ff9b::c000:207", "64:ff9b::c000:207/128"),
    ],
)
def test_a_part_of_a_hosts_network_stands_for_all_of_it(network: str, whole: str) -> None:
    """A part of a /64 becomes the /64, except for IPv4 addresses that NAT64 translates."""
    assert str(whole_sender(ip_network(network))) == whole


@given(st.lists(NETWORKS, max_size=8), ADDRESSES, st.lists(NETWORKS, max_size=8))
@settings(deadline=None, max_examples=5 * settings().max_examples)
def test_the_results_are_those_of_ipaddress(
    networks: list[Network], address: Address, others: list[Network]
) -> None:
    """For any networks of both versions, every query returns the same as a search with ipaddress."""
    kept = NetworkSet(networks)
    assert kept.networks == frozenset(networks)
    assert kept.covers(address) == any(address in network for network in networks)
    for other in [*others, *networks]:
        assert kept.overlaps(other) == any(overlapping(network, other) for network in networks)
        assert kept.contains_part_of(other) == any(inside(network, other) for network in networks)
        whole = any(inside(other, network) for network in networks)
        assert kept.contains(other) == whole
        assert kept.contains_prefix(other.version, int(other.network_address), other.prefixlen) == whole
    assert bool(kept) == bool(networks)


def test_an_empty_set_covers_and_overlaps_nothing() -> None:
    """Without networks every query returns false, even for the whole internet."""
    empty = NetworkSet()
    for network in (ip_network("0.0.0.0/0"), ip_network("::/0")):
        assert not empty.covers(network.network_address)
        assert not empty.overlaps(network)
        assert not empty.contains_part_of(network)
        assert not empty.contains(network)


def test_the_cost_does_not_grow_with_the_number_of_networks() -> None:
    """A thousand times as many networks of one length do not take a hundred times as long."""

    def seconds(count: int) -> float:
        kept = NetworkSet(IPv6Network((number << 64, 96)) for number in range(count))
        subject = IPv6Network((1 << 100, 64))
        assert not kept.contains_part_of(subject)
        began = time.thread_time()
        for _ in range(1000):
            kept.contains_part_of(subject)
            kept.covers(subject.network_address)
        return time.thread_time() - began

    assert any(seconds(10_000) < 100 * seconds(10) for _ in range(5))


def test_a_loopback_host_is_an_address_or_localhost() -> None:
    """Names are not resolved, and a name that begins like a loopback address is not one."""
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("", "localhost.example", "127.0.0.1.example", "9.0.0.1", "::")))
