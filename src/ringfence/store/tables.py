"""The tables of the database except those of bans and of features.

They have small values, list entries, friends and alarms.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ringfence.alarm_codes import every_code
from ringfence.alarms import AlarmRecord
from ringfence.errors import StoreError
from ringfence.store.file import Connection
from ringfence.store.rows import INVALID_ROW, Execute, address_of, shortened, times
from ringfence.store.writer import BestEffort
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import Address, Network, parse_network
from ringfence.values.text import printable

TABLES = """    CREATE TABLE switches (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE positions (source TEXT PRIMARY KEY, position TEXT NOT NULL) STRICT;
    CREATE TABLE entries (
        side TEXT NOT NULL,
        what TEXT NOT NULL,
        note TEXT NOT NULL,
        added REAL NOT NULL,
        until REAL,
        forced INTEGER NOT NULL,
        PRIMARY KEY (side, what)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE friends (
        address TEXT NOT NULL,
        asterisk TEXT NOT NULL,
        account TEXT NOT NULL,
        tie TEXT NOT NULL,
        since REAL NOT NULL,
        seen REAL NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (address, asterisk, account, tie)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE alarms (
        number INTEGER PRIMARY KEY,
        code TEXT NOT NULL,
        subject TEXT NOT NULL,
        text TEXT NOT NULL,
        since REAL NOT NULL,
        last REAL NOT NULL,
        until REAL,
        times INTEGER NOT NULL,
        held INTEGER NOT NULL,
        cleared REAL,
        dismissed REAL,
        dismissed_by TEXT NOT NULL
    ) STRICT;
    CREATE INDEX alarms_active ON alarms (number) WHERE cleared IS NULL;
"""
"""The SQL of the tables for small values, lists, friends and alarms.

Some columns have short names. ``entries.side`` is the kind of the list, and ``entries.what`` the value of the
entry. ``friends.tie`` is the reason why an address is a friend.
"""

# -- values that a restart must not lose: whether enforcement is switched off, facts, positions in logs


class SavedState:
    """The daemon's small values in its database. Every method raises StoreError if a read or write fails."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def switched_off(self) -> bool:
        """Whether an administrator has switched enforcement off."""
        with self._connection.reading() as execute:
            row = execute("SELECT value FROM switches WHERE name = 'off'").fetchone()
        return bool(row and row[0])

    def set_switched_off(self, value: bool) -> None:  # noqa: FBT001 - the value itself
        """Record whether enforcement is switched off (True) or on."""
        with self._connection.transaction() as execute:
            execute("INSERT OR REPLACE INTO switches VALUES ('off', ?)", (int(value),))

    def fact(self, name: str) -> str | None:
        """Return the short text that the daemon last recorded under ``name``; None without one."""
        with self._connection.reading() as execute:
            row = execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def set_fact(self, name: str, value: str | None) -> None:
        """Record a short text under ``name``; None removes it."""
        with self._connection.transaction() as execute:
            if value is None:
                execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def positions(self) -> dict[str, str]:
        """Return the position up to which each log was read, by the log's key.

        The key is a text that identifies the log. Key and position are as they were passed to
        :meth:`set_positions`.
        """
        with self._connection.reading() as execute:
            rows = execute("SELECT source, position FROM positions").fetchall()
        return {source: place for source, place in rows if isinstance(source, str) and isinstance(place, str)}

    def set_positions(self, positions: Mapping[str, str]) -> None:
        """Record the positions of some logs; the positions of other logs stay."""
        with self._connection.transaction() as execute:
            for row in positions.items():
                execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", row)


# -- the table of the entries that commands added to the allow list and the deny list


_SELECT_ENTRIES = (
    "SELECT what, note, added, until, forced FROM entries WHERE side = ? AND (until IS NULL OR until > ?)"
)


class EntryTable:
    """The list entries of a database. Every method raises StoreError if it cannot be read or written."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def current(self, kind: ListKind, now: float) -> Iterator[ListEntry]:
        """Yield the entries of a list that have not ended at ``now`` (epoch), in the order of the table.

        So SQLite sorts nothing. It would sort many entries in a file, and so fail on a full disk.
        """
        return self._selected(f"{_SELECT_ENTRIES} ORDER BY what", kind, now)

    def in_order(self, kind: ListKind, now: float) -> Iterator[ListEntry]:
        """Yield the same entries, the earliest added first."""
        return self._selected(f"{_SELECT_ENTRIES} ORDER BY added, what", kind, now)

    def _selected(self, sql: str, kind: ListKind, now: float) -> Iterator[ListEntry]:
        with self._connection.scanning() as execute:
            for row in execute(sql, (str(kind), now)):
                if (entry := _entry_of(kind, row)) is not None:
                    yield entry

    def add(self, entries: Iterable[ListEntry]) -> None:
        """Add entries to their lists, all or none. An entry replaces one with the same value on its list."""
        with self._connection.transaction() as execute:
            for e in entries:
                row = (str(e.kind), e.value, e.note, e.added, e.until, int(e.forced))
                execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)

    def remove(self, kind: ListKind, values: Iterable[str]) -> list[str]:
        """Remove the entries with these values from a list, all or none.

        Return the removed ones. A value that is not on the list is ignored.
        """
        with self._connection.transaction() as execute:
            delete = "DELETE FROM entries WHERE side = ? AND what = ?"
            return [value for value in values if execute(delete, (str(kind), value)).rowcount]

    def move(self, seconds: float, before: float) -> None:
        """Move the times of the entries that end by ``seconds``, because the wall clock was set by as much.

        ``before`` is the time by the clock as it was (epoch seconds). An entry that was added later has the
        right times, and stays as it is: a host without a battery boots with a date in the past.
        """
        with self._connection.transaction() as execute:
            moved = "UPDATE entries SET until = until + ?, added = added + ?"
            execute(f"{moved} WHERE until IS NOT NULL AND added <= ?", (seconds, seconds, before))

    def purge(self, now: float) -> None:
        """Remove entries that ended before ``now`` (seconds since the epoch)."""
        with self._connection.transaction() as execute:
            execute("DELETE FROM entries WHERE until < ?", (now,))


def _entry_of(kind: ListKind, row: Sequence[Any]) -> ListEntry | None:
    """Return the list entry of a row; None if the row is invalid."""
    value, note, added, until, forced = row
    try:
        times(added, *(() if until is None else (until,)))
    except INVALID_ROW:
        return None
    if not all(isinstance(text, str) for text in (value, note)):
        return None
    return ListEntry(kind, value, note, added, until, forced=bool(forced))


# -- the table of friends (known phones and trunks): each row is one reason why an address is a friend


KEEP_FRIENDS = 30 * 86_400.0
"""Seconds for which the database keeps friends (phones and trunks) that are friends no longer."""

MOST_FRIENDS = 131_072
"""The maximum number of rows of friends: twice the number of reasons that are valid at a time."""

_FRIEND_COLUMNS = "asterisk, address, account, tie, since, seen, until"


class FriendTable:
    """The database's friends (known phones and trunks); each method raises StoreError if access fails."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def current(self, now: float, most: int) -> list[Friend]:
        """Return the reasons why addresses are friends at ``now`` (epoch); the one seen last comes last.

        If there are more than ``most``, those that were not seen for longest are left out.
        """
        return self._latest("until > ?", "seen", now, most)

    def former(self, now: float, most: int) -> list[Friend]:
        """Return the reasons why addresses were friends before ``now`` (epoch); the latest end comes last.

        If there are more than ``most``, those that ended first are left out.
        """
        return self._latest("until <= ?", "until", now, most)

    def _latest(self, which: str, order: str, now: float, most: int) -> list[Friend]:
        """Return the friends (phones and trunks) in rows for which the SQL condition ``which`` holds.

        ``now`` is its parameter. They are sorted by the time in the column ``order``, the latest last. If
        there are more than ``most``, the earliest are left out. Invalid rows are left out too.
        """
        latest = f"SELECT {_FRIEND_COLUMNS} FROM friends WHERE {which} ORDER BY {order} DESC LIMIT ?"  # noqa: S608 - ours
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
                    f"INSERT OR REPLACE INTO friends ({_FRIEND_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - ours
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
        """Remove former friends: the rows whose reason ended 30 days (KEEP_FRIENDS) before ``now`` (epoch).

        If there are still more than MOST_FRIENDS rows, also remove those that were not seen for longest.
        """
        with self._connection.transaction() as execute:
            execute("DELETE FROM friends WHERE until < ?", (now - KEEP_FRIENDS,))
            (number,) = execute("SELECT count(*) FROM friends").fetchone()
            if number > MOST_FRIENDS:
                key = "address, asterisk, account, tie"
                oldest = f"SELECT {key} FROM friends ORDER BY seen LIMIT ?"  # noqa: S608 - ours
                execute(f"DELETE FROM friends WHERE ({key}) IN ({oldest})", (number - MOST_FRIENDS,))  # noqa: S608 - ours


# -- the last known addresses of each host name, for a start at which no DNS server answers


_NAMES = "names"


class SavedNames:
    """Loads and saves the addresses of host names, as networks, with their ages in seconds.

    The *age* of an address is the time since the latest DNS answer that contained it. Errors are logged, not
    raised.
    """

    def __init__(self, state: SavedState, best_effort: BestEffort) -> None:
        self._state = state
        self._best_effort = best_effort

    def load(self) -> dict[str, dict[Network, float]]:
        """Return the last saved ages of each host name; {} if none are saved or they are invalid."""
        try:
            names = json.loads(self._best_effort.read(self._state.fact, None, _NAMES) or "{}")
            return {name: _ages(networks) for name, networks in names.items()}
        except (ValueError, TypeError, AttributeError, OverflowError) as error:  # edited by hand
            self._best_effort.report(StoreError(f"the recorded addresses of names are invalid: {error}"))
            return {}

    def save(self, ages: Mapping[str, Mapping[Network, float]]) -> None:
        """Queue a write that records the networks of each host name with their ages."""
        names = {name: {str(one): age for one, age in mine.items()} for name, mine in ages.items()}
        self._best_effort.write(self._state.set_fact, _NAMES, json.dumps(names), key=_NAMES)


def _ages(networks: Any) -> dict[Network, float]:  # noqa: ANN401 - any JSON value
    """Parse the networks of a name with their ages. If they are a list, they have none, and count as new."""
    ages = networks if isinstance(networks, dict) else dict.fromkeys(networks, 0.0)
    return {parse_network(text): max(0.0, float(age)) for text, age in ages.items()}  # NaN becomes 0.0


# -- the table of alarms. Each row is one alarm: when it began, when it cleared, and how people handled it


KEEP_ALARMS = 90 * 86_400.0
"""Seconds for which cleared alarms are kept."""
MOST_ALARMS = 10_000
"""The maximum number of cleared alarms (10 MB). If there are more, those that cleared first are removed."""
MAX_SUBJECT, MAX_TEXT, MAX_NAME = 300, 500, 300
"""The maximum lengths of an alarm's subject, its text, and the names of people who handled it, in bytes.

A limit is needed because subject and text may contain an account, and the sender chooses its length.
"""

_ALARM_COLUMNS = (
    "number, code, subject, text, since, last, until, times, held, cleared, dismissed, dismissed_by"
)

_INSERT_ALARM = f"INSERT OR REPLACE INTO alarms ({_ALARM_COLUMNS}) VALUES ({', '.join('?' * 12)})"  # noqa: S608 - ours
_DELETE_OLDEST_ALARMS = """
    DELETE FROM alarms WHERE cleared IS NOT NULL AND number NOT IN
        (SELECT number FROM alarms WHERE cleared IS NOT NULL ORDER BY cleared DESC LIMIT ?)
"""
_CODES = {str(code): code for code in every_code()}


class AlarmTable:
    """The alarms of a database. Every method raises StoreError if the database cannot be read or written."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def record(self, records: Iterable[AlarmRecord]) -> None:
        """Record alarms, all or none. An alarm replaces its earlier record with the same number."""
        with self._connection.transaction() as execute:
            for one in records:
                _write_alarm(execute, one)

    def active(self) -> list[AlarmRecord]:
        """Return the alarms that have not cleared, oldest first."""
        with self._connection.reading() as execute:
            return _select_alarms(execute, "cleared IS NULL ORDER BY number", ())

    def past(self, since: float, most: int) -> list[AlarmRecord]:
        """Return alarms that cleared at ``since`` (seconds since the epoch) or later.

        The one that cleared last comes first. If there are more than ``most``, the earliest are left out.
        """
        latest = "cleared >= ? ORDER BY cleared DESC, number DESC LIMIT ?"
        with self._connection.scanning() as execute:
            return _select_alarms(execute, latest, (since, most))

    def next_number(self) -> int:
        """Return a number for the next alarm: one more than the highest in the table."""
        with self._connection.reading() as execute:
            (number,) = execute("SELECT coalesce(max(number), 0) + 1 FROM alarms").fetchone()
        return int(number)

    def purge(self, now: float) -> None:
        """Remove alarms that cleared more than KEEP_ALARMS (90 days) before ``now`` (epoch seconds).

        Of the other cleared alarms, keep the MOST_ALARMS that cleared last.
        """
        with self._connection.transaction() as execute:
            execute("DELETE FROM alarms WHERE cleared < ?", (now - KEEP_ALARMS,))
            execute(_DELETE_OLDEST_ALARMS, (MOST_ALARMS,))


def _select_alarms(execute: Execute, which: str, values: tuple[float, ...]) -> list[AlarmRecord]:
    """Return some alarms. ``which`` is the SQL after WHERE, ``values`` are the values of its parameters.

    Invalid rows are left out, for example one with an alarm code that only another version of ringfence has.
    """
    found = []
    for row in execute(f"SELECT {_ALARM_COLUMNS} FROM alarms WHERE {which}", values):  # noqa: S608 - ours
        with suppress(*INVALID_ROW):
            found.append(_alarm_of(row))
    return found


def _write_alarm(execute: Execute, one: AlarmRecord) -> None:
    execute(
        _INSERT_ALARM,
        (
            one.number,
            str(one.code),
            shortened(printable(one.subject), MAX_SUBJECT),
            shortened(printable(one.text), MAX_TEXT),
            one.since,
            one.last,
            one.until,
            one.times,
            int(one.held),
            one.cleared,
            one.dismissed,
            shortened(printable(one.dismissed_by), MAX_NAME),
        ),
    )


def _alarm_of(row: Sequence[Any]) -> AlarmRecord:
    number, code, subject, text, since, last, until, count, held, cleared, dismissed, dismissed_by = row
    times(since, last, *(one for one in (until, cleared, dismissed) if one is not None))
    return AlarmRecord(
        int(number),
        _CODES[code],
        subject,
        text,
        since,
        last,
        until,
        int(count),
        bool(held),
        cleared,
        dismissed,
        dismissed_by,
    )
