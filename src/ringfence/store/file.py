"""The database's file: functions to create, lock, check, set aside and salvage it.

Damage has many causes: a disk, a power failure, a copy made while the daemon wrote. The daemon must start in
spite of any damage. A damaged file is renamed, never changed and never overwritten, because an administrator
may still want it. Its rows go into a new database one by one, as far as SQLite can read them.
"""

import fcntl
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from attrs import frozen

from ringfence.errors import StoreBusyError, StoreDamagedError, StoreError, StoreNewerError
from ringfence.store.owner import FileOwner
from ringfence.store.rows import Execute
from ringfence.threads import runs_loop

VERSION = 1
"""The version of the schema, as the database has it in ``user_version``.

The tables are those of :mod:`~ringfence.store.bans`, of :mod:`~ringfence.store.tables` and of each feature
that this copy has.
A new table, index or column is added to an older database when the daemon opens it. A column has a default
or may be NULL. An earlier ringfence refuses a database with more columns than it knows. Any other change
that it cannot read raises the version.
"""

MOST_ASIDE = 5
"""The maximum number of damaged databases that are kept.

Without a limit, a failing disk could damage one database after the other, until the copies fill the disk.
"""

CHECK_SECONDS = 8.0
"""Seconds after which a check or a salvage is ended, because systemd waits only 30 s for the start."""

PATIENCE = 5.0
"""Seconds that a read or a write waits while another process, such as a command, locks the database."""

CACHE = 256
"""The most KiB of the database that each connection keeps in memory.

SQLite's 2 000 fill within hours, and reading is no faster with them: the kernel keeps the file's pages too.
"""

_ASIDE = ".damaged-"
_MUCH_NEWER = 100
"""If a database's version is higher than ours by more than this, the database counts as damaged.

If it is higher by less, this ringfence is too old for the database.
"""

_NEWER_FIX = "upgrade ringfence, or name another [store] path"
_MODE = 0o600
_PART = 1024 * 1024  # bytes that are read at once
_STEPS = 10_000  # steps of SQLite's virtual machine between two checks of the time
_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # a table is missing or exists twice: the schema is not that of its version
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_NOTADB,
    }
)
_PRIMARY = 0xFF  # an extended result code of SQLite has its primary code in the low byte
_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""Exceptions from reading a damaged database.

:mod:`sqlite3` raises UnicodeDecodeError if SQLite's message quotes a damaged text of the schema.
"""


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """Convert an exception of SQLite in the block, or of an invalid value, into a StoreError about ``path``.

    If SQLite reports damage to the file, raise a StoreDamagedError.
    """
    try:
        yield
    except (sqlite3.Error, ValueError, KeyError) as error:
        # ValueError and KeyError: an invalid address, kind or service in a row.
        if is_damage(error):
            raise StoreDamagedError(
                f"{path}: {error}; fix: restart ringfence, which keeps the damaged file aside and goes on "
                "with what can be read of it"
            ) from error
        raise StoreError(f"{path}: {error}") from error


def is_damage(error: Exception) -> bool:
    """Whether the file's content caused ``error``, and not the disk, a lock or a permission."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY in _DAMAGE


def is_there(path: Path) -> bool:
    """Whether there is a file ``path``; True too if this user may not know: opening it raises the reason."""
    try:
        return path.exists()
    except OSError:
        return True


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection that threads may share.

    Raise StoreError if ``path`` is not a regular file (but a pipe, for example), or cannot be reached.
    """
    try:
        is_file = path.is_file()
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}") from None
    if not is_file:
        raise StoreError(f"{path} is not a regular file; see [store] path")
    return sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)


def make(path: Path) -> None:
    """Create the file ``path`` if it is missing, for its owner only; raise StoreError if that fails."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _MODE))
    except FileExistsError:
        return
    except OSError as error:
        raise cannot_make(path, error) from None


