"""``ringfence bans``, ``ban`` and ``unban``, with the daemon up and down."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Guard, until
from tests.support.netns import run

from ringfence.cli.bans import _fitting
from ringfence.cli.screen import Screen
from ringfence.values.text import rfc3339

KEYS = [
    *("address", "scope", "since", "expires", "rule", "reason", "origin", "offence", "forced"),
    *("attempts", "proven", "account", "accounts", "timeout", "packets", "bytes"),
]
PREFIX = "2001:db8:1234:5678::/64"


@pytest.fixture(name="daemon", scope="module")
def _daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """Return a daemon with the memory firewall, the same for most tests."""
    with Guard(tmp_path_factory.mktemp("bans")) as guard:
        yield guard


@pytest.fixture(name="empty")
def _empty(daemon: Guard) -> Guard:
    """Return the daemon without a ban."""
    daemon.ask("unban", all=True)
    return daemon


@pytest.fixture(name="guard")
def _guard(empty: Guard) -> Guard:
    """Return the daemon with three bans by hand."""
    return with_three_bans(empty)


def with_three_bans(guard: Guard) -> Guard:
    """Ban three networks by hand; return the daemon."""
    networks = ["203.0.113.1", "203.0.113.64/26", PREFIX]
    assert guard.ask("ban", networks=networks, seconds=7_200, reason="a test")["problems"] == []
    return guard


def rows_of(text: str) -> list[dict[str, Any]]:
    """Parse the output of --json."""
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


# -- bans -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("processes")
def test_the_list_as_json(guard: Guard) -> None:
    """--json prints an array of objects with these keys, and times as RFC 3339."""
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


@pytest.mark.usefixtures("processes")
def test_the_list_for_people(guard: Guard) -> None:
    """The table has one line for each ban, fits 80 columns, and has no colour without a terminal."""
    done = guard.command("bans")
    head, *lines = done.stdout.splitlines()

    assert (done.returncode, done.stderr) == (0, "")
    assert head.split() == ["ADDRESS", "RULE", "PROVEN", "BAN", "SINCE", "(UTC)", "LEFT", "PACKETS"]
    assert {line.split()[0] for line in lines} == {"203.0.113.1", "203.0.113.64/26", PREFIX}
    assert all(line.split()[1] == "admin" for line in lines)
    assert max(map(len, [head, *lines])) <= 80
    assert "\x1b" not in done.stdout


def test_an_empty_list(empty: Guard) -> None:
    """An empty list is a sentence for people and an empty array for scripts."""
    assert empty.command("bans").stdout.splitlines()[-1] == "No address is banned."
    assert empty.command("bans", "--json").stdout == "[]\n"
    empty.command("ban", "203.0.113.1")
    assert empty.command("bans", "192.0.2.9").stdout.splitlines()[-1] == "192.0.2.9 is not banned."


@pytest.mark.parametrize("addresses", [(), ("192.0.2.9",)], ids=len)
def test_an_empty_list_has_mistakes_of_the_configuration_once(
    empty: Guard, addresses: tuple[str, ...]
) -> None:
    """The notes below the list need further requests, which do not print the mistakes again."""
    text = empty.config.read_text("utf-8")
    empty.config.write_text(f"{text}\n[nonsense]\n", "utf-8")
    try:
        done = empty.command("bans", *addresses)
    finally:
        empty.config.write_text(text, "utf-8")

    assert done.returncode == 0
    assert done.stderr.count("nonsense") == 1, done.stderr


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_broken(width: int) -> None:
    """The longest possible address fits on one line with its ban."""
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
        "account": "204",
        "accounts": 4,
    }
    rows = [row, row | {"since": None, "rule": None, "attempts": None, "timeout": None, "offence": None}]
    rows[1]["account"] = None
    console = Screen(width=width, file=StringIO())
    console.print(_fitting(rows, console))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the StringIO

    assert len(lines) == 3
    assert [line.split()[0] for line in lines[1:]] == [row["address"]] * 2
    if width == 120:
        assert lines[1].split()[-1] == "1234567"
        assert lines[1].split()[2:8] == ["204", "+3", "4", "of", "5", "4."]
        assert lines[2].split()[2:5] == ["?", "?", "?"]
    assert lines[1].split()[1:4] == ["adopted", "204", "+3"]


def test_an_address_is_never_broken(empty: Guard) -> None:
    """The longest address keeps its line in 80 columns; in a pipe no column is left out."""
    long = "2001:db8:ffff:ffff:ffff:ffff:ffff:fff1"
    row: dict[str, Any] = {"address": long, "since": "2026-11-20T17:20:00Z", "rule": "guess", "packets": 7}
    row |= {"attempts": 5, "expires": None, "scope": "sip-udp", "offence": 2, "proven": 3}
    row |= {"account": "a" * 128, "accounts": 3}
    narrow = Screen(width=80, file=StringIO())
    narrow.print(_fitting([row], narrow))
    empty.must("ban", long)
    piped = Guard(empty.folder, environ={"COLUMNS": ""}).must("bans").splitlines()

    lines = narrow.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the StringIO
    assert len(lines) == 2
    assert lines[1].startswith(f"{long}  guess (sip-udp)")
    assert [line.split()[0] for line in piped] == ["ADDRESS", long]
    assert piped[0].split()[-1] == "PACKETS"


def test_the_list_shows_scope_number_and_proof(tmp_path: Path) -> None:
    """The list shows a partial scope, the ordinal of the ban, and how many attempts are proven."""
    row = {
        "address": "192.0.2.1",
        "since": None,
        "rule": "flood",
        "attempts": 10,
        "packets": 7,
        "expires": None,
    }
    row |= {"scope": "sip-udp", "offence": 2, "proven": 3, "account": "", "accounts": 0}
    console = Screen(width=80, file=StringIO())
    console.print(_fitting([row], console))

    line = console.file.getvalue().splitlines()[1]  # type: ignore[attr-defined]  # it is the StringIO
    assert line.split() == ["192.0.2.1", "flood", "(sip-udp)", "3", "of", "10", "2.", "?", "no", "end", "7"]


def test_the_time_left_is_that_of_the_ban() -> None:
    """A long ban is listed with its own end, however much time its entry in the kernel has left."""
    expires = rfc3339(time.time() + 59 * 86_400 + 5_400)
    row: dict[str, Any] = {"address": "192.0.2.1", "since": None, "expires": expires, "timeout": 1_100_000}
    row |= {"rule": "admin", "attempts": 0, "packets": 7, "scope": "full"}
    row |= {"offence": 1, "proven": 0, "account": "", "accounts": 0}
    console = Screen(width=80, file=StringIO())
    console.print(_fitting([row], console))

    line = console.file.getvalue().splitlines()[1]  # type: ignore[attr-defined]  # it is the StringIO
    assert line.split()[-3:] == ["59d", "1h", "7"]


def test_a_dry_run_has_no_bans_without_the_daemon(tmp_path: Path) -> None:
    """The memory firewall has no bans without its daemon; an unban stays ended at the next start."""
    with Guard(tmp_path) as guard:
        with_three_bans(guard)
        guard.stop()
        listed = guard.command("bans", "--json")
        done = guard.command("unban", "203.0.113.1")
        guard.start()

        assert (listed.returncode, listed.stdout) == (0, "[]\n")
        note = "The daemon does not answer, and without it the memory firewall has no bans.\n"
        assert listed.stderr == note
        assert (done.returncode, done.stdout) == (0, "unbanned: 203.0.113.1\n")
        assert guard.banned() == {"203.0.113.64/26", PREFIX}


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_without_the_daemon_the_kernel_is_read(tmp_path: Path) -> None:
    """Without the daemon: the kernel's list with the store's facts, a note on standard error, exit code 0."""
    note = "The daemon does not answer: the list is read from the kernel, which enforces bans without it"
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        assert guard.ask("ban", networks=["203.0.113.1", PREFIX], seconds=7_200)["problems"] == []
        before = {row["address"]: row for row in guard.bans()}
        guard.kill()
        for store in ("there", "broken", "lost"):
            for file in tmp_path.glob("ringfence.db*") if store != "there" else ():
                file.unlink()
            if store == "broken":
                (tmp_path / "ringfence.db").write_text("not a database" * 100, "utf-8")
            done = guard.command("bans", "--json")
            after = {row["address"]: row for row in rows_of(done.stdout)}

            assert (done.returncode, done.stderr.startswith(note)) == (0, True), store
            assert ("not a database" in done.stderr) == (store == "broken")
            assert set(after) == set(before), store
            for address, row in after.items():
                assert list(row) == KEYS
                assert row["rule"] == ("admin" if store == "there" else None), store
                assert row["since"] == (before[address]["since"] if store == "there" else None), store
                assert 7_100 <= row["timeout"] <= 7_200
            assert guard.command("bans").returncode == 0, store


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_an_element_without_an_end_is_listed(tmp_path: Path) -> None:
    """A permanent element of another program is null in JSON and text in the table, until it is adopted."""
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        guard.stop()
        run("ipset", "add", "ringfence4", "203.0.113.9", "timeout", "0")
        [row] = guard.bans()
        assert (row["address"], row["expires"], row["timeout"]) == ("203.0.113.9", None, None)
        assert "no end" in guard.command("bans").stdout
        guard.start()
        assert 86_000 < guard.bans()[0]["timeout"] <= 86_400


def test_watch_is_for_people(guard: Guard) -> None:
    """--watch and --json exclude each other: exit code 2."""
    done = guard.command("bans", "--watch", "--json")

    assert done.returncode == 2
    assert "--watch shows current bans to people: leave out --json and --past" in " ".join(
        done.stderr.split()
    )


@contextmanager
def watching(guard: Guard) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[bytes], bool]]]:
    """Run ``bans --watch`` at a terminal; yield the process, and the test whether it has written a text."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ringfence", "bans", "--watch", "--config", str(guard.config)]
    environ = guard._environ | {"TERM": "xterm"}
    seen = b""

    def shown(text: bytes) -> bool:
        nonlocal seen
        while select.select([ours], [], [], 0)[0]:
            seen += os.read(ours, 65_536)
        return text in seen

    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environ) as process:
        os.close(theirs)
        try:
            yield process, shown
        finally:
            process.kill()
    os.close(ours)


