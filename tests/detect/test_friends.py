"""Friends: addresses of phones, each for as long as it has a reason."""

from ipaddress import ip_address, ip_network
from typing import Any

from attrs import evolve

from ringfence.detect.friends import (
    AUTHENTICATED_FOR,
    FORMER_FOR,
    MOST_FORMER,
    Friends,
    friend_from,
    identity_of,
)
from ringfence.detect.new_friends import MOST_STOLEN
from ringfence.detect.observation import NEW_FOR
from ringfence.values.event import Endpoint, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.friend import Friend, FriendReason

PHONE = Friend(
    "pbx", ip_address("192.0.2.7"), "204", FriendReason.AUTHENTICATED, since=10.0, seen=10.0, until=100.0
)


def test_a_friend_is_one_until_its_last_reason_is_over() -> None:
    """An address with two reasons stays a friend when one of them ends."""
    friends = Friends()
    assert friends.add(PHONE)
    friends.add(evolve(PHONE, account="205", until=200.0))
    assert friends.expire(150.0) == [PHONE]
    assert friends.has(PHONE.address)
    friends.expire(200.0)
    assert not friends.has(PHONE.address)


def test_to_meet_again_renews_and_keeps_the_first_meeting() -> None:
    """A renewed reason lasts longer, never shorter, and keeps the time of its start."""
    friends = Friends()
    friends.add(PHONE)
    assert not friends.add(evolve(PHONE, since=50.0, seen=50.0, until=90.0))
    assert friends.reasons(PHONE.address) == (evolve(PHONE, seen=50.0),)


def test_a_former_friend_counts_in_outage_mode() -> None:
    """A former friend is exempt in outage mode, and is forgotten after a month."""
    friends = Friends()
    friends.add(PHONE)
    friends.expire(100.0)
    assert not friends.has(PHONE.address)
    assert friends.worked_at("204", PHONE.address)
    assert [friend.until for friend in friends.former()] == [100.0]
    assert [*friends.former_addresses()] == [PHONE.address]
    friends.outage_mode = True
    assert friends.has(PHONE.address)
    assert friends.any_in(ip_network("192.0.2.0/24"))
    friends.expire(100.0 + FORMER_FOR)
    assert not friends.has(PHONE.address)
    assert not friends.worked_at("204", PHONE.address)


def test_a_clock_that_is_set_ends_no_friendship() -> None:
    """A friend keeps the rest of its time, and so does a former one."""
    friends = Friends()
    friends.add(PHONE)
    friends.add(evolve(PHONE, address=ip_address("192.0.2.8"), until=50.0))
    friends.expire(60.0)
    friends.move(1e6)
    assert friends.expire(1e6 + 99.0) == []
    assert friends.reasons(PHONE.address) == (PHONE.moved(1e6),)
    assert [one.until for one in friends.former()] == [1e6 + 50.0]
    assert friends.expire(1e6 + 100.0) == [PHONE.moved(1e6)]
    friends.move(-1e6)
    assert friends.worked_at("204", PHONE.address)
    friends.expire(100.0 + FORMER_FOR)
    assert not friends.worked_at("204", PHONE.address)


def test_each_change_is_counted() -> None:
    """The beginning and the end of each reason is a change, and so is each switch of outage mode."""
    friends, counts = Friends(), []
    for reason in (PHONE, evolve(PHONE, until=200.0), evolve(PHONE, account="205")):
        friends.add(reason)
        counts.append(friends.changes)
    friends.remove(identity_of(reason), 50.0)
    counts.append(friends.changes)
    friends.set_outage_mode(on=True)
    counts.append(friends.changes)
    friends.forget(PHONE.address)
    assert [*counts, friends.changes] == [1, 1, 2, 3, 4, 6]


def test_a_reason_that_ended_before_the_start_is_remembered() -> None:
    """A reason that was over at the start counts as one that has ended since."""
    friends = Friends()
    friends.remember(PHONE)
    assert friends.worked_at("204", PHONE.address)
    assert not friends.has(PHONE.address)


def success(**other: Any) -> SecurityEvent:  # noqa: ANN401 - fields of an event
    """Return a right password at PJSIP over UDP, with the fields of ``other`` changed."""
    remote = Endpoint(PHONE.address, 5060, Transport.UDP)
    source = SourceId("pbx", "ami")
    made = SecurityEvent(
        source, EventKind.SUCCESSFUL_AUTH, Service.PJSIP, remote, 10.0, "204", b"x", password=True
    )
    return evolve(made, **other)


