"""The bans that this host sends to the local API, and the decisions of others that it applies. No I/O.

Out: each proven ban of a rule, and its early end. Claimed bans are never sent: every other host would make a
full ban of one, so a forger could have any address banned everywhere.

In: decisions of other hosts, each with the time that it has left.

* A decision ends by ``deleted`` or by its own time. A missing one has not ended: an answer may be cut.
* The stream does not name the maker of a decision. It is our own if this host has a ban of the same network
  and the same rule.
* Wide networks together may cover a part of the internet only. So no API can cut off most of it.
* A ban or an unban that fails is sent again apart, after all others: it must not stop them.
* A lost answer is lost for good, because the API remembers what it has sent. It also never sends a decision
  that it began to store before a request, and finished after it. So after each failure, once soon after
  news, and every ``full_every`` seconds, all decisions are requested. Then bans that the API lacks are sent
  again, unless someone has deleted them there.

All times are arguments, in monotonic seconds.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain, count, islice
from math import inf
from random import Random
from sys import getsizeof

from attrs import Factory, define, field, frozen

from ringfence.features.fleet.channel import Channel
from ringfence.features.fleet.lapi import DecisionPage, LapiDecision
from ringfence.features.fleet.messages import Facts, scenario_of
from ringfence.values.network import BITS, Network, code_from, format_network, pack, unpack

FULL_EVERY = 600.0
"""Seconds between two requests for all decisions of the API (instead of those that changed)."""
AGAIN_AFTER = 30.0
"""Seconds from a new decision until all decisions are requested: several hosts often ban at once."""
CALM = 1_000
"""After a new decision, the wait until all are requested is a second for this number of kept decisions.

A shorter wait than ``AGAIN_AFTER`` is lengthened to it. A long answer costs both sides.
"""
BEAT_EVERY = 60.0
"""Seconds between two signs of life to the API; otherwise `cscli machines list` shows this host as dead."""
MOST_OWN = 65_536
"""The maximum number of this host's bans, and of its unbans, that are kept. Others are only counted."""
AT_ONCE = 100
"""The maximum number of bans in one request to the API."""
SAME_END = 2.0
"""The seconds by which two ends of one decision may differ, because answers take time."""
STEP = 200
"""The number of decisions of an answer that are applied in one step, which takes some 1 ms."""
ENDED_AT_ONCE = 500
"""The number of ended decisions after which :meth:`Sync.expire` returns, in some 3 ms."""
SPARE = 1_000
"""The number of outdated entries, beyond a share of all, with which a queue of ends is rebuilt."""
MOST_SAME = 1_000
"""The maximum number of decisions with the same network and the same scenario: each host may have one."""
MOST_TEXTS = 16 << 20
"""The maximum memory of all different scenarios and origins of decisions, in bytes."""

WIDE = {4: 24, 6: 48}
"""By IP version, the prefix length below which a network counts as wide."""
MOST_WIDE = {4: 2 ** (32 - 6), 6: 2 ** (128 - 17)}
"""The maximum number of addresses of all wide networks together, by IP version: as many as in four /8 or /19.

As many narrow ones as fit into a set cover no more (262 144 of /24).
"""
MOST_NAMED = 5
"""The maximum number of left out decisions that a text names."""
MOST_SEEN = 65_536
"""The maximum number of left out decisions that are recognized, so that they count only once."""

Key = tuple[int, str]
"""The packed network (``ringfence.values.network``) and the scenario of a decision."""


@frozen
class OwnBan:
    """A ban of this host that is shared. ``ends`` and ``began`` (None: unknown) are in monotonic seconds."""

    network: Network
    rule: str
    ends: float
    facts: Facts = Factory(Facts)
    began: float | None = None

    @property
    def key(self) -> Key:
        """The packed network and the scenario of the ban's decision at the API."""
        return pack(self.network), scenario_of(self.rule)


@frozen
class Withdraw:
    """A request to the API to end the decisions about a network with a scenario."""

    network: Network
    scenario: str


@frozen
class Push:
    """A request to the API to store bans."""

    bans: tuple[OwnBan, ...]


@frozen
class Beat:
    """A request that shows the API that this host is alive."""


