"""The handlers of the control socket's requests about lists."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from ringfence.clock import Clock, format_duration
from ringfence.control_server import Encoded, Handler, encoded_rows
from ringfence.errors import ControlError
from ringfence.firewall.network_lists import EXTERNAL
from ringfence.lists.entries import (
    COMMAND,
    CONFIGURATION,
    Addition,
    Answer,
    EntryKind,
    EntryValue,
    addresses,
    entry_refusal,
    parse_entry,
    texts_of,
)
from ringfence.lists.manager import Lists, PresentLists
from ringfence.store.tables import EntryTable
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.network import format_network
from ringfence.values.text import rfc3339


class ListRequests:
    """Handles the control socket's requests about the allow list and the deny list, ``lists``.

    ``table`` stores the entries that commands add.
    """

    def __init__(self, lists: Lists, table: EntryTable, clock: Clock) -> None:
        self._lists = lists
        self._table = table
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of each request (``allow_add`` …), by the request's name."""
        return {
            "allow_add": partial(self.add, ListKind.ALLOW),
            "allow_remove": partial(self.remove, ListKind.ALLOW),
            "deny_add": partial(self.add, ListKind.DENY),
            "deny_remove": partial(self.remove, ListKind.DENY),
            "lists": self.report,
        }

    async def add(self, kind: ListKind, request: Mapping[str, Any]) -> dict[str, list[str]]:
        """Add entries to a list; return the added ones (``done``), ``problems`` about others, ``notes``."""
        addition, now = Addition.of(request), self._clock.wall()
        answer = Answer(problems=list(addition.wrong))
        entries = []
        lists = self._lists.present
        networks, most = lists.by_hand(kind), lists.configured.most
        room = most - len(networks)
        for value in addition.values:
            reason = _refusal(lists, kind, value)
            if reason is not None and not (addition.force and value.kind is EntryKind.NETWORK):
                answer.problems.append(reason)
                continue
            new = value.network is not None and value.network not in networks
            if new and room <= 0:
                answer.problems.append(
                    f"{value.text}: the {kind} list is full ({most} networks); "
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
            answer.notes += await self._lists.in_thread(self._add, kind, entries, now)
            await self._lists.refresh()
        added = (value for value in addition.values if value.text in answer.done)
        answer.notes += _notes(self._lists.present, kind, added)
        return answer.as_json()

    def _add(self, kind: ListKind, entries: Sequence[ListEntry], now: float) -> list[str]:
        """Add entries; return a note about each that replaces one with a later end."""
        self._lists.follow_clock()  # before, because the new ends are by the clock as it is now
        ending = {entry.value: entry.until for entry in entries if entry.until is not None}
        every: Iterable[ListEntry] = self._table.current(kind, now) if ending else ()  # perhaps 250,000
        ends = {one.value: one.until for one in every if one.value in ending}
        self._table.add(entries)
        notes = []
        for value, until in ending.items():
            end = ends.get(value, until)
            this = f"{value}: this entry of {format_duration(until - now)} replaces"
            if end is None:
                notes.append(f"{this} one that had no end")
            elif end > until:
                notes.append(f"{this} a longer one, which had {format_duration(end - now)} left")
        return notes

    async def remove(self, kind: ListKind, request: Mapping[str, Any]) -> dict[str, list[str]]:
        """Remove entries from a list; return the removed ones (``done``), ``problems`` about the others."""
        answer = await self._lists.in_thread(self._remove, kind, request)
        if answer.done:
            await self._lists.refresh()
        return answer.as_json()

    def report(self, request: Mapping[str, Any]) -> Encoded:
        """Return the entries of a list; raise ControlError if there is no such list."""
        try:
            kind = ListKind(request.get("side", ""))
        except ValueError:
            raise ControlError('the list must be "allow" or "deny"') from None
        return encoded_rows(self._rows(kind))

    def _rows(self, kind: ListKind) -> Iterator[dict[str, Any]]:
        lists = self._lists.present
        configured = (entry for entry in lists.configured.entries if entry.kind is kind)
        for entry in chain(configured, self._table.in_order(kind, self._clock.wall())):
            yield _row(lists, entry)

    def _remove(self, kind: ListKind, request: Mapping[str, Any]) -> Answer:
        answer, lists = Answer(), self._lists.present
        values: dict[str, EntryValue] = {}
        wrong: dict[str, str] = {}  # a database that was edited by hand may have these texts nevertheless
        for text in texts_of(request, "what"):
            try:
                value = parse_entry(text)
            except ValueError as error:
                wrong[text] = str(error)
            else:
                values[value.text] = value
        answer.done += self._table.remove(kind, [*values, *wrong])
        removed = frozenset(answer.done)
        answer.problems += [why for text, why in wrong.items() if text not in removed]
        for value in values.values():
            configured = any(e.value == value.text and e.kind is kind for e in lists.configured.entries)
            if value.text in removed:
                if configured:
                    answer.notes.append(f"{value.text} is still in the configuration, [{kind}]")
            elif configured:
                answer.problems.append(
                    f"{value.text} is in the configuration, [{kind}]: remove it there, and reload"
                )
            else:
                answer.problems.append(_not_there(lists, kind, value))
        return answer


def _refusal(lists: PresentLists, kind: ListKind, value: EntryValue) -> str | None:
    """Return why a list refuses an entry unless it is forced; None if it accepts the entry."""
    if value.kind is EntryKind.REGION and lists.refused:
        return f"{value.text}: {lists.refused}"
    return entry_refusal(kind, value, lists.protected)


def _notes(lists: PresentLists, kind: ListKind, values: Iterable[EntryValue]) -> Iterator[str]:
    """Yield a note on each new entry that has no effect.

    An example is a denied network that the allow list contains.
    """
    for value in values:
        around = (
            lists.composed.networks.allow.containing(value.network) if value.network is not None else None
        )
        if kind is ListKind.DENY and around is not None:
            yield f"{value.text} stays allowed: the allow list has {format_network(around)}, and it wins"
        number = lists.composed.regions.get(value.text)
        if value.kind is EntryKind.REGION and not number:
            empty = "no database has a network of it, so nothing changes"
            why = "the databases are not read yet" if number is None else empty
            yield "; ".join([f"{value.text}: {why}", *(alarm.text for alarm in lists.region_alarms)])


def _not_there(lists: PresentLists, kind: ListKind, value: EntryValue) -> str:
    networks = lists.composed.networks
    sets = (networks.allow,) if kind is ListKind.ALLOW else (networks.deny, networks.of(EXTERNAL))
    found = (one.containing(value.network) for one in sets if value.network is not None)
    around = next((one for one in found if one is not None), None)
    if around is None:
        return f"{value.text} is not on the {kind} list"
    return f"{value.text} is not on the {kind} list itself, but within {format_network(around)}, which is"


def _row(lists: PresentLists, entry: ListEntry) -> dict[str, Any]:
    """Return an entry as JSON.

    ``added`` is null if it is unknown, and ``ends`` if the entry does not end. ``networks`` is the number of
    networks in the kernel (null: unknown). ``leads_to`` are the addresses of a host name.
    """
    networks, leads_to = _networks_of(lists, entry.value)
    return {
        "entry": entry.value,
        "source": entry.origin,
        "note": entry.note,
        "added": None if entry.origin == CONFIGURATION else rfc3339(entry.added),
        "ends": None if entry.until is None else rfc3339(entry.until),
        "forced": entry.forced,
        "networks": networks,
        "leads_to": leads_to,
    }


def _networks_of(lists: PresentLists, text: str) -> tuple[int | None, list[str]]:
    """Return the number of networks that an entry has in the kernel, and the addresses of a host name.

    The number is None if it is unknown.
    """
    try:
        value = parse_entry(text)
    except ValueError:  # an invalid entry, about which compose() adds an alarm
        return 0, []
    if value.kind is EntryKind.REGION:
        return lists.composed.regions.get(value.text), []
    if value.kind is EntryKind.NETWORK:
        return 1, []
    answer = lists.answers.get(value.text)
    return (None, []) if answer is None else (len(answer), addresses(answer))
