"""The friends that the kernel passes without a limit."""

from ipaddress import ip_address, ip_network

from ringfence.detect.friends import Friends
from ringfence.friends.registry import Passing
from ringfence.values.friend import Friend, FriendReason

ONE, OTHER = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def friends() -> Friends:
    """Return two friends."""
    made = Friends()
    for address in (ONE, OTHER):
        made.add(Friend("pbx", address, "204", FriendReason.REACHABLE, 0.0, 0.0, 1e9))
    return made


def test_every_friend_passes_except_unshielded_ones() -> None:
    """A friend whose nonces also go to other addresses is limited like a stranger for a while."""
    passing = Passing(friends())
    assert passing.refresh(10, frozenset())
    assert set(passing.networks) == {ip_network(ONE), ip_network(OTHER)}
    assert not passing.refresh(10, frozenset())
    assert passing.is_stale({ONE})
    assert passing.refresh(10, {ONE})
    assert (list(passing.addresses), passing.is_stale({ONE})) == ([OTHER], False)


def test_no_more_pass_than_a_set_holds() -> None:
    """Friends beyond the size of the set are limited."""
    passing = Passing(friends())
    passing.refresh(1, frozenset())
    assert len(passing.addresses) == 1
