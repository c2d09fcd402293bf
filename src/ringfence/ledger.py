"""The ledger: all bans that count, in memory.

``bans`` writes it, when the kernel confirms or refuses a ban. The detector and the listings read it. In a
replay, which has no kernel, the replay writes it. It has three kinds of bans:

- *Confirmed* bans: the kernel has reported that it enforces them. Each has a :class:`Record`.
- *Pending* bans: the kernel has refused them, and they are tried again until their time is over. Meanwhile
  their networks count as banned. Otherwise further attempts would lead to more bans, and the kernel would
  refuse each of them, and the log would report each refusal.
- *Assumed* bans: rules have decided them, but no kernel enforces them, because enforcement is switched off or
  because this is a replay. Their networks count as banned too.

It is designed for 100,000 bans in some 25 MB. Each ban is a small record with a number as its *key*, which
encodes its network and its scope. The attempts are only in the database. To check whether an address is
banned, one look-up for each prefix length in use is enough.

The ledger can return the number of bans with time left without a look at each ban: it counts how many bans
end in each *slot* of ``SLOT`` seconds. Bans that have ended in the present slot still count, so the number
may be too high (at most by :attr:`Ledger.uncertainty`).
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping
from heapq import nsmallest
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from math import inf, isfinite
from operator import itemgetter
from typing import NamedTuple

from attrs import define, evolve

from ringfence.ban_facts import News
from ringfence.values.ban import Ban, BanDetails, Scope, details_of
from ringfence.values.network import BITS, IPV6_SENDER, Network, affects, overlap

MOST_PENDING = 1_000
"""The maximum number of refused bans that are tried again."""

MOST_ASSUMED = 262_144
"""The maximum number of assumed bans (decided, but enforced by no kernel): the default size of a set.

Beyond it, the bans that end first are discarded, and attempts of their networks count again.
"""

CLOCK_STEP = 5.0
"""If the wall clock moves by more seconds than this against the monotonic clock, it counts as set.

A suspended host has the same effect, because its monotonic clock stops.
"""

SLOT = 16.0
"""Seconds of a slot: the bans that end in the same slot are counted together."""

RENEW_BELOW = 0.5
"""The fraction of a kernel timeout that is left when it is renewed.