def test_watch_redraws_the_list(guard: Guard) -> None:
    """The live list redraws itself, and Ctrl-C ends it with exit code 0."""
    with watching(guard) as (process, shown):
        until(lambda: shown(b"3 banned (live)"), "the list")
        assert guard.ask("ban", networks=["203.0.113.2"], seconds=600)["problems"] == []
        until(lambda: shown(b"4 banned (live)") and shown(b"203.0.113.2"), "the new ban")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_watch_prints_mistakes_of_the_configuration_once(guard: Guard) -> None:
    """They are printed before the first list, and not into the later ones."""
    guard.config.write_text(guard.config.read_text("utf-8") + "\n[nonsense]\n", "utf-8")
    try:
        with watching(guard) as (process, shown):
            until(lambda: shown(b"3 banned (live)"), "the list")
            assert guard.ask("ban", networks=["203.0.113.2"], seconds=600)["problems"] == []
            until(lambda: shown(b"4 banned (live)"), "a later list")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
            assert errors.count(b"nonsense") == 1, errors
    finally:
        guard.configure()


# -- ban and unban ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("processes")
def test_ban_reports_success(guard: Guard) -> None:
    """A ban ends with exit code 0 and one line of output."""
    done = guard.command("ban", "--for", "90m", "203.0.113.5", "::ffff:203.0.113.6")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "banned for 1h 30m: 203.0.113.5, ::ffff:203.0.113.6\n"
    assert {"203.0.113.5", "203.0.113.6"} <= guard.banned()


