"""The lists of a running daemon, and their updates.

The lists change with the configuration, by commands, with the addresses of host names, and with the networks
that this host needs.

All networks are composed again after each change. With long block lists that takes a second, so it
runs in a thread, and bans continue. Only the resulting networks are kept in memory, eight bytes for each
IPv4 network and 17 for each IPv6 network; the entries are in the store.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, ParamSpec, TypeVar

from attrs import evolve, frozen

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.ban_facts import ClockSet
from ringfence.clock import before_step
from ringfence.errors import RingfenceError, StoreError
from ringfence.firewall import network_lists
from ringfence.firewall.network_lists import NetworkList
from ringfence.lists.compose import Answers, ComposedLists, ListNetworks, compose, guarded
from ringfence.lists.entries import OWN_ORIGINS, Configured, EntryKind, parse_entry
from ringfence.lists.prefixes import Gatherer, Prefixes
from ringfence.lists.regions import Regions, regions_of
from ringfence.store.tables import EntryTable
from ringfence.threads import Threads, start_aside
from ringfence.values.ban import Scope
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.network import Network, contains

# -- the entries of the lists that contain an address


@frozen
class Holder:
    """An entry of a list that contains the network that was looked up.

    ``network`` is the part of the entry that contains the other network: the entry's own network, an address
    of its host name, or a network of its region. ``removal`` is how to remove an entry of a feature, and
    ``drops`` the traffic that an entry of the deny list drops.
    """

    entry: ListEntry
    network: Network
    removal: str = ""
    drops: Scope | None = Scope.FULL

    @property
    def by_hand(self) -> bool:
        """Whether an administrator named this network or its host name, and not a region or a feature.

        The networks of features and of regions come from others, so friends pass them.
        """
        mine = self.entry.origin in OWN_ORIGINS
        return mine and parse_entry(self.entry.value).kind is not EntryKind.REGION


def holders(
    network: Network, entries: Iterable[ListEntry], answers: Answers, regions: Regions
) -> Iterator[Holder]:
    """Yield a :class:`Holder` for each of ``entries`` that contains the whole of ``network``.

    ``answers`` are the addresses of host names.
    """
    for entry in entries:
        try:
            found = _held_by(entry, network, answers, regions)
        except ValueError:  # an invalid entry, about which compose() adds an alarm
            continue
        if found is not None:
            yield Holder(entry, found)


def _held_by(entry: ListEntry, network: Network, answers: Answers, regions: Regions) -> Network | None:
    value = parse_entry(entry.value)
    if value.kind is EntryKind.REGION:
        return regions.around(value.text, network)
    if value.kind is EntryKind.HOST:
        return next((one for one in answers.get(value.text, ()) if contains(one, network)), None)
    return value.network if value.network is not None and contains(value.network, network) else None


P = ParamSpec("P")
T = TypeVar("T")

LOOK_EVERY = 60.0
"""Seconds between two checks of the databases' files. (The end of an entry has its own timer.)"""
RETRY_EVERY = 5.0
"""Seconds until an unreadable store is tried again."""
READ_WITHIN = 1.0
"""Seconds that a change of the lists waits for the databases. Networks that are read later are added then."""


@frozen
class PresentLists:
    """The allow and deny lists at one moment, and everything that they are made of.

    ``configured`` is the configuration, and ``composed`` the result. ``answers`` are the addresses of host
    names. ``protected`` are the networks that must stay reachable, each with its role. ``region_alarms``
    are about the files of regions, and ``refused`` is why no region can be added, "" if one can.
    """

    configured: Configured
    composed: ComposedLists
    answers: Answers
    protected: Mapping[Network, str]
    region_alarms: tuple[Alarm, ...]
    refused: str

    def by_hand(self, kind: ListKind) -> Prefixes:
        """Return the networks of one list; of the deny list, those that were denied by hand."""
        return self.composed.networks.allow if kind is ListKind.ALLOW else self.composed.networks.deny


