"""Subjects: the network that is counted and banned for an address, and its exemption and friend status.

The subject is the address for IPv4 and the /64 for IPv6, because a host owns its /64 (``networks.py`` has the
exception of NAT64). A friend in a /64 is a subject of its own. The rest of that /64 is one subject. A ban of
it names the whole /64, and the kernel exempts the friend. If an exempt network (such as the PBX's own) lies
in a /64, each address of this /64 is a subject of its own. The prefix is the /24 or /48 around the address.

An attacker sends many attempts, and this lookup takes a fifth of the time of each. So the results are cached
until the friends or the exempt networks change.
"""

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from ipaddress import IPv6Network
from math import inf
from typing import TypeVar

from attrs import frozen

from ringfence.detect.events import AddressKey, address_key
from ringfence.detect.friends import Friends
from ringfence.detect.history import Key, key_of, network_of
from ringfence.model import Address, Network, Scope
from ringfence.networks import PREFIX_LENGTHS, NetworkSet, prefix_of, sender_of

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

    ``network`` is the subject, and ``key`` its key in the history. ``proven``: the address is a friend for a
    reason that proves it. A registration does not, because the phone can name any address in it.
    """

    address: Address
    network: Network
    key: Key
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


# -- active bans of a detector that has no firewall, such as in a replay
#
# A subject (an IPv4 address, or the /64 of an IPv6 address) or a prefix (the /24 or /48 around it) is
# banned with a scope (the traffic that the ban drops). A banned prefix includes all subjects in it. Times
# are monotonic seconds. At most ``MOST`` bans are active: as many as the kernel's set of bans holds by
# default. Beyond that, the bans that end first are removed, and attempts of their subjects count again.


MOST = 262_144
_MOST_OUTDATED = 1_000

_BanKey = tuple[Key, Scope]


class ActiveBans:
    """Subjects and prefixes that are banned, each with a scope and an end."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._until: dict[_BanKey, float] = {}
        # A heap of the ends of bans. A ban that was renewed or removed leaves its old end in it.
        self._ends: list[tuple[float, int, _BanKey]] = []
        self._wide = 0  # the number of banned prefixes

    def __len__(self) -> int:
        """Return the number of active bans."""
        return len(self._until)

    def has(self, subject: Subject, scope: Scope, now: float) -> bool:
        """Whether a subject, or the prefix around it, is banned with ``scope`` at ``now``."""
        if not self._until:
            return False
        if self._until.get((subject.key, scope), now) > now:
            return True
        return bool(self._wide) and self._until.get((key_of(prefix_of(subject.address)), scope), now) > now

    def add(self, subject: Network, until: float, scope: Scope) -> None:
        """Ban a subject or prefix until ``until``. Replace the end of a ban with the same scope."""
        key = key_of(subject), scope
        self._wide += key not in self._until and _is_wide(key)
        self._until[key] = until
        heappush(self._ends, (until, id(key), key))
        while len(self._until) > self._most:
            end, _, first = heappop(self._ends)
            if self._until.get(first) == end:  # otherwise the ban was renewed or removed
                self._discard(first)
        if len(self._ends) > 2 * len(self._until) + _MOST_OUTDATED:  # most entries are outdated
            self._ends = [(end, id(key), key) for key, end in self._until.items()]
            heapify(self._ends)

    @property
    def subjects(self) -> set[Network]:
        """The banned subjects and prefixes."""
        return {network_of(key) for key, _ in self._until}

    def remove(self, subject: Network) -> None:
        """Remove the bans of a subject or prefix, whatever their scope."""
        for scope in Scope:
            self._discard((key_of(subject), scope))

    def expire(self, now: float) -> None:
        """Remove expired bans."""
        while self._ends and self._ends[0][0] <= now:
            _, _, key = heappop(self._ends)
            if self._until.get(key, inf) <= now:  # otherwise it was renewed or removed
                self._discard(key)

    def _discard(self, key: _BanKey) -> None:
        if self._until.pop(key, None) is not None:
            self._wide -= _is_wide(key)


def _is_wide(key: _BanKey) -> bool:
    return network_of(key[0]).prefixlen in PREFIX_LENGTHS
