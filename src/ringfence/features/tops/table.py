"""The accounts and addresses with the most attempts of each hour."""

from collections.abc import Iterable
from typing import NamedTuple

from ringfence.store.file import Connection, Tables

HOUR = 3_600
KEEP_HOURS = 31 * 24
MOST_OF_HOUR = 50
"""The maximum number of accounts that are kept for each hour but the present one; the same of addresses.

In 31 days that is 74,000 rows, or 5 MB with names of 48 bytes. A wrong clock can leave hours after these.
"""


class Top(NamedTuple):
    """An account or address, and the number of its attempts.

    ``last`` is the begin of the last hour with an attempt (seconds since the epoch).
    """

    name: str
    attempts: int
    last: float


class TopTable:
    """The database's numbers of attempts by hour and name. ``kind`` is ``accounts`` or ``addresses``.

    Every method raises StoreError if the database cannot be read or written.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, kind: str, hour: int, counts: Iterable[tuple[str, int]]) -> None:
        """Add numbers of attempts, by account or address, to the hour ``hour`` (hours since the epoch)."""
        with self._connection.transaction() as execute:
            for name, attempts in counts:
                execute(
                    "INSERT INTO tops VALUES (?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET attempts = attempts + excluded.attempts",
                    (hour, kind, name, attempts),
                )

    def top(self, kind: str, since: float, now: float, most: int) -> list[Top]:
        """Return the ``most`` accounts or addresses with the most attempts, the highest number first.

        Attempts count from the hour that contains ``since`` to the one that contains ``now`` (seconds since
        the epoch). A clock that was wrong may have left numbers of later hours.
        """
        sql = (
            "SELECT name, sum(attempts), max(hour) FROM tops WHERE kind = ? AND hour BETWEEN ? AND ?"
            " GROUP BY name ORDER BY 2 DESC, name LIMIT ?"
        )
        with self._connection.scanning() as execute:
            rows = execute(sql, (kind, int(since // HOUR), int(now // HOUR), most)).fetchall()
        return [Top(str(name), int(attempts), float(hour * HOUR)) for name, attempts, hour in rows]

    def purge(self, now: float) -> None:
        """Remove the numbers of hours that are more than 31 days before ``now`` (epoch seconds).

        Of each hour but the present one, keep the MOST_OF_HOUR accounts with the most attempts, and as many
        addresses. Later hours stay: perhaps this clock is wrong, and theirs was right.
        """
        hour = int(now // HOUR)
        with self._connection.transaction() as execute:
            execute("DELETE FROM tops WHERE hour < ?", (hour - KEEP_HOURS,))
            execute(_TRIM, (hour, MOST_OF_HOUR))


_TRIM = """
    DELETE FROM tops WHERE (hour, kind, name) IN (
        SELECT hour, kind, name FROM (
            SELECT *, row_number() OVER (PARTITION BY hour, kind ORDER BY attempts DESC) AS place
            FROM tops WHERE hour != ?
        ) WHERE place > ?
    )
"""


TABLES = Tables(
    """
    CREATE TABLE tops (
        hour INTEGER NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        PRIMARY KEY (hour, kind, name)
    ) STRICT, WITHOUT ROWID;
    """,
    purge=lambda connection, now: TopTable(connection).purge(now),
)
