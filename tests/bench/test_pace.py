"""Limits in seconds follow the pace of the machine."""

import pytest
from tests.bench import pace


@pytest.mark.parametrize(("work", "measured"), [(1, 1.9), (2, 3.9), (0.5, 0.9)])
def test_a_limit_is_multiplied_by_the_pace(
    monkeypatch: pytest.MonkeyPatch, work: float, measured: float
) -> None:
    """On a machine that takes twice as long for the same work, a limit of two seconds is four."""
    monkeypatch.setattr(pace, "_work", lambda: work * pace.REFERENCE)

    assert pace.limited(measured, 2.0) == (f"≤ {2.0 * work:.3g}, 2 at pace 1", True)
    assert pace.limited(measured + 0.2, 2.0)[1] is False


def test_a_number_of_answers_is_no_smaller_on_a_fast_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that takes half as long, a limit of two answers is two; on a slow one it is more."""
    monkeypatch.setattr(pace, "_work", lambda: 0.5 * pace.REFERENCE)
    assert pace.limited(2, 2, number=True) == ("≤ 2, 2 at pace 1", True)
    monkeypatch.setattr(pace, "_work", lambda: 2 * pace.REFERENCE)
    assert pace.limited(4, 2, number=True) == ("≤ 4, 2 at pace 1", True)


def test_the_work_takes_time() -> None:
    """The piece of work takes CPU time, and its result is a pace."""
    assert pace.pace() > 0.0
