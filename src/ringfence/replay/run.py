"""Everything that was told, judged in the order of its times, as if it happened now.

The daemon's own detector judges; a ban holds its subject for as long as the enforcer's would, longer on each
return. In truth the kernel drops what a banned sender sends, so most of what comes after a ban would never
have been said: it is counted as his, and bans him no further while he is held. Nobody saw the wire then, so
no address is proven as it would be now: it is taken for what it says, and so bans are full. Who logged in is
a friend from then on, as in the daemon.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from math import inf
from operator import attrgetter
from typing import Self

from attrs import define, field

from ringfence.detect.detector import Detector, Judgement, Standing
from ringfence.detect.doubts import PATIENCE
from ringfence.detect.networks import NetworkSet
from ringfence.detect.rules import Rule
from ringfence.model import EventKind, Proof, SecurityEvent
from ringfence.parse.ordinary import FIELDS
from ringfence.replay.account import Accounts
from ringfence.replay.beside import Beside
from ringfence.replay.story import Batch, Story, told

MOST_REMEMBERED = 8_192
"""So many subjects and sessions: less than the daemon, since a log may name a million."""

TEND_EVERY = 1.0
"""How often the detector does what time asks for (seconds of the log's time), as in the daemon."""

SET_BACK = 60.0
"""Where the times go back by more than this (seconds), a clock was set back, or summer was over."""

_time = attrgetter("time")
_SOURCE, _TIME = FIELDS.index("source"), FIELDS.index("time")


def replay(
    stories: Sequence[Story],
    rules: tuple[Rule, ...],
    never: NetworkSet,
    *,
    beside: int = 0,
    progress: Callable[[int], object] = id,
) -> "Replay":
    """Judge all that the stories tell; SourceError where one cannot be read.

    ``never`` is never banned. So many stories as ``beside`` says, the longest first, are read in processes
    of their own, which changes nothing but the time it takes. ``progress`` is told how many bytes of the
    files have been read.

    A story alone is taken for one witness, which saves a quarter of the time; where a second one speaks up in
    it (a log can be two), everything begins anew.
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing here is in a circle, and to look for circles takes a tenth of the time
    try:
        return Replay(rules, never, progress, several=len(stories) > 1).run(stories, beside=beside)
    except _SecondWitnessError:
        return Replay(rules, never, progress, several=True).run(stories, beside=beside)
    finally:
        if collecting:
            gc.enable()


class _SecondWitnessError(Exception):
    """What was taken for one witness is two."""


@define
class Replay:
    """One run, and what came of it. ``first`` and ``last`` are the times of events, where there are any."""

    _rules: tuple[Rule, ...]
    _never: NetworkSet
    _progress: Callable[[int], object]
    _several: bool
    lines: int = field(default=0, init=False)
    events: int = field(default=0, init=False)
    tampered: int = field(default=0, init=False)
    read: int = field(default=0, init=False)
    first: float = field(default=inf, init=False)
    last: float = field(default=-inf, init=False)
    warnings: list[str] = field(factory=list, init=False)
    accounts: Accounts = field(init=False)
    _witnesses: set[str] = field(factory=set, init=False)
    _detector: Detector = field(init=False)
    _now: float = field(default=-inf, init=False)
    _due: float = field(default=-inf, init=False)
    _shift: float = field(default=0.0, init=False)

    @property
    def attempts(self) -> int:
        """How many attempts were told of, by whomever."""
        return self._detector.counts.attempts

    @property
    def forgotten(self) -> int:
        """How much the detector forgot for want of room."""
        return self._detector.evicted

    def run(self, stories: Sequence[Story], *, beside: int) -> Self:
        """Judge all that the stories tell."""
        asterisks = frozenset(story.source.asterisk for story in stories)
        several = asterisks if self._several else frozenset[str]()
        self._detector = Detector(
            self._rules,
            self._never,
            several,
            max_attempts=4 * MOST_REMEMBERED,
            max_sessions=MOST_REMEMBERED,
            assumed=Proof.NONCE,
        )
        self.accounts = Accounts(let_go=self._detector.release)
        longest = sorted(stories, key=attrgetter("size"), reverse=True)[:beside]
        with ExitStack() as stack:
            sources: list[Iterable[Batch]] = []
            for story in stories:
                if story in longest:
                    sources.append(other := Beside(story))
                    stack.callback(other.close)
                else:
                    sources.append(told(story))
            if len(sources) == 1:
                for batch in sources[0]:
                    self._note(batch)
                    self._judge(batch.events)
            else:
                self._judge(merge(*map(self._events, sources), key=_time))
        self._tend(max(self.last + self._shift, self._now) + PATIENCE)
        return self

    def _events(self, batches: Iterable[Batch]) -> Iterator[SecurityEvent]:
        for batch in batches:
            self._note(batch)
            yield from batch.events

    def _note(self, batch: Batch) -> None:
        """Take the numbers of a batch, and who is in it."""
        self.lines += batch.lines
        self.tampered += batch.tampered
        self.events += sum(number for _, number in batch.senders)
        self.warnings += batch.warnings
        self.read += batch.read
        self._progress(self.read)
        if batch.columns:
            sources = {id(source): source for source in batch.columns[_SOURCE]}
            self._witnesses.update(source.witness for source in sources.values())
            if len(self._witnesses) > 1 and not self._several:
                raise _SecondWitnessError
            self.first = min(self.first, *batch.columns[_TIME])
            self.last = max(self.last, *batch.columns[_TIME])
        for address, number in batch.senders:
            self.accounts.of(self._detector.subject_of(address), address).events += number

    def _judge(self, events: Iterable[SecurityEvent]) -> None:
        observe, success = self._detector.observe, EventKind.SUCCESSFUL_AUTH
        for event in events:
            now = event.time + self._shift
            if not self._now - SET_BACK <= now < self._due:
                now = self._go_on(now)
            address = event.remote.address
            if event.kind is success and not event.tampered:  # before it makes a friend of him
                self.accounts.of(self._detector.subject_of(address), address).succeed(event.time)
            judgement = observe(event, now)
            for further in self._detector.take_further() if self._detector.further else ():
                self._take(further)
            if judgement is not None:
                self._take(judgement)

    def _go_on(self, now: float) -> float:
        """Let the detector do what time asks for; where a clock was set back, time goes on all the same."""
        if now < self._now:
            self._shift += self._now - now
            now = self._now
        self._now, self._due = now, now + TEND_EVERY
        self._tend(now)
        return now

    def _tend(self, now: float) -> None:
        for judgement in self._detector.tend(now, now - self._shift):
            self._take(judgement)
        self._detector.take_notices()

    def _take(self, judgement: Judgement) -> None:
        if judgement.standing is Standing.FORGED:
            return  # by no one here
        time = judgement.attempt.time
        length = self.accounts.judged(judgement, time)
        if length is not None and judgement.decision is not None:
            banned = judgement.decision
            self._detector.hold(banned.subject, time + self._shift + length, banned.scope)
