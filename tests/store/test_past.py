"""The bans of one address as the database stores them."""

from ipaddress import ip_network

from attrs import evolve
from tests.support.attempts import attempts, ban_of

from ringfence.store.database import Store
from ringfence.values.attempt import AttemptCounts, Proof
from ringfence.values.ban import BanEnd, Scope

MOST = 10


def test_past_bans_are_returned_with_attempts_the_latest_first(store: Store) -> None:
    """Bans of the address and of networks around it are returned, also running ones, but no others."""
    proven = tuple(evolve(one, proof=Proof.NONCE, sources=("ami", "wire")) for one in attempts(5))
    old = ban_of("192.0.2.1/32", since=1_000.0, made=attempts(3))
    wide = ban_of("192.0.2.0/24", since=5_000.0)
    new = ban_of("192.0.2.1/32", since=9_000.0, made=proven)
    store.bans.record([old, ban_of("192.0.2.2/32", since=2_000.0), ban_of("2001:db8::/64")])
    store.bans.record([wide])
    store.bans.record([new])

    found = store.bans.past(ip_network("192.0.2.1"), 0.0, MOST)

    assert [one.ban for one in found] == [new, wide, old]
    assert [attempt.sources for attempt in found[0].ban.attempts] == [("ami", "wire")] * 5
    assert [one.runs(9_001.0) for one in found] == [True, False, False]
    assert [one.ban for one in store.bans.past(ip_network("192.0.2.0/24"), 0.0, MOST)] == [wide]
    assert [str(one.ban.network) for one in store.bans.past(ip_network("2001:db8::5"), 0.0, MOST)] == [
        "2001:db8::/64"
    ]


def test_an_unbanned_ban_has_the_time_of_its_end(store: Store) -> None:
    """An ended ban no longer runs, even before its expiry; a ban of another scope is separate."""
    full, narrow = ban_of("192.0.2.1/32"), evolve(ban_of("192.0.2.1/32"), scope=Scope.SIP_UDP)
    store.bans.record([full, narrow])
    store.bans.end([(full.network, Scope.FULL)], 1_500.0)

    found = {one.ban.scope: one for one in store.bans.past(full.network, 0.0, MOST)}

    assert (found[Scope.FULL].removed, found[Scope.FULL].runs(1_600.0)) == (1_500.0, False)
    assert (found[Scope.SIP_UDP].removed, found[Scope.SIP_UDP].runs(1_600.0)) == (None, True)


def test_past_bans_are_limited_by_number_and_age(store: Store) -> None:
    """The latest bans are returned, and only those that ended since the given time."""
    for since in range(1_000, 9_000, 1_000):
        store.bans.record([ban_of("192.0.2.1/32", since=float(since), seconds=60.0)])

    assert [one.ban.since for one in store.bans.past(ip_network("192.0.2.1"), 0.0, 2)] == [8_000.0, 7_000.0]
    assert [one.ban.since for one in store.bans.past(ip_network("192.0.2.1"), 7_000.0, MOST)] == [
        8_000.0,
        7_000.0,
    ]


def test_an_invalid_row_is_left_out(store: Store) -> None:
    """The other rows are returned."""
    store.bans.record(
        [ban_of("192.0.2.1/32", since=1.0, made=attempts(2)), ban_of("192.0.2.0/24", since=2.0)]
    )
    store.connection._writer.execute("UPDATE bans SET scope = 'everything' WHERE network = '192.0.2.0/24'")

    assert [one.ban.since for one in store.bans.past(ip_network("192.0.2.1"), 0.0, MOST)] == [1.0]


def test_ended_bans_name_how_they_ended(store: Store) -> None:
    """Expired, removed and replaced bans are listed, the latest end first; running ones are not."""
    expired = ban_of("192.0.2.1", since=1_000.0, seconds=100.0, made=attempts(3))
    removed = ban_of("192.0.2.2", since=1_000.0)
    replaced = ban_of("192.0.2.3", since=1_000.0)
    store.bans.record([expired, removed, replaced])
    store.bans.record([ban_of("192.0.2.3", since=1_500.0)])
    store.bans.end([(removed.network, Scope.FULL)], 1_300.0)

    found = list(store.bans.ended(0.0, 2_000.0))

    assert [(str(one.ban.network), one.ended, one.end) for one in found] == [
        ("192.0.2.3/32", 1_500.0, BanEnd.REPLACED),
        ("192.0.2.2/32", 1_300.0, BanEnd.REMOVED),
        ("192.0.2.1/32", 1_100.0, BanEnd.EXPIRED),
    ]
    assert found[-1].ban.counts == AttemptCounts(3, 0, 1, "alice")
    assert [one.ended for one in store.bans.ended(1_200.0, 1_400.0)] == [1_300.0]
