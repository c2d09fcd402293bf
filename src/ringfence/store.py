"""What ringfence remembers: bans with their attempts, friends, places in logs, whether enforcement is off.

SQLite in WAL mode, written by the daemon alone; a command may read it and flip the switch while the daemon is
down. A ban is written after the kernel has acknowledged it, so a crash between the two loses the record and
not the ban: it is found in the kernel at the next start and adopted. Every statement is one short
transaction; a ban with its attempts takes some 100 µs, after the packet drops have begun.

Bounded by age: what ended more than ``KEEP`` ago is purged. The schema's version stands in ``user_version``;
a database from a newer ringfence is refused rather than guessed at.
"""

import fcntl
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from typing import Self

from attrs import evolve

from ringfence.errors import StoreBusyError, StoreError, StoreNewerError
from ringfence.model import Address, Attempt, Ban, Friend, ListEntry, Made, Network, Origin, Scope, Side
from ringfence.schema import SCHEMA
from ringfence.store_past import Past, past_of
from ringfence.store_rows import (
    ATTEMPT,
    add_attempt,
    add_friends,
    attempt_of,
    former_in,
    friends_in,
    purge_friends,
)

KEEP = 90 * 86_400.0
"""How long an ended ban is remembered, in seconds; three times what decides on a longer ban."""

KEEP_FRIENDS = 30 * 86_400.0
"""How long it is remembered that an address was a friend, in seconds."""

MOST = 300_000
"""So many bans are remembered, those that run and the latest of those that ended: some 300 MB of file."""


