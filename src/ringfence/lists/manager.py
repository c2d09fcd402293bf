"""The lists of a running daemon, and their updates.

The lists change with the configuration, by commands, with the addresses of host names, and with the networks
that this host needs.

All networks are composed again after each change. With 100,000 imported networks that takes a second, so it
runs in a thread, and bans continue. Only the resulting networks are kept in memory, eight bytes each; the
entries are in the store.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import ParamSpec, TypeVar

from attrs import evolve, frozen

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.errors import RingfenceError, StoreError
from ringfence.lists.compose import (
    Answers,
    ComposedLists,
    Holder,
    ListNetworks,
    compose,
    guarded,
    holders,
    texts_around,
)
from ringfence.lists.entries import COMMAND, Configured
from ringfence.lists.geo import GeoDatabases
from ringfence.lists.prefixes import Prefixes
from ringfence.model import ListEntry, ListKind, Network
from ringfence.store.tables import EntryTable

P = ParamSpec("P")
T = TypeVar("T")

LOOK_EVERY = 60.0
"""Seconds between two checks of the databases' files. (The end of an entry has its own timer.)"""
RETRY_EVERY = 5.0
"""Seconds until an unreadable store is tried again."""


@frozen
class PresentLists:
    """The lists at one moment, and everything that they are made of.

    ``configured`` is the configuration, and ``composed`` the result. ``answers`` are the addresses of host
    names. ``protected`` are the networks that must stay reachable, each with its role. ``geo_alarms`` are the
    alarms about the databases of countries and autonomous systems.
    """

    configured: Configured
    composed: ComposedLists
    answers: Answers
    protected: Mapping[Network, str]
    geo_alarms: tuple[Alarm, ...]

    def by_hand(self, kind: ListKind) -> Prefixes:
        """Return the networks of one list; of the deny list, those that were denied by hand."""
        return self.composed.networks.allow if kind is ListKind.ALLOW else self.composed.networks.deny


