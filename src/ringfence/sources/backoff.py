"""Delays before reconnecting: jittered, growing and bounded."""

import random


class Backoff:
    """Each delay lies between ``shortest`` and three times the one before, ``longest`` at most (seconds).

    The jitter keeps several daemons from connecting at the same time after a restart of their server.
    """

    def __init__(
        self, shortest: float = 0.5, longest: float = 30.0, generator: random.Random | None = None
    ) -> None:
        self._shortest = shortest
        self._longest = longest
        self._generator = generator if generator is not None else random.Random()  # noqa: S311 - jitter, no secret
        self._last = shortest

    def next(self) -> float:
        """Return the next delay."""
        self._last = min(self._longest, self._generator.uniform(self._shortest, self._last * 3))
        return self._last

    def reset(self) -> None:
        """Start again with the shortest delay: the last try succeeded."""
        self._last = self._shortest