class Store:
    """An open database. Every method raises StoreError where the database cannot be read or written.

    Threads may share it: one writes at a time, and reading waits for no writing, nor for its disk.
    """

    def __init__(
        self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection, lock: int | None
    ) -> None:
        self.path = path
        self._writer = writer
        self._reader = reader
        self.unreadable = 0
        """How many bans made no sense when they were read last."""
        self._turn = threading.Lock()
        self._lock = lock

    @classmethod
    def open(cls, path: Path, *, owner: bool) -> Self:
        """Open the database at ``path``, making or migrating it where needed.

        ``owner`` is the daemon: it alone may be one, and StoreBusyError tells a second.
        """
        lock = _lock(path) if owner else None
        try:
            with _errors(path):
                _make(path)
                writer = _connect(path)
                try:
                    _prepare(writer)
                    reader = _connect(path)
                except BaseException:
                    writer.close()
                    raise
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        return cls(path, writer, reader, lock)

    @classmethod
    def open_anyhow(cls, path: Path) -> tuple[Self, str]:
        """Open the daemon's database; where it cannot be written, a copy of it that is lost in the end.

        Give it, and what is wrong, "" where nothing is: a full disk must not keep the guard from its post.
        Still raises StoreBusyError, and StoreNewerError, since a later ringfence may mean something else.
        """
        try:
            return cls.open(path, owner=True), ""
        except (StoreBusyError, StoreNewerError):
            raise
        except StoreError as error:
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            with _errors(path):
                _copy(path, memory)
                _prepare(memory)
            problem = f"{error}: until this is mended and ringfence restarted, nothing is remembered for long"
            return cls(path, memory, memory, None), problem

    def close(self) -> None:
        """Give the database back. May be called again."""
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
        """Remember bans that the kernel has, all or none; what runs for the same network ends with it.

        To record the same ban again (it was put back, say) changes nothing.
        """
        with self._transaction() as execute:
            for ban in bans:
                _record(execute, ban)

    def end(self, bans: Iterable[tuple[Network, Scope]], when: float) -> None:
        """Remember that the bans of these networks were lifted at ``when``."""
        with self._transaction() as execute:
            for network, scope in bans:
                _end(execute, network, scope, when)

    def resume(self, bans: Iterable[tuple[Network, Scope]], when: float) -> None:
        """Forget that the bans of these networks were lifted at ``when``."""
        with self._transaction() as execute:
            for network, scope in bans:
                execute(
                    "UPDATE bans SET ended = NULL WHERE network = ? AND scope = ? AND ended = ?",
                    (str(network), str(scope), when),
                )

    def lately_lifted(self, now: float) -> list[tuple[Network, Scope]]:
        """Give the bans that ended, or were followed by another, before their time was over."""
        with _errors(self.path):
            rows = self._reader.execute(
                "SELECT DISTINCT network, scope FROM bans WHERE ended IS NOT NULL AND expires > ?", (now,)
            )
            return [(_network(network), _SCOPES[scope]) for network, scope in rows]

    def running(self, now: float) -> list[Ban]:
        """Give every ban that has time left and was not lifted, with its attempts, oldest first."""
        with _errors(self.path):
            evidence = self._evidence(now)
            return [
                evolve(ban, attempts=tuple(evidence.get(identity, ())))
                for identity, ban, _ in self._each(now)
            ]

    def each_running(self, now: float) -> Iterator[tuple[Ban, Made]]:
        """Give the same one after the other, each without its attempts and with their numbers."""
        with _errors(self.path):
            for _, ban, made in self._each(now):
                yield ban, made

    def _each(self, now: float) -> Iterator[tuple[int, Ban, Made]]:
        rows = self._reader.execute(
            "SELECT id, network, since, expires, rule, reason, origin, scope, offence, forced, made, proven"
            " FROM bans WHERE ended IS NULL AND expires > ? ORDER BY since, id",
            (now,),
        )
        self.unreadable = 0
        for identity, network, since, expires, rule, reason, origin, scope, offence, forced, *made in rows:
            try:
                ban = Ban(
                    _network(network),
                    since,
                    expires,
                    sys.intern(rule),  # the same few texts, a hundred thousand times
                    sys.intern(reason),
                    _ORIGINS[origin],
                    scope=_SCOPES[scope],
                    offence=offence,
                    forced=bool(forced),
                )
            except (ValueError, KeyError, OSError):  # somebody has written there: the others are right
                self.unreadable += 1
                continue
            yield identity, ban, Made(*made)

    def bans_before(self, network: Network, since: float) -> int:
        """Count the bans that rules gave ``network`` since then, but for floods: these may be forged."""
        with _errors(self.path):
            sql = "SELECT count(*) FROM bans WHERE network = ? AND since >= ? AND origin = ? AND scope = ?"
            row = (str(network), since, str(Origin.RULE), str(Scope.FULL))
            (number,) = self._reader.execute(sql, row).fetchone()
        return int(number)

    def past(self, network: Network, since: float, most: int) -> list[Past]:
        """Give the latest bans of ``network``, and around it, that ended after ``since``, or run."""
        with _errors(self.path):
            return past_of(self._reader.execute, network, since, most)

    def purge(self, now: float) -> None:
        """Forget what ended more than KEEP before ``now``, and of what ended the oldest beyond MOST bans."""
        with self._transaction() as execute:
            execute("DELETE FROM bans WHERE coalesce(ended, expires) < ?", (now - KEEP,))
            (number,) = execute("SELECT count(*) FROM bans").fetchone()
            over = "SELECT id FROM bans WHERE coalesce(ended, expires) < ? ORDER BY since, id LIMIT ?"
            execute(f"DELETE FROM bans WHERE id IN ({over})", (now, max(0, number - MOST)))  # noqa: S608 - ours
            execute("DELETE FROM entries WHERE until < ?", (now,))
            purge_friends(execute, now - KEEP_FRIENDS)

    def positions(self) -> dict[str, str]:
        """Give how far each log was read, by what :meth:`remember_positions` was told."""
        with _errors(self.path):
            return dict(self._reader.execute("SELECT source, position FROM positions"))

    def remember_positions(self, positions: Mapping[str, str]) -> None:
        """Remember how far logs were read, beside what is known of others."""
        with self._transaction() as execute:
            for row in positions.items():
                execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", row)

    def entries(self, side: Side, now: float) -> Iterator[ListEntry]:
        """Give the entries of a list that commands wrote and that have not ended, one by one, in order."""
        with _errors(self.path):
            rows = self._reader.execute(
                "SELECT what, note, added, until, origin, forced FROM entries"
                " WHERE side = ? AND (until IS NULL OR until > ?) ORDER BY added, what",
                (str(side), now),
            )
            for what, note, added, until, origin, forced in rows:
                yield ListEntry(side, what, note, added, until, origin, bool(forced))

    def entries_about(self, side: Side, whats: Sequence[str], now: float, origin: str) -> list[ListEntry]:
        """Give the entries that say one of ``whats``, and all that came from ``origin``."""
        says = f"what IN ({', '.join('?' * len(whats))})"
        wanted = "SELECT what, note, added, until, forced, origin FROM entries WHERE side = ?"
        with _errors(self.path):
            rows = self._reader.execute(
                f"{wanted} AND ({says} OR origin = ?)", (str(side), *whats, origin)
            ).fetchall()
        return [
            ListEntry(side, what, note, added, until, come_from, bool(forced))
            for what, note, added, until, forced, come_from in rows
            if until is None or until > now
        ]

    def add_entries(self, entries: Iterable[ListEntry]) -> None:
        """Put entries on their lists, all or none; one that is there already is replaced."""
        with self._transaction() as execute:
            for e in entries:
                row = (str(e.side), e.what, e.note, e.added, e.until, e.origin, int(e.forced))
                execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def remove_entries(self, side: Side, whats: Iterable[str]) -> int:
        """Take entries off a list, by what they say; give how many were on it."""
        with self._transaction() as execute:
            delete = "DELETE FROM entries WHERE side = ? AND what = ?"
            return sum(execute(delete, (str(side), what)).rowcount for what in whats)

    def fact(self, name: str) -> str | None:
        """Give what was last remembered under ``name``."""
        with _errors(self.path):
            row = self._reader.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def remember_fact(self, name: str, value: str | None) -> None:
        """Remember something small under ``name``; None forgets it."""
        with self._transaction() as execute:
            if value is None:
                execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def friends(self, now: float, most: int) -> list[Friend]:
        """Give why addresses are friends at ``now``, those seen longest ago first; the latest ``most``."""
        with _errors(self.path):
            return list(friends_in(self._reader.execute, now, most))

    def former_friends(self, now: float, most: int) -> list[Friend]:
        """Give why addresses were friends before ``now``, those that ended longest ago first."""
        with _errors(self.path):
            return list(former_in(self._reader.execute, now, most))

    def remember_friends(self, friends: Iterable[Friend]) -> None:
        """Remember why addresses are friends; a reason that is there already is replaced."""
        with self._transaction() as execute:
            add_friends(execute, friends)

    def forget_friend(self, address: Address) -> None:
        """Forget that ``address`` is, or was, a friend."""
        with self._transaction() as execute:
            execute("DELETE FROM friends WHERE address = ?", (str(address),))

    @property
    def switched_off(self) -> bool:
        """Whether an administrator has taken every rule and set away, until further notice."""
        with _errors(self.path):
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
            found.setdefault(identity, []).append(attempt_of(row))
        return found

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with _errors(self.path), self._turn:
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
    """Read a network as it was written here: with its length. A third of what ``ip_network`` takes."""
    address, _, length = text.partition("/")
    try:
        if ":" in address:
            return IPv6Network((inet_pton(AF_INET6, address), int(length)))
        return IPv4Network((inet_pton(AF_INET, address), int(length)))
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is no network") from None


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)


