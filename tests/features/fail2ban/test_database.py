"""fail2ban's database: all its schemas, invalid rows, and damaged files."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from math import inf
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.unprivileged import unprivileged

from ringfence.errors import StoreError
from ringfence.features.fail2ban import database
from ringfence.features.fail2ban.database import Fail2banBans, read_bans

NOW = 1_800_000_000.0
NEW = """
CREATE TABLE {table}(ip TEXT NOT NULL, jail TEXT NOT NULL, timeofban INTEGER NOT NULL,
    bantime INTEGER NOT NULL, bancount INTEGER NOT NULL default 1, data JSON, PRIMARY KEY(ip, jail));
"""
LOOSE = "CREATE TABLE {table}(ip, jail, timeofban, bantime);"
OLD = "CREATE TABLE bans(jail TEXT NOT NULL, ip TEXT, timeofban INTEGER NOT NULL, data JSON);"
Row = tuple[object, ...]


def make(path: Path, *tables: tuple[str, str, Iterable[Row]]) -> Path:
    """Create a database of tables, each with its schema and rows (address, jail, time, length)."""
    with closing(sqlite3.connect(path)) as connection:
        for table, schema, rows in tables:
            connection.executescript(schema.format(table=table))
            columns = "ip, jail, timeofban, bantime" if "bantime" in schema else "ip, jail, timeofban"
            marks = ", ".join("?" * len(columns.split()))
            insert = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 - all of it is ours
            connection.executemany(insert, rows)
        connection.commit()
    return path


def bips(folder: Path, *rows: Row, schema: str = NEW) -> Path:
    """Create a database of the current schema."""
    return make(folder / "f", ("bips", schema, rows))


def read(path: Path, **bantimes: float) -> Fail2banBans:
    """Read the bans of jail asterisk, or of these."""
    return read_bans(path, bantimes or {"asterisk": 600.0}, NOW)


def shown(found: Fail2banBans) -> dict[str, float]:
    """Return the remaining time of each network."""
    return {str(ban.network): ban.expires - NOW for ban in found.bans}


def test_active_bans(tmp_path: Path) -> None:
    """Active bans of the wanted jails are returned, the first to end first; others are not."""
    path = bips(
        tmp_path,
        ("198.18.0.1", "asterisk", NOW - 100, 3600),
        ("198.18.0.2", "asterisk", NOW - 3600, 3600),
        ("198.18.0.3", "sshd", NOW, 3600),
        ("198.18.0.4", "pbx", NOW, -1),
        ("2001:db8::1", "pbx", NOW - 100, 101),
    )

    found = read(path, asterisk=600.0, pbx=600.0)

    assert shown(found) == {"2001:db8::1/128": 1, "198.18.0.1/32": 3500, "198.18.0.4/32": inf}
    assert [ban.jail for ban in found.bans] == ["pbx", "asterisk", "pbx"]
    assert found.problems == ()


def test_the_longest_ban_of_an_address_counts(tmp_path: Path) -> None:
    """An address in two jails is banned until the later end."""
    rows = [("198.18.0.1", jail, NOW, length) for jail, length in (("a", 10), ("b", 30), ("c", 20))]

    [ban] = read(bips(tmp_path, *rows), a=1.0, b=1.0, c=1.0).bans

    assert (ban.jail, ban.expires) == ("b", NOW + 30)


@pytest.mark.parametrize(("bantime", "left"), [(600.0, 500), (99.0, None), (-1.0, inf)])
def test_an_old_database_leaves_the_length_to_the_jail(
    tmp_path: Path, bantime: float, left: float | None
) -> None:
    """Before 0.11 only the configuration has the length of a ban."""
    path = make(tmp_path / "f", ("bans", OLD, [("198.18.0.1", "asterisk", NOW - 100)]))

    assert shown(read(path, asterisk=bantime)) == ({} if left is None else {"198.18.0.1/32": left})


def test_an_upgraded_database_leaves_some_lengths_to_the_jail(tmp_path: Path) -> None:
    """A length of -2, written by an upgrade, means the jail's bantime."""
    path = bips(tmp_path, ("198.18.0.1", "asterisk", NOW - 100, -2))

    assert shown(read(path)) == {"198.18.0.1/32": 500}


def test_the_history_is_ignored(tmp_path: Path) -> None:
    """Table bips counts, from which fail2ban restores; an older, longer ban in the history has ended."""
    rows = [("198.18.0.1", "asterisk", NOW, 60)]
    path = make(
        tmp_path / "f",
        ("bips", NEW, rows),
        ("bans", LOOSE, [("198.18.0.1", "asterisk", NOW, 6000), ("198.18.0.2", "asterisk", NOW, 60)]),
    )

    assert shown(read(path)) == {"198.18.0.1/32": 60}


def test_networks_and_odd_addresses_are_understood(tmp_path: Path) -> None:
    """A prefix is one ban, and an IPv4-mapped IPv6 address is an IPv4 address."""
    rows = [(ip, "asterisk", NOW, 60) for ip in ("2001:db8::1/64", "198.18.0.0/24", "::ffff:198.18.1.1")]

    assert set(shown(read(bips(tmp_path, *rows)))) == {"2001:db8::/64", "198.18.0.0/24", "198.18.1.1/32"}


