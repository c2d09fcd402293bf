"""The three lists of networks in the kernel (allowed, denied, friends): what they must contain.

This module also updates the list of friends. ``bans/filling.py`` writes all lists into the kernel.
"""

import asyncio
from collections.abc import Collection, Iterable
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

WRITE_EVERY = 0.1
"""Minimum seconds between two updates of the list of friends in the kernel."""

LOOK_EVERY = 1.0
"""Seconds between two checks for friends that lose or regain their exemption from the limiter."""


class KernelLists:
    """The wanted contents of the kernel's three lists: allowed networks, denied networks, and friends.

    ``networks`` has the networks of the allow list and of the deny list; the first ``most`` of each are used.
    ``networks.guarded`` are the networks that this host needs. They go to the list of allowed networks, too,
    except those that an administrator has banned by force (``ringfence ban --force``). ``passing`` has the
    friends.
    """

    def __init__(self, passing: Passing, ledger: Ledger, clock: Clock, most: int) -> None:
        self.networks = ListNetworks()
        self.most = most
        self.written_deny: object = None
        """The deny list that was last written into the kernel, for comparison."""
        self._passing = passing
        self._ledger = ledger
        self._clock = clock

    def contents(self, target: NetworkList) -> Iterable[Network]:
        """Return the networks that the list ``target`` must contain. Another thread may iterate over them."""
        if target is NetworkList.DENY:
            self.written_deny = self.networks.deny
            return islice(self.networks.deny, self.most)
        return self._allowed() if target is NetworkList.ALLOW else self._passing.networks

    def _allowed(self) -> Iterable[Network]:
        now = self._clock.wall()
        # The ledger is read now, in this thread. Another thread may iterate over the rest.
        guarded = [one for one in self.networks.guarded if not self._is_banned_by_force(one, now)]
        allowed = islice(self.networks.allow, self.most)
        return chain(guarded, chain.from_iterable(map(without_reserved, allowed)))

    def _is_banned_by_force(self, network: Network, now: float) -> bool:
        records = map(self._ledger.get, self._ledger.covering(network, Scope.FULL, now))
        return any(record is not None and record.forced for record in records)


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
                self._enforcer.fill(NetworkList.FRIENDS)
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
