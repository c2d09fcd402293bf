"""The lists of a running daemon: what it is told by the configuration, by commands and by the host.

Everything is composed anew after each change, in a thread: with 100 000 imported networks that takes a
second, in which bans go on. What is held meanwhile are the rolls, eight bytes a network; the entries are in
the store.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from attrs import evolve

from ringfence.errors import ControlError, RingfenceError
from ringfence.lists.entries import COMMAND, CONFIGURATION, Configured, Kind, What, refused_of, what_from
from ringfence.lists.geo import GeoDatabases
from ringfence.lists.holding import Holder, holders, texts_around
from ringfence.lists.requests import Addition, Answer, Row, addresses, shown, texts_of
from ringfence.lists.rolls import Answers, Composed, Rolls, compose, guarded
from ringfence.lists.shelf import Shelf, remove
from ringfence.model import ListEntry, Network, Side, printable

if TYPE_CHECKING:
    from ringfence.lists.prefixes import Prefixes

P = ParamSpec("P")
T = TypeVar("T")

LOOK_EVERY = 60.0
"""Seconds between two looks at the databases' files; an entry's end is waited for exactly."""


RETRY_EVERY = 5.0
"""Seconds until a store that could not be read is tried again."""


class Lists:
    """The lists. ``changed`` is called with the rolls, in the event loop, when they are others.

    ``follow`` is called with the names whose addresses are wanted; ``resolved`` takes them. :meth:`load` is
    for the start, before there is an event loop; then :meth:`run` is a task of the daemon's.
    """

    def __init__(
        self,
        shelf: Shelf,
        configured: Configured,
        changed: Callable[[Rolls], None],
        *,
        now: Callable[[], float],
        follow: Callable[[frozenset[str]], None] = lambda _names: None,
    ) -> None:
        self._shelf = shelf
        self._configured = configured
        self._databases = GeoDatabases(configured.databases)
        self._changed = changed
        self._follow = follow
        self._now = now
        self._answers: Answers = {}
        self._protected: Mapping[Network, str] = {}
        self._composed = Composed(Rolls())
        self._trouble = ""
        self._known = False
        self._stale = asyncio.Event()
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lists")

    @property
    def rolls(self) -> Rolls:
        """The rolls as they are now."""
        return self._composed.rolls

    @property
    def problems(self) -> list[str]:
        """What is wrong with the lists now, for people."""
        most, problems = self._configured.most, [*self._composed.problems, *self._databases.problems]
        problems += [self._trouble] if self._trouble else []
        problems += [
            f"{side} list: {host} leads nowhere yet"
            for side, host in ((Side.ALLOW, host) for host in sorted(self._composed.hosts))
            if not self._answers.get(host)
        ]
        problems += [
            f"{side} list: {len(roll)} networks, of which {most} fit: raise [firewall] max_bans"
            for side, roll in ((Side.ALLOW, self.rolls.allow), (Side.DENY, self.rolls.deny))
            if len(roll) > most
        ]
        return problems

    # -- what it is told --------------------------------------------------------------------------------

    def load(self) -> Rolls:
        """Compose now, in this thread; raises StoreError. ``changed`` is not called: the rolls are given."""
        self._composed = self._compose()
        self._known = True
        self._follow(self._composed.hosts)
        return self.rolls

    def configure(self, configured: Configured) -> None:
        """Take a new configuration."""
        if configured.databases != self._configured.databases:
            self._databases = GeoDatabases(configured.databases)
        self._configured = configured
        self._stale.set()

    def resolved(self, answers: Answers) -> None:
        """Take where names lead now; before :meth:`load` what was known last."""
        self._answers = dict(answers)
        self._stale.set()

    def protect(self, protected: Mapping[Network, str]) -> None:
        """Take what must stay reachable, each with what it is; that is in force when this returns."""
        if protected == self._protected:
            return
        self._protected = dict(protected)
        self._stale.set()  # what the lists say against it is told anew
        if self._known:
            rolls = evolve(self.rolls, guarded=guarded(self._protected, self._composed.forced))
            self._take(evolve(self._composed, rolls=rolls))

    async def run(self) -> None:
        """Follow what changes by itself: ends of entries, files of databases, and what was told above."""
        while True:
            try:
                async with asyncio.timeout(self._wait()):
                    await self._stale.wait()
            except TimeoutError:
                ends = self._composed.ends
                ended = ends is not None and ends <= self._now()
                if not ended and not self._trouble and not await self._apart(self._databases.changed):
                    continue
            await self.refresh()

    async def refresh(self) -> None:
        """Compose anew, and tell what has changed. A store that cannot be read leaves all as it is."""
        async with self._turn:
            self._stale.clear()
            try:
                composed = await self._apart(self._compose)
                self._trouble = ""
            except RingfenceError as error:
                self._trouble = f"the lists stay as they are: {error}"
                return
            # The host may have changed meanwhile.
            rolls = evolve(composed.rolls, guarded=guarded(self._protected, composed.forced))
            self._take(evolve(composed, rolls=rolls))

    async def _apart(self, action: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do something in the lists' own thread, always the same one: each leaves memory behind."""
        call = partial(action, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _wait(self) -> float:
        if self._trouble:
            return RETRY_EVERY
        if self._composed.ends is None:
            return LOOK_EVERY
        return min(LOOK_EVERY, max(0.0, self._composed.ends - self._now()) + 0.01)

    def _take(self, composed: Composed) -> None:
        before, self._composed, self._known = self._composed, composed, True
        if composed.ends != before.ends:
            self._stale.set()  # whoever waits has to wait for another end
        if composed.hosts != before.hosts:
            self._follow(composed.hosts)
        if composed.rolls != before.rolls:
            self._changed(composed.rolls)

    def _compose(self) -> Composed:
        now = self._now()
        return compose(self._entries(now), self._answers, self._databases.networks, self._protected)

    def _entries(self, now: float) -> Iterator[ListEntry]:
        return chain(self._configured.entries, *(self._shelf.entries(side, now) for side in Side))

    # -- what commands ask ------------------------------------------------------------------------------

    def handlers(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        """Give what answers the commands, for the control socket."""
        return {
            "allow_add": lambda request: self.add(Side.ALLOW, request),
            "allow_remove": lambda request: self.remove(Side.ALLOW, request),
            "deny_add": lambda request: self.add(Side.DENY, request),
            "deny_remove": lambda request: self.remove(Side.DENY, request),
            "lists": self.report,
            "lists_reload": self.reload,
        }

    async def add(self, side: Side, request: Mapping[str, Any]) -> dict[str, list[str]]:
        """Put entries on a list; those that are in order, and the others are problems."""
        addition, now = Addition.of(request), self._now()
        answer = Answer(problems=list(addition.wrong))
        entries = []
        for what in addition.whats:
            reason = self._reason_against(side, what)
            if reason is not None and not (addition.force and what.kind is Kind.NETWORK):
                answer.problems.append(reason)
                continue
            until = None if addition.seconds is None else now + addition.seconds
            entries.append(
                ListEntry(side, what.text, addition.note, now, until, COMMAND, forced=reason is not None)
            )
            answer.done.append(what.text)
        if entries:
            await self._apart(self._shelf.add_entries, entries)
            await self.refresh()
        answer.notes += self._notes(side, (what for what in addition.whats if what.text in answer.done))
        return answer.as_json()

    async def remove(self, side: Side, request: Mapping[str, Any]) -> dict[str, list[str]]:
        """Take entries off a list, by what they say or by the file that they came from."""
        answer = await self._apart(self._remove, side, request)
        if answer.done:
            await self.refresh()
        return answer.as_json()

    async def report(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """List the entries of a side; an imported file is one row."""
        try:
            side = Side(request.get("side", ""))
        except ValueError:
            raise ControlError('a list is "allow" or "deny"') from None
        rows = await self._apart(self._rows, side)
        return [row.as_json() for row in rows]

    async def reload(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Read the store again, after an import; say what is in force and what is wrong."""
        await self.refresh()
        return {"allow": len(self.rolls.allow), "deny": len(self.rolls.deny), "problems": self.problems}

    async def holding(self, network: Network) -> list[Holder]:
        """Give the entries that hold ``network``."""
        return await self._apart(self._holding, network)

    def _holding(self, network: Network) -> list[Holder]:
        texts, now = texts_around(network), self._now()
        stored = (self._shelf.entries_about(side, texts, now, COMMAND) for side in Side)
        entries = chain(self._configured.entries, *stored)
        return list(holders(network, entries, self._answers, self._databases.around))

    def _reason_against(self, side: Side, what: What) -> str | None:
        if what.kind is Kind.PLACE and not self._configured.databases:
            return f"{what.text}: only a database knows its networks; name it in [geo] database, and reload"
        return refused_of(side, what, self._protected)

    def _notes(self, side: Side, whats: Iterable[What]) -> Iterator[str]:
        """Say of entries that are new what their writer may not expect."""
        for what in whats:
            around = self.rolls.allow.around(what.network) if what.network is not None else None
            if side is Side.DENY and around is not None:
                yield f"{what.text} is let in all the same: {shown(around)} is allowed, which wins"
            if what.kind is Kind.PLACE and not self._composed.places.get(what.text):
                yield "; ".join(
                    [f"{what.text}: no network of it is known, so nothing changes", *self._databases.problems]
                )

    def _remove(self, side: Side, request: Mapping[str, Any]) -> Answer:
        answer, now = Answer(), self._now()
        origin = request.get("origin")
        if isinstance(origin, str):
            gone = [entry.what for entry in self._shelf.entries(side, now) if entry.origin == origin]
            number = remove(self._shelf, side, gone)
            if number:
                answer.done.append(f"{number} networks of {printable(origin)}")
            else:
                answer.problems.append(f"nothing on the {side} list was imported from {printable(origin)}")
            return answer
        for text in texts_of(request, "what"):
            try:
                what = what_from(text)
            except ValueError as error:
                answer.problems.append(str(error))
                continue
            configured = any(e.what == what.text and e.side is side for e in self._configured.entries)
            if self._shelf.remove_entries(side, [what.text]):
                answer.done.append(what.text)
                if configured:
                    answer.notes.append(f"{what.text} is still in the configuration, [{side}]")
            elif configured:
                answer.problems.append(
                    f"{what.text} is in the configuration, [{side}]: take it out there, and reload"
                )
            else:
                answer.problems.append(self._not_there(side, what.text, what.network))
        return answer

    def _not_there(self, side: Side, text: str, network: Network | None) -> str:
        roll: Prefixes = self.rolls.allow if side is Side.ALLOW else self.rolls.deny
        around = roll.around(network) if network is not None else None
        if around is None:
            return f"{text} is not on the {side} list"
        return f"{text} is not on the {side} list by itself, but within {shown(around)}, which is"

    def _rows(self, side: Side) -> list[Row]:
        rows: list[Row] = []
        files: dict[str, Row] = {}
        for entry in self._entries(self._now()):
            if entry.side is not side:
                continue
            if entry.origin in {COMMAND, CONFIGURATION}:
                rows.append(self._row(entry))
                continue
            row = files.setdefault(entry.origin, Row(entry=entry.origin, source=entry.origin, file=True))
            row.note, row.added = entry.note, entry.added
            row.networks = (row.networks or 0) + 1
        return [*rows, *files.values()]

    def _row(self, entry: ListEntry) -> Row:
        what = what_from(entry.what)
        networks: int | None = 1
        leads_to: list[str] = []
        if what.kind is Kind.HOST:
            answer = self._answers.get(what.text)
            networks, leads_to = (None, []) if answer is None else (len(answer), addresses(answer))
        elif what.kind is Kind.PLACE:
            networks = self._composed.places.get(what.text)
        return Row(
            entry=entry.what,
            note=entry.note,
            source=entry.origin,
            added=None if entry.origin == CONFIGURATION else entry.added,
            ends=entry.until,
            forced=entry.forced,
            networks=networks,
            leads_to=leads_to,
        )
