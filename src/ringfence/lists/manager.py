"""The lists of a running daemon, updated by the configuration, by commands and by the host.

Everything is composed again after each change, in a thread: with 100,000 imported networks that takes a
second, in which bans go on. Only the resulting networks are kept in memory, eight bytes each; the entries are
in the store.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from attrs import evolve

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.errors import ControlError, RingfenceError, StoreError
from ringfence.lists.compose import Answers, ComposedLists, ListNetworks, compose, guarded
from ringfence.lists.entries import (
    COMMAND,
    CONFIGURATION,
    Configured,
    EntryKind,
    EntryValue,
    entry_refusal,
    parse_entry,
)
from ringfence.lists.geo import GeoDatabases
from ringfence.lists.importing import ListStore, remove
from ringfence.lists.lookup import Holder, holders, texts_around
from ringfence.lists.messages import Addition, Answer, ListRow, addresses, network_text, texts_of
from ringfence.model import ListEntry, ListKind, Network, printable

if TYPE_CHECKING:
    from ringfence.lists.prefixes import Prefixes

P = ParamSpec("P")
T = TypeVar("T")

LOOK_EVERY = 60.0
"""Seconds between two checks of the databases' files; the end of an entry is waited for exactly."""


RETRY_EVERY = 5.0
"""Seconds until an unreadable store is tried again."""


