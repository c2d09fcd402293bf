"""``ringfence import-fail2ban``: the configuration, and the bans that are taken over."""

import os
import sqlite3
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Completed, Guard, until
from tests.support.fail2ban import Fail2ban, configure
from typer.testing import CliRunner

from ringfence.cli.app import app
from ringfence.config.loader import parse
from ringfence.features.fail2ban import command
from ringfence.features.fail2ban.command import BATCH
from ringfence.sources import logs
from ringfence.store.database import Store
from ringfence.values.friend import Friend, FriendReason

JAIL = """
[DEFAULT]
ignoreip = 127.0.0.1/8 192.0.2.0/24 pbx.example.org
bantime = 1h

[sshd]
enabled = true

[asterisk]
enabled = true
maxretry = 4
findtime = 20m
logpath = /var/log/asterisk/*.missing
"""
pytestmark = pytest.mark.usefixtures("fail2ban_client")
OFF = "[asterisk]\nenabled = false\n"


class Migration:
    """The configuration and database of a fail2ban in ``folder``, and a ringfence to import them."""

    def __init__(self, folder: Path, guard: Guard) -> None:
        self.etc = folder / "etc"
        self.database = folder / "bans.sqlite3"
        configure(self.etc, {"jail.local": JAIL, "fail2ban.local": f"[DEFAULT]\ndbfile = {self.database}\n"})
        guard._environ |= {"PATH": os.environ["PATH"]}  # which has fail2ban's client
        self.guard = guard

    def bans(self, *rows: tuple[str, str, float, float]) -> None:
        """Create the database with rows of address, jail, time and length."""
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute("CREATE TABLE bips(ip, jail, timeofban, bantime, bancount DEFAULT 1, data)")
            connection.executemany(
                "INSERT INTO bips (ip, jail, timeofban, bantime) VALUES (?, ?, ?, ?)", rows
            )
            connection.commit()

    def typed(self, *arguments: str) -> Completed:
        """Run the command on this fail2ban."""
        return self.guard.command("import-fail2ban", str(self.etc), *arguments)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows of `bans --json` by address."""
        return {row["address"]: row for row in self.guard.bans()}


ALLOWED = {"networks": ["203.0.113.0/24"]}


@pytest.fixture(name="moving")
def _moving(tmp_path: Path) -> Migration:
    """Return a migration to a ringfence whose daemon does not run."""
    return Migration(tmp_path, Guard(tmp_path, allow=ALLOWED))


@pytest.fixture(name="daemon", scope="module")
def _daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """Return a daemon, the same for all tests."""
    with Guard(tmp_path_factory.mktemp("daemon"), allow=ALLOWED) as guard:
        yield guard


@pytest.fixture(name="running")
def _running(tmp_path: Path, daemon: Guard) -> Migration:
    """Return a migration to a daemon that has no ban."""
    daemon.ask("unban", all=True)
    return Migration(tmp_path, daemon)


# -- the configuration ------------------------------------------------------------------------------------


def test_the_configuration_is_printed(moving: Migration) -> None:
    """Standard output contains a valid configuration of ringfence, and standard error is empty."""
    done = moving.typed()
    settings = parse(tomllib.loads(done.stdout), "printed", {}, secrets=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert [str(network) for network in settings.allow.networks] == ["127.0.0.0/8", "192.0.2.0/24"]
    guess = settings.rules["guess"]
    assert (guess.attempts, guess.window, guess.ban) == (4, 1200.0, (3600.0,))
    assert "ignoreip pbx.example.org: neither an address nor a network" in " ".join(done.stdout.split())


def test_the_own_log_channel_stays_in_use(
    moving: Migration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If ringfence's own log channel exists, the configuration sets no paths, and explains why."""
    own = tmp_path / "ringfence"
    own.touch()
    monkeypatch.setattr(logs, "OWN", (tmp_path / "absent", own))
    printed = CliRunner().invoke(app, ["import-fail2ban", str(moving.etc)]).stdout

    assert "paths" not in tomllib.loads(printed)["asterisk"][0].get("logs", {})
    assert f"NOTE {own} is ringfence's own log channel" in " ".join(printed.replace("#", " ").split())