def test_invalid_rows_are_counted(tmp_path: Path) -> None:
    """Invalid rows are counted, one is quoted with escapes, and the others are read."""
    good = ("198.18.0.1", "asterisk", NOW, 60)
    bad: list[Row] = [
        ("pbx.example.org\x1b", "asterisk", NOW, 60),
        (None, "asterisk", NOW, 60),
        (b"198.18.0.2", "asterisk", NOW, 60),
        ("198.18.0.3", "asterisk", "yesterday", 60),
        ("198.18.0.4", "asterisk", NOW, None),
        ("198.18.0.5", "asterisk", float("inf"), 60),
        (123, "asterisk", NOW, 60),
    ]
    others: list[Row] = [(None, None, None, None), ("x", b"asterisk", 0, 0)]

    found = read(bips(tmp_path, *bad, *others, good, schema=LOOSE))

    assert set(shown(found)) == {"198.18.0.1/32"}
    [problem] = found.problems
    assert problem.startswith(f"{tmp_path}/f: invalid rows: 7, such as 'pbx.example.org\\x1b', ")


def test_text_that_is_not_utf8_hides_no_row(tmp_path: Path) -> None:
    """A row with invalid UTF-8 is invalid, and the next one is read."""
    path = bips(tmp_path, ("198.18.0.1", "asterisk", NOW, 60), schema=LOOSE)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO bips VALUES (CAST(x'ff' AS TEXT), 'asterisk', 1, 1)")
        connection.execute("INSERT INTO bips VALUES ('198.18.0.2', 'asterisk', ?, 60)", (NOW,))
        connection.commit()

    found = read(path)

    assert set(shown(found)) == {"198.18.0.1/32", "198.18.0.2/32"}
    assert "invalid rows: 1," in found.problems[0]


def test_a_damaged_table_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """Rows before the damage count, and the history replaces those behind it."""
    rows = [(f"198.18.{n // 250}.{n % 250}", "asterisk", NOW, 60) for n in range(5_000)]
    path = make(tmp_path / "f", ("bips", LOOSE, rows), ("bans", LOOSE, rows[4_000:]))
    with closing(sqlite3.connect(path)) as connection:
        [(page, size)] = connection.execute(
            "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'bips'"
        ).fetchall()
    content = bytearray(path.read_bytes())
    middle = content.find(b"198.18.8.1asterisk") // size * size
    assert middle > page * size
    content[middle : middle + size] = b"\xa5" * size
    path.write_bytes(content)

    found = read(path)

    assert 2_500 < len(found.bans) < 5_000
    assert {"198.18.0.0/32", "198.18.19.249/32"} <= set(shown(found))
    [problem] = found.problems
    assert problem.startswith(f"{path}: table bips cannot be read to its end: ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 40_000), st.binary(min_size=1, max_size=64))
def test_any_damage(tmp_path: Path, place: int, damage: bytes) -> None:
    """With any damaged bytes the result is bans of the same addresses, or a StoreError."""
    path = tmp_path / "f"
    path.unlink(missing_ok=True)
    rows = [(f"198.18.0.{n}", "asterisk", NOW, 60) for n in range(250)]
    make(path, ("bips", NEW, rows), ("bans", OLD, [row[:3] for row in rows]))
    content = bytearray(path.read_bytes())
    start = place % len(content)
    content[start : start + len(damage)] = damage
    path.write_bytes(content)

    try:
        told = "".join(read(path).problems)
    except StoreError as error:
        told = str(error)
    assert told.startswith(str(path)) or not told


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """The file stays identical, and no other file is created."""
    path = bips(tmp_path, ("198.18.0.1", "asterisk", NOW, 60))
    before = hashlib.sha256(path.read_bytes()).hexdigest()

    read(path)

    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_an_odd_path_is_a_path(tmp_path: Path) -> None:
    """Special characters of URIs are ordinary in a file name."""
    folder = tmp_path / "a?mode=rwc#%41 ü"
    folder.mkdir()

    assert len(read(bips(folder, ("198.18.0.1", "asterisk", NOW, 60))).bans) == 1


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the timeout the error states that the database is locked."""
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.05)
    path = bips(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="f: cannot be read: database is locked"):
            read(path)


def test_a_missing_database(tmp_path: Path) -> None:
    """The error explains how to give another path, and no file is created."""
    with pytest.raises(StoreError, match=r"there is no such database; fix: give it with --database"):
        read(tmp_path / "f")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "contains no bans"), (b"no database" * 500, "file is not a database")]
)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes, said: str) -> None:
    """An empty file, and a file of another format, are errors."""
    (tmp_path / "f").write_bytes(content)

    with pytest.raises(StoreError, match=said):
        read(tmp_path / "f")


def test_another_database(tmp_path: Path) -> None:
    """Tables with other columns are not fail2ban's."""
    with closing(sqlite3.connect(tmp_path / "f")) as connection:
        connection.executescript(
            "CREATE TABLE bans(ip, jail, name); CREATE TABLE tickets(ip, jail, timeofban)"
        )

    with pytest.raises(StoreError, match="contains no bans; is this fail2ban's database"):
        read(tmp_path / "f")


def test_a_database_without_permission() -> None:
    """The error states the missing permission."""
    with unprivileged() as folder:
        bips(folder).chmod(0o000)
        with pytest.raises(StoreError, match="f: cannot be read: Permission denied"):
            read(folder / "f")


@pytest.mark.parametrize("make_one", [os.mkfifo, os.mkdir])
def test_no_regular_file(tmp_path: Path, make_one: Callable[[Path], None]) -> None:
    """A FIFO or a folder is an error at once."""
    make_one(tmp_path / "f")

    with pytest.raises(StoreError, match="is not a file"):
        read(tmp_path / "f")
