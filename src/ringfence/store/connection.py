"""The connection to the SQLite database, which the tables share.

It is SQLite in WAL mode, written by the daemon only. While the daemon is down, a command may read it and flip
the switch. Every statement is one short transaction. Recording a ban with its attempts takes some 100 µs. By
then the kernel already drops the packets.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ringfence.store.file import errors
from ringfence.store.rows import Execute


class Opened(NamedTuple):
    """The connections of SQLite: for writing, for short queries, and for long ones."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    scanner: sqlite3.Connection


class Connection:
    """The connections to one database; ``held`` is the descriptor of the owner's lock.

    Threads may share it. One thread writes at a time. Reading does not wait for writing or for the disk.
    SQLite lets one thread at a time use a connection. So long queries have one of their own, and a query of
    the event loop never waits for them. (A database in memory has one connection for everything.)
    """

    def __init__(self, path: Path, opened: Opened, held: int | None) -> None:
        self.path = path
        self._writer, self._reader, self._scanner = opened
        self._turn = threading.Lock()
        self._lock = held

    @contextmanager
    def reading(self) -> Iterator[Execute]:
        """Provide ``execute`` for short queries. Raise StoreError if one fails."""
        with errors(self.path):
            yield self._reader.execute

    @contextmanager
    def scanning(self) -> Iterator[Execute]:
        """Provide ``execute`` for queries that may take long, for threads. Raise StoreError if one fails."""
        with errors(self.path):
            yield self._scanner.execute

    @contextmanager
    def transaction(self) -> Iterator[Execute]:
        """Provide ``execute`` for writes, which are done all or none. Raise StoreError if one fails."""
        with errors(self.path), self._turn:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer.execute
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def close(self) -> None:
        """Close the connection, and release the owner's lock. May be called again."""
        self._scanner.close()
        self._reader.close()
        self._writer.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
