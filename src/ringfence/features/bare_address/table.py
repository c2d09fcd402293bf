"""The table of what friends ask for, by address."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from ringfence.features.bare_address.habits import MOST, WATCH_FOR, Habit
from ringfence.store.file import Connection, Tables
from ringfence.store.rows import address_of
from ringfence.values.network import Address

LOST_AFTER = 86_400.0
"""Seconds without a record after which what was recorded before counts no more: nobody has watched since."""


class HabitTable:
    """What friends ask for, and since when that is recorded. Every method raises StoreError on failure."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, began: float, now: float, rows: Sequence[tuple[Address, Habit]]) -> None:
        """Record that friends were watched from ``began`` to ``now``, and the habits that changed."""
        with self._connection.transaction() as execute:
            execute("DELETE FROM bare_address_watch")
            execute("INSERT INTO bare_address_watch VALUES (?, ?)", (began, now))
            for address, habit in rows:
                times = (max(one, 0.0) for one in (habit.named, habit.bare))
                row = (str(address), *times, habit.host)
                execute("INSERT OR REPLACE INTO bare_address_friends VALUES (?, ?, ?, ?)", row)

    def load(self, now: float) -> tuple[float, list[tuple[Address, Habit]]]:
        """Return since when friends are watched, and their habits since then, at most ``WATCH_FOR`` old.

        That is ``now``, without habits, if nobody has watched them for ``LOST_AFTER`` seconds. A row with an
        invalid address is left out.
        """
        with self._connection.scanning() as execute:
            watched = [*execute("SELECT began, ended FROM bare_address_watch")]
            if not watched or not now - LOST_AFTER <= watched[0][1] <= now or watched[0][0] > now:
                return now, []
            began = watched[0][0]
            return began, [*_parsed(execute(_LATEST, (max(began, now - WATCH_FOR), MOST)))]

    def purge(self, now: float) -> None:
        """Remove the habits of addresses that asked for nothing within ``WATCH_FOR``."""
        with self._connection.transaction() as execute:
            execute("DELETE FROM bare_address_friends WHERE max(named, bare) < ?", (now - WATCH_FOR,))


_LATEST = (
    "SELECT * FROM (SELECT * FROM bare_address_friends WHERE max(named, bare) >= ?"
    " ORDER BY max(named, bare) DESC LIMIT ?) ORDER BY max(named, bare)"
)


def _parsed(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[Address, Habit]]:
    for address, named, bare, host in rows:
        with suppress(ValueError):
            yield address_of(address), Habit(named or -inf, bare or -inf, host)


TABLES = Tables(
    """
    CREATE TABLE bare_address_watch (began REAL NOT NULL, ended REAL NOT NULL) STRICT;
    CREATE TABLE bare_address_friends (
        address TEXT PRIMARY KEY,
        named REAL NOT NULL,
        bare REAL NOT NULL,
        host TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    purge=lambda connection, now: HabitTable(connection).purge(now),
)
"""The tables, as SQL, and their purge. A time of 0 is none."""
