"""The database of bans with their attempts, friends, log positions, and the switch for enforcement.

It is SQLite in WAL mode, written by the daemon only. While the daemon is down, a command may read it and flip
the switch. A ban is written after the kernel has acknowledged it. So a crash between the two loses the record
and not the ban: the next start finds it in the kernel and adopts it. Every statement is one short
transaction. A ban with its attempts takes some 100 µs, after its packets are already dropped.

The size is limited by age: bans that ended more than ``KEEP`` ago are removed. ``user_version`` is the
version of the schema. A command rejects a damaged database, and one of a newer ringfence. The daemon starts
with any database (:meth:`Store.open_or_memory`).
"""

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from typing import Self

from attrs import evolve

from ringfence.errors import StoreBusyError, StoreDamagedError, StoreError
from ringfence.model import (
    Address,
    Attempt,
    AttemptCounts,
    Ban,
    Friend,
    ListEntry,
    ListKind,
    Network,
    Origin,
    Scope,
)
from ringfence.store.file import (
    check,
    connect,
    described,
    errors,
    lock,
    make,
    prepare,
    salvage,
    set_aside,
    set_aside_before,
)
from ringfence.store.history import Past, past_of
from ringfence.store.rows import (
    ATTEMPT,
    INVALID_ROW,
    Ended,
    add_attempt,
    add_friends,
    attempts_in,
    entry_of,
    former_in,
    friends_in,
    purge_friends,
    times,
)

KEEP = 90 * 86_400.0
"""Seconds for which ended bans are kept: three times the period that lengthens repeat bans."""

KEEP_FRIENDS = 30 * 86_400.0
"""Seconds for which former friends are kept."""

_CLOCK = "clock"

MOST = 300_000
"""Bans that are kept, the active ones and the latest of the ended ones: some 300 MB of file."""


