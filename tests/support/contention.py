"""How busy the machine is for a test: the share of the time that work waits for a processor.

    with contention() as busy:
        ...
    assert fast_enough or busy.share > 0.3

A thread does a little work again and again, and compares its CPU time with the clock. Only the time of the
work counts, so an idle machine has a share of almost 0, however slow its processors are.
"""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define

_PAUSE = 0.04
# Some milliseconds of work without the interpreter's lock.
_WORK = 10_000


@define
class Contention:
    """The work so far, by the clock and by its processor (seconds)."""

    wall: float = 0.0
    cpu: float = 0.0
    longest: float = 0.0
    """The longest single wait for a processor (seconds)."""

    @property
    def share(self) -> float:
        """The share of the time that the work waited, from 0 to 1."""
        return max(0.0, 1 - self.cpu / self.wall) if self.wall else 0.0


@contextmanager
def contention() -> Iterator[Contention]:
    """Measure while the block runs."""
    found, stopped = Contention(), threading.Event()

    def measure() -> None:
        while not stopped.wait(_PAUSE):
            began, worked = time.perf_counter(), time.thread_time()
            hashlib.pbkdf2_hmac("sha256", b"work", b"more", _WORK)
            wall, cpu = time.perf_counter() - began, time.thread_time() - worked
            found.wall += wall
            found.cpu += cpu
            found.longest = max(found.longest, wall - cpu)

    thread = threading.Thread(target=measure, name="contention")
    thread.start()
    try:
        yield found
    finally:
        stopped.set()
        thread.join()