The kernel's timeout of a ban may be shorter than the ban.
"""
_SLICE = 5_000  # the number of bans that one call of Ledger.due checks
_EXPIRE_EVERY = 60.0  # the minimum number of seconds between two searches for assumed bans that have ended
_SCOPES = tuple(Scope)
_NUMBERS = {scope: number for number, scope in enumerate(_SCOPES)}
_IPV4 = 4
# A key consists of the address, the prefix length (8 bits), the scope (2 bits), and one bit for IPv6.
_LENGTH_BITS, _KIND_BITS = 8, 3
_LENGTH, _KIND = (1 << _LENGTH_BITS) - 1, (1 << _KIND_BITS) - 1
_SHAPE = (1 << _KIND_BITS + _LENGTH_BITS) - 1


def clock_step(before: float, offset: float) -> float:
    """Return by how many seconds the clock was set between two offsets; 0.0 for at most ``CLOCK_STEP``.

    An offset is the wall clock minus the monotonic clock.
    """
    step = offset - before
    return step if abs(step) > CLOCK_STEP else 0.0


@define(eq=False, kw_only=True)
class Record(BanDetails):
    """One ban that the kernel has confirmed, and what is known of its entry there.

    ``renew_at`` is when the kernel's timeout must be renewed because it ends before the ban (epoch seconds);
    infinity if it need not be. ``seen`` is the number of the latest comparison that found the ban in the
    kernel.
    """

    renew_at: float = inf
    seen: int = 0

    @classmethod
    def of(cls, ban: Ban, renew_at: float = inf, seen: int = 0) -> "Record":
        """Return a record of ``ban``, seen in the kernel by the comparison number ``seen``.

        ``renew_at`` is when its timeout there must be renewed (epoch seconds), infinity for never.
        """
        return cls(**details_of(ban), renew_at=renew_at, seen=seen)


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
    """Return the network and the scope of the ban with this key: the inverse of :func:`key_of`."""
    _, address, length = parts_of(key)
    return (IPv6Network if key & 1 else IPv4Network)((address, length)), _SCOPES[(key & _KIND) >> 1]


def scope_of(key: int) -> Scope:
    """Return the scope (which traffic a ban drops) that the key of a ban encodes."""
    return _SCOPES[(key & _KIND) >> 1]


def ban_of(key: int, record: Record) -> Ban:
    """Return the ban that ``key`` and ``record`` describe, without its attempts, which are not in memory."""
    network, scope = network_of(key)
    return Ban(network, scope=scope, **details_of(record))


class _Shape(NamedTuple):
    """A prefix length with a scope, to find bans of this kind that cover a subject (an address or network).

    With the ``key`` of the subject (:func:`key_of`), ``key >> shift << shift | tail`` is the key of that ban:
    ``shift`` removes the bits of the host, the scope and the length, and ``tail`` has the ban's length and
    scope. The subject's prefix must not be shorter than ``length``.
    """

    length: int
    shift: int
    tail: int
    scope: Scope

    @classmethod
    def of(cls, key: int) -> "_Shape":
        """Return the shape (prefix length with a scope) of the ban with that key (:func:`key_of`)."""
        version, _, length = parts_of(key)
        return cls(length, _KIND_BITS + _LENGTH_BITS + BITS[version] - length, key & _SHAPE, scope_of(key))


def parts_of(key: int) -> tuple[int, int, int]:
    """Return the IP version (4 or 6), the address as a number, and the prefix length that a key encodes."""
    return 6 if key & 1 else 4, key >> _KIND_BITS + _LENGTH_BITS, key >> _KIND_BITS & _LENGTH


class PendingBan(NamedTuple):
    """A ban that the kernel has refused and that is tried again, and whether it is news when it succeeds."""

    ban: Ban
    news: News


class Ledger:
    """All bans that count. Times are in seconds since the epoch, except those of :meth:`scopes`.

    ``offset`` is the wall clock minus the monotonic clock (seconds). The code that records bans keeps it
    up to date. In a replay of old logs it stays 0.
    """

    def __init__(self) -> None:
        self.offset = 0.0
        self._records: dict[int, Record] = {}
        self._pending: dict[int, PendingBan] = {}
        self._assumed: dict[int, float] = {}
        self._assumed_shapes: tuple[set[_Shape], ...] = (set(), set())  # of all of these so far: IPv4, IPv6
        self._next_expiry = inf
        self._shapes: Counter[int] = Counter()
        # The shapes in use, the widest network first: of IPv4 and of IPv6, as the lowest bit of a key has it.
        self._in_use: tuple[list[_Shape], ...] = ([], [])
        self._ends: Counter[int] = Counter()
        self._expired = 0  # records that are expired and not yet removed
        self._slot = 0
        self._unchecked: list[int] = []

    # -- what the detector reads

    def scopes(self, subject: int, now: float, *, friend: bool) -> list[Scope]:
        """Return the scopes (kinds of dropped traffic) in which an address or a network is banned.

        ``subject`` is the key of this network with the scope ``full``, and ``now`` is in monotonic seconds.
        A subject is banned by a confirmed ban of a network that contains it, by an assumed ban of the subject
        or of the prefix around it, or by a pending ban of the subject itself. With ``friend``, the subject is
        a friend's address, and bans of wider networks that do not apply to friends are ignored.
        """
        found: list[Scope] = []
        records, wall = self._records, now + self.offset
        own, version = subject >> _KIND_BITS & _LENGTH, subject & 1
        for length, shift, tail, scope in self._in_use[version]:
            if length > own:
                break
            wide = subject >> shift << shift | tail
            record = records.get(wide)
            if record is None or record.expires <= wall:
                continue
            if length == own or affects(network_of(wide)[0], friend=friend):
                found.append(scope)
        for length, shift, tail, scope in self._assumed_shapes[version]:
            # A single address of a /64 is a subject if it is a friend. A ban of the /64 exempts it.
            applies = length == own or (length < own and length != IPV6_SENDER)
            if applies and self._assumed.get(subject >> shift << shift | tail, wall) > wall:
                found.append(scope)
        if self._pending:
            found += [scope for scope, number in _NUMBERS.items() if subject | number << 1 in self._pending]
        return found

    # -- confirmed bans

    def __len__(self) -> int:
        """The number of bans that the kernel has confirmed, including expired ones not yet removed."""
        return len(self._records)

    def __contains__(self, key: int) -> bool:
        """Whether the kernel has confirmed the ban with that key (:func:`key_of`)."""
        return key in self._records

    def knows(self, key: int) -> bool:
        """Whether the ban with that key (:func:`key_of`) is confirmed or pending."""
        return key in self._records or key in self._pending

    def get(self, key: int) -> Record | None:
        """Return the record of the confirmed ban with this key (:func:`key_of`); None if there is none."""
        return self._records.get(key)

    def put(self, key: int, record: Record) -> None:
        """Record, under its key, a ban that the kernel has confirmed; it replaces an earlier record.

        If the ban was pending (refused by the kernel, and tried again), it is not any more.
        """
        self._pending.pop(key, None)
        self.pop(key)
        self._records[key] = record
        shape = key & _SHAPE
        if not self._shapes[shape]:
            insort(self._in_use[key & 1], _Shape.of(key))
        self._shapes[shape] += 1
        slot = _slot(record.expires)
        if slot < self._slot:
            self._expired += 1
        else:
            self._ends[slot] += 1

    def pop(self, key: int) -> Record | None:
        """Remove and return the record of the confirmed ban with this key (:func:`key_of`), or None."""
        record = self._records.pop(key, None)
        if record is None:
            return None
        shape = key & _SHAPE
        self._shapes[shape] -= 1
        if not self._shapes[shape]:
            del self._shapes[shape]
            self._in_use[key & 1].remove(_Shape.of(key))
        slot = _slot(record.expires)
        if slot < self._slot:
            self._expired -= 1
        else:
            self._ends[slot] -= 1
        return record

    def clear(self) -> None:
        """Forget the bans that the kernel confirmed or refused; keep those that no kernel enforces."""
        for kept in (self._records, self._pending, self._shapes, self._ends, self._unchecked):
            kept.clear()
        self._in_use = [], []
        self._expired = 0

    def shift(self, seconds: float) -> None:
        """Add ``seconds`` to all times of bans, because the wall clock was set by so much."""
        for record in self._records.values():
            record.since += seconds
            record.expires += seconds
            record.renew_at += seconds
        self._expired = 0
        self._ends.clear()
        self._slot = 0
        for record in self._records.values():
            self._ends[_slot(record.expires)] += 1
        for key, (ban, news) in self._pending.items():
            moved = evolve(ban, since=ban.since + seconds, expires=ban.expires + seconds)
            self._pending[key] = PendingBan(moved, news)
        self._assumed = {key: expires + seconds for key, expires in self._assumed.items()}

    def alive(self, now: float) -> int:
        """Return the number of confirmed bans with time left at ``now`` (epoch seconds).

        It may be too high by up to ``uncertainty``.
        """
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
        """Return the keys of the confirmed bans of ``scope`` whose network contains ``network``.

        Bans that expired before ``now`` (epoch seconds) are left out. The widest network comes first.
        """
        key, own = key_of(network), network.prefixlen
        around = [
            key >> shift << shift | tail
            for length, shift, tail, one in self._in_use[key & 1]
            if one is scope and length <= own
        ]
        return [
            one for one in around if (record := self._records.get(one)) is not None and record.expires > now
        ]

    def within(self, network: Network, scope: Scope) -> list[int]:
        """Return the keys of the confirmed bans of ``scope`` of ``network`` and of networks within it.

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
        """Return the keys of all bans that the kernel has confirmed."""
        return self._records.keys()

    def items(self) -> Iterable[tuple[int, Record]]:
        """Return the key and the record of each ban that the kernel has confirmed."""
        return self._records.items()

    def latest(self, most: int) -> list[tuple[int, Record]]:
        """Return the keys and records of the ``most`` bans confirmed last, the latest first."""
        return list(islice(reversed(self._records.items()), most))

    def due(self, now: float) -> tuple[list[int], list[int]]:
        """Check the next ``_SLICE`` bans; return the keys of those expired at ``now``, and of those to renew.

        A ban is to renew if its timeout in the kernel would end too early. Repeated calls check all records,
        and then begin again. ``now`` is in seconds since the epoch.
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

    def soonest(self, network: Network, scope: Scope, most: int, now: float) -> list[tuple[float, int]]:
        """Return the ends (epoch seconds) and the keys of the ``most`` bans that end first after ``now``.

        Only bans with the IP version and the prefix length of ``network`` and with the scope ``scope`` are
        returned, because a backend may have one set for each combination of these. If no ban that lasts has
        this prefix length, bans of any length are returned.
        """
        shape = key_of(network, scope) & _SHAPE
        for mask in (_SHAPE, _KIND) if self._shapes[shape] else (_KIND,):
            lasting = (
                (record.expires, key)
                for key, record in self._records.items()
                if (key ^ shape) & mask == 0 and record.expires > now
            )
            if found := nsmallest(most, lasting):
                return found
        return []

    # -- confirmed and pending bans

    def ban(self, key: int) -> Ban | None:
        """Return the ban with that key (:func:`key_of`), confirmed or pending; None if there is none.

        A confirmed ban is returned without its attempts, a pending one as it was when the kernel refused it.
        """
        record = self._records.get(key)
        if record is not None:
            return ban_of(key, record)
        pending = self._pending.get(key)
        return pending.ban if pending is not None else None

    def all_keys(self) -> list[int]:
        """Return the keys (:func:`key_of`) of all confirmed and all pending bans."""
        return [*self._records, *self._pending]

    def overlapping(self, network: Network, now: float) -> list[int]:
        """Return the keys of the bans that have an address in common with ``network``.

        A key may occur twice. Bans within ``network`` that ended just before ``now`` (epoch) may be among
        them: they are not removed yet.
        """
        found = [key for key in self._pending if overlap(network_of(key)[0], network)]
        for scope in Scope:
            found += self.covering(network, scope, now)
            found += self.within(network, scope)
        return found

    def is_forced(self, key: int) -> bool:
        """Whether an administrator forced (``ban --force``) the ban with that key."""
        ban = self.ban(key)
        return ban is not None and ban.forced

    def discard(self, key: int) -> bool:
        """Forget the ban with that key (:func:`key_of`), confirmed or pending; return whether it existed."""
        confirmed = self.pop(key) is not None
        return self.discard_pending(key) or confirmed

    # -- pending bans

    @property
    def pending(self) -> Mapping[int, PendingBan]:
        """The bans that the kernel has refused and that are tried again, by their keys."""
        return self._pending

    def may_wait(self, key: int) -> bool:
        """Whether the ban with that key is pending, or may be, because fewer than MOST_PENDING are."""
        return key in self._pending or len(self._pending) < MOST_PENDING

    def refuse(self, ban: Ban, news: News = News.NEW) -> bool:
        """Record as pending a ban that the kernel has refused; return False if too many are pending."""
        key = key_of(ban.network, ban.scope)
        if not self.may_wait(key):
            return False
        self._pending[key] = PendingBan(ban, news)
        return True

    def discard_pending(self, key: int) -> bool:
        """Forget the pending ban (refused by the kernel, and tried again) with that key.

        Return whether there was one. A confirmed ban stays.
        """
        return self._pending.pop(key, None) is not None

    def expire_pending(self, now: float) -> list[PendingBan]:
        """Forget the refused bans that have ended before ``now`` (epoch seconds), and return them."""
        over = [key for key, (ban, _) in self._pending.items() if ban.expires <= now]
        return [self._pending.pop(key) for key in over]

    # -- assumed bans

    def assume(self, subject: Network, scope: Scope, expires: float) -> None:
        """Count a network as banned until ``expires`` (epoch seconds), although no kernel enforces that."""
        key = key_of(subject, scope)
        self._assumed[key] = expires
        self._assumed_shapes[key & 1].add(_Shape.of(key))
        self._next_expiry = min(self._next_expiry, expires)
        if len(self._assumed) > MOST_ASSUMED:
            first = nsmallest(max(1, MOST_ASSUMED // 8), self._assumed.items(), key=itemgetter(1))
            for key, _ in first:
                del self._assumed[key]

    def assumed(self, now: float) -> set[tuple[Network, Scope]]:
        """Return the networks (and scopes) that count as banned at ``now`` (epoch), but by no kernel."""
        return {network_of(key) for key, expires in self._assumed.items() if expires > now}

    def discard_assumed(self, subject: Network) -> None:
        """Forget the bans of a network that no kernel enforces (:meth:`assume`), whatever their scope."""
        for scope in Scope:
            self._assumed.pop(key_of(subject, scope), None)

    def expire_assumed(self, now: float) -> None:
        """Forget the bans of :meth:`assume` that have ended, at most once in ``_EXPIRE_EVERY`` seconds."""
        if now >= self._next_expiry:
            self._assumed = {key: expires for key, expires in self._assumed.items() if expires > now}
            first = min(self._assumed.values(), default=inf)
            self._next_expiry = max(first, now + _EXPIRE_EVERY) if self._assumed else inf


def _slot(expires: float) -> int:
    return int(expires / SLOT) if isfinite(expires) else 1 << 62
