"""Counts over several subjects: the proven attempts of one prefix, or on one account.

A tally for each prefix or account counts the attempts and the subjects that made them. Only proven attempts
count, so forged addresses cannot fill the tables. Bounds: ``MOST`` tallies, those with the oldest last
attempt are discarded first; of each, the last ``attempts`` times and as many subjects as a decision needs.
Times are monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from attrs import Factory, define

from ringfence.detect.history import Key

MOST = 16_384
MOST_SUBJECTS = 64
_K = TypeVar("_K", bound=Hashable)


@define
class Tally:
    """The times of the last attempts, and the last attempt of each subject, the latest subject last."""

    times: deque[float]
    subjects: OrderedDict[Key, float] = Factory(OrderedDict)


class Tallies(Generic[_K]):
    """Tallies of attempts within ``seconds``, by prefix or account."""

    def __init__(self, attempts: int, seconds: float, most: int = MOST) -> None:
        self.attempts = attempts
        self.seconds = seconds
        self.evicted = 0
        self._most = most
        self._tallies: OrderedDict[_K, Tally] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of tallies."""
        return len(self._tallies)

    def add(self, what: _K, subject: Key, now: float) -> Tally:
        """Count one attempt by ``subject``; return the tally without expired attempts."""
        tally = self._tallies.get(what)
        if tally is None:
            tally = self._tallies[what] = Tally(deque(maxlen=self.attempts))
            if len(self._tallies) > self._most:
                self._tallies.popitem(last=False)
                self.evicted += 1
        else:
            self._tallies.move_to_end(what)
        tally.times.append(now)
        tally.subjects[subject] = now
        tally.subjects.move_to_end(subject)
        if len(tally.subjects) > MOST_SUBJECTS:
            tally.subjects.popitem(last=False)
        self._prune(tally, now)
        return tally

    def get(self, what: _K, now: float) -> Tally | None:
        """Return the tally of a prefix or account, without expired attempts, or None."""
        tally = self._tallies.get(what)
        if tally is not None:
            self._prune(tally, now)
        return tally

    def forget(self, what: _K) -> None:
        """Discard the tally of a prefix or account."""
        self._tallies.pop(what, None)

    def expire(self, now: float) -> list[_K]:
        """Discard the tallies whose last attempt has expired; return their keys."""
        over = []
        while self._tallies:
            what, tally = next(iter(self._tallies.items()))
            if tally.times and now - tally.times[-1] < self.seconds:
                break
            del self._tallies[what]
            over.append(what)
        return over

    def _prune(self, tally: Tally, now: float) -> None:
        while tally.times and now - tally.times[0] >= self.seconds:
            tally.times.popleft()
        while tally.subjects and now - next(iter(tally.subjects.values())) >= self.seconds:
            tally.subjects.popitem(last=False)
