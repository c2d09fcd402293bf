"""At what time an event of a log counts, and what is an alarm."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from attrs import define, evolve, field
from tests.detect.events import event

from ringfence.model import EventKind, SecurityEvent
from ringfence.parse.reading import Alarm, LogCounts, Reading
from ringfence.sources.hearing import ANCIENT, CLOCK_ALARM, AlarmCount, Hearing, arrival

HOUR = 3_600.0


@pytest.mark.parametrize(
    ("said", "live", "expected"),
    [
        (1_000_000.0, True, 500.0),  # now
        (1_000_000.0 - HOUR, True, 500.0),  # live is now, whatever the line says
        (1_000_000.0 + HOUR, True, 500.0),
        (1_000_000.0 - 10.0, False, 490.0),  # old evidence at its age
        (1_000_000.0 - HOUR, False, 500.0 - HOUR),  # also before the machine was started
        (1_000_000.0 + HOUR, False, 500.0 - ANCIENT),  # an age that cannot be
    ],
)
def test_old_evidence_counts_at_its_own_age(said: float, live: bool, expected: float) -> None:  # noqa: FBT001
    """What is read live counts now; what was written before the start counts when it happened."""
    assert arrival(said, wall=1_000_000.0, mono=500.0, live=live) == expected


@define
class Scripted:
    """A reader that gives what a test says."""

    readings: list[Reading] = field(factory=list)
    held: list[Reading] = field(factory=list)
    deadline: float | None = None
    counts: LogCounts = field(factory=LogCounts)

    def feed(self, data: bytes, now: float) -> list[Reading]:
        """Give what was said; with nothing and the deadline past, what is held back."""
        if not data and self.deadline is not None and now >= self.deadline:
            return self.end(now)
        return self.readings

    def end(self, _: float) -> list[Reading]:
        """Give what is held back."""
        held, self.held, self.deadline = self.held, [], None
        return held


Told = list[tuple[Sequence[SecurityEvent], float]]


def heard(reader: Scripted, *, live: bool, after: float | None = None) -> tuple[Told, Hearing, float]:
    """Have a piece of a log heard; then, after so many seconds, give the reader its turn."""

    async def session() -> tuple[Told, Hearing, float]:
        told: Told = []
        hearing = Hearing(reader, lambda events, when: told.append((events, when)))
        now = asyncio.get_running_loop().time()
        hearing.lines(b"x\n", live=live)
        hearing.tick()
        if after is not None:
            await asyncio.sleep(after)
            hearing.tick()
        return told, hearing, now

    return asyncio.run(session())


def test_events_of_one_time_are_handed_on_together() -> None:
    """Live events come in one call; old ones each at their time."""
    now = time.time()
    events = [evolve(event(EventKind.INVALID_PASSWORD), time=now - age) for age in (20.0, 10.0)]
    reader = Scripted([Reading(1, made) for made in events])

    live, _, at = heard(reader, live=True)
    assert [list(told) for told, _ in live] == [events]
    assert live[0][1] == pytest.approx(at, abs=1)

    old, _, at = heard(reader, live=False)
    assert [list(told) for told, _ in old] == [[made] for made in events]
    assert [when for _, when in old] == [pytest.approx(at - 20, abs=1), pytest.approx(at - 10, abs=1)]


def test_alarms_are_counted_with_the_time_of_the_last() -> None:
    """The parser's alarms and live lines with a wrong time; old lines have old times by right."""
    wrong = evolve(event(EventKind.INVALID_PASSWORD), time=time.time() - HOUR)
    reader = Scripted(
        [Reading(1, alarm=Alarm.QUEUE_FULL), Reading(2, alarm=Alarm.QUEUE_FULL), Reading(3, wrong)]
    )

    _, hearing, _ = heard(reader, live=True)
    assert {name: count.count for name, count in hearing.alarms.items()} == {
        str(Alarm.QUEUE_FULL): 2,
        CLOCK_ALARM: 1,
    }
    assert hearing.alarms[CLOCK_ALARM].last == pytest.approx(time.time(), abs=5)

    _, hearing, _ = heard(Scripted([Reading(1, wrong)]), live=False)
    assert hearing.alarms == {}
    assert AlarmCount(1, 2.0) == AlarmCount(1, 2.0)


def test_what_is_held_back_comes_after_its_time() -> None:
    """A reader that waits for lines that would continue has its turn at its deadline, and not before."""
    made = event(EventKind.INVALID_PASSWORD)
    reader = Scripted(held=[Reading(1, made)], deadline=time.time() + 0.02)
    told, _, _ = heard(reader, live=True)
    assert told == []

    reader = Scripted(held=[Reading(1, made)], deadline=time.time() + 0.02)
    told, hearing, _ = heard(reader, live=True, after=0.05)
    assert [list(events) for events, _ in told] == [[made]]
    assert hearing.patience is None


def test_a_cut_ends_what_is_held_back() -> None:
    """At the end of a file nothing continues what was begun."""

    async def session() -> Told:
        told: Told = []
        hearing = Hearing(
            Scripted(held=[Reading(1, event(EventKind.INVALID_PASSWORD))]),
            lambda events, when: told.append((events, when)),
        )
        hearing.cut()
        return told

    assert len(asyncio.run(session())) == 1
