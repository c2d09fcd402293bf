"""The connection to a database: transactions, a full disk, and locks."""

import asyncio
import ctypes
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from tests.support.attempts import attempts, ban_of
from tests.support.recorded import recorded_bans

from ringfence.errors import StoreError
from ringfence.store.database import Store
from ringfence.store.writer import Writer
from ringfence.threads import MOMENT
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.friend import Friend, FriendReason


def test_a_reader_does_not_block_the_daemon(store: Store, path: Path) -> None:
    """Bans are written while another process is reading."""
    store.bans.record([ban_of("192.0.2.1")])
    with closing(sqlite3.connect(path)) as reader:
        cursor = reader.execute("SELECT * FROM bans")
        cursor.fetchone()
        store.bans.record([ban_of("192.0.2.2")])
        cursor.close()

    assert len(recorded_bans(store, 1_000.0)) == 2


@contextmanager
def _no_file_grows() -> Iterator[None]:
    """Let this process write no file in the block, as if every disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("folder", [".", "absent"])
def test_a_full_disk_hides_neither_bans_nor_friends(tmp_path: Path, folder: str) -> None:
    """Megabytes of bans and friends are read without a temporary file, also from a database in memory."""
    bans = [evolve(ban_of(f"198.18.{n // 250}.{n % 250}"), reason="a" * 1_000) for n in range(2_000)]
    one = Friend("pbx", ip_address("192.0.2.1"), "", FriendReason.TRUNK, 500.0, 1_000.0, 9_000.0)
    friends = [evolve(one, account=f"{n:01000}", seen=1_000.0 + n) for n in range(2_000)]
    with Store.open_or_memory(tmp_path / folder / "ringfence.db") as store:
        store.bans.record(bans)
        store.friends.add(friends)
        with _no_file_grows():
            assert [*store.bans.running(2_000.0)] == bans
            assert store.friends.current(2_000.0, 9_999) == friends


def test_a_full_disk_hides_no_entry_of_the_lists(store: Store) -> None:
    """Megabytes of entries are read without a temporary file: a start needs the whole allow list."""
    entries = [ListEntry(ListKind.ALLOW, f"{n:04}.example", "a" * 1_000, 1_000.0) for n in range(3_000)]
    store.entries.add(entries)
    with _no_file_grows():
        assert [*store.entries.current(ListKind.ALLOW, 2_000.0)] == entries


def test_a_large_database_takes_little_memory(path: Path) -> None:
    """Writing and reading 2 000 bans with attempts, some 3 MB, takes less than 1.5 MB of SQLite's memory."""
    used = ctypes.CDLL("libsqlite3.so.0").sqlite3_memory_used
    used.restype = ctypes.c_int64
    before = used()
    networks = [f"198.18.{number // 250}.{number % 250}" for number in range(2_000)]
    with Store.open(path, owner=True) as store:
        for network in networks:
            store.bans.record([ban_of(network, made=attempts(5))])
        assert len(recorded_bans(store, 1_000.0)) == len(networks)
        assert sum(store.bans.count_offences(ip_network(one), 0.0) for one in networks) == len(networks)

        assert 0 < used() - before < 1_500_000


def test_a_long_query_of_a_thread_delays_no_other(store: Store) -> None:
    """While a thread runs a step of a second, the event loop reads and records bans at once."""
    ban = ban_of("192.0.2.1")
    began, over = threading.Event(), threading.Event()

    def hold() -> int:
        began.set()
        return int(over.wait(30))

    def scan() -> list[tuple[int]]:
        with store.connection.scanning() as execute:
            return execute("SELECT hold()").fetchall()

    store.connection._scanner.create_function("hold", 0, hold)
    with ThreadPoolExecutor(1) as thread:
        scanned = thread.submit(scan)
        assert began.wait(20)
        try:
            store.bans.record([ban])
            assert store.bans.count_offences(ban.network, 0.0) == 1
        finally:
            over.set()
        assert scanned.result() == [(1,)]  # 0 if the event loop had to wait for the query


def test_a_full_disk_is_an_error_until_there_is_room(store: Store) -> None:
    """A write without room raises StoreError; the content stays, and writes succeed again with room."""
    store.bans.record([ban_of("192.0.2.1")])
    (pages,) = store.connection._writer.execute("PRAGMA page_count").fetchone()
    store.connection._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        store.bans.record([ban_of("192.0.2.2", made=attempts(50, account="x" * 4_096))])
    assert recorded_bans(store, 1_000.0) == [ban_of("192.0.2.1")]

    store.connection._writer.execute("PRAGMA max_page_count = 100000")
    store.bans.record([ban_of("192.0.2.2")])
    assert len(recorded_bans(store, 1_000.0)) == 2


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the database in another process while the block runs, as a shell of SQLite may."""
    hold = (
        "import sqlite3, sys; one = sqlite3.connect(sys.argv[1]); one.execute('BEGIN IMMEDIATE'); "
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            yield
        finally:
            other.communicate()


def test_an_event_loop_does_not_wait_for_a_lock(path: Path) -> None:
    """While another process locks the database, the daemon's loop goes on, and its write is made good."""
    writer = Writer()

    async def seconds(write: Callable[[], object]) -> float:
        began = time.monotonic()
        with suppress(StoreError):
            write()
        return time.monotonic() - began

    with capture_logs(), Store.open_or_memory(path, writer) as store, writer:
        with locked(path):
            store.records.ban([ban_of("192.0.2.1")])  # the writer's thread waits for the lock
            clock = partial(store.records.record_clock, 7.0, "boot", 0.0, 1_000.0)
            fact = partial(store.state.set_fact, "name", "value")
            took = [asyncio.run(seconds(write)) for write in (clock, fact)]
        store.best_effort.write_kept()
        assert store.bans.clock() == (7.0, "boot")
        assert recorded_bans(store, 1_000.0) == [ban_of("192.0.2.1")]
    assert max(took) < 2.0


def test_a_command_waits_for_a_lock_also_in_an_event_loop(path: Path) -> None:
    """A command has no queue that tries a write again, so it waits for another process, as a thread does."""

    async def write(store: Store) -> None:
        with closing(sqlite3.connect(path, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            end = threading.Timer(3 * MOMENT, other.rollback)
            end.start()
            store.bans.record([ban_of("192.0.2.1")])
            end.join()

    with Store.open_or_memory(path) as store:
        asyncio.run(write(store))
        assert recorded_bans(store, 1_000.0) == [ban_of("192.0.2.1")]


def test_a_locked_database_is_an_error(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write raises StoreError if another process holds the lock for longer than the timeout."""
    monkeypatch.setattr("ringfence.store.file.PATIENCE", 0.05)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.bans.record([ban_of("192.0.2.1")])
        other.rollback()
    store.bans.record([ban_of("192.0.2.1")])
