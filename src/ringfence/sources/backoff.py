"""How long to wait before the next try: jittered, growing, bounded, for ever."""

import random


class Backoff:
    """Each delay lies between ``shortest`` and three times the one before, ``longest`` at most (seconds).

    The jitter keeps several daemons from knocking in step after a restart of what they all wait for.
    """

    def __init__(
        self, shortest: float = 0.5, longest: float = 30.0, chance: random.Random | None = None
    ) -> None:
        self._shortest = shortest
        self._longest = longest
        self._chance = chance if chance is not None else random.Random()  # noqa: S311 - jitter, no secret
        self._last = shortest

    def next(self) -> float:
        """Give the next delay."""
        self._last = min(self._longest, self._chance.uniform(self._shortest, self._last * 3))
        return self._last

    def reset(self) -> None:
        """Begin anew: the last try went well."""
        self._last = self._shortest
