"""The ledger: all bans that the kernel has confirmed, for listings and comparisons.

It is designed for 100,000 bans in some 25 MB. Each ban is a small record with a number as its *key*, which
encodes its network and its scope. The attempts are only in the database. To check whether an address is
banned, one look-up for each prefix length in use is enough.

The ledger can return the number of bans with time left without a look at each ban: it counts how many bans
end in each *slot* of ``SLOT`` seconds. Bans that have ended in the present slot still count, so the number
may be too high (at most by :attr:`Ledger.uncertainty`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from heapq import nsmallest
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from math import inf, isfinite

from attrs import Factory, define

from ringfence.errors import FirewallIncompleteError
from ringfence.firewall.contract import Backend, Element
from ringfence.model import AttemptCounts, Ban, Network, Origin, Scope

SLOT = 16.0
RENEW_BELOW = 0.5
"""A timeout is renewed when only this fraction of it is left.

The kernel's timeout of a ban may be shorter than the ban.
"""
_SLICE = 5_000
_SCOPES = tuple(Scope)
_NUMBERS = {scope: number for number, scope in enumerate(_SCOPES)}
_IPV4 = 4
# A key consists of the address, the prefix length (8 bits), the scope (2 bits), and one bit for IPv6.
_LENGTH_BITS, _KIND_BITS = 8, 3
_LENGTH, _KIND = (1 << _LENGTH_BITS) - 1, (1 << _KIND_BITS) - 1
_SHAPE = (1 << _KIND_BITS + _LENGTH_BITS) - 1


@define
class BanCounts:
    """Numbers of bans since the start.

    ``placed_by`` counts the placed bans, by the name of their rule (or their origin) and their scope.
    ``failed`` counts the bans that the kernel refused, and ``unbanned`` the bans that were removed before
    their end. ``displaced`` is the part of ``unbanned`` that was removed because a set was full.
    """

    placed_by: Counter[tuple[str, Scope]] = Factory(Counter)
    failed: int = 0
    unbanned: int = 0
    displaced: int = 0

    @property
    def placed(self) -> int:
        """The number of placed bans."""
        return self.placed_by.total()


@define(eq=False)
class Record:
    """One ban. Its times are in seconds since the epoch.

    ``attempts`` is the number of attempts that led to it, and ``proven`` the number of those with a proven
    address. They tried ``accounts`` different accounts, ``account`` most often. ``offence`` is the ordinal of
    this ban among the bans of its network by rules within 30 days (2: the second one). ``renew_at`` is when
    the kernel's timeout must be renewed because it ends before the ban; infinity if it need not be. ``seen``
    is the number of the latest comparison that found the ban in the kernel. ``forced``: an administrator
    banned the network with ``--force``.
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
    accounts: int = 0
    account: str = ""

    @classmethod
    def of(cls, ban: Ban, made: AttemptCounts, renew_at: float = inf, seen: int = 0) -> "Record":
        """Return the record of a ban; ``made`` are the numbers of attempts that led to it."""
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
            made.accounts,
            made.account,
        )


def renew_at(expires: float, now: float, granted: float) -> float:
    """Return when the kernel's timeout of a ban must be renewed, in seconds since the epoch.

    The timeout lasts ``granted`` seconds from ``now`` on, and the ban until ``expires``. Return infinity if
    the timeout does not end before the ban.
    """
    return now + granted * (1 - RENEW_BELOW) if expires > now + granted + 1.0 else inf


def key_of(network: Network, scope: Scope = Scope.FULL) -> int:
    """Return the key of a ban: a number that encodes its network and its scope."""
    prefix = int(network.network_address) << _LENGTH_BITS | network.prefixlen
    return prefix << _KIND_BITS | _NUMBERS[scope] << 1 | (network.version != _IPV4)


def network_of(key: int) -> tuple[Network, Scope]:
    """Return the network and the scope of a key."""
    _, address, length = parts_of(key)
    return (IPv6Network if key & 1 else IPv4Network)((address, length)), _SCOPES[(key & _KIND) >> 1]


def ban_of(key: int, record: Record) -> Ban:
    """Return the ban of a record, without its attempts."""
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
    """Return the IP version, the address and the prefix length of a key, as numbers."""
    return 6 if key & 1 else 4, key >> _KIND_BITS + _LENGTH_BITS, key >> _KIND_BITS & _LENGTH


