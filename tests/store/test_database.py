"""The database: its users, its versions, and a broken disk."""

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.support.attempts import attempts, ban_of
from tests.support.recorded import recorded_bans
from tests.support.unprivileged import unprivileged

import ringfence
from ringfence.errors import StoreBusyError, StoreError
from ringfence.store import database, file
from ringfence.store.database import Store, schema
from ringfence.store.file import VERSION
from ringfence.values.ban import Scope
from ringfence.values.entry import ListEntry, ListKind

NOBODY = 65_534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Switch to an unprivileged user if this one is root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_one_owner_at_a_time(store: Store, path: Path) -> None:
    """A second daemon is refused until the first one closes the store."""
    with pytest.raises(StoreBusyError, match="another ringfence is using"):
        Store.open(path, owner=True)
    store.close()
    store.close()  # may be repeated
    Store.open(path, owner=True).close()


def test_a_killed_owner_leaves_no_lock(path: Path) -> None:
    """A daemon that was killed leaves no lock behind."""
    code = (
        "import sys, pathlib\nfrom ringfence.store.database import Store\n"
        f"store = Store.open(pathlib.Path({str(path)!r}), owner=True)\nprint(1, flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(StoreBusyError):
            Store.open(path, owner=True)
        other.kill()
        other.wait()

    Store.open(path, owner=True).close()


def test_a_command_and_the_daemon_see_each_others_writes(store: Store, path: Path) -> None:
    """The owner and other processes see each other's writes at once."""
    with Store.open(path, owner=False) as reader:
        store.bans.record([ban_of("192.0.2.1")])
        assert recorded_bans(reader, 1_000.0) == [ban_of("192.0.2.1")]
        reader.state.set_switched_off(True)
        assert store.state.switched_off() is True


def test_a_fresh_file_gets_the_schema(path: Path) -> None:
    """An empty file, version 0, becomes a database of the current version."""
    path.touch()
    Store.open(path, owner=False).close()

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_newer_database_is_refused(path: Path) -> None:
    """A database of an unknown version stays unchanged, and the owner's lock is released."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    for owner in (True, True, False):
        with pytest.raises(StoreError, match=f"of version {VERSION + 1}, newer than this ringfence knows"):
            Store.open(path, owner=owner)

    assert path.read_bytes() == before


def rewritten(path: Path) -> None:
    """Write the definitions of all tables with other spaces, as another editor would."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, '    ', '  ')")
        connection.commit()


def test_the_layout_of_a_definition_means_nothing(path: Path) -> None:
    """A database whose definitions have other spaces is not damaged."""
    with Store.open_or_memory(path) as store:
        store.bans.record([ban_of("192.0.2.1")])
    rewritten(path)
    with Store.open_or_memory(path) as store:
        assert (store.damage(), store.memory_reason) == ("", "")
        assert recorded_bans(store, 1_000.0) == [ban_of("192.0.2.1")]


@pytest.mark.parametrize("grown", [0, 1])
def test_the_database_of_an_earlier_ringfence_keeps_its_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch, grown: int
) -> None:
    """A new table, index and column are added; a command does not add them, but states what to do."""
    with Store.open_or_memory(path) as store:
        store.bans.record([ban_of("192.0.2.1", made=attempts(5))])
    later = schema().replace("rule TEXT NOT NULL", "colour TEXT NOT NULL DEFAULT 'red', rule TEXT NOT NULL")
    assert later != schema()
    later += "CREATE TABLE more (name TEXT PRIMARY KEY) STRICT; CREATE INDEX colours ON bans (colour);"
    monkeypatch.setattr(database, "schema", lambda: later)
    monkeypatch.setattr(file, "VERSION", VERSION + grown)
    with pytest.raises(StoreError, match="fix: systemctl restart ringfence"):
        Store.open(path, owner=False)

    for _ in range(2):
        with Store.open_or_memory(path) as store:
            assert (store.damage(), store.memory_reason) == ("", "")
            assert len(recorded_bans(store, 1_000.0)) == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + grown,)
        assert connection.execute("SELECT DISTINCT colour FROM bans").fetchall() == [("red",)]
        assert connection.execute("SELECT count(*) FROM more").fetchone() == (0,)


def test_an_upgrade_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column without a default cannot be added: the database stays as it was."""
    with Store.open_or_memory(path) as store:
        store.bans.record([ban_of("192.0.2.1", made=attempts(5))])
    before = shape_of(path)
    broken = "CREATE TABLE aaa (name TEXT PRIMARY KEY) STRICT;" + schema().replace(
        "rule TEXT NOT NULL", "rule TEXT NOT NULL, colour TEXT NOT NULL"
    )
    monkeypatch.setattr(database, "schema", lambda: broken)
    monkeypatch.setattr(file, "VERSION", VERSION + 1)
    with pytest.raises(StoreError, match="Cannot add a NOT NULL column"):
        Store.open(path, owner=True)
    assert shape_of(path) == before


def shape_of(path: Path) -> list[tuple[object, ...]]:
    """Return the version and the definitions of a database."""
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchall()
        return version + connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


def test_other_users_cannot_read_the_database(store: Store, path: Path) -> None:
    """Only the owner of the folder can read accounts and addresses, and can lock SQLite's shared memory."""
    store.state.set_switched_off(True)
    for suffix in ("", "-wal", "-shm", ".lock"):
        file = path.with_name(path.name + suffix)
        assert (stat.S_IMODE(file.stat().st_mode), file.stat().st_uid) == (0o600, path.parent.stat().st_uid)


