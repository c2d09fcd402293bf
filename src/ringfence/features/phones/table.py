"""The phones in the database, so that a restart of the daemon forgets none."""

from collections.abc import Iterable
from contextlib import suppress

from ringfence.features.phones.absence import FORGET, SavedPhone
from ringfence.store.file import Connection, Tables
from ringfence.store.rows import INVALID_ROW, address_of, times


class PhonesTable:
    """The database's phones. Each method raises StoreError if it fails."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[SavedPhone]:
        """Return the phones, those that were seen longest ago first. Invalid rows are left out."""
        found = []
        with self._connection.scanning() as execute:
            for asterisk, account, address, since, seen, away, until, listed in execute(
                "SELECT * FROM phones ORDER BY seen"
            ):
                with suppress(*INVALID_ROW):
                    times(since, seen)
                    found.append(
                        SavedPhone(
                            asterisk,
                            account,
                            address_of(address),
                            since,
                            seen,
                            bool(away),
                            until,
                            bool(listed),
                        )
                    )
        return found

    def replace(self, phones: Iterable[SavedPhone]) -> None:
        """Replace all rows by these phones."""
        with self._connection.transaction() as execute:
            execute("DELETE FROM phones")
            for one in phones:
                execute(
                    "INSERT INTO phones VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*one[:2], str(one.address), *one[3:]),
                )


def _purge(connection: Connection, now: float) -> None:
    """Remove the phones that are forgotten by now, in case that the feature is off."""
    with connection.transaction() as execute:
        execute("DELETE FROM phones WHERE seen < ?", (now - FORGET,))


TABLES = Tables(
    """
    CREATE TABLE phones (
        asterisk TEXT NOT NULL,
        account TEXT NOT NULL,
        address TEXT NOT NULL,
        since REAL NOT NULL,
        seen REAL NOT NULL,
        away INTEGER NOT NULL,
        until REAL,
        listed INTEGER NOT NULL
    ) STRICT;
    """,
    purge=_purge,
)
"""The table of phones, as SQL."""
