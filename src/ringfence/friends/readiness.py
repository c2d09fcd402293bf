"""The start-up gate: until the friends are known, no rule bans and the limiter only observes.

Phones that are already registered are friends as soon as every Asterisk has sent its roster, some tenths of a
second after the login. The wait has an end, because a guard that waits for an Asterisk that does not answer
protects no host. The wait is shorter if the store already has friends: then it protects only the few phones
that appeared while no daemon ran.
"""

from collections.abc import Callable, Iterable

from attrs import frozen

AFTER_LISTENING = 3.0
IN_ALL = 5.0
"""Seconds that bans wait for rosters: after every Asterisk is connected, and after the start."""

REMEMBERED_AFTER_LISTENING = 1.0
REMEMBERED_IN_ALL = 2.0
"""The same if the store has friends."""

LIMITER_IN_ALL = 30.0
"""Seconds that the limiter only observes. It can wait, because it limits load and not guesses."""


@frozen(kw_only=True)
class SourceReadiness:
    """An Asterisk as a source of friends: when it connected (monotonic), and whether its roster is known.

    ``roster_ready`` is also true if it is known that no roster will come.
    """

    since: float | None
    roster_ready: bool


class StartupGate:
    """Decides whether enough friends are known; a positive answer is final. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.remembered = False
        """Whether the store had friends at the start."""
        self._began: float | None = None
        self._sources: Callable[[], Iterable[SourceReadiness]] = tuple
        self._bans = self._limiter = False

    def begin(self, sources: Callable[[], Iterable[SourceReadiness]], now: float) -> None:
        """Begin to wait for rosters; ``sources`` returns the state of every Asterisk."""
        self._sources, self._began = sources, now

    def for_bans(self, now: float) -> bool:
        """Whether rules may ban."""
        if not self._bans and self._began is not None:
            after = REMEMBERED_AFTER_LISTENING if self.remembered else AFTER_LISTENING
            in_all = REMEMBERED_IN_ALL if self.remembered else IN_ALL
            self._bans = now - self._began >= in_all or all(
                _is_due(source, now, after) for source in self._sources()
            )
        return self._bans

    def for_limiter(self, now: float) -> bool:
        """Whether the limiter may drop packets."""
        if not self._limiter and self._began is not None:
            self._limiter = now - self._began >= LIMITER_IN_ALL or all(
                source.roster_ready for source in self._sources()
            )
        return self._limiter or self.remembered


def _is_due(source: SourceReadiness, now: float, after: float) -> bool:
    """Whether the roster is known, or is overdue."""
    return source.roster_ready or (source.since is not None and now - source.since >= after)
