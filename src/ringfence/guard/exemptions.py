"""The networks of the kernel's lists (allowed, denied, friends), and those that are never banned.

Each part here follows changes: of the friends, the allow and deny lists, this host's networks, and the DNS.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import suppress
from ipaddress import ip_network
from itertools import chain, islice

import structlog

from ringfence.ban_facts import Over, Placed, Restored
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.exempt import ITSELF, PROBED, Exempt, without_reserved
from ringfence.bans.filling import ListContents
from ringfence.bans.unban import unban_friends
from ringfence.clock import Clock, until_tick
from ringfence.detect.detector import Detector
from ringfence.errors import HostError
from ringfence.firewall import network_lists
from ringfence.firewall.network_lists import NetworkList
from ringfence.friends.registry import FriendRegistry, Passing
from ringfence.host.names import Names
from ringfence.host.protected import ProtectedNetworks, Reasons, follow_protected
from ringfence.host.routes import follow_addresses
from ringfence.ledger import Ledger, network_of
from ringfence.lists.compose import ListNetworks
from ringfence.lists.manager import Lists
from ringfence.store.database import Store
from ringfence.values.ban import Scope
from ringfence.values.friend import FriendReason
from ringfence.values.network import (
    Address,
    Network,
    NetworkSet,
    contains,
    overlap,
    sender_of,
    without_all,
)

# -- the lists of networks in the kernel (allowed, denied, friends): what they must contain
#
# This module also updates the list of friends. ``bans/filling.py`` writes all lists into the kernel.


WRITE_EVERY = 0.1
"""Minimum seconds between two updates of the list of friends in the kernel."""

LOOK_EVERY = 1.0
"""Seconds between two checks whether the kernel must copy the packets of other friends than before."""


_FRIENDS = network_lists.FRIENDS, network_lists.UNSHIELDED, network_lists.OBSERVED


class KernelLists(ListContents):
    """The wanted contents of the kernel's lists: allowed and denied networks, those of features, and friends.

    ``networks`` has the networks of all lists but those of friends. The first ``most`` of each list that
    ``network_lists.limited`` returns are used. ``networks.guarded`` are the networks that this host needs.
    They go to the list of allowed networks, too, without the parts that an administrator has banned by force
    (``ringfence ban --force``), and without the addresses of the probe.

    ``passing`` has the friends. Those that it leaves out of the kernel's list of friends go to the list of
    unshielded friends. Unprovable guesses come from their addresses, so the kernel copies their SIP packets
    to ringfence. It drops no more of these packets than of those of other friends. ``admitted`` are the
    networks that an administrator admits for a time.
    """

    def __init__(self, passing: Passing, ledger: Ledger, most: int) -> None:
        self.networks = ListNetworks()
        self.most = most
        self.observed: Collection[Address] = frozenset()
        """The friends (known phones and trunks) whose SIP packets the kernel copies to ringfence."""
        self.admitted: frozenset[Network] = frozenset()
        self._written: dict[NetworkList, object] = {}
        self._passing = passing
        self._ledger = ledger

    def contents(self, target: NetworkList) -> Iterable[Network]:
        """Return the networks that the kernel's list ``target`` must have, for use by any thread.

        Call this only to write them: from now on :meth:`stale` takes them for those in the kernel.
        """
        making: dict[NetworkList, Callable[[], Iterable[Network]]] = {
            network_lists.ALLOW: self._allowed,
            network_lists.FRIENDS: lambda: self._passing.networks,
            network_lists.UNSHIELDED: lambda: tuple(self._passing.left_out),
            network_lists.OBSERVED: lambda: tuple(map(ip_network, self.observed)),
            network_lists.ADMITTED: lambda: self.admitted | self.around_friends,
        }
        self._written[target] = self._origin(target)
        return making[target]() if target in making else self._composed(target)

    def stale(self) -> list[NetworkList]:
        """Return the lists whose wanted networks differ from those written to the kernel.

        The allow list and the lists of friends are not among them.
        """
        compared = (one for one in network_lists.every() if one not in (network_lists.ALLOW, *_FRIENDS))
        return [one for one in compared if self._origin(one) != self._written.get(one)]

    @property
    def around_friends(self) -> frozenset[Network]:
        """The networks of all friends and former friends: an IPv4 address, or an IPv6 /64."""
        return self._passing.around

    def passes(self, network: Network) -> bool:
        """Whether ``network``, like friends, is exempt from block lists and denied regions."""
        first = network.network_address
        known = contains(sender_of(first), network) and self._passing.knows(first)
        return known or any(contains(one, network) for one in self.admitted)

    def _composed(self, target: NetworkList) -> Iterable[Network]:
        """Return the networks of the list ``target``, at most as many as the kernel's list may have.

        If no network is left out, return the stored object, because a copy would take memory.
        """
        networks = self.networks.of(target)
        all_used = target not in network_lists.limited() or len(networks) <= self.most
        return networks if all_used else islice(networks, self.most)

    def _origin(self, target: NetworkList) -> object:
        """Return a value that changes whenever the contents of the list ``target`` change."""
        if target is network_lists.ADMITTED:
            return self.admitted, self.around_friends
        return self.networks.of(target)

    def _allowed(self) -> Iterable[Network]:
        # The ledger is read now, in this thread. Another thread may iterate over the rest.
        forced = (network_of(key) for key, record in self._ledger.items() if record.forced)
        not_passing = [*PROBED, *(banned for banned, scope in forced if scope is Scope.FULL)]
        guarded = [
            part
            for one in self.networks.guarded
            for part in without_all(one, [banned for banned in not_passing if overlap(banned, one)])
        ]
        allowed = islice(self.networks.allow, self.most)
        return chain(guarded, chain.from_iterable(map(without_reserved, allowed)))


class KernelFriends:
    """Writes the friends into the kernel after each change, and removes bans that affect new friends.

    There may be many friends, and they may change often. So :meth:`run` pauses after each update for 20 times
    the processor time of the update. Time that the update waited does not count: the next friend must not
    wait longer because a long list was being written.
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
        self._renewed = False

    def select(self) -> bool:
        """Select the friends for the kernel's lists; return whether the selection changed.

        At most ``KernelLists.most`` friends are selected. Left out are the *unshielded* friends, from whose
        addresses unprovable guesses come: the kernel has a list of their own for them.
        """
        observed = self._observed()
        changes = observed != self._lists.observed
        self._lists.observed = observed
        return self._passing.refresh(self._lists.most, self._unshielded()) or changes

    def renew(self) -> None:
        """Treat all friends as new: :meth:`run` removes the bans of friends that were restored just now."""
        self._freed, self._renewed = (), True
        self._registry.changed.set()

    async def run(self) -> None:
        """Write changed friends into the kernel, and remove bans that affect new ones, until cancelled."""
        while True:
            await self._changed()
            began = time.thread_time()
            selected, stale = self.select(), self._lists.stale()
            if (selected or stale or self._renewed) and self._enforcer.enforcing:
                self._renewed = False
                # The stale lists are first: ADMITTED has a friend before and after any other list changes.
                self._enforcer.filler.fill(*stale, *_FRIENDS)
                new = set(self._passing.addresses) - set(self._freed)
                unban_friends(self._enforcer, new, {one for one in new if self._is_trunk(one)})
                self._freed = self._passing.addresses
            await asyncio.sleep(max(WRITE_EVERY, 20 * (time.thread_time() - began)))

    async def _changed(self) -> None:
        """Wait until the kernel's lists of friends must be written, because the friends have changed."""
        while not (
            self._registry.changed.is_set()
            or self._passing.is_stale(self._unshielded())
            or self._lists.observed != self._observed()
        ):
            with suppress(TimeoutError):
                async with asyncio.timeout(until_tick(LOOK_EVERY)):
                    await self._registry.changed.wait()
        self._registry.changed.clear()

    def _is_trunk(self, address: Address) -> bool:
        return any(one.reason is FriendReason.TRUNK for one in self._detector.friends.reasons(address))

    def _unshielded(self) -> Collection[Address]:
        return self._detector.unshielded(self._clock.mono())

    def _observed(self) -> Collection[Address]:
        return self._detector.observed(self._clock.mono())


