"""SECURITY lines as a standby source: they count only while AMI does not deliver the same events.

AMI is the better source: its events have fields, so a sender's text can hardly forge them. A log repeats
these events. So while AMI delivers events, a log's SECURITY lines are skipped. Their bytes are kept until AMI
has delivered their events too. Both sources report in the same order, so a later event from AMI confirms that
all earlier ones were delivered.

- If AMI is lost (its connection ends) or *stalled* (for ``STALLED`` seconds it has not delivered an event of
  a held line), the held bytes are parsed. The events that AMI did not deliver count. From then on the log is
  parsed normally.
- If AMI is back, the log is still parsed up to ``OVERLAP`` seconds after the first event that AMI delivered.
  Lines from before that event count, because no other source reports them.

During these two transitions both sources are read, and :class:`Deliveries` lets each event count
once. While AMI delivers steadily, only the identities of its events are stored for the next transition.

If more than ``MOST_HELD`` bytes wait for AMI, they are parsed at once, so nothing is lost.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define, evolve

from ringfence.parse.line_result import Level, LineResult, LogCounts, Reason
from ringfence.parse.security import time_of
from ringfence.values.event import AMI, SecurityEvent

if TYPE_CHECKING:
    from ringfence.parse.log import LogReader

# -- the latest events of all sources of one Asterisk. Each event counts once, at its first delivery
#
# AMI and the SECURITY lines of a log carry the same events with the same time (``EventTV``, in
# milliseconds). An event is recognized by its kind, service, remote endpoint and time. Its session is not
# compared, because a log may show only a part of it: Asterisk leaves out the text between an ESC and the
# next ``m``.
#
# Different events may agree in all that is compared. So the deliveries of each source are counted. An event
# is new if its source has now delivered such events more often than any other source.


REMEMBERED = 35.0
"""Seconds for which a delivered event is remembered: longer than it takes to notice that AMI is dead."""
MOST = 16_384
"""The maximum number of delivered events that are remembered: five seconds of the fastest attack."""

_Identity = tuple[float, int, int, str, str]


class Deliveries:
    """Finds duplicates: counts how often each source delivered each event in the last ``remembered`` seconds.

    At most ``most`` different events are remembered; the oldest are forgotten first.
    """

    def __init__(self, remembered: float = REMEMBERED, most: int = MOST) -> None:
        self._remembered = remembered
        self._most = most
        self._known: dict[_Identity, dict[str, int]] = {}  # how often each source delivered an event
        self._first: deque[tuple[float, _Identity]] = deque()

    def __len__(self) -> int:
        """Return the number of different events that are remembered."""
        return len(self._known)

    def is_new(self, event: SecurityEvent, now: float) -> bool:
        """Record that ``event`` was delivered at ``now`` (monotonic seconds); return whether it is new."""
        return self.record(_identity_of(event), event.source.name, now)

    def record(self, identity: _Identity, source: str, now: float) -> bool:
        """Record that ``source`` delivered an event with this identity; return whether the event is new.

        It is new if this source has now delivered it more often than any other source has.
        """
        first = self._first
        while first and (now - first[0][0] >= self._remembered or len(first) >= self._most):
            del self._known[first.popleft()[1]]
        by_source = self._known.get(identity)
        if by_source is None:
            self._known[identity] = {source: 1}
            first.append((now, identity))
            return True
        counted = max(by_source.values())
        by_source[source] = by_source.get(source, 0) + 1
        return by_source[source] > counted


def _identity_of(event: SecurityEvent) -> _Identity:
    """Return the fields of an event by which it is recognized when another source delivers it too."""
    remote = event.remote
    return event.time, int(remote.address), remote.port, event.kind.value, event.service.value


OVERLAP = 1.0
"""Seconds by which events may arrive in another order from AMI than in the log.

The orders may differ because several threads of Asterisk report events.
"""
STALLED = 3.0
CAUGHT_UP = 10.0
"""Seconds after which a log stands by (skips SECURITY lines) again, also without a new SECURITY line.

Such a line may show earlier that AMI delivers its events. Without one, the log must have been read to its
end. Then it has no unread line from before AMI came back.
"""
MOST_HELD = 8 * 1024 * 1024
LOOK_EVERY = 0.25
"""Seconds between two checks whether AMI still delivers, while lines of a log are held back.

