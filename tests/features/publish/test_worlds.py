"""The list for routers in random worlds of bans, friends and exempt networks, against a naive model."""

import asyncio
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st
from tests.support.clock import SetClock
from tests.support.kept import PHONE

from ringfence.detect.detector import Detector
from ringfence.detect.rules import RULES
from ringfence.features.publish.guard import NOBODY, Publisher
from ringfence.ledger import Record, key_of
from ringfence.values.attempt import AttemptCounts
from ringfence.values.ban import Ban, Origin, Scope
from ringfence.values.network import Address, Network, NetworkSet
from ringfence.values.secret import Secret

NOW = 1_000_000.0
FIRST = int(ip_address("192.0.2.0"))
SIZE = 32
"""The number of addresses of a world, so that networks overlap often."""

networks = st.builds(
    lambda number, length: ip_network((FIRST + number, length), strict=False),
    st.integers(0, SIZE - 1),
    st.sampled_from([27, 28, 30, 31, 32, 32, 32]),
)
addresses = st.integers(0, SIZE - 1).map(lambda number: ip_address(FIRST + number))
bans = st.builds(
    lambda network, seconds, origin, scope, proven: Ban(
        network,
        since=NOW - 60,
        expires=NOW + seconds,
        rule="guess",
        reason="",
        origin=origin,
        scope=scope,
        counts=AttemptCounts(5, proven),
    ),
    networks,
    st.sampled_from([-1.0, 60.0, float("inf")]),
    st.sampled_from([Origin.RULE, Origin.RULE, Origin.ADMIN, Origin.ADOPTED]),
    st.sampled_from(Scope),
    st.sampled_from([0, 4, 5]),
)


@frozen
class World:
    """Bans, and the addresses that must not be on a list."""

    bans: list[Ban]
    friends: set[Address]
    former: set[Address]
    exempt: list[Network]
    most: int

    def lines(self) -> list[str]:
        """Return the lines of the list that the publisher makes."""
        detector = Detector(RULES, exempt=NetworkSet(self.exempt))
        for address in self.friends:
            detector.friends.add(evolve(PHONE, address=address))
        for address in self.former:
            detector.friends.remember(evolve(PHONE, address=address, account=str(address)))
        for ban in self.bans:
            detector.bans.put(key_of(ban.network, ban.scope), Record.of(ban))
        common = SimpleNamespace(clock=SetClock(wall=lambda: NOW, mono=lambda: 0.0))
        side: Any = SimpleNamespace(common=common, detector=detector)
        publisher = Publisher(side, Secret("0123456789abcdef"), self.most)
        published = asyncio.run(publisher._list((4, 6)))
        assert published is not None
        text = published.text.decode()
        return text.removeprefix(NOBODY).split("\n")[:-1]

    def is_wanted(self, ban: Ban) -> bool:
        """Whether a ban is proven or an administrator's, lasts, and has no address that may not be listed."""
        proven = ban.origin is Origin.ADMIN or (
            ban.origin is Origin.RULE and ban.scope in {Scope.FULL, Scope.SIP} and ban.counts.proven > 0
        )
        spared = {*self.friends, *self.former, *(one for network in self.exempt for one in network)}
        return proven and ban.expires > NOW and spared.isdisjoint(ban.network)


worlds = st.builds(
    World,
    st.lists(bans, max_size=12),
    st.sets(addresses, max_size=2),
    st.sets(addresses, max_size=2),
    st.lists(networks, max_size=2),
    st.sampled_from([2, 100]),
)


@given(worlds)
def test_a_list_has_each_banned_address_once_and_nobody_else(world: World) -> None:
    """The list covers what the wanted bans cover, each address once; a full list covers a part of it."""
    latest = {(ban.network, ban.scope): ban for ban in world.bans}.values()
    wanted = {address for ban in latest if world.is_wanted(ban) for address in ban.network}
    listed = [address for line in world.lines() for address in ip_network(line)]

    assert len(listed) == len({*listed})
    assert {*listed} <= wanted
    if world.most > len(world.bans):
        assert {*listed} == wanted
    assert len(world.lines()) <= world.most
