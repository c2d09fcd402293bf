"""A selector that moderates wake-ups, as network drivers moderate interrupts.

One guess causes some six packets and lines of logs. Each of these would wake up the event loop, and the
wake-ups would cost more time than decoding and judging the guess. So under sustained load the loop wakes up
at most once in ``PERIOD`` seconds, and handles everything that has arrived. After a pause, it handles the
first events at once.

So a ban may come ``PERIOD`` seconds later than without moderation, but only if the load has already lasted
for ``ONSET`` seconds.
"""

import math
import selectors
import time
from collections.abc import Callable

PERIOD = 0.001
"""The minimum time between two wake-ups under sustained load (seconds)."""

QUIET = 0.005
"""The load counts as over when nothing has arrived for this time (seconds)."""

ONSET = 0.05
"""The load counts as sustained after this time (seconds).

It must be longer than a few quick guesses, or else the ban comes too late for the last one. Five guesses at
full speed take some 5 ms. With an onset of 5 ms, and a log as the only source, a sender made 6 guesses before
it was banned (median of 20 measurements)."""


class ModeratedSelector(selectors.EpollSelector):
    """An epoll selector that calls epoll at most once in ``PERIOD`` seconds under sustained load.

    ``clock`` returns monotonic seconds; ``sleep`` waits for a number of seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._sleep = sleep
        self._began = self._latest = -math.inf

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the ready descriptors. Wait for at most ``timeout`` seconds; None means without limit.

        With a ``timeout`` of 0, return at once even under load, because the loop has other work to do.
        """
        if timeout is None or timeout > 0:
            rest = self._rest(self._clock())
            if rest > 0:
                self._sleep(rest if timeout is None else min(rest, timeout))
                timeout = None if timeout is None else max(0.0, timeout - rest)
        ready = super().select(timeout)
        if ready:
            now = self._clock()
            if now - self._latest >= QUIET:
                self._began = now
            self._latest = now
        return ready

    def _rest(self, now: float) -> float:
        """Return the seconds to wait before the next call of epoll; 0 or less if it may be called now."""
        if now - self._latest >= QUIET or self._latest - self._began < ONSET:
            return 0.0
        return self._latest + PERIOD - now
