"""Which entries hold an address: by themselves, by where they lead, and among very many."""

from ipaddress import ip_network

import pytest

from ringfence.lists.entries import CONFIGURATION
from ringfence.lists.holding import holders, texts_around
from ringfence.model import ListEntry, Network, Side

ANSWERS = {"sip.carrier.example": frozenset({ip_network("192.0.2.9"), ip_network("2001:db8::9")})}


def around(place: str, network: Network) -> Network | None:
    """Say where DE lies."""
    germany = ip_network("198.51.100.0/25")
    inside = network.version == 4 and network.subnet_of(germany)  # type: ignore[arg-type] # of one version
    return germany if place == "country DE" and inside else None


def held(what: str, asked: str, origin: str = "command") -> str:
    """Give by which network an entry holds what is asked for; "" where it does not."""
    entry = ListEntry(Side.ALLOW, what, "", 0.0, origin=origin)
    found = [str(one.network) for one in holders(ip_network(asked), [entry], ANSWERS, around)]
    return "".join(found)


@pytest.mark.parametrize(
    ("what", "asked", "by"),
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
def test_an_entry_holds_what_lies_in_it(what: str, asked: str, by: str) -> None:
    """A network by itself, a name by where it leads, a country by what the databases know."""
    assert held(what, asked) == by
    assert held(what, asked, CONFIGURATION) == by


def test_an_imported_entry_is_a_network_alone() -> None:
    """What stands in an imported list is read as no name and no country."""
    assert held("192.0.2.0/24", "192.0.2.7", "/list") == "192.0.2.0/24"
    assert held("country DE", "198.51.100.7", "/list") == ""


def test_the_texts_by_which_an_address_may_be_on_a_list() -> None:
    """Every network around it, as entries write them, and no more than that."""
    texts = texts_around(ip_network("192.0.2.7"))

    assert len(texts) == 32
    assert texts[-1] == "192.0.2.7"
    assert {"128.0.0.0/1", "192.0.0.0/16", "192.0.2.0/24"} < set(texts)
    assert len(texts_around(ip_network("2001:db8::/64"))) == 64
    assert texts_around(ip_network("2001:db8::7"))[-1] == "2001:db8::7"
