"""Recorded reasons of friends: limits, renewals, and what is written."""

import asyncio
from contextlib import suppress
from ipaddress import ip_address

import pytest
from structlog.testing import capture_logs
from tests.friends.world import AUTHENTICATED, HERE, NOW, Shelf, World, contact, roster, success
from tests.support.full_disk import FullDisk

from ringfence.detect.friends import AUTHENTICATED_FOR, identity_of
from ringfence.friends.recorded import MOST_ADDRESSES, RENEW_EVERY

PHONE, OTHER = "192.0.2.7", "192.0.2.8"


@pytest.mark.parametrize("where", [str(HERE), "127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "255.255.255.255"])
def test_an_address_that_cannot_be_a_phone_is_not_recorded(world: World, where: str) -> None:
    """A contact may contain any address, also this host itself, multicast, broadcast or unspecified ones."""
    world.keeping.on_roster(roster(contact(where), contact("10.0.0.7")))

    assert world.keeping.friends.addresses() == [ip_address("10.0.0.7")]


def test_one_account_does_not_displace_the_others(world: World) -> None:
    """One account with many addresses has only its latest ones as friends, up to a limit."""
    world.keeping.on_login(success("2001:db8::0", "alice"))
    world.wait(86_400.0)  # from then on, it may make more friends in this network
    world.keeping.on_login(success(PHONE, "bob", time=world.now))
    for number in range(MOST_ADDRESSES + 10):
        world.keeping.on_login(success(f"2001:db8::{number:x}", "alice", time=world.now))

    assert len(world.keeping.friends) == MOST_ADDRESSES + 1
    assert world.ties("2001:db8::9") == {}
    assert world.ties("2001:db8::a") == {AUTHENTICATED: AUTHENTICATED_FOR}
    assert world.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR}


def test_many_phones_every_minute_are_written_once() -> None:
    """An unchanged roster writes nothing, and renewals are written every few minutes."""
    world = World()
    addresses = [f"10.1.{number // 250}.{number % 250 + 1}" for number in range(1_000)]

    def minute(left: float) -> list[int]:
        world.shelf.written.clear()
        world.later(roster(*(contact(one, one, left=left, now=world.now) for one in addresses)))
        world.wait(60)
        return world.shelf.written

    assert minute(3_600.0) == [1_000]
    end = NOW + 3_600.0
    for _ in range(int(RENEW_EVERY // 60) - 1):
        assert minute(end - world.now) == []
    assert minute(end - world.now + RENEW_EVERY) == [1_000]
    assert sum(len(minute(60.0 * 60)) for _ in range(int(RENEW_EVERY // 60))) == 1


def test_a_login_soon_after_the_last_changes_nothing(world: World) -> None:
    """Phones log in every minute. Only some of these logins renew the friend."""
    seen = []
    for _ in range(11):
        world.keeping.on_login(success(PHONE, time=world.now))
        [friend] = world.keeping.friends.reasons(ip_address(PHONE))
        seen.append(friend.seen - NOW)
        world.now += 60
    assert seen == [0.0] * 5 + [300.0] * 5 + [600.0]


def test_friends_that_are_loaded_late_replace_no_newer_report(world: World) -> None:
    """The stored friends are added to those that Asterisk has reported since the start."""
    for address, account in ((PHONE, "alice"), (OTHER, "bob")):
        world.keeping.on_login(success(address, account))
    world.keeping.write()
    late = World(world.shelf, NOW + 600)
    late.keeping.on_login(success(PHONE, time=late.now))
    late.keeping.load()
    late.keeping.write()

    assert late.ties(OTHER) == {AUTHENTICATED: AUTHENTICATED_FOR - 600}
    [phone] = late.keeping.friends.reasons(ip_address(PHONE))
    assert (phone.seen, late.shelf.rows[identity_of(phone)].seen) == (NOW + 600, NOW + 600)


def test_a_friend_that_gave_way_to_others_comes_back_with_its_next_login(world: World) -> None:
    """It comes back at once, although its last login was not long ago."""
    world.keeping.friends._most = 1
    for address in (PHONE, OTHER, PHONE):
        world.keeping.on_login(success(address))
    assert world.keeping.friends.addresses() == [ip_address(PHONE)]


def test_a_reason_that_is_renewed_keeps_its_beginning(world: World) -> None:
    """The start time of a friend is that of its first report, also after a restart."""
    world.keeping.on_login(success(PHONE))
    world.now += 1_000
    world.keeping.on_login(success(PHONE, time=world.now))
    after = world.again()
    after.now += 1_000
    after.keeping.on_login(success(PHONE, time=after.now))

    [friend] = after.keeping.friends.reasons(ip_address(PHONE))
    assert (friend.since, friend.seen) == (NOW, NOW + 2_000)
    assert [one.since for one in after.again().keeping.friends.all()] == [NOW]


def test_reasons_beyond_the_limit_are_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data about friends is reduced to the kept friends when it exceeds twice the limit."""
    monkeypatch.setattr("ringfence.friends.recorded.MOST", 5)
    world = World(Shelf())
    world.keeping.friends._most = 5
    for last in range(1, 20):
        world.keeping.on_login(success(f"192.0.2.{last}", str(last)))
    world.wait(1)

    recorded = world.keeping._recorded
    assert len(recorded._recorded) == len(recorded._addresses) == len(world.keeping.friends) == 5


def test_hours_of_a_full_disk_queue_few_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred phones renew all the time, and push no ban out of the queue; with room, each is written."""
    world, seconds = World(), iter(range(0, 6 * 3_600, 2))
    disk, best_effort = FullDisk(monkeypatch, world.shelf, "add"), world.keeping._recorded._best_effort

    async def sleep(_: float) -> None:
        second = next(seconds, None)
        if second is None:
            raise asyncio.CancelledError
        world.now += 2.0
        phone = f"10.1.0.{second // 2 % 200 + 1}"
        world.keeping.on_login(success(phone, phone, time=world.now))

    with monkeypatch.context() as patch, capture_logs(), suppress(asyncio.CancelledError):
        patch.setattr("ringfence.friends.registry.asyncio.sleep", sleep)
        asyncio.run(world.keeping._tick())
    assert 6 < best_effort.waiting <= 14

    disk.is_full = False
    best_effort.retry()
    assert (len(world.shelf.rows), best_effort.waiting) == (200, 0)