def test_without_an_asterisk_jail(moving: Migration) -> None:
    """Nothing is printed, the existing jails are named, and the exit code is that of wrong usage."""
    (moving.etc / "jail.d" / "z.local").write_text(OFF, "utf-8")

    done = moving.typed()

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"{moving.etc}:",
        "  no enabled jail guards Asterisk",
        "  enabled jails: sshd",
    ]


def test_a_jail_that_fail2ban_skips_is_a_problem(moving: Migration) -> None:
    """The rest is printed, and the exit code shows that something is missing."""
    (moving.etc / "jail.d" / "z.local").write_text("[pbx]\nenabled = true\nfilter = gone\n", "utf-8")

    done = moving.typed()

    assert done.returncode == 1
    assert "Jail 'pbx' skipped, because of wrong configuration" in done.stderr
    assert "attempts = 4" in done.stdout


def test_text_that_the_terminal_cannot_show_is_printed_as_utf8(moving: Migration) -> None:
    """The configuration is UTF-8 in any locale."""
    log = moving.guard.folder / "ü"
    log.touch()
    text = f"[asterisk]\nbackend = auto\nlogpath = {log}\n"
    (moving.etc / "jail.d" / "z.local").write_text(text, "utf-8")
    moving.guard._environ |= {"PYTHONIOENCODING": "ascii"}

    assert f'paths = ["{log}"]' in moving.typed().stdout


@pytest.mark.parametrize(
    "arguments", [("--dry-run",), ("--force",), ("--database", "/f"), ("--jail",), ("--x",)]
)
def test_wrong_usage(moving: Migration, arguments: tuple[str, ...]) -> None:
    """Wrong usage is reported on standard error with exit code 2."""
    done = moving.typed(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


# -- the bans ---------------------------------------------------------------------------------------------


def test_active_bans_are_taken_over(running: Migration) -> None:
    """Active bans of the asterisk jail keep their remaining time, and their reason names the jail."""
    now = time.time()
    running.bans(
        ("198.18.0.1", "asterisk", now - 100, 3700),
        ("2001:db8::1", "asterisk", now - 100, 3700),
        ("198.18.0.2", "asterisk", now - 100, 90),
        ("198.18.0.3", "sshd", now, 3600),
        ("198.18.0.4", "asterisk", now, -1),
    )

    done = running.typed("--bans")
    rows = running.rows()

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "3 of 3 active bans taken over",
        "permanent in fail2ban, here for ten years: 1",
    ]
    assert set(rows) == {"198.18.0.1", "2001:db8::1", "198.18.0.4"}
    for address in ("198.18.0.1", "2001:db8::1"):
        ends = datetime.fromisoformat(rows[address]["expires"]).timestamp()
        assert now + 3_598 <= ends <= now + 3_660
        assert rows[address]["reason"] == "taken over from fail2ban jail asterisk"


def test_a_ban_is_never_shortened(running: Migration) -> None:
    """A longer ban of ringfence stays, a shorter one is extended, and a repetition changes nothing."""
    now = time.time()
    running.bans(
        ("198.18.0.1", "asterisk", now, 3600),
        ("198.18.0.2", "asterisk", now, 3600),
        ("198.18.0.3", "asterisk", now, -1),
    )

    running.guard.command("ban", "--for", "7d", "198.18.0.1")
    running.guard.command("ban", "--for", "1m", "198.18.0.2")
    first = running.typed("--bans")
    before = running.rows()
    again = running.typed("--bans")
    after = running.rows()

    assert first.stdout.startswith(
        "2 of 3 active bans taken over\nalready banned here for at least as long: 1\n"
    )
    assert again.stdout == "0 of 3 active bans taken over\nalready banned here for at least as long: 3\n"
    assert before["198.18.0.1"]["timeout"] > 600_000
    assert 3_500 < before["198.18.0.2"]["timeout"] <= 3_600
    assert {address: row["expires"] for address, row in before.items()} == {
        address: row["expires"] for address, row in after.items()
    }