class Store:
    """An open database. Every method raises StoreError if the database cannot be read or written.

    Threads may share it. One writes at a time, and reading waits neither for writing nor for its disk.
    """

    def __init__(
        self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection, held: int | None
    ) -> None:
        self.path = path
        self._writer = writer
        self._reader = reader
        self.unreadable = 0
        """The number of unreadable bans in the latest reading."""
        self._damage = ""
        self._turn = threading.Lock()
        self._lock = held

    @classmethod
    def open(cls, path: Path, *, owner: bool) -> Self:
        """Open the database at ``path``, creating or migrating it if needed.

        ``owner`` is true for the daemon. Raise StoreBusyError if another process owns the database.
        """
        held = lock(path) if owner else None
        try:
            return cls._opened(path, held)
        except BaseException:
            if held is not None:
                os.close(held)
            raise

    @classmethod
    def _opened(cls, path: Path, held: int | None, *, checked: bool = False) -> Self:
        with errors(path):
            make(path)
            writer = connect(path)
            try:
                prepare(writer)
                if checked:
                    check(writer)
                reader = connect(path)
            except BaseException:
                writer.close()
                raise
        return cls(path, writer, reader, held)

    @classmethod
    def open_or_memory(cls, path: Path) -> tuple[Self, str]:
        """Open the daemon's database in any condition; raise only StoreBusyError.

        A damaged file is set aside (:meth:`look_for_damage`), and a new database gets what could be read of
        it. If nothing can be written, or the database is of a newer ringfence, the store is a copy in memory.
        Return the store, and the reason why it is in memory ("" if it is not).
        """
        held, source = None, path
        try:
            held = lock(path)
            try:
                return cls._opened(path, held, checked=True), ""
            except StoreDamagedError as error:
                source = set_aside(path)
                store = cls._opened(path, held)
                store.take_over(source, str(error.__cause__ or error))
                return store, ""
        except StoreBusyError:
            raise
        except StoreError as error:
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            prepare(memory)
            salvage(source, memory)
            fix = "until this is fixed and ringfence is restarted, nothing is remembered for long"
            return cls(path, memory, memory, held), f"{error}: {fix}"

    def take_over(self, aside: Path, cause: str) -> None:
        """Copy what can be read of a damaged database that was set aside."""
        with errors(self.path):
            rows = described(salvage(aside, self._writer))
        self._damage = f"the database was damaged ({cause}); it is kept as {aside}, and {rows} could be read"

    def look_for_damage(self) -> str:
        """Return a message about the damaged databases that are kept, and the fix; "" if there are none."""
        aside = set_aside_before(self.path)
        if not aside:
            return ""
        names = ", ".join(map(str, aside))
        reason = self._damage or "damaged databases of earlier starts are kept"
        return f"{reason}; fix: check the disk, then remove {names}"

    def close(self) -> None:
        """Close the database. May be called again."""
        self._reader.close()
        self._writer.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def record(self, bans: Iterable[Ban]) -> None:
        """Record bans that the kernel has, all or none; a ban ends the earlier ban of the same network.

        Recording the same ban again (because it was restored, for example) changes nothing.
        """
        with self._transaction() as execute:
            for ban in bans:
                _record(execute, ban)

    def end(self, bans: Iterable[tuple[Network, Scope]], when: float) -> None:
        """Record that the bans of these networks were removed at ``when``."""
        with self._transaction() as execute:
            for network, scope in bans:
                _end(execute, network, scope, when)

    def resume(self, bans: Iterable[tuple[Network, Scope]], when: float) -> None:
        """Undo the record that the bans of these networks were removed at ``when``."""
        with self._transaction() as execute:
            for network, scope in bans:
                execute(
                    "UPDATE bans SET ended = NULL WHERE network = ? AND scope = ? AND ended = ?",
                    (str(network), str(scope), when),
                )

    def lately_lifted(self, now: float) -> list[Ended]:
        """Return the bans that were removed, or replaced by another, before their time was over."""
        return self._ends("ended IS NOT NULL AND expires > ?", (now,))

    def ends(self) -> list[Ended]:
        """Return the bans that were not removed, including expired ones."""
        return self._ends("ended IS NULL", ())

    def _ends(self, which: str, values: tuple[float, ...]) -> list[Ended]:
        with errors(self.path):
            found = []
            for network, scope, expires in self._reader.execute(
                f"SELECT network, scope, expires FROM bans WHERE {which}",  # noqa: S608 - ours
                values,
            ):
                with suppress(*INVALID_ROW):
                    times(expires)
                    found.append((_network(network), _SCOPES[scope], expires))
            return found

    def clock_is(self, offset: float, step: float, now: float) -> None:
        """Record the lead of the wall clock over the monotonic one.

        If the clock was set by ``step`` seconds, move the bans that had time left, all or none.
        """
        with self._transaction() as execute:
            if step:
                execute(
                    "UPDATE bans SET since = since + ?, expires = expires + ?, ended = ended + ?"
                    " WHERE expires > ?",
                    (step, step, step, now - step),
                )
            execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_CLOCK, repr(offset)))

    def clock(self) -> float | None:
        """Return what :meth:`clock_is` recorded last."""
        try:
            return float(self.fact(_CLOCK) or "")
        except ValueError:
            return None

    def running(self, now: float) -> list[Ban]:
        """Return every active ban with its attempts, oldest first."""
        with errors(self.path):
            evidence = self._evidence(now)
            return [
                evolve(ban, attempts=tuple(evidence.get(identity, ())))
                for identity, ban, _ in self._each(now)
            ]

    def each_running(self, now: float) -> Iterator[tuple[Ban, AttemptCounts]]:
        """Yield every active ban without its attempts, but with their counts, oldest first."""
        with errors(self.path):
            for _, ban, made in self._each(now):
                yield ban, made

    def _each(self, now: float) -> Iterator[tuple[int, Ban, AttemptCounts]]:
        rows = self._reader.execute(
            "SELECT id, network, since, expires, rule, reason, origin, scope, offence, forced, made, proven"
            " FROM bans WHERE ended IS NULL AND expires > ? ORDER BY since, id",
            (now,),
        )
        self.unreadable = 0
        for identity, network, since, expires, rule, reason, origin, scope, offence, forced, *made in rows:
            try:
                times(since, expires)
                ban = Ban(
                    _network(network),
                    since,
                    expires,
                    sys.intern(rule),  # 100,000 rows share a few texts
                    sys.intern(reason),
                    _ORIGINS[origin],
                    scope=_SCOPES[scope],
                    offence=int(offence),
                    forced=bool(forced),
                )
                number = AttemptCounts(*map(int, made))
            except INVALID_ROW:  # edited by hand or damaged: the other rows are valid
                self.unreadable += 1
                continue
            yield identity, ban, number

    def bans_before(self, network: Network, since: float) -> int:
        """Count the bans of ``network`` by rules since then, except for floods, which may be forged."""
        with errors(self.path):
            sql = "SELECT count(*) FROM bans WHERE network = ? AND since >= ? AND origin = ? AND scope = ?"
            row = (str(network), since, str(Origin.RULE), str(Scope.FULL))
            (number,) = self._reader.execute(sql, row).fetchone()
        return int(number)

    def past(self, network: Network, since: float, most: int) -> list[Past]:
        """Return the latest bans of ``network`` and around it that ended after ``since`` or are active."""
        with errors(self.path):
            return past_of(self._reader.execute, network, since, most)

    def purge(self, now: float) -> None:
        """Remove bans that ended more than KEEP before ``now``, and the oldest ended ones beyond MOST."""
        with self._transaction() as execute:
            execute("DELETE FROM bans WHERE coalesce(ended, expires) < ?", (now - KEEP,))
            (number,) = execute("SELECT count(*) FROM bans").fetchone()
            over = "SELECT id FROM bans WHERE coalesce(ended, expires) < ? ORDER BY since, id LIMIT ?"
            execute(f"DELETE FROM bans WHERE id IN ({over})", (now, max(0, number - MOST)))  # noqa: S608 - ours
            execute("DELETE FROM entries WHERE until < ?", (now,))
            purge_friends(execute, now - KEEP_FRIENDS)

    def positions(self) -> dict[str, str]:
        """Return the position up to which each log was read, by the key of :meth:`remember_positions`."""
        with errors(self.path):
            rows = self._reader.execute("SELECT source, position FROM positions").fetchall()
        return {source: place for source, place in rows if isinstance(source, str) and isinstance(place, str)}

    def remember_positions(self, positions: Mapping[str, str]) -> None:
        """Record the positions of some logs; those of others stay."""
        with self._transaction() as execute:
            for row in positions.items():
                execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", row)

    def entries(self, kind: ListKind, now: float) -> Iterator[ListEntry]:
        """Yield the unexpired entries of a list that commands or imports added, sorted."""
        with errors(self.path):
            rows = self._reader.execute(
                "SELECT what, note, added, until, origin, forced FROM entries"
                " WHERE side = ? AND (until IS NULL OR until > ?) ORDER BY added, what",
                (str(kind), now),
            )
            for row in rows:
                if (entry := entry_of(kind, row)) is not None:
                    yield entry

    def entries_about(
        self, kind: ListKind, values: Sequence[str], now: float, origin: str
    ) -> list[ListEntry]:
        """Return the entries with one of ``values``, and all whose origin is ``origin``."""
        says = f"what IN ({', '.join('?' * len(values))})"
        wanted = "SELECT what, note, added, until, origin, forced FROM entries WHERE side = ?"
        with errors(self.path):
            rows = self._reader.execute(
                f"{wanted} AND ({says} OR origin = ?)", (str(kind), *values, origin)
            ).fetchall()
        entries = (entry_of(kind, row) for row in rows)
        return [e for e in entries if e is not None and (e.until is None or e.until > now)]

    def add_entries(self, entries: Iterable[ListEntry]) -> None:
        """Add entries to their lists, all or none; an existing entry is replaced."""
        with self._transaction() as execute:
            for e in entries:
                row = (str(e.kind), e.value, e.note, e.added, e.until, e.origin, int(e.forced))
                execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def remove_entries(self, kind: ListKind, values: Iterable[str]) -> int:
        """Remove entries from a list by value; return how many were on it."""
        with self._transaction() as execute:
            delete = "DELETE FROM entries WHERE side = ? AND what = ?"
            return sum(execute(delete, (str(kind), value)).rowcount for value in values)

    def fact(self, name: str) -> str | None:
        """Return the value last recorded under ``name``."""
        with errors(self.path):
            row = self._reader.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def remember_fact(self, name: str, value: str | None) -> None:
        """Record a small value under ``name``; None removes it."""
        with self._transaction() as execute:
            if value is None:
                execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def friends(self, now: float, most: int) -> list[Friend]:
        """Return the reasons valid at ``now``, sorted by the last sighting; the latest ``most``."""
        with errors(self.path):
            return list(friends_in(self._reader.execute, now, most))

    def former_friends(self, now: float, most: int) -> list[Friend]:
        """Return the reasons that ended before ``now``, sorted by their end; the latest ``most``."""
        with errors(self.path):
            return list(former_in(self._reader.execute, now, most))

    def remember_friends(self, friends: Iterable[Friend]) -> None:
        """Record reasons of friends; an existing reason is replaced."""
        with self._transaction() as execute:
            add_friends(execute, friends)

    def forget_friend(self, address: Address) -> None:
        """Remove all reasons of ``address``, also ended ones."""
        with self._transaction() as execute:
            execute("DELETE FROM friends WHERE address = ?", (str(address),))

    @property
    def switched_off(self) -> bool:
        """Whether an administrator has switched enforcement off."""
        with errors(self.path):
            row = self._reader.execute("SELECT value FROM switches WHERE name = 'off'").fetchone()
        return bool(row and row[0])

    @switched_off.setter
    def switched_off(self, value: bool) -> None:
        with self._transaction() as execute:
            execute("INSERT OR REPLACE INTO switches VALUES ('off', ?)", (int(value),))

    def _evidence(self, now: float) -> dict[int, list[Attempt]]:
        found: dict[int, list[Attempt]] = {}
        rows = self._reader.execute(
            f"SELECT ban, {ATTEMPT} FROM attempts JOIN bans ON bans.id = attempts.ban"  # noqa: S608 - ours
            " WHERE bans.ended IS NULL AND bans.expires > ? ORDER BY attempts.rowid",
            (now,),
        )
        for identity, *row in rows:
            found.setdefault(identity, []).extend(attempts_in([row]))
        return found

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with errors(self.path), self._turn:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer.execute
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")


