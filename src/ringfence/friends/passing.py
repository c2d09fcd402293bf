"""The friends whose packets the kernel does not drop by its limiter or by a ban of the friend's /64.

The *limiter* is a rule that drops the packets of a source that sends too many.
"""

from collections.abc import Collection, Iterable
from ipaddress import ip_network
from itertools import islice

from ringfence.detect.friends import Friends
from ringfence.model import Address, Network


class Passing:
    """The contents of the kernel's list of friends.

    *Unshielded* friends are left out: guesses come from the address of such a friend, and nothing can prove
    whether the friend itself sends them. Creating a network object takes longer than the rest of the update,
    so the objects of unchanged addresses are reused.
    """

    def __init__(self, friends: Friends) -> None:
        self._friends = friends
        self._networks: dict[Address, Network] = {}
        self._unshielded: Collection[Address] = frozenset()

    @property
    def networks(self) -> Iterable[Network]:
        """The selected friends as networks, one for each address."""
        return self._networks.values()

    @property
    def addresses(self) -> Collection[Address]:
        """The addresses of the friends that the latest :meth:`look` selected."""
        return self._networks.keys()

    @property
    def left_out(self) -> Iterable[Network]:
        """The friends that the latest :meth:`look` left out because they are unshielded."""
        return (ip_network(one) for one in self._unshielded if self._friends.has(one))

    def is_stale(self, unshielded: Collection[Address]) -> bool:
        """Whether ``unshielded`` has changed since the latest :meth:`look`."""
        return unshielded != self._unshielded

    def look(self, most: int, unshielded: Collection[Address]) -> bool:
        """Select at most ``most`` friends, without ``unshielded``; return whether the selection changed."""
        before, self._unshielded = self._networks, unshielded
        friends = (one for one in self._friends.addresses() if one not in unshielded)
        self._networks = {one: before.get(one) or ip_network(one) for one in islice(friends, most)}
        return self._networks.keys() != before.keys()
