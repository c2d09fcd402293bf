"""The table of the entries that commands and imports added to the allow list and the deny list."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ringfence.model import ListEntry, ListKind
from ringfence.store.connection import Connection
from ringfence.store.rows import INVALID_ROW, times

_SELECT = "SELECT what, note, added, until, origin, forced FROM entries WHERE side = ?"


class EntryTable:
    """The list entries of a database. Every method raises StoreError if it cannot be read or written."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def current(self, kind: ListKind, now: float) -> Iterator[ListEntry]:
        """Yield the entries of a list that have not ended at ``now``, the earliest added first."""
        with self._connection.scanning() as execute:
            current = f"{_SELECT} AND (until IS NULL OR until > ?) ORDER BY added, what"
            for row in execute(current, (str(kind), now)):
                if (entry := _entry_of(kind, row)) is not None:
                    yield entry

    def about(self, kind: ListKind, values: Sequence[str], now: float, origin: str) -> list[ListEntry]:
        """Return the entries of a list that have one of ``values`` or the origin ``origin``.

        An entry's origin is ``command``, or the name of the file from which it was imported. Entries that
        have ended at ``now`` are left out.
        """
        named = f"what IN ({', '.join('?' * len(values))})"
        with self._connection.scanning() as execute:
            rows = execute(f"{_SELECT} AND ({named} OR origin = ?)", (str(kind), *values, origin)).fetchall()
        entries = (_entry_of(kind, row) for row in rows)
        return [e for e in entries if e is not None and (e.until is None or e.until > now)]

    def add(self, entries: Iterable[ListEntry]) -> None:
        """Add entries to their lists, all or none. An entry replaces one with the same value on its list."""
        with self._connection.transaction() as execute:
            for e in entries:
                row = (str(e.kind), e.value, e.note, e.added, e.until, e.origin, int(e.forced))
                execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def remove(self, kind: ListKind, values: Iterable[str]) -> int:
        """Remove the entries with these values from a list, in one transaction.

        Return how many were removed. A value that is not on the list is ignored.
        """
        with self._connection.transaction() as execute:
            delete = "DELETE FROM entries WHERE side = ? AND what = ?"
            return sum(execute(delete, (str(kind), value)).rowcount for value in values)

    def purge(self, now: float) -> None:
        """Remove entries that ended before ``now``."""
        with self._connection.transaction() as execute:
            execute("DELETE FROM entries WHERE until < ?", (now,))


def _entry_of(kind: ListKind, row: Sequence[Any]) -> ListEntry | None:
    """Return the list entry of a row; None if the row is invalid."""
    value, note, added, until, origin, forced = row
    try:
        times(added, *(() if until is None else (until,)))
    except INVALID_ROW:
        return None
    if not all(isinstance(text, str) for text in (value, note, origin)):
        return None
    return ListEntry(kind, value, note, added, until, origin, bool(forced))
