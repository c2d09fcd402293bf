"""``ringfence why ACCOUNT``, with the daemon up and down."""

import json
from collections.abc import Iterator
from io import StringIO
from ipaddress import ip_address
from pathlib import Path

import pytest
from attrs import evolve
from tests.explain.world import ADDRESS, NOW, ban, friend
from tests.support.amiserver import Script
from tests.support.attempts import ATTEMPT
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until

from ringfence.cli.screen import Screen
from ringfence.cli.why import print_account
from ringfence.explain.account import AccountFacts, account_document, failures_of

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
GUESSER = "198.18.1.101"


@pytest.fixture(name="guard")
def _guard(tmp_path: Path) -> Iterator[Guard]:
    """Return a daemon that banned a guesser of the account alice."""
    with (
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(tmp_path, ami={"port": pbx.port}, rules={"guess": {"attempts": 3}}) as guard,
    ):
        until(lambda: guard.banned() == {GUESSER}, "the ban")
        yield guard


def test_an_account_that_fails(guard: Guard) -> None:
    """One command names the reason, the ban and what to do; without the daemon the database has it."""
    done = guard.command("why", "alice")
    lines = done.stdout.splitlines()

    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == "account alice fails, and the address that tried it is banned"
    assert any(line.startswith("failure   ") and line.endswith("wrong password") for line in lines)
    assert f"then: ringfence unban {GUESSER}" in " ".join(done.stdout.split())
    assert max(map(len, lines)) <= 80
    assert json.loads(guard.must("why", "alice", "--json"))["failures"][0]["times"] == 3
    assert json.loads(guard.must("why", "mallory", "--json"))["verdict"] == "unknown"
    guard.stop()
    done = guard.command("why", "alice")
    assert done.stdout.splitlines()[0] == lines[0]
    assert done.stderr.startswith("The daemon does not answer")


def test_mistakes_of_the_configuration_are_printed_once(guard: Guard) -> None:
    """The daemon answers several requests of one `why`; the mistakes are printed with the first."""
    guard.configure(colour=1)
    done = guard.command("why", "alice")

    assert done.stdout.startswith("account alice fails")
    assert done.stderr.count("colour: unknown key") == 1, done.stderr


def test_hostile_names_are_escaped() -> None:
    """An escape sequence, an override and a name of 64 KB change nothing on the terminal."""
    name = "2\x1b[2J\u202e04" + "x" * 65_536
    file = StringIO()
    failed = failures_of([evolve(ATTEMPT, address=ADDRESS, account=name, time=NOW)])
    known = AccountFacts(name, NOW, (evolve(friend(), account=name),), (), tuple(failed), {ADDRESS: (ban(),)})
    print_account(account_document(known), Screen(width=80, file=file))

    assert all(line.isprintable() for line in file.getvalue().split("\n"))
    assert "\\x1b[2J\\u202e04" in file.getvalue()


def test_a_ban_of_a_former_address_is_named_so() -> None:
    """The account works at another address now, so the headline is not about that ban."""
    file = StringIO()
    left = evolve(friend(until=NOW - 50.0), address=ip_address("198.51.100.9"))
    bans = {left.address: (ban("198.51.100.9"),)}
    known = AccountFacts("204", NOW, (friend(),), (left,), bans=bans)
    print_account(account_document(known), Screen(width=200, file=file))

    assert file.getvalue().startswith("account 204 works")
    assert "198.51.100.9 (a former address): guess" in file.getvalue()