def test_ban_names_a_longer_ban_that_it_replaces(guard: Guard) -> None:
    """The exit code is 0, and one sentence on standard error says that the address is free earlier."""
    guard.must("ban", "--for", "7d", "203.0.113.5")
    done = guard.command("ban", "203.0.113.5")

    assert (done.returncode, done.stdout) == (0, "banned for 1h: 203.0.113.5\n")
    note = r"203\.0\.113\.5: this ban of 1h replaces a longer one, which had (7d|6d 23h) left\n"
    assert re.fullmatch(note, done.stderr)


def test_ban_reports_each_failure(guard: Guard) -> None:
    """An exempt address is a line with the reason and exit code 1; the other addresses are banned."""
    done = guard.command("ban", "127.0.0.1", "203.0.113.7", "0.0.0.0/0")

    assert done.returncode == 1
    reason = "is never banned: 127.0.0.0/8, this host itself; --force bans it anyway"
    every = "0.0.0.0/0: is every address, which is never banned\n"
    assert done.stderr == f"127.0.0.1: {reason}\n{every}"
    assert done.stdout == "banned for 1h: 203.0.113.7\n"
    assert "203.0.113.7" in guard.banned()


@pytest.mark.parametrize("every", ["0.0.0.0/0", "::/0", "::ffff:0:0/96"])
def test_every_address_is_never_banned(guard: Guard, every: str) -> None:
    """A forced ban of a /0 is refused for good: a later unban of an address places no parts of it."""
    before = guard.banned()
    done = guard.command("ban", "--force", every)

    assert done.returncode == 1
    assert "is every address, which is never banned" in done.stderr
    assert guard.command("unban", "100.64.0.7", "2001:db8:7::7").returncode == 1
    assert guard.banned() == before