@frozen
class Pull:
    """A request for the API's decisions: all (``full``), or those that changed since the last request."""

    full: bool


Request = Withdraw | Push | Beat | Pull


@define
class _Own:
    """A ban of this host, and whether it was ``sent``. ``withdrawn``: someone deleted it at the API."""

    ban: OwnBan
    sent: bool = False
    withdrawn: bool = False


_Kept = tuple[int, float, str]
"""A decision of the API that is kept: its number, its end (monotonic seconds), and its origin.

The garbage collector passes over plain tuples of numbers and texts, of which there may be 262 144.
"""


class _Ends:
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
        """Add a decision (``item``) with an end."""
        heappush(self._heap, (ends, next(self._serial), item))

    def pop(self, now: float, most: int) -> Iterator[Key]:
        """Remove and yield at most ``most`` decisions whose end is not after ``now``, the earliest first."""
        while most > 0 and self.next <= now:
            most -= 1
            yield heappop(self._heap)[2]

    def rebuild(self, ends: Iterable[tuple[float, Key]]) -> None:
        """Replace the contents of the queue by these pairs of an end and a decision."""
        self._heap = [(end, next(self._serial), item) for end, item in ends]
        heapify(self._heap)


@define
class LeftOut:
    """Counts the API's decisions that are not applied here. A decision that the API repeats counts once.

    ``crowded`` of them found no room. ``named`` has the networks of the first ones, with the reasons.
    """

    number: int = 0
    crowded: int = 0
    named: list[str] = Factory(list)
    _seen: set[int] = field(factory=set, init=False)

    def count(self, number: int | None) -> bool:
        """Count a decision by its number (None: unknown); return whether it was not counted before."""
        if number in self._seen:
            return False
        if number is not None and len(self._seen) < MOST_SEEN:
            self._seen.add(number)
        self.number += 1
        return True

    def add(self, decision: LapiDecision, reason: str, *, crowded: bool = False) -> None:
        """Count a decision that is not applied because of ``reason``; name it if there is room."""
        if not self.count(decision.number):
            return
        self.crowded += crowded
        if len(self.named) < MOST_NAMED:
            self.named.append(f"{format_network(decision.network)} ({reason})")


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


