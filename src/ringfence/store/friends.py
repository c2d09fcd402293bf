"""The table of friends (known phones and trunks): each row is one reason why an address is a friend."""

import sys
from collections.abc import Iterable
from contextlib import suppress

from ringfence.model import Address, Friend, FriendReason
from ringfence.store.connection import Connection
from ringfence.store.rows import INVALID_ROW, address_of, times

KEEP_FRIENDS = 30 * 86_400.0
"""Seconds for which former friends are kept."""

MOST_FRIENDS = 131_072
"""The maximum number of reasons why addresses are or were friends: twice that of the valid reasons."""

_COLUMNS = "asterisk, address, account, tie, since, seen, until"


class FriendTable:
    """The friends of a database. Every method raises StoreError if the database cannot be read or written."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def current(self, now: float, most: int) -> list[Friend]:
        """Return the reasons why addresses are friends at ``now``; the one that was seen last comes last.

        If there are more than ``most``, those that were not seen for longest are left out.
        """
        return self._latest("until > ?", "seen", now, most)

    def former(self, now: float, most: int) -> list[Friend]:
        """Return the reasons why addresses were friends before ``now``; the one that ended last comes last.

        If there are more than ``most``, those that ended first are left out.
        """
        return self._latest("until <= ?", "until", now, most)

    def _latest(self, which: str, order: str, now: float, most: int) -> list[Friend]:
        """Return the rows for which the SQL condition ``which`` holds; its parameter is ``now``.

        They are sorted by the time in the column ``order``, the latest at the end. If there are more than
        ``most``, the earliest are left out. Invalid rows are left out too.
        """
        latest = f"SELECT {_COLUMNS} FROM friends WHERE {which} ORDER BY {order} DESC LIMIT ?"  # noqa: S608 - ours
        found = []
        with self._connection.reading() as execute:
            rows = execute(f"SELECT * FROM ({latest}) ORDER BY {order}", (now, most))  # noqa: S608 - ours
            for asterisk, address, account, reason, *moments in rows:
                with suppress(*INVALID_ROW):
                    times(*moments)
                    found.append(
                        Friend(
                            sys.intern(asterisk),  # many rows share a few texts
                            address_of(address),
                            sys.intern(account),
                            FriendReason(reason),
                            *moments,
                        )
                    )
        return found

    def add(self, friends: Iterable[Friend]) -> None:
        """Record reasons why addresses are friends. An existing record of a reason is replaced."""
        with self._connection.transaction() as execute:
            for friend in friends:
                execute(
                    f"INSERT OR REPLACE INTO friends ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - ours
                    (
                        friend.asterisk,
                        str(friend.address),
                        friend.account,
                        str(friend.reason),
                        friend.since,
                        friend.seen,
                        friend.until,
                    ),
                )

    def forget(self, address: Address) -> None:
        """Remove all reasons why ``address`` is or was a friend."""
        with self._connection.transaction() as execute:
            execute("DELETE FROM friends WHERE address = ?", (str(address),))

    def purge(self, now: float) -> None:
        """Remove former friends: the rows whose reason ended more than KEEP_FRIENDS before ``now``.

        If there are still more than MOST_FRIENDS rows, also remove those that were not seen for longest.
        """
        with self._connection.transaction() as execute:
            execute("DELETE FROM friends WHERE until < ?", (now - KEEP_FRIENDS,))
            (number,) = execute("SELECT count(*) FROM friends").fetchone()
            if number > MOST_FRIENDS:
                key = "address, asterisk, account, tie"
                oldest = f"SELECT {key} FROM friends ORDER BY seen LIMIT ?"  # noqa: S608 - ours
                execute(f"DELETE FROM friends WHERE ({key}) IN ({oldest})", (number - MOST_FRIENDS,))  # noqa: S608 - ours