_ORIGINS = {str(origin): origin for origin in Origin}
_SCOPES = {str(scope): scope for scope in Scope}


def _network(text: str) -> Network:
    """Parse a network as it is stored, with its prefix length: in a third of the time of ``ip_network``."""
    address, _, length = text.partition("/")
    try:
        if ":" in address:
            return IPv6Network((inet_pton(AF_INET6, address), int(length)))
        return IPv4Network((inet_pton(AF_INET, address), int(length)))
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is no network") from None


def _record(execute: Callable[..., sqlite3.Cursor], ban: Ban) -> None:
    same = (str(ban.network), ban.since, ban.expires, str(ban.scope))
    # Search by network: bans that were placed at once share one end, and each search would read all of them.
    known = (
        "SELECT 1 FROM bans INDEXED BY bans_network"
        " WHERE network = ? AND since = ? AND expires = ? AND scope = ? AND ended IS NULL"
    )
    if execute(known, same).fetchone():
        return
    _end(execute, ban.network, ban.scope, ban.since)
    identity = execute(
        "INSERT INTO bans"
        " (network, since, expires, scope, rule, reason, origin, made, proven, offence, forced)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *same,
            ban.rule,
            ban.reason,
            str(ban.origin),
            *AttemptCounts.of(ban.attempts),
            ban.offence,
            int(ban.forced),
        ),
    ).lastrowid
    for attempt in ban.attempts:
        add_attempt(execute, int(identity or 0), attempt)


def _end(execute: Callable[..., sqlite3.Cursor], network: Network, scope: Scope, when: float) -> None:
    """End the active ban of ``network``; a ban whose time was over by then had expired."""
    execute(
        "UPDATE bans INDEXED BY bans_network SET ended = ?"
        " WHERE network = ? AND scope = ? AND ended IS NULL AND expires > ?",
        (when, str(network), str(scope), when),
    )
