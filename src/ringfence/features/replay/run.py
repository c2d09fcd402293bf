"""Replay: all sources judged in the order of their times.

The daemon's own detector judges the events. A ban lasts as long as in the daemon, longer on each repeat. In
reality the kernel drops packets of banned senders, so events during a ban would mostly be missing. Here they
count as attempts of the sender, and cause no further ban while the ban lasts. The daemon also sees the SIP
challenges that leave the host, and they prove the addresses of senders. Files do not contain these
challenges. So every address is assumed to be proven. A sender that logged in is a friend from then on, as in
the daemon.
"""

import gc
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from ipaddress import IPv4Address
from math import inf
from operator import attrgetter

from attrs import define

from ringfence.detect.confirmation import PATIENCE, KnownSources
from ringfence.detect.detector import Bounds, Detector
from ringfence.detect.friends import Friends
from ringfence.detect.judgement import Decision, Disposition, Effect, Judgement, Login
from ringfence.detect.rules import RETURN_WITHIN, Rule
from ringfence.features.replay.files import Batch, ReplayInput, read_batches
from ringfence.values.attempt import Proof
from ringfence.values.event import EventKind, SecurityEvent
from ringfence.values.network import Address, Network, NetworkSet, sender_of

# -- outcomes of a replay: one for each subject, in a bounded table
#
# A subject is counted and banned as one: an address, or the /64 of an IPv6 address. At most
# ``MAX_OUTCOMES`` are kept. Beyond that the oldest one without a ban is discarded, or the oldest one if all
# are banned.


MAX_OUTCOMES = 12_288
"""The maximum number of senders whose outcomes are kept. With the detector's data they take some 12 MB."""


@define
class AddressOutcome:
    """The outcome of a replay for one sender: an IPv4 address, or an IPv6 /64 with all its addresses.

    ``address`` is one of its addresses; ``single_address``: no other was seen.
    ``attempts`` is the number of attempts. ``unconfirmed`` is the number of those that ban nothing, because
    their sender may be forged. ``bans`` has the start of each ban (seconds since the epoch). ``rule`` is the
    name of the rule that led to the first ban, and ``banned_at_attempt`` the number of attempts at its start.
    ``later_succeeded``: a login succeeded after the first ban. ``exempt``: the address is never banned.
    """

    address: Address
    single_address: bool = True
    events: int = 0
    attempts: int = 0
    unconfirmed: int = 0
    exempt: bool = False
    banned_at_attempt: int | None = None
    rule: str | None = None
    bans: tuple[float, ...] = ()
    later_succeeded: bool = False

    @property
    def name(self) -> str:
        """The sender as shown to people: the address, or the /64 if several of its addresses were seen."""
        return str(self.address if self.single_address else sender_of(self.address))

    def ban(self, decision: Decision, now: float) -> float:
        """Record a ban that begins at ``now`` (seconds since the epoch); return its length in seconds.

        The length grows with each repeat ban. But a claimed ban (its attempts do not prove the sender's
        address) has the fixed length ``decision.seconds``. If the sender was banned before, a claimed ban is
        not recorded, and only its length is returned.
        """
        if decision.seconds is not None and self.banned_at_attempt is not None:
            return decision.seconds
        before = sum(began > now - RETURN_WITHIN for began in self.bans)
        if self.banned_at_attempt is None:
            self.banned_at_attempt, self.rule = self.attempts, decision.rule.name
        self.bans += (now,)
        if decision.seconds is not None:
            return decision.seconds
        return decision.rule.ban_for(before)

    def succeed(self, now: float) -> None:
        """Record a successful login at ``now`` (seconds since the epoch)."""
        self.later_succeeded |= bool(self.bans) and now >= self.bans[0]