class Sync:
    """Decides what to send to and to request from CrowdSec's local API, and which decisions apply here.

    ``interval`` is the seconds between two requests for decisions, ``most`` the maximum number of kept ones.
    ``refusal`` returns why a packed network may not be applied, "" if it may. ``choose``, which is
    ``random.uniform``, makes the pauses after failures random: many hosts must not return in one moment.
    """

    def __init__(
        self,
        interval: float = 10.0,
        most: int = 262_144,
        refusal: Callable[[int], str] = lambda _: "",
        full_every: float = FULL_EVERY,
        chance: Random | None = None,
    ) -> None:
        self._chance = chance
        self.pull = Channel(chance)
        self.push = Channel(chance)
        self.retry = Channel(chance)
        """The bans and unbans that failed before. They are sent one at a time, when no others wait."""
        self.left = LeftOut()
        """The decisions of the API that are not applied, counted since its last answer with all decisions."""
        self.lost = 0
        """How many of this host's bans and unbans found no room here, or were refused by the API."""
        self.lag: float | None = None
        """Seconds from this host's latest ban until an answer of the API contained it; None if none has."""
        self._interval = interval
        self._full_every = full_every
        self._most = most
        self._refusal = refusal
        self._own: dict[Key, _Own] = {}
        self._by_network: dict[Network, set[Key]] = {}
        self._queue: dict[Key, None] = {}  # bans that have not failed
        self._ended: dict[Key, float] = {}  # all unbans that wait, each with the time when it is needless
        self._unbans: dict[Key, None] = {}  # those that have not failed
        self._failed: dict[Key, None] = {}  # bans and unbans; for a key in _ended it is the unban
        self._bans_first = False
        self._kept: dict[Key, tuple[_Kept, ...]] = {}
        self._texts = _Texts()
        self._latest = inf  # the highest number of a decision in an answer; infinity before the first one
        self._number = 0
        self._came = 0  # how many decisions were ever kept
        self._wide = Counter[int]()  # the addresses of kept wide networks, by IP version
        self._origins: Counter[str] = Counter()
        self._ends = _Ends()
        self._own_ends = _Ends()
        self._at_once = AT_ONCE
        self._next_pull = self._next_full = self._next_beat = -inf

    # -- the bans of this host

    def on_restored(self, bans: Iterable[OwnBan]) -> None:
        """Record the bans that this host had before its start. Those that the API lacks are sent later."""
        for ban in bans:
            self._record(ban, sent=True)

    def on_ban(self, ban: OwnBan) -> None:
        """Queue a new ban of this host, to be sent to the API."""
        if self._record(ban, sent=False):
            self._queue[ban.key] = None
            if ban.key not in self._ended:
                self._failed.pop(ban.key, None)

    def _record(self, ban: OwnBan, *, sent: bool) -> bool:
        known = self._own.get(ban.key)
        if known is None and len(self._own) >= MOST_OWN:
            self.lost += 1
            return False
        self._own[ban.key] = _Own(ban, sent or (known is not None and known.sent))
        self._by_network.setdefault(ban.network, set()).add(ban.key)
        self._end_later(ban.key, ban.ends)
        return True

    def _end_later(self, key: Key, ends: float) -> None:
        """Make :meth:`expire` look at this host's ban or unban ``key`` at ``ends`` (monotonic seconds)."""
        self._own_ends.add(ends, key)
        if len(self._own_ends) > 2 * (len(self._own) + len(self._ended)) + SPARE:
            wanted = [(own.ban.ends, of) for of, own in self._own.items()]
            self._own_ends.rebuild([*wanted, *((end, of) for of, end in self._ended.items())])

    def on_unban(self, network: Network, now: float) -> None:
        """Queue the early end of this host's bans of a network, to be sent to the API.

        Until the API has ended its decisions about these bans, they are not applied here.
        """
        for key in self._by_network.get(network, set()).copy():
            own = self._forget(key)
            there = self._kept.get(key, ())
            if not own.sent and not there:
                continue  # it never left this host
            self._queue_unban(key, max(own.ban.ends, now, *(until for _, until, _ in there)))

    def on_unfinished(self, unbans: Iterable[tuple[Key, float]]) -> None:
        """Queue the unbans not sent before a restart, each with its ban's end (monotonic seconds)."""
        for key, ends in unbans:
            self._queue_unban(key, ends)

    def _queue_unban(self, key: Key, ends: float) -> None:
        if key not in self._ended and len(self._ended) >= MOST_OWN:
            self.lost += 1
            return
        self._ended[key] = ends
        self._unbans[key] = None
        self._failed.pop(key, None)
        self._end_later(key, ends)
        for kept in self._kept.get(key, ()):
            self._drop(key, kept)

    def _forget_unban(self, key: Key) -> None:
        self._ended.pop(key, None)
        self._unbans.pop(key, None)
        self._failed.pop(key, None)

    def _forget(self, key: Key) -> _Own:
        own = self._own.pop(key)
        self._queue.pop(key, None)
        if key not in self._ended:
            self._failed.pop(key, None)
        mine = self._by_network[own.ban.network]
        mine.discard(key)
        if not mine:
            del self._by_network[own.ban.network]
        return own

    # -- the decisions of others

    def in_force(self) -> tuple[Key, ...]:
        """Return the packed network and the scenario of each decision of another host that applies here."""
        found = self._kept.copy()  # and some removals: a look at each decision would take twice the time
        for key in chain(self._own, self._ended):
            found.pop(key, None)
        return tuple(found)

    def origins(self) -> Counter[str]:
        """Return the number of kept decisions by origin, including those about this host's bans."""
        return self._origins.copy()

    def __len__(self) -> int:
        """The number of kept decisions, including those about this host's bans."""
        return self._number

    @property
    def waiting(self) -> int:
        """How many bans and unbans of this host the API has not got yet."""
        return len(self._queue) + len(self._ended) + len(self._failed.keys() - self._ended.keys())

    @property
    def failing(self) -> int:
        """How many bans and unbans of this host failed at the API, and are tried again."""
        return len(self._failed)

    def expire(self, now: float) -> bool:
        """Forget bans, unbans and decisions that have ended; return whether other decisions apply now.

        Call this again while :meth:`ending` is true, because one call handles only a thousand ends.
        """
        changed = False
        for key in self._own_ends.pop(now, ENDED_AT_ONCE):
            own = self._own.get(key)
            if own is not None and own.ban.ends <= now:
                self._forget(key)
                changed |= key in self._kept
            if self._ended.get(key, inf) <= now:
                self._forget_unban(key)
        for key in self._ends.pop(now, ENDED_AT_ONCE):
            there = self._kept.get(key, ())
            for kept in there:
                if kept[1] <= now:
                    self._drop(key, kept)
            if key in self._kept:
                self._ends.add(_first_end(self._kept[key]), key)
            elif there:
                changed |= key not in self._own
        return changed

    def ending(self, now: float) -> bool:
        """Whether something has ended at ``now`` that :meth:`expire` must still forget."""
        return min(self._ends.next, self._own_ends.next) <= now

    def _drop(self, key: Key, kept: _Kept) -> None:
        """Forget the decision ``kept``, which is one of those with this network and scenario (``key``)."""
        left = tuple(one for one in self._kept[key] if one is not kept)
        self._number -= 1
        _, _, origin = kept
        self._origins[origin] -= 1
        if not self._origins[origin]:
            del self._origins[origin]
        self._texts.drop(origin)
        self._texts.drop(key[1])
        if left:
            self._kept[key] = left
        else:
            del self._kept[key]
            self._wide[_version(key)] -= _wide_addresses(key[0])

    # -- what to do next

    def next_request(self, now: float) -> Request | None:
        """Return the next request to the API; None if none is due. Call ``on_…`` with its result."""
        pull = max(self.pull.due, min(self._next_pull, self._next_full))
        if pull <= now:  # first, so that bans do not starve it
            self.pull.begins(now)
            return Pull(full=self._next_full <= now)
        if self.push.due > now:
            return None
        request: Request | None = self._next_change()
        if request is None and self._next_beat <= now:
            request = Beat()
        if request is not None:
            self.push.begins(now)
        elif self._failed and self.retry.due <= now:
            request = self._again()
            self.retry.begins(now)
        return self._sent(request)

    def _next_change(self) -> Withdraw | Push | None:
        """Return a request with the next bans or unban that did not fail before; None if none wait."""
        unban = next(iter(self._unbans), None)
        # A ban waits for the unban of its key, which would end it at the API.
        keys = (key for key in self._queue if key not in self._ended)
        bans = tuple(self._own[key].ban for key in islice(keys, self._at_once))
        if unban is None or (bans and self._bans_first):
            return Push(bans) if bans else None
        return _withdraw(unban)

    def _again(self) -> Withdraw | Push:
        """Return a request with the failed ban or unban that was tried longest ago."""
        key = next(iter(self._failed))
        return _withdraw(key) if key in self._ended else Push((self._own[key].ban,))

    def _sent(self, request: Request | None) -> Request | None:
        """Mark the bans of ``request`` as sent, and return it. Even a request that fails may have arrived."""
        for ban in request.bans if isinstance(request, Push) else ():
            self._own[ban.key].sent = True
        return request

    def due(self) -> float:
        """Return when :meth:`next_request` or :meth:`expire` has something to do (monotonic seconds)."""
        work = self._next_beat if self._next_change() is None else -inf
        again = self.retry.due if self._failed else inf
        pulls = max(self.pull.due, min(self._next_pull, self._next_full))
        pushes = max(self.push.due, min(work, again))
        return min(pushes, pulls, self._ends.next, self._own_ends.next)

    # -- the results of requests

    def on_done(self, request: Withdraw | Push | Beat, now: float) -> None:
        """Record that the API has carried out ``request`` at ``now`` (monotonic seconds)."""
        self.push.worked(now)
        self._next_beat = now + BEAT_EVERY
        self._bans_first = False
        if isinstance(request, Beat):
            return
        if isinstance(request, Withdraw):
            key = pack(request.network), request.scenario
            again = key in self._failed
            self._forget_unban(key)
            if key in self._own:
                self._queue[key] = None  # it was banned again
        else:
            again = any(ban.key in self._failed for ban in request.bans)
            self._at_once = min(AT_ONCE, 2 * self._at_once)
            for ban in request.bans:
                own = self._own.get(ban.key)
                if own is not None and own.ban == ban and ban.key not in self._ended:
                    self._queue.pop(ban.key, None)  # not if it was banned again meanwhile
                    self._failed.pop(ban.key, None)
        if again or not self._failed:
            self.retry.worked(now)

    def on_failed(
        self, request: Request, error: str, now: float, pause: float = 0.0, *, refused: bool = False
    ) -> None:
        """Record that a request failed. ``pause`` is how many seconds the server asks to wait.

        The bans of a ``Push`` are then sent one by one. A ban or an unban that fails alone is sent again when
        no others wait, until its time is over; if it is ``refused``, the API will never accept it, and it is
        given up.
        """
        if isinstance(request, Pull):
            self.pull.failed(error, now, pause)
            self._next_full = -inf
            return
        self._bans_first = isinstance(request, Withdraw)
        key = _only_key(request)
        if key is None or key not in self._failed:
            self.push.failed(error, now, pause)
            self._at_once = 1 if isinstance(request, Push) else self._at_once
        else:
            self._next_beat = -inf  # it shows whether the API refuses only this
            self.retry.failed(error, now, pause)
        if key is None:
            return
        unban = isinstance(request, Withdraw)
        if (key in self._ended) is not unban or not (unban or key in self._own):
            return  # it was banned or unbanned again meanwhile
        if refused:
            self.lost += 1
        none = not self._failed
        for waiting in (self._unbans if unban else self._queue, self._failed):
            waiting.pop(key, None)
        if not refused:
            if none:
                self.retry = Channel(self._chance)
                self.retry.begins(now)
            self._failed[key] = None  # it is the last one to be tried again
        elif unban:
            self._forget_unban(key)

    def on_page(self, page: DecisionPage, request: Pull, now: float) -> Iterator[bool]:
        """Apply the API's answer to ``request`` in steps; yield after each whether other decisions apply now.

        A long answer takes a second. Bans and unbans may be reported between two steps.
        """
        self.pull.worked(now)
        self._next_pull = now + self._interval
        there: set[Key] = set()
        came, latest = self._came, -1 if self._latest == inf else self._latest
        left, changed = LeftOut() if request.full else self.left, False
        for number, one in enumerate(page.left_out, 1):
            left.count(one)
            if not number % STEP:
                yield changed
        for number, decision in enumerate(page.new, 1):
            latest = max(latest, decision.number)
            key = decision.packed, decision.scenario
            if key in self._own:
                there.add(key)
            changed |= self._take(key, decision, now, left)
            if not number % STEP:
                yield changed
                yield from self._tidied(changed)
        for number, decision in enumerate(page.deleted, 1):
            latest = max(latest, decision.number)
            changed |= self._delete(decision)
            if not number % STEP:
                yield changed
        self._latest = latest
        self.left = left
        if request.full:
            self._next_full = now + self._full_every
            self._send_missing(there, now)
        if self._came > came:
            self._next_full = min(self._next_full, now + max(AGAIN_AFTER, self._number / CALM))
        yield changed

    def _take(self, key: Key, decision: LapiDecision, now: float, left: LeftOut) -> bool:
        """Keep a decision, or count it in ``left``; return whether it is a new one that applies here."""
        reason = self._refusal(decision.packed)
        if reason:
            left.add(decision, reason)
        elif decision.seconds > 0.0 and key not in self._ended:
            return self._keep(key, decision, now, left)
        return False

    def _keep(self, key: Key, decision: LapiDecision, now: float, left: LeftOut) -> bool:
        """Keep a decision that may apply, or its new end; return whether it is a new one that applies."""
        there = self._kept.get(key, ())
        ends = now + decision.seconds
        known = _numbered(there, decision.number)
        if known is not None:
            number, ended, origin = known
            if abs(ended - ends) > SAME_END:
                same = number, ends, origin
                self._kept[key] = tuple(same if one is known else one for one in there)
                if ends < ended:  # a later one is found when the earlier one has passed
                    self._ends.add(ends, key)
            return False
        kept = self._new(key, decision, ends) if self._has_room(key) else None
        if kept is None:
            left.add(decision, "no room", crowded=True)
            return False
        own = self._own.get(key)
        if own is None:
            return not there
        own.withdrawn = False
        if not there and own.ban.began is not None:
            self.lag = now - own.ban.began
        return False

    def _new(self, key: Key, decision: LapiDecision, ends: float) -> _Kept | None:
        """Keep a decision that was unknown, and return it; None if there is no room for its texts."""
        scenario = self._texts.take(key[1])
        if scenario is None:
            return None
        origin = self._texts.take(decision.origin)
        if origin is None:
            self._texts.drop(scenario)
            return None
        key, kept = (key[0], scenario), (decision.number, ends, origin)
        there = self._kept.get(key, ())
        self._kept[key] = (*there, kept)
        self._ends.add(ends, key)
        self._number += 1
        self._came += 1
        self._origins[origin] += 1
        if not there:
            self._wide[_version(key)] += _wide_addresses(key[0])
        return kept

    def _has_room(self, key: Key) -> bool:
        """Whether there is room for one more decision with this network and scenario (``key``)."""
        there, version = self._kept.get(key, ()), _version(key)
        more = 0 if there else _wide_addresses(key[0])
        fits = not more or self._wide[version] + more <= MOST_WIDE[version]
        return self._number < self._most and len(there) < MOST_SAME and fits

    def _tidied(self, changed: bool) -> Iterator[bool]:
        """Rebuild the queue of ends in steps if too many are outdated; yield ``changed`` after each step."""
        if len(self._ends) <= self._number * 3 // 2 + SPARE:
            return
        fresh = _Ends()
        for number, key in enumerate([*self._kept]):
            if not number % STEP:
                yield changed
            there = self._kept.get(key, ())
            if there:
                fresh.add(_first_end(there), key)
        self._ends = fresh

    def _delete(self, decision: LapiDecision) -> bool:
        """Forget a decision that the API has ended; return whether it no longer applies here."""
        key = decision.packed, decision.scenario
        kept = _numbered(self._kept.get(key, ()), decision.number)
        if kept is not None:
            self._drop(key, kept)
        own = self._own.get(key)
        if key in self._kept or (kept is None and decision.number <= self._latest):
            return False
        if own is None:
            return kept is not None
        own.withdrawn = own.withdrawn or own.sent  # someone may delete it before an answer has shown it
        return False

    def _send_missing(self, there: set[Key], now: float) -> None:
        """Queue this host's bans that the API lacks (not in ``there``), unless someone deleted them."""
        for key, own in self._own.items():
            lasts = own.ban.ends - now > SAME_END
            if own.sent and lasts and not own.withdrawn and key not in there and key not in self._failed:
                self._queue[key] = None


def _version(key: Key) -> int:
    """Return the IP version of the network in the key of a decision."""
    return code_from(key[0])[0]


def _wide_addresses(packed: int) -> int:
    """Return the number of addresses of a packed network if it is wide (``WIDE``); else 0."""
    version, code = code_from(packed)
    length = code & 0xFF
    return 1 << (BITS[version] - length) if length < WIDE[version] else 0


def _numbered(there: Iterable[_Kept], number: int) -> _Kept | None:
    """Return that decision of ``there`` which has this number; None if none has."""
    return next((one for one in there if one[0] == number), None)


def _first_end(there: Iterable[_Kept]) -> float:
    """Return when the first of these decisions ends (monotonic seconds)."""
    return min(ends for _, ends, _ in there)


def _withdraw(key: Key) -> Withdraw:
    return Withdraw(unpack(key[0]), key[1])


def _only_key(request: Withdraw | Push | Beat) -> Key | None:
    """Return the network and scenario of a request that has one ban or one unban; None for any other."""
    if isinstance(request, Withdraw):
        return pack(request.network), request.scenario
    return request.bans[0].key if isinstance(request, Push) and len(request.bans) == 1 else None
