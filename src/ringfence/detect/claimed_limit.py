"""Limits for bans on unproven evidence: their duration, and the number of new ones a minute.

Anyone who can forge UDP source addresses can choose whom to get banned. So these bans (*claimed* bans)
are short, and their number a minute is limited. Beyond the limit, only subjects with an earlier claimed ban
are banned, again at most so many a minute. Subjects with a proven attempt have a limit of their own, of as
many a minute: forged addresses have none, so they cannot use it up. So have subjects that returned a nonce
which proves nothing, because it was sent elsewhere too: a forger must receive one for each. Full bans have
no limit.

Bounds: ``MOST_CLAIMS`` subjects with a ban. The oldest are discarded first, and are then treated as new.
Times are monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from math import inf

from ringfence.detect.history import (
    Key,
)
from ringfence.detect.judgement import spoofing
from ringfence.detect.rules import Claimed
from ringfence.detect.sessions import remember
from ringfence.values.alarm import AlarmChange

MOST_CLAIMS = 32_768
MINUTE = 60.0
ALARM_EVERY = 5.0
"""The least time between two alarms that bans on unproven evidence were too many (seconds)."""


class ClaimedLimit:
    """Decides whether a claimed ban (one on unproven evidence) is allowed now, and how long it lasts."""

    def __init__(self, terms: Claimed, most: int = MOST_CLAIMS) -> None:
        self.terms = terms
        self._alarm_at = -inf
        self.refused = False
        """Whether a ban was refused since the last call of :meth:`alarms`; set by the judge."""
        self._most = most
        self._new: deque[float] = deque()
        self._returning: deque[float] = deque()
        self._proven: deque[float] = deque()
        self._unprovable: deque[float] = deque()
        self._before: OrderedDict[Key, tuple[int, float]] = OrderedDict()
        self._returned: OrderedDict[Key, float] = OrderedDict()  # when a subject returned a nonce

    def record_nonce(self, key: Key, now: float) -> None:
        """Record that a sender has returned a challenge's nonce, although nothing proves its address."""
        remember(self._returned, key, now, self._most)

    def allows(self, key: Key, now: float, *, proven: bool = False) -> bool:
        """Whether the sender ``key`` may be banned on unproven evidence now; ``proven``: part is proven."""
        return self.allows_proven(now) if proven else self._room_for(key, now) is not None

    def _room_for(self, key: Key, now: float) -> deque[float] | None:
        """Return the times of the bans in the last minute that limit a ban of ``key``; None if too many."""
        most = self.terms.per_minute
        if key in self._before and self._has_room(self._returning, now, most):
            return self._returning
        if self._has_room(self._new, now, most):
            return self._new
        lately = now - self._returned.get(key, -inf) < self.terms.returns_within
        return self._unprovable if lately and self._has_room(self._unprovable, now, most) else None

    def allows_proven(self, now: float) -> bool:
        """Whether a sender with some proven attempt may be banned on unproven evidence now."""
        return self._has_room(self._proven, now, self.terms.per_minute)

    def alarms(self, now: float) -> Sequence[AlarmChange]:
        """Return the alarm that bans on unproven evidence were refused, () if none since the last call.

        Within ``ALARM_EVERY`` seconds after an alarm, return () too.
        """
        refused, self.refused = self.refused, False
        if not refused or now - self._alarm_at < ALARM_EVERY:
            return ()
        self._alarm_at = now
        return (spoofing(self.terms.per_minute),)

    def begin_ban(self, key: Key, now: float, *, proven: bool = False) -> float:
        """Count a new ban of ``key`` on unproven evidence; return its duration (seconds)."""
        number, last = self._before.get(key, (0, now))
        if now - last >= self.terms.returns_within:
            number = 0
        room = self._proven if proven else self._room_for(key, now)
        (self._new if room is None else room).append(now)
        remember(self._before, key, (number + 1, now), self._most)
        return self.terms.ban[min(number, len(self.terms.ban) - 1)]

    def _has_room(self, given: deque[float], now: float, most: int) -> bool:
        while given and now - given[0] >= MINUTE:
            given.popleft()
        return len(given) < most