def test_ban_refuses_a_large_part_of_the_internet(guard: Guard) -> None:
    """A network wider than /8, or an IPv6 /16, needs --force, as in ``deny add``."""
    done = guard.command("ban", "198.0.0.0/7", "2000::/15")

    assert done.returncode == 1
    reason = "is a large part of the internet, so it is not banned; --force bans it anyway"
    assert done.stderr == f"198.0.0.0/7: {reason}\n2000::/15: {reason}\n"
    assert guard.command("ban", "--force", "198.0.0.0/7").returncode == 0
    assert "198.0.0.0/7" in guard.banned()


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
    """Wrong usage is reported on standard error with exit code 2, and changes nothing."""
    done = guard.command(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert guard.banned() == {"203.0.113.1", "203.0.113.64/26", PREFIX}


@pytest.mark.usefixtures("processes")
def test_unban(guard: Guard) -> None:
    """The rest of a network stays banned, a /64 ends whole; an address without a ban is exit code 1."""
    done = guard.command("unban", "203.0.113.100", "2001:db8:1234:5678::1")
    assert (done.returncode, done.stdout) == (0, "unbanned: 203.0.113.100, 2001:db8:1234:5678::1\n")
    assert done.stderr.splitlines() == [
        "203.0.113.64/26: the rest of it stays banned, in 6 parts",
        "2001:db8:1234:5678::/64: unbanned as a whole, since one sender has all of it",
    ]
    parts = {"203.0.113.96/30", "203.0.113.101", "203.0.113.102/31", "203.0.113.104/29"}
    parts |= {"203.0.113.64/27", "203.0.113.112/28"}
    assert guard.banned() == {"203.0.113.1"} | parts

    done = guard.command("unban", "203.0.113.1", "203.0.113.9")
    assert (done.returncode, done.stderr) == (1, "203.0.113.9: is not banned\n")
    assert guard.command("unban", "203.0.113.64/26").stderr == ""
    assert guard.banned() == set()


def test_force_bans_protected_addresses(guard: Guard) -> None:
    """With --force a protected address is banned with exit code 0."""
    done = guard.command("ban", "--force", "127.0.0.2")

    assert (done.returncode, done.stderr) == (0, "")
    assert "127.0.0.2" in guard.banned()


def test_an_address_may_be_named_twice(guard: Guard) -> None:
    """It is one address, which is not banned after the first time."""
    done = guard.command("unban", "203.0.113.1", "203.0.113.1/32")

    assert (done.returncode, done.stderr) == (0, "")
    assert "203.0.113.1" not in guard.banned()


def test_unban_all(guard: Guard) -> None:
    """Every ban is ended, and counted."""
    assert guard.command("unban", "--all").stdout == "3 bans ended\n"
    assert guard.banned() == set()


def test_unban_all_without_dashes(guard: Guard) -> None:
    """``unban all`` means ``unban --all``."""
    assert guard.command("unban", "all").stdout == "3 bans ended\n"
    assert guard.banned() == set()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize(
    "backend",
    ["ipset", pytest.param("nftables", marks=pytest.mark.long), pytest.param("auto", marks=pytest.mark.long)],
)
def test_unban_without_the_daemon(tmp_path: Path, backend: str) -> None:
    """Without the daemon: the same messages and exit codes, and the ban does not come back."""
    with Guard(tmp_path, firewall={"backend": backend}) as guard:
        guard.must("ban", "203.0.113.1", "203.0.113.2", "203.0.113.64/26", PREFIX)
        guard.kill()
        done = guard.command("unban", "203.0.113.1", "2001:db8:1234:5678::1", "203.0.113.100", "192.0.2.1")
        parts = {"203.0.113.96/30", "203.0.113.101", "203.0.113.102/31", "203.0.113.104/29"}
        parts |= {"203.0.113.64/27", "203.0.113.112/28"}

        assert done.returncode == 1
        assert done.stdout == "unbanned: 203.0.113.1, 2001:db8:1234:5678::1, 203.0.113.100\n"
        assert done.stderr.splitlines() == [
            "the daemon does not answer: removed from the kernel directly",
            "2001:db8:1234:5678::/64: unbanned as a whole, since one sender has all of it",
            "203.0.113.64/26: the rest of it stays banned, in 6 parts",
            "192.0.2.1: is not banned",
        ]
        assert guard.banned() == {"203.0.113.2"} | parts
        done = guard.command("unban", "203.0.113.2")
        assert (done.returncode, done.stdout) == (0, "unbanned: 203.0.113.2\n")
        guard.start()
        assert guard.banned() == parts
        guard.kill()
        assert guard.command("unban", "--all").stdout == "6 bans ended\n"
        assert guard.banned() == set()
        guard.start()
        assert guard.banned() == set()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_unban_without_the_daemon_needs_no_good_configuration(tmp_path: Path) -> None:
    """An invalid configuration does not prevent unban: its problems are printed, and the ban ends."""
    with Guard(tmp_path, firewall={"backend": "nftables"}) as guard:
        guard.must("ban", "203.0.113.1")
        guard.kill()
        guard.configure(colour=1)
        done = guard.command("unban", "203.0.113.1")

        assert (done.returncode, done.stdout) == (0, "unbanned: 203.0.113.1\n")
        assert "colour: unknown key" in done.stderr


def test_ban_needs_the_daemon(tmp_path: Path) -> None:
    """Without the daemon: exit code 3, and the fix."""
    guard = Guard(tmp_path)
    done = guard.command("ban", "203.0.113.8")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"no daemon listens at {guard.folder}/control.sock; start it: systemctl start ringfence\n"
    )