class Lists:
    """The lists. ``changed`` is called with the networks, in the event loop, when they have changed.

    ``follow`` is called with the names whose addresses are needed; pass the addresses to :meth:`on_resolved`.
    Call :meth:`load` at the start, before there is an event loop; then :meth:`run` is a task of the daemon.
    """

    def __init__(
        self,
        store: ListStore,
        configured: Configured,
        changed: Callable[[ListNetworks], None],
        *,
        now: Callable[[], float],
        follow: Callable[[frozenset[str]], None] = lambda _names: None,
    ) -> None:
        self._store = store
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
    def alarms(self) -> list[Alarm]:
        """The present alarms about the lists."""
        return [*self._common_alarms(), *chain.from_iterable(map(self._alarms_of, ListKind))]

    def _common_alarms(self) -> Iterator[Alarm]:
        """Yield the alarms about both lists."""
        yield from self._databases.alarms
        if self._error:
            yield Alarm(AlarmCode.LIST_UNREADABLE, "", self._error)

    def _alarms_of(self, kind: ListKind) -> Iterator[Alarm]:
        """Yield the alarms about one list."""
        yield from (alarm for about, alarm in self._composed.alarms if about is kind)
        if kind is ListKind.ALLOW:
            for host in sorted(self._composed.hosts):
                if not self._answers.get(host):
                    yield Alarm(AlarmCode.LIST_UNRESOLVED, host, f"{kind} list: does not resolve yet")
        number, most = len(self._networks_of(kind)), self._configured.most
        if number > most:
            text = f"{number} networks, of which the first {most} are in force: raise [firewall] max_bans"
            yield Alarm(AlarmCode.LIST_FULL, f"{kind} list", text)

    # -- changes ---------------------------------------------------------------------------------------

    def load(self) -> ListNetworks:
        """Compose now, in this thread, and return the networks; ``changed`` is not called.

        If the store cannot be read, the configured entries are in force, and :meth:`run` tries again.
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
        """Set the present addresses of names; before :meth:`load` those of the last run."""
        self._answers = dict(answers)
        self._stale.set()

    def protect(self, protected: Mapping[Network, str]) -> None:
        """Set the networks that must stay reachable, each with its role; in force when this returns."""
        if protected == self._protected:
            return
        self._protected = dict(protected)
        self._stale.set()  # the alarms about them must be computed again
        if self._known:
            rolls = evolve(self.networks, guarded=guarded(self._protected, self._composed.forced))
            self._apply(evolve(self._composed, networks=rolls))

    async def run(self) -> None:
        """Follow changes until cancelled: ends of entries, files of databases, and the calls above."""
        while True:
            try:
                async with asyncio.timeout(self._pause()):
                    await self._stale.wait()
            except TimeoutError:
                ends = self._composed.ends
                ended = ends is not None and ends <= self._now()
                if not ended and not self._error and not await self._in_thread(self._databases.changed):
                    continue
            await self.refresh()

    async def refresh(self) -> None:
        """Compose again and apply the changes. If the store cannot be read, everything stays."""
        async with self._turn:
            self._stale.clear()
            try:
                composed = await self._in_thread(self._compose)
                self._error = ""
            except RingfenceError as error:
                self._error = f"the lists stay as they are: {error}"
                return
            # The protected networks may have changed meanwhile.
            rolls = evolve(composed.networks, guarded=guarded(self._protected, composed.forced))
            self._apply(evolve(composed, networks=rolls))

    async def _in_thread(self, action: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run ``action`` in the lists' own thread; several threads would use more memory."""
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
            self._stale.set()  # the next end is another one now
        if composed.hosts != before.hosts:
            self._follow(composed.hosts)
        if composed.networks != before.networks:
            self._changed(composed.networks)

    def _compose(self) -> ComposedLists:
        now = self._now()
        return compose(self._entries(now), self._answers, self._databases.networks, self._protected)

    def _entries(self, now: float) -> Iterator[ListEntry]:
        return chain(self._configured.entries, *(self._store.entries(kind, now) for kind in ListKind))

    # -- requests --------------------------------------------------------------------------------------

    def handlers(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        """Return the handlers of the requests on the control socket."""
        return {
            "allow_add": lambda request: self.add(ListKind.ALLOW, request),
            "allow_remove": lambda request: self.remove(ListKind.ALLOW, request),
            "deny_add": lambda request: self.add(ListKind.DENY, request),
            "deny_remove": lambda request: self.remove(ListKind.DENY, request),
            "lists": self.report,
            "lists_reload": self.reload,
        }

    async def add(self, kind: ListKind, request: Mapping[str, Any]) -> dict[str, list[str]]:
        """Add entries to a list; return the added ones, and problems about the others."""
        addition, now = Addition.of(request), self._now()
        answer = Answer(problems=list(addition.wrong))
        entries = []
        roll = self._networks_of(kind)
        room = self._configured.most - len(roll)
        for value in addition.values:
            reason = self._reason_against(kind, value)
            if reason is not None and not (addition.force and value.kind is EntryKind.NETWORK):
                answer.problems.append(reason)
                continue
            new = value.network is not None and value.network not in roll
            if new and room <= 0:
                answer.problems.append(
                    f"{value.text}: the {kind} list is full ({self._configured.most} networks); "
                    "raise [firewall] max_bans and reload"
                )
                continue
            room -= new
            until = None if addition.seconds is None else now + addition.seconds
            entries.append(
                ListEntry(kind, value.text, addition.note, now, until, COMMAND, forced=reason is not None)
            )
            answer.done.append(value.text)
        if entries:
            await self._in_thread(self._store.add_entries, entries)
            await self.refresh()
        answer.notes += self._notes(kind, (value for value in addition.values if value.text in answer.done))
        return answer.as_json()

    async def remove(self, kind: ListKind, request: Mapping[str, Any]) -> dict[str, list[str]]:
        """Remove entries from a list, by value or by imported file."""
        answer = await self._in_thread(self._remove, kind, request)
        if answer.done:
            await self.refresh()
        return answer.as_json()

    async def report(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """List the entries of a list; an imported file is one row."""
        try:
            kind = ListKind(request.get("side", ""))
        except ValueError:
            raise ControlError('the list must be "allow" or "deny"') from None
        rows = await self._in_thread(self._rows, kind)
        return [row.as_json() for row in rows]

    async def reload(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Read the store again, after an import; return what is in force, and the deny list's alarms.

        Only the deny list is imported.
        """
        await self.refresh()
        alarms = [*self._common_alarms(), *self._alarms_of(ListKind.DENY)]
        numbers = {"allow": len(self.networks.allow), "deny": len(self.networks.deny)}
        return {**numbers, "alarms": [alarm.as_json() for alarm in alarms]}

    async def holding(self, network: Network) -> list[Holder]:
        """Return the entries that contain ``network``."""
        return await self._in_thread(self._holding, network)

    def _holding(self, network: Network) -> list[Holder]:
        texts, now = texts_around(network), self._now()
        stored = (self._store.entries_about(kind, texts, now, COMMAND) for kind in ListKind)
        entries = chain(self._configured.entries, *stored)
        return list(holders(network, entries, self._answers, self._databases.around))

    def _reason_against(self, kind: ListKind, value: EntryValue) -> str | None:
        if value.kind is EntryKind.PLACE and not self._configured.databases:
            return f"{value.text}: its networks come from a database; name it in [geo] database, and reload"
        return entry_refusal(kind, value, self._protected)

    def _networks_of(self, kind: ListKind) -> "Prefixes":
        return self.networks.allow if kind is ListKind.ALLOW else self.networks.deny

    def _notes(self, kind: ListKind, values: Iterable[EntryValue]) -> Iterator[str]:
        """Yield notes on the effects of new entries that an administrator may not expect."""
        for value in values:
            around = self.networks.allow.containing(value.network) if value.network is not None else None
            if kind is ListKind.DENY and around is not None:
                yield f"{value.text} stays allowed: the allow list has {network_text(around)}, and it wins"
            if value.kind is EntryKind.PLACE and not self._composed.places.get(value.text):
                yield "; ".join(
                    [
                        f"{value.text}: no database has a network of it, so nothing changes",
                        *(alarm.text for alarm in self._databases.alarms),
                    ]
                )

    def _remove(self, kind: ListKind, request: Mapping[str, Any]) -> Answer:
        answer, now = Answer(), self._now()
        origin = request.get("origin")
        if isinstance(origin, str):
            gone = [entry.value for entry in self._store.entries(kind, now) if entry.origin == origin]
            number = remove(self._store, kind, gone)
            if number:
                answer.done.append(f"{number} networks of {printable(origin)}")
            else:
                answer.problems.append(f"nothing on the {kind} list was imported from {printable(origin)}")
            return answer
        for text in texts_of(request, "what"):
            try:
                value = parse_entry(text)
            except ValueError as error:
                answer.problems.append(str(error))
                continue
            configured = any(e.value == value.text and e.kind is kind for e in self._configured.entries)
            if self._store.remove_entries(kind, [value.text]):
                answer.done.append(value.text)
                if configured:
                    answer.notes.append(f"{value.text} is still in the configuration, [{kind}]")
            elif configured:
                answer.problems.append(
                    f"{value.text} is in the configuration, [{kind}]: remove it there, and reload"
                )
            else:
                answer.problems.append(self._not_there(kind, value.text, value.network))
        return answer

    def _not_there(self, kind: ListKind, text: str, network: Network | None) -> str:
        around = self._networks_of(kind).containing(network) if network is not None else None
        if around is None:
            return f"{text} is not on the {kind} list"
        return f"{text} is not on the {kind} list itself, but within {network_text(around)}, which is"

    def _rows(self, kind: ListKind) -> list[ListRow]:
        rows: list[ListRow] = []
        files: dict[str, ListRow] = {}
        for entry in self._entries(self._now()):
            if entry.kind is not kind:
                continue
            if entry.origin in {COMMAND, CONFIGURATION}:
                rows.append(self._row(entry))
                continue
            row = files.setdefault(entry.origin, ListRow(entry=entry.origin, source=entry.origin, file=True))
            row.note, row.added = entry.note, entry.added
            row.networks = (row.networks or 0) + 1
        return [*rows, *files.values()]

    def _row(self, entry: ListEntry) -> ListRow:
        value = parse_entry(entry.value)
        networks: int | None = 1
        leads_to: list[str] = []
        if value.kind is EntryKind.HOST:
            answer = self._answers.get(value.text)
            networks, leads_to = (None, []) if answer is None else (len(answer), addresses(answer))
        elif value.kind is EntryKind.PLACE:
            networks = self._composed.places.get(value.text)
        return ListRow(
            entry=entry.value,
            note=entry.note,
            source=entry.origin,
            added=None if entry.origin == CONFIGURATION else entry.added,
            ends=entry.until,
            forced=entry.forced,
            networks=networks,
            leads_to=leads_to,
        )
