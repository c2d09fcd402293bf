"""Why, without a daemon: from what is on record and on this host."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.kept import settings
from tests.why.world import NOW, ban, friend, proven

from ringfence.errors import HostError
from ringfence.model import ListEntry, Side, Tie
from ringfence.settings import Settings, StoreSettings
from ringfence.store import Store
from ringfence.why.alone import known_alone, without_daemon
from ringfence.why.known import Verdict

HERE = ip_network("192.0.2.1")


@pytest.fixture(name="wanted")
def _wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Give a configuration on a host with one address, which is not this machine."""
    monkeypatch.setattr("ringfence.why.alone.read_addresses", lambda: frozenset({ip_network("198.18.0.1")}))
    monkeypatch.setattr("ringfence.why.alone.read_protected", lambda _: {})
    denied = settings("198.51.100.0/24", denied=("203.0.113.0/24",))
    return evolve(denied, store=StoreSettings(tmp_path / "ringfence.db"))


def test_what_is_on_record(wanted: Settings) -> None:
    """The ban that runs with its attempts, who is a friend and who was one."""
    with Store.open(wanted.store.path, owner=True) as store:
        store.record([ban(made=proven(5))])
        store.remember_friends([friend(), friend(Tie.REGISTERED, "205", NOW - 5)])
    known = known_alone(wanted, HERE, NOW)

    assert [(one.ban.rule, one.element) for one in known.running if one.ban] == [("guess", None)]
    assert [told.attempt.account for told in known.attempts()] == ["alice"] * 5
    assert [one.account for one in known.friends] == ["204"]
    assert [one.account for one in known.former] == ["205"]
    assert (known.live, known.problems) == (False, ())


def test_which_lists_hold_it(wanted: Settings) -> None:
    """Those of the configuration, of commands, and names where they led last."""
    with Store.open(wanted.store.path, owner=True) as store:
        store.add_entries([ListEntry(Side.ALLOW, "sip.carrier.example", "", 0.0)])
        store.remember_fact("names", '{"sip.carrier.example": ["192.0.2.1/32"]}')

    assert known_alone(wanted, HERE, NOW).verdict is Verdict.ALLOWED
    assert known_alone(wanted, ip_network("203.0.113.9"), NOW).verdict is Verdict.DENIED
    assert known_alone(wanted, ip_network("198.18.0.1"), NOW).verdict is Verdict.PROTECTED
    assert known_alone(wanted, ip_network("192.0.2.9"), NOW).verdict is Verdict.STRANGER


def test_enforcement_may_be_off(wanted: Settings) -> None:
    """Then nothing is dropped, whoever it is."""
    with Store.open(wanted.store.path, owner=True) as store:
        store.switched_off = True

    assert known_alone(wanted, HERE, NOW).verdict is Verdict.OFF


def test_without_a_database(wanted: Settings) -> None:
    """Nothing is on record, and that is no problem: nothing has run here yet. None is made."""
    known = known_alone(wanted, HERE, NOW)

    assert (known.verdict, known.problems) == (Verdict.STRANGER, ())
    assert known_alone(wanted, ip_network("203.0.113.9"), NOW).verdict is Verdict.DENIED
    assert not wanted.store.path.exists()


def test_what_cannot_be_read_is_a_problem(wanted: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rest is told."""

    def broken() -> frozenset[object]:
        raise HostError("no addresses")

    wanted.store.path.write_bytes(b"no database at all" * 100)
    monkeypatch.setattr("ringfence.why.alone.read_addresses", broken)
    told = without_daemon(wanted, HERE, NOW)

    assert any("no addresses" in problem for problem in told["problems"])
    assert any("ringfence.db" in problem for problem in told["problems"])
    assert told["address"] == str(ip_address("192.0.2.1"))
