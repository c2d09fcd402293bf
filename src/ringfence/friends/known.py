"""Whether enough is known of the friends: before that no rule bans, and the limiter only observes.

At the start the phones that are already registered are friends as soon as every Asterisk has given its
roster, some tenths of a second after the login. A guard that waits for an Asterisk that does not answer
guards nobody, so there is an end to it; where the store knows friends already, whom the wait would protect
are those few that came while no daemon ran, and it is shorter.
"""

from collections.abc import Callable, Iterable

from attrs import frozen

AFTER_LISTENING = 3.0
IN_ALL = 5.0
"""So long (seconds) bans wait for rosters: after every Asterisk is heard, and after the start."""

REMEMBERED_AFTER_LISTENING = 1.0
REMEMBERED_IN_ALL = 2.0
"""The same where the store knew friends."""

LIMITER_IN_ALL = 30.0
"""So long (seconds) the limiter only observes. It can wait: what it stops is no guess too many, but load."""


@frozen(kw_only=True)
class Ear:
    """An Asterisk that is listened to: since when (monotonic), and whether its roster is there.

    ``rostered`` is also true where it is known that there will be none.
    """

    since: float | None
    rostered: bool


class Known:
    """Asks the ``ears`` until enough is known; then that stays so. Time is monotonic seconds."""

    def __init__(self) -> None:
        self.remembered = False
        """Whether the store knew friends at the start."""
        self._began: float | None = None
        self._ears: Callable[[], Iterable[Ear]] = tuple
        self._bans = self._limiter = False

    def begin(self, ears: Callable[[], Iterable[Ear]], now: float) -> None:
        """Begin to wait for rosters; before that nothing is known but what is remembered."""
        self._ears, self._began = ears, now

    def for_bans(self, now: float) -> bool:
        """Say whether rules may ban."""
        if not self._bans and self._began is not None:
            after = REMEMBERED_AFTER_LISTENING if self.remembered else AFTER_LISTENING
            in_all = REMEMBERED_IN_ALL if self.remembered else IN_ALL
            self._bans = now - self._began >= in_all or all(_is_late(ear, now, after) for ear in self._ears())
        return self._bans

    def for_limiter(self, now: float) -> bool:
        """Say whether the limiter may drop."""
        if not self._limiter and self._began is not None:
            self._limiter = now - self._began >= LIMITER_IN_ALL or all(ear.rostered for ear in self._ears())
        return self._limiter or self.remembered


def _is_late(ear: Ear, now: float, after: float) -> bool:
    """Say whether its roster is there, or should have been."""
    return ear.rostered or (ear.since is not None and now - ear.since >= after)