# -- follows this host's networks and the DNS, and updates the lists, the friends and the exempt networks
#
# The *protected networks* are those that this host needs: its own addresses, gateways and resolvers, for
# example. They are exempt from bans.


SAVE_EVERY = 3_600.0
"""Seconds after which the addresses of host names are saved again, because their ages have changed."""


class ExemptionTracker:
    """Exempts the networks of the allow list and the protected networks, and follows their changes.

    It listens to facts, because the kernel's allow list must lack those parts of the protected networks that
    are banned by force (``ringfence ban --force``).
    """

    def __init__(self, protected: ProtectedNetworks, kernel_lists: KernelLists, enforcer: Enforcer) -> None:
        self._protected = protected
        self._kernel_lists = kernel_lists
        self._enforcer = enforcer
        self._forced: set[tuple[Network, Scope]] = set()  # the bans by force

    def on_fact(self, fact: object) -> None:
        """Write the kernel's allow list if a forced ban of a network that this host needs begins or ends."""
        changed = set[tuple[Network, Scope]]()
        if isinstance(fact, Placed | Restored):
            changed = {(ban.network, ban.scope) for ban in fact.bans if ban.forced}
            self._forced |= changed
        elif isinstance(fact, Over):
            changed = {(fact.network, fact.scope)} & self._forced
            self._forced -= changed
        guarded = self._kernel_lists.networks.guarded
        if any(overlap(banned, one) for banned, _ in changed for one in guarded) and self._enforcer.enforcing:
            self._enforcer.filler.fill(network_lists.ALLOW)

    def apply(self, *, restored: bool = False) -> None:
        """Exempt the networks that are allowed or protected now, and remove the bans of newly exempt ones.

        ``restored``: bans were just restored from the database, so remove the bans of all exempt networks.
        """
        allowed = NetworkSet(self._kernel_lists.networks.allow)
        self._enforcer.allow(Exempt(allowed, {**ITSELF, **self._protected.reasons}), restored=restored)

    def set_most(self, most: int) -> None:
        """Set the maximum number of networks of each list in the kernel; write the lists if it changed."""
        before, self._kernel_lists.most = self._kernel_lists.most, most
        if most != before and self._enforcer.enforcing:
            self._enforcer.filler.fill(*network_lists.limited())

    def on_lists_changed(self, networks: ListNetworks) -> None:
        """Use the networks of changed lists: exempt the allowed ones, and write the lists to the kernel."""
        self._kernel_lists.networks = networks
        self.apply()
        if self._enforcer.enforcing:
            self._enforcer.filler.fill(*self._kernel_lists.stale())


