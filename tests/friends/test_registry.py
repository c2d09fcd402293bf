"""Friends as a daemon keeps them: how an address becomes one, for how long, and what is stored."""

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest
from tests.friends.world import (
    AUTHENTICATED,
    HERE,
    NOW,
    REACHABLE,
    REGISTERED,
    TRUNK,
    Shelf,
    World,
    contact,
    leads,
    roster,
    success,
    trunk,
)

from ringfence.detect.friends import AUTHENTICATED_FOR
from ringfence.friends.registry import KEEP, MOST_ADDRESSES, RENEW_EVERY, TRUNK_FOR
from ringfence.model import Address, EventKind, Friend, FriendReason, Roster, Service

PHONE, OTHER = "192.0.2.7", "192.0.2.8"


@pytest.fixture(name="world")
def _world() -> World:
    """Return a daemon's friends at its first start."""
    return World()


# -- who becomes one --------------------------------------------------------------------------------------


def test_a_right_password_makes_a_friend(world: World) -> None:
    """The friend counts at once if PJSIP reports the success, and the kernel's update is triggered."""
    world.keeping.on_success(success(PHONE))

    assert world.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR}
    assert world.keeping.friends.works_at("alice", ip_address(PHONE))
    assert world.keeping.changed.is_set()


@pytest.mark.parametrize(
    "strange",
    [
        {"service": Service.AMI},
        {"service": Service.SIP},
        {"kind": EventKind.CHALLENGE_SENT},
        {"password": False},
        {"tampered": True},
        {"forgeable": True},
        {"time": NOW - AUTHENTICATED_FOR},
    ],
    ids=str,
)
def test_nothing_else_does(world: World, strange: dict[str, Any]) -> None:
    """A manager's login, a report of chan_sip, and forged, old or passwordless reports make no friend."""
    world.keeping.on_success(success(PHONE, **strange))

    assert world.ties(PHONE) == {}
    assert not world.keeping.changed.is_set()


@pytest.mark.parametrize("where", [str(HERE), "127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "255.255.255.255"])
def test_where_no_phone_can_be_nobody_is_a_friend(world: World, where: str) -> None:
    """A contact may contain any address, also this host itself, multicast, broadcast or unspecified ones."""
    world.keeping.on_roster(roster(contact(where), contact("10.0.0.7")))

    assert world.keeping.friends.addresses() == [ip_address("10.0.0.7")]


def test_contacts_are_friends_for_their_registration_and_a_bit(world: World) -> None:
    """A contact is a friend until its registration ends plus a margin, or for the margin from now on."""
    world.keeping.on_roster(
        roster(
            contact(PHONE),
            contact(OTHER, reachable=True, left=None),
            contact("192.0.2.9", left=-KEEP),
            contact("192.0.2.10", gone=True),
        )
    )

    assert world.ties(PHONE) == {REGISTERED: 600 + KEEP}
    assert world.ties(OTHER) == {REACHABLE: KEEP}
    assert len(world.keeping.friends) == 2


def test_changes_between_rosters_are_taken(world: World) -> None:
    """A registering phone is a friend at once, and an unregistering one stays a friend for a while."""
    world.keeping.on_roster(roster())
    world.keeping.on_contact(contact(PHONE, left=7_200.0))
    assert world.ties(PHONE) == {REGISTERED: 7_200 + KEEP}
    world.keeping.on_contact(contact(PHONE, reachable=True, left=7_200.0))
    assert world.ties(PHONE) == {REGISTERED: 7_200 + KEEP, REACHABLE: 7_200 + KEEP}

    world.keeping.on_contact(contact(PHONE, gone=True))
    assert world.ties(PHONE) == {REGISTERED: KEEP, REACHABLE: KEEP}
    world.wait(KEEP)
    assert world.ties(PHONE) == {}
    assert world.keeping.friends.worked_at("alice", ip_address(PHONE))


def test_who_is_not_in_the_roster_is_not_there(world: World) -> None:
    """A missing contact stays a friend for a while; passwords and other Asterisks keep theirs."""
    world.keeping.on_roster(roster(contact(PHONE, left=7_200.0), contact(OTHER, left=7_200.0)))
    world.keeping.on_success(success(PHONE))
    world.later(roster(contact(OTHER, left=7_200.0)))

    assert world.ties(PHONE) == {REGISTERED: KEEP, AUTHENTICATED: AUTHENTICATED_FOR}
    assert world.ties(OTHER) == {REGISTERED: 7_200 + KEEP}
    world.later(roster(asterisk="other"))
    assert world.ties(OTHER) == {REGISTERED: 7_200 + KEEP}


def test_an_asterisk_that_refuses_to_tell_takes_nothing_back(world: World) -> None:
    """If Asterisk refuses to list its contacts, the last known ones stay."""
    world.keeping.on_roster(roster(contact(PHONE)))
    world.later(Roster("pbx", None, None, ("refused",)))

    assert world.ties(PHONE) == {REGISTERED: 600 + KEEP}


def test_trunks_are_friends_where_their_names_lead(world: World) -> None:
    """Trunks' names are resolved, addresses used directly; a new answer adds, and old ones last a day."""
    world.keeping.on_roster(
        roster(trunks=[trunk("SIP.Example."), trunk("203.0.113.5", "other"), trunk("[::1]")])
    )
    assert world.followed == {"sip.example"}
    assert world.ties("203.0.113.5") == {TRUNK: TRUNK_FOR}
    world.keeping.on_resolved(leads(sip_example=["203.0.113.9"], elsewhere=["203.0.113.10"]))
    assert world.ties("203.0.113.9") == {TRUNK: TRUNK_FOR}
    world.now += 600
    world.keeping.on_resolved(leads(sip_example=["203.0.113.8"]))

    assert world.ties("203.0.113.9") == {TRUNK: TRUNK_FOR - 600}
    assert world.ties("203.0.113.8") == {TRUNK: TRUNK_FOR}
    assert world.ties("203.0.113.10") == {}
    world.later(roster())
    assert world.followed == frozenset()


def test_one_account_does_not_crowd_out_the_others(world: World) -> None:
    """One account with many addresses has only its latest ones as friends, up to a limit."""
    world.keeping.on_success(success(PHONE, "bob"))
    for number in range(MOST_ADDRESSES + 10):
        world.keeping.on_success(success(f"2001:db8::{number:x}", "alice"))

    assert len(world.keeping.friends) == MOST_ADDRESSES + 1
    assert world.ties("2001:db8::9") == {}
    assert world.ties("2001:db8::a") == {AUTHENTICATED: AUTHENTICATED_FOR}
    assert world.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR}


# -- what is kept -----------------------------------------------------------------------------------------


def test_friends_outlast_the_daemon(world: World) -> None:
    """The next daemon loads current and former friends at its start and knows that it has some."""
    assert not world.again().keeping.startup.remembered
    world.keeping.on_success(success(PHONE))
    world.keeping.on_success(success(OTHER, "bob", time=NOW - AUTHENTICATED_FOR + 60))
    world.keeping.write()
    world.now += 100
    after = world.again()

    assert after.keeping.startup.remembered
    assert after.keeping.changed.is_set()
    assert after.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR - 100}
    assert after.ties(OTHER) == {}
    assert after.keeping.friends.worked_at("bob", ip_address(OTHER))


