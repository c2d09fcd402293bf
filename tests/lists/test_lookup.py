"""The entries that contain an address: directly, and through names and regions."""

from ipaddress import ip_network

import pytest
from tests.lists.world import KnownRegions

from ringfence.lists.entries import CONFIGURATION
from ringfence.lists.manager import holders
from ringfence.values.entry import ListEntry, ListKind

ANSWERS = {"sip.carrier.example": frozenset({ip_network("192.0.2.9"), ip_network("2001:db8::9")})}
REGIONS = KnownRegions({"country DE": ["198.51.100.0/25"]})


def held(value: str, asked: str, origin: str = "command") -> str:
    """Return the network by which an entry contains ``asked``, or "" if it does not."""
    entry = ListEntry(ListKind.ALLOW, value, "", 0.0, origin=origin)
    found = [str(one.network) for one in holders(ip_network(asked), [entry], ANSWERS, REGIONS)]
    return "".join(found)


@pytest.mark.parametrize(
    ("value", "asked", "by"),
    [
        ("192.0.2.0/24", "192.0.2.7", "192.0.2.0/24"),
        ("192.0.2.0/24", "192.0.2.0/25", "192.0.2.0/24"),
        ("192.0.2.0/24", "192.0.0.0/16", ""),
        ("192.0.2.7", "192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.7", "2001:db8::7", ""),
        ("2001:db8::/32", "2001:db8::7", "2001:db8::/32"),
        ("sip.carrier.example", "192.0.2.9", "192.0.2.9/32"),
        ("sip.carrier.example", "2001:db8::9", "2001:db8::9/128"),
        ("sip.carrier.example", "192.0.2.8", ""),
        ("other.example", "192.0.2.9", ""),
        ("country DE", "198.51.100.7", "198.51.100.0/25"),
        ("country DE", "198.51.100.200", ""),
        ("what is this", "192.0.2.9", ""),
    ],
)
def test_an_entry_contains_the_networks_within_it(value: str, asked: str, by: str) -> None:
    """A network contains it directly, a name through its addresses, a country through the databases."""
    assert held(value, asked) == by
    assert held(value, asked, CONFIGURATION) == by