@pytest.mark.parametrize("opened", [partial(Store.open, owner=True), Store.open_or_memory])
def test_the_daemon_takes_files_from_the_group(path: Path, opened: Callable[[Path], Store]) -> None:
    """Files that the group can read since an earlier run are the owner's alone after the start."""
    with Store.open(path, owner=False) as command:
        command.state.set_switched_off(True)
        files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
        for file in files:
            file.chmod(0o640)
        with opened(path) as store:
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            assert store.state.switched_off() is True


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """The owner of the folder could otherwise make root open, and create, a file anywhere."""
    (tmp_path / "ringfence.db.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="lock cannot be opened"):
        Store.open(tmp_path / "ringfence.db", owner=True)

    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The message names the file and the configuration key."""
    path = tmp_path / "absent" / "ringfence.db"
    for owner in (True, False):
        with pytest.raises(
            StoreError, match=r"absent/ringfence.db.* cannot be made: No such file .*\[store\] path"
        ):
            Store.open(path, owner=owner)


def test_a_read_only_folder_is_an_error(path: Path) -> None:
    """A StoreError reports that the file cannot be made there."""
    path.parent.chmod(0o500)
    with as_nobody(), pytest.raises(StoreError, match="cannot be made: Permission denied"):
        Store.open(path, owner=True)


def test_a_folder_with_the_databases_name_is_an_error(path: Path) -> None:
    """A folder with the database's name raises StoreError, and the lock is released."""
    path.mkdir()
    for _ in range(2):
        with pytest.raises(StoreError, match="is not a regular file"):
            Store.open(path, owner=True)


def test_a_file_that_is_no_database(path: Path) -> None:
    """A file that is not a database is refused and stays unchanged."""
    path.write_bytes(b"not a database, certainly" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        Store.open(path, owner=True)

    assert path.read_bytes() == b"not a database, certainly" * 100


def test_every_method_of_a_closed_store_raises(store: Store) -> None:
    """Every method of a closed store raises StoreError."""
    store.close()
    actions: list[Callable[[], object]] = [
        lambda: store.bans.record([ban_of("192.0.2.1")]),
        lambda: store.bans.end([(ip_network("192.0.2.1"), Scope.FULL)], 1.0),
        lambda: recorded_bans(store, 1.0),
        lambda: store.bans.count_offences(ip_network("192.0.2.1"), 0.0),
        lambda: store.purge(1.0),
        store.state.switched_off,
    ]
    for action in actions:
        with pytest.raises(StoreError, match="closed database"):
            action()


def works_for_now(store: Store, *networks: str) -> None:
    """Check that a store has the bans of these networks and accepts new data like any other."""
    assert [str(ban.network) for ban in recorded_bans(store, 2_000.0)] == list(networks)
    store.bans.record([ban_of("198.51.100.1", 1_500.0, made=attempts(5))])
    store.state.set_positions({"a": "1"})
    store.entries.add([ListEntry(ListKind.ALLOW, "203.0.113.0/24", "", 1.0)])
    store.purge(2_000.0)
    assert store.bans.count_offences(ip_network("198.51.100.1"), 0.0) == 1
    assert [str(ban.network) for ban in store.records.running(2_000.0)] == [*networks, "198.51.100.1/32"]
    assert (store.state.positions()["a"], len(list(store.entries.current(ListKind.ALLOW, 0.0)))) == ("1", 1)


def test_an_intact_database_is_opened_unchanged(path: Path) -> None:
    """There is no problem, and the content lasts."""
    store = Store.open_or_memory(path)
    with store:
        works_for_now(store)
    assert store.memory_reason == ""

    with Store.open(path, owner=False) as again:
        assert [str(ban.network) for ban in recorded_bans(again, 2_000.0)] == ["198.51.100.1/32"]


def test_a_closed_folder_gives_a_database_in_memory(tmp_path: Path) -> None:
    """A daemon that cannot reach its database works with one in memory, and states the reason."""
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    with unprivileged(), Store.open_or_memory(closed / "ringfence.db") as store:
        assert "Permission denied" in store.memory_reason


@pytest.mark.parametrize("unclean", [False, True])
def test_a_read_only_folder_gives_a_copy_in_memory(unclean: bool) -> None:  # noqa: FBT001 - two cases
    """The stored bans are known, new ones are accepted, and the reason states that nothing is kept."""
    with unprivileged() as folder:
        path = folder / "ringfence.db"
        with Store.open(path, owner=True) as before:
            before.bans.record([ban_of("192.0.2.1", made=attempts(5))])
            copies = {file: file.read_bytes() for file in folder.glob("ringfence.db-*")}
        if unclean:  # as after a power failure: only the log has the last bans
            for file, content in copies.items():
                file.write_bytes(content)
        for file in folder.iterdir():
            file.chmod(0o400)
        folder.chmod(0o500)
        store = Store.open_or_memory(path)
        with store:
            works_for_now(store, "192.0.2.1/32")

        assert f"{path}.lock" in store.memory_reason
        assert store.memory_reason.endswith(
            "until this is fixed and ringfence is restarted, nothing is remembered for long"
        )


@pytest.mark.parametrize(
    "content", [b"", b"not a database, certainly" * 100, b"SQLite format 3\0" + bytes(4_096)]
)
def test_an_invalid_file_gives_an_empty_database(path: Path, content: bytes) -> None:
    """The guard starts with a new database, and the file is kept under another name."""
    path.write_bytes(content)
    store = Store.open_or_memory(path)
    with store:
        works_for_now(store)

    assert store.memory_reason == ""
    assert (store.damage() == "") == (content == b"")
    assert content == b"" or path.with_name("ringfence.db.damaged-1").read_bytes() == content


def on_a_small_disk(folder: Path, code: str, size: str, *words: str) -> list[str]:
    """Run Python code on a disk of so many bytes, its first argument; return the lines that it prints."""
    script = folder / "full.py"
    script.write_text(textwrap.dedent(code), "utf-8")
    disk = folder / "disk"
    disk.mkdir()
    source = Path(str(ringfence.__file__)).parent.parent
    done = subprocess.run(
        [
            *(
                "unshare",
                "--mount",
                "sh",
                "-euc",
                'mount -t tmpfs -o size=$0,mode=0700 none "$1"; shift; exec "$@"',
                size,
            ),
            *(str(disk), sys.executable, str(script), str(disk), *words),
        ],
        env=os.environ | {"PYTHONPATH": f"{source}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk to fill")
def test_a_full_disk_gives_a_copy_in_memory(tmp_path: Path) -> None:
    """On a disk without free space the stored bans are known, and new ones are accepted."""
    code = """
        import sys
        from pathlib import Path
        from tests.support.attempts import attempts, ban_of
        from ringfence.store.database import Store
        folder = Path(sys.argv[1])
        path = folder / "ringfence.db"
        with Store.open(path, owner=True) as store:
            store.bans.record([ban_of("192.0.2.1", made=attempts(5))])
        (folder / "ringfence.db.lock").unlink()
        try:
            with (folder / "junk").open("wb", buffering=0) as junk:
                while True:
                    junk.write(bytes(4_096))
        except OSError as error:
            print(error.strerror)
        store = Store.open_or_memory(path)
        with store:
            store.bans.record([ban_of("192.0.2.2")])
            print(*(ban.network for ban in store.records.running(2_000.0)))
        print(store.memory_reason)
    """
    full, known, reason = on_a_small_disk(tmp_path, code, "320k")
    assert (full, known) == ("No space left on device", "192.0.2.1/32 192.0.2.2/32")
    assert reason.endswith("nothing is remembered for long")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk to fill")
def test_a_damaged_database_on_a_full_disk_keeps_its_rows(tmp_path: Path) -> None:
    """If the disk has no room for a new database, the damaged one stays, and a later start reads it."""
    code = """
        import sqlite3, sys
        from contextlib import closing
        from pathlib import Path
        from tests.support.attempts import attempts, ban_of
        from ringfence.store.database import Store
        folder = Path(sys.argv[1])
        path, junk = folder / "ringfence.db", folder / "junk"
        with Store.open(path, owner=True) as store:
            store.bans.record([ban_of(f"192.0.2.{n}", made=attempts(5)) for n in range(250)])
        with closing(sqlite3.connect(path)) as connection:
            pages = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'bans_running'")
            [page] = pages.fetchone()
        content = bytearray(path.read_bytes())
        content[(page - 1) * 4096 : page * 4096] = bytes(range(256)) * 16
        path.write_bytes(content)
        junk.write_bytes(bytes(int(sys.argv[2])))
        for _ in range(2):
            with Store.open_or_memory(path) as store:
                print(len([*store.records.running(2_000.0)]), store.memory_reason or store.damage())
            junk.unlink(missing_ok=True)
    """
    full, restored = on_a_small_disk(tmp_path, code, "1200k", str(650_000))

    assert full.startswith("250 ")
    assert "the rows of the damaged database cannot be copied: database or disk is full" in full
    assert restored.startswith("250 the database was damaged (")
    assert "250 bans" in restored


def test_the_database_of_another_daemon_is_not_copied(store: Store, path: Path) -> None:
    """If another daemon uses the database, opening fails, because that daemon guards already."""
    with pytest.raises(StoreBusyError):
        Store.open_or_memory(path)
    works_for_now(store)
