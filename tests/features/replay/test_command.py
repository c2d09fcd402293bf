"""``ringfence replay``: output for scripts and people, and unreadable files."""

import gzip
import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.features.replay.logs import (
    FAILED,
    START,
    SUCCESS,
    file,
    guesses,
    refused,
    security,
    unregistered,
)
from tests.support.captures import capture
from typer.testing import CliRunner

from ringfence.bans.exempt import ITSELF
from ringfence.cli import output
from ringfence.cli.app import app
from ringfence.features.replay import command
from ringfence.features.replay.run import MAX_OUTCOMES
from ringfence.values.network import parse_network

CONFIG = """
[[asterisk]]
[asterisk.logs]
paths = ["{folder}/security", "/elsewhere"]
timezone = "Europe/Berlin"
[[asterisk.logs.custom]]
name = "own"
level = "NOTICE"
file = "app_x.c"
pattern = "Bad caller from {{address}}, sorry"
[allow]
networks = ["198.51.100.0/24"]
[rules.guess]
attempts = 3
window = "1m"
"""


def replay(*arguments: object) -> tuple[int, str, str]:
    """Run the command; return its exit code and its output."""
    result = CliRunner().invoke(app, ["replay", *map(str, arguments)], env={"RINGFENCE_CONFIG": None})
    return result.exit_code, result.stdout, result.stderr


