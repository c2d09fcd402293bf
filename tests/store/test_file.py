"""Damaged databases: the guard starts with any damage to the file, and the file is kept aside."""

import os
import random
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.support.attempts import ban_of
from tests.support.daemon import Guard, until
from tests.support.damage import (
    BANS,
    PAGE,
    behind_the_header,
    chance_of,
    clear,
    fill,
    noise,
    ones,
    some_bytes,
    start,
    start_over_damage,
    zeros,
)
from tests.support.recorded import recorded_bans
from tests.support.world import START

from ringfence.errors import Exit, StoreDamagedError, StoreError, StoreNewerError
from ringfence.store import file
from ringfence.store.database import Store
from ringfence.store.file import VERSION
from ringfence.values.entry import ListKind


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.long)])
def test_the_daemon_starts_with_any_damage_to_any_page(path: Path, every: int) -> None:
    """Every start succeeds after zeros, noise, swapped pages or a cut; the content is used or kept aside."""
    starts = start_over_damage(path, every=every)

    assert starts.failed == []
    assert starts.tried == starts.wanted
    assert starts.noticed > starts.tried / 2


def test_a_schema_that_is_no_text_is_damage(path: Path) -> None:
    """SQLite quotes it in its message, which Python then cannot decode."""
    fill(path)
    path.write_bytes(path.read_bytes().replace(b"NOT NULL", b"NOT NU\x95L", 1))
    with pytest.raises(StoreDamagedError):
        Store.open(path, owner=False)
    with Store.open_or_memory(path) as store:
        assert store.memory_reason == ""
        assert "was damaged" in store.damage()


def test_the_readable_rows_are_restored(path: Path) -> None:
    """With one page of bans overwritten, the lists, friends, log positions and other bans are restored."""
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'bans_running'"
        ).fetchone()
    content = bytearray(path.read_bytes())
    noise(content, (root - 1) * PAGE, chance_of(1))
    path.write_bytes(bytes(content))
    store = Store.open_or_memory(path)
    with store:
        damage = store.damage()
        assert store.memory_reason == ""
        assert len(recorded_bans(store, START)) == BANS
        assert [len(ban.attempts) for ban in recorded_bans(store, START)] == [5] * BANS
        assert [entry.value for side in ListKind for entry in store.entries.current(side, 0.0)] == [
            "203.0.113.0/24",
            "198.51.100.0/24",
        ]
        assert store.state.positions() == {"pbx/log /a": "17 4711"}
        assert len(store.friends.current(START, 10)) == 1

    aside = path.with_name("ringfence.db.damaged-1")
    assert damage.startswith("the database was damaged (")
    assert damage.endswith(
        f"; it is kept as {aside}, and {BANS} bans, 2 list entries, 1 friends could be read; "
        f"fix: check the disk, then remove {aside}"
    )
    assert aside.read_bytes() == bytes(content)


def test_a_damaged_file_is_named_until_it_is_removed(path: Path) -> None:
    """The next start succeeds and still reports the file, until the file is removed."""
    path.write_text("no database\n" * 1_000)
    start(path)
    store = Store.open_or_memory(path)
    with store:
        assert "damaged-1" in store.damage()
        path.with_name("ringfence.db.damaged-1").unlink()
        assert store.damage() == ""


def test_no_damaged_file_is_overwritten(path: Path) -> None:
    """Each damaged file has its own number; beyond the limit the guard starts with a store in memory."""
    for number in range(file.MOST_ASIDE):
        path.write_text(f"{number}\n" * 1_000)
        damage, fleeting = start(path)
        assert (f"damaged-{number + 1}" in damage, fleeting) == (True, "")
    path.write_text("one more\n" * 1_000)
    _, fleeting = start(path)

    assert "5 damaged files are kept already; fix: find the cause" in fleeting
    assert path.read_text() == "one more\n" * 1_000
    for number in range(file.MOST_ASIDE):
        assert path.with_name(f"ringfence.db.damaged-{number + 1}").read_text() == f"{number}\n" * 1_000


