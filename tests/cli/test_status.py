"""``ringfence status``, for scripts and for people."""

import json
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until

from ringfence.cli.status import _alarms, _watched
from ringfence.friends.exchange import as_json, lines_of
from ringfence.sources.state import CHAN_SIP_TLS
from ringfence.values.friend import Friend, FriendReason

BY_CHAN_SIP = capture("hostile-16", "cs-retransmit").ami.read_bytes()
GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()


def test_the_status_as_json(tmp_path: Path) -> None:
    """--json prints an object with sources, events, attempts, bans and more."""
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


@pytest.mark.usefixtures("processes")
def test_the_status_for_people(tmp_path: Path) -> None:
    """Problems, firewall, sources, totals and watched addresses, in this order, within 80 columns."""
    with ami_server(Script(play=[GRANTED, GUESSES])) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        guard.command("ban", "203.0.113.1")
        done = guard.command("status")
        lines = done.stdout.splitlines()

    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == "! firewall.dry_run: the memory firewall drops nothing"
    assert lines[1].startswith("firewall  memory: nothing is dropped")
    assert any(line.startswith("source    pbx/ami: listening, ") for line in lines)
    assert "attempts  3 (0 unconfirmed, 0 late, 0 exempt)" in lines
    assert "evasion   0 tampered, 0 hidden, 0 forged" in lines
    assert "bans      1 of 1 would be in force, 1 placed since the start" in lines
    assert "friends   0 addresses" in lines
    assert lines[-1].split() == ["198.18.1.101", "3", "of", "5", "counted", "claimed", "alice"]
    assert "\x1b" not in done.stdout
    unseen = [line for line in lines if line.startswith("not seen  pbx: without ")]
    assert len(unseen) == 2  # long lines stay whole in a pipe
    assert max(len(line) for line in lines if line not in unseen) <= 80


def test_chan_sip_over_tls_is_not_seen(tmp_path: Path) -> None:
    """Once chan_sip reports a request by TLS, the status names the guesses that no source reports."""
    with ami_server(Script(play=[GRANTED])) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.source_is("listening"), "the source listens")
        until(lambda: pbx.server._listeners, "the PBX is listened to")
        assert CHAN_SIP_TLS not in guard.command("status").stdout
        pbx.send(BY_CHAN_SIP.replace(b"/UDP/", b"/TLS/"))
        until(lambda: guard.status()["events"] > 0, "the events")
        until(
            lambda: f"not seen  pbx: {CHAN_SIP_TLS}" in guard.command("status").stdout, "the gap", pause=0.1
        )


def test_rules_that_are_off_are_named(tmp_path: Path) -> None:
    """Disabled rules are named and decoys counted; a decoy that is a friend's account is an alarm."""
    rules = {"enumeration": {"enabled": False}, "decoy": {"accounts": ["100", "201"]}}
    now = time.time()
    friend = Friend("pbx", ip_address("198.51.100.7"), "201", FriendReason.REGISTERED, now, now, now + 3_600)
    with Guard(tmp_path, rules=rules) as guard:
        document = "\n".join(lines_of([as_json(friend)]))
        imported = guard.command("friends", "import", "-", text=document)
        done = guard.command("status")
        reloaded = guard.command("reload")

    assert imported.returncode == 0, imported.stderr
    assert "rules     9 of 10 on (enumeration off), 2 decoys" in done.stdout.splitlines()
    assert "! configuration.decoy 201: is a real account" in done.stdout
    assert "decoy 100:" not in done.stdout
    assert "decoy 201 is a real account" in reloaded.stderr
    assert "event=configuration.decoy" in guard.log


def test_many_alarms_of_a_kind_hide_no_other() -> None:
    """Of sixty broken phones some are shown and the rest is counted, after the alarm that all fail.

    The daemon lists only twenty of them.
    """
    broken = [
        {"code": "phone.broken", "subject": str(200 + n), "text": "has a wrong password", "times": 1}
        for n in range(20)
    ]
    failing = {"code": "phones.all_failing", "subject": "phones", "text": "half of them fail", "times": 2}
    counts = {"phone.broken": 60, "phones.all_failing": 1}
    lines = _alarms([*broken[:9], failing, *broken[9:]], counts)

    assert lines[0] == "! phones.all_failing phones: half of them fail (2 times)"
    assert lines[1] == "! phone.broken 200: has a wrong password"
    assert lines[6:] == ["! phone.broken: and 55 more; see: ringfence alarms"]


def test_unconfirmed_attempts_are_near_no_ban() -> None:
    """Unconfirmed attempts are counted apart; other attempts count within the window of the nearest rule."""
    common = {"proof": "claimed", "accounts": ["alice"], "country": ""}
    counted = {"address": "192.0.2.1", "attempts": 9, "have": 3, "of": 5, "standing": "counted"}
    unconfirmed = {"address": "192.0.2.2", "attempts": 20, "have": 0, "of": 1, "standing": "unconfirmed"}
    for width, columns in ((80, 5), (40, 3)):
        table = _watched([counted | common, unconfirmed | common], width)
        assert len(table.columns) == columns
        assert [str(cell) for cell in table.columns[1].cells] == ["3 of 5", "20 unconfirmed"]


def test_a_long_address_keeps_its_line(tmp_path: Path) -> None:
    """A watched address fits on one line, however long address and accounts are."""
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
    """Without the daemon: exit code 3, the fix, and nothing on standard output."""
    done = Guard(tmp_path).command("status", "--json")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.endswith("start it: systemctl start ringfence\n")


def test_hostile_text_does_not_reach_the_terminal(tmp_path: Path) -> None:
    """Control characters in an account are shown escaped."""
    hostile = GUESSES.replace(b"AccountID: alice", b"AccountID: \x1b[2J[bold]x")
    with ami_server(Script(play=[GRANTED, hostile])) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        shown = guard.must("status"), guard.must("status", "--json")

    for text in shown:
        assert "\x1b" not in text
        assert "x1b[2J[bold]x" in text
