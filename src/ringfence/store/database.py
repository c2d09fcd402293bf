"""The database of bans with their attempts, list entries, friends, and the daemon's saved state.

A ban is written after the kernel has acknowledged it. So a crash in between loses only the record: the next
start finds the ban in the kernel and adopts it.

SQLite's ``user_version`` is the version of the schema. A command rejects a damaged database, and one of a
newer ringfence. The daemon starts with any database (:meth:`Store.open_or_memory`).
"""

import os
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

from ringfence import street
from ringfence.errors import StoreBusyError, StoreDamagedError, StoreError
from ringfence.store.bans import BANS, BanTable, Records
from ringfence.store.file import (
    CACHE,
    PATIENCE,
    Connection,
    OpenConnections,
    Tables,
    cannot_make,
    check,
    connect,
    described,
    errors,
    files_set_aside,
    lock,
    make,
    make_private,
    prepare,
    put_back,
    require_readable,
    salvage,
    set_aside,
    size_of,
    sort_in_memory,
)
from ringfence.store.owner import FileOwner, owner_of
from ringfence.store.switch import OffSwitch
from ringfence.store.tables import TABLES, AlarmTable, EntryTable, FriendTable, SavedNames, SavedState
from ringfence.store.writer import BestEffort, Later, at_once
from ringfence.threads import MOMENT


def _of_features() -> list[Tables]:
    """Return the SQL tables of each feature that this copy of ringfence has."""
    return [module.TABLES for module in street.modules("table")]


def schema() -> str:
    """Return all tables of the database as SQL: those of the daemon, and then those of each feature."""
    return TABLES + BANS + "".join(one.schema for one in _of_features())


