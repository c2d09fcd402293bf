"""``ringfence bans``, ``ban`` and ``unban``, as typed, with the daemon up and down."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.daemon import Guard, until
from tests.support.netns import run

from ringfence.cli.bans import _fitting

KEYS = [
    *("address", "since", "expires", "rule", "attempts", "packets", "bytes", "timeout", "reason"),
    *("scope", "offence", "proven"),
]
PREFIX = "2001:db8:1234:5678::/64"


@pytest.fixture(name="guard")
def _guard(tmp_path: Path) -> Iterator[Guard]:
    """Give a daemon of pretence, with three bans by hand."""
    with Guard(tmp_path) as guard:
        done = guard.command(
            "ban", "--for", "2h", "--reason", "a test", "203.0.113.1", "203.0.113.64/26", PREFIX
        )
        assert done.returncode == 0
        yield guard


def rows_of(text: str) -> list[dict[str, Any]]:
    """Read what --json printed."""
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


# -- bans -------------------------------------------------------------------------------------------------


def test_the_list_as_json(guard: Guard) -> None:
    """An array of objects with these keys, times as RFC 3339, on standard output and nothing else."""
    done = guard.command("bans", "--json")
    rows = rows_of(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert {row["address"] for row in rows} == {"203.0.113.1", "203.0.113.64/26", PREFIX}
    for row in rows:
        assert list(row) == KEYS
        since, expires = (datetime.fromisoformat(row[key]) for key in ("since", "expires"))
        assert 7_199 <= (expires - since).total_seconds() <= 7_201
        assert (row["rule"], row["attempts"], row["packets"], row["bytes"]) == ("admin", 0, 0, 0)
        assert (row["scope"], row["offence"], row["proven"]) == ("full", 1, 0)
        assert row["reason"] == "a test"
        assert 7_100 <= row["timeout"] <= 7_200


def test_the_list_for_people(guard: Guard) -> None:
    """A table, a line a ban, within 80 columns, without colour where nobody looks."""
    done = guard.command("bans")
    head, *lines = done.stdout.splitlines()

    assert (done.returncode, done.stderr) == (0, "")
    assert head.split() == ["ADDRESS", "RULE", "PROVEN", "BAN", "SINCE", "(UTC)", "LEFT", "PACKETS"]
    assert {line.split()[0] for line in lines} == {"203.0.113.1", "203.0.113.64/26", PREFIX}
    assert all(line.split()[1] == "admin" for line in lines)
    assert max(map(len, [head, *lines])) <= 80
    assert "\x1b" not in done.stdout


def test_nobody_is_banned(tmp_path: Path) -> None:
    """An empty list says so, and is an empty array for scripts."""
    with Guard(tmp_path) as guard:
        assert guard.command("bans").stdout.splitlines()[-1] == "Nobody is banned."
        assert guard.command("bans", "--json").stdout == "[]\n"
        guard.command("ban", "203.0.113.1")
        assert guard.command("bans", "192.0.2.9").stdout.splitlines()[-1] == "192.0.2.9 is not banned."


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_broken(width: int) -> None:
    """The longest address there is stands on one line with the rest of its ban."""
    row = {
        "address": "2001:db8:1234:5678:9abc:def0:1234:5678",
        "since": "2026-11-20T07:38:32Z",
        "expires": None,
        "rule": "adopted",
        "attempts": 5,
        "packets": 1_234_567,
        "bytes": 1,
        "timeout": 6 * 86_400 + 3_600 * 23,
        "reason": None,
        "scope": "full",
        "offence": 4,
        "proven": 4,
    }
    rows = [row, row | {"since": None, "rule": None, "attempts": None, "timeout": None, "offence": None}]
    console = Console(width=width, file=StringIO())
    console.print(_fitting(rows, console))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the StringIO

    assert len(lines) == 3
    assert [line.split()[0] for line in lines[1:]] == [row["address"]] * 2
    assert lines[1].split()[-1] == "1234567"
    assert lines[1].split()[2:6] == ["4", "of", "5", "4."]
    assert lines[2].split()[2:4] == ["?", "?"]


def test_an_address_is_never_broken(tmp_path: Path) -> None:
    """In 80 columns the longest one keeps its line; in a pipe nothing gives way, so that grep finds it."""
    long = "2001:db8:ffff:ffff:ffff:ffff:ffff:fff1"
    row: dict[str, Any] = {"address": long, "since": "2026-11-20T17:20:00Z", "rule": "guess", "packets": 7}
    row |= {"attempts": 5, "timeout": 3_599, "scope": "sip-udp", "offence": 2, "proven": 3}
    narrow = Console(width=80, file=StringIO())
    narrow.print(_fitting([row], narrow))
    with Guard(tmp_path, environ={"COLUMNS": ""}) as guard:
        guard.must("ban", long)
        piped = guard.must("bans").splitlines()

    lines = narrow.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the StringIO
    assert len(lines) == 2
    assert lines[1].startswith(f"{long}  guess (sip-udp)")
    assert [line.split()[0] for line in piped] == ["ADDRESS", long]
    assert piped[0].split()[-1] == "PACKETS"


def test_the_list_says_what_a_ban_covers(tmp_path: Path) -> None:
    """Where that is not everything; and which ban of it this is, and how many attempts are proven."""
    row = {
        "address": "192.0.2.1",
        "since": None,
        "rule": "flood",
        "attempts": 10,
        "packets": 7,
        "timeout": 60,
    }
    row |= {"scope": "sip-udp", "offence": 2, "proven": 3}
    console = Console(width=80, file=StringIO())
    console.print(_fitting([row], console))

    line = console.file.getvalue().splitlines()[1]  # type: ignore[attr-defined]  # it is the StringIO
    assert line.split() == ["192.0.2.1", "flood", "(sip-udp)", "3", "of", "10", "2.", "?", "1m", "7"]


def test_without_the_daemon_nothing_is_claimed_of_a_dry_run(guard: Guard) -> None:
    """The memory firewall keeps nothing without its daemon, and the note does not say that it drops."""
    guard.stop()
    done = guard.command("bans", "--json")

    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert done.stderr == "The daemon is not running, and the memory firewall has no bans without it.\n"


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("store", ["there", "lost", "broken"])
def test_without_the_daemon_the_kernel_is_read(tmp_path: Path, store: str) -> None:
    """Daemon down: exit code 0, the kernel's list with what the store knows, and a note that says so."""
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        guard.command("ban", "--for", "2h", "203.0.113.1", PREFIX)
        before = {row["address"]: row for row in guard.bans()}
        guard.kill()
        database = tmp_path / "ringfence.db"
        for file in tmp_path.glob("ringfence.db*") if store != "there" else ():
            file.unlink()
        if store == "broken":
            database.write_text("not a database" * 100, "utf-8")
        done = guard.command("bans", "--json")
        after = {row["address"]: row for row in rows_of(done.stdout)}

        assert done.returncode == 0
        note = "The daemon is not running: this is read from the kernel, which needs none to drop."
        assert done.stderr.splitlines()[-1] == note
        assert ("not a database" in done.stderr) == (store == "broken")
        assert set(after) == set(before)
        for address, row in after.items():
            assert list(row) == KEYS
            assert row["rule"] == ("admin" if store == "there" else None)
            assert row["since"] == (before[address]["since"] if store == "there" else None)
            assert 7_100 <= row["timeout"] <= 7_200
        assert guard.command("bans").returncode == 0


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_an_element_without_an_end_is_listed(tmp_path: Path) -> None:
    """What another hand put in for ever is null for scripts and a word for people, until it is adopted."""
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        guard.stop()
        run("ipset", "add", "ringfence4", "203.0.113.9", "timeout", "0")
        [row] = guard.bans()
        assert (row["address"], row["expires"], row["timeout"]) == ("203.0.113.9", None, None)
        assert "no end" in guard.command("bans").stdout
        guard.start()
        assert 86_000 < guard.bans()[0]["timeout"] <= 86_400


