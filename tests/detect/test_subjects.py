"""Subjects: what is counted for an address, and which friends are in it."""

from ipaddress import ip_address, ip_network

from ringfence.detect.friends import Friends, identity_of
from ringfence.detect.history import Subjects
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import NetworkSet

PHONE = Friend("pbx", ip_address("2001:db8::7"), "204", FriendReason.REGISTERED, 0.0, 0.0, 100.0)


def test_the_subject_of_ipv6_is_narrow_where_a_friend_lives() -> None:
    """A friend is a subject of its own, and its neighbours in the /64 stay one subject."""
    friends = Friends()
    subjects = Subjects(friends, NetworkSet())
    stranger = ip_address("2001:db8::8")
    assert str(subjects.find(stranger).network) == "2001:db8::/64"
    friends.add(PHONE)
    assert str(subjects.find(stranger).network) == "2001:db8::/64"
    assert str(subjects.find(PHONE.address).network) == f"{PHONE.address}/128"
    assert subjects.find(PHONE.address).friend
    friends.remove(identity_of(PHONE), 1.0)
    assert str(subjects.find(stranger).network) == "2001:db8::/64"


def test_a_change_of_those_never_banned_is_seen_at_once() -> None:
    """A new exempt set takes effect at once for addresses that are already known."""
    subjects = Subjects(Friends(), NetworkSet())
    address = ip_address("192.0.2.7")
    assert not subjects.find(address).exempt
    subjects.exempt = NetworkSet([ip_network("192.0.2.0/24")])
    assert subjects.find(address).exempt
    assert subjects.exempt.covers(address)


def test_an_address_of_nat64_is_a_subject_of_its_own() -> None:
    """An address of NAT64 is a subject of its own, also if its /64 has no friend."""
    subjects = Subjects(Friends(), NetworkSet())
    assert str(subjects.find(ip_address("64:ff9b::c000:207")).network) == "64:ff9b::c000:207/128"
    assert str(subjects.find(ip_address("64:ff9c::c000:207")).network) == "64:ff9c::/64"


def test_a_prefix_with_an_exempt_address_is_not_banned() -> None:
    """A prefix must not be banned if a friend, a former friend or an exempt address is in it."""
    friends = Friends()
    subjects = Subjects(friends, NetworkSet([ip_network("192.0.2.128/25")]))
    assert not subjects.may_be_banned(ip_network("192.0.2.0/24"))
    assert subjects.may_be_banned(ip_network("2001:db8::/48"))
    friends.add(PHONE)
    assert not subjects.may_be_banned(ip_network("2001:db8::/48"))
    friends.expire(PHONE.until + 1.0)
    assert not subjects.may_be_banned(ip_network("2001:db8::/48"))


def test_places_are_remembered_within_bounds() -> None:
    """The memory for addresses is bounded, however many senders a forger invents."""
    subjects = Subjects(Friends(), NetworkSet())
    for number in range(10_000):
        subjects.find(ip_address(number))
    assert len(subjects._known) <= 4_096