def make_private(path: Path) -> None:
    """Restrict the existing files of the database to their owner.

    Anybody who can read SQLite's shared memory can lock it, and so stop every write. Call this before SQLite
    opens the files: closing one of them again releases SQLite's locks of this process.
    """
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):  # a file is missing, or the disk is read-only: the guard must start anyway
            file = os.open(
                f"{_real(path)}{suffix}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
            try:
                if stat.S_ISREG(os.fstat(file).st_mode):
                    os.fchmod(file, _MODE)
            finally:
                os.close(file)


def cannot_make(path: Path, error: OSError) -> StoreError:
    """Return the error for a database that cannot be created because of ``error``."""
    missing = isinstance(error, FileNotFoundError)
    fix = "; fix: systemctl start ringfence makes the folder" if missing else ""
    return StoreError(f"{path} cannot be made: {error.strerror}{fix}; see [store] path")


def lock(path: Path) -> int:
    """Lock the database with a lock file next to it, until the returned descriptor is closed.

    Raise StoreBusyError if another process has the lock, StoreError if the file cannot be opened.
    """
    beside = path.with_name(path.name + ".lock")
    make(beside)
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise StoreError(f"{beside} cannot be opened: {error.strerror}; see [store] path") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreBusyError(
            f"another ringfence is using {path}; stop it first: systemctl stop ringfence"
        ) from None
    return descriptor


@frozen
class Tables:
    """Some tables of the database as SQL (``schema``), and a function that removes their old rows.

    ``purge`` gets the connections and the present time (seconds since the epoch).
    """

    schema: str
    purge: Callable[["Connection", float], object]


def prepare(connection: sqlite3.Connection, schema: str, *, upgrades: bool = False) -> None:
    """Set SQLite's modes, and create the tables of ``schema`` in a new database, whose version is 0.

    With ``upgrades``, add to another database what it lacks. Raise StoreError if the database of an earlier
    ringfence is not to be upgraded, StoreNewerError if it is of a later version, and StoreDamagedError if its
    version is a number that ringfence cannot have written.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if VERSION < version <= VERSION + _MUCH_NEWER:
        raise StoreNewerError(
            f"the database is of version {version}, newer than this ringfence knows ({VERSION}); {_NEWER_FIX}"
        )
    if not 0 <= version <= VERSION:
        raise StoreDamagedError(f"the database has the impossible version {version}")
    connection.execute("PRAGMA journal_mode = WAL")
    # A power failure may lose the last transactions, but never damages the database.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    if version == 0:
        connection.executescript(f"BEGIN; {schema} PRAGMA user_version = {VERSION}; COMMIT;")
    elif upgrades:
        missing = _missing(connection, schema)
        if missing or version < VERSION:
            _carry_out(connection, [*missing, f"PRAGMA user_version = {VERSION}"])
    elif version < VERSION or _missing(connection, schema):
        raise StoreError("the database is of an earlier ringfence; fix: systemctl restart ringfence")


def sort_in_memory(connection: sqlite3.Connection) -> None:
    """Let SQLite sort rows in memory, and not in a file: a full disk must not hide the friends at a start.

    The connection for long queries sorts in a file. 300,000 past bans would take 100 MB of memory.
    """
    connection.execute("PRAGMA temp_store = MEMORY")


def _missing(connection: sqlite3.Connection, schema: str) -> list[str]:
    """Return the SQL that adds the tables, indexes and columns of ``schema`` that the database lacks.

    Every row stays. Raise StoreNewerError if a table has all columns of ``schema``, and more that a newer
    ringfence added: these have a default or may be NULL.
    """
    there = {name for _, name, _ in _definitions(connection)}
    missing = []
    with closing(_in_memory(schema)) as wanted:
        for kind, name, sql in _definitions(wanted):
            if name not in there:
                missing.append(sql)
            elif kind == "table":
                present, columns = _columns_of(connection, name), _columns_of(wanted, name)
                known, ours = {one.name for one in present}, {one.name for one in columns}
                new = [column for column in columns if column.name not in known]
                added = (one for one in present if not one.required or one.default is not None)
                if not new and any(one.name not in ours for one in added):
                    raise StoreNewerError(
                        f"the database is of a newer ringfence: table {name} has columns that this one does "
                        f"not know; {_NEWER_FIX}"
                    )
                missing += [f"ALTER TABLE {name} ADD COLUMN {column.definition}" for column in new]
    return missing


def _carry_out(connection: sqlite3.Connection, statements: Iterable[str]) -> None:
    """Execute all SQL statements or none: after a crash in between, the database is as before."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        raise


def check(connection: sqlite3.Connection, schema: str) -> None:
    """Read the whole database with the tables of ``schema``; raise StoreDamagedError if it is damaged.

    It may have more tables: those of a feature that this copy of ringfence lacks.

    This takes 0.3 s for 60 MB (100,000 bans). After CHECK_SECONDS the check ends without a result.
    """
    if not _wanted_shape(schema) <= _shape(connection):
        raise StoreDamagedError("its tables are not those of ringfence")
    with _bounded(connection):
        try:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            return
    if found is None or found[0] != "ok":
        raise StoreDamagedError(str(found and found[0]).replace("\n", "; "))


def require_readable(path: Path) -> None:
    """Read all bytes of the database's files; raise StoreError if the disk cannot read them."""
    for suffix in ("", "-wal"):
        try:
            with open(f"{path}{suffix}", "rb", buffering=0) as file:  # noqa: PTH123 - a suffix is no path
                while file.read(_PART):
                    pass
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(
                f"{path}{suffix} cannot be read: {error.strerror}; fix: check the disk"
            ) from None


class _Column(NamedTuple):
    """A column of a table, as SQLite describes it. ``key`` is its place in the primary key, 0 for none."""

    name: str
    kind: str
    required: int
    default: str | None
    key: int

    @property
    def definition(self) -> str:
        """The column as ``CREATE TABLE`` has it."""
        required = " NOT NULL" if self.required else ""
        default = "" if self.default is None else f" DEFAULT {self.default}"
        return f"{self.name} {self.kind}{required}{default}"


def _definitions(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Return the type, the name and the definition of each table and index, the tables first."""
    wanted = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name"
    return connection.execute(wanted).fetchall()


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the tables, in the order of their creation."""
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")
    return [name for (name,) in names]


def _columns_of(connection: sqlite3.Connection, table: str) -> list[_Column]:
    rows = connection.execute("SELECT * FROM pragma_table_info(?)", (table,))
    return [_Column(*row[1:]) for row in rows]


def _shape(connection: sqlite3.Connection) -> set[tuple[object, ...]]:
    """Return the tables with columns and keys, and the indexes, comparable whatever their SQL text."""
    shape: set[tuple[object, ...]] = set()
    for kind, name, sql in _definitions(connection):
        if kind == "table":
            options = connection.execute("SELECT wr, strict FROM pragma_table_list(?)", (name,)).fetchall()
            others = connection.execute("SELECT * FROM pragma_foreign_key_list(?)", (name,)).fetchall()
            shape.add((kind, name, *options, *others, frozenset(_columns_of(connection, name))))
        else:
            shape.add((kind, name, "".join(sql.split())))
    return shape


def _in_memory(schema: str) -> sqlite3.Connection:
    memory = sqlite3.connect(":memory:", isolation_level=None)
    prepare(memory, schema)
    return memory


def _wanted_shape(schema: str) -> set[tuple[object, ...]]:
    with closing(_in_memory(schema)) as memory:
        return _shape(memory)


@contextmanager
def _bounded(connection: sqlite3.Connection) -> Iterator[None]:
    """Interrupt the statements of ``connection`` when the block has run for CHECK_SECONDS."""
    end = time.monotonic() + CHECK_SECONDS
    connection.set_progress_handler(lambda: int(time.monotonic() > end), _STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def size_of(path: Path) -> int:
    """Return the size of the database and of SQLite's files next to it, in bytes.

    Missing files count as 0.
    """
    size = 0
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            size += os.stat(f"{path}{suffix}").st_size  # noqa: PTH116 - a suffix is no path
    return size


def set_aside(path: Path) -> Path:
    """Rename a damaged database and its write-ahead log; return the database's new path.

    Raise StoreError if that fails, or if MOST_ASIDE damaged databases are kept already.
    """
    real = _real(path)
    try:
        taken = {file.name for file in real.parent.iterdir()}
        names = (f"{real.name}{_ASIDE}{number}" for number in range(1, MOST_ASIDE + 1))
        name = next((name for name in names if name not in taken), None)
        if name is None:
            raise StoreError(
                f"{real} is damaged, and {MOST_ASIDE} damaged files are kept already; fix: find the cause "
                f"(the disk?), then remove {real}{_ASIDE}*"
            )
        aside = real.with_name(name)
        # SQLite's write-ahead log is renamed first, because it must never stay next to a new database.
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                os.rename(f"{real}{suffix}", f"{aside}{suffix}")  # noqa: PTH104 - a suffix is no path
    except OSError as error:
        raise StoreError(f"{real} is damaged and cannot be renamed: {error.strerror}") from None
    return aside


def put_back(path: Path, aside: Path) -> None:
    """Undo :func:`set_aside`, so that a later start reads the damaged database again.

    The new database at ``path`` is removed. If that fails, the damaged one stays at ``aside``.
    """
    real = _real(path)
    with suppress(OSError):
        for suffix in ("", "-wal", "-shm"):
            Path(f"{real}{suffix}").unlink(missing_ok=True)
        # The write-ahead log comes last, because it must never stay next to a new database.
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.rename(f"{aside}{suffix}", f"{real}{suffix}")  # noqa: PTH104 - a suffix is no path


def files_set_aside(path: Path) -> list[Path]:
    """Return the paths of all databases that :func:`set_aside` has renamed and that still exist.

    Return [] if the folder is unreadable.
    """
    real = _real(path)
    try:
        files = [file for file in real.parent.iterdir() if file.name.startswith(f"{real.name}{_ASIDE}")]
    except OSError:
        return []
    return sorted(file for file in files if file.name.rpartition("-")[2].isdecimal())


def _real(path: Path) -> Path:
    """Return ``path`` with links resolved; a loop of links raises no error.

    If the database is a link to a file on another disk, that file is renamed, and the link stays.
    """
    return Path(os.path.realpath(path))


def salvage(path: Path, target: sqlite3.Connection) -> dict[str, int]:
    """Copy the readable rows of the database at ``path`` into ``target``; return their number by table.

    The tables are copied in the order of their creation. Small and important tables come first, because the
    time may not suffice for all. An attempt refers to its ban, so bans come before attempts.

    Return {} if the file is missing or cannot be opened. A row is left out if SQLite cannot read it, if its
    types are wrong, or if CHECK_SECONDS have passed before it is copied. Raise StoreError if ``target``
    cannot be written, because the disk is full for example.
    """
    if not os.path.isfile(_real(path)):  # noqa: PTH113 - False also if it may not be known
        return {}
    # Try with SQLite's write-ahead log first, then without it. Neither changes the database or the log.
    for how in ("mode=ro", "immutable=1"):
        with suppress(*_ERRORS), closing(_opened(path, how)) as source:
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            with _bounded(source):
                return {table: _copy(source, target, table) for table in _tables(target)}
    return {}


def _opened(path: Path, how: str) -> sqlite3.Connection:
    source = sqlite3.connect(f"{_real(path).as_uri()}?{how}", uri=True, isolation_level=None)
    # Otherwise a byte that is not UTF-8 would raise an error, which ends the reading.
    source.text_factory = lambda text: text.decode("utf-8", "replace")
    return source


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> int:
    """Copy a table into ``target``; return the number of copied rows.

    Read the table from its start. If a row is unreadable, continue from the end of the table backwards, until
    a row is unreadable again.
    """
    key, columns = _key_and_columns(target, table)
    with suppress(*_ERRORS):
        _, there = _key_and_columns(source, table)
        columns = [column for column in columns if column in there] if there else columns
    names = ", ".join(columns)
    insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - ours
    copied = 0
    _write(target, "BEGIN")
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{column} {direction}" for column in key)
        wanted = f"SELECT {names} FROM {table} ORDER BY {order}"  # noqa: S608 - ours
        try:
            for row in source.execute(wanted):
                copied += _write(target, insert, row)
        except _ERRORS:
            continue
        break
    _write(target, "COMMIT")
    return copied


def _write(target: sqlite3.Connection, sql: str, row: Sequence[object] = ()) -> int:
    """Execute SQL that writes; return the number of written rows, 0 if ``row`` cannot be one of the table.

    Raise StoreError for any other reason.
    """
    try:
        return target.execute(sql, row).rowcount
    except _ERRORS as error:
        if is_damage(error):
            return 0
        raise StoreError(f"the rows of the damaged database cannot be copied: {error}") from error


def _key_and_columns(connection: sqlite3.Connection, table: str) -> tuple[list[str], list[str]]:
    """Return the columns of a table's primary key (``rowid`` if it has none), and all columns to copy."""
    rows = connection.execute(f"PRAGMA table_info({table})").fetchall()
    columns = [str(row[1]) for row in rows]
    key = [str(row[1]) for row in sorted(rows, key=itemgetter(5)) if row[5]]
    return (key, columns) if key else (["rowid"], ["rowid", *columns])


def described(rows: Mapping[str, int]) -> str:
    """Return the numbers of salvaged bans, list entries and friends as text. ``rows`` has them by table."""
    named = {"bans": "bans", "entries": "list entries", "friends": "friends"}
    return ", ".join(f"{rows.get(table, 0)} {name}" for table, name in named.items())


# -- the connections to the SQLite database, which the tables share
#
# SQLite runs in WAL mode, so reading does not wait for writing. The daemon owns the database. Commands open
# it too, mostly to read it. A few also write: to import a list, for example, or to change lists without a
# daemon. Transactions are short, so that no process waits long for another: recording a ban with its
# attempts takes some 100 µs.


class OpenConnections(NamedTuple):
    """Three SQLite connections to one database: for writing, for short queries, and for long queries."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    scanner: sqlite3.Connection


def _file_at(path: Path, unknown: tuple[int, int] | None = None) -> tuple[int, int] | None:
    """Return the device and the number of the file at ``path``, ``unknown`` if that cannot be looked up.

    Return None if there is no file.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return unknown
    return found.st_dev, found.st_ino


class Connection:
    """The connections to one database, used with the rights of ``owner``.

    ``held`` is the descriptor of the lock file, None without a lock. ``in_loop`` is how many seconds a write
    in an event loop waits for other writers. Then it fails, as on a disk that takes no writes. In any other
    thread it waits for the threads of this process, and ``PATIENCE`` seconds for other processes.

    Threads may share this object. One thread writes at a time. Reading does not wait for writing or for the
    disk. SQLite lets only one thread at a time use a connection. So long queries have a connection of their
    own, and a short query in the event loop never waits for them. (A database in memory has one connection
    for everything.)
    """

    def __init__(
        self,
        path: Path,
        owner: FileOwner,
        opened: OpenConnections,
        held: int | None,
        in_loop: float = PATIENCE,
    ) -> None:
        self.path = path
        self._owner = owner
        self._writer, self._reader, self._scanner = opened
        self._in_loop = in_loop
        self._turn = threading.Lock()
        self._lock = held
        self._file = _file_at(path)

    @property
    def replaced(self) -> bool:
        """Whether the opened file is no longer at the path. SQLite goes on writing to it all the same."""
        return _file_at(self.path, self._file) != self._file

    @contextmanager
    def reading(self) -> Iterator[Execute]:
        """Provide a function that executes short SQL queries; raise StoreError if one fails."""
        with errors(self.path), self._owner.acting():
            yield self._reader.execute

    @contextmanager
    def scanning(self) -> Iterator[Execute]:
        """Provide a function that executes SQL queries that may take long, usually in a thread.

        Raise StoreError if a query fails.
        """
        with errors(self.path), self._owner.acting():
            yield self._scanner.execute

    @contextmanager
    def transaction(self) -> Iterator[Execute]:
        """Provide a function that executes SQL writes; if the block raises an exception, none is done.

        Raise StoreError if a write fails.
        """
        with errors(self.path), self._in_turn(), self._owner.acting():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer.execute
                self._writer.execute("COMMIT")  # it writes the pages, and fails on a full disk
            except BaseException:
                if self._writer.in_transaction:  # SQLite may have ended the transaction itself
                    with suppress(sqlite3.Error):  # the first error is the cause
                        self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Keep other threads from writing during the block, and limit its wait for other processes.

        Raise sqlite3.OperationalError in an event loop if another thread writes for long.
        """
        in_loop = runs_loop()
        if not self._turn.acquire(timeout=self._in_loop if in_loop else -1):
            raise sqlite3.OperationalError("database is locked")
        try:
            seconds = self._in_loop if in_loop else PATIENCE
            self._writer.execute(f"PRAGMA busy_timeout = {round(1_000 * seconds)}")
            yield
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close the connections, and release the lock. May be called again."""
        with self._owner.acting():  # the last connection removes the write-ahead log
            self._scanner.close()
            self._reader.close()
            self._writer.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
