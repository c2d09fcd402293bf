"""``ringfence allow`` and ``deny``, with the daemon up and down."""

import json
import re
import time
from contextlib import closing, nullcontext
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from tests.docs.commands import commands
from tests.support.daemon import Completed, Guard
from tests.support.mmdb import write
from typer.testing import CliRunner

from ringfence.cli.app import app
from ringfence.friends.exchange import as_json, lines_of
from ringfence.store.database import Store
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.friend import Friend, FriendReason

COMMANDS = [tuple(name.split()) for name, _ in commands() if name.startswith(("allow ", "deny "))]
DOWN = "this takes effect when the daemon starts: no daemon listens at "


def outcome(done: Completed) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command."""
    return done.returncode, done.stdout, done.stderr


def listed(guard: Guard, side: str) -> list[dict[str, Any]]:
    """Return the output of `list --json`."""
    rows: list[dict[str, Any]] = json.loads(guard.command(side, "list", "--json").stdout)
    return rows


def entries(guard: Guard, side: str) -> list[str]:
    """Return the entries of a list."""
    return [row["entry"] for row in listed(guard, side)]


def test_the_commands() -> None:
    """Both lists have the same commands."""
    assert sorted(COMMANDS) == [
        ("allow", "add"),
        ("allow", "country"),
        ("allow", "list"),
        ("allow", "remove"),
        ("deny", "add"),
        ("deny", "country"),
        ("deny", "list"),
        ("deny", "remove"),
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_config(command: tuple[str, str]) -> None:
    """``--help`` describes each command within 80 columns and names --config."""
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})

    assert result.exit_code == 0
    assert f"ringfence {' '.join(command)}" in result.stdout
    assert "--config" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_an_allowed_address_is_unbanned_at_once(tmp_path: Path) -> None:
    """With the daemon an allowed address is unbanned at once and not banned until its entry is removed."""
    with Guard(tmp_path) as guard:
        guard.command("ban", "203.0.113.9")
        done = guard.command("allow", "add", "203.0.113.0/24", "--note", "office", "--for", "2h")
        assert outcome(done) == (0, "on the allow list for 2h: 203.0.113.0/24\n", "")
        assert guard.banned() == set()
        assert guard.command("ban", "203.0.113.9").returncode == 1

        [row] = listed(guard, "allow")
        assert (row["entry"], row["source"], row["note"]) == ("203.0.113.0/24", "command", "office")
        assert row["ends"] > row["added"]
        table = guard.command("allow", "list").stdout
        assert "203.0.113.0/24" in table
        assert "office" in table

        done = guard.command("allow", "remove", "203.0.113.0/24")
        assert outcome(done) == (0, "removed: 203.0.113.0/24\n", "")
        assert guard.command("ban", "203.0.113.9").returncode == 0


def test_an_entry_has_an_end_or_none_on_purpose(tmp_path: Path) -> None:
    """An empty time is no time. An entry that ends earlier than the one it replaces says so."""
    with Guard(tmp_path) as guard:
        assert guard.command("allow", "add", "203.0.113.9", "--for", "").returncode == 2
        assert entries(guard, "allow") == []
        guard.must("allow", "add", "203.0.113.9", "203.0.113.10", "--for", "3h")
        guard.must("allow", "add", "203.0.113.9")
        done = guard.command("allow", "add", "203.0.113.9", "203.0.113.10", "--for", "2h")

        assert done.returncode == 0
        first, second = done.stderr.splitlines()
        assert first == "203.0.113.9: this entry of 2h replaces one that had no end"
        had = "which had (3h|2h 59m) left"
        assert re.fullmatch(rf"203\.0\.113\.10: this entry of 2h replaces a longer one, {had}", second)
        assert guard.command("allow", "add", "203.0.113.10").stderr == ""


def test_entries_outlive_the_daemon(tmp_path: Path) -> None:
    """Entries are still there after a restart."""
    with Guard(tmp_path) as guard:
        guard.command("deny", "add", "203.0.113.9", "198.51.100.0/24")
        guard.stop()
        guard.start()

        assert entries(guard, "deny") == ["198.51.100.0/24", "203.0.113.9"]


def test_invalid_entries_are_reported(tmp_path: Path) -> None:
    """Valid entries are added, each invalid one is a line, and the exit code is 1."""
    with Guard(tmp_path, allow={"networks": ["192.0.2.0/24"]}) as guard:
        done = guard.command("deny", "add", "rubbish", "203.0.113.9", "127.0.0.1", "192.0.2.7", "a.example")

        assert (done.returncode, done.stdout) == (1, "on the deny list: 203.0.113.9, 192.0.2.7\n")
        lines = done.stderr.splitlines()
        assert lines[0] == "192.0.2.7 stays allowed: the allow list has 192.0.2.0/24, and it wins"
        assert [line.split(" ")[0].rstrip(":") for line in lines[1:]] == ["rubbish", "127.0.0.1", "a.example"]
        done = guard.command("allow", "remove", "192.0.2.0/24")
        assert done.returncode == 1
        assert done.stderr == "192.0.2.0/24 is in the configuration, [allow]: remove it there, and reload\n"


def test_without_the_daemon_the_database_is_written(tmp_path: Path) -> None:
    """Without the daemon, changes are noted as taking effect at the next start, with exit code 3, and do."""
    guard = Guard(tmp_path)
    code, out, err = outcome(guard.command("deny", "add", "203.0.113.9", "203.0.113.10"))
    assert (code, out) == (3, "on the deny list: 203.0.113.9, 203.0.113.10\n")
    assert err.startswith(DOWN)
    code, out, err = outcome(guard.command("deny", "remove", "203.0.113.10"))
    assert (code, out) == (3, "removed: 203.0.113.10\n")
    done = guard.command("deny", "list")
    assert done.returncode == 0
    assert "203.0.113.9" in done.stdout
    assert done.stderr == (
        "The daemon does not answer: this list comes from its configuration and database.\n"
    )

    with guard:
        assert entries(guard, "deny") == ["203.0.113.9"]


@pytest.mark.parametrize("running", [True, False])
def test_an_invalid_entry_of_the_database_is_listed_and_removed(tmp_path: Path, *, running: bool) -> None:
    """An entry that was written into the database by hand has no networks, and can be removed."""
    guard = Guard(tmp_path)
    with closing(Store.open(tmp_path / "ringfence.db", owner=False)) as store:
        store.entries.add([ListEntry(ListKind.ALLOW, "0.0.0.0/0", "by hand", 0.0)])
    with guard if running else nullcontext():
        [row] = listed(guard, "allow")
        assert (row["entry"], row["networks"], row["leads_to"]) == ("0.0.0.0/0", 0, [])
        done = guard.command("allow", "remove", "0.0.0.0/0", "::/0")
        assert (done.returncode, done.stdout) == (1, "removed: 0.0.0.0/0\n")
        assert done.stderr.startswith("::/0: is the whole internet, which cannot be allowed or denied\n")
        assert listed(guard, "allow") == []


@pytest.mark.parametrize("running", [True, False])
def test_what_this_host_needs_is_not_denied(tmp_path: Path, *, running: bool) -> None:
    """A network with an address that this host needs is refused, with and without the daemon."""
    guard = Guard(tmp_path)
    with guard if running else nullcontext():
        code, out, err = outcome(guard.command("deny", "add", "127.0.0.0/8", "203.0.113.9"))
        assert (code, out) == (1, "on the deny list: 203.0.113.9\n")
        assert "127.0.0.0/8" in err
        assert entries(guard, "deny") == ["203.0.113.9"]


def test_entries_can_be_copied_out_of_the_table(tmp_path: Path) -> None:
    """Entries, addresses and times are not broken within 80 columns; notes wrap."""
    long = "2001:db8:ffff:ffff:ffff:ffff:ffff:fff1"
    note = "a note of many words that has no room beside all the others in its line"
    guard = Guard(tmp_path)
    guard.command("allow", "add", "sip.carrier.example", long, "--for", "2h", "--note", note)
    lines = guard.command("allow", "list").stdout.splitlines()

    assert any(line.startswith("sip.carrier.example ") for line in lines)
    assert any(line.startswith(f"{long} ") for line in lines)
    assert any(re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d ", line) for line in lines)
    assert max(map(len, lines)) <= 80
    assert all(word in " ".join(lines).split() for word in note.split())


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    """An unresolvable name is added with a warning, since the DNS may recover."""
    with Guard(tmp_path) as guard:
        done = guard.command("allow", "add", "no-such-host.invalid")
        table = guard.command("allow", "list").stdout

    assert (done.returncode, done.stdout) == (0, "on the allow list: no-such-host.invalid\n")
    assert "no-such-host.invalid does not resolve yet" in done.stderr
    assert "none" in table


def test_denying_a_friend_warns(tmp_path: Path) -> None:
    """Denying a friend by hand, or banning it, succeeds with a warning."""
    now = time.time()
    friend = Friend("pbx", ip_address("198.51.100.7"), "204", FriendReason.REGISTERED, now, now, now + 3_600)
    with Guard(tmp_path) as guard:
        guard.must("friends", "import", "-", text="\n".join(lines_of([as_json(friend)])))
        added = guard.command("deny", "add", "198.51.100.0/28", "203.0.113.9")
        banned = guard.command("ban", "198.51.100.7")

    assert "198.51.100.7 is a friend (204): denied anyway\n" in added.stderr
    assert "198.51.100.7 is a friend (204): banned anyway\n" in banned.stderr
    assert (added.returncode, banned.returncode) == (0, 0)


def test_entries_before_the_first_start(tmp_path: Path) -> None:
    """The folder of the database is created if the daemon has never run."""
    guard = Guard(tmp_path, store={"path": str(tmp_path / "state" / "ringfence.db")})
    done = guard.command("allow", "add", "203.0.113.9")

    assert (done.returncode, done.stdout) == (3, "on the allow list: 203.0.113.9\n")
    with guard:
        assert entries(guard, "allow") == ["203.0.113.9"]


def test_an_empty_list(tmp_path: Path) -> None:
    """An empty list is a sentence."""
    assert "The deny list is empty." in Guard(tmp_path).command("deny", "list").stdout


def test_a_country_needs_a_database(tmp_path: Path) -> None:
    """Without a database a country is refused with the fix; with one its networks count."""
    database = write(tmp_path / "geo.mmdb", [("203.0.113.0/24", {"country": {"iso_code": "DE"}})])
    with Guard(tmp_path) as guard:
        done = guard.command("allow", "country", "DE")
        assert (done.returncode, done.stdout) == (1, "")
        assert "name it in [geo] database" in done.stderr

        guard.configure(geo={"database": str(database)})
        guard.stop()
        guard.start()
        done = guard.command("allow", "country", "DE", "AS64496")
        assert (done.returncode, done.stdout) == (0, "on the allow list: country DE, AS64496\n")
        assert done.stderr == "AS64496: no database has a network of it, so nothing changes\n"
        assert guard.command("ban", "203.0.113.9").returncode == 1
        assert guard.command("allow", "remove", "DE").returncode == 0
        assert guard.command("ban", "203.0.113.9").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["deny", "remove"],
        ["allow", "add"],
        ["allow", "add", "203.0.113.9", "--for", "ever"],
        ["deny", "country", "Germany"],
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str]) -> None:
    """Wrong usage is exit code 2 and changes nothing."""
    guard = Guard(tmp_path)

    assert guard.command(arguments[0], *arguments[1:]).returncode == 2
    assert not (tmp_path / "ringfence.db").exists()
