"""The clocks: the host's own by default."""

import time

import pytest

from ringfence.clock import Clock, format_duration


def test_the_clocks_are_the_hosts() -> None:
    """Wall time is the host's, and the monotonic clock never goes back."""
    assert Clock() == Clock(wall=time.time, mono=time.monotonic)


def test_a_test_can_set_the_time() -> None:
    """Each clock can be replaced."""
    clock = Clock(wall=lambda: 5.0, mono=lambda: 7.0)

    assert (clock.wall(), clock.mono()) == (5.0, 7.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (-5.0, "0s"),
        (0.4, "0s"),
        (59.6, "1m"),
        (61.0, "1m 1s"),
        (3_600.0, "1h"),
        (3_601.0, "1h 1s"),
        (5_400.0, "1h 30m"),
        (86_399.0, "23h 59m"),
        (6 * 86_400 + 3 * 3_600 + 59.0, "6d 3h"),
        (315_360_000.0, "3650d"),
    ],
)
def test_durations_as_text(seconds: float, text: str) -> None:
    """A duration is shown in its two largest units that are not zero."""
    assert format_duration(seconds) == text
