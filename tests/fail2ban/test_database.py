"""fail2ban's database: every schema there was, rows that make no sense, and files that are damaged."""

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
from ringfence.fail2ban import database
from ringfence.fail2ban.database import Found, read_bans

NOW = 1_800_000_000.0
NEW = """
CREATE TABLE {table}(ip TEXT NOT NULL, jail TEXT NOT NULL, timeofban INTEGER NOT NULL,
    bantime INTEGER NOT NULL, bancount INTEGER NOT NULL default 1, data JSON, PRIMARY KEY(ip, jail));
"""
LOOSE = "CREATE TABLE {table}(ip, jail, timeofban, bantime);"
OLD = "CREATE TABLE bans(jail TEXT NOT NULL, ip TEXT, timeofban INTEGER NOT NULL, data JSON);"
Row = tuple[object, ...]


def make(path: Path, *tables: tuple[str, str, Iterable[Row]]) -> Path:
    """Make a database of tables, each with its schema and its rows (address, jail, time, length)."""
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
    """Make a database of today's schema."""
    return make(folder / "f", ("bips", schema, rows))


def read(path: Path, **bantimes: float) -> Found:
    """Read the bans of jail asterisk, or of these."""
    return read_bans(path, bantimes or {"asterisk": 600.0}, NOW)


def shown(found: Found) -> dict[str, float]:
    """Give the time that each network has left."""
    return {str(ban.network): ban.expires - NOW for ban in found.bans}


def test_what_is_running_is_found(tmp_path: Path) -> None:
    """Bans of the wanted jails with time left, the first to end first; nothing of the others."""
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
    """Banned in two jails, an address is banned until the later end."""
    rows = [("198.18.0.1", jail, NOW, length) for jail, length in (("a", 10), ("b", 30), ("c", 20))]

    [ban] = read(bips(tmp_path, *rows), a=1.0, b=1.0, c=1.0).bans

    assert (ban.jail, ban.expires) == ("b", NOW + 30)


@pytest.mark.parametrize(("bantime", "left"), [(600.0, 500), (99.0, None), (-1.0, inf)])
def test_an_old_database_leaves_the_length_to_the_jail(
    tmp_path: Path, bantime: float, left: float | None
) -> None:
    """Before 0.11 only the configuration says how long a ban is."""
    path = make(tmp_path / "f", ("bans", OLD, [("198.18.0.1", "asterisk", NOW - 100)]))

    assert shown(read(path, asterisk=bantime)) == ({} if left is None else {"198.18.0.1/32": left})


def test_an_upgraded_database_leaves_some_lengths_to_the_jail(tmp_path: Path) -> None:
    """What an upgrade could not know stands as -2."""
    path = bips(tmp_path, ("198.18.0.1", "asterisk", NOW - 100, -2))

    assert shown(read(path)) == {"198.18.0.1/32": 500}


def test_the_history_is_not_asked_where_the_present_is_known(tmp_path: Path) -> None:
    """Table bips is what fail2ban restores from; an older, longer ban in the history is over."""
    rows = [("198.18.0.1", "asterisk", NOW, 60)]
    path = make(
        tmp_path / "f",
        ("bips", NEW, rows),
        ("bans", LOOSE, [("198.18.0.1", "asterisk", NOW, 6000), ("198.18.0.2", "asterisk", NOW, 60)]),
    )

    assert shown(read(path)) == {"198.18.0.1/32": 60}


def test_networks_and_odd_addresses_are_understood(tmp_path: Path) -> None:
    """A prefix is banned as one, and IPv4 in IPv6 clothes as IPv4."""
    rows = [(ip, "asterisk", NOW, 60) for ip in ("2001:db8::1/64", "198.18.0.0/24", "::ffff:198.18.1.1")]

    assert set(shown(read(bips(tmp_path, *rows)))) == {"2001:db8::/64", "198.18.0.0/24", "198.18.1.1/32"}


def test_rows_that_make_no_sense_are_counted(tmp_path: Path) -> None:
    """The others are read, and one of them is shown as a terminal may show it."""
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
    assert problem.startswith(f"{tmp_path}/f: rows that make no sense: 7, such as 'pbx.example.org\\x1b', ")


def test_text_that_is_not_utf8_hides_no_row(tmp_path: Path) -> None:
    """A row of bytes is one that makes no sense, and the next one is read."""
    path = bips(tmp_path, ("198.18.0.1", "asterisk", NOW, 60), schema=LOOSE)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO bips VALUES (CAST(x'ff' AS TEXT), 'asterisk', 1, 1)")
        connection.execute("INSERT INTO bips VALUES ('198.18.0.2', 'asterisk', ?, 60)", (NOW,))
        connection.commit()

    found = read(path)

    assert set(shown(found)) == {"198.18.0.1/32", "198.18.0.2/32"}
    assert "rows that make no sense: 1," in found.problems[0]


def test_a_damaged_table_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """What lies before the damage counts, and the history stands in for what lies behind it."""
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 40_000), st.binary(min_size=1, max_size=64))
def test_damage_anywhere_is_told_or_harmless(tmp_path: Path, place: int, damage: bytes) -> None:
    """Whatever bytes are wrong: bans of those addresses, or a StoreError, and nothing else."""
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
    """The file is the same to the byte, and nothing lies beside it."""
    path = bips(tmp_path, ("198.18.0.1", "asterisk", NOW, 60))
    before = hashlib.sha256(path.read_bytes()).hexdigest()

    read(path)

    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_an_odd_path_is_a_path(tmp_path: Path) -> None:
    """What means something in a URI means nothing in a file's name."""
    folder = tmp_path / "a?mode=rwc#%41 ü"
    folder.mkdir()

    assert len(read(bips(folder, ("198.18.0.1", "asterisk", NOW, 60))).bans) == 1


def test_a_locked_database_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits in vain is told that it is locked."""
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    path = bips(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="f: cannot be read: database is locked"):
            read(path)


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The error says how to name another, and none is made."""
    with pytest.raises(StoreError, match=r"there is no such database; name it with --database"):
        read(tmp_path / "f")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "holds no bans"), (b"no database" * 500, "file is not a database")]
)
def test_a_file_that_is_no_database_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    """An empty file, and a file of something else."""
    (tmp_path / "f").write_bytes(content)

    with pytest.raises(StoreError, match=said):
        read(tmp_path / "f")


def test_a_database_of_something_else_is_told(tmp_path: Path) -> None:
    """Tables of other columns are none of fail2ban's."""
    with closing(sqlite3.connect(tmp_path / "f")) as connection:
        connection.executescript(
            "CREATE TABLE bans(ip, jail, name); CREATE TABLE tickets(ip, jail, timeofban)"
        )

    with pytest.raises(StoreError, match="holds no bans; is that fail2ban's database"):
        read(tmp_path / "f")


def test_a_database_that_may_not_be_read_is_told() -> None:
    """The error says that it is a matter of rights."""
    with unprivileged() as folder:
        bips(folder).chmod(0o000)
        with pytest.raises(StoreError, match="f: cannot be read: Permission denied"):
            read(folder / "f")


@pytest.mark.parametrize("make_one", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_told(tmp_path: Path, make_one: Callable[[Path], None]) -> None:
    """Neither a FIFO nor a folder is waited for."""
    make_one(tmp_path / "f")

    with pytest.raises(StoreError, match="is not a file"):
        read(tmp_path / "f")
