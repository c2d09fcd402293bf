"""The start of the daemon: until the friends are known, no rule bans, and limits of strangers only observe.

These limits are rules of the firewall that drop packets of strangers. That of the refusals to them does not
wait: it ends no registration and no call (``FirewallPlan.observing``).

Phones that are already registered are friends as soon as every Asterisk has sent its roster (its phones
and trunks), some tenths of a second after the login. The wait is limited, because ringfence bans nothing
while it waits, and an Asterisk may not answer at all. The wait is shorter if the store already has
friends, because then only phones that are new since the last run can be missing.

Later, the manager interface of an Asterisk may be down for long (``ROSTERS_LAST``). Its phones may be unknown
then, so rules that wait for its roster (``Until.ROSTERS``) only observe again, as without that interface.
"""

from collections.abc import Sequence

from attrs import frozen

AFTER_LISTENING = 3.0
"""Maximum seconds after the connection to an Asterisk that bans wait for its phones and trunks."""
IN_ALL = 5.0
"""The longest time (seconds) after the start that bans wait for the phones and trunks of all Asterisks."""

REMEMBERED_AFTER_LISTENING = 1.0
REMEMBERED_IN_ALL = 2.0
"""Maximum seconds after the start that bans wait, if the database has friends from before."""

LIMITS_IN_ALL = 30.0
"""Maximum seconds after the start that the kernel's limits for strangers only count packets.

It may be longer than ``IN_ALL``, because these limits protect more against load than against guesses. The
limit of refusals, which protects against guesses, holds from the first moment.
"""

ROSTERS_LAST = 600.0
"""Seconds without the manager interface of an Asterisk after which its phones count as unknown.

The phones of its last roster remain friends for longer than that: at least for an hour.
"""


@frozen(kw_only=True)
class SourceReadiness:
    """The state of the manager interface of an Asterisk, from which the friends come.

    ``since`` is when it connected (monotonic seconds), None if it is not connected. ``roster_ready``: its
    roster (its phones and trunks) is known, or it is known that no roster will come.
    """

    since: float | None
    roster_ready: bool


class StartupGate:
    """Decides whether enough friends are known to ban strangers, and to limit their packets.

    ``for_bans`` and ``for_limits`` are False before the first :meth:`update` (the latter is True if the store
    had friends), and never become False again. *Limits* are the kernel's, such as that of strangers' packets.
    """

    def __init__(self) -> None:
        self.remembered = False
        """Whether the store had friends at the start."""
        self.for_bans = False
        """Whether rules may ban."""
        self.lacks_roster = False
        """Whether the phones of an Asterisk may be unknown, because its roster is missing for long."""
        self._began: float | None = None
        self._reported = 0.0  # when all rosters were there last; at first, when the wait began
        self._limits = False

    @property
    def for_limits(self) -> bool:
        """Whether the kernel's limits for strangers may drop packets."""
        return self._limits or self.remembered

    def update(self, sources: Sequence[SourceReadiness], now: float) -> None:
        """Update all answers from the state of every Asterisk at ``now`` (monotonic seconds).

        The wait for rosters begins with the first call. After the start, call this periodically.
        """
        if self._began is None or all(one.since is not None and one.roster_ready for one in sources):
            self._reported = now
        self.lacks_roster = now - self._reported >= ROSTERS_LAST
        began = self._began = now if self._began is None else self._began
        after = REMEMBERED_AFTER_LISTENING if self.remembered else AFTER_LISTENING
        in_all = REMEMBERED_IN_ALL if self.remembered else IN_ALL
        if now - began >= in_all or all(_is_due(source, now, after) for source in sources):
            self.for_bans = True
        if now - began >= LIMITS_IN_ALL or all(source.roster_ready for source in sources):
            self._limits = True


def _is_due(source: SourceReadiness, now: float, after: float) -> bool:
    """Whether the roster of ``source`` is known, or ``after`` seconds have passed since it connected."""
    return source.roster_ready or (source.since is not None and now - source.since >= after)
