"""Clocks that a test can replace, pauses after failures, and durations as text."""

import time
from collections.abc import Callable

from attrs import frozen

_COLUMN_LENGTHS = (
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3_600 * hours for hours in (1, 2, 3, 4, 6, 8, 12)),
    *(86_400 * days for days in (1, 2, 4, 7, 14)),
)


@frozen
class Clock:
    """The two clocks, in seconds: ``wall`` for people and the database, ``mono`` for differences of times.

    ``mono`` is the monotonic clock. It does not jump when the time of the host is set.
    """

    wall: Callable[[], float] = time.time
    mono: Callable[[], float] = time.monotonic


class Backoff:
    """Pauses in seconds between attempts of an operation that fails again and again.

    Without ``choose``, the first pause is ``shortest``, and each next one is twice as long as the one before.
    With ``choose`` (``random.uniform``) each pause is random: ``choose`` gets ``shortest`` and three times
    the previous pause, and returns a number between them. So several daemons do not connect at the same time
    after a restart of their server. No pause is longer than ``longest``.
    """

    def __init__(
        self,
        shortest: float = 0.5,
        longest: float = 30.0,
        choose: Callable[[float, float], float] | None = None,
    ) -> None:
        self._shortest = shortest
        self._longest = longest
        self._choose = choose
        self._last: float | None = None

    def next(self) -> float:
        """Return the next pause."""
        if self._choose is not None:
            before = self._shortest if self._last is None else self._last
            pause = self._choose(self._shortest, 3 * before)
        else:
            pause = self._shortest if self._last is None else 2 * self._last
        self._last = min(self._longest, pause)
        return self._last

    def reset(self) -> None:
        """Start again with the shortest pause, because the last attempt has succeeded."""
        self._last = None


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


def column_length(seconds: float, most: int) -> int:
    """Return the length (seconds) of a column in a chart of ``seconds`` with at most ``most`` columns.

    It is the shortest of ``_COLUMN_LENGTHS`` that is long enough, or else the longest of them.
    """
    fitting = (length for length in _COLUMN_LENGTHS if seconds <= length * most)
    return next(fitting, _COLUMN_LENGTHS[-1])