class Outcomes:
    """The outcomes of a replay, by sender. At most ``most`` are kept; ``evicted`` counts discarded ones.

    ``released`` is called with a banned sender whose outcome is discarded. The caller then ends the ban in
    the detector too.
    """

    def __init__(self, most: int = MAX_OUTCOMES, released: Callable[[Network], object] = id) -> None:
        self.evicted = 0
        self._most = most
        self._released = released
        # Keys are integers: looking up a network takes several times as long.
        self._rows: OrderedDict[int, AddressOutcome] = OrderedDict()
        self._banned: OrderedDict[int, AddressOutcome] = OrderedDict()
        self._subjects: dict[int, Network] = {}  # the subjects that were banned

    def __iter__(self) -> Iterator[AddressOutcome]:
        """Yield the outcomes: those of banned senders first, in the order of their bans."""
        yield from self._banned.values()
        yield from self._rows.values()

    def outcome_of(self, subject: Network, address: Address) -> AddressOutcome:
        """Return the outcome of the sender ``subject`` (an address or an IPv6 /64); create it if necessary.

        ``address`` is the address of the sender that was seen now.
        """
        key = _key(subject, address)
        row = self._banned.get(key) or self._rows.get(key)
        if row is None:
            if len(self._rows) + len(self._banned) >= self._most:
                self._evict()
            row = self._rows[key] = AddressOutcome(address)
        elif key < 0 and row.address != address:
            row.single_address = False
        return row

    def record(self, judgement: Judgement, now: float) -> float | None:
        """Record how the detector judged an attempt at ``now`` (seconds since the epoch).

        Return the length of the ban that the attempt causes (seconds), or None if it causes none.
        """
        subject, address = judgement.subject, judgement.attempt.address
        row = self.outcome_of(subject, address)
        row.attempts += judgement.disposition is not Disposition.COUNTED_BEFORE
        if judgement.disposition is Disposition.LATE:
            return None
        row.unconfirmed += judgement.disposition is Disposition.UNCONFIRMED
        row.exempt |= judgement.disposition is Disposition.EXEMPT
        if judgement.decision is None:
            return None
        key = _key(subject, address)
        if key in self._rows:
            self._banned[key] = self._rows.pop(key)
            self._subjects[key] = subject
        return row.ban(judgement.decision, now)

    def _evict(self) -> None:
        self.evicted += 1
        if self._rows:
            self._rows.popitem(last=False)
        else:
            key, _ = self._banned.popitem(last=False)
            self._released(self._subjects.pop(key))


def _key(subject: Network, address: Address) -> int:
    return int(address) if isinstance(address, IPv4Address) else -1 - int(subject.network_address)


MAX_REMEMBERED = 8_192
"""The maximum number of sessions, and of friends. Four times as many attempts are kept.

A session is the requests of one sender with one Call-ID at one Asterisk. These limits are lower than the
daemon's, because a log may contain a million senders.
"""

TICK_INTERVAL = 1.0
"""Seconds of log time between two calls of the detector's periodic work."""

MAX_STEP_BACK = 60.0
"""The seconds by which an event may be earlier than the detector's time; more: a clock was set back.

The end of daylight saving time has the same effect.
"""

_time = attrgetter("time")
_address = attrgetter("remote.address")


def replay(
    inputs: Sequence[ReplayInput],
    rules: tuple[Rule, ...],
    exempt: NetworkSet,
    progress: Callable[[int], object] = id,
) -> "Replay":
    """Judge the events of all inputs; return the results. Raise SourceError if an input cannot be read.

    ``exempt`` addresses are never banned. ``progress`` is called with the number of bytes read so far.
    """
    collecting = gc.isenabled()
    gc.disable()  # there are no reference cycles, and searching for them takes a tenth of the time
    try:
        past = Replay(inputs, rules, exempt, progress)
        past.run()
        return past
    finally:
        if collecting:
            gc.enable()


