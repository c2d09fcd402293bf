"""Trunks: the servers at which the PBX registers."""

from ipaddress import ip_address, ip_network

from tests.friends.world import (
    TRUNK,
    World,
    roster,
    trunk,
)

from ringfence.friends.registry import TRUNK_FOR
from ringfence.host.names import LONGEST, ResolvedNames

NAME = "sip.example"
HERE, NEXT, FIXED = "203.0.113.9", "203.0.113.8", "203.0.113.5"


def lead(world: World, address: str) -> None:
    """Let the DNS answer with this address of the trunk's name."""
    world.names._take(NAME, ResolvedNames(frozenset({ip_network(address)})), world.now)
    world.keeping.renew_trunks()


def test_the_addresses_of_trunks_are_friends(world: World) -> None:
    """Trunks' names are resolved, addresses used directly; a new answer adds, and old ones last a day."""
    world.keeping.on_roster(roster(trunks=[trunk("SIP.Example."), trunk(FIXED, "other"), trunk("[::1]")]))
    assert world.followed == {NAME}
    assert world.ties(FIXED) == {TRUNK: TRUNK_FOR}
    lead(world, HERE)
    assert world.ties(HERE) == {TRUNK: TRUNK_FOR}
    world.now += LONGEST
    lead(world, NEXT)

    assert world.ties(HERE) == {TRUNK: TRUNK_FOR - LONGEST}
    assert world.ties(NEXT) == {TRUNK: TRUNK_FOR}
    world.later(roster())
    assert world.followed == frozenset()


def test_trunks_outlast_ami(world: World) -> None:
    """While AMI is down, no roster comes, but the trunks of the last one stay friends."""
    world.keeping.on_roster(roster(trunks=[trunk(FIXED)]))
    for _ in range(30):
        world.wait(3_600.0)
    assert world.ties(FIXED) == {TRUNK: TRUNK_FOR}
    world.later(roster())
    world.wait(TRUNK_FOR)
    assert world.ties(FIXED) == {}


def test_trunks_outlast_the_dns(world: World) -> None:
    """While the DNS is silent, the addresses of its last answers stay friends."""
    world.keeping.on_roster(roster(trunks=[trunk(NAME)]))
    lead(world, HERE)
    for _ in range(30):
        world.wait(3_600.0)
    assert world.ties(HERE) == {TRUNK: TRUNK_FOR}


def test_an_address_ends_a_day_after_the_last_answer_with_it(world: World) -> None:
    """The trunk is renewed all the time, but not the address that its name has no longer."""
    world.keeping.on_roster(roster(trunks=[trunk(NAME)]))
    lead(world, HERE)
    for _ in range(round(TRUNK_FOR / LONGEST) - 1):
        world.wait(LONGEST)
        lead(world, NEXT)
    assert world.ties(HERE).keys() == {TRUNK}
    for _ in range(2):
        world.wait(LONGEST)
        lead(world, NEXT)
    assert world.ties(HERE) == {}
    assert world.ties(NEXT) == {TRUNK: TRUNK_FOR}


def test_the_trunks_of_an_asterisk_end_with_it(world: World) -> None:
    """If the configuration has an Asterisk no longer, its trunks are not renewed any more."""
    world.keeping.on_roster(roster(trunks=[trunk(NAME), trunk(FIXED)]))
    world.keeping.retain_trunks({"other"})
    assert world.followed == frozenset()
    world.wait(TRUNK_FOR)
    assert world.ties(FIXED) == {}


def test_an_address_that_the_dns_has_no_longer_can_be_forgotten(world: World) -> None:
    """It would stay for a day. One that the latest answer has becomes a friend again at once."""
    world.keeping.on_roster(roster(trunks=[trunk(NAME)]))
    for address in (HERE, NEXT):
        lead(world, address)
        world.now += LONGEST
    for address in (HERE, NEXT):
        assert world.keeping.forget(ip_address(address)) == 1
    world.wait(0.0)

    assert world.ties(HERE) == {}
    assert world.ties(NEXT) == {TRUNK: TRUNK_FOR}
