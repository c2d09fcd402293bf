"""The lists of networks in the kernel (allowed, denied, fetched, friends): what they must contain.

This module also updates the list of friends. ``bans/filling.py`` writes all lists into the kernel.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice

from ringfence.bans.enforcer import Enforcer
from ringfence.bans.exemptions import without_reserved
from ringfence.bans.ledger import Ledger
from ringfence.bans.unban import unban_friends
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.firewall.contract import NetworkList
from ringfence.friends.passing import Passing
from ringfence.friends.registry import FriendRegistry
from ringfence.lists.compose import ListNetworks
from ringfence.model import Address, Network, Scope
from ringfence.networks import overlap, without

WRITE_EVERY = 0.1
"""Minimum seconds between two updates of the list of friends in the kernel."""

LOOK_EVERY = 1.0
"""Seconds between two checks for friends that lose or regain their exemption from the limiter."""


class KernelLists:
    """The wanted contents of the kernel's lists: allowed, denied and fetched networks, and friends.

    ``networks`` has the networks of the allow list and of the deny list; the first ``most`` of each set are
    used. ``networks.guarded`` are the networks that this host needs. They go to the list of allowed networks,
    too, except those that an administrator has banned by force (``ringfence ban --force``). ``passing`` has
    the friends. Those that it leaves out of the kernel's list of friends go to that of unshielded friends,
    and are taken out of the fetched networks: they lose the exemption from the limiter, but they still have
    no ration, and pass every fetched list.
    """

    def __init__(self, passing: Passing, ledger: Ledger, clock: Clock, most: int) -> None:
        self.networks = ListNetworks()
        self.most = most
        self._written: dict[NetworkList, object] = {}
        self._passing = passing
        self._ledger = ledger
        self._clock = clock

    def contents(self, target: NetworkList) -> Iterable[Network]:
        """Return the networks that the list ``target`` must contain. Another thread may iterate over them."""
        if target is NetworkList.ALLOW:
            return self._allowed()
        if target is NetworkList.FRIENDS:
            return self._passing.networks
        if target is NetworkList.UNSHIELDED:
            return tuple(self._passing.left_out)
        self._written[target] = self._origin(target)
        if target is NetworkList.DENY:
            return islice(self.networks.deny, self.most)
        return _without_holes(islice(self.networks.fetched, self.most), self._holes())

    def stale(self) -> list[NetworkList]:
        """Return the lists of denied and of fetched networks, if they changed since they were written."""
        both = (NetworkList.DENY, NetworkList.FETCHED)
        return [one for one in both if one not in self._written or self._origin(one) != self._written[one]]

    def _origin(self, target: NetworkList) -> object:
        """Return everything from which the contents of a list are made."""
        if target is NetworkList.DENY:
            return self.networks.deny
        return self.networks.fetched, self._holes()

    def _holes(self) -> dict[Network, list[Network]]:
        """Return the friends that are left out of the list of friends, by the fetched network around them."""
        holes: dict[Network, list[Network]] = {}
        for friend in self._passing.left_out:
            around = self.networks.fetched.containing(friend)
            if around is not None:
                holes.setdefault(around, []).append(friend)
        return holes

    def _allowed(self) -> Iterable[Network]:
        now = self._clock.wall()
        # The ledger is read now, in this thread. Another thread may iterate over the rest.
        guarded = [one for one in self.networks.guarded if not self._is_banned_by_force(one, now)]
        allowed = islice(self.networks.allow, self.most)
        return chain(guarded, chain.from_iterable(map(without_reserved, allowed)))

    def _is_banned_by_force(self, network: Network, now: float) -> bool:
        records = map(self._ledger.get, self._ledger.covering(network, Scope.FULL, now))
        return any(record is not None and record.forced for record in records)


def _without_holes(
    networks: Iterable[Network], holes: Mapping[Network, Sequence[Network]]
) -> Iterator[Network]:
    """Yield the parts of ``networks`` outside the ``holes``, which are given by the network around them."""
    for network in networks:
        parts = [network]
        for hole in holes.get(network, ()):
            pieces = (without(part, hole) if overlap(part, hole) else (part,) for part in parts)
            parts = [*chain.from_iterable(pieces)]
        yield from parts


class KernelFriends:
    """Writes the friends into the kernel after each change, and removes bans that affect new friends.

    There may be many friends, and they may change often. So :meth:`run` pauses after each update for 20 times
    as long as the update took.
    """

    def __init__(
        self,
        registry: FriendRegistry,
        passing: Passing,
        lists: KernelLists,
        enforcer: Enforcer,
        detector: Detector,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._passing = passing
        self._lists = lists
        self._enforcer = enforcer
        self._detector = detector
        self._clock = clock
        self._freed: Collection[Address] = ()  # the friends that are no longer new: their bans were removed

    def select(self) -> bool:
        """Select the friends for the kernel's list; return whether the selection changed.

        At most ``KernelLists.most`` friends are selected. The list exempts friends from the limiter. Left out
        are the friends that the limiter must not exempt now (:meth:`Detector.unshielded`).
        """
        return self._passing.look(self._lists.most, self._unshielded())

    def renew(self) -> None:
        """Treat all friends as new at the next update, so that restored bans of friends are removed."""
        self._freed = ()

    async def run(self) -> None:
        """Write changed friends into the kernel, and remove bans that affect new ones, until cancelled."""
        while True:
            await self._changed()
            began = self._clock.mono()
            if self.select() and self._enforcer.enforcing:
                self._enforcer.fill(*self._lists.stale(), NetworkList.FRIENDS, NetworkList.UNSHIELDED)
                unban_friends(self._enforcer, set(self._passing.addresses) - set(self._freed))
                self._freed = self._passing.addresses
            await asyncio.sleep(max(WRITE_EVERY, 20 * (self._clock.mono() - began)))

    async def _changed(self) -> None:
        """Wait until a friend is added or removed, or loses or regains its exemption from the limiter."""
        while not self._registry.changed.is_set() and not self._passing.is_stale(self._unshielded()):
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._registry.changed.wait()
        self._registry.changed.clear()

    def _unshielded(self) -> Collection[Address]:
        return self._detector.unshielded(self._clock.mono())
