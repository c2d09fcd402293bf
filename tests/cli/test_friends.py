"""``ringfence friends``: list, export, import and forget, with the daemon up and down."""

import json
import stat
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from tests.docs.commands import commands
from tests.support.daemon import Guard
from typer.testing import CliRunner

from ringfence.cli.app import app
from ringfence.friends.exchange import as_json, lines_of
from ringfence.store.database import Store
from ringfence.values.friend import Friend, FriendReason

KEYS = ["address", "accounts", "reasons", "since", "seen", "until", "details"]
NOW = time.time()
ALICE = Friend(
    "pbx", ip_address("192.0.2.7"), "alice", FriendReason.AUTHENTICATED, NOW - 900, NOW - 60, NOW + 36_000
)
LONG = "2001:db8:1234:5678:9abc:def0:1234:5678"


def document(*friends: Friend) -> str:
    """Return friends in the format of an export."""
    return "\n".join(lines_of(map(as_json, friends))) + "\n"


def listed(guard: Guard) -> list[dict[str, Any]]:
    """Return the output of `friends --json`."""
    rows: list[dict[str, Any]] = json.loads(guard.must("friends", "--json"))
    return rows


def record(guard: Guard, *friends: Friend) -> None:
    """Write friends to the database of a daemon that does not run."""
    with Store.open(guard.folder / "ringfence.db", owner=False) as store:
        store.friends.add(friends)


@pytest.fixture(name="guard")
def _guard(tmp_path: Path) -> Iterator[Guard]:
    """Return a daemon that knows two phones, one of them for two reasons."""
    guard = Guard(tmp_path)
    record(
        guard,
        ALICE,
        evolve(ALICE, account="bob\x1b[2J", reason=FriendReason.REACHABLE, seen=NOW - 30),
        evolve(ALICE, address=ip_address(LONG), account="carol", seen=NOW - 600),
    )
    with guard:
        yield guard


@pytest.mark.parametrize("command", [(), ("export",), ("import",), ("forget",)], ids=str)
def test_every_command_has_help_and_config(command: tuple[str, ...]) -> None:
    """``--help`` describes each command within 80 columns and names --config."""
    result = CliRunner().invoke(app, ["friends", *command, "--help"], env={"COLUMNS": "80"})

    assert result.exit_code == 0
    assert " ".join(("ringfence friends", *command)) in result.stdout
    assert "--config" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    known = {name for name, _ in commands() if name.startswith("friends ")}
    assert known == {"friends export", "friends import", "friends forget"}


def test_the_list_as_json(guard: Guard) -> None:
    """One object for each address with these keys and all reasons; the address seen last is first."""
    phone, other = listed(guard)

    assert (list(phone), list(other)) == (KEYS, KEYS)
    assert (phone["address"], phone["accounts"]) == ("192.0.2.7", ["alice", "bob\x1b[2J"])
    assert phone["reasons"] == ["authenticated", "reachable"]
    assert [reason["account"] for reason in phone["details"]] == ["alice", "bob\x1b[2J"]
    assert phone["since"] <= phone["seen"] <= phone["until"]
    assert (other["address"], other["reasons"]) == (LONG, ["authenticated"])


def test_the_list_for_people(guard: Guard) -> None:
    """One line for each address fits 80 columns, whatever accounts are called; an empty list is stated."""
    text = guard.must("friends")
    lines = text.splitlines()

    assert lines[0].split()[:3] == ["ADDRESS", "ACCOUNTS", "BECAUSE"]
    assert "\x1b" not in text
    assert max(map(len, lines)) <= 80
    assert "192.0.2.7" in text
    assert "authenticated" in text
    for row in listed(guard):
        guard.must("friends", "forget", row["address"])
    assert "There are no friends." in guard.must("friends")


def test_many_accounts_are_counted_and_many_friends_are_plain(tmp_path: Path) -> None:
    """Many accounts of one address are counted; a very long list is printed without a table."""
    guard = Guard(tmp_path)
    record(guard, *(evolve(ALICE, account=f"{number:03d}") for number in range(50)))
    with guard:
        assert "000, 001, 002 and 47" in " ".join(guard.must("friends").split())
        many = [
            evolve(ALICE, address=ip_address(f"10.{n >> 8}.{n & 255}.1"), account=str(n))
            for n in range(2_000)
        ]
        assert (
            guard.must("friends", "import", "-", text=document(*many))
            == "imported: 2000 addresses by 2000 reasons\n"
        )
        lines = guard.must("friends").splitlines()
        assert len(lines) == 2_002
        assert lines[0] == "ADDRESS  ACCOUNTS  BECAUSE  SINCE (UTC)  SEEN  UNTIL"