They are held until AMI has reported the same events.
"""

Sink = Callable[[Sequence[SecurityEvent], float], None]
"""A function that handles events. Its second argument is the time at which they count (monotonic seconds)."""


@define(eq=False)
class Period:
    """A period in which AMI delivers events without interruption.

    ``since`` is when its first events arrived (monotonic seconds). ``first`` and ``last`` are the times that
    Asterisk gave its first and its latest event (seconds since the epoch).
    """

    since: float
    first: float
    last: float


class Coverage:
    """Since when AMI delivers the events of one Asterisk without interruption.

    ``period`` is None if AMI has delivered no event since its connection began, or since the last
    interruption.
    """

    def __init__(self) -> None:
        self.period: Period | None = None

    def deliver(self, first: float, last: float, now: float) -> None:
        """Record that at ``now`` (monotonic seconds) events arrived from AMI.

        ``first`` and ``last`` are the times of the first and the last of them (seconds since the epoch).
        """
        if self.period is None:
            self.period = Period(now, first, last)
        else:
            self.period.last = last

    def end(self) -> None:
        """Record that AMI has stopped delivering events, or may have lost one."""
        self.period = None


class Standby:
    """Merges the security events of one Asterisk from AMI and its logs, and passes each on to ``sink`` once.

    ``confirm`` is called with events from AMI that a log delivered before. These events are not new, but they
    are better evidence than the line of the log. The argument ``ami`` is whether AMI is configured. The
    attribute ``logs`` is the number of logs.
    """

    def __init__(self, sink: Sink, confirm: Sink | None = None, *, ami: bool = True) -> None:
        self.coverage = Coverage()
        self.logs = 0
        self._ami = ami
        self._sink = sink
        self._confirm = confirm
        self._deliveries = Deliveries()
        # AMI's latest events: they are recognized if a log delivers them too. Whole events would take 10 MB.
        self._recent: deque[tuple[float, Sequence[_Identity]]] = deque()
        self._recent_size = 0
        self._merges_until = 0.0

    @property
    def merges(self) -> bool:
        """Whether there is more than one source, so that an event can be delivered twice."""
        return self._ami or self.logs > 1

    def on_ami_events(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Handle the events that AMI delivered at ``now`` (monotonic seconds).

        If a log has delivered events in the last ``REMEMBERED`` seconds, AMI's events are compared with them.
        An event that is not new goes to ``confirm``, and any other to ``sink``.
        """
        if now < self._merges_until:
            new = [event for event in events if self._deliveries.is_new(event, now)]
            if len(new) < len(events) and self._confirm is not None:
                known = {id(event) for event in new}
                self._confirm([event for event in events if id(event) not in known], now)
            if new:
                self._sink(new, now)
            return
        recent = self._recent
        recent.append((now, [_identity_of(event) for event in events]))
        self._recent_size += len(events)
        while self._recent_size > MOST or now - recent[0][0] > REMEMBERED:
            self._recent_size -= len(recent.popleft()[1])
            if not recent:
                break
        self._sink(events, now)

    def is_new(self, event: SecurityEvent, now: float) -> bool:
        """Record that a log delivered ``event`` at ``now`` (monotonic); return False if AMI did before."""
        self._merges_until = now + REMEMBERED
        while self._recent:
            at, earlier = self._recent.popleft()
            for identity in earlier:
                self._deliveries.record(identity, AMI, at)
        self._recent_size = 0
        return self._deliveries.is_new(event, now)


@define
class _Held:
    """Bytes of a log with SECURITY messages that AMI may not have delivered yet.

    ``at`` is the monotonic time when they were read. ``live``: they were written while ringfence ran.
    ``last`` is the time of one of the last events in them (seconds since the epoch), None if no time could be
    read. ``open_streams`` are the streams of containers whose lines were incomplete before them.
    """

    at: float
    live: bool
    data: bytearray
    last: float | None
    open_streams: Sequence[bytes]

    def is_confirmed(self, latest: float, now: float) -> bool:
        """Whether AMI has delivered all events of the held bytes, so that these can be dropped.

        ``latest`` is the time of AMI's last event (epoch), ``now`` is monotonic. The bytes are confirmed if
        ``latest`` is at least ``OVERLAP`` seconds after ``last``. If the bytes were read more than
        ``REMEMBERED`` seconds ago, it is enough that ``latest`` is not before ``last``, and bytes without a
        time are confirmed too.
        """
        old = now - self.at > REMEMBERED
        if self.last is None:
            return old
        return latest >= self.last + OVERLAP or (old and latest >= self.last)


