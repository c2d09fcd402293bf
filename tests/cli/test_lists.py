"""``ringfence allow`` and ``deny``, daemon up and down."""

import json
import re
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.support.daemon import Completed, Guard
from tests.support.mmdb import write
from typer.testing import CliRunner

from ringfence.cli import app
from ringfence.friends.document import as_json, lines_of
from ringfence.model import Friend, Tie

COMMANDS = [
    (group, name)
    for group in ("allow", "deny")
    for name in typer.main.get_group(app).commands[group].commands  # type: ignore[attr-defined]
]
DOWN = "this takes effect when the daemon starts: no daemon listens at "


def said(done: Completed) -> tuple[int, str, str]:
    """Give what came of a command."""
    return done.returncode, done.stdout, done.stderr


def listed(guard: Guard, side: str) -> list[dict[str, Any]]:
    """Give what `list --json` says."""
    rows: list[dict[str, Any]] = json.loads(guard.command(side, "list", "--json").stdout)
    return rows


def entries(guard: Guard, side: str) -> list[str]:
    """Give the entries of a list."""
    return [row["entry"] for row in listed(guard, side)]


def test_these_commands_there_are() -> None:
    """Both lists have the same, and a block list can be denied."""
    assert sorted(COMMANDS) == [
        ("allow", "add"),
        ("allow", "country"),
        ("allow", "list"),
        ("allow", "remove"),
        ("deny", "add"),
        ("deny", "country"),
        ("deny", "import"),
        ("deny", "list"),
        ("deny", "remove"),
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_config(command: tuple[str, str]) -> None:
    """``--help`` says what it does and names --config, within 80 columns."""
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})

    assert result.exit_code == 0
    assert f"ringfence {' '.join(command)}" in result.stdout
    assert "--config" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_entries_come_and_go(tmp_path: Path) -> None:
    """With the daemon: what is allowed lifts a ban at once and is not banned again; then it may be."""
    with Guard(tmp_path) as guard:
        guard.command("ban", "203.0.113.9")
        done = guard.command("allow", "add", "203.0.113.0/24", "--note", "office", "--for", "2h")
        assert said(done) == (0, "on the allow list for 2h: 203.0.113.0/24\n", "")
        assert guard.banned() == set()
        assert guard.command("ban", "203.0.113.9").returncode == 1

        [row] = listed(guard, "allow")
        assert (row["entry"], row["source"], row["note"]) == ("203.0.113.0/24", "command", "office")
        assert row["ends"] > row["added"]
        table = guard.command("allow", "list").stdout
        assert "203.0.113.0/24" in table
        assert "office" in table

        done = guard.command("allow", "remove", "203.0.113.0/24")
        assert said(done) == (0, "removed: 203.0.113.0/24\n", "")
        assert guard.command("ban", "203.0.113.9").returncode == 0


def test_entries_outlive_the_daemon(tmp_path: Path) -> None:
    """What a command wrote is there after a restart."""
    with Guard(tmp_path) as guard:
        guard.command("deny", "add", "203.0.113.9", "198.51.100.0/24")
        guard.stop()
        guard.start()

        assert entries(guard, "deny") == ["198.51.100.0/24", "203.0.113.9"]


def test_what_is_wrong_is_told_beside_what_is_done(tmp_path: Path) -> None:
    """Exit code 1, the good ones are in, each of the others is a line."""
    with Guard(tmp_path, allow={"networks": ["192.0.2.0/24"]}) as guard:
        done = guard.command("deny", "add", "rubbish", "203.0.113.9", "127.0.0.1", "192.0.2.7", "a.example")

        assert (done.returncode, done.stdout) == (1, "on the deny list: 203.0.113.9, 192.0.2.7\n")
        lines = done.stderr.splitlines()
        assert lines[0] == "192.0.2.7 is let in all the same: 192.0.2.0/24 is allowed, which wins"
        assert [line.split(" ")[0].rstrip(":") for line in lines[1:]] == ["rubbish", "127.0.0.1", "a.example"]
        done = guard.command("allow", "remove", "192.0.2.0/24")
        assert done.returncode == 1
        assert done.stderr == "192.0.2.0/24 is in the configuration, [allow]: take it out there, and reload\n"


def test_without_the_daemon_the_database_is_written(tmp_path: Path) -> None:
    """Adding and removing say that they take effect at the next start, with exit code 3, and they do."""
    guard = Guard(tmp_path)
    code, out, err = said(guard.command("deny", "add", "203.0.113.9", "203.0.113.10"))
    assert (code, out) == (3, "on the deny list: 203.0.113.9, 203.0.113.10\n")
    assert err.startswith(DOWN)
    code, out, err = said(guard.command("deny", "remove", "203.0.113.10"))
    assert (code, out) == (3, "removed: 203.0.113.10\n")
    done = guard.command("deny", "list")
    assert done.returncode == 0
    assert "203.0.113.9" in done.stdout
    assert done.stderr == (
        "The daemon is not running: this is read from its configuration and its database.\n"
    )

    with guard:
        assert entries(guard, "deny") == ["203.0.113.9"]


def test_entries_can_be_copied_out_of_the_table(tmp_path: Path) -> None:
    """Entries, addresses and times stand in one piece within 80 columns; a note gives way."""
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


def test_a_name_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    """It is on the list all the same, since the DNS may come back."""
    with Guard(tmp_path) as guard:
        done = guard.command("allow", "add", "no-such-host.invalid")
        table = guard.command("allow", "list").stdout

    assert (done.returncode, done.stdout) == (0, "on the allow list: no-such-host.invalid\n")
    assert "no-such-host.invalid leads nowhere yet" in done.stderr
    assert "nowhere" in table


