"""The API's decisions that are kept, each until its end, in bounded memory. No I/O.

Wide networks together may cover a part of the internet only. So no API can cut off most of it.

Times are arguments, in monotonic seconds.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from sys import getsizeof

from attrs import Factory, define

from ringfence.features.fleet.lapi import LapiDecision
from ringfence.values.network import BITS, code_from

SAME_END = 2.0
"""The seconds by which two ends of one decision may differ, because answers take time."""
STEP = 200
"""The number of decisions of an answer that are applied in one step, which takes some 1 ms."""
ENDED_AT_ONCE = 500
"""The number of decisions that :meth:`KeptDecisions.expire` looks at before it returns, in some 3 ms."""
SPARE = 1_000
"""A queue of ends may have this many outdated entries beyond its factor before it is rebuilt.

The factor is 1.5 for decisions, and 2 for the bans of this host.
"""
MOST_SAME = 1_000
"""The maximum number of decisions with the same network and the same scenario: each host may have one."""
MOST_TEXTS = 16 << 20
"""The maximum memory of all different scenarios and origins of decisions, in bytes."""

WIDE = {4: 24, 6: 48}
"""By IP version, the prefix length below which a network counts as wide."""
MOST_WIDE = {4: 2 ** (32 - 6), 6: 2 ** (128 - 17)}
"""The maximum number of addresses of all wide networks together, by IP version: as many as in four /8 or /19.

With the default ``max_bans``, as many /24 as fit into a set cover the same number of addresses. A greater
``max_bans`` admits more.
"""

Key = tuple[bytes, str]
"""The packed network (``ringfence.values.network``) as bytes, and the scenario of a decision.

The hash of bytes is secret. That of an integer is not, so an attacker could choose networks that collide.
"""
_KEY_BYTES = 18  # an IPv6 network takes 137 bits

_Kept = tuple[int, float, str]
"""A decision of the API that is kept: its number, its end (monotonic seconds), and its origin.

The garbage collector passes over plain tuples of numbers and texts, of which there may be 262 144.
"""


def key_of(packed: int, scenario: str) -> Key:
    """Return the key of a decision about a packed network (an integer) with this scenario."""
    return packed.to_bytes(_KEY_BYTES, "big"), scenario


def packed_of(network: bytes) -> int:
    """Return the packed network (an integer) of a key."""
    return int.from_bytes(network, "big")


class Ends:
    """A queue of decisions by their ends. One may have several ends; the caller checks which one counts."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key]] = []
        self._serial = count()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float:
        """The earliest end in the queue (monotonic seconds); infinity if the queue is empty."""
        return self._heap[0][0] if self._heap else inf

    def add(self, ends: float, item: Key) -> None:
        """Add a decision (``item``) with its end (monotonic seconds)."""
        heappush(self._heap, (ends, next(self._serial), item))

    def pop(self, now: float, most: int) -> Iterator[Key]:
        """Remove and yield at most ``most`` decisions that ended by ``now`` (monotonic seconds), in order."""
        while most > 0 and self.next <= now:
            most -= 1
            yield heappop(self._heap)[2]

    def rebuild(self, ends: Iterable[tuple[float, Key]]) -> None:
        """Replace the contents of the queue by these pairs of an end and a decision."""
        self._heap = [(end, next(self._serial), item) for end, item in ends]
        heapify(self._heap)


@define
class _Texts:
    """Texts that decisions use, each stored once with the number of its users, in bounded memory."""

    _used: dict[str, tuple[str, int]] = Factory(dict)
    _left: int = Factory(lambda: MOST_TEXTS)

    def take(self, text: str) -> str | None:
        """Return the stored text that equals ``text``, and count one more user; None if there is no room."""
        known, number = self._used.get(text, (text, 0))
        if not number:
            size = getsizeof(text)
            if size > self._left:
                return None
            self._left -= size
        self._used[known] = known, number + 1
        return known

    def drop(self, text: str) -> None:
        """Count one user less of a text; forget it after the last one."""
        known, number = self._used.pop(text)
        if number > 1:
            self._used[known] = known, number - 1
        else:
            self._left += getsizeof(known)


