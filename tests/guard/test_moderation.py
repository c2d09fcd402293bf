"""Moderation of wake-ups, on a real socket pair, with a clock that the test advances."""

import selectors
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from attrs import define, field

from ringfence.guard.process import ONSET, PERIOD, QUIET, ModeratedSelector


@define
class Time:
    """A clock that a test advances; ``slept`` holds each pause in seconds."""

    now: float = 100.0
    slept: list[float] = field(factory=list)

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    """Return a clock."""
    return Time()


@pytest.fixture
def selector(time: Time) -> Iterator[ModeratedSelector]:
    """Return a selector of a socket that is always ready."""
    here, there = socket.socketpair()
    with here, there, closing(ModeratedSelector(lambda: time.now, time.sleep)) as selector:
        selector.register(here, selectors.EVENT_READ)
        there.send(b"x")
        yield selector


def load(selector: ModeratedSelector, time: Time, seconds: float) -> None:
    """Handle an event each half a millisecond for this many seconds, without moderation."""
    end = time.now + seconds
    while time.now <= end:
        assert selector.select(0)
        time.now += 0.0005


def test_the_first_events_after_a_pause_are_handled_at_once(selector: ModeratedSelector, time: Time) -> None:
    """Events within ``ONSET`` after a pause are handled without a wait."""
    load(selector, time, ONSET - 0.001)
    assert selector.select(None)
    assert time.slept == []


def test_sustained_load_is_handled_once_in_a_period(selector: ModeratedSelector, time: Time) -> None:
    """After ``ONSET`` the selector waits until ``PERIOD`` has passed since the last events."""
    load(selector, time, 2 * ONSET)
    before = time.now
    assert selector.select(None)
    assert selector.select(1.0)

    assert time.slept == [pytest.approx(PERIOD - 0.0005), pytest.approx(PERIOD)]
    assert time.now - before < 2 * PERIOD


def test_load_ends_with_a_pause(selector: ModeratedSelector, time: Time) -> None:
    """After ``QUIET`` without events the next ones are handled at once again."""
    load(selector, time, 2 * ONSET)
    time.now += QUIET
    assert selector.select(None)
    assert selector.select(None)
    assert time.slept == []


def test_a_loop_with_other_work_never_waits(selector: ModeratedSelector, time: Time) -> None:
    """A timeout of 0 polls the kernel at once, and a short timeout limits the pause."""
    load(selector, time, 2 * ONSET)
    assert selector.select(0)
    assert time.slept == []
    assert selector.select(0.0001)
    assert time.slept == [0.0001]
