"""The start-up gate: until the friends are known, no rule bans and the limiter only observes.

Phones that are already registered are friends as soon as every Asterisk has sent its roster, some tenths of a
second after the login. The wait has an end, because a guard that waits for an Asterisk that does not answer
protects no host. The wait is shorter if the store already has friends: then it protects only the few phones
that appeared while no daemon ran.
"""

from collections.abc import Sequence

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
    """Decides whether enough friends are known; a positive answer is final.

    Without :meth:`update` nothing is known.
    """

    def __init__(self) -> None:
        self.remembered = False
        """Whether the store had friends at the start."""
        self.for_bans = False
        """Whether rules may ban."""
        self._began: float | None = None
        self._limiter = False

    @property
    def for_limiter(self) -> bool:
        """Whether the limiter may drop packets."""
        return self._limiter or self.remembered

    def update(self, sources: Sequence[SourceReadiness], now: float) -> None:
        """Update the answers by the state of every Asterisk at ``now`` (monotonic seconds).

        The wait for rosters begins with the first call.
        """
        began = self._began = now if self._began is None else self._began
        after = REMEMBERED_AFTER_LISTENING if self.remembered else AFTER_LISTENING
        in_all = REMEMBERED_IN_ALL if self.remembered else IN_ALL
        if now - began >= in_all or all(_is_due(source, now, after) for source in sources):
            self.for_bans = True
        if now - began >= LIMITER_IN_ALL or all(source.roster_ready for source in sources):
            self._limiter = True


def _is_due(source: SourceReadiness, now: float, after: float) -> bool:
    """Whether the roster is known, or is overdue."""
    return source.roster_ready or (source.since is not None and now - source.since >= after)
