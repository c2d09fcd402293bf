"""Friends as a daemon keeps them: who becomes one, for how long, and what is written of it."""

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
from ringfence.friends.keeping import KEEP, MOST_PLACES, TOLD_EVERY, TRUNK_FOR
from ringfence.model import Address, EventKind, Friend, Roster, Service, Tie

PHONE, OTHER = "192.0.2.7", "192.0.2.8"


@pytest.fixture(name="world")
def _world() -> World:
    """Give a daemon's friends at the first start."""
    return World()


# -- who becomes one --------------------------------------------------------------------------------------


def test_a_right_password_makes_a_friend(world: World) -> None:
    """At once, by PJSIP's word; somebody waits for that to tell the kernel."""
    world.keeping.succeeded(success(PHONE))

    assert world.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR}
    assert world.keeping.friends.works_at("alice", ip_address(PHONE))
    assert world.keeping.stirred.is_set()


@pytest.mark.parametrize(
    "strange",
    [
        {"service": Service.AMI},
        {"service": Service.SIP},
        {"kind": EventKind.CHALLENGE_SENT},
        {"password": False},
        {"tampered": True},
        {"hearsay": True},
        {"time": NOW - AUTHENTICATED_FOR},
    ],
    ids=str,
)
def test_nothing_else_does(world: World, strange: dict[str, Any]) -> None:
    """No manager's login, no word of chan_sip's, nothing without a password, forged, or long ago."""
    world.keeping.succeeded(success(PHONE, **strange))

    assert world.ties(PHONE) == {}
    assert not world.keeping.stirred.is_set()


