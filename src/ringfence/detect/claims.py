"""What may be banned on a mere claim: how long, and how many anew in a minute.

Who sends datagrams with forged sources writes down whom he wants banned. So such bans are short, and so many
new ones a minute and no more; beyond that only those that come back are banned, since somebody is spoofing:
who was banned so before, and who goes on for ``PERSISTS`` after he was passed over, until he has made
``INSISTS`` times as many attempts as are asked for. Else a forger who fills each minute's bans would let a
real guesser beside him guess for ever; this way it costs him so many packets for each whom he wants banned.
Of these there are a tenth as many a minute.

Bounds: ``MOST`` subjects that were banned or passed over, the oldest go first: who is forgotten begins anew.
Times are monotonic seconds.
"""

from collections import OrderedDict, deque

from ringfence.detect.history import Key
from ringfence.detect.recent import remember
from ringfence.detect.rules import Claimed

MOST = 65_536
PERSISTS = 10.0
INSISTS = 4
SHARE = 10
MINUTE = 60.0


class Claims:
    """Says how long a claimed ban is, or that there is none now."""

    def __init__(self, terms: Claimed, most: int = MOST) -> None:
        self.terms = terms
        self.refused = 0
        """How often somebody was not banned for want of room in the minute."""
        self._most = most
        self._new: deque[float] = deque()
        self._insisting: deque[float] = deque()
        self._before: OrderedDict[Key, tuple[int, float]] = OrderedDict()
        self._passed_over: OrderedDict[Key, float] = OrderedDict()

    def is_open(self, key: Key, now: float, times: float = 1.0) -> bool:
        """Say whether a ban of this subject could be given now, who has made so many ``times`` the number."""
        if key in self._before or self._has_room(self._new, now, self.terms.per_minute):
            return True
        most = max(1, self.terms.per_minute // SHARE)
        return self._insists(key, now, times) and self._has_room(self._insisting, now, most)

    def pass_over(self, key: Key, now: float) -> None:
        """Take that a subject is not banned for want of room in the minute."""
        self.refused += 1
        self._passed_over.setdefault(key, now)
        if len(self._passed_over) > self._most:
            self._passed_over.popitem(last=False)

    def length(self, key: Key, now: float) -> float:
        """Give how long a new ban of this subject is (seconds), which is counted from now on."""
        number, last = self._before.get(key, (0, now))
        if now - last >= self.terms.returns_within:
            number = 0
        insisted = self._passed_over.pop(key, None) is not None
        if not number:
            has_room = self._has_room(self._new, now, self.terms.per_minute)
            (self._insisting if insisted and not has_room else self._new).append(now)
        remember(self._before, key, (number + 1, now), self._most)
        return self.terms.ban[min(number, len(self.terms.ban) - 1)]

    def _insists(self, key: Key, now: float, times: float) -> bool:
        since = self._passed_over.get(key)
        return since is not None and now - since >= PERSISTS and times >= INSISTS

    def _has_room(self, given: deque[float], now: float, most: int) -> bool:
        while given and now - given[0] >= MINUTE:
            given.popleft()
        return len(given) < most
