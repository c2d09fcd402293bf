"""The handlers of the control socket's requests about lists."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from ringfence.errors import ControlError, ListError
from ringfence.lists.entries import (
    COMMAND,
    CONFIGURATION,
    Addition,
    Answer,
    EntryKind,
    EntryValue,
    ListRow,
    addresses,
    entry_refusal,
    network_text,
    parse_entry,
    texts_of,
)
from ringfence.lists.manager import Lists, PresentLists
from ringfence.lists.prefixes import Gatherer, Prefixes, coded, text_of
from ringfence.lists.sizes import check_size
from ringfence.model import ListEntry, ListKind, Network, parse_network, printable
from ringfence.store.tables import EntryTable

# -- the storage of entries, and the import of lists
#
# An import may have a million networks, and the daemon must be able to write bans meanwhile. So an import
# is written in parts of ten thousand. New networks are added before old ones are removed. So a network that
# is in both the old and the new version of a file is never missing.


T = TypeVar("T")

AT_ONCE = 10_000
"""The number of entries that are written at once. The daemon's writes wait for this, some 50 ms."""

PAUSE = 0.01  # seconds between parts, for the daemon's writes: SQLite has no queue of writers


def replace_imported(
    entries: EntryTable,
    kind: ListKind,
    origin: str,
    networks: Prefixes,
    *,
    note: str,
    now: float,
    most: int,
    force: bool = False,
) -> tuple[int, int]:
    """Replace the networks imported from ``origin``; return how many are new, and how many were removed.

    Raise ListError before anything is written if the imported lists would then have more than ``most``
    networks. Raise it too, unless ``force``, if the file covers a large part of the internet, or if it has
    grown too much since the last import: whoever publishes the file could have anybody denied.

    Entries of other origins stay: an import removes no entry that a person added. A network that has such an
    entry is not added. Networks that the file already had are not written again, unless their note differs
    from ``note``.
    """
    before, same_note, others, imported = Gatherer(), Gatherer(), Gatherer(), Gatherer()
    for entry in entries.current(kind, now):
        # Host names and regions are skipped (``coded`` raises ValueError): no imported file has them.
        with suppress(ValueError):
            version, code = coded(entry.value)
            (before if entry.origin == origin else others).add_code(version, code)
            if entry.origin not in {origin, COMMAND, CONFIGURATION}:
                imported.add_code(version, code)
            if entry.origin == origin and entry.note == note:
                same_note.add_code(version, code)
    known, settled, taken = before.unmerged(), same_note.unmerged(), others.unmerged()
    if not force:
        check_size(networks, before.prefixes(), len(known))
    _check_room(networks, imported.prefixes(), most)
    new = 0
    for part in _parts(
        one for one in networks.coded() if not settled.has_code(*one) and not taken.has_code(*one)
    ):
        entries.add([ListEntry(kind, text_of(*one), note, now, None, origin) for one in part])
        new += sum(not known.has_code(*one) for one in part)
        time.sleep(PAUSE)
    gone = remove(entries, kind, (text_of(*one) for one in known.coded() if not networks.has_code(*one)))
    return new, gone


def _check_room(networks: Prefixes, others: Prefixes, most: int) -> None:
    whole = Gatherer()
    whole.extend(networks)
    whole.extend(others)
    number = len(whole.prefixes())
    if number > most:
        raise ListError(
            f"the imported lists would hold {number} networks, of which {most} fit: nothing is changed; "
            "fix: raise [firewall] max_bans and reload, or remove another imported list"
        )


def remove(entries: EntryTable, kind: ListKind, values: Iterable[str]) -> int:
    """Remove entries from a list, in parts; return how many were removed."""
    number = 0
    for part in _parts(values):
        number += entries.remove(kind, part)
        time.sleep(PAUSE)
    return number


