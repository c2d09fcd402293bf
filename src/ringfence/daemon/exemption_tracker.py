"""Follows this host's networks and the DNS, and updates the lists, the friends and the exempt networks.

The *protected networks* are those that this host needs: its own addresses, gateways and resolvers, for
example. They are exempt from bans.
"""

import asyncio
from collections.abc import Mapping

from ringfence.bans.enforcer import Enforcer
from ringfence.bans.exemptions import ITSELF, Exempt
from ringfence.daemon.kernel_lists import KernelLists
from ringfence.daemon.protected_networks import ProtectedNetworks
from ringfence.firewall.contract import NetworkList
from ringfence.friends.registry import FriendRegistry
from ringfence.host.names import Names
from ringfence.lists.compose import ListNetworks
from ringfence.lists.manager import Lists
from ringfence.model import Network
from ringfence.networks import NetworkSet
from ringfence.store.database import Store


class ExemptionTracker:
    """Exempts the networks of the allow list and the protected networks, and follows their changes."""

    def __init__(self, protected: ProtectedNetworks, kernel_lists: KernelLists, enforcer: Enforcer) -> None:
        self._protected = protected
        self._kernel_lists = kernel_lists
        self._enforcer = enforcer

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
            self._enforcer.fill(NetworkList.ALLOW, NetworkList.DENY, NetworkList.FETCHED)

    def on_lists_changed(self, networks: ListNetworks) -> None:
        """Use the networks of changed lists: exempt the allowed ones, and write the lists to the kernel."""
        self._kernel_lists.networks = networks
        self.apply()
        if self._enforcer.enforcing:
            self._enforcer.fill(*self._kernel_lists.stale())


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

    def read(self) -> None:
        """Read the protected networks, the lists and the friends, at the start.

        Do not call this while an event loop runs, because a library that it uses starts one.
        """
        self._protected.read()
        self._lists.protect(self._protected.reasons)
        self._lists.on_resolved(self._names.answers)
        self._friends.on_resolved(self._names.answers)
        self._exemptions.on_lists_changed(self._lists.load())
        self._store.best_effort.read(self._friends.load, None)

    async def run(self) -> None:
        """Follow changes of the protected networks and of host names until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._protected.run(self.on_protected))
            group.create_task(self._names.run(self.on_resolved))

    def on_protected(self) -> None:
        """Pass changed protected networks on to the lists and the exemptions."""
        self._lists.protect(self._protected.reasons)
        self._exemptions.apply()

    def on_resolved(self, answers: Mapping[str, frozenset[Network]]) -> None:
        """Pass new addresses of host names on to the lists and the friends, and queue them for the database.

        ``answers`` has the networks of each host name.
        """
        self._lists.on_resolved(answers)
        self._friends.on_resolved(answers)
        self._store.names.save(answers)
