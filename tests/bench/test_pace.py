"""Limits in seconds follow the pace of the machine."""

import pytest
from tests.bench import pace


@pytest.mark.parametrize(("work", "here", "measured"), [(1, 1, 1.9), (2, 2, 3.9), (0.5, 1, 1.9)])
def test_a_limit_is_multiplied_by_the_pace(
    monkeypatch: pytest.MonkeyPatch, work: float, here: float, measured: float
) -> None:
    """On a machine that takes twice as long for the same work, a limit of two seconds is four.

    On one that takes half as long, it stays two.
    """
    monkeypatch.setattr(pace, "_work", lambda: work * pace.REFERENCE)

    assert pace.limited(measured, 2.0) == (f"≤ {2.0 * here:.3g}, 2 at pace 1", True)
    assert pace.limited(measured + 0.2, 2.0)[1] is False


def test_the_work_takes_time() -> None:
    """The piece of work takes CPU time, and its result is a pace."""
    assert pace.pace() > 0.0