def test_a_right_password_makes_a_friend_where_it_proves_the_address() -> None:
    """Only a success of PJSIP with a password, neither tampered nor forgeable, makes a friend."""
    assert friend_from(success()) == evolve(PHONE, until=10.0 + AUTHENTICATED_FOR)
    others: tuple[dict[str, Any], ...] = (
        {"service": Service.SIP},
        {"service": Service.AMI},
        {"password": False},
        {"tampered": True},
        {"forgeable": True},
        {"kind": EventKind.INVALID_PASSWORD},
    )
    for other in others:
        assert friend_from(success(**other)) is None


def test_which_accounts_work_where_is_known_while_they_do() -> None:
    """An account works at an address while a reason names both; ``remove`` ends that."""
    friends = Friends()
    friends.add(PHONE)
    assert friends.worked_at("204", PHONE.address)
    assert not friends.worked_at("205", PHONE.address)
    assert friends.remove(identity_of(PHONE), 20.0) == PHONE
    assert friends.remove(identity_of(PHONE), 20.0) is None
    assert friends.knows_account("204")
    assert not friends.knows_account("205")


def test_a_revoked_reason_is_not_remembered() -> None:
    """The account never worked there, because Asterisk refused its login."""
    friends = Friends()
    friends.add(PHONE)
    friends.revoke(identity_of(PHONE))
    friends.revoke(identity_of(PHONE))
    assert not friends.has(PHONE.address)
    assert not friends.worked_at("204", PHONE.address)


def test_an_account_that_moved_is_one_account() -> None:
    """An account that works at one address, and worked at another, is counted once."""
    friends = Friends()
    friends.add(PHONE)
    friends.expire(100.0)
    friends.add(evolve(PHONE, address=ip_address("192.0.2.8"), until=300.0))
    assert friends.knows(1)
    assert not friends.knows(2)
    friends.add(evolve(PHONE, account="205", until=200.0))
    friends.expire(200.0)
    assert friends.knows(2)


def test_a_network_is_asked_whether_friends_live_there() -> None:
    """``any_in`` finds friends in a network of their own IP version."""
    friends = Friends()
    friends.add(PHONE)
    friends.add(evolve(PHONE, address=ip_address("2001:db8::7")))
    assert friends.any_in(ip_network("192.0.2.0/24"))
    assert friends.any_in(ip_network("192.0.2.7"))
    assert friends.any_in(ip_network("2001:db8::/64"))
    assert friends.any_in(ip_network("2001:db8::/48"))
    assert not friends.any_in(ip_network("198.51.100.0/24"))
    assert not friends.any_in(ip_network("2001:db8:1::/64"))
    assert friends.any_in(ip_network("192.0.0.0/20"))
    assert not friends.any_in(ip_network("192.0.16.0/20"))


def test_a_former_friend_is_found_in_a_network_too() -> None:
    """``any_known_in`` finds friends, and those that were friends within a month."""
    friends = Friends()
    friends.add(PHONE)
    assert friends.any_known_in(ip_network("192.0.2.0/24"))
    friends.expire(100.0)
    assert friends.any_known_in(ip_network("192.0.2.7"))
    assert not friends.any_in(ip_network("192.0.2.7"))
    assert not friends.any_known_in(ip_network("192.0.2.8"))


def test_no_more_reasons_are_kept_than_there_is_room_for() -> None:
    """When there is no room, the oldest reason is discarded first."""
    friends = Friends(most=2)
    for last in (1, 2, 3):
        friends.add(evolve(PHONE, address=ip_address(f"192.0.2.{last}")))
    assert list(map(str, friends.addresses())) == ["192.0.2.2", "192.0.2.3"]
    assert [str(friend.address) for friend in friends.all()] == ["192.0.2.2", "192.0.2.3"]
    for last in (1, 2, 3):
        friends.remember(evolve(PHONE, address=ip_address(f"192.0.2.{last}"), account=str(last)))
    assert [str(friend.address) for friend in friends.former()] == ["192.0.2.2", "192.0.2.3"]


def test_one_account_displaces_no_other_account() -> None:
    """An account that logs in from a whole network pushes no other account out of memory."""
    friends = Friends()
    friends.remember(PHONE)
    for number in range(MOST_FORMER + 50):
        friends.remember(evolve(PHONE, address=ip_address(number), account="busy"))
    assert len(friends.former()) == MOST_FORMER + 1
    assert friends.worked_at("204", PHONE.address)


