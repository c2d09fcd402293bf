"""Facts without a daemon: from the database, the lists and this host."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.explain.world import NOW, ban, friend, proven
from tests.support.kept import settings

from ringfence.config.schema import AsteriskSettings, Settings, StoreSettings
from ringfence.errors import HostError
from ringfence.explain.as_json import document
from ringfence.explain.facts import AddressVerdict, facts_offline
from ringfence.store.database import Store
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.friend import FriendReason

HERE = ip_network("192.0.2.1")


@pytest.fixture(name="wanted")
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return a configuration; the host has one address, which is not this machine's."""
    monkeypatch.setattr(
        "ringfence.host.protected.read_addresses", lambda: frozenset({ip_network("198.18.0.1")})
    )
    monkeypatch.setattr("ringfence.host.protected.read_protected", dict)
    denied = settings("198.51.100.0/24", denied=("203.0.113.0/24",))
    return evolve(denied, store=StoreSettings(tmp_path / "ringfence.db"))


def test_recorded_facts(wanted: Settings) -> None:
    """The active ban with its attempts, and current and former friends."""
    with Store.open(wanted.store.path, owner=True) as store:
        store.bans.record([ban(made=proven(5))])
        store.friends.add([friend(), friend(FriendReason.REGISTERED, "205", NOW - 5)])
    known = facts_offline(wanted, HERE, NOW)

    assert [(one.ban.rule, one.element) for one in known.running if one.ban] == [("guess", None)]
    assert [told.attempt.account for told in known.attempts()] == ["alice"] * 5
    assert [one.account for one in known.friends] == ["204"]
    assert [one.account for one in known.former] == ["205"]
    assert (known.live, known.problems) == (False, ())


def test_lists(wanted: Settings) -> None:
    """Entries of the configuration, of commands, and names by their last addresses."""
    with Store.open(wanted.store.path, owner=True) as store:
        store.entries.add([ListEntry(ListKind.ALLOW, "sip.carrier.example", "", 0.0)])
        store.state.set_fact("names", '{"sip.carrier.example": ["192.0.2.1/32"]}')

    assert facts_offline(wanted, HERE, NOW).verdict is AddressVerdict.ALLOWED
    assert facts_offline(wanted, ip_network("203.0.113.9"), NOW).verdict is AddressVerdict.DENIED
    assert facts_offline(wanted, ip_network("198.18.0.1"), NOW).verdict is AddressVerdict.PROTECTED
    assert facts_offline(wanted, ip_network("192.0.2.9"), NOW).verdict is AddressVerdict.STRANGER


def test_a_proxy_is_protected(wanted: Settings) -> None:
    """The SIP proxies of the configuration are never banned, with a daemon or without one."""
    pbx = evolve(AsteriskSettings(), proxies=(ip_network("198.18.7.0/30"),))
    known = facts_offline(evolve(wanted, asterisk=(pbx,)), ip_network("198.18.7.2"), NOW)

    assert known.verdict is AddressVerdict.PROTECTED
    assert known.protected[ip_network("198.18.7.0/30")] == "a SIP proxy ([asterisk] proxies)"


def test_switched_off_enforcement(wanted: Settings) -> None:
    """With enforcement off nothing is dropped."""
    with Store.open(wanted.store.path, owner=True) as store:
        store.state.set_switched_off(True)

    assert facts_offline(wanted, HERE, NOW).verdict is AddressVerdict.OFF


def test_without_a_database(wanted: Settings) -> None:
    """Without a database nothing is recorded, which is not a problem, and none is created."""
    known = facts_offline(wanted, HERE, NOW)

    assert (known.verdict, known.problems) == (AddressVerdict.STRANGER, ())
    assert facts_offline(wanted, ip_network("203.0.113.9"), NOW).verdict is AddressVerdict.DENIED
    assert not wanted.store.path.exists()


def test_a_read_error_is_a_problem(wanted: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read error is a problem, and the other facts are returned."""

    def broken() -> frozenset[object]:
        raise HostError("no addresses")

    wanted.store.path.write_bytes(b"no database at all" * 100)
    monkeypatch.setattr("ringfence.host.protected.read_addresses", broken)
    told = document(facts_offline(wanted, HERE, NOW))

    assert any("no addresses" in problem for problem in told["problems"])
    assert any("ringfence.db" in problem for problem in told["problems"])
    assert told["address"] == str(ip_address("192.0.2.1"))
