"""``ringfence account`` and ``ringfence why ACCOUNT``, with the daemon up and down."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.logins import record_home

from ringfence.errors import Exit
from ringfence.features.account.places import LEARN_FOR
from ringfence.store.database import Store

LOGIN = capture("asterisk-22", "good-register").ami.read_bytes()
PHONE, HOME = "198.18.1.110", "192.0.2.1"


@pytest.fixture(name="guard")
def _guard(tmp_path: Path) -> Iterator[Guard]:
    """Return a daemon that knows alice for a month, and hears of a login from another network."""
    record_home(tmp_path, HOME, LEARN_FOR + 60, "alice")
    script = Script(play=[GRANTED, LOGIN])
    with ami_server(script) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: len(guard.ask("account", account="alice")["places"]) == 2, "the login")
        yield guard


def test_a_stolen_password_and_a_confirmation(guard: Guard) -> None:
    """The login is an alarm with the command that confirms it; then the alarm is over."""
    until(lambda: "account.elsewhere" in guard.must("status"), "the alarm")
    assert "ringfence account alice confirm" in " ".join(guard.must("status").split())
    table = guard.must("account", "alice").splitlines()
    assert [line.split()[0] for line in table] == ["NETWORK", "198.18.1.0/24", "192.0.2.0/24"]
    assert ["elsewhere" in table[1], "learned" in table[2]] == [True, True]
    assert max(map(len, table)) <= 80
    assert "confirmed: 1 place of alice" in guard.must("account", "alice", "confirm")
    assert "account.elsewhere" not in guard.must("status")
    assert json.loads(guard.must("account", "alice", "confirm", "--json")) == []
    [new, _] = json.loads(guard.must("account", "alice", "--json"))["places"]
    assert (new["grade"], new["home"], new["days"]) == ("confirmed", True, 1)


def test_the_places_are_in_why(guard: Guard) -> None:
    """Each of the latest places is a line, and all are in the JSON; without a daemon, too."""
    lines = [line for line in guard.must("why", "alice").splitlines() if line.startswith("place")]
    assert len(lines) == 2
    assert lines[0].startswith("place     198.18.1.0/24: elsewhere; ")
    found = json.loads(guard.must("why", "alice", "--json"))["places"]
    assert [one["network"] for one in found] == ["198.18.1.0/24", "192.0.2.0/24"]
    guard.stop()
    done = guard.command("why", "alice")
    assert "place     192.0.2.0/24: learned; 1 login on 1 day" in done.stdout
    shown = guard.command("account", "alice")
    assert "198.18.1.0/24" in shown.stdout
    assert "this is what it has recorded" in shown.stderr
    assert guard.command("account", "alice", "confirm").returncode == Exit.UNREACHABLE


def test_why_needs_no_database(tmp_path: Path) -> None:
    """Before the first start, and with a database of an earlier ringfence, there are no places."""
    guard = Guard(tmp_path)
    assert json.loads(guard.command("why", "alice", "--json").stdout)["places"] == []
    with guard:
        assert "account alice" in guard.must("why", "alice" * 30)
    path = tmp_path / "ringfence.db"
    with Store.open(path, owner=True) as store, store.connection.transaction() as execute:
        execute("DROP TABLE account_places")
    assert json.loads(guard.command("why", "alice", "--json").stdout)["places"] == []


def test_an_account_that_is_new_or_unknown(tmp_path: Path) -> None:
    """A new account is only learned, and an unknown one has no places; another word is a usage error."""
    record_home(tmp_path, HOME, 60.0, "alice")
    with Guard(tmp_path) as guard:
        assert "Its places are only learned until" in guard.must("account", "alice")
        assert "no login of mallory" in guard.must("account", "mallory")
        wrong = guard.command("account", "alice", "forget")
        assert (wrong.returncode, "only confirm may follow" in wrong.stderr) == (Exit.USAGE, True)