def test_a_daemon_that_refuses_is_a_problem(guard: Guard) -> None:
    """While switched off, bans by hand are refused with exit code 1 and the fix."""
    guard.ask("off")
    try:
        done = guard.command("ban", "203.0.113.8")
    finally:
        guard.ask("on")

    assert done.returncode == 1
    assert done.stderr == "enforcement is switched off; switch it on with: ringfence on\n"


def test_thousands_of_addresses_are_banned_by_one_command(empty: Guard) -> None:
    """One command bans thousands of addresses and one unbans them; the list has one header."""
    addresses = [f"203.0.{n // 250}.{n % 250}" for n in range(2_000)]
    assert empty.command("ban", *addresses).returncode == 0
    assert len(empty.bans()) == 2_000
    head, *lines = empty.command("bans").stdout.splitlines()
    assert head.split() == ["ADDRESS", "RULE", "PROVEN", "BAN", "SINCE", "(UTC)", "LEFT", "PACKETS"]
    assert {line.split()[0] for line in lines} == set(addresses)
    assert {len(line.split("  ")) for line in lines} == {7}


def test_unban_can_also_allow(tmp_path: Path) -> None:
    """One command ends the ban and allows the address, also one that is not banned."""
    with Guard(tmp_path) as guard:
        with_three_bans(guard)
        text = guard.must("unban", "--allow", "203.0.113.1", "198.51.100.1")

        allowed, unbanned = text.splitlines()  # in this order, so that no ban comes in between
        assert allowed.startswith("on the allow list: ")
        assert unbanned == "unbanned: 203.0.113.1, 198.51.100.1"
        assert "203.0.113.1" not in guard.banned()
        for address in ("203.0.113.1", "198.51.100.1"):
            assert "is allowed" in guard.command("ban", address).stderr
        assert guard.command("unban", "--all", "--allow").returncode == 2


def test_unban_of_what_the_allow_list_refuses(tmp_path: Path) -> None:
    """If the allow list is full, no address is reported as unbanned that was not banned."""
    full = [f"198.18.{number // 128}.{number % 128 * 2}/32" for number in range(1_024)]
    firewall = {"backend": "memory", "max_bans": 1_024}
    with Guard(tmp_path, firewall=firewall, allow={"networks": full}) as guard:
        guard.must("ban", "203.0.113.3")
        done = guard.command("unban", "--allow", "203.0.113.1", "203.0.113.3")

        assert (done.returncode, done.stdout) == (1, "unbanned: 203.0.113.3\n")
        assert done.stderr.count("the allow list is full (1024 networks)") == 2
        assert "203.0.113.1: is not banned\n" in done.stderr
        assert guard.banned() == set()