def test_contacts_that_went_while_no_daemon_ran_are_missed(world: World) -> None:
    """The first roster after a restart is compared with the contacts that the last daemon knew."""
    world.keeping.on_roster(roster(contact(PHONE, left=80_000.0)))
    after = world.again()
    after.keeping.on_roster(roster())

    assert after.ties(PHONE) == {REGISTERED: KEEP}
    assert after.again().ties(PHONE) == {REGISTERED: KEEP}


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


def test_a_reason_that_is_renewed_keeps_its_beginning(world: World) -> None:
    """The start time of a friend is that of its first report, also after a restart."""
    world.keeping.on_success(success(PHONE))
    world.now += 1_000
    world.keeping.on_success(success(PHONE, time=world.now))
    after = world.again()
    after.keeping.on_success(success(PHONE, time=world.now + 1_000))

    [friend] = after.keeping.friends.reasons(ip_address(PHONE))
    assert (friend.since, friend.seen) == (NOW, NOW + 2_000)
    assert [one.since for one in after.again().keeping.friends.all()] == [NOW]


def test_who_is_forgotten_comes_back_with_his_next_sign(world: World) -> None:
    """All reasons of the address are removed, also in the store, and a new report adds one again."""
    world.keeping.on_success(success(PHONE))
    world.keeping.on_contact(contact(PHONE))
    world.keeping.write()
    assert world.keeping.forget(ip_address(PHONE)) == 2
    assert world.keeping.forget(ip_address(PHONE)) == 0
    assert world.ties(PHONE) == {}
    world.keeping.write()
    assert world.shelf.rows == {}

    world.keeping.on_success(success(PHONE))
    assert world.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR}


def test_another_servers_friends_are_taken(world: World) -> None:
    """Imported friends are kept beside the daemon's own, for as long as the import states."""
    address: Address = ip_address(PHONE)
    told = Friend("twin", address, "alice", FriendReason.IMPORTED, NOW - 60, NOW - 30, NOW + 500)
    world.keeping.add([told])

    assert world.keeping.friends.reasons(address) == (told,)
    assert world.again().keeping.friends.reasons(address) == (told,)


def test_what_the_friends_had_no_room_for_is_not_kept_in_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data about friends is reduced to the kept friends when it exceeds twice the limit."""
    monkeypatch.setattr("ringfence.friends.registry.MOST", 5)
    world = World(Shelf())
    world.keeping.friends._most = 5
    for last in range(1, 20):
        world.keeping.on_success(success(f"192.0.2.{last}", str(last)))
    world.wait(1)

    assert len(world.keeping._recorded) == len(world.keeping._addresses) == len(world.keeping.friends) == 5


def test_it_writes_and_lets_go_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are written while the registry runs and when it stops."""
    monkeypatch.setattr("ringfence.friends.registry.WRITE_EVERY", 0.01)

    async def run() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(world.keeping.run())
            world.keeping.on_success(success(PHONE))
            await world.shelf.told.wait()
            world.now += AUTHENTICATED_FOR
            world.keeping.changed.clear()
            await world.keeping.changed.wait()
            assert world.ties(PHONE) == {}
            monkeypatch.setattr("ringfence.friends.registry.WRITE_EVERY", 100.0)
            await asyncio.sleep(0.05)
            world.keeping.on_contact(contact(OTHER, left=1e6))
            task.cancel()

    asyncio.run(run())
    assert {str(friend.address) for friend in world.shelf.rows.values()} == {PHONE, OTHER}
