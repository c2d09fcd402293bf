"""Places: what is counted for an address, and who lives there."""

from ipaddress import ip_address, ip_network

from attrs import evolve

from ringfence.detect.friends import Friends, key_of
from ringfence.detect.networks import NetworkSet
from ringfence.detect.places import Places, prefix_of
from ringfence.model import Friend, Tie

PHONE = Friend("pbx", ip_address("2001:db8::7"), "204", Tie.REGISTERED, 0.0, 0.0, 100.0)


def test_the_subject_of_ipv6_is_narrow_where_a_friend_lives() -> None:
    """His neighbours are judged each for himself as long as he is there."""
    friends = Friends()
    places = Places(friends, NetworkSet())
    stranger = ip_address("2001:db8::8")
    assert str(places.of(stranger).subject) == "2001:db8::/64"
    friends.meet(PHONE)
    assert str(places.of(stranger).subject) == "2001:db8::8/128"
    assert (places.of(PHONE.address).friend, places.of(PHONE.address).proven) == (True, False)
    friends.part(key_of(PHONE), 1.0)
    assert str(places.of(stranger).subject) == "2001:db8::/64"


def test_a_friend_that_only_claims_its_address_from_now_on_is_told() -> None:
    """One reason may end while another stays."""
    friends = Friends()
    places = Places(friends, NetworkSet())
    friends.meet(PHONE)
    proven = evolve(PHONE, tie=Tie.AUTHENTICATED, until=50.0)
    friends.meet(proven)
    assert places.of(PHONE.address).proven
    friends.expire(60.0)
    assert (places.of(PHONE.address).friend, places.of(PHONE.address).proven) == (True, False)


def test_a_change_of_those_never_banned_is_seen_at_once() -> None:
    """What was remembered of a place is asked anew."""
    places = Places(Friends(), NetworkSet())
    address = ip_address("192.0.2.7")
    assert not places.of(address).never
    places.never = NetworkSet([ip_network("192.0.2.0/24")])
    assert places.of(address).never


def test_prefixes_are_24_and_48() -> None:
    """What one party may have all addresses of."""
    assert str(prefix_of(ip_address("192.0.2.7"))) == "192.0.2.0/24"
    assert str(prefix_of(ip_address("2001:db8:1:2::7"))) == "2001:db8:1::/48"


def test_a_prefix_is_not_banned_where_somebody_is_spared() -> None:
    """A friend, or whom nothing bans."""
    friends = Friends()
    places = Places(friends, NetworkSet([ip_network("192.0.2.128/25")]))
    assert not places.may_be_banned(ip_network("192.0.2.0/24"))
    assert places.may_be_banned(ip_network("2001:db8::/48"))
    friends.meet(PHONE)
    assert not places.may_be_banned(ip_network("2001:db8::/48"))


def test_places_are_remembered_within_bounds() -> None:
    """As many senders as somebody makes up take no more room."""
    places = Places(Friends(), NetworkSet())
    for number in range(10_000):
        places.of(ip_address(number))
    assert len(places._known) <= 4_096
