"""Contacts at an Asterisk: registrations, changes, and contacts that disappear."""

from ipaddress import ip_address

import pytest
from tests.friends.world import (
    AUTHENTICATED,
    REACHABLE,
    REGISTERED,
    World,
    contact,
    roster,
    success,
)

from ringfence.detect.friends import AUTHENTICATED_FOR
from ringfence.friends.registry import KEEP
from ringfence.values.friend import Roster

PHONE, OTHER = "192.0.2.7", "192.0.2.8"


def test_a_contact_is_a_friend_until_after_its_registration(world: World) -> None:
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


def test_contact_changes_apply_at_once(world: World) -> None:
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


def test_contacts_of_one_account_make_few_friends_and_those_of_many_make_many(world: World) -> None:
    """A roster of 500 accounts makes 500 friends; one account has eight, and those that it had before."""
    many = [contact(f"10.1.{number // 250}.{number % 250 + 1}", str(number)) for number in range(500)]
    shared = [contact(f"10.2.0.{number + 1}") for number in range(30)]
    world.keeping.on_roster(roster(*many, *shared))
    assert len(world.keeping.friends) == 500 + 8
    after = world.again()
    after.keeping.on_roster(roster(*shared))
    assert len(after.keeping.friends) == 500 + 16


@pytest.mark.parametrize("listed", [True, False], ids=["roster", "changes"])
def test_contacts_in_one_network_make_64_friends_on_their_first_day(world: World, *, listed: bool) -> None:
    """A contact may name any address of a /64, and the kernel copies the packets of 64 of them."""
    world.keeping.on_roster(roster())
    contacts = [contact(f"2001:db8::{number:x}") for number in range(1, 101)]
    if listed:
        world.later(roster(*contacts))
    else:
        for one in contacts:
            world.keeping.on_contact(one)
    world.keeping.on_login(success("2001:db8::ff"))
    friends = world.keeping.friends
    assert {*friends.addresses()} == {one.address for one in contacts[:64]}
    assert friends.first_day.addresses == {*friends.addresses()}


def test_a_contact_missing_in_the_roster_ends_soon(world: World) -> None:
    """A missing contact stays a friend for a while; passwords and other Asterisks keep theirs."""
    world.keeping.on_roster(roster(contact(PHONE, left=7_200.0), contact(OTHER, left=7_200.0)))
    world.keeping.on_login(success(PHONE))
    world.later(roster(contact(OTHER, left=7_200.0)))

    assert world.ties(PHONE) == {REGISTERED: KEEP, AUTHENTICATED: AUTHENTICATED_FOR}
    assert world.ties(OTHER) == {REGISTERED: 7_200 + KEEP}
    world.later(roster(asterisk="other"))
    assert world.ties(OTHER) == {REGISTERED: 7_200 + KEEP}


def test_a_refused_roster_changes_no_contact(world: World) -> None:
    """If Asterisk refuses to list its contacts, the last known ones stay."""
    world.keeping.on_roster(roster(contact(PHONE)))
    world.later(Roster("pbx", None, None, ("refused",)))

    assert world.ties(PHONE) == {REGISTERED: 600 + KEEP}


def test_contacts_that_disappeared_without_a_daemon_end_soon(world: World) -> None:
    """The first roster after a restart is compared with the contacts that the last daemon knew."""
    world.keeping.on_roster(roster(contact(PHONE, left=80_000.0)))
    after = world.again()
    after.keeping.on_roster(roster())

    assert after.ties(PHONE) == {REGISTERED: KEEP}
    assert after.again().ties(PHONE) == {REGISTERED: KEEP}
