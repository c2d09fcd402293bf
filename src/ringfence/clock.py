"""Clocks that a test can replace, pauses after failures, and durations as text."""

import time
from datetime import datetime
from pathlib import Path
from random import Random

TEN_YEARS = 10 * 365 * 86_400.0
"""The longest time that can be set or asked for, in seconds."""

_COLUMN_LENGTHS = (
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3_600 * hours for hours in (1, 2, 3, 4, 6, 8, 12)),
    *(86_400 * days for days in (1, 2, 4, 7, 14)),
)


def boot_identity() -> str:
    """Return a text that changes when the monotonic clock begins again; "" if that is unknown.

    The text names the boot of the host, and the time namespace, of which a container may have its own.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/time').stat().st_ino}"
    except (OSError, ValueError):
        return ""


class Clock:
    """The two clocks, in seconds.

    ``wall`` is the time of day, for texts and for the database. ``mono`` is the monotonic clock, which
    measures how much time has passed. It does not jump when someone sets the time of the host. ``boot``
    returns a text that changes when ``mono`` begins again, "" if that is unknown.
    """

    wall = staticmethod(time.time)
    mono = staticmethod(time.monotonic)
    boot = staticmethod(boot_identity)


def until_tick(period: float) -> float:
    """Return the seconds until the monotonic clock is a multiple of ``period``; more than a tenth of it.

    Periodic work that sleeps until then runs at the same moments. So an idle daemon wakes the processor
    seldom: work in a row takes a tenth less CPU time than the same work spread over the second.
    """
    pause = period - time.monotonic() % period
    return pause if pause > period / 10 else pause + period


_ROUNDING = 1.0
"""Seconds by which the clock before a step may be misjudged: it is computed from two clocks."""


def before_step(now: float, step: float) -> float:
    """Return the latest time that the clock may have shown before it was set by ``step`` seconds to ``now``.

    What began by then has times by that clock, which move by ``step``. What began later has the right times,
    and stays as it is: a host without a battery boots with a date in the past.
    """
    return now - step + _ROUNDING


class Backoff:
    """The pauses (seconds) between tries of an operation that fails again and again.

    The first pause is ``shortest``, and each next one is twice as long as the one before. No pause is longer
    than ``longest``.

    With ``chance``, the pauses are random: between ``shortest`` and three times
    the previous pause. So several daemons do not reconnect to a restarted server at the same moment.
    """

    def __init__(
        self,
        shortest: float = 0.5,
        longest: float = 30.0,
        *,
        chance: Random | None = None,
    ) -> None:
        self._shortest = shortest
        self._longest = longest
        self._chance = chance
        self._last: float | None = None

    def next(self) -> float:
        """Return how long to wait (seconds) before the next try, after one more failure."""
        if self._chance is not None:
            before = self._shortest if self._last is None else self._last
            pause = self._chance.uniform(self._shortest, 3 * before)
        else:
            pause = self._shortest if self._last is None else 2 * self._last
        self._last = min(self._longest, pause)
        return self._last

    def reset(self) -> None:
        """Start again with the shortest pause, because the last attempt has succeeded."""
        self._last = None


def format_duration(seconds: float) -> str:
    """Return a duration as text, with its two largest units: ``6d 3h``, ``59m 12s``."""
    units = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, letter in units:
        number, left = divmod(left, size)
        if number or (size == 1 and not parts):
            parts.append(f"{number}{letter}")
    return " ".join(parts[:2])


def time_left(end: str | None) -> str:
    """Return the time from now until ``end`` (RFC 3339) as text; "no end" if it is None."""
    if end is None:
        return "no end"
    return format_duration(datetime.fromisoformat(end).timestamp() - time.time())


def column_length(seconds: float, most: int) -> int:
    """Return how many seconds one column of a chart covers, if the whole chart covers ``seconds``.

    The result is the shortest of ``_COLUMN_LENGTHS`` with which the chart needs at most ``most`` columns. If
    all are too short, it is the longest of them.
    """
    fitting = (length for length in _COLUMN_LENGTHS if seconds <= length * most)
    return next(fitting, _COLUMN_LENGTHS[-1])
