"""``ringfence import-fail2ban``, as typed: the configuration, and the bans that are taken over."""

import sqlite3
import time
import tomllib
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Completed, Guard, until
from tests.support.fail2ban import Fail2ban, why_no_fail2ban

from ringfence.config import parse

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
OFF = "[asterisk]\nenabled = false\n"


class Moving:
    """A fail2ban's configuration and database in ``folder``, and a ringfence beside it."""

    def __init__(self, folder: Path) -> None:
        self.etc = folder / "etc"
        self.database = folder / "bans.sqlite3"
        (self.etc / "jail.d").mkdir(parents=True)
        (self.etc / "jail.local").write_text(JAIL, "utf-8")
        (self.etc / "fail2ban.local").write_text(f"[DEFAULT]\ndbfile = {self.database}\n", "utf-8")
        self.guard = Guard(folder, allow={"networks": ["203.0.113.0/24"]})

    def bans(self, *rows: tuple[str, str, float, float]) -> None:
        """Make the database, with rows of address, jail, time and length."""
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
        """Give what `bans --json` says of each address."""
        return {row["address"]: row for row in self.guard.bans()}


@pytest.fixture(name="moving")
def _moving(tmp_path: Path) -> Moving:
    return Moving(tmp_path)


# -- the configuration ------------------------------------------------------------------------------------


def test_the_configuration_is_printed(moving: Moving) -> None:
    """What is on standard output is a configuration that ringfence takes, and nothing else is said."""
    done = moving.typed()
    settings = parse(tomllib.loads(done.stdout), "printed", {}, secrets=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert [str(network) for network in settings.allow.networks] == ["127.0.0.0/8", "192.0.2.0/24"]
    guess = settings.rules["guess"]
    assert (guess.attempts, guess.window, guess.ban) == (4, 1200.0, (3600.0,))
    assert "ignoreip pbx.example.org: neither an address nor a network" in " ".join(done.stdout.split())


def test_without_an_asterisk_jail_it_is_told(moving: Moving) -> None:
    """Nothing is printed, the jails that there are are named, and the exit code is that of wrong usage."""
    (moving.etc / "jail.d" / "z.local").write_text(OFF, "utf-8")

    done = moving.typed()

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"{moving.etc}:",
        "  no jail that is enabled guards Asterisk (none has its name or a filter asterisk…)",
        "  jail asterisk would, and is disabled; to import it all the same: --jail asterisk",
        "  enabled jails: sshd; disabled: asterisk",
    ]
    assert moving.typed("--jail", "asterisk").returncode == 0


def test_a_file_that_cannot_be_read_whole_is_a_problem(moving: Moving) -> None:
    """The rest is printed, and the exit code says that something is missing."""
    (moving.etc / "jail.d" / "z.local").write_text("headless\n", "utf-8")

    done = moving.typed()

    assert done.returncode == 1
    assert done.stderr.startswith(f"{moving.etc}/jail.d/z.local: has a fault")
    assert "attempts = 4" in done.stdout


def test_text_that_the_terminal_cannot_show_is_printed_as_utf8(moving: Moving) -> None:
    """A configuration is UTF-8, whatever the locale."""
    (moving.etc / "jail.d" / "z.local").write_text("[asterisk]\nlogpath = /log/ü\n", "utf-8")
    moving.guard._environ |= {"PYTHONIOENCODING": "ascii"}

    assert 'paths = ["/log/ü"]' in moving.typed().stdout


@pytest.mark.parametrize("arguments", [("--dry-run",), ("--database", "/f"), ("--jail",), ("--hans",)])
def test_wrong_usage(moving: Moving, arguments: tuple[str, ...]) -> None:
    """What makes no sense is told on standard error with exit code 2."""
    done = moving.typed(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


# -- the bans ---------------------------------------------------------------------------------------------


def test_running_bans_are_taken_over(moving: Moving) -> None:
    """Those of the asterisk jail, for the time that they have left, with a word on where they come from."""
    now = time.time()
    moving.bans(
        ("198.18.0.1", "asterisk", now - 100, 3700),
        ("2001:db8::1", "asterisk", now - 100, 3700),
        ("198.18.0.2", "asterisk", now - 100, 90),
        ("198.18.0.3", "sshd", now, 3600),
        ("198.18.0.4", "asterisk", now, -1),
    )

    with moving.guard:
        done = moving.typed("--bans")
        rows = moving.rows()

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "3 of 3 running bans taken over",
        "without end in fail2ban, here for ten years: 1",
    ]
    assert set(rows) == {"198.18.0.1", "2001:db8::1", "198.18.0.4"}
    for address in ("198.18.0.1", "2001:db8::1"):
        ends = datetime.fromisoformat(rows[address]["expires"]).timestamp()
        assert now + 3_598 <= ends <= now + 3_660
        assert rows[address]["reason"] == "taken over from fail2ban jail asterisk"


def test_who_is_banned_already_is_not_let_out_earlier(moving: Moving) -> None:
    """A longer ban of ringfence's stays, a shorter one is lengthened, and to do it again changes nothing."""
    now = time.time()
    moving.bans(
        ("198.18.0.1", "asterisk", now, 3600),
        ("198.18.0.2", "asterisk", now, 3600),
        ("198.18.0.3", "asterisk", now, -1),
    )

    with moving.guard:
        moving.guard.command("ban", "--for", "7d", "198.18.0.1")
        moving.guard.command("ban", "--for", "1m", "198.18.0.2")
        first = moving.typed("--bans")
        before = moving.rows()
        again = moving.typed("--bans")
        after = moving.rows()

    assert first.stdout.startswith(
        "2 of 3 running bans taken over\nbanned here already, and for as long: 1\n"
    )
    assert again.stdout == "0 of 3 running bans taken over\nbanned here already, and for as long: 3\n"
    assert before["198.18.0.1"]["timeout"] > 600_000
    assert 3_500 < before["198.18.0.2"]["timeout"] <= 3_600
    assert {address: row["expires"] for address, row in before.items()} == {
        address: row["expires"] for address, row in after.items()
    }


