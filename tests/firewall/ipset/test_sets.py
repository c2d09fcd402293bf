"""Names and properties of the sets."""

from ipaddress import ip_network

from attrs import evolve

from ringfence.firewall import network_lists
from ringfence.firewall.ipset.messages import IpsetHeader
from ringfence.firewall.ipset.sets import (
    ban_set_name,
    ban_set_names,
    list_set_name,
    mismatch,
    own_set_names,
    set_specs,
    temporary_name,
)
from ringfence.values.ban import Scope

HEAD = IpsetHeader("ringfence4", "hash:net", 4, timeout=True, counters=True, elements=0, references=0)


def test_the_previous_releases_sets_keep_their_names() -> None:
    """The sets of full bans keep the names of the previous release, so an installation is adopted."""
    assert [ban_set_name(4, Scope.FULL), ban_set_name(6, Scope.FULL)] == ["ringfence4", "ringfence6"]


def test_bans_that_exempt_friends_have_their_own_set() -> None:
    """A ban of a /64 or of a part of it has that set first; a /128 and IPv4 have one set."""
    assert ban_set_names(ip_network("2001:db8::/64"), Scope.FULL) == ["ringfence-64-6", "ringfence6"]
    assert ban_set_names(ip_network("2001:db8::/127"), Scope.SIP_UDP) == [
        "ringfence-udp-64-6",
        "ringfence-udp6",
    ]
    for text, name in (
        ("2001:db8::1", "ringfence6"),
        ("2001:db8::/63", "ringfence6"),
        ("192.0.2.0/24", "ringfence4"),
    ):
        assert ban_set_names(ip_network(text), Scope.FULL) == [name]


def test_every_set_can_be_removed_by_name() -> None:
    """Every set that is made, also a temporary one, is removed by name; names have at most 31 letters."""
    names = own_set_names()

    assert {kind.name for version in (4, 6) for kind in set_specs(version)} < names
    assert {
        temporary_name(list_set_name(roll, version)) for roll in network_lists.every() for version in (4, 6)
    } < names
    assert max(map(len, names)) < 32


def test_own_sets_are_accepted_and_others_named() -> None:
    """A set of bans needs type, IP version, timeouts and counters; a network list may lack the latter two."""
    full, _sip, _udp, _tcp, allow, *_ = set_specs(4)  # IPv4 has no set of bans that spare friends
    assert [mismatch(HEAD, full), mismatch(HEAD, allow)] == [None, None]
    assert mismatch(evolve(HEAD, counters=False, timeout=False), allow) is None
    for head, message in (
        (evolve(HEAD, version=6), "is a hash:net for IPv6 and not a hash:net for IPv4"),
        (evolve(HEAD, counters=False), "has no counters"),
        (evolve(HEAD, timeout=False), "has no timeouts"),
    ):
        assert mismatch(head, full) == (
            f"set ringfence4 exists and {message}; fix: `ringfence off`, or `ipset destroy ringfence4`"
        )