def test_refused_bans_are_reported(running: Migration) -> None:
    """Each ban that the daemon refuses is a line and exit code 1; the others are taken over."""
    now = time.time()
    running.bans(
        ("203.0.113.9", "asterisk", now, 3600),
        ("198.18.0.1", "asterisk", now, 3600),
        ("x", "asterisk", now, 1),
    )

    done = running.typed("--bans")
    assert running.guard.banned() == {"198.18.0.1"}

    assert (done.returncode, done.stdout) == (1, "1 of 2 active bans taken over\n")
    assert done.stderr == (
        f"{running.database}: invalid rows: 1, such as 'x', {now!r}, 1\n"
        "203.0.113.9: is allowed (see: ringfence allow list)\n"
    )


def test_many_bans_are_taken_over(running: Migration) -> None:
    """More bans than fit one request, each with its own end, are taken over."""
    now = time.time()
    alike = [(f"198.18.{n // 250}.{n % 250}", "asterisk", now, -1) for n in range(BATCH + 1)]
    running.bans(*alike, *((f"198.19.0.{n}", "asterisk", now + n, 3600) for n in range(19)))

    assert running.typed("--bans").stdout.startswith("1020 of 1020 active bans taken over\n")
    assert len(running.guard.bans()) == 1_020


def test_friends_are_left_out(moving: Migration) -> None:
    """A ban that covers a friend is reported and left out, daemon up or down; --force takes it over."""
    now = time.time()
    moving.bans(
        ("198.18.0.1", "asterisk", now, 3600),
        ("198.18.0.2", "asterisk", now, 3600),
        ("2001:db8::9", "asterisk", now, 3600),
    )
    friends = [
        Friend("pbx", ip_address(address), account, FriendReason.REGISTERED, now, now, now + 3_600)
        for address, account in (("198.18.0.1", "204"), ("198.18.0.1", "205"), ("2001:db8::9", "206"))
    ]
    with closing(Store.open(moving.guard.folder / "ringfence.db", owner=False)) as store:
        store.friends.add(friends)

    end = "; to take it over too: --force"
    said = [
        f"198.18.0.1: left out because 198.18.0.1 is a friend of this PBX (204, 205){end}",
        f"2001:db8::9: left out because 2001:db8::9 is a friend of this PBX (206){end}",
    ]
    done = moving.typed("--bans", "--dry-run")
    assert (done.returncode, done.stderr.splitlines()) == (0, said)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["198.18.0.2", "1"]
    assert moving.typed("--bans", "--dry-run", "--force").stdout.splitlines()[-1] == "3 active"
    with moving.guard:
        done = moving.typed("--bans")
        assert (done.returncode, done.stderr.splitlines()) == (0, said)
        assert done.stdout == "1 of 1 active ban taken over\n"
        assert moving.guard.banned() == {"198.18.0.2"}
        assert moving.typed("--bans", "--force").returncode == 0
        assert moving.guard.banned() == {"198.18.0.1", "198.18.0.2", "2001:db8::9"}


def test_a_dry_run_lists_and_needs_no_daemon(moving: Migration) -> None:
    """--dry-run lists the bans, the first to end first, without a daemon."""
    now = time.time()
    moving.bans(("198.18.0.2", "asterisk", now, -1), ("198.18.0.1", "asterisk", now, 90 * 3_600 + 1_800))

    done = moving.typed("--bans", "--dry-run")

    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines == [
        ["198.18.0.1", "3d", "18h", "asterisk"],
        ["198.18.0.2", "no", "end", "asterisk"],
        ["2", "active"],
    ]


def test_without_the_daemon_nothing_is_taken_over(moving: Migration) -> None:
    """Without the daemon: exit code 3, and the fix."""
    moving.bans(("198.18.0.1", "asterisk", time.time(), 3600))

    done = moving.typed("--bans")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("no daemon listens at")


def test_a_daemon_that_refuses_is_a_problem(running: Migration) -> None:
    """While ringfence is switched off nothing is taken over, and the fix is printed."""
    running.bans(("198.18.0.1", "asterisk", time.time(), 3600))

    running.guard.ask("off")
    try:
        done = running.typed("--bans")
    finally:
        running.guard.ask("on")

    assert done.returncode == 1
    assert "ringfence on" in done.stderr
    assert done.stdout == "0 of 1 active ban taken over\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            (),
            "there is no such database; fix: give it with --database, or see dbfile in fail2ban.conf",
        ),
        (("--database", "/dev/null"), "/dev/null: is not a file"),
    ],
)
def test_an_unreadable_database(moving: Migration, arguments: tuple[str, ...], said: str) -> None:
    """The error names the database, with exit code 1."""
    done = moving.typed("--bans", *arguments)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f"{said}\n")