@pytest.mark.parametrize("where", [str(HERE), "127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "255.255.255.255"])
def test_where_no_phone_can_be_nobody_is_a_friend(world: World, where: str) -> None:
    """A contact may say anything: this host itself, everybody, nobody."""
    world.keeping.roster(roster(contact(where), contact("10.0.0.7")))

    assert world.keeping.friends.addresses() == [ip_address("10.0.0.7")]


def test_contacts_are_friends_for_their_registration_and_a_bit(world: World) -> None:
    """Reachable or only registered, until the end that Asterisk tells, or from now on; not if it is over."""
    world.keeping.roster(
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
    """A phone that registers is a friend at once; one that signs off is one for a while yet."""
    world.keeping.roster(roster())
    world.keeping.contact(contact(PHONE, left=7_200.0))
    assert world.ties(PHONE) == {REGISTERED: 7_200 + KEEP}
    world.keeping.contact(contact(PHONE, reachable=True, left=7_200.0))
    assert world.ties(PHONE) == {REGISTERED: 7_200 + KEEP, REACHABLE: 7_200 + KEEP}

    world.keeping.contact(contact(PHONE, gone=True))
    assert world.ties(PHONE) == {REGISTERED: KEEP, REACHABLE: KEEP}
    world.wait(KEEP)
    assert world.ties(PHONE) == {}
    assert world.keeping.friends.worked_at("alice", ip_address(PHONE))


def test_who_is_not_in_the_roster_is_not_there(world: World) -> None:
    """He has the same while left; who came by a password keeps what that gave, and others theirs."""
    world.keeping.roster(roster(contact(PHONE, left=7_200.0), contact(OTHER, left=7_200.0)))
    world.keeping.succeeded(success(PHONE))
    world.later(roster(contact(OTHER, left=7_200.0)))

    assert world.ties(PHONE) == {REGISTERED: KEEP, AUTHENTICATED: AUTHENTICATED_FOR}
    assert world.ties(OTHER) == {REGISTERED: 7_200 + KEEP}
    world.later(roster(asterisk="other"))
    assert world.ties(OTHER) == {REGISTERED: 7_200 + KEEP}


def test_an_asterisk_that_refuses_to_tell_takes_nothing_back(world: World) -> None:
    """Where contacts cannot be asked for, the last that were known stay."""
    world.keeping.roster(roster(contact(PHONE)))
    world.later(Roster("pbx", None, None, ("refused",)))

    assert world.ties(PHONE) == {REGISTERED: 600 + KEEP}


def test_trunks_are_friends_where_their_names_lead(world: World) -> None:
    """Names are followed, addresses are taken as they are; a new answer adds, and the old one stays a day."""
    world.keeping.roster(
        roster(trunks=[trunk("SIP.Example."), trunk("203.0.113.5", "other"), trunk("[::1]")])
    )
    assert world.followed == {"sip.example"}
    assert world.ties("203.0.113.5") == {TRUNK: TRUNK_FOR}
    world.keeping.resolved(leads(sip_example=["203.0.113.9"], elsewhere=["203.0.113.10"]))
    assert world.ties("203.0.113.9") == {TRUNK: TRUNK_FOR}
    world.now += 600
    world.keeping.resolved(leads(sip_example=["203.0.113.8"]))

    assert world.ties("203.0.113.9") == {TRUNK: TRUNK_FOR - 600}
    assert world.ties("203.0.113.8") == {TRUNK: TRUNK_FOR}
    assert world.ties("203.0.113.10") == {}
    world.later(roster())
    assert world.followed == frozenset()


def test_one_account_does_not_crowd_out_the_others(world: World) -> None:
    """Whoever has one password and many addresses has so many of them as friends, the latest."""
    world.keeping.succeeded(success(PHONE, "bob"))
    for number in range(MOST_PLACES + 10):
        world.keeping.succeeded(success(f"2001:db8::{number:x}", "alice"))

    assert len(world.keeping.friends) == MOST_PLACES + 1
    assert world.ties("2001:db8::9") == {}
    assert world.ties("2001:db8::a") == {AUTHENTICATED: AUTHENTICATED_FOR}
    assert world.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR}


# -- what is kept -----------------------------------------------------------------------------------------


def test_friends_outlast_the_daemon(world: World) -> None:
    """The next one has them at its start, and who was one before too; it knows that it has some."""
    assert not world.again().keeping.known.remembered
    world.keeping.succeeded(success(PHONE))
    world.keeping.succeeded(success(OTHER, "bob", time=NOW - AUTHENTICATED_FOR + 60))
    world.keeping.write()
    world.now += 100
    after = world.again()

    assert after.keeping.known.remembered
    assert after.keeping.stirred.is_set()
    assert after.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR - 100}
    assert after.ties(OTHER) == {}
    assert after.keeping.friends.worked_at("bob", ip_address(OTHER))


def test_contacts_that_went_while_no_daemon_ran_are_missed(world: World) -> None:
    """The first roster of the next daemon is compared with what the last one knew."""
    world.keeping.roster(roster(contact(PHONE, left=80_000.0)))
    after = world.again()
    after.keeping.roster(roster())

    assert after.ties(PHONE) == {REGISTERED: KEEP}
    assert after.again().ties(PHONE) == {REGISTERED: KEEP}


def test_many_phones_every_minute_are_written_once() -> None:
    """Nothing is written of a roster that says what was said before; renewals are, every few minutes."""
    world = World()
    addresses = [f"10.1.{number // 250}.{number % 250 + 1}" for number in range(1_000)]

    def minute(left: float) -> list[int]:
        world.shelf.written.clear()
        world.later(roster(*(contact(one, one, left=left, now=world.now) for one in addresses)))
        world.wait(60)
        return world.shelf.written

    assert minute(3_600.0) == [1_000]
    end = NOW + 3_600.0
    for _ in range(int(TOLD_EVERY // 60) - 1):
        assert minute(end - world.now) == []
    assert minute(end - world.now + TOLD_EVERY) == [1_000]
    assert sum(len(minute(60.0 * 60)) for _ in range(int(TOLD_EVERY // 60))) == 1


def test_a_reason_that_is_renewed_keeps_its_beginning(world: World) -> None:
    """Since when somebody is a friend is what was true first, over a restart too."""
    world.keeping.succeeded(success(PHONE))
    world.now += 1_000
    world.keeping.succeeded(success(PHONE, time=world.now))
    after = world.again()
    after.keeping.succeeded(success(PHONE, time=world.now + 1_000))

    [friend] = after.keeping.friends.reasons(ip_address(PHONE))
    assert (friend.since, friend.seen) == (NOW, NOW + 2_000)
    assert [one.since for one in after.again().keeping.friends.all()] == [NOW]


def test_who_is_forgotten_comes_back_with_his_next_sign(world: World) -> None:
    """Every reason of the address goes, in the store too; nothing stands in the way of a new one."""
    world.keeping.succeeded(success(PHONE))
    world.keeping.contact(contact(PHONE))
    world.keeping.write()
    assert world.keeping.forget(ip_address(PHONE)) == 2
    assert world.keeping.forget(ip_address(PHONE)) == 0
    assert world.ties(PHONE) == {}
    world.keeping.write()
    assert world.shelf.rows == {}

    world.keeping.succeeded(success(PHONE))
    assert world.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR}


def test_another_servers_friends_are_taken(world: World) -> None:
    """They are kept beside this one's own, for as long as they were told."""
    address: Address = ip_address(PHONE)
    told = Friend("twin", address, "alice", Tie.IMPORTED, NOW - 60, NOW - 30, NOW + 500)
    world.keeping.take([told])

    assert world.keeping.friends.reasons(address) == (told,)
    assert world.again().keeping.friends.reasons(address) == (told,)


def test_what_the_friends_had_no_room_for_is_not_kept_in_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond twice the bound what is remembered beside them is brought in line."""
    monkeypatch.setattr("ringfence.friends.keeping.MOST", 5)
    world = World(Shelf())
    world.keeping.friends._most = 5
    for last in range(1, 20):
        world.keeping.succeeded(success(f"192.0.2.{last}", str(last)))
    world.wait(1)

    assert len(world.keeping._told) == len(world.keeping._places) == len(world.keeping.friends) == 5


def test_it_writes_and_lets_go_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it runs what has changed is written, and at its end too."""
    monkeypatch.setattr("ringfence.friends.keeping.WRITE_EVERY", 0.01)

    async def run() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(world.keeping.run())
            world.keeping.succeeded(success(PHONE))
            await world.shelf.told.wait()
            world.now += AUTHENTICATED_FOR
            world.keeping.stirred.clear()
            await world.keeping.stirred.wait()
            assert world.ties(PHONE) == {}
            monkeypatch.setattr("ringfence.friends.keeping.WRITE_EVERY", 100.0)
            await asyncio.sleep(0.05)
            world.keeping.contact(contact(OTHER, left=1e6))
            task.cancel()

    asyncio.run(run())
    assert {str(friend.address) for friend in world.shelf.rows.values()} == {PHONE, OTHER}
