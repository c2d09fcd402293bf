"""The connections to the SQLite database, which the tables share.

SQLite runs in WAL mode, so reading does not wait for writing. The daemon owns the database. Commands open it
too, mostly to read it. A few also write: to import a list, for example, or to change lists without a daemon.
Transactions are short, so that no process waits long for another: recording a ban with its attempts takes
some 100 µs.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ringfence.store.file import errors
from ringfence.store.owner import FileOwner
from ringfence.store.rows import Execute


class OpenConnections(NamedTuple):
    """The connections of SQLite: for writing, for short queries, and for long queries."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    scanner: sqlite3.Connection


class Connection:
    """The connections to one database, used with the rights of ``owner``.

    ``held`` is the descriptor of the lock file, None without a lock.

    Threads may share this object. One thread writes at a time. Reading does not wait for writing or for the
    disk. SQLite lets only one thread at a time use a connection. So long queries have a connection of their
    own, and a short query in the event loop never waits for them. (A database in memory has one connection
    for everything.)
    """

    def __init__(self, path: Path, owner: FileOwner, opened: OpenConnections, held: int | None) -> None:
        self.path = path
        self._owner = owner
        self._writer, self._reader, self._scanner = opened
        self._turn = threading.Lock()
        self._lock = held

    @contextmanager
    def reading(self) -> Iterator[Execute]:
        """Provide ``execute`` for short queries. Raise StoreError if one fails."""
        with errors(self.path), self._owner.acting():
            yield self._reader.execute

    @contextmanager
    def scanning(self) -> Iterator[Execute]:
        """Provide ``execute`` for queries that may take long, usually in a thread.

        Raise StoreError if a query fails.
        """
        with errors(self.path), self._owner.acting():
            yield self._scanner.execute

    @contextmanager
    def transaction(self) -> Iterator[Execute]:
        """Provide ``execute`` for writes. If the block raises an exception, none of its writes is done.

        Raise StoreError if a write fails.
        """
        with errors(self.path), self._turn, self._owner.acting():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer.execute
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def close(self) -> None:
        """Close the connections, and release the lock. May be called again."""
        with self._owner.acting():  # the last connection removes the write-ahead log
            self._scanner.close()
            self._reader.close()
            self._writer.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
