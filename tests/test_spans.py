"""Lengths of time as they are read."""

import pytest

from ringfence.spans import span


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
def test_lengths_of_time(seconds: float, text: str) -> None:
    """The two largest units that are not nothing."""
    assert span(seconds) == text