def test_the_log_of_a_damaged_file_is_kept_with_it(path: Path) -> None:
    """The log of the old database never stays beside the new one, and its bans are read too."""
    with Store.open(path, owner=True) as store:
        store.bans.record([ban_of("192.0.2.1", START)])
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.bans.record([ban_of("192.0.2.2", START)])
        copies = {file.name: file.read_bytes() for file in path.parent.glob("ringfence.db*")}
    clear(path)
    for name, content in copies.items():
        (path.parent / name).write_bytes(content)
    path.write_bytes(path.read_bytes()[:-PAGE])
    store = Store.open_or_memory(path)
    with store:
        assert path.with_name("ringfence.db.damaged-1-wal").exists()
        assert {str(ban.network) for ban in recorded_bans(store, START)} >= {"192.0.2.2/32"}


def a_folder(path: Path) -> None:
    """Put a folder in the database's place."""
    path.mkdir()


def a_link_to_itself(path: Path) -> None:
    """Put a link to itself in the database's place."""
    path.symlink_to(path)


def a_device(path: Path) -> None:
    """Put a link to a device in the database's place."""
    path.symlink_to("/dev/zero")


def a_pipe(path: Path) -> None:
    """Put a pipe in the database's place."""
    os.mkfifo(path)


def version(number: int, path: Path) -> None:
    """Write another version into a database."""
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {number}")


def without_a_table(path: Path) -> None:
    """Remove a table from a database."""
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE friends")


def a_folder_for_its_log(path: Path) -> None:
    """Put a folder in the place of the database's log."""
    fill(path)
    path.with_name("ringfence.db-wal").mkdir()


def an_empty_file(path: Path) -> None:
    """Put an empty file in the database's place."""
    path.touch()


STRANGE: tuple[Callable[[Path], None], ...] = (
    a_folder,
    a_link_to_itself,
    a_device,
    a_pipe,
    without_a_table,
    a_folder_for_its_log,
    an_empty_file,
    *(partial(version, number) for number in (0, 2, 99, 1_000_000, -1)),
)


@pytest.mark.parametrize("put", STRANGE, ids=lambda put: getattr(put, "__name__", "version"))
def test_the_daemon_starts_with_any_file_in_the_databases_place(
    path: Path, put: Callable[[Path], None]
) -> None:
    """The guard starts despite a folder, a device or another version; it adopts and makes bans."""
    put(path)
    mode = stat.S_IFMT(path.lstat().st_mode)
    start(path)

    assert stat.S_IFMT(path.lstat().st_mode) == mode  # only regular files are renamed


def test_a_newer_database_stays_where_it_is(path: Path) -> None:
    """The guard uses a readable copy in memory until ringfence is upgraded."""
    version(VERSION + 1, path)
    before = path.read_bytes()
    store = Store.open_or_memory(path)
    with store:
        assert len(recorded_bans(store, START)) == BANS
        newer = f"of version {VERSION + 1}, newer than this ringfence knows ({VERSION}); upgrade"
        assert newer in store.memory_reason
    assert path.read_bytes() == before


def test_a_database_with_more_columns_is_a_newer_one(path: Path) -> None:
    """It is not damaged: a command refuses it, and the guard uses a readable copy in memory."""
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE friends ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")
    newer = "of a newer ringfence: table friends has columns that this one does not know; upgrade ringfence"
    with pytest.raises(StoreNewerError, match=newer):
        Store.open(path, owner=False)
    store = Store.open_or_memory(path)
    with store:
        assert len(recorded_bans(store, START)) == BANS
        assert (newer in store.memory_reason, store.damage()) == (True, "")


def test_a_database_with_a_column_that_an_earlier_ringfence_had_is_set_aside(path: Path) -> None:
    """A column that a newer one adds has a default or may be NULL; this one has neither."""
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        [sql] = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'friends'").fetchone()
        connection.execute("DROP TABLE friends")
        connection.execute(sql.replace("(", "(origin TEXT NOT NULL, ", 1))
    store = Store.open_or_memory(path)
    with store:
        assert (store.memory_reason, bool(store.damage())) == ("", True)


def test_a_command_names_the_fix(path: Path) -> None:
    """A command leaves a damaged database unchanged and names the fix: a restart of the daemon."""
    path.write_text("no database\n" * 1_000)
    with pytest.raises(StoreDamagedError, match="fix: restart ringfence, which keeps the damaged file aside"):
        Store.open(path, owner=False)
    assert path.read_text() == "no database\n" * 1_000