def test_an_export_can_be_imported(guard: Guard, tmp_path: Path) -> None:
    """An export by file or pipe is imported whole, also into the database, and is not exported again."""
    file = tmp_path / "friends"
    guard.must("friends", "export", str(file))
    assert guard.must("friends", "export") == guard.must("friends", "export", "-") == file.read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir() if "friends" in path.name] == ["friends"]

    folder = tmp_path / "other"
    folder.mkdir()
    with Guard(folder) as other:
        assert other.must("friends", "import", str(file)) == "imported: 2 addresses by 3 reasons\n"
        assert {row["address"] for row in listed(other)} == {"192.0.2.7", LONG}
        assert {reason for row in listed(other) for reason in row["reasons"]} == {"imported"}
        assert other.must("friends", "export") == document()
        other.stop()
        other.start()
        assert len(listed(other)) == 2


def test_an_import_with_a_fault_imports_nothing(guard: Guard, tmp_path: Path) -> None:
    """Each fault is reported with its line, the first twenty in full; exit code 1."""
    before = listed(guard)
    text = document(*[evolve(ALICE, account="dave")] * 3).replace("dave", "\\ud800", 1) + "rubbish\n" * 30
    done = guard.command("friends", "import", "-", text=text)

    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert lines[:2] == ["-: line 2: account: half a character", "-: line 5: not JSON"]
    assert lines[20:] == ["and 11 more faults", "nothing was imported"]
    assert listed(guard) == before
    done = guard.command("friends", "import", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (
        1,
        f"cannot read {tmp_path / 'none'}: No such file or directory\n",
    )


def test_expired_friends_are_counted(guard: Guard) -> None:
    """Expired friends of an old export are counted and not imported."""
    old = evolve(ALICE, since=1.0, seen=2.0, until=3.0)

    assert guard.must("friends", "import", "-", text=document(old)) == (
        "imported: 0 addresses by 0 reasons, 1 expired one left out\n"
    )


def test_an_import_in_several_requests_has_mistakes_of_the_configuration_once(guard: Guard) -> None:
    """A request has at most 200 friends; only the first one prints the mistakes."""
    many = [evolve(ALICE, address=ip_address(f"10.0.0.{n}"), account=str(n)) for n in range(201)]
    guard.configure(colour=1)
    done = guard.command("friends", "import", "-", text=document(*many))

    assert done.stdout == "imported: 201 addresses by 201 reasons\n"
    assert done.stderr.count("colour: unknown key") == 1, done.stderr


def test_a_pipe_has_whole_rows(guard: Guard) -> None:
    """In a pipe each friend is one line with all columns, so that grep finds it."""
    head, *rows = Guard(guard.folder, environ={"COLUMNS": ""}).must("friends").splitlines()

    assert head.split() == ["ADDRESS", "ACCOUNTS", "BECAUSE", "SINCE", "(UTC)", "SEEN", "UNTIL"]
    assert [row.split()[0] for row in rows] == ["192.0.2.7", LONG]


def test_forget(guard: Guard) -> None:
    """An address is forgotten in any notation; an unknown or invalid one is an error with its exit code."""
    assert guard.must("friends", "forget", LONG.upper()) == f"forgotten: {LONG}\n"
    assert [row["address"] for row in listed(guard)] == ["192.0.2.7"]
    done = guard.command("friends", "forget", LONG)
    assert (done.returncode, done.stderr) == (1, f"{LONG} is not a friend\n")
    done = guard.command("friends", "forget", "192.0.2.0/24")
    assert (done.returncode, done.stdout) == (2, "")
    assert guard.must("friends", "forget", "::ffff:192.0.2.7") == "forgotten: 192.0.2.7\n"


def test_without_the_daemon_its_database_is_read(tmp_path: Path) -> None:
    """Without the daemon, list and export work; changes fail with exit code 3."""
    guard = Guard(tmp_path)
    assert listed(guard) == []
    record(guard, ALICE, evolve(ALICE, account="old", until=NOW - 1))
    done = guard.command("friends", "export")

    assert (done.returncode, done.stdout) == (0, document(ALICE))
    assert done.stderr == "The daemon does not answer: this list comes from its database.\n"
    assert [row["accounts"] for row in listed(guard)] == [["alice"]]
    assert guard.command("friends", "import", "-", text=document(ALICE)).returncode == 3
    assert guard.command("friends", "forget", "192.0.2.7").returncode == 3


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no/folder", "No such file or directory"),
        ("ringfence.toml/x", "Not a directory"),
        ("x" * 256, "File name too long"),
    ],
)
def test_a_file_that_cannot_be_written(tmp_path: Path, name: str, why: str) -> None:
    """The export into such a file is one sentence with the reason."""
    guard = Guard(tmp_path)
    done = guard.command("friends", "export", str(tmp_path / name))

    error, *more = done.stderr.splitlines()
    assert (done.returncode, error) == (1, f"cannot write {tmp_path / name}: {why}")
    assert more == []


def test_an_export_is_private(tmp_path: Path) -> None:
    """Only the owner of the file reads the addresses and accounts of the phones."""
    file = tmp_path / "friends.txt"
    Guard(tmp_path).must("friends", "export", str(file))

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
