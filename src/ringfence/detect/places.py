"""Places: what is counted and banned for an address, and what is known of it beforehand.

The subject is the address for IPv4 and the /64 for IPv6, since a host owns its /64; only where somebody lives
in that /64 who is not to be banned with it (a friend, or a network that is never banned: the PBX's own, say)
is it the single address. The prefix is the /24 or /48 around it.

An attacker comes again and again, and to find all this out each time is a fifth of the whole path: places
are remembered until friends or the never-banned change.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from attrs import frozen

from ringfence.detect.fold import AddressKey, address_key
from ringfence.detect.friends import Friends
from ringfence.detect.history import Key, key_of
from ringfence.detect.networks import NetworkSet
from ringfence.model import Address, Network

_IPV4_BITS, _IPV6_BITS, _IPV6_SUBJECT = 32, 128, 64
_IPV6_SUBJECT_MASK = ~((1 << _IPV6_BITS - _IPV6_SUBJECT) - 1)
_PREFIX = {4: 24, 6: 48}
PREFIX_LENGTHS = frozenset(_PREFIX.values())
_MOST = 4_096


@frozen
class Place:
    """Where an address belongs. ``never``: nothing bans it. ``friend``, ``proven``: as friends know it."""

    address: Address
    subject: Network
    key: Key
    never: bool
    friend: bool
    proven: bool


def prefix_of(address: Address) -> Network:
    """Give the network whose addresses one party may have all of."""
    return ip_network((address, _PREFIX[address.version]), strict=False)


class Places:
    """Finds the place of each address. ``never`` are the networks that nothing bans."""

    def __init__(self, friends: Friends, never: NetworkSet) -> None:
        self.friends = friends
        self._never = never
        self._known: dict[AddressKey, Place] = {}
        self._changes = -1

    @property
    def never(self) -> NetworkSet:
        """The networks that are never banned."""
        return self._never

    @never.setter
    def never(self, never: NetworkSet) -> None:
        self._never = never
        self._known.clear()

    def of(self, address: Address) -> Place:
        """Give the place of ``address``."""
        if self._changes != self.friends.changes:
            self._forget()
        key = address_key(address)
        place = self._known.get(key)
        if place is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            place = self._known[key] = self._find(address)
        return place

    def _forget(self) -> None:
        """Forget what a change of the friends may have changed: of one IPv4 address that is its place."""
        changed = self.friends.changed
        if self._changes + 1 == self.friends.changes and isinstance(changed, IPv4Address):
            self._known.pop(address_key(changed), None)
        else:
            self._known.clear()
        self._changes = self.friends.changes

    def may_be_banned(self, prefix: Network) -> bool:
        """Say whether nobody lives in a prefix who is not to be banned with it."""
        return not self._never.touches(prefix) and not self.friends.live_in(prefix)

    def _find(self, address: Address) -> Place:
        subject = self._subject(address)
        friends = self.friends
        return Place(
            address,
            subject,
            key_of(subject),
            self._never.covers(address),
            friends.has(address),
            friends.is_proven(address),
        )

    def _subject(self, address: Address) -> Network:
        if isinstance(address, IPv6Address):
            wide = IPv6Network((int(address) & _IPV6_SUBJECT_MASK, _IPV6_SUBJECT))
            if not self._never.has_part_of(wide) and not self.friends.live_in(wide):
                return wide
            return IPv6Network((int(address), _IPV6_BITS))
        return IPv4Network((int(address), _IPV4_BITS))  # of the address itself takes thrice as long
