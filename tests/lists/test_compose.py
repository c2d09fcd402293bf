"""From list entries to the networks that the kernel gets."""

from collections.abc import Mapping
from ipaddress import ip_network

import pytest
from tests.lists.world import KnownRegions

from ringfence.alarm_codes import AlarmCode
from ringfence.firewall.network_lists import ALLOW, EXTERNAL
from ringfence.lists.compose import ComposedLists, ListNetworks, compose
from ringfence.lists.entries import COMMAND, CONFIGURATION
from ringfence.lists.prefixes import Prefixes
from ringfence.values.entry import ListEntry, ListKind

GATEWAY = ip_network("192.0.2.1")
PROTECTED = {GATEWAY: "the default gateway"}


def entry(
    kind: ListKind, value: str, origin: str = COMMAND, until: float | None = None, *, forced: bool = False
) -> ListEntry:
    """Return an entry."""
    return ListEntry(kind, value, "", 1.0, until, origin, forced)


def allow(value: str, origin: str = COMMAND) -> ListEntry:
    """Return an entry of the allow list."""
    return entry(ListKind.ALLOW, value, origin)


def deny(value: str, origin: str = COMMAND) -> ListEntry:
    """Return an entry of the deny list."""
    return entry(ListKind.DENY, value, origin)


def composed(*entries: ListEntry, known: Mapping[str, list[str]] | None = None) -> ComposedLists:
    """Compose entries; ``known`` maps names and regions to their networks."""
    known = known or {}
    answers = {name: frozenset(map(ip_network, texts)) for name, texts in known.items() if "." in name}
    return compose(
        entries,
        answers,
        KnownRegions(known),
        PROTECTED,
    )


def texts(networks: Prefixes) -> list[str]:
    """Return networks as texts."""
    return [str(network) for network in networks]


def test_empty_lists_contain_only_protected_networks() -> None:
    """Without entries, both lists are empty and only the protected addresses are guarded."""
    assert composed() == ComposedLists(ListNetworks(guarded=frozenset({GATEWAY})))


def test_entries_of_every_origin_and_kind_are_merged() -> None:
    """Networks, names and regions of the configuration and of commands are merged for each list."""
    found = composed(
        allow("198.51.100.0/25", CONFIGURATION),
        allow("198.51.100.128/25"),
        allow("sip.carrier.example"),
        allow("country DE", CONFIGURATION),
        deny("2001:db8::/32"),
        deny("AS64511"),
        known={
            "sip.carrier.example": ["192.0.2.9", "2001:db8:1::1"],
            "country DE": ["11.0.0.0/9"],
            "AS64511": ["203.0.113.0/28"],
        },
    )

    assert texts(found.networks.allow) == [
        "11.0.0.0/9",
        "192.0.2.9/32",
        "198.51.100.0/24",
        "2001:db8:1::1/128",
    ]
    assert texts(found.networks.deny) == ["2001:db8::/32"]
    assert texts(found.networks.of(EXTERNAL)) == ["203.0.113.0/28"]
    assert found.hosts == {"sip.carrier.example"}
    assert found.regions == {"country DE": 1, "AS64511": 1}
    assert found.alarms == ()


@pytest.mark.parametrize(
    ("networks", "subjects"),
    [
        (["11.0.0.0/8"], []),
        (["11.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.1.0/24", "fc00::/7"], []),
        (["11.0.0.0/8", "192.0.2.1"], ["IPv4"]),
        ([f"{number}.0.0.0/9" for number in (20, 22, 24)], ["IPv4"]),
        (["0.0.0.0/1", "2000::/3"], ["IPv4", "IPv6"]),
        (["2001::/16"], []),
        (["2001::/16", "2600::1"], ["IPv6"]),
        (["10.0.0.0/7"], []),
        (["8.0.0.0/6"], ["IPv4"]),
    ],
)
def test_an_allow_list_of_much_of_the_internet_is_an_alarm(networks: list[str], subjects: list[str]) -> None:
    """More public addresses than an IPv4 /8 or an IPv6 /16 has are an alarm; private ones do not count."""
    found = composed(*(allow(network) for network in networks))

    assert [(alarm.code, alarm.subject) for alarm in found.alarms] == [
        (AlarmCode.LIST_ALLOWS_MUCH, subject) for subject in subjects
    ]


def test_allow_needs_no_subtraction() -> None:
    """An address on both lists stays on both, because the kernel checks the allow list first."""
    found = composed(allow("192.0.2.7"), deny("192.0.2.0/28"))

    assert texts(found.networks.allow) == ["192.0.2.7/32"]
    assert texts(found.networks.deny) == ["192.0.2.0/28"]


def test_an_unusable_entry_is_an_alarm() -> None:
    """An unknown region and an invalid entry are alarms, and the other entries apply."""
    found = composed(allow("country XX"), deny("rubbish!"), deny("no address"), deny("203.0.113.9"))

    assert texts(found.networks.deny) == ["203.0.113.9/32"]
    assert [(alarm.code, alarm.subject) for alarm in found.alarms] == [
        ("list.invalid_entry", "rubbish!"),
        ("list.invalid_entry", "no address"),
        ("list.unknown_region", "country XX"),
    ]
    assert found.networks.partial == {ALLOW}
    assert found.alarms[0].text.startswith("deny list: rubbish!")


def test_protected_networks_are_guarded_unless_denied_by_force() -> None:
    """A protected gateway is guarded from lists; an entry by hand is reported, and a forced one is obeyed."""
    by_chance = composed(deny("country DE"), known={"country DE": ["192.0.2.0/24"]})
    by_hand = composed(deny("192.0.2.0/24", CONFIGURATION))
    by_force = composed(entry(ListKind.DENY, "192.0.2.0/24", forced=True))

    assert by_chance.networks.guarded == {GATEWAY}
    assert by_chance.alarms == ()
    assert by_hand.networks.guarded == {GATEWAY}
    [alarm] = by_hand.alarms
    assert (alarm.code, alarm.subject) == ("list.not_denied", "192.0.2.0/24")
    assert alarm.text.startswith(
        "deny list: 192.0.2.0/24 contains 192.0.2.1, the default gateway, so it is not denied"
    )
    assert by_force.networks.guarded == frozenset()
    assert by_force.alarms == ()
    assert by_force.forced == (ip_network("192.0.2.0/24"),)


def test_the_first_end_is_known() -> None:
    """The earliest end of all entries is returned."""
    assert composed(allow("192.0.2.7")).ends is None
    assert composed(*(entry(ListKind.DENY, f"203.0.113.{n}", until=n) for n in (9, 5, 7))).ends == 5.0