def _record(execute: Callable[..., sqlite3.Cursor], ban: Ban) -> None:
    same = (str(ban.network), ban.since, ban.expires, str(ban.scope))
    # By the network: many that are placed at once have one end, and each would look at all of them.
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
            *Made.by(ban.attempts),
            ban.offence,
            int(ban.forced),
        ),
    ).lastrowid
    for attempt in ban.attempts:
        add_attempt(execute, int(identity or 0), attempt)


def _end(execute: Callable[..., sqlite3.Cursor], network: Network, scope: Scope, when: float) -> None:
    """End what runs for ``network``; a ban whose time was over by then had ended by itself."""
    execute(
        "UPDATE bans INDEXED BY bans_network SET ended = ?"
        " WHERE network = ? AND scope = ? AND ended IS NULL AND expires > ?",
        (when, str(network), str(scope), when),
    )


def _make(path: Path) -> None:
    """Make a file, if there is none, its folder's owner's: what root does must not lock the daemon out."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640))
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.chown(path, folder.st_uid, folder.st_gid)
    except FileExistsError:
        return
    except FileNotFoundError as error:
        mend = "systemctl start ringfence makes the folder; see [store] path"
        raise StoreError(f"{path} cannot be made: {error.strerror}; {mend}") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be made: {error.strerror}; see [store] path") from None


def _prepare(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(SCHEMA):
        raise StoreNewerError(
            f"the database is of version {version}, newer than this ringfence knows ({len(SCHEMA)}); "
            "upgrade ringfence, or name another [store] path"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    # A power failure may lose the last transactions, never the database: the kernel has the bans.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    for number, script in enumerate(SCHEMA[version:], start=version + 1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")


def _copy(path: Path, memory: sqlite3.Connection) -> None:
    """Read what can be read of the database: with its log where that works, else without."""
    for how in ("mode=ro", "immutable=1"):
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?{how}", uri=True)) as source:
                source.backup(memory)
        except sqlite3.Error:
            continue
        return


def _lock(path: Path) -> int:
    """Take the lock beside the database for this process, or raise StoreBusyError."""
    lock = path.with_name(path.name + ".lock")
    _make(lock)
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{lock} cannot be opened: {error.strerror}; see [store] path") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreBusyError(
            f"another ringfence is using {path}; stop it first: systemctl stop ringfence"
        ) from None
    return descriptor


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError, KeyError) as error:  # or a row that holds no address, kind or service
        raise StoreError(f"{path}: {error}") from error
