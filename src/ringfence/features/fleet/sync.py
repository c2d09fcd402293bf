"""The bans that this host sends to the local API, and the decisions of others that it applies. No I/O.

Out: each proven ban of a rule, and its early end. Claimed bans are never sent: every other host would make a
full ban of one, so a forger could have any address banned everywhere.

In: decisions of other hosts, each with the time that it has left.

* A decision ends by ``deleted`` or by its own time. A missing one has not ended: an answer may be cut.
* The stream does not name the maker of a decision. It is our own if this host has a ban of the same network
  and the same rule.
* A ban or an unban that fails is sent again apart, after all others: it must not stop them.
* A lost answer is lost for good, because the API remembers what it has sent. It also never sends a decision
  that it began to store before a request, and finished after it. So after each failure, once soon after
  news, and every ``full_every`` seconds, all decisions are requested. Then bans that the API lacks are sent
  again, unless someone has deleted them there.
* An answer with all decisions also names those that have ended. So it shows which bans someone has deleted,
  also before a restart of this host. A new database names none, so these bans are sent again.

All times are arguments, in monotonic seconds.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from math import inf
from random import Random

from attrs import Factory, define, field, frozen

from ringfence.features.fleet.channel import Channel
from ringfence.features.fleet.decisions import (
    ENDED_AT_ONCE,
    SAME_END,
    SPARE,
    STEP,
    Ends,
    KeptDecisions,
    Key,
    key_of,
    packed_of,
)
from ringfence.features.fleet.lapi import DecisionPage, LapiDecision
from ringfence.features.fleet.messages import Facts, scenario_of
from ringfence.values.network import Network, format_network, pack, unpack

FULL_EVERY = 600.0
"""Seconds between two requests for all decisions of the API (instead of those that changed)."""
AGAIN_AFTER = 30.0
"""Seconds from a new decision until all decisions are requested: several hosts often ban at once."""
CALM = 1_000
"""The number of kept decisions for each second from a new decision until all decisions are requested.

The wait is not shorter than ``AGAIN_AFTER``. A long answer costs both sides.
"""
BEAT_EVERY = 60.0
"""Seconds between two signs of life to the API; otherwise `cscli machines list` shows this host as dead."""
SOONER = 5.0
"""The seconds by which the API may end a ban early: requests and the API's time name whole seconds only."""
MOST_OWN = 65_536
"""The maximum number of this host's bans, and of its unbans, that are kept. Others are only counted."""
AT_ONCE = 100
"""The maximum number of bans in one request to the API."""
MOST_NAMED = 5
"""The maximum number of left out decisions that a text names."""
MOST_SEEN = 65_536
"""The maximum number of left out decisions that are recognized, so that they count only once."""


@frozen
class OwnBan:
    """A ban of this host that is shared. Times are in monotonic seconds.

    The ban began at ``since`` (minus infinity: unknown). This run of the daemon shares it from ``began`` on
    (None: unknown).
    """

    network: Network
    rule: str
    ends: float
    facts: Facts = Factory(Facts)
    began: float | None = None
    since: float = -inf

    @property
    def key(self) -> Key:
        """The packed network and the scenario of the ban's decision at the API."""
        return key_of(pack(self.network), scenario_of(self.rule))


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
    """A ban of this host, and whether it was ``sent``.

    ``stored``: the API has stored exactly this ban, in this run of the daemon. ``unwanted``: someone deleted
    it at the API, or the API refused it, so it is not sent again.
    """

    ban: OwnBan
    sent: bool = False
    stored: bool = False
    unwanted: bool = False


@define
class LeftOut:
    """Counts the API's decisions that are not applied here. A decision that the API repeats counts once.

    ``crowded`` of them found no room; ``latest`` is the greatest number of these, -1 without any. ``named``
    has the networks of the first left out ones, with the reasons.
    """

    number: int = 0
    crowded: int = 0
    latest: int = -1
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
        if crowded:
            self.crowded += 1
            self.latest = max(self.latest, decision.number)
        if len(self.named) < MOST_NAMED:
            self.named.append(f"{format_network(decision.network)} ({reason})")


