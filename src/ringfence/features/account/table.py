"""The tables of accounts, of their countries, and of the places where they log in."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ringfence.features.account.places import KEEP, Account, Country, Grade, Key, Place
from ringfence.store.file import Connection, Tables
from ringfence.store.rows import address_of

Row = tuple[str, str, float, list[tuple[Any, ...]], list[tuple[Any, ...]]]
"""The Asterisk, the account, its first login, and the rows of its countries and of its places."""


def row_of(key: Key, account: Account) -> Row:
    """Return an account as rows, which a thread may write while the account changes."""
    countries = [(name, int(one.own), one.days, one.day) for name, one in account.countries.items()]
    places = [_cells_of(place) for place in account.places.values()]
    return (*key, account.since, countries, places)


def _cells_of(place: Place) -> tuple[Any, ...]:
    return (
        str(place.address),
        place.country,
        place.asn,
        str(place.grade),
        int(place.home),
        place.since,
        place.last,
        place.times,
        place.days,
        place.day,
    )


class AccountTable:
    """The accounts of a database with their places. Every method raises StoreError on failure."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, rows: Sequence[Row], dropped: Sequence[Key] = ()) -> None:
        """Replace the accounts of ``rows``, and remove those of ``dropped``."""
        with self._connection.transaction() as execute:
            for key in dropped:
                execute("DELETE FROM accounts WHERE asterisk = ? AND account = ?", key)
            for asterisk, account, since, countries, places in rows:
                # A replaced row takes its countries and places with it.
                execute("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", (asterisk, account, since))
                for one in countries:
                    execute(_ADD_COUNTRY, (asterisk, account, *one))
                for one in places:
                    execute(_ADD_PLACE, (asterisk, account, *one))

    def load(self, now: float) -> list[tuple[Key, Account]]:
        """Return the accounts with their places of the last ``KEEP`` seconds, the earliest login first.

        A place with an invalid address or grade is left out, and so is an account without places. If an
        account logged in after now, the clock was ahead then, or is behind now: it counts as logged in now,
        and keeps its age.
        """
        with self._connection.scanning() as execute:
            found = {
                (asterisk, account): Account(since)
                for asterisk, account, since in execute("SELECT * FROM accounts")
            }
            for asterisk, account, *rest in execute("SELECT * FROM account_countries"):
                if (asterisk, account) in found:
                    code, own, days, day = rest
                    found[asterisk, account].countries[code] = Country(bool(own), days, day)
            ordered: dict[Key, Account] = {}
            for asterisk, account, *rest in execute(_PLACES, (now - KEEP,)):
                key = asterisk, account
                with suppress(ValueError):
                    place = _parsed(rest)
                    if key in found:
                        found[key].put(place)
                        ordered.pop(key, None)
                        ordered[key] = found[key]
        for account in ordered.values():
            account.move(min(0.0, now - max(place.last for place in account.places.values())))
            account.since = min(account.since, now)
        return [*ordered.items()]

    def purge(self, now: float) -> None:
        """Remove the places without a login in the last ``KEEP`` seconds, and accounts without a place."""
        with self._connection.transaction() as execute:
            execute("DELETE FROM account_places WHERE last < ?", (now - KEEP,))
            execute(
                "DELETE FROM accounts WHERE (asterisk, account) NOT IN"
                " (SELECT asterisk, account FROM account_places)"
            )


_ADD_COUNTRY = "INSERT INTO account_countries VALUES (?, ?, ?, ?, ?, ?)"
_ADD_PLACE = "INSERT OR REPLACE INTO account_places VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PLACES = "SELECT * FROM account_places WHERE last >= ? ORDER BY last"


def _parsed(row: Sequence[Any]) -> Place:
    """Return the place in a row; raise ValueError if its address or its grade is invalid."""
    address, country, asn, grade, home, since, last, times, days, day = row
    return Place(
        address_of(address), country, asn, Grade(grade), bool(home), since, last, times, days, day, last
    )


TABLES = Tables(
    """
    CREATE TABLE accounts (
        asterisk TEXT NOT NULL,
        account TEXT NOT NULL,
        since REAL NOT NULL,
        PRIMARY KEY (asterisk, account)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE account_countries (
        asterisk TEXT NOT NULL,
        account TEXT NOT NULL,
        country TEXT NOT NULL,
        own INTEGER NOT NULL,
        days INTEGER NOT NULL,
        day INTEGER NOT NULL,
        PRIMARY KEY (asterisk, account, country),
        FOREIGN KEY (asterisk, account) REFERENCES accounts ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE account_places (
        asterisk TEXT NOT NULL,
        account TEXT NOT NULL,
        address TEXT NOT NULL,
        country TEXT NOT NULL,
        asn TEXT NOT NULL,
        grade TEXT NOT NULL,
        home INTEGER NOT NULL,
        since REAL NOT NULL,
        last REAL NOT NULL,
        times INTEGER NOT NULL,
        days INTEGER NOT NULL,
        day INTEGER NOT NULL,
        PRIMARY KEY (asterisk, account, address),
        FOREIGN KEY (asterisk, account) REFERENCES accounts ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    """,
    purge=lambda connection, now: AccountTable(connection).purge(now),
)
"""The tables, as SQL, and their purge. A day is the number of a day since the epoch (UTC)."""