def test_the_addresses_of_an_account() -> None:
    """The reasons of an account are found at all its addresses, the former ones apart."""
    friends = Friends()
    elsewhere = evolve(PHONE, address=ip_address("192.0.2.8"), until=300.0)
    friends.add(PHONE)
    friends.add(elsewhere)
    friends.add(evolve(PHONE, account="205"))
    friends.expire(200.0)

    assert friends.of_account("204") == ((elsewhere,), (PHONE,))
    assert friends.of_account("206") == ((), ())


def test_a_forgotten_address_is_no_former_friend() -> None:
    """All its reasons end, present and former ones, and none is remembered; other addresses stay."""
    friends, far = Friends(), evolve(PHONE, address=ip_address("198.51.100.1"))
    for one in (PHONE, evolve(PHONE, account="205", until=20.0), far):
        friends.add(one)
    friends.expire(50.0)
    changes = friends.changes

    forgotten = friends.forget(PHONE.address)

    assert {one.account for one in forgotten} == {"204", "205"}
    assert friends.changes > changes
    assert ([*friends.all()], friends.former()) == ([far], ())
    assert not friends.worked_at("205", PHONE.address)
    assert friends.forget(PHONE.address) == []


def test_an_address_with_more_accounts_than_a_thief_has_is_an_offices() -> None:
    """A trunk is no account, and a name at two Asterisks is one."""
    friends = Friends()
    for number in range(MOST_STOLEN):
        friends.add(evolve(PHONE, account=str(number)))
    friends.add(evolve(PHONE, account="carrier", reason=FriendReason.TRUNK))
    friends.add(evolve(PHONE, account="0", asterisk="other"))
    assert not friends.is_office(PHONE.address)
    friends.add(evolve(PHONE, account=str(MOST_STOLEN)))
    assert friends.is_office(PHONE.address)


def test_accounts_have_settled_after_their_first_day() -> None:
    """Those of an office have settled at once, and a former account of the address has not."""
    friends, old = Friends(), evolve(PHONE, until=1e9)
    friends.remember(evolve(PHONE, account="former"))
    friends.add(old)
    young = [evolve(old, account=str(number)) for number in range(MOST_STOLEN)]
    settled = []
    for one in young:
        assert friends.admit(one)
        friends.add(one)
        settled.append(friends.settled_at(PHONE.address))
    assert settled == [{"204"}, {"204"}, {"204", "0", "1", "2"}]
    friends.remove(identity_of(young[0]), 20.0)
    assert friends.settled_at(PHONE.address) == {"204"}
    friends.expire(PHONE.seen + NEW_FOR)
    assert friends.settled_at(PHONE.address) == {"204", "1", "2"}


def test_barred_accounts_are_bounded() -> None:
    """A stolen password that is used everywhere fills no memory; the places of long ago are forgotten."""
    friends = Friends(most=2)
    for number in range(4):
        friends.bar(("pbx", "204"), ip_network(f"192.0.{number}.0/24"))
    assert [*friends.barred] == [(("pbx", "204"), ip_network(f"192.0.{number}.0/24")) for number in (2, 3)]


def test_a_barred_account_makes_no_friends_in_a_prefix() -> None:
    """It makes none there, and its present ones there end and are forgotten; others stay, and trunks too."""
    friends, near = Friends(), ip_address("192.0.2.200")
    far = evolve(PHONE, address=ip_address("198.51.100.1"))
    others = [
        far,
        evolve(PHONE, account="205"),
        evolve(PHONE, asterisk="other"),
        evolve(PHONE, reason=FriendReason.TRUNK),
    ]
    made = [PHONE, evolve(PHONE, address=near, reason=FriendReason.REACHABLE)]
    for one in (*made, *others):
        friends.add(one)
    ended = friends.bar((PHONE.asterisk, "204"), ip_network("192.0.2.0/24"))
    assert ended == made
    assert {*friends.all()} == {*others}
    assert friends.former() == ()
    assert [friends.admit(one) for one in made] == [False, False]
    assert all(map(friends.admit, others))
    friends.barred.clear()
    assert all(map(friends.admit, made))


def test_a_barred_account_is_no_former_friend_in_a_prefix() -> None:
    """It was one there, and is forgotten; a former friend elsewhere stays."""
    friends = Friends()
    far = evolve(PHONE, address=ip_address("198.51.100.1"))
    for one in (PHONE, far):
        friends.add(one)
        friends.remove(identity_of(one), one.since)
    [ended] = friends.bar((PHONE.asterisk, "204"), ip_network("192.0.2.0/24"))
    assert ended.address == PHONE.address
    assert [one.address for one in friends.former()] == [far.address]
