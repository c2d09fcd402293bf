"""What is banned, as far as the kernel has confirmed it: the account that listings and comparisons look at.

Made for 100 000 bans in some 25 MB: a ban is a record of a few references under a number, and neither its
network nor the attempts that led to it are kept as objects; attempts stay in the database. Whether an address
is banned, also by a prefix around it, costs one look for each length of prefix in use.

How many bans have time left is known without counting them: their ends are counted in slots of ``SLOT``
seconds, so the number may be off by what ends in the present slot (:attr:`Ledger.unsure`).
"""

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from math import inf, isfinite

from attrs import define

from ringfence.model import Ban, Made, Network, Origin, Scope

SLOT = 16.0
RENEW_BELOW = 0.5
"""A ban that outlasts its kernel timeout is renewed when less than this part of the timeout is left."""
_SLICE = 5_000
_SCOPES = (Scope.FULL, Scope.SIP_UDP)
_IPV4 = 4
_LENGTH_BITS, _SCOPE_BITS = 8, 2  # a key is: address, length, scope, and at the end whether it is IPv6
_KIND = (1 << _SCOPE_BITS) - 1
_SHAPE = (1 << _SCOPE_BITS + _LENGTH_BITS) - 1


@define
class Counts:
    """What came of the decisions since the start. ``gave_way``: bans that ended early for want of room."""

    placed: int = 0
    failed: int = 0
    lifted: int = 0
    gave_way: int = 0


@define(eq=False)
class Record:
    """One ban: times on the wall clock; ``attempts`` led to it, ``proven`` of them so.

    ``offence`` is 2 where it is the second within the time that rules remember, and so on.
    ``renew_at`` is when the kernel is to be asked again, since its own end comes before the ban's. ``seen``
    is the last comparison with the kernel that found it. ``forced``: an administrator insisted.
    """

    since: float
    expires: float
    rule: str
    reason: str
    origin: Origin
    attempts: int
    offence: int = 1
    renew_at: float = inf
    seen: int = 0
    forced: bool = False
    proven: int = 0

    @classmethod
    def of(cls, ban: Ban, made: Made, renew_at: float = inf, seen: int = 0) -> "Record":
        """Make a record of a ban that so many attempts led to."""
        return cls(
            ban.since,
            ban.expires,
            ban.rule,
            ban.reason,
            ban.origin,
            made.attempts,
            ban.offence,
            renew_at,
            seen,
            ban.forced,
            made.proven,
        )


def renew_at(expires: float, now: float, granted: float) -> float:
    """Give when the kernel is to be asked again, if it would let go before the ban is over; else never."""
    return now + granted * (1 - RENEW_BELOW) if expires > now + granted + 1.0 else inf


def key_of(network: Network, scope: Scope = Scope.FULL) -> int:
    """Give the number that stands for a ban of ``network``."""
    return _key(int(network.network_address), network.prefixlen, scope, network.version)


def _key(address: int, length: int, scope: Scope, version: int) -> int:
    return (((address << _LENGTH_BITS | length) << 1) | (scope is not Scope.FULL)) << 1 | (version != _IPV4)


def network_of(key: int) -> tuple[Network, Scope]:
    """Give back what :func:`key_of` was given."""
    scope = _SCOPES[key >> 1 & 1]
    address, length = key >> 2 + _LENGTH_BITS, key >> 2 & 0xFF
    return (IPv6Network if key & 1 else IPv4Network)((address, length)), scope


def ban_of(key: int, record: Record) -> Ban:
    """Give the ban of a record, without its attempts."""
    network, scope = network_of(key)
    return Ban(
        network,
        record.since,
        record.expires,
        record.rule,
        record.reason,
        record.origin,
        scope=scope,
        offence=record.offence,
        forced=record.forced,
    )


def parts_of(key: int) -> tuple[int, int, int]:
    """Give the IP version, the address and the length of prefix, as numbers."""
    return 6 if key & 1 else 4, key >> 2 + _LENGTH_BITS, key >> 2 & 0xFF


