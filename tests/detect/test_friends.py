"""Friends: addresses where phones are, for as long as there is a reason."""

from ipaddress import ip_address, ip_network

from attrs import evolve

from ringfence.detect.friends import FORMER_FOR, Friends, key_of
from ringfence.model import Friend, Tie

PHONE = Friend("pbx", ip_address("192.0.2.7"), "204", Tie.AUTHENTICATED, since=10.0, seen=10.0, until=100.0)


def test_a_friend_is_one_until_its_last_reason_is_over() -> None:
    """An address with two reasons stays a friend when one of them ends."""
    friends = Friends()
    assert friends.meet(PHONE)
    friends.meet(evolve(PHONE, account="205", until=200.0))
    assert friends.expire(150.0) == [PHONE]
    assert friends.has(PHONE.address)
    friends.expire(200.0)
    assert not friends.has(PHONE.address)


def test_to_meet_again_renews_and_keeps_the_first_meeting() -> None:
    """A reason that is told again lasts longer, never shorter, and remembers when it was new."""
    friends = Friends()
    friends.meet(PHONE)
    assert not friends.meet(evolve(PHONE, since=50.0, seen=50.0, until=90.0))
    assert friends.reasons(PHONE.address) == (evolve(PHONE, seen=50.0),)


def test_a_former_friend_counts_while_braked() -> None:
    """Who was a friend is spared while no phone can log in, and forgotten after a month."""
    friends = Friends()
    friends.meet(PHONE)
    friends.expire(100.0)
    friends.braked = True
    assert friends.has(PHONE.address)
    assert friends.is_proven(PHONE.address)
    friends.expire(100.0 + FORMER_FOR)
    assert not friends.has(PHONE.address)


def test_a_contact_alone_proves_nothing() -> None:
    """What only a phone says of its address makes it a friend, and no proven one."""
    friends = Friends()
    friends.meet(evolve(PHONE, tie=Tie.REGISTERED))
    assert friends.has(PHONE.address)
    assert not friends.is_proven(PHONE.address)
    friends.meet(PHONE)
    assert friends.is_proven(PHONE.address)


def test_which_accounts_work_where_is_known_while_they_do() -> None:
    """An account works where a reason names it, and nowhere once that is taken back."""
    friends = Friends()
    friends.meet(PHONE)
    assert friends.works_at("204", PHONE.address)
    assert not friends.works_at("205", PHONE.address)
    assert friends.part(key_of(PHONE), 20.0) == PHONE
    assert friends.part(key_of(PHONE), 20.0) is None
    assert not friends.knows("204")


def test_a_network_is_asked_whether_friends_live_there() -> None:
    """A ban of a network would hit the friends in it, of its own IP version."""
    friends = Friends()
    friends.meet(PHONE)
    friends.meet(evolve(PHONE, address=ip_address("2001:db8::7")))
    assert friends.live_in(ip_network("192.0.2.0/24"))
    assert friends.live_in(ip_network("192.0.2.7"))
    assert friends.live_in(ip_network("2001:db8::/64"))
    assert friends.live_in(ip_network("2001:db8::/48"))
    assert not friends.live_in(ip_network("198.51.100.0/24"))
    assert not friends.live_in(ip_network("2001:db8:1::/64"))


def test_no_more_reasons_are_kept_than_there_is_room_for() -> None:
    """The reason that was met longest ago goes first."""
    friends = Friends(most=2)
    for last in (1, 2, 3):
        friends.meet(evolve(PHONE, address=ip_address(f"192.0.2.{last}")))
    assert list(map(str, friends.addresses())) == ["192.0.2.2", "192.0.2.3"]
