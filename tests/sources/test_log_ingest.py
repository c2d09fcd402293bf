"""The time at which an event of a log counts, and alarms."""

import asyncio
import time
from collections.abc import Sequence
from typing import Self

import pytest
from attrs import define, evolve, field
from tests.detect.events import event
from tests.sources.logs import ingest_of
from tests.sources.test_standby import START, line

from ringfence.parse.line_result import LineResult, LogAlarm, LogCounts
from ringfence.parse.log import LogReader
from ringfence.sources.log_ingest import ANCIENT, AlarmCount, LogIngest, effective_time
from ringfence.sources.standby import Standby, StandbyLog
from ringfence.values.event import EventKind, SecurityEvent, SourceId

HOUR = 3_600.0


@pytest.mark.parametrize(
    ("written", "live", "expected"),
    [
        (1_000_000.0, True, 500.0),  # now
        (1_000_000.0 - HOUR, True, 500.0),  # live is now, whatever date the line has
        (1_000_000.0 + HOUR, True, 500.0),
        (1_000_000.0 - 10.0, False, 490.0),  # old evidence at its age
        (1_000_000.0 - HOUR, False, 500.0 - HOUR),  # also before the machine was started
        (1_000_000.0 + HOUR, False, 500.0 - ANCIENT),  # an impossible age
    ],
)
def test_old_evidence_counts_at_its_own_age(written: float, live: bool, expected: float) -> None:  # noqa: FBT001
    """Live lines count now; lines from before the start count at the time of their event."""
    assert effective_time(written, wall=1_000_000.0, mono=500.0, live=live) == expected


@define
class Scripted(LogReader):
    """A reader with scripted results."""

    readings: list[LineResult] = field(factory=list)
    held: list[LineResult] = field(factory=list)
    deadline: float | None = None
    counts: LogCounts = field(factory=LogCounts)
    skips_security: bool = False
    sample: bytes | None = None
    waiting: int = 0
    open_streams: Sequence[bytes] = ()

    def fresh(self, _: Sequence[bytes] = ()) -> Self:
        """Return a reader that has read nothing."""
        return type(self)()

    def receive(self, data: bytes, now: float) -> list[LineResult]:
        """Return the results; without data and after the deadline, the held ones."""
        if not data and self.deadline is not None and now >= self.deadline:
            return self.end(now)
        return self.readings

    def end(self, _: float) -> list[LineResult]:
        """Return the held results."""
        held, self.held, self.deadline = self.held, [], None
        return held


Calls = list[tuple[Sequence[SecurityEvent], float]]


def pass_on(reader: Scripted, *, live: bool, after: float | None = None) -> tuple[Calls, LogIngest, float]:
    """Pass a piece of a log to LogIngest; then, after so many seconds, call its tick."""

    async def session() -> tuple[Calls, LogIngest, float]:
        calls: Calls = []
        ingest = ingest_of(reader, lambda events, when: calls.append((events, when)))
        now = asyncio.get_running_loop().time()
        ingest.lines(b"x\n", live=live)
        ingest.tick()
        if after is not None:
            await asyncio.sleep(after)
            ingest.tick()
        return calls, ingest, now

    return asyncio.run(session())


def test_events_of_one_time_are_passed_on_together() -> None:
    """Live events come in one call; old ones each at their time."""
    now = time.time()
    events = [evolve(event(EventKind.INVALID_PASSWORD), time=now - age) for age in (20.0, 10.0)]
    reader = Scripted([LineResult(1, made) for made in events])

    live, _, at = pass_on(reader, live=True)
    assert [list(calls) for calls, _ in live] == [events]
    assert live[0][1] == pytest.approx(at, abs=1)

    old, _, at = pass_on(reader, live=False)
    assert [list(calls) for calls, _ in old] == [[made] for made in events]
    assert [when for _, when in old] == [pytest.approx(at - 20, abs=1), pytest.approx(at - 10, abs=1)]


def test_alarms_are_counted_with_the_time_of_the_last() -> None:
    """The parser's alarms and live lines with a wrong time count; old lines have old times."""
    wrong = evolve(event(EventKind.INVALID_PASSWORD), time=time.time() - HOUR)
    reader = Scripted(
        [
            LineResult(1, alarm=LogAlarm.QUEUE_FULL),
            LineResult(2, alarm=LogAlarm.QUEUE_FULL),
            LineResult(3, wrong),
        ]
    )

    _, ingest, _ = pass_on(reader, live=True)
    assert {name: count.count for name, count in ingest.alarms.items()} == {
        LogAlarm.QUEUE_FULL: 2,
        LogAlarm.CLOCK: 1,
    }
    assert ingest.alarms[LogAlarm.CLOCK].last == pytest.approx(time.time(), abs=5)

    _, ingest, _ = pass_on(Scripted([LineResult(1, wrong)]), live=False)
    assert ingest.alarms == {}
    assert AlarmCount(1, 2.0) == AlarmCount(1, 2.0)


def test_held_events_come_after_their_time() -> None:
    """A reader that waits for more lines is called at its deadline, and not before."""
    made = event(EventKind.INVALID_PASSWORD)
    reader = Scripted(held=[LineResult(1, made)], deadline=time.time() + 0.02)
    calls, _, _ = pass_on(reader, live=True)
    assert calls == []

    reader = Scripted(held=[LineResult(1, made)], deadline=time.time() + 0.02)
    calls, ingest, _ = pass_on(reader, live=True, after=0.05)
    assert [list(events) for events, _ in calls] == [[made]]
    assert ingest.due_in is None


def test_a_cut_completes_held_lines() -> None:
    """At the end of a file the current message is complete."""

    async def session() -> Calls:
        calls: Calls = []
        ingest = ingest_of(
            Scripted(held=[LineResult(1, event(EventKind.INVALID_PASSWORD))]),
            lambda events, when: calls.append((events, when)),
        )
        ingest.cut()
        return calls

    assert len(asyncio.run(session())) == 1


def test_events_missed_by_ami_count_within_a_second() -> None:
    """A log in standby checks whether AMI still delivers, also without new lines, and when it is closed."""

    async def session(*, closes: bool) -> list[int]:
        ports: list[int] = []
        standby = Standby(lambda _events, _now: None)
        reader = LogReader(SourceId("pbx", "log:full"))
        of_log = StandbyLog(standby, reader)
        ingest = LogIngest(of_log, lambda events, _: ports.extend(one.remote.port for one in events))
        now, wall = asyncio.get_running_loop().time(), time.time()
        standby.coverage.deliver(wall - 100.0, wall - 100.0, now - 100.0)
        ingest.tick()
        stood_by = ingest.standing_by
        ingest.lines(line(1, wall - START), live=True)
        patience = ingest.due_in
        assert ports == []
        assert patience is not None
        standby.coverage.end()
        if closes:
            ingest.close()
        else:
            await asyncio.sleep(patience)
            ingest.tick()
        assert (stood_by, ingest.standing_by) == (True, False)
        return ports

    assert asyncio.run(session(closes=False)) == [1_001]
    assert asyncio.run(session(closes=True)) == [1_001]


def test_each_line_is_a_sign_of_life() -> None:
    """The time of the last sign is that of the last lines, whether or not they are evidence."""
    _, ingest, at = pass_on(Scripted(), live=True)

    assert ingest.last_sign == pytest.approx(at, abs=1)
    assert ingest_of(Scripted(), lambda _events, _when: None).last_sign is None