class OtherNetworks(ABC):
    """Networks from other parties that a feature denies, beside the entries of the deny list.

    ``which`` is the kernel's list for these networks. The thread of the lists calls ``update``, ``compose``
    and ``holding``, one at a time. Before the event loop runs, the main thread calls ``compose``. Any thread
    may read ``look_every`` and call ``configure``.
    """

    which: NetworkList = network_lists.EXTERNAL

    @property
    def look_every(self) -> float | None:
        """Seconds between two calls of :meth:`update`; None if it has nothing to look at."""
        return None

    def configure(self, settings: Any) -> object:  # noqa: ANN401, B027 - ``config`` imports this package
        """Use ``settings`` of the feature from the next call of another method on."""

    def update(self, protected: Mapping[Network, str], most: int, now: float) -> bool:  # noqa: ARG002 - for a feature
        """Read changed sources; return whether :meth:`compose` would now return other networks than before.

        ``protected`` are networks that this host needs, each with the reason, and ``most`` is the maximum
        number of networks. ``now`` is in seconds since the epoch.
        """
        return False

    @abstractmethod
    def compose(self, now: float) -> Iterable[Prefixes]:
        """Return the networks that the feature denies at ``now`` (seconds since the epoch)."""

    @abstractmethod
    def holding(self, network: Network, now: float) -> Iterable[Holder]:
        """Yield a Holder for each of the feature's lists in force at ``now`` that contains ``network``.

        ``now`` is in seconds since the epoch.
        """


