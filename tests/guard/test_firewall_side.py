"""The parts that guard, together: what a start puts in place, and what a new configuration changes."""

import asyncio
from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.attempts import ban_of
from tests.support.full_disk import FullDisk
from tests.support.kept import ENFORCED, OFFICE, OTHER, PHONE, Kept, kept, settings, waits
from tests.support.world import START

from ringfence.config.converters import Interface
from ringfence.errors import StoreError
from ringfence.features.limiter.settings import LimitSettings
from ringfence.firewall import network_lists
from ringfence.firewall.limits import LimitMode
from ringfence.values.ban import Ban, Origin
from ringfence.values.friend import Friend


def test_the_guard_is_mounted_with_its_lists(kept: Kept) -> None:
    """Mounting puts the lists into the kernel and restores no ban of an allowed address or of this host."""
    own = ip_network("198.18.0.1")
    for text in (OTHER, "198.51.100.7"):
        kept.store.bans.record([ban_of(text, START)])
    kept.store.bans.record(
        [Ban(own, since=START, expires=START + 60, rule="admin", reason="", origin=Origin.ADMIN)]
    )
    kept.side.start()

    assert kept.banned() == {f"{OTHER}/32"}
    assert kept.backend.lists[network_lists.ALLOW] >= {ip_network(OFFICE)}
    assert kept.backend.lists[network_lists.DENY] == {ip_network("203.0.113.0/24")}
    assert kept.detector.exempt.covers(own.network_address)
    assert [alarm.code for alarm in kept.side.present_alarms] == ["firewall.dry_run"]


def test_friends_of_before_are_in_the_kernel_when_the_guard_is_mounted(tmp_path: Path) -> None:
    """Stored friends are in the kernel at mount and pass the limiter, so it enforces at once."""
    with kept(tmp_path, ENFORCED) as made:
        made.store.friends.add([PHONE])
        made.side.start()

        assert made.backend.lists[network_lists.FRIENDS] == {ip_network(OTHER)}
        assert waits(made) == (LimitMode.ENFORCE, False, True)
        assert made.side.exempt.friends.friends.has(PHONE.address)


def test_unreadable_friends_do_not_stop_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the friends cannot be read, the guard is mounted without them, and the limiter observes."""

    def fail(*_: object) -> list[Friend]:
        raise StoreError("broken")

    with kept(tmp_path, ENFORCED) as made:
        monkeypatch.setattr(made.store, "friends", fail)
        made.side.start()

        assert waits(made) == (LimitMode.OBSERVE, True, True)
        assert made.enforcer.enforcing


def test_friends_that_could_not_be_read_are_loaded_later(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are loaded when the database can be read and has recorded what was forgotten meanwhile."""
    other = evolve(PHONE, address=ip_network("192.0.2.2").network_address)
    kept.store.friends.add([PHONE, other])
    disk = FullDisk(monkeypatch, kept.store.friends, "current", "forget")
    kept.side.start()
    friends = kept.side.exempt.friends
    friends.forget(other.address)
    kept.side.retry_friends()
    assert (friends.unread, friends.friends.addresses()) == (True, [])

    disk.is_full = False
    kept.side.retry_friends()
    assert friends.friends.addresses() == []  # the record that one was forgotten still waits
    kept.store.best_effort.retry()
    kept.side.retry_friends()
    assert (friends.unread, friends.friends.addresses()) == (False, [PHONE.address])
    assert friends.friends.first_day.addresses == {PHONE.address}


def test_a_missing_interface_is_an_alarm(kept: Kept) -> None:
    """A configured interface that does not exist is an alarm: nothing would be dropped on it."""
    wanted = settings()
    named = evolve(wanted.firewall, interfaces=(Interface("lo"), Interface("nosuch0")))
    kept.side.configure(evolve(wanted, firewall=named))

    assert ("firewall.interfaces", "nosuch0") in {
        (alarm.code, alarm.subject) for alarm in kept.side.present_alarms
    }


def test_a_new_configuration_is_in_force_at_once(kept: Kept) -> None:
    """A new configuration changes rules at once, and lists with the next refresh, which also unbans."""
    kept.side.start()
    kept.ban(OTHER)
    kept.side.configure(settings("192.0.2.0/24", limit=LimitSettings(mode=LimitMode.OFF)))
    asyncio.run(kept.side.exempt.lists.refresh())

    assert kept.banned() == set()
    assert ip_network("192.0.2.0/24") in kept.backend.lists[network_lists.ALLOW]
    assert kept.backend.lists[network_lists.DENY] == frozenset()
    assert kept.backend.plan.mode("limiter") is LimitMode.OFF


def test_a_reload_tries_refused_rules_again(kept: Kept) -> None:
    """If the kernel has refused the log rules, a reload writes them again, even of equal settings."""
    kept.side.start()
    same = kept.side.kernel.wanted_rules.settings
    kept.side.configure(same)
    plan, opened = kept.backend.plan, kept.enforcer.opened
    assert opened is not None
    kept.enforcer.opened = evolve(opened, wire="refused; fix: `modprobe nft_log`")

    kept.side.configure(same)

    assert kept.backend.plan == plan
    assert kept.enforcer.opened == opened
