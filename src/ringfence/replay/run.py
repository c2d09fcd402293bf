"""Replay: all sources judged in the order of their times.

The daemon's own detector judges. A ban lasts as long as the enforcer's, longer on each repeat. In reality the
kernel drops packets of banned senders, so most events after a ban would be missing. Here they count as
attempts of the sender, and cause no further ban while the ban lasts. Files contain no wire capture, so no
address can be proven as in the daemon: each is assumed to be proven, so bans are full. A sender that logged
in is a friend from then on, as in the daemon.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from math import inf
from operator import attrgetter
from typing import Self

from attrs import define, field

from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.detect.rules import Rule
from ringfence.detect.unconfirmed_reports import PATIENCE
from ringfence.model import EventKind, Proof, SecurityEvent
from ringfence.networks import NetworkSet
from ringfence.parse.ordinary import FIELDS
from ringfence.replay.beside import ReaderProcess
from ringfence.replay.outcomes import Outcomes
from ringfence.replay.source_reader import Batch, ReplayInput, read_batches

MAX_REMEMBERED = 8_192
"""Limit of subjects and sessions: fewer than in the daemon, since a log may contain a million."""

TICK_INTERVAL = 1.0
"""Seconds of log time between the detector's ticks, as in the daemon."""

MAX_STEP_BACK = 60.0
"""Seconds: if times go back further, a clock was set back, or daylight saving time ended."""

_time = attrgetter("time")
_SOURCE, _TIME = FIELDS.index("source"), FIELDS.index("time")


def replay(
    inputs: Sequence[ReplayInput],
    rules: tuple[Rule, ...],
    exempt: NetworkSet,
    *,
    processes: int = 0,
    progress: Callable[[int], object] = id,
) -> "Replay":
    """Judge all inputs; raise SourceError if one cannot be read.

    ``exempt`` addresses are never banned. ``processes`` inputs, the longest first, are read in processes of
    their own, which changes only the speed. ``progress`` is called with the number of bytes read.

    A single input is assumed to be one source, which saves a quarter of the time. If a second source appears
    in it (a log may contain two), the replay starts over.
    """
    collecting = gc.isenabled()
    gc.disable()  # there are no reference cycles, and searching for them takes a tenth of the time
    try:
        return Replay(rules, exempt, progress, several=len(inputs) > 1).run(inputs, processes=processes)
    except _SecondSourceError:
        return Replay(rules, exempt, progress, several=True).run(inputs, processes=processes)
    finally:
        if collecting:
            gc.enable()


class _SecondSourceError(Exception):
    """An input that was assumed to be one source contains two."""


@define
class Replay:
    """One replay and its results. ``first`` and ``last`` are the times of the first and last event."""

    _rules: tuple[Rule, ...]
    _exempt: NetworkSet
    _progress: Callable[[int], object]
    _several: bool
    lines: int = field(default=0, init=False)
    events: int = field(default=0, init=False)
    tampered: int = field(default=0, init=False)
    read: int = field(default=0, init=False)
    first: float = field(default=inf, init=False)
    last: float = field(default=-inf, init=False)
    warnings: list[str] = field(factory=list, init=False)
    outcomes: Outcomes = field(init=False)
    _source_names: set[str] = field(factory=set, init=False)
    _detector: Detector = field(init=False)
    _now: float = field(default=-inf, init=False)
    _due: float = field(default=-inf, init=False)
    _shift: float = field(default=0.0, init=False)

    @property
    def attempts(self) -> int:
        """The number of attempts, from all sources."""
        return self._detector.counts.attempts

    @property
    def forgotten(self) -> int:
        """The number of entries that the detector discarded because its tables were full."""
        return self._detector.evicted

    def run(self, inputs: Sequence[ReplayInput], *, processes: int) -> Self:
        """Judge all inputs."""
        asterisks = frozenset(replay_input.source.asterisk for replay_input in inputs)
        several = asterisks if self._several else frozenset[str]()
        self._detector = Detector(
            self._rules,
            self._exempt,
            several,
            max_attempts=4 * MAX_REMEMBERED,
            max_sessions=MAX_REMEMBERED,
            assumed=Proof.NONCE,
            corroborated=frozenset(),
        )
        self.outcomes = Outcomes(released=self._detector.record_unban)
        longest = sorted(inputs, key=attrgetter("size"), reverse=True)[:processes]
        with ExitStack() as stack:
            sources: list[Iterable[Batch]] = []
            for replay_input in inputs:
                if replay_input in longest:
                    sources.append(other := ReaderProcess(replay_input))
                    stack.callback(other.close)
                else:
                    sources.append(read_batches(replay_input))
            if len(sources) == 1:
                for batch in sources[0]:
                    self._record_batch(batch)
                    self._judge(batch.events)
            else:
                self._judge(merge(*map(self._events, sources), key=_time))
        self._tick(max(self.last + self._shift, self._now) + PATIENCE)
        return self

    def _events(self, batches: Iterable[Batch]) -> Iterator[SecurityEvent]:
        for batch in batches:
            self._record_batch(batch)
            yield from batch.events

    def _record_batch(self, batch: Batch) -> None:
        """Record the counts of a batch, and its senders."""
        self.lines += batch.lines
        self.tampered += batch.tampered
        self.events += sum(number for _, number in batch.senders)
        self.warnings += batch.warnings
        self.read += batch.read
        self._progress(self.read)
        if batch.columns:
            sources = {id(source): source for source in batch.columns[_SOURCE]}
            self._source_names.update(source.name for source in sources.values())
            if len(self._source_names) > 1 and not self._several:
                raise _SecondSourceError
            self.first = min(self.first, *batch.columns[_TIME])
            self.last = max(self.last, *batch.columns[_TIME])
        for address, number in batch.senders:
            self.outcomes.of(self._detector.subject_of(address), address).events += number

    def _judge(self, events: Iterable[SecurityEvent]) -> None:
        observe, success = self._detector.observe, EventKind.SUCCESSFUL_AUTH
        for event in events:
            now = event.time + self._shift
            if not self._now - MAX_STEP_BACK <= now < self._due:
                now = self._advance(now)
            address = event.remote.address
            if event.kind is success and not event.tampered:  # before the login makes the sender a friend
                self.outcomes.of(self._detector.subject_of(address), address).succeed(event.time)
            judgement = observe(event, now)
            for further in (
                self._detector.take_further_judgements() if self._detector.further_judgements else ()
            ):
                self._record(further)
            if judgement is not None:
                self._record(judgement)

    def _advance(self, now: float) -> float:
        """Run the detector's periodic work; if a clock was set back, time continues without a step."""
        if now < self._now:
            self._shift += self._now - now
            now = self._now
        self._now, self._due = now, now + TICK_INTERVAL
        self._tick(now)
        return now

    def _tick(self, now: float) -> None:
        for judgement in self._detector.tick(now, now - self._shift):
            self._record(judgement)
        self._detector.take_alarms()

    def _record(self, judgement: Judgement) -> None:
        if judgement.disposition is Disposition.FORGED:
            return  # its sender is unknown here
        time = judgement.attempt.time
        length = self.outcomes.record(judgement, time)
        if length is not None and judgement.decision is not None:
            banned = judgement.decision
            self._detector.record_ban(banned.subject, time + self._shift + length, banned.scope)
