"""Counts over several subjects: the proven attempts of one prefix, or on one account.

Each prefix and each account has a count: of its attempts, and of the subjects that made them. Only proven
attempts count, so forged addresses cannot fill the tables. Bounds: ``MOST_GROUPS`` counts, of which those
with the oldest last attempt are discarded first. Each count keeps the times of the last ``attempts``
attempts and the last subjects, ``MOST_SUBJECTS`` of a prefix and ``MOST_OF_ACCOUNT`` of an account: a
distributed attack may rotate over many networks, and an account that exists is not an attacker's choice.
Times are monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from attrs import Factory, define

from ringfence.detect.history import Key

MOST_GROUPS = 16_384
MOST_SUBJECTS = 64
MOST_OF_ACCOUNT = 1_024
_Group = TypeVar("_Group", bound=Hashable)


@define
class GroupCount:
    """The times of the latest attempts of a group of senders, and of each sender's last one, latest last."""

    times: deque[float]
    subjects: OrderedDict[Key, float] = Factory(OrderedDict)


class GroupCounts(Generic[_Group]):
    """Counts the attempts of several senders within ``seconds``, in groups: by prefix or by account.

    At most ``most`` counts are kept, each with at most ``subjects`` senders; the oldest are discarded first.
    """

    def __init__(
        self, attempts: int, seconds: float, most: int = MOST_GROUPS, subjects: int = MOST_SUBJECTS
    ) -> None:
        self.attempts = attempts
        self.seconds = seconds
        self._most, self._most_subjects = most, subjects
        self._group_counts: OrderedDict[_Group, GroupCount] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of prefixes or accounts with attempts."""
        return len(self._group_counts)

    def add(self, group: _Group, subject: Key, now: float) -> GroupCount:
        """Count one attempt by the sender ``subject`` for ``group``, a prefix or an account.

        Return the count, without expired attempts.
        """
        count = self._group_counts.get(group)
        if count is None:
            count = self._group_counts[group] = GroupCount(deque(maxlen=self.attempts))
            if len(self._group_counts) > self._most:
                self._group_counts.popitem(last=False)
        else:
            self._group_counts.move_to_end(group)
        count.times.append(now)
        count.subjects[subject] = now
        count.subjects.move_to_end(subject)
        if len(count.subjects) > self._most_subjects:
            count.subjects.popitem(last=False)
        self._prune(count, now)
        return count

    def take_back(self, group: _Group, subject: Key) -> None:
        """Count the sender ``subject`` and its latest attempt for ``group`` no more.

        Call this only if the sender has no other attempt there.
        """
        count = self._group_counts.get(group)
        if count is not None and subject in count.subjects:
            at = count.subjects.pop(subject)
            with suppress(ValueError):  # more attempts since then have pushed it out
                count.times.remove(at)

    def get(self, group: _Group, now: float) -> GroupCount | None:
        """Return the count of a prefix or account, without expired attempts; None if there is no count."""
        count = self._group_counts.get(group)
        if count is not None:
            self._prune(count, now)
        return count

    def forget(self, group: _Group) -> None:
        """Discard the count of ``group``, a prefix or an account, if there is one."""
        self._group_counts.pop(group, None)

    def expire(self, now: float) -> None:
        """Discard the counts whose last attempt is too old."""
        while self._group_counts:
            group, count = next(iter(self._group_counts.items()))
            if count.times and now - count.times[-1] < self.seconds:
                break
            del self._group_counts[group]

    def _prune(self, count: GroupCount, now: float) -> None:
        while count.times and now - count.times[0] >= self.seconds:
            count.times.popleft()
        while count.subjects and now - next(iter(count.subjects.values())) >= self.seconds:
            count.subjects.popitem(last=False)
