"""The table of bans: what it keeps, counts, ends and deletes."""

import sqlite3
from contextlib import closing
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.attempts import ATTEMPT, attempts, ban_of
from tests.support.recorded import recorded_bans

from ringfence.errors import StoreError
from ringfence.store.bans import KEEP
from ringfence.store.database import Store
from ringfence.values.attempt import AttemptCounts, Proof
from ringfence.values.ban import Ban, Origin, Scope
from ringfence.values.event import EventKind, Service, Transport


def test_a_ban_is_read_as_it_was_recorded(store: Store, path: Path) -> None:
    """Every field of a ban and its attempts is kept in order, also after a restart."""
    bans = [
        ban_of("192.0.2.1", 1_000.5, made=attempts(5)),
        Ban(
            ip_network("2001:db8::/64"),
            since=1_001.0,
            expires=9_999.0,
            rule="admin",
            reason="a reason\nof two lines",
            origin=Origin.ADMIN,
        ),
        ban_of(
            "198.51.100.0/24",
            1_002.0,
            made=(
                evolve(
                    ATTEMPT,
                    address=ip_address("2001:db8::1"),
                    proof=Proof.HANDSHAKE,
                    service=Service.SIP,
                    transport=Transport.WSS,
                    event=EventKind.FAILED_ACL,
                    trusted=False,
                    tampered=True,
                ),
            ),
        ),
    ]
    store.bans.record(bans)

    assert recorded_bans(store, 2_000.0) == bans
    store.close()
    with Store.open(path, owner=True) as again:
        assert recorded_bans(again, 2_000.0) == bans


@pytest.mark.parametrize(
    "account",
    ["", "'; DROP TABLE bans; --", "a\0b", "a\r\n\x1b[2J", "電話 \U0001f4de \u202e", "x" * 65_536, "\\xff"],
)
def test_hostile_accounts_are_only_text(store: Store, account: str) -> None:
    """Any account that a sender chooses is stored unchanged and has no side effect."""
    ban = ban_of("192.0.2.1", made=attempts(2, account=account))
    store.bans.record([ban])

    assert recorded_bans(store, 1_000.0) == [ban]


def test_half_a_character_is_a_store_error(store: Store) -> None:
    """Half a character raises StoreError and skips the whole ban, and later writes succeed."""
    with pytest.raises(StoreError):
        store.bans.record([ban_of("192.0.2.1", made=(*attempts(1), *attempts(1, account="\ud800")))])
    store.bans.record([ban_of("192.0.2.2")])

    assert [ban.network for ban in recorded_bans(store, 1_000.0)] == [ip_network("192.0.2.2")]


def test_a_ban_runs_until_its_end(store: Store) -> None:
    """A ban runs exactly until its end; the first recorded comes first."""
    store.bans.record([ban_of("192.0.2.2", 1_001.0, 10.0)])
    store.bans.record([ban_of("192.0.2.1", 1_000.0, 20.0)])

    assert [str(ban.network) for ban in recorded_bans(store, 1_002.0)] == ["192.0.2.2/32", "192.0.2.1/32"]
    assert [str(ban.network) for ban in recorded_bans(store, 1_011.0)] == ["192.0.2.1/32"]
    assert recorded_bans(store, 1_020.0) == []


def test_a_ban_ends_when_it_is_removed_or_replaced(store: Store) -> None:
    """end() ends the bans of these networks; a new ban of a network replaces the old one."""
    for last in (1, 2, 3):
        store.bans.record([ban_of(f"192.0.2.{last}")])
    store.bans.end([(ip_network(text), Scope.FULL) for text in ("192.0.2.1", "203.0.113.1")], 1_100.0)
    longer = ban_of("192.0.2.2", 1_100.0, 7_200.0)
    store.bans.record([longer])

    assert recorded_bans(store, 1_200.0) == [ban_of("192.0.2.3"), longer]


def test_the_same_ban_is_recorded_once(store: Store) -> None:
    """A restored ban is not a second offence."""
    ban = ban_of("192.0.2.1", made=attempts(2))
    store.bans.record([ban])
    store.bans.record([ban])

    assert store.bans.count_offences(ban.network, 0.0) == 1
    assert recorded_bans(store, 1_000.0) == [ban]


def test_offences_are_counted(store: Store) -> None:
    """Bans by rules of exactly that network since that time count, whether or not they were ended early."""
    network = ip_network("192.0.2.1")
    for since in (1_000.0, 9_000.0, 20_000.0):
        store.bans.record([ban_of("192.0.2.1", since)])
    store.bans.end([(network, Scope.FULL)], 20_001.0)
    store.bans.record([ban_of("192.0.2.2", 20_000.0)])
    store.bans.record([Ban(network, since=30_000.0, expires=31_000.0, rule="admin", origin=Origin.ADMIN)])
    store.bans.record([Ban(network, since=32_000.0, expires=33_000.0, rule="adopted", origin=Origin.ADOPTED)])

    times = (0.0, 1_000.0, 1_000.1, 20_000.0, 20_000.1)
    assert [store.bans.count_offences(network, since) for since in times] == [3, 3, 2, 1, 0]