def test_watch_is_for_people(guard: Guard) -> None:
    """--watch and --json do not go together: exit code 2."""
    done = guard.command("bans", "--watch", "--json")

    assert done.returncode == 2
    assert "--watch is for people, --json for scripts: choose one" in " ".join(done.stderr.split())


def test_watch_shows_what_changes(guard: Guard) -> None:
    """The live list redraws itself, and Ctrl-C ends it with exit code 0."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ringfence", "bans", "--watch", "--config", str(guard.config)]
    process = subprocess.Popen(command, stdout=theirs, env=guard._environ | {"TERM": "xterm"})
    os.close(theirs)
    seen = b""

    def shown(text: bytes) -> bool:
        nonlocal seen
        while select.select([ours], [], [], 0)[0]:
            seen += os.read(ours, 65_536)
        return text in seen

    try:
        until(lambda: shown(b"3 banned (live)"), "the list")
        guard.command("ban", "203.0.113.2")
        until(lambda: shown(b"4 banned (live)") and shown(b"203.0.113.2"), "the new ban")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# -- ban and unban ----------------------------------------------------------------------------------------


def test_ban_says_what_it_did(guard: Guard) -> None:
    """Exit code 0, and a line for people."""
    done = guard.command("ban", "--for", "90m", "203.0.113.5", "::ffff:203.0.113.6")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "banned for 1h 30m: 203.0.113.5, ::ffff:203.0.113.6\n"
    assert {"203.0.113.5", "203.0.113.6"} <= guard.banned()


def test_ban_says_whom_it_could_not(guard: Guard) -> None:
    """Who is never banned is a line with the reason on standard error and exit code 1; others are banned."""
    done = guard.command("ban", "127.0.0.1", "203.0.113.7", "0.0.0.0/0")

    assert done.returncode == 1
    reason = "is never banned: 127.0.0.0/8, this host itself; --force bans it all the same"
    assert done.stderr == f"127.0.0.1/32: {reason}\n0.0.0.0/0: {reason}\n"
    assert done.stdout == "banned for 1h: 203.0.113.7\n"
    assert "203.0.113.7" in guard.banned()


@pytest.mark.parametrize(
    "arguments",
    [
        ("ban",),
        ("ban", "pbx.example"),
        ("ban", "203.0.113.1/24"),
        ("ban", "fe80::1%eth0"),
        ("ban", "--for", "soon", "203.0.113.1"),
        ("ban", "--for", "0s", "203.0.113.1"),
        ("ban", "--for", "11y", "203.0.113.1"),
        ("unban",),
        ("unban", "--all", "203.0.113.1"),
        ("unban", "pbx.example"),
        ("bans", "--colour"),
        ("dance",),
    ],
)
def test_wrong_usage(guard: Guard, arguments: tuple[str, ...]) -> None:
    """What makes no sense is told on standard error with exit code 2, and changes nothing."""
    done = guard.command(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert guard.banned() == {"203.0.113.1", "203.0.113.64/26", PREFIX}


def test_unban_lets_in(guard: Guard) -> None:
    """Of a network around an address the rest stays banned, of a /64 nothing; strangers are exit code 1."""
    done = guard.command("unban", "203.0.113.100", "2001:db8:1234:5678::1")
    assert (done.returncode, done.stdout) == (0, "unbanned: 203.0.113.100, 2001:db8:1234:5678::1\n")
    assert done.stderr.splitlines() == [
        "203.0.113.64/26: the rest of it stays banned, in 6 parts",
        "2001:db8:1234:5678::/64: is let in as a whole, since one sender has all of it",
    ]
    parts = {"203.0.113.96/30", "203.0.113.101", "203.0.113.102/31", "203.0.113.104/29"}
    parts |= {"203.0.113.64/27", "203.0.113.112/28"}
    assert guard.banned() == {"203.0.113.1"} | parts

    done = guard.command("unban", "203.0.113.1", "203.0.113.9")
    assert (done.returncode, done.stderr) == (1, "203.0.113.9/32: is not banned\n")
    assert guard.command("unban", "203.0.113.64/26").stderr == ""
    assert guard.banned() == set()


def test_who_is_protected_is_banned_by_force(guard: Guard) -> None:
    """Who insists is believed: exit code 0, and the ban is there."""
    done = guard.command("ban", "--force", "127.0.0.2")

    assert (done.returncode, done.stderr) == (0, "")
    assert "127.0.0.2" in guard.banned()


def test_unban_all(guard: Guard) -> None:
    """Everybody is let in, and counted."""
    assert guard.command("unban", "--all").stdout == "3 bans lifted\n"
    assert guard.banned() == set()


@pytest.mark.parametrize("arguments", [("ban", "203.0.113.8"), ("unban", "203.0.113.1"), ("unban", "--all")])
def test_who_needs_the_daemon_says_so(guard: Guard, arguments: tuple[str, ...]) -> None:
    """Without the daemon: exit code 3, and the mend."""
    guard.stop()
    done = guard.command(*arguments)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"no daemon listens at {guard.folder}/control.sock; start it: systemctl start ringfence\n"
    )


def test_a_daemon_that_refuses_is_a_problem(guard: Guard) -> None:
    """Switched off, bans by hand are refused with exit code 1 and the mend."""
    guard.command("off")
    done = guard.command("ban", "203.0.113.8")

    assert done.returncode == 1
    assert done.stderr == "enforcement is switched off; switch it on with: ringfence on\n"


def test_a_long_list_goes_in_and_out_at_once(tmp_path: Path) -> None:
    """Thousands of bans by hand go in by one command and come out by one, for people under one head."""
    addresses = [f"203.0.{n // 250}.{n % 250}" for n in range(5_000)]
    with Guard(tmp_path) as guard:
        assert guard.command("ban", *addresses).returncode == 0
        assert len(guard.bans()) == 5_000
        head, *lines = guard.command("bans").stdout.splitlines()
        assert head.split() == ["ADDRESS", "RULE", "PROVEN", "BAN", "SINCE", "LEFT", "PACKETS"]
        assert {line.split()[0] for line in lines} == set(addresses)
        assert {len(line.split("  ")) for line in lines} == {7}