class Sync:
    """Decides what to send to and to request from CrowdSec's local API, and which decisions apply here.

    ``interval`` is the seconds between two requests for decisions, ``most`` the maximum number of kept ones.
    Without ``sends``, this host sends no ban, and only ends those that it sent earlier.
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
        *,
        sends: bool = True,
    ) -> None:
        self._chance = chance
        self._sends = sends
        self.pull = Channel(chance)
        self.push = Channel(chance)
        self.retry = Channel(chance)
        """The bans and unbans that failed before. They are sent one at a time, when no others wait."""
        self.left = LeftOut()
        """The decisions of the API that are not applied, counted since its last answer with all decisions."""
        self.lost = 0
        """How many of this host's bans and unbans found no room here, or were refused by the API."""
        self.turned_away = 0
        """The number of answers with a decision without room that is newer than all such ones before.

        The first answer does not count: it is unknown what an earlier run has left out.
        """
        self.lag: float | None = None
        """Seconds from this host's latest ban until an answer of the API contained it; None if none has."""
        self._interval = interval
        self._full_every = full_every
        self._refusal = refusal
        self._own: dict[Key, _Own] = {}
        self._by_network: dict[Network, set[Key]] = {}
        self._queue: dict[Key, None] = {}  # bans that have not failed
        self._ended: dict[Key, float] = {}  # all unbans that wait, each with the time when it is needless
        self._unbans: dict[Key, None] = {}  # those that have not failed
        self._failed: dict[Key, None] = {}  # bans and unbans; for a key in _ended it is the unban
        self._bans_first = False
        self._decisions = KeptDecisions(most)
        self._stale = False  # a decision that was applied does not apply any more
        self._own_ends = Ends()
        self._at_once = AT_ONCE
        self._latest: int | None = None  # the greatest number of a decision without room; None: unknown
        self._next_pull = self._next_full = self._next_beat = -inf

    def set_most(self, most: int) -> None:
        """Set the maximum number of kept decisions; request all of them if some found no room."""
        self._decisions.most = most
        if self.left.crowded:
            self._next_full = -inf

    # -- the bans of this host

    def on_restored(self, bans: Iterable[OwnBan]) -> None:
        """Record bans of this host that began earlier. Those that the API lacks are sent later."""
        for ban in bans:
            if ban.key not in self._own:
                self._record(ban, sent=True)

    def on_ban(self, ban: OwnBan) -> None:
        """Queue a new ban of this host, to be sent to the API, if this host sends bans."""
        if self._sends and self._record(ban, sent=False):
            self._queue[ban.key] = None
            if ban.key not in self._ended:
                self._failed.pop(ban.key, None)

    def _record(self, ban: OwnBan, *, sent: bool) -> bool:
        known = self._own.get(ban.key)
        if known is None and len(self._own) >= MOST_OWN:
            self.lost += 1
            return False
        # Its own ban takes the place of the same one of another host, which must not outlast it.
        self._stale |= known is None and ban.key in self._decisions
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
        """Queue the early end of this host's bans of a network at ``now`` (monotonic seconds), for the API.

        Until the API has ended its decisions about these bans, they are not applied here.
        """
        for key in self._by_network.get(network, set()).copy():
            own = self._forget(key)
            there = self._decisions.ends_of(key)
            if not own.sent and not there:
                continue  # it never left this host
            self._queue_unban(key, max(own.ban.ends, now, *there))

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
        self._decisions.delete_all(key)

    def _forget_unban(self, key: Key) -> None:
        self._ended.pop(key, None)
        self._unbans.pop(key, None)
        self._failed.pop(key, None)
        if key in self._own and self._sends:
            self._queue[key] = None  # it was banned again, and the API has at most the earlier ban

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
        return self._decisions.without(chain(self._own, self._ended))

    def origins(self) -> Counter[str]:
        """Return the number of kept decisions by origin, including those about this host's bans."""
        return self._decisions.origins.copy()

    def __len__(self) -> int:
        """The number of kept decisions, including those about this host's bans."""
        return len(self._decisions)

    @property
    def waiting(self) -> int:
        """How many bans and unbans of this host the API has not got yet."""
        return len(self._queue) + len(self._ended) + len(self._failed.keys() - self._ended.keys())

    @property
    def failing(self) -> int:
        """How many bans and unbans of this host failed at the API, and are tried again."""
        return len(self._failed)

    def expire(self, now: float) -> bool:
        """Forget bans, unbans and decisions that have ended at ``now`` (monotonic seconds).

        Return whether other decisions apply than before.
        Call this again while :meth:`ending` is true, because one call handles only a thousand ends.
        """
        changed, self._stale = self._stale, False
        for key in self._own_ends.pop(now, ENDED_AT_ONCE):
            own = self._own.get(key)
            if own is not None and own.ban.ends <= now:
                self._forget(key)
                changed |= key in self._decisions
            if self._ended.get(key, inf) <= now:
                self._forget_unban(key)
        for key in self._decisions.expire(now):
            changed |= key not in self._own
        return changed

    def ending(self, now: float) -> bool:
        """Whether something ended by ``now`` (monotonic seconds) that :meth:`expire` must still forget."""
        return min(self._decisions.next_end, self._own_ends.next) <= now

    # -- what to do next

    def next_request(self, now: float) -> Request | None:
        """Return the next request to the API at ``now`` (monotonic seconds); None if none is due.

        After the request, call :meth:`on_done`, :meth:`on_failed` or :meth:`on_page`.
        """
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
        return min(pushes, pulls, self._decisions.next_end, self._own_ends.next)

    # -- the results of requests

    def on_done(self, request: Withdraw | Push | Beat, now: float) -> None:
        """Record that the API has carried out ``request`` at ``now`` (monotonic seconds)."""
        self.push.worked(now)
        self._next_beat = now + BEAT_EVERY
        self._bans_first = False
        if isinstance(request, Beat):
            return
        if isinstance(request, Withdraw):
            key = key_of(pack(request.network), request.scenario)
            again = key in self._failed
            self._forget_unban(key)
        else:
            again = any(ban.key in self._failed for ban in request.bans)
            self._at_once = min(AT_ONCE, 2 * self._at_once)
            for ban in request.bans:
                own = self._own.get(ban.key)
                if own is not None and own.ban == ban and ban.key not in self._ended:
                    own.stored = True
                    self._queue.pop(ban.key, None)  # not if it was banned again meanwhile
                    self._failed.pop(ban.key, None)
        if again or not self._failed:
            self.retry.worked(now)

    def on_failed(
        self, request: Request, error: str, now: float, pause: float = 0.0, *, refused: bool = False
    ) -> None:
        """Record that a request failed at ``now`` (monotonic seconds) with ``error``.

        ``pause`` is how many seconds the server asks to wait.
        The bans of a ``Push`` are then sent one by one. A ban or an unban that fails alone is sent again when
        no others wait, until its time is over; if it is ``refused``, the API will never accept it, and it is
        given up, unless requests for decisions fail too.
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
        refused = refused and not self.pull.error  # otherwise the API may refuse everything
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
        else:
            self._own[key].unwanted = True

    def on_page(self, page: DecisionPage, request: Pull, now: float) -> Iterator[bool]:
        """Apply the API's answer to ``request`` in steps; yield after each whether other decisions apply now.

        ``now`` is when the answer came (monotonic seconds). A long answer takes a second. Bans and unbans may
        be reported between two steps.
        """
        self.pull.worked(now)
        self._next_pull = now + self._interval
        there: dict[Key, float] = {}
        came, size = self._decisions.came, len(self)
        left, changed = LeftOut() if request.full else self.left, False
        for number, one in enumerate(page.left_out, 1):
            left.count(one)
            if not number % STEP:
                yield changed
        for number, decision in enumerate(page.new, 1):
            key = key_of(decision.packed, decision.scenario)
            if key in self._own:
                there[key] = max(there.get(key, now), now + decision.seconds)
            changed |= self._take(key, decision, now, left)
            if not number % STEP:
                yield changed
                yield from (changed for _ in self._decisions.tidied())
        for number, decision in enumerate(page.deleted, 1):
            changed |= self._delete(decision, now)
            if not number % STEP:
                yield changed
        self._leave_out(left)
        came = self._decisions.came - came
        ended = size + came - len(self)
        if request.full:
            self._next_full = now + self._full_every
            self._send_missing(there, now)
        else:
            ended += len(page.deleted)  # perhaps of decisions that found no room
        yield from (changed for _ in self._decisions.tidied())
        if came or (left.crowded and ended):
            self._next_full = min(self._next_full, now + max(AGAIN_AFTER, len(self) / CALM))
        yield changed

    def _leave_out(self, left: LeftOut) -> None:
        """Record which decisions an answer has left out, and whether there is a new one without room."""
        self.left = left
        if self._latest is not None and left.latest > self._latest:
            self.turned_away += 1
        # CrowdSec numbers decisions in the order in which they are made.
        self._latest = max(left.latest, self._latest or -1) if left.crowded else -1

    def _take(self, key: Key, decision: LapiDecision, now: float, left: LeftOut) -> bool:
        """Keep a decision that came at ``now`` (monotonic seconds); count a refused one in ``left``.

        Return whether it is a new one that applies here. ``key`` is its packed network and scenario.
        """
        reason = self._refusal(decision.packed)
        if reason:
            left.add(decision, reason)
        elif decision.seconds > 0.0 and key not in self._ended:
            return self._keep(key, decision, now, left)
        return False

    def _keep(self, key: Key, decision: LapiDecision, now: float, left: LeftOut) -> bool:
        """Keep a decision that may apply, or its new end; count it in ``left`` if there is no room.

        Return whether it is a new one that applies. ``key`` is its packed network and scenario, and ``now``
        (monotonic seconds) the time from which its end is counted.
        """
        there = key in self._decisions
        ends = now + decision.seconds
        if self._decisions.renew(key, decision.number, ends):
            return False
        if not self._decisions.add(key, decision, ends):
            left.add(decision, "no room", crowded=True)
            return False
        own = self._own.get(key)
        if own is None:
            return not there
        own.unwanted = False
        if not there and own.ban.began is not None:
            self.lag = now - own.ban.began
        return False

    def _delete(self, decision: LapiDecision, now: float) -> bool:
        """Forget a decision that the API has ended; return whether it no longer applies here.

        ``now`` is when the answer came (monotonic seconds).
        """
        key = key_of(decision.packed, decision.scenario)
        kept = self._decisions.delete(key, decision.number)
        if key in self._decisions:
            return False
        own = self._own.get(key)
        if own is None:
            return kept
        # Someone may delete the decision before an answer has shown it. An answer with all decisions repeats
        # the ends of earlier bans of the network, which do not count.
        if own.sent and (kept or now + decision.seconds > own.ban.since + SAME_END):
            own.unwanted = True
        return False

    def _send_missing(self, there: Mapping[Key, float], now: float) -> None:
        """Queue this host's bans that the API lacks, unless it does not want them, or no ban is sent.

        ``there`` has the latest end of the decisions that the API has at ``now`` (both in monotonic seconds),
        by their packed network and scenario. If they end sooner than the ban, they are of an earlier ban, or
        of another host. This counts for a ban that the API has not stored in this run: if the two clocks
        disagree, the ban is sent once more, and not again and again.
        """
        for key, own in self._own.items() if self._sends else ():
            lasts = own.ban.ends - now > SAME_END
            is_there = key in there and (own.stored or own.ban.ends - there[key] <= SOONER)
            if own.sent and lasts and not own.unwanted and not is_there and key not in self._failed:
                self._queue[key] = None


def _withdraw(key: Key) -> Withdraw:
    return Withdraw(unpack(packed_of(key[0])), key[1])


def _only_key(request: Withdraw | Push | Beat) -> Key | None:
    """Return the network and scenario of a request that has one ban or one unban; None for any other."""
    if isinstance(request, Withdraw):
        return key_of(pack(request.network), request.scenario)
    return request.bans[0].key if isinstance(request, Push) and len(request.bans) == 1 else None
