"""Trunks: the servers at which the PBX registers."""

from tests.friends.world import (
    TRUNK,
    World,
    leads,
    roster,
    trunk,
)

from ringfence.friends.registry import TRUNK_FOR

PHONE, OTHER = "192.0.2.7", "192.0.2.8"


def test_the_addresses_of_trunks_are_friends(world: World) -> None:
    """Trunks' names are resolved, addresses used directly; a new answer adds, and old ones last a day."""
    world.keeping.on_roster(
        roster(trunks=[trunk("SIP.Example."), trunk("203.0.113.5", "other"), trunk("[::1]")])
    )
    assert world.followed == {"sip.example"}
    assert world.ties("203.0.113.5") == {TRUNK: TRUNK_FOR}
    world.keeping.on_resolved(leads(sip_example=["203.0.113.9"], elsewhere=["203.0.113.10"]))
    assert world.ties("203.0.113.9") == {TRUNK: TRUNK_FOR}
    world.now += 600
    world.keeping.on_resolved(leads(sip_example=["203.0.113.8"]))

    assert world.ties("203.0.113.9") == {TRUNK: TRUNK_FOR - 600}
    assert world.ties("203.0.113.8") == {TRUNK: TRUNK_FOR}
    assert world.ties("203.0.113.10") == {}
    world.later(roster())
    assert world.followed == frozenset()