def test_a_fail2ban_without_a_database(moving: Migration) -> None:
    """With dbfile = None there are no bans to take over."""
    (moving.etc / "fail2ban.local").write_text("[DEFAULT]\ndbfile = None\n", "utf-8")

    done = moving.typed("--bans")

    assert done.returncode == 1
    assert done.stderr == "fail2ban keeps no database (dbfile = 'None'): there are no bans to take over\n"


def test_an_old_database_without_a_bantime_takes_fail2bans_own(moving: Migration) -> None:
    """If neither database nor jail has a bantime, it is ten minutes, as in fail2ban."""
    (moving.etc / "jail.local").write_text("[asterisk]\nenabled = true\nbantime = \n", "utf-8")
    moving.bans(("198.18.0.1", "asterisk", time.time() + 86_400 + 55 * 60, -2))

    assert moving.typed("--bans", "--dry-run").stdout.split()[:3] == ["198.18.0.1", "1d", "1h"]


# -- a real fail2ban --------------------------------------------------------------------------------------

REAL = """
[DEFAULT]
bantime = 1h
banaction = iptables-allports

[sshd]
enabled = true
backend = auto
logpath = {folder}/auth.log

[asterisk]
enabled = true
logpath = {folder}/messages
"""


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_way_from_a_real_fail2ban_and_back(tmp_path: Path) -> None:
    """The steps of docs/fail2ban.md work: import, take over, switch the jail off and on; sshd's bans stay."""
    for name in ("messages", "auth.log"):
        (tmp_path / name).touch()
    with Fail2ban(tmp_path, {"jail.local": REAL.format(folder=tmp_path)}) as fail2ban:
        assert fail2ban.client("set", "asterisk", "banip", "198.18.0.7", "2001:db8::9").returncode == 0
        assert fail2ban.client("set", "sshd", "banip", "198.18.0.8").returncode == 0
        guard = Guard(tmp_path, firewall={"backend": "ipset"})
        command = ("import-fail2ban", str(fail2ban.etc))
        listed = (*command, "--bans", "--dry-run")
        until(lambda: "2 active" in guard.command(*listed).stdout, "its database", pause=0.1)

        printed = guard.command(*command)
        settings = parse(tomllib.loads(printed.stdout), "printed", {}, secrets=False)
        assert settings.asterisk[0].logs.paths == (tmp_path / "messages",)
        assert (settings.rules["guess"].attempts, settings.rules["guess"].ban) == (10, (3600.0,))

        with guard:
            assert guard.command(*command, "--bans").stdout == "2 of 2 active bans taken over\n"
            off = fail2ban.etc / "jail.d" / "zz-ringfence.local"
            off.write_text(OFF, "utf-8")
            assert fail2ban.client("reload").returncode == 0
            assert "asterisk" not in fail2ban.client("status").stdout
            assert "198.18.0.8" in fail2ban.client("status", "sshd").stdout
            rows = {row["address"]: row for row in guard.bans()}
            assert set(rows) == {"198.18.0.7", "2001:db8::9"}
            assert all(3_000 < row["timeout"] <= 3_600 for row in rows.values())

            off.unlink()
            assert fail2ban.client("reload").returncode == 0
            until(
                lambda: "198.18.0.7" in fail2ban.client("status", "asterisk").stdout,
                "the bans that come back",
                pause=0.3,
            )
            guard.command("off")
            assert fail2ban.client("status", "asterisk").stdout.count("198.18.0.7") == 1


def test_a_narrow_ban_is_not_as_long_as_a_full_one() -> None:
    """Of the bans of a network only the full one counts: the others leave ports open that fail2ban closes."""
    address, end = "198.18.0.1", "2026-01-01T00:00:00+00:00"
    full, narrow = ({"address": address, "scope": scope, "expires": end} for scope in ("full", "sip-udp"))
    later = {**narrow, "expires": None}

    assert command._banned_until([narrow]) == {}
    assert command._banned_until([full, later]) == {
        ip_network(address): datetime.fromisoformat(end).timestamp()
    }
