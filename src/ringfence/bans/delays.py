"""The times from the report of an attempt to the kernel's acknowledgement of its ban, as a histogram."""

from bisect import bisect_left
from itertools import accumulate

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the histogram's buckets, in seconds; one more bucket has no bound."""

OLD = 60.0
"""The delay in seconds from which on it is not counted: the report was read late, as in an old log."""


class BanDelays:
    """A histogram of the seconds from the last attempt of a banned sender to its ban."""

    def __init__(self) -> None:
        self.sum = 0.0
        """The sum of all counted delays in seconds."""
        self._numbers = [0] * (len(BOUNDS) + 1)

    def record(self, seconds: float) -> None:
        """Count a ban's delay; ignore one of ``OLD`` seconds or more, whose evidence was read late."""
        if seconds < OLD:
            self._numbers[bisect_left(BOUNDS, seconds)] += 1
            self.sum += max(0.0, seconds)

    def cumulative(self) -> list[int]:
        """Return, for each of ``BOUNDS``, the number of delays up to it, and at last the number of all."""
        return list(accumulate(self._numbers))
