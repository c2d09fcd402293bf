"""``ringfence status``, for scripts and for people."""

import json
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until

from ringfence.cli.status import _alarms
from ringfence.friends.document import as_json, lines_of
from ringfence.model import Friend, Tie

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()


def test_the_status_as_json(tmp_path: Path) -> None:
    """An object with sources, events, attempts, tampered and bans, and more."""
    with ami_server(Script(play=[GRANTED, GUESSES])) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        done = guard.command("status", "--json")
        status = json.loads(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert {"sources", "events", "attempts", "tampered", "bans"} <= status.keys()
    assert [source["name"] for source in status["sources"]] == ["pbx/ami"]
    assert [source["state"] for source in status["sources"]] == ["listening"]
    assert (status["attempts"], status["tampered"], status["bans"]) == (3, 0, 0)
    assert [(entry["address"], entry["attempts"], entry["of"]) for entry in status["watched"]] == [
        ("198.18.1.101", 3, 5)
    ]


def test_the_status_for_people(tmp_path: Path) -> None:
    """Problems first, then the firewall, the sources, the numbers, and who is watched; 80 columns hold it."""
    with ami_server(Script(play=[GRANTED, GUESSES])) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        guard.command("ban", "203.0.113.1")
        done = guard.command("status")
        lines = done.stdout.splitlines()

    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == "! a dry run: the memory firewall drops nothing"
    assert lines[1].startswith("firewall  memory: nothing is dropped")
    assert any(line.startswith("source    pbx/ami: listening, ") for line in lines)
    assert "attempts  3 (0 withheld, 0 late, 0 never banned)" in lines
    assert "tricks    0 tampered, 0 hidden, 0 forged" in lines
    assert "bans      1 of 1 would be in force, 1 placed since the start" in lines
    assert "friends   0 addresses" in lines
    assert lines[-1].split() == ["198.18.1.101", "3", "of", "5", "counted", "claimed", "alice"]
    assert "\x1b" not in done.stdout
    assert max(map(len, lines)) <= 80


def test_rules_that_are_off_are_named(tmp_path: Path) -> None:
    """So are decoys counted; and a decoy that is an account of a friend's is a problem."""
    rules = {"enumeration": {"enabled": False}, "decoy": {"accounts": ["100", "201"]}}
    now = time.time()
    friend = Friend("pbx", ip_address("198.51.100.7"), "201", Tie.REGISTERED, now, now, now + 3_600)
    with Guard(tmp_path, rules=rules) as guard:
        document = "\n".join(lines_of([as_json(friend)]))
        imported = guard.command("friends", "import", "-", text=document)
        done = guard.command("status")
        reloaded = guard.command("reload")

    assert imported.returncode == 0, imported.stderr
    assert "rules     8 of 9 on (enumeration off), 2 decoys" in done.stdout.splitlines()
    assert "! decoy 201 is an account that works here" in done.stdout
    assert "decoy 100" not in done.stdout
    assert "decoy 201 is an account that works here" in reloaded.stderr
    assert "event=configuration.decoy" in guard.log


def test_many_alarms_of_a_kind_hide_no_other() -> None:
    """Of sixty broken phones some are shown and the rest is counted; that all fail stands before them."""
    broken = [
        {"name": "phone.broken", "subject": str(200 + n), "text": "has a wrong password", "times": 1}
        for n in range(60)
    ]
    failing = {"name": "phones.all_failing", "subject": "phones", "text": "half of them fail", "times": 2}
    lines = _alarms([*broken[:9], failing, *broken[9:]])

    assert lines[0] == "! phones.all_failing phones: half of them fail (2 times)"
    assert lines[1] == "! phone.broken 200: has a wrong password"
    assert lines[6:] == ["! phone.broken: and 55 more; see: ringfence status --json"]


def test_a_long_address_keeps_its_line(tmp_path: Path) -> None:
    """Who is watched stands on one line, however long the address and the accounts are."""
    guesses = capture("asterisk-22", "wrong-password-register-ipv6").ami.read_bytes()
    long = guesses.replace(b"fd00:18::b", b"2001:db8:1234:5678:9abc:def0:1234:5678").replace(
        b"AccountID: alice", b"AccountID: " + b"a" * 100
    )
    with ami_server(Script(play=[GRANTED, long])) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        lines = guard.command("status").stdout.splitlines()

    assert lines[-1].startswith("2001:db8:1234:5678::/64")
    assert lines[-2].startswith("WATCHED")
    assert len(lines[-1]) <= 80


def test_the_status_needs_the_daemon(tmp_path: Path) -> None:
    """Without it: exit code 3, and the mend; nothing on standard output."""
    done = Guard(tmp_path).command("status", "--json")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.endswith("start it: systemctl start ringfence\n")


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_hostile_text_does_not_reach_the_terminal(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """An account with a terminal's commands in it is shown with escapes."""
    hostile = GUESSES.replace(b"AccountID: alice", b"AccountID: \x1b[2J[bold]x")
    with ami_server(Script(play=[GRANTED, hostile])) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        done = guard.command("status", *arguments)

    assert "\x1b" not in done.stdout
    assert "x1b[2J[bold]x" in done.stdout
