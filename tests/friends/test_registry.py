"""Friends as a daemon keeps them: how an address becomes one, for how long, and what is stored."""

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from tests.friends.world import (
    AUTHENTICATED,
    NOW,
    World,
    contact,
    event_of,
    success,
)

from ringfence.detect.friends import AUTHENTICATED_FOR, friend_from, identity_of
from ringfence.values.event import EventKind, Service
from ringfence.values.friend import Friend, FriendReason

if TYPE_CHECKING:
    from ringfence.values.network import Address

PHONE, OTHER = "192.0.2.7", "192.0.2.8"


def test_a_valid_password_makes_a_friend(world: World) -> None:
    """The friend counts at once if PJSIP reports the success, and the kernel's update is triggered."""
    world.keeping.on_login(success(PHONE))

    assert world.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR}
    assert world.keeping.friends.worked_at("alice", ip_address(PHONE))
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
    ],
    ids=str,
)
def test_other_reports_make_no_friend(strange: dict[str, Any]) -> None:
    """A manager's login, a report of chan_sip, and forged or passwordless reports make no friend."""
    assert friend_from(event_of(PHONE, **strange)) is None


def test_an_estranged_friend_is_a_former_one(world: World) -> None:
    """Detection has ended the reasons of one address; they have ended in the store and for the contacts."""
    world.keeping.on_login(success(PHONE))
    world.keeping.on_contact(contact(PHONE))
    world.keeping.write()
    [gone] = world.keeping.friends.estrange(("pbx", "alice"), world.now)
    world.keeping.on_estranged(gone)
    world.keeping.write()
    after = world.again()
    assert (len(gone), world.ties(PHONE), after.ties(PHONE)) == (2, {}, {})
    assert after.keeping.friends.worked_at("alice", ip_address(PHONE))
    assert [one.account for one in after.keeping.friends.restore_new(world.now)] == ["alice"]


def test_a_login_that_asterisk_refused_leaves_no_trace(world: World) -> None:
    """Its address did not work, so the next daemon does not know it; another reason there stays."""
    world.keeping.on_login(success(PHONE, "bob"))
    for address in (PHONE, "192.0.2.9"):
        refused = success(address)
        world.keeping.on_login(refused)
        world.keeping.write()
        world.keeping.friends.revoke(identity_of(refused))
        world.keeping.on_estranged((refused,))
    after = world.again().keeping.friends
    assert [str(one) for one in after.addresses()] == [PHONE]
    assert [one.account for one in after.reasons(ip_address(PHONE))] == ["bob"]
    assert not after.worked_at("alice", ip_address("192.0.2.9"))


def test_a_phone_that_comes_back_is_not_new_after_a_restart(world: World) -> None:
    """Its reason ends and begins again: the stored one began when the phone came first."""
    world.keeping.on_login(success(PHONE))
    world.wait(2 * AUTHENTICATED_FOR)
    world.now += 8 * 86_400.0
    world.keeping.on_login(success(PHONE, time=world.now))
    world.keeping.on_login(success("192.0.2.9", time=world.now))
    after = world.again()
    assert [str(one.address) for one in after.keeping.friends.restore_new(after.now)] == ["192.0.2.9"]


def test_an_old_login_makes_no_friend(world: World) -> None:
    """A log that is read late may report it."""
    world.keeping.on_login(success(PHONE, time=NOW - AUTHENTICATED_FOR))

    assert world.ties(PHONE) == {}
    assert not world.keeping.changed.is_set()


def test_a_registration_at_chan_sip_makes_a_friend_if_the_wire_has_seen_it() -> None:
    """The wire shows where the right password came from; AMI alone names the address in the Via header."""
    event = event_of(PHONE, service=Service.SIP)
    assert friend_from(event) is None
    friend = friend_from(event, seen=True)
    assert friend is not None
    assert (str(friend.address), friend.reason) == (PHONE, AUTHENTICATED)


def test_friends_outlast_the_daemon(world: World) -> None:
    """The next daemon loads current and former friends at its start and knows that it has some."""
    assert not world.again().keeping.startup.remembered
    world.keeping.on_login(success(PHONE))
    world.keeping.on_login(success(OTHER, "bob", time=NOW - AUTHENTICATED_FOR + 60))
    world.keeping.write()
    world.now += 100
    after = world.again()

    assert after.keeping.startup.remembered
    assert after.keeping.changed.is_set()
    assert after.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR - 100}
    assert after.ties(OTHER) == {}
    assert after.keeping.friends.worked_at("bob", ip_address(OTHER))


def test_a_forgotten_friend_returns_with_its_next_report(world: World) -> None:
    """All reasons of the address are removed, also in the store, and a new report adds one again."""
    world.keeping.on_login(success(PHONE))
    world.keeping.on_contact(contact(PHONE))
    world.keeping.write()
    assert world.keeping.forget(ip_address(PHONE)) == 2
    assert world.keeping.forget(ip_address(PHONE)) == 0
    assert world.ties(PHONE) == {}
    world.keeping.write()
    assert world.shelf.rows == {}

    world.keeping.on_login(success(PHONE))
    assert world.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR}


def test_friends_of_another_server_are_added(world: World) -> None:
    """Imported friends are kept beside the daemon's own, for as long as the import states."""
    address: Address = ip_address(PHONE)
    told = Friend("twin", address, "alice", FriendReason.IMPORTED, NOW - 60, NOW - 30, NOW + 500)
    world.keeping.add([told])

    assert world.keeping.friends.reasons(address) == (told,)
    assert world.again().keeping.friends.reasons(address) == (told,)


def test_the_registry_writes_and_expires_periodically(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are written while the registry runs and when it stops."""
    monkeypatch.setattr("ringfence.friends.registry.WRITE_EVERY", 0.01)

    async def run() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(world.keeping.run())
            world.keeping.on_login(success(PHONE))
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
