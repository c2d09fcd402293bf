"""From a log's bytes to events at the time at which they count, and to alarms.

The log's own times and ours: what is *live* counts at its arrival, whatever the line says, so that a wrong
time zone cannot make today's guesses count as yesterday's. (It is an alarm.) What was written while
ringfence was down counts at its own age: a guess of an hour ago is handed on as heard an hour ago, where the
windows see it in its place, and where it bans nobody for what is long over. Old evidence that is dated in the
future has no age that one could believe, and counts as older than any window.

Where Asterisk itself says that its log or its events are incomplete, that is an alarm too, by the parser's
words for it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Protocol

from attrs import frozen

from ringfence.model import SecurityEvent
from ringfence.parse.reading import LogCounts, Reading

CLOCK_OFF = 120.0
"""Where what was written just now is dated further off than this (seconds), a clock or a zone is wrong."""
CLOCK_ALARM = "the log's times are wrong: see the clock and the time zone"

ANCIENT = 400 * 86_400.0
"""The age of what has none that can be believed: older than any window."""

SHORTEST_WAIT = 0.005
"""A reader that asks for its turn at once, again and again, gets it so often (seconds) and no more."""

Sink = Callable[[Sequence[SecurityEvent], float], None]


class LogReader(Protocol):
    """What reads a log's bytes: :class:`ringfence.parse.log.LogReader`. ``now`` is the wall clock."""

    counts: LogCounts
    deadline: float | None

    def feed(self, data: bytes, now: float) -> list[Reading]:
        """Read on."""

    def end(self, now: float) -> list[Reading]:
        """Give what was held back: nothing more continues it."""


@frozen
class AlarmCount:
    """How often an alarm was raised, and when last (wall clock)."""

    count: int
    last: float


def arrival(said: float, wall: float, mono: float, *, live: bool) -> float:
    """Give the monotonic time at which an event counts that says ``said`` and is read now."""
    if live:
        return mono
    age = wall - said
    return mono - (age if age >= 0 else ANCIENT)


class Hearing:
    """Gives ``reader`` what is read, and ``sink`` the events with the monotonic time at which they count.

    ``alarms`` counts each alarm by its words.
    """

    def __init__(self, reader: LogReader, sink: Sink) -> None:
        self.alarms: dict[str, AlarmCount] = {}
        self._reader = reader
        self._sink = sink
        self._live = False
        self._due: float | None = None

    def lines(self, data: bytes, *, live: bool) -> None:
        """Read what is new."""
        self._live = live
        wall = time.time()
        self._take(self._reader.feed(data, wall), wall)

    def cut(self) -> None:
        """Finish what was begun: nothing continues it."""
        wall = time.time()
        self._take(self._reader.end(wall), wall)

    @property
    def patience(self) -> float | None:
        """In how many seconds :meth:`tick` has something to do; None where it has nothing."""
        return None if self._due is None else max(0.0, self._due - asyncio.get_running_loop().time())

    def tick(self) -> None:
        """Hand on what has waited long enough for lines that would continue it."""
        deadline = self._reader.deadline
        if deadline is not None and self.patience == 0.0:
            wall = max(time.time(), deadline)  # the wall clock may have been set back
            self._take(self._reader.feed(b"", wall), wall)

    def _take(self, readings: Iterable[Reading], wall: float) -> None:
        mono = asyncio.get_running_loop().time()
        deadline = self._reader.deadline
        self._due = None if deadline is None else mono + max(SHORTEST_WAIT, deadline - wall)
        events: list[SecurityEvent] = []
        for reading in readings:
            if reading.alarm is not None:
                self.alarm(str(reading.alarm), wall)
            if reading.event is not None:
                events.append(reading.event)
                if self._live and abs(wall - reading.event.time) > CLOCK_OFF:
                    self.alarm(CLOCK_ALARM, wall)
        for when, group in groupby(events, lambda event: arrival(event.time, wall, mono, live=self._live)):
            self._sink(list(group), when)

    def alarm(self, name: str, wall: float) -> None:
        """Count an alarm."""
        known = self.alarms.get(name)
        self.alarms[name] = AlarmCount(known.count + 1 if known else 1, wall)
