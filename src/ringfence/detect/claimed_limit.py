"""Limits for bans on unproven evidence: their duration, and the number of new ones a minute.

Anyone who can forge UDP source addresses can choose whom to get banned. So these bans (*claimed* bans) are
short, and their number a minute is limited. Beyond the limit, only two kinds of subjects are banned: those
with an earlier claimed ban, and those that continue. A subject continues if it was first refused a ban at
least ``PERSISTS`` seconds ago and has made ``INSISTS`` times as many attempts as the rule needs. Without this
exception a forger could use up the bans of each minute, and real guessers could continue for ever. With it, a
forger needs ``INSISTS`` times as many packets for each ban beyond the limit, and the number of these bans a
minute is at most a tenth of the limit (``SHARE``).

Bounds: ``MOST`` subjects with a ban, and as many with a refusal. The oldest are discarded first, and are then
treated as new. Times are monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from math import inf

from ringfence.detect.alarms import spoofing
from ringfence.detect.history import Key
from ringfence.detect.recent import remember
from ringfence.detect.rules import Claimed
from ringfence.model import AlarmChange, Scope

CLAIMED_SCOPES = (Scope.SIP_UDP, Scope.SIP_TCP)
"""The scopes that a claimed ban can have."""

MOST = 65_536
PERSISTS = 10.0
INSISTS = 4
SHARE = 10
MINUTE = 60.0
ALARM_EVERY = 5.0
"""The least time between two alarms about refused bans (seconds)."""


class ClaimedLimit:
    """Decides whether a claimed ban (one on unproven evidence) is allowed now, and how long it lasts."""

    def __init__(self, terms: Claimed, most: int = MOST) -> None:
        self.terms = terms
        self._alarm_at = -inf
        self.refused = False
        """Whether a ban was refused since the last call of :meth:`alarms`."""
        self._most = most
        self._new: deque[float] = deque()
        self._insisting: deque[float] = deque()
        self._before: OrderedDict[Key, tuple[int, float]] = OrderedDict()
        self._refused_since: OrderedDict[Key, float] = OrderedDict()

    def allows(self, key: Key, now: float, times: float = 1.0) -> bool:
        """Whether the subject with ``key`` may get a claimed ban now.

        ``times`` is the number of its attempts, divided by the number that the rule needs.
        """
        if key in self._before or self._has_room(self._new, now, self.terms.per_minute):
            return True
        most = max(1, self.terms.per_minute // SHARE)
        return self._insists(key, now, times) and self._has_room(self._insisting, now, most)

    def record_refusal(self, key: Key, now: float) -> None:
        """Record that the limit refused a ban of this subject."""
        self.refused = True
        self._refused_since.setdefault(key, now)
        if len(self._refused_since) > self._most:
            self._refused_since.popitem(last=False)

    def alarms(self, now: float) -> Sequence[AlarmChange]:
        """Return the alarm that bans were refused, or () if none was refused since the last call.

        Within ``ALARM_EVERY`` seconds after an alarm, return () too.
        """
        refused, self.refused = self.refused, False
        if not refused or now - self._alarm_at < ALARM_EVERY:
            return ()
        self._alarm_at = now
        return (spoofing(self.terms.per_minute),)

    def begin_ban(self, key: Key, now: float) -> float:
        """Count a new claimed ban of the subject with ``key``; return its duration (seconds)."""
        number, last = self._before.get(key, (0, now))
        if now - last >= self.terms.returns_within:
            number = 0
        insisted = self._refused_since.pop(key, None) is not None
        if not number:
            has_room = self._has_room(self._new, now, self.terms.per_minute)
            (self._insisting if insisted and not has_room else self._new).append(now)
        remember(self._before, key, (number + 1, now), self._most)
        return self.terms.ban[min(number, len(self.terms.ban) - 1)]

    def _insists(self, key: Key, now: float, times: float) -> bool:
        since = self._refused_since.get(key)
        return since is not None and now - since >= PERSISTS and times >= INSISTS

    def _has_room(self, given: deque[float], now: float, most: int) -> bool:
        while given and now - given[0] >= MINUTE:
            given.popleft()
        return len(given) < most
