"""Limits in seconds follow the pace of the machine."""

import pytest
from tests.bench import pace
from tests.bench.figures import unrationed


@pytest.mark.parametrize(("work", "measured"), [(1, 1.9), (2, 3.9), (0.5, 0.9)])
def test_a_limit_is_multiplied_by_the_pace(
    monkeypatch: pytest.MonkeyPatch, work: float, measured: float
) -> None:
    """On a machine that takes twice as long for the same work, a limit of two seconds is four."""
    monkeypatch.setattr(pace, "_work", lambda: work * pace.REFERENCE)

    assert pace.limited(measured, 2.0) == (f"≤ {2.0 * work:.3g}, 2 at pace 1", True)
    assert pace.limited(measured + 0.2, 2.0)[1] is False


def test_a_limit_follows_the_paces_between_the_trials() -> None:
    """The machine may be slower during the trials than a moment later; their median counts."""
    assert pace.limited(3.9, 2.0, "why", [1.0, 2.0, 9.0]) == ("≤ 4, 2 at pace 1: why", True)
    assert not pace.limited(4.1, 2.0, "why", [1.0, 2.0, 9.0]).reached


def test_answers_without_the_ration_are_those_of_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is never below that of a machine of pace 1, and a trial without an answer misses it."""
    monkeypatch.setattr(pace, "_work", lambda: 0.5 * pace.REFERENCE)
    assert [unrationed([answers], 5)[1] for answers in (0, 1, 25, 26)] == [False, True, True, False]
    monkeypatch.setattr(pace, "_work", lambda: 2 * pace.REFERENCE)
    assert [unrationed([answers], 5)[1] for answers in (45, 46)] == [True, False]


def test_the_work_takes_time() -> None:
    """The piece of work takes CPU time, and its result is a pace."""
    assert pace.pace() > 0.0
