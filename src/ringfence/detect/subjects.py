"""Subjects: the network that is counted and banned for an address, and its exemption and friend status.

The subject is the address for IPv4 and the /64 for IPv6, because a host owns its /64 (``networks.py`` has the
exception of NAT64). A friend in a /64 is a subject of its own. The rest of that /64 is one subject. A ban of
it names the whole /64, and the kernel exempts the friend. If an exempt network (such as the PBX's own) lies
in a /64, each address of this /64 is a subject of its own. The prefix is the /24 or /48 around the address.

An attacker sends many attempts, and this lookup takes a fifth of the time of each. So the results are cached
until the friends or the exempt networks change.
"""

from collections import OrderedDict
from ipaddress import IPv6Network
from typing import TypeVar

from attrs import frozen

from ringfence.detect.events import AddressKey, address_key
from ringfence.detect.friends import Friends
from ringfence.detect.history import Key, pack_network
from ringfence.ledger import key_of
from ringfence.model import Address, Network
from ringfence.networks import NetworkSet, sender_of

# -- bounded tables of the most recently used entries


_K = TypeVar("_K")
_V = TypeVar("_V")


def remember(table: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    """Store ``value`` as the latest entry. Discard the oldest if ``table`` then has more than ``most``."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)


_MOST = 4_096


@frozen
class Subject:
    """The subject of ``address``, whether it is exempt, and its status as a friend.

    ``network`` is the subject, ``key`` its key in the history, and ``ban_key`` its key in the ledger of bans.
    ``proven``: the address is a friend for a reason that proves it. A registration does not, because the
    phone can name any address in it.
    """

    address: Address
    network: Network
    key: Key
    ban_key: int
    exempt: bool
    friend: bool
    proven: bool


class Subjects:
    """Looks up the subject of each address. ``exempt`` are the exempt networks."""

    def __init__(self, friends: Friends, exempt: NetworkSet) -> None:
        self.friends = friends
        self._exempt = exempt
        self._known: dict[AddressKey, Subject] = {}
        self._changes = -1

    @property
    def exempt(self) -> NetworkSet:
        """The exempt networks."""
        return self._exempt

    @exempt.setter
    def exempt(self, exempt: NetworkSet) -> None:
        self._exempt = exempt
        self._known.clear()

    def of(self, address: Address) -> Subject:
        """Return the subject of ``address``."""
        if self._changes != self.friends.changes:
            self._forget()
        key = address_key(address)
        subject = self._known.get(key)
        if subject is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            subject = self._known[key] = self._find(address)
        return subject

    def _forget(self) -> None:
        """Discard the cached results that a change of the friends affects: one address, or all."""
        changed = self.friends.changed
        if self._changes + 1 == self.friends.changes and changed is not None:
            self._known.pop(address_key(changed), None)
        else:
            self._known.clear()
        self._changes = self.friends.changes

    def may_be_banned(self, prefix: Network) -> bool:
        """Whether a prefix contains neither a friend nor an exempt network."""
        return not self._exempt.overlaps(prefix) and not self.friends.any_in(prefix)

    def _find(self, address: Address) -> Subject:
        subject = self._subject(address)
        friends = self.friends
        return Subject(
            address,
            subject,
            pack_network(subject),
            key_of(subject),
            self._exempt.covers(address),
            friends.has(address),
            friends.is_proven(address),
        )

    def _subject(self, address: Address) -> Network:
        wide = sender_of(address)
        if wide.prefixlen == wide.max_prefixlen:
            return wide
        if not self._exempt.contains_part_of(wide) and not self.friends.has(address):
            return wide
        return IPv6Network(int(address))