def report(*arguments: object) -> dict[str, Any]:
    """Return the object of ``--json``."""
    code, out, err = replay("--json", *arguments)
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def addresses(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the objects of the addresses by name."""
    return {one["address"]: one for one in found["addresses"]}


def test_an_object_for_scripts(tmp_path: Path) -> None:
    """--json has the totals and the result for each address, the worst first."""
    log = (
        guesses(7)
        + guesses(2, address="192.0.2.8")
        + security(SUCCESS, START + 60)
        + guesses(6, address="::7")
    )
    found = report("--timezone", "UTC", file(tmp_path, "security", log))
    seconds = found.pop("seconds")
    assert isinstance(seconds, float)
    rows = found.pop("addresses")
    assert found == {
        "files": 1,
        "lines": 31,
        "events": 31,
        "attempts": 15,
        "tampered": 0,
        "first": "2026-11-20T06:05:22Z",
        "last": "2026-11-20T06:06:22Z",
        "evicted": 0,
        "forgotten": 0,
    }
    assert rows[0] == {
        "address": "192.0.2.7",
        "attempts": 7,
        "events": 15,
        "banned_at_attempt": 5,
        "rule": "guess",
        "later_succeeded": True,
        "banned_at": "2026-11-20T06:05:26Z",
        "bans": 1,
        "unconfirmed": 0,
        "exempt": False,
    }
    assert [(row["address"], row["banned_at_attempt"]) for row in rows[1:]] == [
        ("::7", 5),
        ("192.0.2.8", None),
    ]


def test_a_table_for_people(tmp_path: Path) -> None:
    """The table has each address with attempts, its time of ban, and notes."""
    log = (
        guesses(7)
        + security(SUCCESS, START + 60)
        + guesses(2, address="192.0.2.8")
        + refused(START, "192.0.2.9")
        + guesses(1, address="127.0.0.1")
        + security(SUCCESS, START, "192.0.2.10")
    )
    code, out, err = replay("--timezone", "UTC", file(tmp_path, "log", log))
    assert (code, err) == (0, "")
    assert [" ".join(line.split()) for line in out.split("\n")] == [
        "ADDRESS ATTEMPTS BANNED (UTC) AFTER RULE NOTE",
        "192.0.2.7 7 2026-11-20 06:05 5 guess logged in later",
        "192.0.2.8 2 -",
        "192.0.2.9 1 - 1 unconfirmed",
        "127.0.0.1 1 - exempt",
        "23 lines of 1 file: 23 events, 11 attempts, 0 tampered",
        "1 would have been banned; 1 of them logged in later",
        "",
    ]


def test_many_addresses(tmp_path: Path) -> None:
    """People see the first addresses and the number of the others."""
    log = b"".join(guesses(1, address=f"192.0.2.{n}") for n in range(60))
    out = replay(file(tmp_path, "log", log))[1]
    assert out.count("192.0.2.") == command.MAX_SHOWN
    assert "and 10 more; --json lists all of them" in out
    assert len(report(tmp_path / "log")["addresses"]) == 60


def test_full_tables_are_reported(tmp_path: Path) -> None:
    """Addresses left out, and discarded state, are reported to people and scripts."""
    log = b"".join(
        security(FAILED, START, f"10.0.{n // 250}.{n % 250}", session=n + 1) for n in range(MAX_OUTCOMES + 7)
    )
    found = report(file(tmp_path, "log", log))
    assert (len(found["addresses"]), found["evicted"]) == (MAX_OUTCOMES, 7)
    assert found["forgotten"] > 0
    out = replay(tmp_path / "log")[1]
    assert "7 addresses are not listed: the table of addresses was full" in out
    assert f"{found['forgotten']} sessions and attempts were discarded" in out


def test_bans_on_return(tmp_path: Path) -> None:
    """Repeated bans of one address are counted."""
    out = replay(file(tmp_path, "log", guesses(5) + guesses(5, START + 4000)))[1]
    assert "2 bans" in out


def test_a_quiet_past(tmp_path: Path) -> None:
    """Without attempts there is no table."""
    assert replay(file(tmp_path, "log", b""))[1].split("\n") == [
        "0 lines of 1 file: 0 events, 0 attempts, 0 tampered",
        "0 would have been banned; 0 of them logged in later",
        "",
    ]


def test_several_files(tmp_path: Path) -> None:
    """Rotated files continue each other; attempts in a recording and a log count once."""
    recorded = capture("asterisk-22", "wrong-password-register")
    files = [
        file(tmp_path, "security.1.gz", gzip.compress(guesses(4, START - 300, "192.0.2.1"))),
        file(tmp_path, "security", recorded.security_log.read_bytes() + guesses(1, START, "192.0.2.1")),
        file(tmp_path, "messages", recorded.messages_log.read_bytes()),
        file(tmp_path, "tap", recorded.ami.read_bytes()),
        file(tmp_path, "other-tap", recorded.ami.read_bytes()),
    ]
    found = report("--timezone", "UTC", *files)
    rows = addresses(found)
    assert found["files"] == 5
    assert (rows["192.0.2.1"]["banned_at_attempt"], rows["192.0.2.1"]["attempts"]) == (5, 5)
    assert rows[str(recorded.source)]["attempts"] == recorded.attempts


def test_a_configuration_is_tried(tmp_path: Path) -> None:
    """The configuration's rules, networks, time zones and patterns are applied."""
    config = file(tmp_path, "ringfence.toml", CONFIG.format(folder=tmp_path).encode())
    own = b"[2026-11-20 07:05:22] NOTICE[1] app_x.c: Bad caller from 192.0.2.9, sorry\n"
    log = guesses(4) + guesses(9, address="198.51.100.1") + own * 2 + unregistered(START + 3878)
    found = report("--config", config, file(tmp_path, "security", log))
    rows = addresses(found)
    assert rows["192.0.2.7"]["banned_at_attempt"] == 3
    assert (rows["198.51.100.1"]["exempt"], rows["198.51.100.1"]["bans"]) == (True, 0)
    assert rows["192.0.2.9"]["attempts"] == 2
    assert found["last"] == "2026-11-20T06:10:00Z"
    assert (
        report("--config", config, "--timezone", "UTC", tmp_path / "security")["last"]
        == "2026-11-20T07:10:00Z"
    )
    named = report("--config", config, file(tmp_path, "security.1", log), "--timezone", "UTC")
    assert "192.0.2.9" in addresses(named)


def test_times_are_as_the_configuration_wants(tmp_path: Path) -> None:
    """With ``times = "local"`` the head of the table names local times, as its cells are."""
    config = file(tmp_path, "ringfence.toml", b'[display]\ntimes = "local"\n')
    try:
        out = replay("--config", config, file(tmp_path, "log", guesses(7)))[1]
    finally:
        output.configure("utc")

    assert "BANNED (LOCAL)" in out


def test_without_a_configuration_the_defaults_hold(tmp_path: Path) -> None:
    """Without a configuration the daemon's defaults hold: loopback is never banned."""
    assert {*map(parse_network, command.LOOPBACK)} == {*ITSELF}
    rows = addresses(report(file(tmp_path, "log", guesses(9, address="127.0.0.1"))))
    assert (rows["127.0.0.1"]["exempt"], rows["127.0.0.1"]["banned_at_attempt"]) == (True, None)


def test_wrong_usage(tmp_path: Path) -> None:
    """An invalid configuration and an unknown time zone are wrong usage."""
    log = file(tmp_path, "log", guesses(1))
    config = file(tmp_path, "wrong.toml", b"[rules.guess]\nattempts = 0\n")
    code, out, err = replay("--config", config, log)
    assert (code, out) == (2, "")
    assert "rules.guess.attempts" in err
    assert replay("--config", tmp_path / "absent.toml", log)[0] == 2
    assert replay("--timezone", "Mars/Base", log)[0] == 2
    assert replay()[0] == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Unreadable files and patterns without a match are named and left out; the others are replayed."""
    wrong = [tmp_path / "security*", tmp_path, file(tmp_path, "a.gz", b"not packed")]
    code, out, err = replay(*wrong, file(tmp_path, "log", guesses(9)))
    assert code == 0
    assert "1 would have been banned" in out
    damaged = "is damaged, or not compressed as its name suggests"
    named = [
        f"left out: {wrong[0]}: No such file or directory",
        f"left out: {wrong[1]}: it is not a regular file",
        f"left out: {wrong[2]}: {damaged}: Not a gzipped file (b'no')",
    ]
    assert err.splitlines() == named

    code, out, err = replay(*wrong)
    assert (code, out) == (1, "")
    end = "no file is left to replay; fix: give the logs of Asterisk, such as /var/log/asterisk/messages*"
    assert err.splitlines() == [*named, end]


def test_a_file_that_turns_out_to_be_damaged(tmp_path: Path) -> None:
    """A file whose end is damaged is reported."""
    packed = bytearray(gzip.compress(b"".join(security(FAILED, START + n) for n in range(20_000)), 1))
    packed[-100_000:-99_000] = b"\xff" * 1000
    code, out, err = replay(file(tmp_path, "log.gz", bytes(packed)))
    assert (code, out) == (1, "")
    assert err.startswith(f"{tmp_path / 'log.gz'}: is damaged")


def test_warnings(tmp_path: Path) -> None:
    """A truncated file, and one without a line of Asterisk, are read with a warning."""
    packed = gzip.compress(b"".join(unregistered(START + n) for n in range(9000)))
    short = file(tmp_path, "short.gz", packed[: len(packed) // 2])
    strange = file(tmp_path, "strange", b"a poem\nin two lines\n")
    code, out, err = replay("--json", short, strange)
    assert code == 0
    assert json.loads(out)["addresses"][0]["banned_at_attempt"] == 5
    assert err.split("\n") == [
        f"{strange}: no line near its beginning was written by Asterisk",
        f"{short}: is truncated; the existing part was read",
        "",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_bar(tmp_path: Path, *, terminal: bool) -> None:
    """A terminal shows a progress bar that leaves no trace in the output; a pipe shows none."""
    log = file(tmp_path, "log", b"".join(unregistered(START + n / 10) for n in range(10_000)))
    ours, theirs = pty.openpty() if terminal else os.pipe()
    command = [sys.executable, "-m", "ringfence", "replay", "--json", str(log)]
    out, shown = tmp_path / "out", b""
    with out.open("wb") as written:
        process = subprocess.Popen(
            command, stdout=written, stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
    os.close(theirs)
    # A terminal without a reader stops its writer after some kilobytes.
    with os.fdopen(ours, "rb", 0) as reader, suppress(OSError):  # EIO: the other end is closed
        while read := reader.read(65_536):
            shown += read
    assert process.wait() == 0
    assert json.loads(out.read_bytes())["lines"] == 10_000
    assert bool(shown) == terminal


@pytest.mark.parametrize("date", [b"9999-12-31 23:59:59 -2359", b"9999-12-31 23:59:60"])
def test_a_date_that_no_calendar_has_is_no_date(tmp_path: Path, date: bytes) -> None:
    """A time zone can move the last day of 9999 into the year 10000, which cannot be written."""
    line = unregistered().partition(b"] ")[2]
    log = b"[" + date + b"] " + line + unregistered()
    assert report("--timezone", "UTC", file(tmp_path, "log", log))["events"] == 2