def test_who_is_never_banned_is_told(moving: Moving) -> None:
    """What the daemon refuses is a line each and exit code 1, and the others are taken over."""
    now = time.time()
    moving.bans(
        ("203.0.113.9", "asterisk", now, 3600),
        ("198.18.0.1", "asterisk", now, 3600),
        ("x", "asterisk", now, 1),
    )

    with moving.guard:
        done = moving.typed("--bans")
        assert moving.guard.banned() == {"198.18.0.1"}

    assert (done.returncode, done.stdout) == (1, "1 of 2 running bans taken over\n")
    assert done.stderr == (
        f"{moving.database}: rows that make no sense: 1, such as 'x', {now!r}, 1\n"
        "203.0.113.9/32: is allowed (see: ringfence allow list)\n"
    )


def test_many_bans_are_taken_over(moving: Moving) -> None:
    """More than one request can hold, and each with an end of its own."""
    now = time.time()
    alike = [(f"198.18.{n // 250}.{n % 250}", "asterisk", now, -1) for n in range(6_000)]
    moving.bans(*alike, *((f"198.19.0.{n}", "asterisk", now + n, 3600) for n in range(100)))

    with moving.guard:
        assert moving.typed("--bans").stdout.startswith("6100 of 6100 running bans taken over\n")
        assert len(moving.guard.bans()) == 6_100


def test_a_dry_run_lists_and_needs_no_daemon(moving: Moving) -> None:
    """Who would be taken over, the first to end first, with nothing running."""
    now = time.time()
    moving.bans(("198.18.0.2", "asterisk", now, -1), ("198.18.0.1", "asterisk", now, 90 * 3_600 + 1_800))

    done = moving.typed("--bans", "--dry-run")

    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines == [
        ["198.18.0.1", "3d", "18h", "asterisk"],
        ["198.18.0.2", "no", "end", "asterisk"],
        ["2", "running"],
    ]


def test_without_the_daemon_nothing_is_taken_over(moving: Moving) -> None:
    """Exit code 3, and the mend."""
    moving.bans(("198.18.0.1", "asterisk", time.time(), 3600))

    done = moving.typed("--bans")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("no daemon listens at")


def test_a_daemon_that_refuses_is_a_problem(moving: Moving) -> None:
    """Switched off, nothing is taken over, and the mend is said."""
    moving.bans(("198.18.0.1", "asterisk", time.time(), 3600))

    with moving.guard:
        moving.guard.command("off")
        done = moving.typed("--bans")

    assert done.returncode == 1
    assert "ringfence on" in done.stderr
    assert done.stdout == "0 of 1 running bans taken over\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            (),
            "there is no such database; name it with --database, or see dbfile in fail2ban.conf",
        ),
        (("--database", "/dev/null"), "/dev/null: is not a file"),
    ],
)
def test_a_database_that_cannot_be_read_is_told(
    moving: Moving, arguments: tuple[str, ...], said: str
) -> None:
    """The error names it, with exit code 1."""
    done = moving.typed("--bans", *arguments)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f"{said}\n")


def test_a_fail2ban_without_a_database_is_told(moving: Moving) -> None:
    """With dbfile = None there is nobody to take over."""
    (moving.etc / "fail2ban.local").write_text("[DEFAULT]\ndbfile = None\n", "utf-8")

    done = moving.typed("--bans")

    assert done.returncode == 1
    assert done.stderr == "fail2ban keeps no database (dbfile = 'None'): nobody can be taken over\n"


def test_an_old_database_without_a_bantime_takes_fail2bans_own(moving: Moving) -> None:
    """Neither database nor jail says how long a ban is: ten minutes, as fail2ban has it."""
    (moving.etc / "jail.local").write_text("[asterisk]\nenabled = true\n", "utf-8")
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
@pytest.mark.skipif(bool(why_no_fail2ban()), reason=why_no_fail2ban())
def test_the_way_from_a_real_fail2ban_and_back(tmp_path: Path) -> None:
    """As the README says it: imported, taken over, the jail switched off beside sshd's, and on again."""
    for name in ("messages", "auth.log"):
        (tmp_path / name).touch()
    with Fail2ban(tmp_path, {"jail.local": REAL.format(folder=tmp_path)}) as fail2ban:
        assert fail2ban.client("set", "asterisk", "banip", "198.18.0.7", "2001:db8::9").returncode == 0
        assert fail2ban.client("set", "sshd", "banip", "198.18.0.8").returncode == 0
        guard = Guard(tmp_path, firewall={"backend": "ipset"})
        command = ("import-fail2ban", str(fail2ban.etc))
        until(lambda: "2 running" in guard.command(*command, "--bans", "--dry-run").stdout, "its database")

        printed = guard.command(*command)
        settings = parse(tomllib.loads(printed.stdout), "printed", {}, secrets=False)
        assert settings.asterisk[0].logs.paths == (tmp_path / "messages",)
        assert (settings.rules["guess"].attempts, settings.rules["guess"].ban) == (10, (3600.0,))

        with guard:
            assert guard.command(*command, "--bans").stdout == "2 of 2 running bans taken over\n"
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
            )
            guard.command("off")
            assert fail2ban.client("status", "asterisk").stdout.count("198.18.0.7") == 1
