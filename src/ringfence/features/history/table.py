"""Counts of attempts and bans: for each minute of a day, each hour of a month, and each day of a year.

A *slot* is one such minute, hour or day of UTC. It has the numbers that the daemon has counted, each under a
*name*. It also has the seconds in which the daemon ran (*watched*), so a quiet hour differs from an hour
without a daemon.

The size is bounded by the number of slots (``KEPT``) and of names: 3 MB with 21 names. The slots that were
written longest ago are removed first. This does not depend on the clock, so a wrong clock removes nothing.
"""

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter

from attrs import frozen

from ringfence.store.file import Connection, Tables

MINUTE, HOUR, DAY = 60, 3_600, 86_400
KEPT = {MINUTE: 1_440, HOUR: 744, DAY: 366}
"""The numbers of minutes, hours and days whose counts are kept, by their length in seconds."""


@frozen
class Slot:
    """A minute, an hour or a day with its counts, by name; a missing name has the count 0.

    ``start`` is its start (seconds since the epoch), ``watched`` the seconds in which the daemon ran.
    """

    start: int
    watched: float
    counts: Mapping[str, int]


def slot_length(seconds: float) -> int:
    """Return the length (seconds) of the shortest slots (minute, hour, day) that are kept for ``seconds``.

    If no slots are kept for so long, return the length of the longest slots.
    """
    return next((length for length, number in KEPT.items() if seconds <= length * number), DAY)


class Timeline:
    """The database's counts by minute, hour and day (slots). Each method raises StoreError if it fails."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, at: float, watched: float, counts: Mapping[str, int]) -> None:
        """Add counts and watched seconds to the minute, hour and day of the time ``at`` (epoch seconds)."""
        with self._connection.transaction() as execute:
            (turn,) = execute("SELECT coalesce(max(turn), 0) + 1 FROM timeline").fetchone()
            for length in KEPT:
                start = int(at // length) * length
                execute(_ADD_SLOT, (length, start, watched, turn, length))
                for name, number in counts.items():
                    if number:
                        execute(_ADD_COUNT, (length, start, name, number))

    def read(self, length: int, since: float, until: float) -> list[Slot]:
        """Return the slots of ``length`` seconds that start from ``since`` to ``until``, oldest first.

        Both are in seconds since the epoch.
        """
        with self._connection.scanning() as execute:
            rows = execute(_READ, (length, since, until)).fetchall()
        found = []
        for (start, watched), group in groupby(rows, itemgetter(0, 1)):
            found.append(Slot(start, watched, {name: number for _, _, name, number in group if name}))
        return found

    def purge(self) -> None:
        """Keep ``KEPT`` slots of each length, and remove the others: those that were written longest ago."""
        with self._connection.transaction() as execute:
            for length, number in KEPT.items():
                execute(_PURGE, (length, length, number))


_ADD_SLOT = (
    "INSERT INTO timeline (length, start, watched, turn) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET watched = min(?, watched + excluded.watched), turn = excluded.turn"
)
_ADD_COUNT = (
    "INSERT INTO timeline_counts (length, start, name, number) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET number = number + excluded.number"
)
_READ = (
    "SELECT start, watched, name, number FROM timeline LEFT JOIN timeline_counts USING (length, start)"
    " WHERE length = ? AND start >= ? AND start <= ? ORDER BY start"
)
_PURGE = (
    "DELETE FROM timeline WHERE length = ? AND turn <="
    " (SELECT turn FROM timeline WHERE length = ? ORDER BY turn DESC LIMIT 1 OFFSET ?)"
)


TABLES = Tables(
    """
    CREATE TABLE timeline (
        length INTEGER NOT NULL,
        start INTEGER NOT NULL,
        watched REAL NOT NULL,
        turn INTEGER NOT NULL,
        PRIMARY KEY (length, start)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE timeline_counts (
        length INTEGER NOT NULL,
        start INTEGER NOT NULL,
        name TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (length, start, name),
        FOREIGN KEY (length, start) REFERENCES timeline ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    """,
    purge=lambda connection, _: Timeline(connection).purge(),
)
"""The table of counts, as SQL, and its purge. ``timeline.turn`` is the number of a row's last write."""