def test_a_friend_who_is_denied_is_named(tmp_path: Path) -> None:
    """By hand and by a block list: it is done, and nobody wonders later why the phone is dead."""
    now = time.time()
    friend = Friend("pbx", ip_address("198.51.100.7"), "204", Tie.REGISTERED, now, now, now + 3_600)
    with Guard(tmp_path) as guard:
        guard.must("friends", "import", "-", text="\n".join(lines_of([as_json(friend)])))
        added = guard.command("deny", "add", "198.51.100.0/28", "203.0.113.9")
        imported = guard.command("deny", "import", "-", text="198.51.100.7\n203.0.113.10\n")
        banned = guard.command("ban", "198.51.100.7")

    assert "198.51.100.7 is a friend (204): denied all the same\n" in added.stderr
    assert "198.51.100.7 is a friend (204): denied all the same\n" in imported.stderr
    assert "198.51.100.7 is a friend (204): banned all the same\n" in banned.stderr
    assert (added.returncode, imported.returncode, banned.returncode) == (0, 0, 0)


def test_a_list_may_be_begun_before_the_daemon(tmp_path: Path) -> None:
    """The folder of the database is made where the unit has never been started."""
    guard = Guard(tmp_path, store={"path": str(tmp_path / "state" / "ringfence.db")})
    done = guard.command("allow", "add", "203.0.113.9")

    assert (done.returncode, done.stdout) == (3, "on the allow list: 203.0.113.9\n")
    with guard:
        assert entries(guard, "allow") == ["203.0.113.9"]


def test_an_empty_list_says_so(tmp_path: Path) -> None:
    """Nobody is a sentence."""
    assert "Nobody is on the deny list." in Guard(tmp_path).command("deny", "list").stdout


LIST = "\ufeff# a list\r\n203.0.113.9 ; SBL1\r\nrubbish\r\n198.51.100.0-198.51.100.255\r\n10.0.0.0/8\r\n"


def test_a_block_list_is_imported(tmp_path: Path) -> None:
    """The good lines count at once, the bad ones are named, and a file without fault is exit code 0."""
    file = tmp_path / "list.txt"
    file.write_text(LIST, "utf-8")
    with Guard(tmp_path) as guard:
        code, out, err = said(guard.command("deny", "import", str(file), "--note", "a list"))
        assert (code, out) == (1, "2 networks of 5 lines: 2 new, 0 gone\n")
        assert err.splitlines() == [
            "line 3: 'rubbish': 'rubbish' does not appear to be an IPv4 or IPv6 network",
            "left out, since your own network may use it: 10.0.0.0/8; --force takes it too",
        ]
        [row] = listed(guard, "deny")
        assert (row["entry"], row["file"], row["networks"], row["note"]) == (str(file), True, 2, "a list")

        file.write_text("203.0.113.9\n203.0.113.77\n", "utf-8")
        done = guard.command("deny", "import", str(file))
        assert said(done) == (0, "2 networks of 2 lines: 1 new, 1 gone\n", "")
        done = guard.command("deny", "remove", "--from", str(file))
        assert said(done) == (0, f"removed: 2 networks of {file}\n", "")
        assert entries(guard, "deny") == []


def test_a_block_list_may_be_standard_input(tmp_path: Path) -> None:
    """It is a file of its own, daemon up or down."""
    guard = Guard(tmp_path)
    done = guard.command("deny", "import", "-", text="203.0.113.9\n")
    assert (done.returncode, done.stdout) == (3, "1 networks of 1 lines: 1 new, 0 gone\n")
    assert entries(guard, "deny") == ["standard input"]
    done = guard.command("deny", "remove", "--from", "-")
    assert (done.returncode, done.stdout) == (3, "removed: 1 networks of standard input\n")


def test_a_file_without_a_good_line_changes_nothing(tmp_path: Path) -> None:
    """A download that failed does not empty the list."""
    guard = Guard(tmp_path)
    file = tmp_path / "list.txt"
    file.write_text("203.0.113.9\n", "utf-8")
    guard.command("deny", "import", str(file))
    file.write_text("<html>404</html>\n" * 30, "utf-8")

    code, out, err = said(guard.command("deny", "import", str(file)))

    assert (code, out) == (1, "")
    assert err.splitlines()[-2:] == [
        "and 10 bad lines more",
        f"{file} has no network that can be denied: the list stays as it was",
    ]
    assert entries(guard, "deny") == [str(file)]
    done = guard.command("deny", "import", str(tmp_path / "absent"))
    assert said(done) == (1, "", f"{tmp_path}/absent cannot be read: No such file or directory\n")


def test_a_country_takes_a_database(tmp_path: Path) -> None:
    """Without one it is refused with the mend; with one its networks count."""
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
        assert done.stderr == "AS64496: no network of it is known, so nothing changes\n"
        assert guard.command("ban", "203.0.113.9").returncode == 1
        assert guard.command("allow", "remove", "DE").returncode == 0
        assert guard.command("ban", "203.0.113.9").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["deny", "remove"],
        ["deny", "remove", "203.0.113.9", "--from", "x"],
        ["allow", "add"],
        ["allow", "add", "203.0.113.9", "--for", "ever"],
        ["deny", "country", "Germany"],
    ],
)
def test_what_makes_no_sense_is_usage(tmp_path: Path, arguments: list[str]) -> None:
    """Exit code 2, and nothing is done."""
    guard = Guard(tmp_path)

    assert guard.command(arguments[0], *arguments[1:]).returncode == 2
    assert not (tmp_path / "ringfence.db").exists()