class Replay:
    """One replay and its results.

    ``lines``, ``events`` and ``read`` (bytes) count what was read. ``tampered`` is the number of messages
    that break Asterisk's grammar. ``first`` and ``last`` are the earliest and the latest time of an event
    (seconds since the epoch); without an event they are infinite.
    """

    def __init__(
        self,
        inputs: Sequence[ReplayInput],
        rules: tuple[Rule, ...],
        exempt: NetworkSet,
        progress: Callable[[int], object],
    ) -> None:
        self.lines = self.events = self.tampered = self.read = 0
        self.first, self.last = inf, -inf
        self.warnings: list[str] = []
        self._inputs = inputs
        self._rules = rules
        self._progress = progress
        self._asterisks = frozenset(replay_input.source.asterisk for replay_input in inputs)
        self._sources: set[str] = set()
        self._friends = Friends(MAX_REMEMBERED)
        self._detector = Detector(
            rules,
            exempt,
            self._friends,
            sources=_known_sources(self._asterisks if len(inputs) > 1 else frozenset()),
            bounds=Bounds(attempts=4 * MAX_REMEMBERED, sessions=MAX_REMEMBERED),
        )
        self.outcomes = Outcomes(released=self._release)
        self._now = self._due = -inf
        self._shift = 0.0

    @property
    def attempts(self) -> int:
        """The number of attempts in all replayed logs and recordings."""
        return self._detector.counts.attempts

    @property
    def forgotten(self) -> int:
        """The number of entries that the detector discarded because its tables were full."""
        return self._detector.evicted

    def run(self) -> None:
        """Judge the events of all inputs in the order of their times, and record the outcomes."""
        self._judge(merge(*map(self._events, self._inputs), key=_time))
        self._tick(max(self.last + self._shift, self._now) + PATIENCE)

    def _events(self, replay_input: ReplayInput) -> Iterator[SecurityEvent]:
        for batch in read_batches(replay_input):
            self._record_batch(batch)
            yield from batch.events

    def _record_batch(self, batch: Batch) -> None:
        """Add ``batch``, a part of a log, to the totals, and count its events for each sender."""
        self.lines += batch.lines
        self.tampered += batch.tampered
        self.events += len(batch.events)
        self.warnings += batch.warnings
        self.read += batch.read
        self._progress(self.read)
        if batch.events:
            times = [*map(_time, batch.events)]
            self.first, self.last = min(self.first, *times), max(self.last, *times)
            self._record_sources(batch.events)
        for address, number in Counter(map(_address, batch.events)).items():
            self.outcomes.outcome_of(self._detector.subject_of(address), address).events += number

    def _record_sources(self, events: Sequence[SecurityEvent]) -> None:
        """Make the detector deduplicate reports once a second source has appeared.

        One log may be two sources: its security events and its notices. Until the second one appears, the
        detector does not deduplicate, which saves a quarter of the time for a log with one source.
        """
        before = len(self._sources)
        self._sources.update(event.source.name for event in events)
        if before < len(self._sources) > 1:
            self._detector.configure(self._rules, _known_sources(self._asterisks))

    def _judge(self, events: Iterable[SecurityEvent]) -> None:
        observe, success = self._detector.observe, EventKind.SUCCESSFUL_AUTH
        for event in events:
            now = event.time + self._shift
            if not self._now - MAX_STEP_BACK <= now < self._due:
                now = self._advance(now)
            address = event.remote.address
            # Before observe(), which may cause a ban: ``later_succeeded`` is about logins after a ban.
            if event.kind is success and not (event.tampered or event.forgeable):
                self.outcomes.outcome_of(self._detector.subject_of(address), address).succeed(event.time)
            for effect in observe(event, now):
                self._carry_out(effect)

    def _advance(self, now: float) -> float:
        """Advance the detector's time to ``now`` (epoch seconds), run its periodic work, return its new time.

        If ``now`` is earlier than its time, the clock of a log was set back. Then its time stays, and the
        difference is added to the times of all later events.
        """
        if now < self._now:
            self._shift += self._now - now
            now = self._now
        self._now, self._due = now, now + TICK_INTERVAL
        self._tick(now)
        return now

    def _tick(self, now: float) -> None:
        self._friends.expire(now - self._shift)
        self._detector.bans.expire_assumed(now)
        for effect in self._detector.tick(now, now - self._shift):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        """Record a judgement of the detector. After a login, add its sender to the known phones (friends).

        Ignore alarms.
        """
        if isinstance(effect, Judgement):
            self._record(effect)
        elif isinstance(effect, Login):
            self._friends.add(effect.friend)

    def _record(self, judgement: Judgement) -> None:
        if judgement.disposition is Disposition.FORGED:
            return  # the sender of this event is unknown
        time = judgement.attempt.time
        length = self.outcomes.record(judgement, time)
        if length is not None and judgement.decision is not None:
            banned = judgement.decision
            self._detector.bans.assume(banned.subject, banned.scope, time + self._shift + length)

    def _release(self, subject: Network) -> None:
        """End the bans of a sender in the detector, so that later attempts can lead to a ban again."""
        self._detector.bans.discard_assumed(subject)
        self._detector.record_unban(subject)


def _known_sources(several: frozenset[str]) -> KnownSources:
    return KnownSources(several, corroborated=frozenset(), assumed=Proof.NONCE)