class NetworkFollower:
    """Passes the protected networks and the addresses of host names on to other parts of the daemon.

    These parts are the lists, the friends and the exemptions. Lists and friends may contain host names.
    """

    def __init__(
        self,
        protected: ProtectedNetworks,
        names: Names,
        lists: Lists,
        friends: FriendRegistry,
        exemptions: ExemptionTracker,
        store: Store,
    ) -> None:
        self._protected = protected
        self._names = names
        self._lists = lists
        self._friends = friends
        self._exemptions = exemptions
        self._store = store
        self._log = structlog.get_logger()

    def read(self) -> None:
        """Read the protected networks, the lists and the friends, at the start.

        Do not call this while an event loop runs, because a library that it uses starts one.
        """
        self._protected.read()
        self._lists.protect(self._protected.reasons)
        self._lists.on_resolved(self._names.answers)
        self._exemptions.on_lists_changed(self._lists.load())
        self._store.best_effort.read(self._friends.load, None)

    async def run(self) -> None:
        """Follow changes of the protected networks and of host names until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_addresses())
            for part, following in follow_protected().items():
                group.create_task(self._follow_part(part, following))
            group.create_task(self._names.run())
            group.create_task(self._follow_names())

    async def _follow_addresses(self) -> None:
        async for own in follow_addresses():
            if self._protected.set_own(own):
                self._log.info("host.addresses", own=sorted(map(str, self._protected.own_addresses)))
                self.on_protected()

    async def _follow_part(self, part: str, following: AsyncIterator[Reasons | HostError]) -> None:
        async for found in following:
            if self._protected.set_part(part, found):
                self.on_protected()

    async def _follow_names(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(until_tick(SAVE_EVERY)):
                    await self._names.changed.wait()
            self._names.changed.clear()
            self.on_resolved()

    def on_protected(self) -> None:
        """Pass changed protected networks on to the lists and the exemptions."""
        self._lists.protect(self._protected.reasons)
        self._exemptions.apply()

    def on_resolved(self) -> None:
        """Pass the addresses of host names on to the lists and the friends, and save them."""
        self._lists.on_resolved(self._names.answers)
        self._friends.renew_trunks()
        self._store.names.save(self._names.saved)
