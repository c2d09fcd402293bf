"""``ringfence replay``: for scripts, for people, and for what cannot be read."""

import gzip
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.replay.logs import (
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
from ringfence.cli import app
from ringfence.cli import replay as command
from ringfence.model import network_from
from ringfence.replay.account import MOST

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
    """Run the command; give its exit code and what it says."""
    result = CliRunner().invoke(app, ["replay", *map(str, arguments)], env={"RINGFENCE_CONFIG": None})
    return result.exit_code, result.stdout, result.stderr


def told(*arguments: object) -> dict[str, Any]:
    """Give the object of ``--json``."""
    code, out, err = replay("--json", *arguments)
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def addresses(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the objects of the addresses by their names."""
    return {one["address"]: one for one in found["addresses"]}


def test_an_object_for_scripts(tmp_path: Path) -> None:
    """How much there was, and of each address what was made of it; the worst first."""
    log = (
        guesses(7)
        + guesses(2, address="192.0.2.8")
        + security(SUCCESS, START + 60)
        + guesses(6, address="::7")
    )
    found = told("--timezone", "UTC", file(tmp_path, "security", log))
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
        "withheld": 0,
        "never_banned": False,
    }
    assert [(row["address"], row["banned_at_attempt"]) for row in rows[1:]] == [
        ("::7", 5),
        ("192.0.2.8", None),
    ]


def test_a_table_for_people(tmp_path: Path) -> None:
    """Who made attempts, when he would have been banned, and what is to be known of him."""
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
        "192.0.2.9 1 - 1 withheld",
        "127.0.0.1 1 - never banned",
        "23 lines of 1 file: 23 events, 11 attempts, 0 tampered",
        "1 would have been banned; 1 of them logged in later",
        "",
    ]


def test_many_addresses(tmp_path: Path) -> None:
    """People see the first of them, and how many more there are."""
    log = b"".join(guesses(1, address=f"192.0.2.{n}") for n in range(60))
    out = replay(file(tmp_path, "log", log))[1]
    assert out.count("192.0.2.") == command.MOST_SHOWN
    assert "and 10 more; --json gives all of them" in out
    assert len(told(tmp_path / "log")["addresses"]) == 60


def test_more_than_can_be_remembered(tmp_path: Path) -> None:
    """Who is left out, and that something was forgotten, is said to people and to scripts."""
    log = b"".join(
        security(FAILED, START, f"10.0.{n // 250}.{n % 250}", session=n + 1) for n in range(MOST + 7)
    )
    found = told(file(tmp_path, "log", log))
    assert (len(found["addresses"]), found["evicted"]) == (MOST, 7)
    assert found["forgotten"] > 0
    out = replay(tmp_path / "log")[1]
    assert "7 addresses are not listed: there were too many to remember all" in out
    assert f"{found['forgotten']} sessions and attempts were forgotten for want of room" in out


def test_bans_on_return(tmp_path: Path) -> None:
    """How often somebody would have been banned is said."""
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
    """Rotated ones go on; a recording and another log tell of the same, which counts once."""
    recorded = capture("asterisk-22", "wrong-password-register")
    files = [
        file(tmp_path, "security.1.gz", gzip.compress(guesses(4, START - 300, "192.0.2.1"))),
        file(tmp_path, "security", recorded.security_log.read_bytes() + guesses(1, START, "192.0.2.1")),
        file(tmp_path, "messages", recorded.messages_log.read_bytes()),
        file(tmp_path, "tap", recorded.ami.read_bytes()),
        file(tmp_path, "other-tap", recorded.ami.read_bytes()),
    ]
    found = told("--timezone", "UTC", *files)
    rows = addresses(found)
    assert found["files"] == 5
    assert (rows["192.0.2.1"]["banned_at_attempt"], rows["192.0.2.1"]["attempts"]) == (5, 5)
    assert rows[str(recorded.source)]["attempts"] == recorded.attempts


def test_a_configuration_is_tried(tmp_path: Path) -> None:
    """Its rules, its networks, and for the logs that it names the time zone and the own patterns."""
    config = file(tmp_path, "ringfence.toml", CONFIG.format(folder=tmp_path).encode())
    own = b"[2026-11-20 07:05:22] NOTICE[1] app_x.c: Bad caller from 192.0.2.9, sorry\n"
    log = guesses(4) + guesses(9, address="198.51.100.1") + own * 2 + unregistered(START + 3878)
    found = told("--config", config, file(tmp_path, "security", log))
    rows = addresses(found)
    assert rows["192.0.2.7"]["banned_at_attempt"] == 3
    assert (rows["198.51.100.1"]["never_banned"], rows["198.51.100.1"]["bans"]) == (True, 0)
    assert rows["192.0.2.9"]["attempts"] == 2
    assert found["last"] == "2026-11-20T06:10:00Z"
    assert (
        told("--config", config, "--timezone", "UTC", tmp_path / "security")["last"] == "2026-11-20T07:10:00Z"
    )
    named = told("--config", config, file(tmp_path, "security.1", log), "--timezone", "UTC")
    assert "192.0.2.9" in addresses(named)


def test_without_a_configuration_the_defaults_hold(tmp_path: Path) -> None:
    """They are those of the daemon: loopback is never banned."""
    assert {*map(network_from, command.LOOPBACK)} == {*ITSELF}
    rows = addresses(told(file(tmp_path, "log", guesses(9, address="127.0.0.1"))))
    assert (rows["127.0.0.1"]["never_banned"], rows["127.0.0.1"]["banned_at_attempt"]) == (True, None)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    """A configuration with mistakes, and a time zone that does not exist, are wrong usage."""
    log = file(tmp_path, "log", guesses(1))
    config = file(tmp_path, "wrong.toml", b"[rules.guess]\nattempts = 0\n")
    code, out, err = replay("--config", config, log)
    assert (code, out) == (2, "")
    assert "rules.guess.attempts" in err
    assert replay("--config", tmp_path / "absent.toml", log)[0] == 2
    assert replay("--timezone", "Mars/Base", log)[0] == 2
    assert replay()[0] == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """All of them are named, and nothing is judged by half of the evidence."""
    wrong = [tmp_path / "absent", tmp_path, file(tmp_path, "a.gz", b"not packed")]
    code, out, err = replay(*wrong, file(tmp_path, "log", guesses(9)))
    assert (code, out) == (1, "")
    assert err.split("\n") == [
        f"{wrong[0]}: No such file or directory",
        f"{wrong[1]}: Is a directory",
        f"{wrong[2]}: is damaged, or not packed as its name says: Not a gzipped file (b'no')",
        "",
    ]


def test_a_file_that_turns_out_to_be_damaged(tmp_path: Path) -> None:
    """That is said too, also where another process reads it."""
    packed = bytearray(gzip.compress(b"".join(security(FAILED, START + n) for n in range(80_000)), 1))
    assert len(packed) > command.WORTH_A_PROCESS
    packed[-100_000:-99_000] = b"\xff" * 1000
    code, out, err = replay(file(tmp_path, "log.gz", bytes(packed)))
    assert (code, out) == (1, "")
    assert err.startswith(f"{tmp_path / 'log.gz'}: is damaged")


def test_what_may_be_amiss_is_said(tmp_path: Path) -> None:
    """A file that ends too early, and one without a line of Asterisk's, are read all the same."""
    packed = gzip.compress(b"".join(unregistered(START + n) for n in range(9000)))
    short = file(tmp_path, "short.gz", packed[: len(packed) // 2])
    strange = file(tmp_path, "strange", b"a poem\nin two lines\n")
    code, out, err = replay("--json", short, strange)
    assert code == 0
    assert json.loads(out)["addresses"][0]["banned_at_attempt"] == 5
    assert err.split("\n") == [
        f"{strange}: no line near its beginning is one of Asterisk's",
        f"{short}: ends too early; what is there was read",
        "",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_how_far_it_is_shows_on_a_terminal_only(tmp_path: Path, *, terminal: bool) -> None:
    """There a bar, and nothing in the output of it; elsewhere not a byte."""
    log = file(tmp_path, "log", b"".join(unregistered(START + n / 10) for n in range(60_000)))
    ours, theirs = pty.openpty() if terminal else os.pipe()
    done = subprocess.run(
        [sys.executable, "-m", "ringfence", "replay", "--json", str(log)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
        check=False,
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert done.returncode == 0
    assert json.loads(done.stdout)["lines"] == 60_000
    assert bool(shown) == terminal
