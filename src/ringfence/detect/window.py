"""An exact sliding window: whether there were N attempts by one subject within T seconds.

An attempt made at time t is in the window as long as ``now - t < seconds``. Only the last N can matter, so no
more is kept of a subject: N in T is then a look at the oldest of them, exact at any T. (fail2ban rescales a
counter, sshguard drops the whole entry when its first hit is old: there an attacker who knows the edge gets
nearly twice the allowance.)

Bounds: at most ``max_subjects`` subjects. Subjects whose attempts are all out of the window go first, since
they cost nothing; then those with a single claimed attempt, oldest first, since a forged datagram makes one
for nothing; then whoever has been silent longest. The last two are counted in ``evicted``.
"""

from bisect import insort
from collections import OrderedDict
from math import inf
from operator import itemgetter

from ringfence.model import Attempt, Network, Proof

MAX_SUBJECTS = 65_536  # some 30 MB when forged datagrams have filled it with single attempts


class Window:
    """Counts attempts a subject. Times are monotonic seconds.

    What happened earlier may be told later (a log that was written meanwhile): it takes its place, and counts
    for the window that ends with the subject's latest attempt.
    """

    def __init__(self, attempts: int, seconds: float, max_subjects: int = MAX_SUBJECTS) -> None:
        self.attempts = attempts
        self.seconds = seconds
        self.evicted = 0
        self._max_subjects = max_subjects
        self._expire_at = -inf  # nobody is to be dropped before
        # Both in the order of the last attempt. A subject is in one of them, never in both.
        self._singles: OrderedDict[Network, tuple[float, Attempt]] = OrderedDict()
        self._others: OrderedDict[Network, list[tuple[float, Attempt]]] = OrderedDict()

    def __len__(self) -> int:
        """How many subjects are kept."""
        return len(self._singles) + len(self._others)

    def add(self, subject: Network, attempt: Attempt, now: float) -> int:
        """Count one attempt and say how many are in the window now, ``attempts`` at most."""
        if now >= self._expire_at:
            self._expire(now)
        known = self._others.pop(subject, None)
        if known is None:
            single = self._singles.pop(subject, None)
            known = [single] if single is not None else []
        if not known and len(self) >= self._max_subjects:
            self._evict()
        if not known and attempt.proof is Proof.CLAIMED and self.attempts > 1:
            self._singles[subject] = (now, attempt)
            return 1
        if not known or now >= known[-1][0]:
            known.append((now, attempt))
        else:
            insort(known, (now, attempt), key=itemgetter(0))
        while known[-1][0] - known[0][0] >= self.seconds or len(known) > self.attempts:
            del known[0]
        self._others[subject] = known
        return len(known)

    def evidence(self, subject: Network) -> tuple[Attempt, ...]:
        """Give the attempts that are kept of ``subject``, oldest first."""
        single = self._singles.get(subject)
        kept = [single] if single is not None else self._others.get(subject, [])
        return tuple(attempt for _, attempt in kept)

    def forget(self, subject: Network) -> None:
        """Begin anew with ``subject``."""
        self._singles.pop(subject, None)
        self._others.pop(subject, None)

    def recent(self, now: float, most: int) -> list[tuple[Network, tuple[Attempt, ...]]]:
        """Give the subjects with attempts in the window, most attempts first, ``most`` at most."""
        self._expire(now)
        alive = [
            (subject, tuple(attempt for at, attempt in kept if now - at < self.seconds))
            for subject, kept in self._others.items()
        ]
        alive.sort(key=lambda entry: -len(entry[1]))
        singles = [(subject, (attempt,)) for subject, (_, attempt) in reversed(self._singles.items())]
        return (alive + singles)[:most]

    def _expire(self, now: float) -> None:
        """Drop who has no attempt in the window, and find out when there is the next."""
        last = now
        while self._singles and now - (last := next(iter(self._singles.values()))[0]) >= self.seconds:
            self._singles.popitem(last=False)
        self._expire_at = last + self.seconds
        last = now
        while self._others and now - (last := next(iter(self._others.values()))[-1][0]) >= self.seconds:
            self._others.popitem(last=False)
        self._expire_at = min(self._expire_at, last + self.seconds)

    def _evict(self) -> None:
        (self._singles or self._others).popitem(last=False)
        self.evicted += 1