def test_purging_deletes_old_bans_with_their_attempts(store: Store, path: Path) -> None:
    """Purging deletes bans that ended long ago, with their attempts; the others stay."""
    store.bans.record([ban_of("192.0.2.1", 1_000.0, 100.0, made=attempts(3))])
    store.bans.record([ban_of("192.0.2.2", 1_000.0, 10 * KEEP, made=attempts(3))])
    store.bans.record([ban_of("192.0.2.3", 1_000.0, 10 * KEEP, made=attempts(3))])
    store.bans.end([(ip_network("192.0.2.2"), Scope.FULL)], 1_200.0)
    # A new ban does not change the end of the expired one.
    store.bans.record([ban_of("192.0.2.1", 5_000.0, 100.0)])

    def kept() -> list[tuple[str, int]]:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute(
                "SELECT network, count(attempts.ban) FROM bans LEFT JOIN attempts ON bans.id = ban"
                " GROUP BY bans.id ORDER BY bans.id"
            ).fetchall()

    everything = [("192.0.2.1/32", 3), ("192.0.2.2/32", 3), ("192.0.2.3/32", 3), ("192.0.2.1/32", 0)]
    store.purge(1_100.0 + KEEP)
    assert kept() == everything
    store.purge(1_101.0 + KEEP)
    assert kept() == everything[1:]
    store.purge(1_201.0 + KEEP)
    assert kept() == everything[2:]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (3,)


def test_bans_of_different_scopes_are_independent(store: Store) -> None:
    """Bans of one address with different scopes end independently; only proven ones are offences."""
    full = ban_of("192.0.2.1")
    sip = evolve(full, scope=Scope.SIP, expires=9_500.0)
    narrow = evolve(full, rule="flood", scope=Scope.SIP_UDP, offence=2, expires=9_000.0)
    store.bans.record([full, narrow, sip])
    assert recorded_bans(store, 1_500.0) == [full, narrow, sip]
    assert store.bans.count_offences(full.network, 0.0) == 2
    store.bans.end([(full.network, Scope.FULL)], 1_600.0)

    assert recorded_bans(store, 1_700.0) == [narrow, sip]


def test_running_bans_have_counts_instead_of_attempts(store: Store) -> None:
    """The result has counts instead of attempts, because those of 100,000 bans would need much memory."""
    last, *others = attempts(5)
    made = (*(evolve(attempt, proof=Proof.NONCE) for attempt in others), last)
    bans = [
        ban_of("192.0.2.1", 1_000.0, made=made),
        evolve(ban_of("192.0.2.2", 1_001.0), forced=True, origin=Origin.ADMIN),
    ]
    store.bans.record(bans)

    assert list(store.bans.running(2_000.0)) == [evolve(bans[0], attempts=()), bans[1]]
    assert bans[0].counts == AttemptCounts(5, 4, 1, "alice")


def test_many_bans_are_recorded_all_or_none(store: Store) -> None:
    """A ban that cannot be written cancels the rest of its batch."""
    with pytest.raises(StoreError):
        store.bans.record([ban_of("192.0.2.1"), ban_of("192.0.2.2", made=attempts(1, account="\ud800"))])

    assert recorded_bans(store, 1_000.0) == []


def test_bans_with_the_same_end_cost_no_more_than_others(store: Store) -> None:
    """Bans with the same end are not compared with each other: manual and adopted bans share one end."""
    networks = [ip_network((0xC6120000 + number, 32)) for number in range(500)]
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def cost(bans: list[Ban]) -> int:
        nonlocal steps
        steps = 0
        store.bans.record(bans)
        store.bans.end([(ban.network, ban.scope) for ban in bans], 2_000.0)
        return steps

    store.connection._writer.set_progress_handler(count, 10)
    many = cost([ban_of(str(net), 1_000.0, 3_600.0 + n) for n, net in enumerate(networks)])
    one = cost([ban_of(str(net), 1_500.0) for net in networks])

    assert one < 2 * many


def test_purging_keeps_the_latest_ended_bans(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest ended bans beyond the limit are deleted with their attempts; all running bans stay."""
    monkeypatch.setattr("ringfence.store.bans.MOST", 5)
    ended = [ban_of(f"192.0.2.{n}", 1_000.0 + n, 10.0, made=attempts(2)) for n in range(6)]
    running = [ban_of(f"198.51.100.{n}", 500.0, 9_000.0, made=attempts(1)) for n in range(3)]
    store.bans.record([*ended, *running])
    store.purge(2_000.0)

    def kept() -> tuple[set[str], int]:
        with closing(sqlite3.connect(path)) as connection:
            networks = {network for (network,) in connection.execute("SELECT network FROM bans")}
            return networks, connection.execute("SELECT count(*) FROM attempts").fetchone()[0]

    still = {str(ban.network) for ban in running}
    assert kept() == ({"192.0.2.4/32", "192.0.2.5/32"} | still, 2 * 2 + 3)
    monkeypatch.setattr("ringfence.store.bans.MOST", 2)
    store.purge(2_000.0)
    assert kept() == (still, 3)


def test_an_invalid_row_is_left_out(store: Store, path: Path) -> None:
    """An invalid network in the table is counted, and the other rows are returned."""
    store.bans.record([evolve(ban_of("198.51.100.1", 0.0), rule="r", expires=9e9)])
    store.bans.record([ban_of("192.0.2.9", 1_000.0)])
    for what in ("198.51.100.1/24", "nonsense", "192.0.2.1", "192.0.2.1/33", "2001:db8::/x"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE bans SET network = ? WHERE rule = 'r'", (what,))

        assert recorded_bans(store, 1_000.0) == [ban_of("192.0.2.9", 1_000.0)]
        assert list(store.bans.running(1_000.0)).count(None) == 1


# -- the counts of the attempts that led to a ban


def test_the_account_that_was_tried_most_often() -> None:
    """Attempts, proven ones and different accounts are counted; an empty account is none."""
    made = (*attempts(1, account=""), *attempts(1, account="205"), *attempts(2, account="204"))

    assert AttemptCounts.of(made) == AttemptCounts(4, 0, 2, "204")
    assert AttemptCounts.of([evolve(one, proof=Proof.NONCE) for one in made[:1]]) == AttemptCounts(
        1, 1, 0, ""
    )
    assert AttemptCounts.of(()) == AttemptCounts()
