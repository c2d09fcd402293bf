"""How fast this machine is now, so that limits in seconds mean the same on each.

A limit in seconds, or in percent of a core, was set for a machine of pace 1. On another one it is multiplied
by the pace: the median time of a fixed piece of work in Python, of that on the machine of pace 1. Virtual
machines of the same kind had paces from 0.8 to 2 on different days. Their shortest times say little: a slow
one is fast for moments.
"""

import json
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

REFERENCE = 0.07
"""The CPU time in seconds of the piece of work on a machine of pace 1."""
_TIMES = 11
_ENTRIES = 40_000


def pace() -> float:
    """Return the pace of this machine now: 2 if it is half as fast as the machine of the limits."""
    return statistics.median(_work() for _ in range(_TIMES)) / REFERENCE


def slowness() -> float:
    """Return the pace of this machine now, or 1 if it is faster than that of the limits."""
    return max(pace(), 1.0)


class Limit(NamedTuple):
    """A limit as a row shows it, and whether it is reached."""

    must: str
    reached: bool


def limited(measured: float, most: float, why: str = "", paces: Sequence[float] = ()) -> Limit:
    """Return the limit ``most`` at this machine's pace.

    ``measured`` and ``most`` are times, or shares of a core. ``why`` is the reason for the limit. The pace is
    the median of ``paces``, which were measured between the trials: it changes within minutes. Without them,
    it is the present one.
    """
    here = statistics.median(paces) if paces else pace()
    return Limit(f"≤ {most * here:.3g}, {most:g} at pace 1{why and f': {why}'}", measured <= most * here)


def _work() -> float:
    """Do the piece of work, which is like that of a daemon with many bans; return its CPU time."""
    began = time.process_time()
    rows = {one * 7_919 % 65_536: {"address": str(one), "left": one / 3} for one in range(_ENTRIES)}
    again = json.loads(json.dumps([*rows.values()]))
    sorted(again, key=lambda row: row["address"])
    return time.process_time() - began
