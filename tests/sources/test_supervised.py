"""Supervision of a source: sessions that are begun again, the condition, and what is logged."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from ringfence.clock import Backoff
from ringfence.sources.state import Condition, EndError, State, SupervisedSource


class Pauses(Backoff):
    """Short pauses that are counted."""

    def __init__(self) -> None:
        super().__init__(0.001, 0.002)
        self.number = self.resets = 0

    def next(self) -> float:
        """Return the next delay."""
        self.number += 1
        return super().next()

    def reset(self) -> None:
        """Start again with the shortest delay."""
        self.resets += 1


class Scripted(SupervisedSource):
    """A source whose sessions end as scripted; the last end repeats."""

    def __init__(self, *ends: Exception) -> None:
        self.pauses = Pauses()
        super().__init__(structlog.get_logger().bind(source="scripted"), self.pauses)
        self.sessions = 0
        self._ends = ends

    async def _session(self) -> None:
        self.sessions += 1
        raise self._ends[min(self.sessions, len(self._ends)) - 1]


def run(source: SupervisedSource, until: Callable[[], bool]) -> Sequence[Any]:
    """Run a source until the condition holds; return its log."""

    async def main() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            while not until():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.001)
            task.cancel()

    with capture_logs() as logs:
        asyncio.run(main())
    return logs


LOST, ABSENT = EndError(State.LOST, "closed"), EndError(State.ABSENT, "no such thing")


def test_each_session_is_followed_by_a_pause_and_the_next_session() -> None:
    """After each end the source waits and begins the next session."""
    source = Scripted(LOST)
    run(source, lambda: source.sessions >= 5)
    assert source.pauses.number >= source.sessions - 1
    assert source.pauses.resets == 0


def test_an_end_with_a_pause_of_its_own() -> None:
    """Its pause replaces the source's own, and ends early if the source is to try again."""
    source = Scripted(EndError(State.LOST, "closed", 60.0))
    looks = itertools.count()

    def tried_again() -> bool:
        if next(looks) == 100:  # each look is a millisecond after the one before
            assert source.sessions == 1
            source.retry()
        return source.sessions == 2

    run(source, tried_again)
    assert source.pauses.number == 0


def test_each_change_of_the_state_is_logged_once() -> None:
    """The end of a session is the condition; the log has each change of the state."""
    source = Scripted(LOST, LOST, ABSENT)
    logs = run(source, lambda: source.sessions >= 5)
    assert source.condition == Condition(State.ABSENT, "no such thing")
    assert source.settled.is_set()
    assert [(entry["log_level"], entry["state"]) for entry in logs] == [
        ("warning", "lost"),
        ("warning", "absent"),
    ]


def test_a_defect_is_a_condition_and_logged_in_full_once() -> None:
    """An error of ringfence's own is shown as a state, and the source continues."""
    source = Scripted(KeyError("x"))
    logs = run(source, lambda: source.sessions >= 3)
    assert source.condition == Condition(State.DEFECT, "KeyError; see the log")
    assert [entry["event"] for entry in logs] == ["source.defect", "source.state"]


def test_a_good_session_makes_the_next_pause_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a session that lasted long enough, the pauses start again."""
    monkeypatch.setattr(Scripted, "good_after", 0.0)
    source = Scripted(LOST)
    run(source, lambda: source.sessions >= 2)
    assert source.pauses.resets >= 1


def test_cancelling_at_the_end_of_a_session_ends_the_source() -> None:
    """If a session ends at the moment of the cancellation, the source ends too."""

    class Ending(Scripted):
        async def _session(self) -> None:
            self.sessions += 1
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                raise LOST from None

    source = Ending(LOST)
    run(source, lambda: source.sessions == 1)
    assert source.sessions == 1