def test_damage_to_an_open_database_is_a_store_error(path: Path) -> None:
    """If pages of an open store are overwritten, every method raises StoreError and no other error."""
    fill(path)
    seen = set()
    for seed in range(60):
        content = path.read_bytes()
        with Store.open(path, owner=True) as store:
            overwrite(path, chance_of(seed))
            actions: tuple[Callable[[], object], ...] = (
                lambda store=store: list(store.bans.running(START)),  # type: ignore[misc]
                lambda store=store: list(store.entries.current(ListKind.ALLOW, START)),  # type: ignore[misc]
                lambda store=store: store.friends.current(START, 100),  # type: ignore[misc]
                lambda store=store: store.state.positions(),  # type: ignore[misc]
                lambda store=store: store.bans.past(ip_network("192.0.2.1"), 0.0, 10),  # type: ignore[misc]
                lambda store=store: store.bans.record([ban_of("192.0.2.77", START)]),  # type: ignore[misc]
                lambda store=store: store.purge(START),  # type: ignore[misc]
            )
            for action in actions:
                try:
                    action()
                except StoreError as error:
                    seen.add(type(error))
        clear(path)
        path.write_bytes(content)

    assert StoreDamagedError in seen


def overwrite(path: Path, chance: random.Random) -> None:
    """Overwrite a page of a database in place, as a failing disk does."""
    with path.open("r+b") as file:
        pages = path.stat().st_size // PAGE
        content = bytearray(path.read_bytes())
        chance.choice((zeros, ones, noise, some_bytes))(content, chance.randrange(pages) * PAGE, chance)
        file.write(content)


def test_the_daemon_guards_over_damage_and_raises_an_alarm(tmp_path: Path) -> None:
    """The daemon becomes READY with a damaged file, raises an alarm with the fix, and remembers a ban."""
    path = tmp_path / "ringfence.db"
    fill(path)
    content = bytearray(path.read_bytes())
    behind_the_header(content, 0, chance_of(1))
    path.write_bytes(bytes(content))
    guard = Guard(tmp_path)
    with guard:
        until(lambda: alarms(guard), "the alarm")
        [text] = alarms(guard)
        assert "it is kept as" in text
        assert "fix: check the disk, then remove" in text
        guard.must("ban", "198.18.0.1")
    with guard:
        assert guard.banned() == {"198.18.0.1"}


def test_the_daemon_continues_when_the_file_is_damaged(tmp_path: Path) -> None:
    """If the file is overwritten, the daemon bans and raises an alarm, and a restart solves the problem."""
    path = tmp_path / "ringfence.db"
    guard = Guard(tmp_path)
    with guard:
        guard.must("ban", "198.18.0.1")
        with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
        assert guard.command("ban", "198.18.0.2").returncode == Exit.NOT_RECORDED
        guard.ask("unban", networks=["198.18.0.1"])
        assert {row["address"] for row in guard.ask("bans", most=9)} == {"198.18.0.2"}
        until(lambda: any("restart ringfence" in text for text in alarms(guard)), "the alarm")
        assert guard.running
    with guard:
        guard.must("ban", "198.18.0.3")
    with guard:
        assert "198.18.0.3" in guard.banned()


def alarms(guard: Guard) -> list[str]:
    """Return the texts of the alarms about the database."""
    return [alarm["text"] for alarm in guard.ask("status")["alarms"] if alarm["code"].startswith("store.")]


def test_the_boot_puts_rules_in_place_over_damage(tmp_path: Path) -> None:
    """`restore` succeeds with a damaged file and prints the damage."""
    (tmp_path / "ringfence.db").write_text("no database\n" * 1_000)
    done = Guard(tmp_path).command("restore")

    assert done.returncode == 0
    assert "0 bans are in place (memory); the database was damaged (" in done.stdout


def test_the_size_includes_the_log(tmp_path: Path) -> None:
    """The size is that of the database with its log; a missing file has none."""
    path = tmp_path / "ringfence.db"
    assert file.size_of(path) == 0

    path.write_bytes(b"x" * 10)
    Path(f"{path}-wal").write_bytes(b"x" * 5)
    assert file.size_of(path) == 15
