"""Periodic work on the database of a running daemon."""

from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

from tests.support.attempts import ban_of
from tests.support.kept import OTHER, Kept

from ringfence.daemon.store_watch import StoreWatch


def test_damage_and_a_database_in_memory_are_alarms_until_they_are_fixed(kept: Kept) -> None:
    """Each of the two is an alarm with its text, which clears when it is no longer so."""
    store: Any = SimpleNamespace(damage=lambda: "page 3", memory_reason="no folder")
    watch = StoreWatch(store, kept.alarms, kept.clock)
    watch.look()
    assert {(str(alarm.code), alarm.text) for alarm in kept.alarms.active} == {
        ("store.damaged", "page 3"),
        ("store.in_memory", "no folder"),
    }

    store.damage, store.memory_reason = str, ""
    watch.look()
    assert kept.alarms.active == []


def test_old_bans_are_purged(kept: Kept) -> None:
    """A purge removes bans that ended long ago, and keeps others."""
    kept.store.bans.record([ban_of(OTHER, kept.now - 500 * 86_400), ban_of("192.0.2.2", kept.now)])
    kept.side.store_watch.purge()

    past = [kept.store.bans.past(ip_network(text), 0.0, 9) for text in (OTHER, "192.0.2.2")]
    assert [len(found) for found in past] == [0, 1]
