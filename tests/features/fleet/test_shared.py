"""The bans that other hosts may have: marked, ended, replaced and withdrawn."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.attempts import ban_of

from ringfence.features.fleet.shared import SharedBan, SharedBans
from ringfence.store.database import Store
from ringfence.values.ban import Origin


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    """Return a new database."""
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        yield store


def test_bans_that_other_hosts_may_have(store: Store) -> None:
    """A shared ban that was removed is known until other hosts have ended it, also if a new one follows."""
    shared = SharedBans(store.connection, store.best_effort)
    one, two, three = (ban_of(f"192.0.2.{number}", 1_000.0) for number in (1, 2, 3))
    network, rule = one.network, one.rule
    store.bans.record([one, two, three])
    shared.share([(network, rule), (two.network, rule)])
    assert shared.ended(1_001.0) == []
    running = [SharedBan(ban.network, rule, ban.expires, removed=False) for ban in (one, two)]
    assert shared.running(1_001.0) == running
    assert shared.running(one.expires) == []
    for ban in (one, two, three):
        store.bans.end([(ban.network, ban.scope)], 1_002.0)
    assert shared.ended(1_003.0) == [
        SharedBan(ban.network, rule, ban.expires, removed=True) for ban in (one, two)
    ]
    assert shared.running(1_003.0) == []
    assert shared.ended(one.expires) == []

    again = evolve(one, since=1_004.0, expires=one.expires + 100.0)
    store.bans.record([again])
    assert shared.ended(1_005.0) == [
        SharedBan(ban.network, rule, ban.expires, removed=True) for ban in (one, two)
    ]
    longer = evolve(again, since=1_006.0, expires=again.expires + 100.0)
    store.bans.record([longer])
    store.bans.end([(network, longer.scope)], 1_007.0)
    assert shared.ended(1_008.0)[0] == SharedBan(network, rule, longer.expires, removed=True)
    for ban in (one, two):
        shared.unshare(ban.network, rule)
    assert shared.ended(1_008.0) == []


def test_a_shared_ban_that_another_one_replaced(store: Store) -> None:
    """It counts as removed as soon as the ban that replaced it is removed, and not if that one runs out."""
    shared = SharedBans(store.connection, store.best_effort)
    ban = ban_of("192.0.2.1", 1_000.0)
    by_hand = evolve(ban, since=1_001.0, expires=ban.expires - 100.0, rule="admin", origin=Origin.ADMIN)
    kept = SharedBan(ban.network, ban.rule, ban.expires, removed=False)
    store.bans.record([ban])
    shared.share([(ban.network, ban.rule)])
    store.bans.record([by_hand])
    assert shared.ended(1_002.0) == [kept]
    assert shared.ended(by_hand.expires + 1.0) == [kept]

    store.bans.end([(ban.network, ban.scope)], 1_003.0)
    assert shared.ended(1_004.0) == [evolve(kept, removed=True)]
    shared.unshare(ban.network, ban.rule)
    assert shared.ended(1_004.0) == []


def test_a_shared_ban_that_a_longer_one_of_its_rule_replaced(store: Store) -> None:
    """Other hosts know both by one name, so the first one is no ban that ended, until both are removed."""
    shared = SharedBans(store.connection, store.best_effort)
    ban = ban_of("192.0.2.1", 1_000.0)
    longer = evolve(ban, since=1_001.0, expires=ban.expires + 100.0)
    store.bans.record([ban])
    shared.share([(ban.network, ban.rule)])
    store.bans.record([longer])
    assert shared.ended(1_002.0) == []

    store.bans.end([(ban.network, ban.scope)], 1_003.0)
    assert shared.ended(1_004.0) == [SharedBan(ban.network, ban.rule, longer.expires, removed=True)]


def test_an_invalid_row_of_a_shared_ban_is_left_out(store: Store) -> None:
    """A network that was edited by hand is not withdrawn."""
    shared = SharedBans(store.connection, store.best_effort)
    ban = ban_of("192.0.2.1", 1_000.0)
    store.bans.record([ban])
    shared.share([(ban.network, ban.rule)])
    store.bans.end([(ban.network, ban.scope)], 1_001.0)
    with store.connection.transaction() as execute:
        execute("UPDATE bans SET network = 'x/32'")

    assert shared.ended(1_002.0) == []