class Store:
    """An open database, with an object for each kind of content: bans, lists, friends, alarms and so on.

    The tables of a feature use its ``connection``.
    ``later`` queues the writes that the caller does not wait for, or runs them at once. ``memory_reason`` is
    the reason why the content is in memory only, "" if it is in the file. ``damage`` is a message about
    damage found when the database was opened, "" if there was none. ``runtime`` is the folder of the control
    socket (see :class:`OffSwitch`).
    """

    def __init__(
        self,
        connection: Connection,
        later: Later = at_once,
        *,
        memory_reason: str = "",
        damage: str = "",
        runtime: Path | None = None,
    ) -> None:
        self.memory_reason = memory_reason
        self.alarms = AlarmTable(connection)
        self.bans = BanTable(connection)
        self.entries = EntryTable(connection)
        self.friends = FriendTable(connection)
        self.state = SavedState(connection)
        self.best_effort = BestEffort(connection.path, later, memory_reason, self._gone)
        self.switch = OffSwitch(self.state, self.best_effort, runtime)
        self.records = Records(self.bans, self.switch, self.best_effort)
        self.names = SavedNames(self.state, self.best_effort)
        self.connection = connection
        self._damage = damage

    @classmethod
    def open(cls, path: Path, *, owner: bool, runtime: Path | None = None) -> Self:
        """Open the database at ``path``; create it if needed.

        With ``owner``, lock it, and raise StoreBusyError if another process has the lock. ``runtime`` is the
        folder of the control socket, None if there is none. Raise StoreError if the database cannot be used.
        """
        user = _owner(path)
        with user.acting():
            held = lock(path) if owner else None
            try:
                if owner:
                    make_private(path)
                opened = _connections(path, upgrades=owner)
            except BaseException:
                if held is not None:
                    os.close(held)
                raise
        return cls(Connection(path, user, opened, held), runtime=runtime)

    @classmethod
    def open_or_memory(
        cls,
        path: Path,
        later: Later = at_once,
        *,
        runtime: Path | None = None,
    ) -> Self:
        """Open the database and lock it, whatever its condition. Raise only StoreBusyError.

        ``later`` queues the writes that the caller does not wait for, or runs them at once. ``runtime`` is
        the folder of the control socket, None if there is none.

        A damaged file is renamed (see :meth:`damage`), and its readable rows are copied into a new database.
        If nothing can be written, or the database is of a newer ringfence, the store is in memory, with a
        copy of the readable rows.
        """
        held, source, user, damage = None, None, FileOwner.of_process(), ""
        try:
            user, source = _owner(path), path
            with user.acting():
                held = lock(path)
                make_private(path)
                try:
                    opened = _checked_connections(path)
                except StoreDamagedError as error:
                    opened, kept = _replace_damaged(path)
                    damage = f"the database was damaged ({error.__cause__ or error}); {kept}"
            # Only the daemon has a queue. Its event loop must go on, and the queue tries failed writes again.
            in_loop = PATIENCE if later is at_once else MOMENT
            connection = Connection(path, user, opened, held, in_loop)
            return cls(connection, later, damage=damage, runtime=runtime)
        except StoreBusyError:
            raise
        except StoreError as error:
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            prepare(memory, schema())
            sort_in_memory(memory)
            if source is not None:
                with user.acting():
                    salvage(source, memory)
            reason = (
                f"{error}: until this is fixed and ringfence is restarted, nothing is remembered for long"
            )
            connection = Connection(path, user, OpenConnections(memory, memory, memory), held)
            return cls(connection, later, memory_reason=reason, runtime=runtime)

    @property
    def error(self) -> str:
        """Why the next start may not know the latest changes; "" if it will."""
        return self._gone() or self.best_effort.error

    def _gone(self) -> str:
        """Return why the next start will not find the database that is in use; "" if it will."""
        if self.memory_reason or not self.connection.replaced:
            return ""
        path = self.connection.path
        return f"{path} was removed or replaced while it was in use; fix: systemctl restart ringfence"

    def damage(self) -> str:
        """Return a message about damage to the database, with the fix; "" if there is none.

        Damage found by :meth:`open_or_memory` is reported until an administrator removes the damaged files,
        also after later starts. Damage found by a later read or write is reported until the daemon stops.
        """
        if self.best_effort.damage:
            return self.best_effort.damage
        aside = files_set_aside(self.connection.path)
        if not aside:
            return ""
        names = ", ".join(map(str, aside))
        reason = self._damage or "damaged databases of earlier starts are kept"
        return f"{reason}; fix: check the disk, then remove {names}"

    def size(self) -> int:
        """Return the size of the database's files in bytes; 0 if it is in memory only."""
        return 0 if self.memory_reason else size_of(self.connection.path)

    def purge(self, now: float) -> None:
        """Remove the rows that are too old or too many at ``now`` (epoch), from each table that grows."""
        for table in (self.alarms, self.bans, self.entries, self.friends):
            table.purge(now)
        for tables in _of_features():
            tables.purge(self.connection, now)

    def close(self) -> None:
        """Close the database. May be called again."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _owner(path: Path) -> FileOwner:
    """Return the owner of the folder of the database ``path``; raise StoreError if it cannot be used."""
    try:
        return owner_of(path)
    except OSError as error:
        raise cannot_make(path, error) from None


def _replace_damaged(path: Path) -> tuple[OpenConnections, str]:
    """Rename the damaged database at ``path``, and copy its readable rows into a new one.

    Return the connections to the new one, and a text: where the damaged one is, and how many rows could be
    read. If the new one cannot be written, put the damaged one back, and raise StoreError.
    """
    aside = set_aside(path)
    try:
        with ExitStack() as stack:
            opened = _connections(path)
            for connection in opened:
                stack.enter_context(closing(connection))
            with errors(path):
                rows = described(salvage(aside, opened.writer))
            stack.pop_all()
    except StoreError:
        put_back(path, aside)
        raise
    return opened, f"it is kept as {aside}, and {rows} could be read"


def _checked_connections(path: Path) -> OpenConnections:
    """Open the database at ``path`` and read all of it; raise StoreDamagedError if it is damaged.

    An error of the disk may look like damage to SQLite. So a file counts as damaged only if the disk can read
    all of it, and if a second look finds the damage again. Otherwise raise StoreError.
    """
    try:
        return _connections(path, checked=True)
    except StoreDamagedError:
        require_readable(path)
        return _connections(path, checked=True)


def _connections(path: Path, *, checked: bool = False, upgrades: bool = False) -> OpenConnections:
    """Open the database at ``path``; create it first if needed.

    With ``checked``, read all of it, and raise StoreDamagedError if it is damaged. With ``upgrades`` or
    ``checked``, a database of an earlier version becomes one of this version.
    """
    with errors(path):
        make(path)
        with ExitStack() as stack:
            writer = stack.enter_context(closing(connect(path)))
            prepare(writer, schema(), upgrades=upgrades or checked)
            if checked:
                check(writer, schema())
            reader, scanner = (stack.enter_context(closing(connect(path))) for _ in range(2))
            opened = OpenConnections(writer, reader, scanner)
            for connection in opened:
                connection.execute(f"PRAGMA cache_size = -{CACHE}")
            sort_in_memory(reader)
            stack.pop_all()
            return opened
