"""Counters of nftables: of rules, sets and sources."""

from ipaddress import ip_network

import pytest

from ringfence.features.limiter.stage import FLOODS, Limit
from ringfence.firewall.contract import Add, FirewallPlan
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.firewall.nftables.messages import NftSetHeader
from ringfence.firewall.nftables.state import read_counters, read_remembered, total_bans
from ringfence.netlink.connection import NetlinkConnection


def head(name: str, elements: int | None) -> NftSetHeader:
    """Return the header of a set."""
    return NftSetHeader(name, 1, 0, 4, 0, 0, elements)


def test_the_bans_of_all_sets_are_added_up() -> None:
    """Only sets of bans count; without a count of one of them the number is not known."""
    heads = [head("ban4_32", 2), head("ban6_64", 3), head("deny4", 9)]
    assert total_bans(heads) == 5
    assert total_bans([*heads, head("ban4_24", None)]) is None


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_counters_of_an_unused_table() -> None:
    """Sets are reported by kind with their sizes, rules at zero, and no source is over the limit."""
    backend = NftablesBackend(FirewallPlan(added=(Limit(LimitMode.ENFORCE),)))
    backend.open()
    backend.apply([Add(ip_network("192.0.2.1"), 60), Add(ip_network("2001:db8::/64"), 60)])
    with NetlinkConnection(extended=True) as kernel:
        counters = read_counters(kernel)
        assert read_remembered(kernel, FLOODS) == []
    assert counters.sets["bans"] in (2, None)
    assert {"allow", "deny", "friends"} <= set(counters.sets)
    assert {(rule.packets, rule.bytes) for rule in counters.rules} == {(0, 0)}
    backend.close()