def _parts(source: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(source)
    while part := list(islice(rest, AT_ONCE)):
        yield part


class ListRequests:
    """Handles the control socket's requests about ``lists``.

    ``table`` stores the entries that commands add. ``now`` returns wall-clock seconds.
    """

    def __init__(self, lists: Lists, table: EntryTable, now: Callable[[], float]) -> None:
        self._lists = lists
        self._table = table
        self._now = now

    def handlers(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        """Return the handler of each request, by the request's name."""
        return {
            "allow_add": lambda request: self.add(ListKind.ALLOW, request),
            "allow_remove": lambda request: self.remove(ListKind.ALLOW, request),
            "deny_add": lambda request: self.add(ListKind.DENY, request),
            "deny_remove": lambda request: self.remove(ListKind.DENY, request),
            "lists": self.report,
            "lists_reload": self.reload,
            "feeds": self.feeds,
            "feeds_refresh": self.refresh_feeds,
        }

    async def add(self, kind: ListKind, request: Mapping[str, Any]) -> dict[str, list[str]]:
        """Add entries to a list; return the added ones, and problems about the others."""
        addition, now = Addition.of(request), self._now()
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
            await self._lists.in_thread(self._table.add, entries)
            await self._lists.refresh()
        added = (value for value in addition.values if value.text in answer.done)
        answer.notes += _notes(self._lists.present, kind, added)
        return answer.as_json()

    async def remove(self, kind: ListKind, request: Mapping[str, Any]) -> dict[str, list[str]]:
        """Remove entries from a list, by value or by imported file.

        Return the removed ones, and problems about the others.
        """
        answer = await self._lists.in_thread(self._remove, kind, request)
        if answer.done:
            await self._lists.refresh()
        return answer.as_json()

    async def report(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the entries of a list. All entries of an imported file are one row.

        Raise ControlError if there is no such list.
        """
        try:
            kind = ListKind(request.get("side", ""))
        except ValueError:
            raise ControlError('the list must be "allow" or "deny"') from None
        rows = await self._lists.in_thread(self._rows, kind)
        return [row.as_json() for row in rows]

    def _rows(self, kind: ListKind) -> list[ListRow]:
        return _rows(self._lists.present, self._lists.entries(self._now()), kind)

    async def reload(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Compose the lists again, because another process has written an import into the store.

        Return the number of networks of each list, and the alarms about the deny list. Those about the allow
        list are left out, because an import changes only the deny list.
        """
        await self._lists.refresh()
        networks = self._lists.networks
        return {
            "allow": len(networks.allow),
            "deny": len(networks.deny),
            "fetched": len(networks.fetched),
            "alarms": [alarm.as_json() for alarm in self._lists.deny_alarms],
        }

    async def feeds(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the feeds; ``denies`` of each are the networks of the request that it denies."""
        now, networks = self._now(), [parse_network(text) for text in request.get("networks", ())]
        return [feed.as_json(now, networks) for feed in self._lists.feeds]

    async def refresh_feeds(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Read the files of all feeds now, and return the feeds.

        With ``force``, accept any size of the feeds ``names``. Raise ControlError if one does not exist.
        """
        names = frozenset(request.get("names", ()))
        unknown = names - {feed.source.name for feed in self._lists.feeds}
        if unknown:
            raise ControlError(f"no feed has the name {printable(min(unknown))}; see: ringfence feeds list")
        await self._lists.refresh(names if request.get("force") else frozenset())
        return await self.feeds({})

    def _remove(self, kind: ListKind, request: Mapping[str, Any]) -> Answer:
        answer, now, lists = Answer(), self._now(), self._lists.present
        origin = request.get("origin")
        if isinstance(origin, str):
            gone = [entry.value for entry in self._table.current(kind, now) if entry.origin == origin]
            number = remove(self._table, kind, gone)
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
            configured = any(e.value == value.text and e.kind is kind for e in lists.configured.entries)
            if self._table.remove(kind, [value.text]):
                answer.done.append(value.text)
                if configured:
                    answer.notes.append(f"{value.text} is still in the configuration, [{kind}]")
            elif configured:
                answer.problems.append(
                    f"{value.text} is in the configuration, [{kind}]: remove it there, and reload"
                )
            else:
                answer.problems.append(_not_there(lists, kind, value.text, value.network))
        return answer


def _refusal(lists: PresentLists, kind: ListKind, value: EntryValue) -> str | None:
    """Return why a list refuses an entry unless it is forced; None if it accepts the entry."""
    if value.kind is EntryKind.REGION and not lists.configured.databases:
        return f"{value.text}: its networks come from a database; name it in [geo] database, and reload"
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
            yield f"{value.text} stays allowed: the allow list has {network_text(around)}, and it wins"
        if value.kind is EntryKind.REGION and not lists.composed.regions.get(value.text):
            yield "; ".join(
                [
                    f"{value.text}: no database has a network of it, so nothing changes",
                    *(alarm.text for alarm in lists.geo_alarms),
                ]
            )


def _not_there(lists: PresentLists, kind: ListKind, text: str, network: Network | None) -> str:
    networks = lists.composed.networks
    sets = (networks.allow,) if kind is ListKind.ALLOW else (networks.deny, networks.fetched)
    found = (one.containing(network) for one in sets if network is not None)
    around = next((one for one in found if one is not None), None)
    if around is None:
        return f"{text} is not on the {kind} list"
    return f"{text} is not on the {kind} list itself, but within {network_text(around)}, which is"


def _rows(lists: PresentLists, entries: Iterable[ListEntry], kind: ListKind) -> list[ListRow]:
    rows: list[ListRow] = []
    files: dict[str, ListRow] = {}
    for entry in entries:
        if entry.kind is not kind:
            continue
        if entry.origin in {COMMAND, CONFIGURATION}:
            rows.append(_row(lists, entry))
            continue
        row = files.setdefault(entry.origin, ListRow(entry=entry.origin, source=entry.origin, file=True))
        row.note, row.added = entry.note, entry.added
        row.networks = (row.networks or 0) + 1
    return [*rows, *files.values()]


def _row(lists: PresentLists, entry: ListEntry) -> ListRow:
    value = parse_entry(entry.value)
    networks: int | None = 1
    leads_to: list[str] = []
    if value.kind is EntryKind.HOST:
        answer = lists.answers.get(value.text)
        networks, leads_to = (None, []) if answer is None else (len(answer), addresses(answer))
    elif value.kind is EntryKind.REGION:
        networks = lists.composed.regions.get(value.text)
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