class Lists:
    """The allow list and the deny list of a running daemon.

    ``changed`` is called in the event loop when the networks have changed, and gets the new ones. ``follow``
    is called with the host names whose addresses are needed; pass the addresses to :meth:`on_resolved`.
    ``now`` returns wall-clock seconds. Call :meth:`load` at the start, before there is an event loop. After
    that, :meth:`run` is a task of the daemon.
    """

    def __init__(
        self,
        table: EntryTable,
        configured: Configured,
        changed: Callable[[ListNetworks], None],
        *,
        now: Callable[[], float],
        follow: Callable[[frozenset[str]], None] = lambda _names: None,
    ) -> None:
        self._table = table
        self._configured = configured
        self._databases = GeoDatabases(configured.databases)
        self._changed = changed
        self._follow = follow
        self._now = now
        self._answers: Answers = {}
        self._protected: Mapping[Network, str] = {}
        self._composed = ComposedLists(ListNetworks())
        self._error = ""
        self._known = False
        self._stale = asyncio.Event()
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lists")

    @property
    def networks(self) -> ListNetworks:
        """The present networks of both lists."""
        return self._composed.networks

    @property
    def present(self) -> PresentLists:
        """The lists as they are now."""
        return PresentLists(
            self._configured,
            self._composed,
            self._answers,
            self._protected,
            tuple(self._databases.alarms),
        )

    @property
    def alarms(self) -> list[Alarm]:
        """The present alarms about the lists."""
        allow = self._alarms_of(ListKind.ALLOW, allow=len(self.networks.allow))
        hosts = (host for host in sorted(self._composed.hosts) if not self._answers.get(host))
        text = f"{ListKind.ALLOW} list: does not resolve yet"
        unresolved = (Alarm(AlarmCode.LIST_UNRESOLVED, host, text) for host in hosts)
        return [*self.deny_alarms, *allow, *unresolved]

    @property
    def deny_alarms(self) -> list[Alarm]:
        """The present alarms about the deny list, and those about both lists."""
        error = [Alarm(AlarmCode.LIST_UNREADABLE, "", self._error)] if self._error else []
        numbers = {"deny": len(self.networks.deny), "fetched": len(self.networks.fetched)}
        return [*self._databases.alarms, *error, *self._alarms_of(ListKind.DENY, **numbers)]

    def _alarms_of(self, kind: ListKind, **numbers: int) -> Iterator[Alarm]:
        """Yield the alarms about the entries of a list, and about the sizes of its sets in the kernel.

        ``numbers`` are the numbers of networks, by the name of the set.
        """
        yield from (alarm for about, alarm in self._composed.alarms if about is kind)
        for name, number in numbers.items():
            if number > self._configured.most:
                force = f"of which the first {self._configured.most} are in force: raise [firewall] max_bans"
                yield Alarm(AlarmCode.LIST_FULL, f"{name} list", f"{number} networks, {force}")

    def load(self) -> ListNetworks:
        """Compose the lists now, in this thread, and return the networks; ``changed`` is not called.

        If the store cannot be read, only the configured entries are in force, and :meth:`run` tries again.
        """
        try:
            self._composed = self._compose()
        except StoreError as error:
            self._error = f"only the configured entries of the lists are in force: {error}"
            entries, answers = iter(self._configured.entries), self._answers
            self._composed = compose(entries, answers, self._databases.networks, self._protected)
        self._known = True
        self._follow(self._composed.hosts)
        return self.networks

    def configure(self, configured: Configured) -> None:
        """Apply a new configuration."""
        if configured.databases != self._configured.databases:
            self._databases = GeoDatabases(configured.databases)
        self._configured = configured
        self._stale.set()

    def on_resolved(self, answers: Answers) -> None:
        """Set the present addresses of the host names.

        Before :meth:`load`, this may be called with the addresses that the last run of the daemon knew.
        """
        self._answers = dict(answers)
        self._stale.set()

    def protect(self, protected: Mapping[Network, str]) -> None:
        """Set the networks that must stay reachable, each with its role.

        If :meth:`load` was called, they are in force when this returns.
        """
        if protected == self._protected:
            return
        self._protected = dict(protected)
        # run() then composes the lists and their alarms again, because an alarm may name a protected network.
        self._stale.set()
        if self._known:
            rolls = evolve(self.networks, guarded=guarded(self._protected, self._composed.forced))
            self._apply(evolve(self._composed, networks=rolls))

    async def run(self) -> None:
        """Compose the lists again after each change, until cancelled.

        Changes are a new configuration, new addresses of host names, new protected networks, the end of an
        entry, and a changed file of a database. If the store could not be read, try again.
        """
        while True:
            try:
                async with asyncio.timeout(self._pause()):
                    await self._stale.wait()
            except TimeoutError:
                ends = self._composed.ends
                ended = ends is not None and ends <= self._now()
                if not ended and not self._error and not await self.in_thread(self._databases.changed):
                    continue
            await self.refresh()

    async def refresh(self) -> None:
        """Compose the lists again and apply the changes.

        If the store cannot be read, the lists stay as they are.
        """
        async with self._turn:
            self._stale.clear()
            try:
                composed = await self.in_thread(self._compose)
                self._error = ""
            except RingfenceError as error:
                self._error = f"the lists stay as they are: {error}"
                return
            # The protected networks may have changed during the composition.
            rolls = evolve(composed.networks, guarded=guarded(self._protected, composed.forced))
            self._apply(evolve(composed, networks=rolls))

    async def in_thread(self, action: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run ``action`` in the one thread of the lists, and return its result.

        Several threads would use more memory.
        """
        call = partial(action, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _pause(self) -> float:
        if self._error:
            return RETRY_EVERY
        if self._composed.ends is None:
            return LOOK_EVERY
        return min(LOOK_EVERY, max(0.0, self._composed.ends - self._now()) + 0.01)

    def _apply(self, composed: ComposedLists) -> None:
        before, self._composed, self._known = self._composed, composed, True
        if composed.ends != before.ends:
            self._stale.set()  # so run() waits for the new earliest end of an entry
        if composed.hosts != before.hosts:
            self._follow(composed.hosts)
        if composed.networks != before.networks:
            self._changed(composed.networks)

    def _compose(self) -> ComposedLists:
        now = self._now()
        return compose(self.entries(now), self._answers, self._databases.networks, self._protected)

    def entries(self, now: float) -> Iterator[ListEntry]:
        """Yield the configured entries, then the entries of the store that have not ended at ``now``."""
        return chain(self._configured.entries, *(self._table.current(kind, now) for kind in ListKind))

    async def holding(self, network: Network) -> list[Holder]:
        """Return the entries that contain ``network``."""
        return await self.in_thread(self._holding, network)

    def _holding(self, network: Network) -> list[Holder]:
        texts, now = texts_around(network), self._now()
        stored = (self._table.about(kind, texts, now, COMMAND) for kind in ListKind)
        entries = chain(self._configured.entries, *stored)
        return list(holders(network, entries, self._answers, self._databases.around))
