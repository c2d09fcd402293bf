"""The sets: made, adopted, and made again."""

from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.firewall.contract import (
    Add,
    Element,
    Opened,
)
from ringfence.firewall.ipset.backend import IpsetBackend, make_sets
from ringfence.netlink.connection import NetlinkConnection

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


def test_elements_are_adopted() -> None:
    """A new backend adopts the sets of a killed one, and reads foreign elements."""
    first = IpsetBackend()
    first.open()
    first.apply([Add(ip_network("192.0.2.1"), 600), Add(ip_network("2001:db8::/64"), 600)])
    first.close()
    run("ipset", "add", "ringfence4", "198.51.100.0/24")

    second = IpsetBackend()
    assert second.open() == Opened(families={4: None, 6: None}, adopted=3)
    listed = {str(element.network): element for element in second.list()}
    second.close()

    assert set(listed) == {"192.0.2.1/32", "198.51.100.0/24", "2001:db8::/64"}
    assert listed["198.51.100.0/24"] == Element(ip_network("198.51.100.0/24"), float("inf"), 0, 0)


def test_damaged_sets_are_made_again_and_counted(backend: IpsetBackend) -> None:
    """Missing sets are made and swapped ones replaced; while the firewall is closed these are an error."""
    run("nft", "flush", "ruleset")
    run("ipset", "flush")
    with NetlinkConnection() as kernel:
        whole = make_sets(kernel, (4, 6), 1_000, {}, first=False)
        assert (whole.adopted, whole.damaged) == (0, False)
        run("ipset", "destroy", "ringfence-deny4")
        made = make_sets(kernel, (4, 6), 1_000, whole.lists, first=False)
        assert (made.damaged, dict(made.lists)) == (True, {})
        run("ipset", "create", "theirs", "hash:net", "timeout", "0")
        run("ipset", "swap", "theirs", "ringfence4")
        with pytest.raises(FirewallError, match="ringfence4 exists and has no counters"):
            make_sets(kernel, (4, 6), 1_000, whole.lists, first=True)
        assert make_sets(kernel, (4, 6), 1_000, whole.lists, first=False).damaged
        assert not make_sets(kernel, (4, 6), 1_000, whole.lists, first=True).damaged
