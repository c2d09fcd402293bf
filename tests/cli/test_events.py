"""``ringfence events``, with a daemon that sees attempts."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ServedAmi, ami_server, until

from ringfence.cli.events import line_of

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
GUESSER = "198.18.1.101"


@pytest.fixture(name="pbx")
def _pbx() -> Iterator[ServedAmi]:
    """Return a PBX that sends nothing yet."""
    with ami_server(Script(play=[GRANTED])) as pbx:
        yield pbx


@pytest.fixture(name="guard")
def _guard(tmp_path: Path, pbx: ServedAmi) -> Iterator[Guard]:
    """Return a daemon that bans at the third guess."""
    with Guard(tmp_path, ami={"port": pbx.port}, rules={"guess": {"attempts": 3}}) as guard:
        until(lambda: guard.ami_is("listening"), "AMI")
        yield guard


def follower(guard: Guard, *options: str) -> "subprocess.Popen[str]":
    """Start a command that follows what happens, and return when it does: it shows an earlier ban first."""
    guard.must("ban", "192.0.2.99")
    command = guard._command_line("events", "--follow", *options)
    running = subprocess.Popen(command, env=guard._environ, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    while "192.0.2.99" not in running.stdout.readline():
        assert running.poll() is None
    return running


def test_events_attempts_and_bans_are_followed(guard: Guard, pbx: ServedAmi) -> None:
    """Each event, attempt and ban is one line as it happens; Ctrl-C ends the command."""
    found: list[dict[str, Any]] = []
    with follower(guard, "--json") as running:
        pbx.send(GUESSES)
        assert running.stdout is not None
        while not found or found[-1]["what"] != "ban":
            found.append(json.loads(running.stdout.readline()))
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0

    assert {row["what"] for row in found} == {"event", "attempt", "ban"}
    assert found[-1]["address"] == GUESSER
    guard.must("unban", GUESSER)
    line = guard.must("events", "--only", "ban").splitlines()[-1]
    assert line.endswith(f"ban      {GUESSER} (sip-udp): ended, it was removed")
    assert guard.command("events", "--only", "mail").returncode == 2
    assert "--follow" in guard.command("events", "--only", "event").stderr


def test_the_end_of_the_daemon_is_an_error(guard: Guard) -> None:
    """A command that follows ends with the code for an absent daemon."""
    with follower(guard) as running:
        guard.stop()
        assert running.wait(20) == 3


def test_each_kind_has_a_line() -> None:
    """A line has the time, the kind, and what an administrator must know."""
    alarm = {"code": "phone.broken", "subject": "204 at 192.0.2.1", "text": "wrong", "by": "root"}
    row = {"what": "alarm", "time": "2026-11-21T02:41:25Z", "change": "dismissed", **alarm}

    assert line_of(row) == (
        "2026-11-21 02:41:25  alarm    dismissed by root: phone.broken 204 at 192.0.2.1: wrong"
    )