class KeptDecisions:
    """The kept decisions: at most ``most``, and of one network with one scenario at most ``MOST_SAME``."""

    def __init__(self, most: int) -> None:
        self.came = 0
        """How many decisions were ever kept."""
        self.origins: Counter[str] = Counter()
        """The number of kept decisions by origin, the program or host that made them."""
        self.most = most
        """The maximum number of kept decisions. If it falls, those that are kept stay."""
        self._number = 0
        self._kept: dict[Key, tuple[_Kept, ...]] = {}
        self._texts = _Texts()
        self._wide = Counter[int]()  # the addresses of kept wide networks, by IP version
        self._ends = Ends()

    def __len__(self) -> int:
        """Return the number of kept decisions."""
        return self._number

    def __contains__(self, key: Key) -> bool:
        """Whether a decision with this network and scenario is kept."""
        return key in self._kept

    def without(self, keys: Iterable[Key]) -> tuple[Key, ...]:
        """Return the network and the scenario of all decisions, except those of ``keys``."""
        found = self._kept.copy()  # and some removals: a look at each decision would take twice the time
        for key in keys:
            found.pop(key, None)
        return tuple(found)

    def ends_of(self, key: Key) -> list[float]:
        """Return the ends (monotonic seconds) of the decisions with this network and scenario."""
        return [ends for _, ends, _ in self._kept.get(key, ())]

    @property
    def next_end(self) -> float:
        """When :meth:`expire` may have something to do (monotonic seconds); infinity without decisions."""
        return self._ends.next

    def renew(self, key: Key, number: int, ends: float) -> bool:
        """Record a decision's new end (monotonic seconds); return whether the decision is kept.

        ``key`` is its packed network and scenario, ``number`` its number at the API.
        """
        there = self._kept.get(key, ())
        known = _numbered(there, number)
        if known is None:
            return False
        _, ended, origin = known
        if abs(ended - ends) > SAME_END:
            same = number, ends, origin
            self._kept[key] = tuple(same if one is known else one for one in there)
            if ends < ended:  # a later one is found when the earlier one has passed
                self._ends.add(ends, key)
        return True

    def add(self, key: Key, decision: LapiDecision, ends: float) -> bool:
        """Keep an unknown decision until ``ends`` (monotonic seconds); return False without room for it."""
        scenario = self._texts.take(key[1]) if self._has_room(key) else None
        if scenario is None:
            return False
        origin = self._texts.take(decision.origin)
        if origin is None:
            self._texts.drop(scenario)
            return False
        key, kept = (key[0], scenario), (decision.number, ends, origin)
        there = self._kept.get(key, ())
        self._kept[key] = (*there, kept)
        self._ends.add(ends, key)
        self._number += 1
        self.came += 1
        self.origins[origin] += 1
        if not there:
            self._wide[_version(key)] += _wide_addresses(key)
        return True

    def _has_room(self, key: Key) -> bool:
        """Whether there is room for one more decision with this network and scenario (``key``)."""
        there, version = self._kept.get(key, ()), _version(key)
        more = 0 if there else _wide_addresses(key)
        fits = not more or self._wide[version] + more <= MOST_WIDE[version]
        return self._number < self.most and len(there) < MOST_SAME and fits

    def delete(self, key: Key, number: int) -> bool:
        """Forget the decision with this number; return whether it was kept."""
        there = self._kept.get(key, ())
        kept = _numbered(there, number)
        if kept is not None:
            self._drop(key, (kept,), tuple(one for one in there if one is not kept))
        return kept is not None

    def delete_all(self, key: Key) -> None:
        """Forget the decisions with this network and scenario."""
        self._drop(key, self._kept.get(key, ()), ())

    def expire(self, now: float) -> list[Key]:
        """Forget decisions that have ended by ``now`` (monotonic seconds), a thousand or so.

        Return the keys (packed network and scenario) of which no decision is left.
        """
        gone, seen = [], 0
        for key in self._ends.pop(now, ENDED_AT_ONCE):
            there = self._kept.get(key, ())
            left = tuple(one for one in there if one[1] > now)
            self._drop(key, [one for one in there if one[1] <= now], left)
            if left:
                self._ends.add(_first_end(left), key)
            elif there:
                gone.append(key)
            seen += len(there)
            if seen >= ENDED_AT_ONCE:
                break
        return gone

    def _drop(self, key: Key, gone: Collection[_Kept], left: tuple[_Kept, ...]) -> None:
        """Forget the decisions ``gone`` with this network and scenario (``key``); ``left`` are the others."""
        if not gone:
            return
        self._number -= len(gone)
        for _, _, origin in gone:
            self.origins[origin] -= 1
            if not self.origins[origin]:
                del self.origins[origin]
            self._texts.drop(origin)
            self._texts.drop(key[1])
        if left:
            self._kept[key] = left
        else:
            del self._kept[key]
            self._wide[_version(key)] -= _wide_addresses(key)

    def tidied(self) -> Iterator[None]:
        """Rebuild the queue of ends in steps if too many are outdated; yield after each step."""
        if len(self._ends) <= self._number * 3 // 2 + SPARE:
            return
        fresh = Ends()
        for number, key in enumerate([*self._kept]):
            if not number % STEP:
                yield
            there = self._kept.get(key, ())
            if there:
                fresh.add(_first_end(there), key)
        self._ends = fresh


def _version(key: Key) -> int:
    """Return the IP version of the network in the key of a decision."""
    return code_from(packed_of(key[0]))[0]


def _wide_addresses(key: Key) -> int:
    """Return the number of addresses of a decision's network if wider than a /24 or IPv6 /48; else 0."""
    version, code = code_from(packed_of(key[0]))
    length = code & 0xFF
    return 1 << (BITS[version] - length) if length < WIDE[version] else 0


def _numbered(there: Iterable[_Kept], number: int) -> _Kept | None:
    """Return that decision of ``there`` which has this number; None if none has."""
    return next((one for one in there if one[0] == number), None)


def _first_end(there: Iterable[_Kept]) -> float:
    """Return when the first of these decisions ends (monotonic seconds)."""
    return min(ends for _, ends, _ in there)