@define
class LogPart:
    """The results of parsing lines of a log that were read together, at the monotonic time ``at``.

    ``live``: the lines were written while ringfence ran.
    """

    at: float
    live: bool
    results: list[LineResult]


class StandbyLog:
    """A log and its parser ``reader``; stands by (skips SECURITY lines) while AMI delivers their events."""

    def __init__(self, standby: Standby, reader: "LogReader") -> None:
        standby.logs += 1
        self._standby = standby
        self._reader = reader
        self._period: Period | None = None
        self._held: deque[_Held] = deque()
        self._size = 0
        self._continues = False

    @property
    def counts(self) -> LogCounts:
        """Numbers of lines of the log, read and skipped, since the daemon's start."""
        return self._reader.counts

    @property
    def deadline(self) -> float | None:
        """When to parse the waiting lines even if no more data comes (seconds since the epoch), or None.

        A line waits if later lines may belong to its message. The deadline is None if no line waits.
        """
        return self._reader.deadline

    @property
    def standing_by(self) -> bool:
        """Whether SECURITY lines are skipped now."""
        return self._period is not None

    @property
    def due_in(self) -> float | None:
        """The seconds until :meth:`end_if_over` should be called; None if no held bytes wait for AMI."""
        if self._period is None or not self._held:
            return None
        last = self._held[-1].last
        return LOOK_EVERY if last is None or last > self._period.last else None

    def receive(self, data: bytes, wall: float, now: float, *, live: bool) -> list[LogPart]:
        """Parse ``data``; without data, parse the waiting lines if their :attr:`deadline` has passed.

        Return the results. If the standby has just ended, the results of the held bytes come before them.
        ``now`` is monotonic, ``wall`` in seconds since the epoch. ``live``: the data was written while
        ringfence ran.
        """
        parts = self.end_if_over(wall, now)
        before, open_streams = self._reader.counts.standby, self._reader.open_streams
        results = self._reader.receive(data, wall)
        if self._period is None:
            self._stand_by_if_delivered(results)
            parts.append(self._without_duplicates(LogPart(now, live, results), wall, now))
        else:
            skipped = self._reader.counts.standby > before
            self._hold(data, now, open_streams, live=live, skipped=skipped)
            parts.append(LogPart(now, live, results))
        return parts

    def end(self, wall: float, now: float, *, live: bool) -> list[LogPart]:
        """Parse the lines that wait for later lines, because none follow, and return the results.

        ``wall`` is in seconds since the epoch, ``now`` is monotonic. ``live``: the lines were written while
        ringfence ran.
        """
        results = self._reader.end(wall)
        return [self._without_duplicates(LogPart(now, live, results), wall, now)]

    def end_if_over(self, wall: float, now: float) -> list[LogPart]:
        """End the standby if AMI no longer delivers, or if too many bytes are held.

        Return the results of the held lines whose events AMI did not deliver; [] while the standby continues.
        ``wall`` is in seconds since the epoch, ``now`` is monotonic.
        """
        period = self._period
        if period is None:
            return []
        self._drop_confirmed(period, now)
        coverage = self._standby.coverage
        if coverage.period is period:
            if self._is_stalled(period, now):
                coverage.end()
            elif self._size <= MOST_HELD:
                return []
        return self.release(wall, now)

    def resume(self, now: float) -> None:
        """Stand by again if at ``now`` (monotonic) AMI has been back for ``CAUGHT_UP`` seconds.

        Call this only after the log was read to its end. Then no line from before AMI came back is unread.
        """
        period = self._standby.coverage.period
        if self._period is None and period is not None and now - period.since >= CAUGHT_UP:
            self._stand_by(period)

    def release(self, wall: float, now: float) -> list[LogPart]:
        """Count SECURITY lines again: parse those that were held back, and return what AMI did not deliver.

        ``wall`` is in seconds since the epoch, ``now`` is monotonic.
        """
        period, held = self._period, [*self._held]
        if period is None:
            return []
        if held:
            _cut_lines(held[-1].data, self._reader.waiting)  # these lines wait in the log's own reader
        self._period = None
        self._reader.skips_security = False
        self._held.clear()
        self._size, self._continues = 0, False
        parts = []
        for one in held:
            reader = self._reader.fresh(one.open_streams)
            results = [*reader.receive(bytes(one.data), wall), *reader.end(wall)]
            missed = [
                result
                for result in results
                if _is_security(result) and not (result.event and _is_covered(result.event, period))
            ]
            part = self._without_duplicates(LogPart(one.at, one.live, missed), wall, now)
            number = sum(result.event is not None for result in part.results)
            self._reader.counts.events += number
            self._reader.counts.standby -= number
            parts.append(part)
        return parts

    def _stand_by_if_delivered(self, results: list[LineResult]) -> None:
        """Stand by (skip SECURITY lines) if AMI has certainly delivered the last event in ``results``."""
        period = self._standby.coverage.period
        if period is None:
            return
        for result in reversed(results):
            if _is_security(result) and result.event is not None:
                if result.event.time >= period.first + OVERLAP:
                    self._stand_by(period)
                return

    def _stand_by(self, period: Period) -> None:
        if not self._reader.waiting:  # lines that wait still count, and a standby would skip them
            self._period = period
            self._reader.skips_security = True

    def _hold(
        self, data: bytes, now: float, open_streams: Sequence[bytes], *, live: bool, skipped: bool
    ) -> None:
        """Keep ``data``, read from the log at ``now`` (monotonic), until AMI has delivered its events.

        ``data`` is kept if SECURITY messages in it were skipped, or if its last message may continue in the
        next data. In the second case, the next data is added to the same bytes. ``open_streams`` were open
        before ``data``.
        """
        sample = self._reader.sample if skipped else None
        last = time_of(sample) if sample is not None else None
        if self._continues and self._held:
            held = self._held[-1]
            held.at = now
            held.data += data
            held.last = last if last is not None else held.last
        elif data and (skipped or self._reader.waiting):
            self._held.append(_Held(now, live, bytearray(data), last, open_streams))
        else:
            return
        self._size += len(data)
        self._continues = self._reader.waiting > 0

    def _drop_confirmed(self, period: Period, now: float) -> None:
        confirmed = 0
        for number, held in enumerate(self._held, 1):
            if held.is_confirmed(period.last, now):
                confirmed = number
            elif held.last is not None:
                break
        if self._continues and confirmed == len(self._held):
            confirmed -= 1
        for _ in range(confirmed):
            self._size -= len(self._held.popleft().data)

    def _is_stalled(self, period: Period, now: float) -> bool:
        """Whether AMI has not delivered the event of a skipped line within ``STALLED`` seconds."""
        for held in self._held:
            if now - held.at <= STALLED:
                return False
            if held.last is not None and held.last > period.last:
                return True
        return False

    def _without_duplicates(self, part: LogPart, wall: float, now: float) -> LogPart:
        """Mark the SECURITY events of ``part`` that AMI or another log has already delivered.

        The results of these events lose the event and get ``Reason.DUPLICATE``. ``part`` is changed in place
        and returned. If there is only one source, nothing is changed. ``wall`` (since the epoch) and ``now``
        (monotonic) are the same moment.
        """
        period = self._standby.coverage.period
        results = part.results if self._standby.merges else []
        for number, result in enumerate(results):
            event = result.event
            if event is None or not _is_security(result):
                continue
            if not part.live and wall - event.time > REMEMBERED:
                continue  # no duplicate: AMI did not deliver so old an event to this process
            if (period is not None and _is_covered(event, period)) or not self._standby.is_new(event, now):
                results[number] = evolve(result, event=None, reason=Reason.DUPLICATE)
        return part


def _is_security(result: LineResult) -> bool:
    return result.level == Level.SECURITY


def _is_covered(event: SecurityEvent, period: Period) -> bool:
    """Whether AMI has certainly delivered the event: its time is ``OVERLAP`` or more inside ``period``."""
    return period.first + OVERLAP <= event.time <= period.last - OVERLAP


def _cut_lines(data: bytearray, number: int) -> None:
    """Remove the last ``number`` lines of ``data``, of which the very last may have no newline yet."""
    if number:
        end = len(data) - data.endswith(b"\n")
        for _ in range(number):
            end = data.rfind(b"\n", 0, max(0, end))
        del data[end + 1 :]
