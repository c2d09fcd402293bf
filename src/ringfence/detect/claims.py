"""What may be banned on a mere claim: how long, and how many anew in a minute.

Who sends datagrams with forged sources writes down whom he wants banned. So such bans are short, and so many
new ones a minute and no more; beyond that only those that come back are banned, since somebody is spoofing.
Bounds: ``MOST`` subjects that were banned so before, the oldest go first: who is forgotten begins anew.
Times are monotonic seconds.
"""

from collections import OrderedDict, deque

from ringfence.detect.history import Key
from ringfence.detect.rules import Claimed

MOST = 65_536
MINUTE = 60.0


class Claims:
    """Says how long a claimed ban is, or that there is none now."""

    def __init__(self, terms: Claimed, most: int = MOST) -> None:
        self.terms = terms
        self.refused = 0
        """How often somebody was not banned for want of room in the minute."""
        self._most = most
        self._new: deque[float] = deque()
        self._before: OrderedDict[Key, tuple[int, float]] = OrderedDict()

    def is_open(self, key: Key, now: float) -> bool:
        """Say whether a ban of this subject could be given now."""
        return self._has_room(now) or key in self._before

    def length(self, key: Key, now: float) -> float | None:
        """Give how long a new ban of this subject is (seconds); None: it is one too many.

        Whoever asks then bans: it is counted.
        """
        number, last = self._before.get(key, (0, now))
        if now - last >= self.terms.returns_within:
            number = 0
        if not number and not self._has_room(now):
            self.refused += 1
            return None
        if not number:
            self._new.append(now)
        self._before[key] = number + 1, now
        self._before.move_to_end(key)
        if len(self._before) > self._most:
            self._before.popitem(last=False)
        return self.terms.ban[min(number, len(self.terms.ban) - 1)]

    def _has_room(self, now: float) -> bool:
        while self._new and now - self._new[0] >= MINUTE:
            self._new.popleft()
        return len(self._new) < self.terms.per_minute
