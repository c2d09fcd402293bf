"""Conversion of a log's bytes to events, with the time at which they count, and to alarms.

A :class:`FollowedLog` is a log as a source: a file or the journal. Its :class:`LogIngest` gets the lines.

An event is *live* if its line was written while ringfence ran. A live event counts at its arrival, whatever
time the line has. So a wrong time zone cannot make today's guesses count as yesterday's. (It raises an
alarm.)

An event that was written while ringfence was down counts at its own age: a guess of an hour ago counts as
received an hour ago. So the rules count it at its true time, and it causes no ban if it is too old. An old
line with a date in the future has no plausible age. It counts as older than the sliding window of any rule.

Asterisk may report in a line that its log or its events are incomplete. That is an alarm too, with the
parser's text.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from itertools import groupby

import structlog
from attrs import frozen

from ringfence.clock import Backoff
from ringfence.parse.line_result import LogAlarm, LogCounts
from ringfence.sources.standby import LogPart, Sink, StandbyLog
from ringfence.sources.state import SupervisedSource, numbers_of
from ringfence.values.event import SecurityEvent, SourceId

CLOCK_OFF = 120.0
"""The difference in seconds between a new line's time and the present time that raises an alarm."""

ANCIENT = 400 * 86_400.0
"""The age (seconds) given to old lines with a time in the future: longer than any rule's window."""

SHORTEST_WAIT = 0.005
"""The minimum time (seconds) for which lines wait for later lines of the same message.

They wait so long even if their deadline has already passed.
"""


@frozen
class AlarmCount:
    """How often an alarm was raised, and when last (seconds since the epoch)."""

    count: int
    last: float


def effective_time(written: float, wall: float, mono: float, *, live: bool) -> float:
    """Return the time at which an event counts (monotonic seconds).

    ``written`` is the time of its line, and ``wall`` is now, both in seconds since the epoch. ``mono`` is the
    monotonic time at which the line was read. ``live``: the line was written while ringfence ran. An old line
    with a time in the future counts as ``ANCIENT`` seconds old.
    """
    if live:
        return mono
    age = wall - written
    return mono - (age if age >= 0 else ANCIENT)


class LogIngest:
    """Passes a log's bytes to the parser ``log``, and the events that it returns to ``sink``.

    ``sink`` also gets the time at which the events count. ``alarms`` counts the alarms about the log itself.
    """

    def __init__(self, log: StandbyLog, sink: Sink) -> None:
        self.alarms: dict[LogAlarm, AlarmCount] = {}
        self.last_sign: float | None = None
        """The monotonic time at which a line was read last; None before the first line."""
        self._log = log
        self._sink = sink
        self._live = False
        self._due: float | None = None

    @property
    def counts(self) -> LogCounts:
        """Numbers of lines of the log, read and skipped, since the daemon's start."""
        return self._log.counts

    @property
    def standing_by(self) -> bool:
        """Whether SECURITY lines are skipped now, because AMI delivers their events."""
        return self._log.standing_by

    def lines(self, data: bytes, *, live: bool) -> None:
        """Parse ``data``, the next bytes of the log: usually whole lines, or a part of a very long line.

        :meth:`cut` ends an unfinished one. ``live``: the bytes were written while ringfence ran.
        """
        self._live = live
        wall, mono = time.time(), _monotonic()
        self.last_sign = mono
        self._pass_on(self._log.receive(data, wall, mono, live=live), wall)

    def cut(self) -> None:
        """Parse and pass on the lines that wait for the rest of their message, because no rest will come.

        Call this if the next lines do not continue the last ones, for example after a rotation.
        """
        wall, mono = time.time(), _monotonic()
        self._pass_on(self._log.end(wall, mono, live=self._live), wall)

    def close(self) -> None:
        """Parse and pass on the lines that wait, because this log is read no further.

        SECURITY lines whose events AMI has not delivered yet are parsed too.
        """
        wall, mono = time.time(), _monotonic()
        self._pass_on(self._log.release(wall, mono), wall)
        self.cut()

    @property
    def due_in(self) -> float | None:
        """The seconds until :meth:`tick` must be called for lines that wait; None if none wait."""
        due = None if self._due is None else max(0.0, self._due - _monotonic())
        return min((wait for wait in (due, self._log.due_in) if wait is not None), default=None)

    def tick(self) -> None:
        """Parse and pass on lines that have waited long enough for later lines, or for AMI's same events."""
        deadline, wall, mono = self._log.deadline, time.time(), _monotonic()
        if deadline is not None and self._due is not None and mono >= self._due:
            wall = max(wall, deadline)  # the deadline has passed, even if the wall clock was set back
            self._pass_on(self._log.receive(b"", wall, mono, live=self._live), wall)
        else:
            if parts := self._log.end_if_over(wall, mono):
                self._pass_on(parts, wall)
            self._log.resume(mono)

    def _pass_on(self, parts: Iterable[LogPart], wall: float) -> None:
        deadline = self._log.deadline
        self._due = None if deadline is None else _monotonic() + max(SHORTEST_WAIT, deadline - wall)
        for part in parts:
            self._pass_on_part(part, wall)

    def _pass_on_part(self, part: LogPart, wall: float) -> None:
        events: list[SecurityEvent] = []
        for result in part.results:
            if result.alarm is not None:
                self.alarm(result.alarm, wall)
            event = result.event or result.ambiguous
            if event is not None:
                events.append(event)
                if part.live and abs(wall - event.time) > CLOCK_OFF:
                    self.alarm(LogAlarm.CLOCK, wall)
        mono, live = part.at, part.live
        for when, group in groupby(events, lambda event: effective_time(event.time, wall, mono, live=live)):
            self._sink(list(group), when)

    def alarm(self, alarm: LogAlarm, wall: float) -> None:
        """Count an alarm that was raised at ``wall`` (seconds since the epoch)."""
        known = self.alarms.get(alarm)
        self.alarms[alarm] = AlarmCount(known.count + 1 if known else 1, wall)


def _monotonic() -> float:
    return asyncio.get_running_loop().time()


class FollowedLog(SupervisedSource):
    """The base class of logs as sources: a file or the journal. ``ingest`` gets the lines."""

    def __init__(self, source: SourceId, ingest: LogIngest, backoff: Backoff | None) -> None:
        super().__init__(structlog.get_logger().bind(source=str(source)), backoff)
        self.id = source
        self._ingest = ingest

    @property
    def counts(self) -> LogCounts:
        """Numbers of lines of this log, read and skipped, since the daemon's start."""
        return self._ingest.counts

    @property
    def last_sign(self) -> float | None:
        """The monotonic time at which a line was read last; None before the first line."""
        return self._ingest.last_sign

    @property
    def standing_by(self) -> bool:
        """Whether SECURITY lines are skipped now, because AMI delivers their events."""
        return self._ingest.standing_by

    @property
    def numbers(self) -> Mapping[str, object]:
        """The numbers of events, and whether SECURITY lines are skipped now, as the status shows them."""
        return {**numbers_of(self.counts), "standing_by": self.standing_by, "skipped": self.counts.standby}

    @property
    def alarms(self) -> Mapping[LogAlarm, AlarmCount]:
        """The alarms about the log as a source: how often each was raised, and when last."""
        return self._ingest.alarms