class Ledger:
    """The bans that the kernel has. ``now`` is always wall-clock seconds."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._shapes: Counter[int] = Counter()
        self._lengths: dict[int, list[int]] = {}  # for each scope and IP version, made when it is asked for
        self._ends: Counter[int] = Counter()
        self._over = 0  # records whose slot has passed and that are still here
        self._slot = 0
        self._unlooked: list[int] = []

    def __len__(self) -> int:
        """How many are kept, with those whose time is over and that nobody has looked at since."""
        return len(self._records)

    def __contains__(self, key: int) -> bool:
        return key in self._records

    def get(self, key: int) -> Record | None:
        """Give the record of that key."""
        return self._records.get(key)

    def put(self, key: int, record: Record) -> None:
        """Keep a record, in place of one that there may be."""
        self.pop(key)
        self._records[key] = record
        shape = key & _SHAPE
        if not self._shapes[shape]:
            self._lengths.clear()
        self._shapes[shape] += 1
        slot = _slot(record.expires)
        if slot < self._slot:
            self._over += 1
        else:
            self._ends[slot] += 1

    def pop(self, key: int) -> Record | None:
        """Forget a record and give it."""
        record = self._records.pop(key, None)
        if record is None:
            return None
        shape = key & _SHAPE
        self._shapes[shape] -= 1
        if not self._shapes[shape]:
            del self._shapes[shape]
            self._lengths.clear()
        slot = _slot(record.expires)
        if slot < self._slot:
            self._over -= 1
        else:
            self._ends[slot] -= 1
        return record

    def clear(self) -> None:
        """Forget everything."""
        for kept in (self._records, self._shapes, self._lengths, self._ends, self._unlooked):
            kept.clear()
        self._over = 0

    def shift(self, seconds: float) -> None:
        """Have everything happen so many seconds later by the clock, which was set."""
        for record in self._records.values():
            record.since += seconds
            record.expires += seconds
            record.renew_at += seconds
        self._over = 0
        self._ends.clear()
        self._slot = 0
        for record in self._records.values():
            self._ends[_slot(record.expires)] += 1

    def alive(self, now: float) -> int:
        """How many have time left, give or take :attr:`unsure`."""
        slot = _slot(now)
        if slot < self._slot:  # somebody has set the clock back
            ends = Counter(_slot(record.expires) for record in self._records.values())
            self._ends = Counter({end: number for end, number in ends.items() if end >= slot})
            self._over = len(self._records) - self._ends.total()
            self._slot = slot
        if slot > self._slot:
            for past in [end for end in self._ends if end < slot]:
                self._over += self._ends.pop(past)
            self._slot = slot
        return len(self._records) - self._over

    @property
    def unsure(self) -> int:
        """How many end in the slot that :meth:`alive` was last asked in, or in its neighbour."""
        return self._ends[self._slot] + self._ends[self._slot + 1]

    def covering(self, network: Network, scope: Scope, now: float) -> list[int]:
        """Give the keys of the bans that ``network`` lies in and that have time left, the widest first."""
        found = []
        own, bits = network.prefixlen, network.max_prefixlen
        address = int(network.network_address)
        low = key_of(network, scope) & _KIND
        lengths = self._lengths.get(low)
        if lengths is None:
            shapes = [shape for shape in self._shapes if shape & _KIND == low]
            lengths = self._lengths[low] = sorted(shape >> _SCOPE_BITS for shape in shapes)
        for length in lengths:
            if length > own:
                break
            prefix = address >> (bits - length) << (bits - length)
            key = (prefix << _LENGTH_BITS | length) << _SCOPE_BITS | low
            record = self._records.get(key)
            if record is not None and record.expires > now:
                found.append(key)
        return found

    def within(self, network: Network, scope: Scope) -> list[int]:
        """Give the keys of the bans that lie in ``network``, it included.

        Looks at every record, except for a single address.
        """
        version, own, bits = network.version, network.prefixlen, network.max_prefixlen
        if own == bits:
            return [key for key in (key_of(network, scope),) if key in self._records]
        prefix = int(network.network_address) >> (bits - own)
        return [
            key
            for key in self._records
            if (key & 1) == (version != _IPV4)
            and (key >> 1 & 1) == (scope is not Scope.FULL)
            and (key >> 2 & 0xFF) >= own
            and key >> 2 + _LENGTH_BITS >> (bits - own) == prefix
        ]

    def keys(self) -> Iterable[int]:
        """Give every key."""
        return self._records.keys()

    def items(self) -> Iterable[tuple[int, Record]]:
        """Give every key with its record."""
        return self._records.items()

    def due(self, now: float) -> tuple[list[int], list[int]]:
        """Look at some records, others each time: give those whose time is over, and those to be renewed."""
        over, renew = [], []
        if not self._unlooked:
            self._unlooked = list(self._records)
        for key in self._unlooked[-_SLICE:]:
            record = self._records.get(key)
            if record is not None and record.expires <= now:
                over.append(key)
            elif record is not None and record.renew_at <= now:
                renew.append(key)
        del self._unlooked[-_SLICE:]
        return over, renew

    def soonest(self, network: Network, scope: Scope, most: int) -> list[int]:
        """Give the ``most`` bans that end first of those as wide as ``network``; of any width, where none is.

        Of its IP version and ``scope``, always: a backend may have a set for each, and for each width.
        """
        from heapq import nsmallest  # noqa: PLC0415 - for a set that is full, once in a life

        shape = key_of(network, scope) & _SHAPE
        mask = _SHAPE if self._shapes[shape] else _KIND
        like = ((record.expires, key) for key, record in self._records.items() if (key ^ shape) & mask == 0)
        return [key for _, key in nsmallest(most, like)]


def _slot(expires: float) -> int:
    return int(expires / SLOT) if isfinite(expires) else 1 << 62
