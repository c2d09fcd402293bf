"""The two clocks as values, so that a test can set the time, and the text form of durations."""

import time
from collections.abc import Callable

from attrs import frozen


@frozen
class Clock:
    """Both clocks, in seconds: ``wall`` for people and the database, ``mono`` for windows."""

    wall: Callable[[], float] = time.time
    mono: Callable[[], float] = time.monotonic


def format_duration(seconds: float) -> str:
    """Format a duration with its two largest units: ``6d 3h``, ``59m 12s``."""
    units = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, letter in units:
        number, left = divmod(left, size)
        if number or (size == 1 and not parts):
            parts.append(f"{number}{letter}")
    return " ".join(parts[:2])
