"""A clock that a test sets."""

import time
from collections.abc import Callable

from ringfence.clock import Clock, boot_identity


class SetClock(Clock):
    """A clock whose times are what the functions of a test return, and otherwise the host's."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
        boot: Callable[[], str] = boot_identity,
    ) -> None:
        self._wall = wall
        self._mono = mono
        self._boot = boot

    def wall(self) -> float:
        """Return the time of day."""
        return self._wall()

    def mono(self) -> float:
        """Return the monotonic time."""
        return self._mono()

    def boot(self) -> str:
        """Return the identity of the boot."""
        return self._boot()
