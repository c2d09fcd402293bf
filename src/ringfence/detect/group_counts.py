"""Counts over several subjects: the proven attempts of one prefix, or on one account.

Each prefix and each account has a count: of its attempts, and of the subjects that made them. Only proven
attempts count, so forged addresses cannot fill the tables. Bounds: ``MOST`` counts, of which those with the
oldest last attempt are discarded first. Each count keeps the times of the last ``attempts`` attempts and the
last ``MOST_SUBJECTS`` subjects. Times are monotonic seconds.
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
class GroupCount:
    """The times of the last attempts, and the time of each subject's last attempt (latest subject last)."""

    times: deque[float]
    subjects: OrderedDict[Key, float] = Factory(OrderedDict)


class GroupCounts(Generic[_K]):
    """The counts of attempts within ``seconds``, by prefix or by account.

    ``evicted`` is the number of counts that were discarded because there were more than ``most``.
    """

    def __init__(self, attempts: int, seconds: float, most: int = MOST) -> None:
        self.attempts = attempts
        self.seconds = seconds
        self.evicted = 0
        self._most = most
        self._group_counts: OrderedDict[_K, GroupCount] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of counts."""
        return len(self._group_counts)

    def add(self, what: _K, subject: Key, now: float) -> GroupCount:
        """Count one attempt by ``subject`` for ``what``, a prefix or an account.

        Return the count, without expired attempts.
        """
        count = self._group_counts.get(what)
        if count is None:
            count = self._group_counts[what] = GroupCount(deque(maxlen=self.attempts))
            if len(self._group_counts) > self._most:
                self._group_counts.popitem(last=False)
                self.evicted += 1
        else:
            self._group_counts.move_to_end(what)
        count.times.append(now)
        count.subjects[subject] = now
        count.subjects.move_to_end(subject)
        if len(count.subjects) > MOST_SUBJECTS:
            count.subjects.popitem(last=False)
        self._prune(count, now)
        return count

    def get(self, what: _K, now: float) -> GroupCount | None:
        """Return the count of a prefix or account, without expired attempts; None if there is no count."""
        count = self._group_counts.get(what)
        if count is not None:
            self._prune(count, now)
        return count

    def forget(self, what: _K) -> None:
        """Discard the count of a prefix or account."""
        self._group_counts.pop(what, None)

    def expire(self, now: float) -> list[_K]:
        """Discard the counts whose last attempt has expired; return their keys."""
        over = []
        while self._group_counts:
            what, count = next(iter(self._group_counts.items()))
            if count.times and now - count.times[-1] < self.seconds:
                break
            del self._group_counts[what]
            over.append(what)
        return over

    def _prune(self, count: GroupCount, now: float) -> None:
        while count.times and now - count.times[0] >= self.seconds:
            count.times.popleft()
        while count.subjects and now - next(iter(count.subjects.values())) >= self.seconds:
            count.subjects.popitem(last=False)