class Lists:
    """The allow list and the deny list of a running daemon.

    ``changed`` is called in the event loop when the networks have changed, and gets the new ones. ``follow``
    is called with the host names whose addresses are needed; pass the addresses to :meth:`on_resolved`.
    ``now`` returns wall-clock seconds. ``others`` are networks that features deny. Call :meth:`load` at the
    start, before there is an event loop. After that, :meth:`run` is a task of the daemon.
    """

    def __init__(
        self,
        table: EntryTable,
        configured: Configured,
        changed: Callable[[ListNetworks], None],
        *,
        now: Callable[[], float],
        follow: Callable[[frozenset[str]], None] = lambda _names: None,
        others: Sequence[OtherNetworks] = (),
    ) -> None:
        self.others = others
        self._table = table
        self._configured = configured
        self._regions = regions_of(configured.databases, configured.kept)
        self._reading = False
        self._changed = changed
        self._follow = follow
        self._now = now
        self._answers: Answers = {}
        self._protected: Mapping[Network, str] = {}
        self._composed = ComposedLists(ListNetworks())
        self._error = ""
        self._loaded = False
        self._set_by = self._moved_by = 0.0  # seconds by which the clock was set, and the entries' ends moved
        self._stale = asyncio.Event()
        self._turn = asyncio.Lock()
        self.thread = Threads(1, "lists")

    @property
    def networks(self) -> ListNetworks:
        """The present networks of both lists."""
        return self._composed.networks

    @property
    def present(self) -> PresentLists:
        """Both lists as they are now, with everything from which they were composed."""
        return PresentLists(
            self._configured,
            self._composed,
            self._answers,
            self._protected,
            tuple(self._regions.alarms),
            self._regions.refusal,
        )

    @property
    def alarms(self) -> list[Alarm]:
        """The present alarms about the allow list and the deny list."""
        hosts = (host for host in sorted(self._composed.hosts) if not self._answers.get(host))
        text = f"{ListKind.ALLOW} list: does not resolve yet"
        unresolved = (Alarm(AlarmCode.LIST_UNRESOLVED, host, text) for host in hosts)
        error = [Alarm(AlarmCode.LIST_UNREADABLE, "", self._error)] if self._error else []
        return [*self._regions.alarms, *error, *self._composed.alarms, *self._full(), *unresolved]

    def _full(self) -> Iterator[Alarm]:
        """Yield an alarm for each list of the kernel that is cut, because it has too many networks."""
        most = self._configured.most
        for which in network_lists.limited():
            number = len(self.networks.of(which))
            if number > most:
                force = f"of which the first {most} are in force: raise [firewall] max_bans"
                yield Alarm(AlarmCode.LIST_FULL, f"{which} list", f"{number} networks, {force}")

    def load(self) -> ListNetworks:
        """Read and compose both lists now, in this thread; return the networks without calling ``changed``.

        If the store cannot be read, only the configured entries are in force, and :meth:`run` tries again.
        This does not read the databases of regions. A region has the networks that were read earlier, perhaps
        by an earlier run of the daemon; :meth:`run` reads the databases.
        """
        try:
            self._composed = self._compose()
        except StoreError as error:
            self._error = f"only the configured entries of the lists are in force: {error}"
            self._composed = self._composed_from(self._configured.entries)
        self._loaded = True
        if self._regions.waits or any(other.look_every for other in self.others):
            self._stale.set()  # so run() reads their files now
        self._follow(self._composed.hosts)
        return self.networks

    def read_databases(self) -> None:
        """Read the databases of regions now, in this thread, for a command without a daemon.

        Call :meth:`load` before and after it.
        """
        self._regions.read(keep=False)

    def configure(self, configured: Configured) -> None:
        """Apply the entries and settings of a new configuration to the lists."""
        if configured.databases != self._configured.databases:
            self._regions = regions_of(configured.databases, configured.kept)
        self._configured = configured
        self._stale.set()

    def on_resolved(self, answers: Answers) -> None:
        """Set the present addresses of the host names; those of names that no list has change nothing.

        Before :meth:`load`, this may be called with the addresses that the last run of the daemon knew.
        """
        before, self._answers = self._answers, dict(answers)
        changed = any(before.get(host) != answers.get(host) for host in self._composed.hosts)
        if changed or self._turn.locked():  # a list that is being composed may have more names
            self._stale.set()

    def on_fact(self, fact: object) -> None:
        """Let each entry keep the rest of its time if the clock was set."""
        if isinstance(fact, ClockSet):
            self._set_by += fact.seconds
            self._stale.set()

    def follow_clock(self) -> None:
        """Move the recorded ends of the entries if the clock was set; call this in the thread of the lists.

        Raise StoreError if that fails. The next call then moves them.
        """
        wanted = self._set_by
        step = wanted - self._moved_by
        if step:
            self._table.move(step, before_step(self._now(), step))
            self._moved_by = wanted

    def protect(self, protected: Mapping[Network, str]) -> None:
        """Set the networks that must stay reachable, each with its role.

        If :meth:`load` was called, the networks are in force when this returns.
        """
        if protected == self._protected:
            return
        self._protected = dict(protected)
        # run() then composes the lists and their alarms again, because an alarm may name a protected network.
        self._stale.set()
        if self._loaded:
            networks = evolve(self.networks, guarded=guarded(self._protected, self._composed.forced))
            self._apply(evolve(self._composed, networks=networks))

    async def run(self) -> None:
        """Compose the lists again after each change, until cancelled.

        Changes are a new configuration, new addresses of host names, new protected networks, the end of an
        entry, a clock that was set, and a changed file of a database. If the store could not be read, try
        again.
        """
        while True:
            try:
                async with asyncio.timeout(self._pause()):
                    await self._stale.wait()
            except TimeoutError:
                ends = self._composed.ends
                ended = ends is not None and ends <= self._now()
                if not ended and not self._error and not await self.in_thread(self._files_changed):
                    continue
            await self.refresh()

    async def refresh(self) -> None:
        """Compose both lists again from configuration and database, and write what changed to the kernel.

        If the store cannot be read, the lists stay as they are.
        """
        async with self._turn:
            self._stale.clear()
            try:
                composed = await self.in_thread(self._renewed)
                if not self._reading and await self.in_thread(lambda: self._regions.waits):
                    await self._read_soon()
                    composed = await self.in_thread(self._compose)
                self._error = ""
            except RingfenceError as error:
                self._error = f"the lists stay as they are: {error}"
                return
            # The protected networks may have changed during the composition.
            still = guarded(self._protected, composed.forced)
            self._apply(evolve(composed, networks=evolve(composed.networks, guarded=still)))

    async def _read_soon(self) -> None:
        """Start to read the databases, and wait a short time for the end.

        A thread of its own reads them. It may take a minute, and the process ends without waiting for it.
        Raise StartError if the kernel refuses the thread.
        """
        loop, regions, done = asyncio.get_running_loop(), self._regions, asyncio.Event()

        def ended() -> None:
            self._reading = False
            if not regions.failed:  # otherwise run() tries again, after a pause
                self._stale.set()
            done.set()

        def read() -> None:
            try:
                regions.read()
            finally:
                with suppress(RuntimeError):  # the daemon has ended meanwhile
                    loop.call_soon_threadsafe(ended)

        start_aside(read, "databases")
        self._reading = True
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_WITHIN):
                await done.wait()

    async def renew(self, other: OtherNetworks) -> None:
        """Compose the networks of a feature again, and no others. No other feature may share their list."""
        async with self._turn:
            networks = await self.in_thread(self._composed_of, other)
            others = {**self.networks.others, other.which: networks}
            self._apply(evolve(self._composed, networks=evolve(self.networks, others=others)))

    def _composed_of(self, other: OtherNetworks) -> Prefixes:
        gatherer = Gatherer()
        for part in other.compose(self._now()):
            gatherer.extend(part)
        return gatherer.prefixes()

    async def in_thread(self, action: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run ``action`` in the one thread of the lists, and return its result.

        Several threads would use more memory.
        """
        call = partial(action, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self.thread, call)

    def _pause(self) -> float:
        if self._error:
            return RETRY_EVERY
        look_every = min([LOOK_EVERY, *filter(None, (other.look_every for other in self.others))])
        if self._composed.ends is None:
            return look_every
        return min(look_every, max(0.0, self._composed.ends - self._now()) + 0.01)

    def _apply(self, composed: ComposedLists) -> None:
        before, self._composed, self._loaded = self._composed, composed, True
        if composed.ends != before.ends:
            self._stale.set()  # so run() waits for the new earliest end of an entry
        if composed.hosts != before.hosts:
            self._follow(composed.hosts)
        if composed.networks != before.networks:
            self._changed(composed.networks)

    def _files_changed(self) -> bool:
        """Whether the networks of a database or of a feature may have changed."""
        return self._update_others() or self._regions.changed() or self._regions.waits

    def _update_others(self) -> bool:
        most, now = self._configured.most, self._now()
        changed = [other.update(self._protected, most, now) for other in self.others]
        return any(changed)

    def _renewed(self) -> ComposedLists:
        with suppress(StoreError):  # the next change tries it again
            self.follow_clock()
        self._update_others()
        return self._compose()

    def _compose(self) -> ComposedLists:
        return self._composed_from(self.entries(self._now()))

    def _composed_from(self, entries: Iterable[ListEntry]) -> ComposedLists:
        others = ((other.which, part) for other in self.others for part in other.compose(self._now()))
        return compose(entries, self._answers, self._regions, self._protected, others, self._configured.added)

    def entries(self, now: float) -> Iterator[ListEntry]:
        """Yield the configured entries, then the store's that have not ended at ``now`` (epoch seconds)."""
        return chain(self._configured.entries, *(self._table.current(kind, now) for kind in ListKind))

    async def holding(self, network: Network) -> list[Holder]:
        """Return the entries of both lists, and of features, that contain the whole of ``network``."""
        return await self.in_thread(self._holding, network)

    def _holding(self, network: Network) -> list[Holder]:
        now = self._now()
        found = list(holders(network, self.entries(now), self._answers, self._regions))
        return [*found, *chain.from_iterable(other.holding(network, now) for other in self.others)]