class Ledger:
    """The bans that the kernel has. ``now`` is always in seconds since the epoch."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._shapes: Counter[int] = Counter()
        # Prefix lengths in use, by scope and IP version. They are computed when they are needed.
        self._lengths: dict[int, list[int]] = {}
        self._ends: Counter[int] = Counter()
        self._expired = 0  # records that are expired and not yet removed
        self._slot = 0
        self._unchecked: list[int] = []

    def __len__(self) -> int:
        """The number of records, including expired ones that are not removed yet."""
        return len(self._records)

    def __contains__(self, key: int) -> bool:
        return key in self._records

    def get(self, key: int) -> Record | None:
        """Return the record of a key, or None."""
        return self._records.get(key)

    def put(self, key: int, record: Record) -> None:
        """Store a record, replacing an earlier one."""
        self.pop(key)
        self._records[key] = record
        shape = key & _SHAPE
        if not self._shapes[shape]:
            self._lengths.clear()
        self._shapes[shape] += 1
        slot = _slot(record.expires)
        if slot < self._slot:
            self._expired += 1
        else:
            self._ends[slot] += 1

    def pop(self, key: int) -> Record | None:
        """Remove and return the record of a key; None if it has no record."""
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
            self._expired -= 1
        else:
            self._ends[slot] -= 1
        return record

    def clear(self) -> None:
        """Remove all records."""
        for kept in (self._records, self._shapes, self._lengths, self._ends, self._unchecked):
            kept.clear()
        self._expired = 0

    def shift(self, seconds: float) -> None:
        """Move all times by ``seconds``, because the clock was set."""
        for record in self._records.values():
            record.since += seconds
            record.expires += seconds
            record.renew_at += seconds
        self._expired = 0
        self._ends.clear()
        self._slot = 0
        for record in self._records.values():
            self._ends[_slot(record.expires)] += 1

    def alive(self, now: float) -> int:
        """Return how many bans have time left. The number may be too high by up to :attr:`uncertainty`."""
        slot = _slot(now)
        if slot < self._slot:  # the clock was set back
            ends = Counter(_slot(record.expires) for record in self._records.values())
            self._ends = Counter({end: number for end, number in ends.items() if end >= slot})
            self._expired = len(self._records) - self._ends.total()
            self._slot = slot
        if slot > self._slot:
            for past in [end for end in self._ends if end < slot]:
                self._expired += self._ends.pop(past)
            self._slot = slot
        return len(self._records) - self._expired

    @property
    def uncertainty(self) -> int:
        """The maximum number by which the latest result of :meth:`alive` may be too high.

        It is the number of bans that end in the slot (of ``SLOT`` seconds) of that call, or in the next slot.
        """
        return self._ends[self._slot] + self._ends[self._slot + 1]

    def covering(self, network: Network, scope: Scope, now: float) -> list[int]:
        """Return the keys of the active bans of ``scope`` whose network contains ``network``.

        The widest network comes first.
        """
        found = []
        own, bits = network.prefixlen, network.max_prefixlen
        address = int(network.network_address)
        low = key_of(network, scope) & _KIND
        lengths = self._lengths.get(low)
        if lengths is None:
            shapes = [shape for shape in self._shapes if shape & _KIND == low]
            lengths = self._lengths[low] = sorted(shape >> _KIND_BITS for shape in shapes)
        for length in lengths:
            if length > own:
                break
            prefix = address >> (bits - length) << (bits - length)
            key = (prefix << _LENGTH_BITS | length) << _KIND_BITS | low
            record = self._records.get(key)
            if record is not None and record.expires > now:
                found.append(key)
        return found

    def within(self, network: Network, scope: Scope) -> list[int]:
        """Return the keys of the bans of ``scope`` whose network is ``network`` or lies within it.

        This goes through all records, unless ``network`` is a single address.
        """
        own, bits = network.prefixlen, network.max_prefixlen
        if own == bits:
            return [key for key in (key_of(network, scope),) if key in self._records]
        prefix, kind = int(network.network_address) >> (bits - own), key_of(network, scope) & _KIND
        return [
            key
            for key in self._records
            if key & _KIND == kind
            and (key >> _KIND_BITS & _LENGTH) >= own
            and key >> _KIND_BITS + _LENGTH_BITS >> (bits - own) == prefix
        ]

    def keys(self) -> Iterable[int]:
        """Return all keys."""
        return self._records.keys()

    def items(self) -> Iterable[tuple[int, Record]]:
        """Return all keys with their records."""
        return self._records.items()

    def latest(self, most: int) -> list[tuple[int, Record]]:
        """Return the keys and records that were stored last, at most ``most``, the latest first."""
        return list(islice(reversed(self._records.items()), most))

    def due(self, now: float) -> tuple[list[int], list[int]]:
        """Check the next ``_SLICE`` records; return the keys of expired bans, and of bans to renew.

        Repeated calls check all records, and then begin again.
        """
        over, renew = [], []
        if not self._unchecked:
            self._unchecked = list(self._records)
        for key in self._unchecked[-_SLICE:]:
            record = self._records.get(key)
            if record is not None and record.expires <= now:
                over.append(key)
            elif record is not None and record.renew_at <= now:
                renew.append(key)
        del self._unchecked[-_SLICE:]
        return over, renew

    def soonest(self, network: Network, scope: Scope, most: int) -> list[tuple[float, int]]:
        """Return the ends and the keys of the bans that end first, at most ``most`` of them.

        Only bans with the IP version and the prefix length of ``network`` and with the scope ``scope`` are
        returned, because a backend may have one set for each combination of these. If no ban has this prefix
        length, bans of any length are returned.
        """
        shape = key_of(network, scope) & _SHAPE
        mask = _SHAPE if self._shapes[shape] else _KIND
        like = ((record.expires, key) for key, record in self._records.items() if (key ^ shape) & mask == 0)
        return nsmallest(most, like)


def _slot(expires: float) -> int:
    return int(expires / SLOT) if isfinite(expires) else 1 << 62


# -- lists the kernel's bans completely, even if they change meanwhile


def listed(backend: Backend, known: Iterable[int] | None) -> Iterator[Element]:
    """Yield every ban of the kernel. May be called in another thread.

    ``known`` are the keys of the bans that the caller knows; None if it knows none, as at the start. The
    kernel's listing may lack bans if the sets change meanwhile. Known bans that it lacks are looked up one by
    one. So only a ban that another program has just added may be missing. The next comparison of the kernel
    with the ledger, within a minute, adopts it.
    """
    found: set[int] = set()
    with suppress(FirewallIncompleteError):
        missing = None if known is None else (network_of(key) for key in known if key not in found)
        for element in backend.list(missing):
            found.add(key_of(element.network, element.scope))
            yield element


# -- selects the bans that are removed early if a set is full: those with the least time left


AT_ONCE = 256
"""The number of bans that one search returns. A search takes long, because it goes through all bans."""


@define
class GivingWay:
    """Finds the bans of a full set that end first, so that they can make room for a longer ban."""

    # The ends and keys of the bans found, by IP version, prefix length and scope. The earliest end is last.
    _waiting: dict[tuple[int, int, Scope], list[tuple[float, int]]] = Factory(dict)

    def next(self, ledger: Ledger, ban: Ban) -> int | None:
        """Return the key of the ban to remove for ``ban``; None if no ban ends earlier than ``ban``."""
        like = (ban.network.version, ban.network.prefixlen, ban.scope)
        waiting = self._waiting.setdefault(like, [])
        while waiting and not _still_ends(ledger, *waiting[-1]):
            waiting.pop()
        if not waiting:
            waiting += ledger.soonest(ban.network, ban.scope, AT_ONCE)[::-1]
        # If the bans found end too late for ``ban``, they are kept for a later call with a longer ban.
        if not waiting or waiting[-1][0] >= ban.expires:
            return None
        return waiting.pop()[1]

    def clear(self) -> None:
        """Forget the bans that were found."""
        self._waiting.clear()


def _still_ends(ledger: Ledger, expires: float, key: int) -> bool:
    """Whether a ban was neither removed nor replaced since it was found with this end."""
    record = ledger.get(key)
    return record is not None and record.expires == expires
