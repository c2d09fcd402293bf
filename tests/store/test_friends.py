"""The table of friends."""

import sqlite3
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest
from attrs import evolve

from ringfence.store.database import Store
from ringfence.store.tables import KEEP_FRIENDS
from ringfence.values.friend import Friend, FriendReason


def friend(
    last: int,
    *,
    account: str = "alice",
    tie: FriendReason = FriendReason.AUTHENTICATED,
    until: float = 9_000.0,
) -> Friend:
    """Return a reason of 192.0.2.LAST, seen ``last`` seconds after 1000."""
    return Friend("pbx", ip_address(f"192.0.2.{last}"), account, tie, 500.0, 1_000.0 + last, until)


def test_friends_are_read_as_they_were_recorded(store: Store, path: Path) -> None:
    """Every reason is kept with its times, in the order seen, and the same reason replaces the old one."""
    friends = [
        friend(1),
        friend(2, account="電話'; --"),
        friend(2, account="bob", tie=FriendReason.TRUNK),
        evolve(friend(3), address=ip_address("2001:db8::1"), reason=FriendReason.REGISTERED),
    ]
    store.friends.add([evolve(friends[0], seen=1.0, until=2.0), *reversed(friends)])
    assert store.friends.current(2_000.0, 2) == sorted(friends[2:], key=lambda one: one.seen)
    store.close()

    with Store.open(path, owner=True) as again:
        assert {*again.friends.current(2_000.0, 100)} == {*friends}
        assert [one.seen for one in again.friends.current(2_000.0, 100)] == [
            1_001.0,
            1_002.0,
            1_002.0,
            1_003.0,
        ]


def test_expired_reasons_are_former(store: Store) -> None:
    """A reason expires at its own end, whatever others its address has; the last to expire comes last."""
    bob, alice = friend(1, account="bob", until=1_700.0), friend(1, until=1_600.0)
    store.friends.add([bob, alice, friend(2)])

    assert store.friends.current(1_600.0, 9) == [bob, friend(2)]
    assert store.friends.former(1_600.0, 9) == [alice]
    assert store.friends.former(1_700.0, 9) == [alice, bob]
    assert store.friends.former(1_700.0, 1) == [bob]
    store.friends.forget(bob.address)
    assert store.friends.former(1_700.0, 9) == []


def test_purging_deletes_old_friends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Purging deletes friends that expired a month ago and, beyond the limit, those seen longest ago."""
    store.friends.add([friend(1, until=1_500.0), friend(2), friend(3)])
    store.purge(1_501.0 + KEEP_FRIENDS)
    assert {*store.friends.former(1e9, 9)} == {friend(2), friend(3)}

    monkeypatch.setattr("ringfence.store.tables.MOST_FRIENDS", 1)
    store.purge(2_000.0)
    assert store.friends.current(2_000.0, 9) == [friend(3)]


def test_an_invalid_friend_is_left_out(store: Store, path: Path) -> None:
    """An invalid row does not affect other friends."""
    store.friends.add([friend(1), friend(2), friend(3, until=1_000.0)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE friends SET address = 'at ' || address WHERE address != '192.0.2.1'")

    assert store.friends.current(2_000.0, 9) == [friend(1)]
    assert store.friends.former(10_000.0, 9) == [friend(1)]
