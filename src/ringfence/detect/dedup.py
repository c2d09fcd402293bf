"""Deduplication: an attempt counts once, even if several sources report it, or one source several times.

A source's reports (fold.py) are sorted into buckets: for PJSIP one for each Call-ID of an address; for
chan_sip, whose log names no session, one for all guesses of an address, one for its refusals by an ACL and
one for its calls to unknown extensions; elsewhere one for each kind of failure. A report matches the oldest
attempt of its bucket that is younger than the horizon and that this source has not reported yet. If there is
none, the attempt is new and counts at once. So the number of attempts is the highest number that any one
source reports within the horizon: no attempt counts twice, and one source can report what another misses.

The horizon is short. Otherwise the additional reports of one source would cancel later reports of another for
ever. 10 s is more than three times the longest observed delay of a log line. Two Asterisks never share a
bucket, because the same Call-ID at both means two attempts.

Each source reports the oldest attempt first, so its reports always cover the beginning of a bucket. A bucket
therefore holds the times of its attempts and one position for each source, and a report has a constant cost.
Bounds: 65 536 buckets, 1 024 attempts in each. An attempt that is discarded early can only be counted twice.
"""

from collections import OrderedDict, deque
from math import inf

from attrs import define

from ringfence.detect.fold import AddressKey, address_key, session_key
from ringfence.model import Address, SecurityEvent, Service, SourceId

HORIZON = 10.0  # seconds
_MAX_BUCKETS = 65_536
_MAX_ATTEMPTS = 1_024

_APART = ("device_must_match_acl", "no_extension_match")

Bucket = tuple[str, AddressKey, Service, bytes]
"""The Asterisk, the address, the service, and the session or the kind of failure."""


@define
class _Open:
    """The attempts of one bucket that are younger than the horizon.

    The oldest of them has the number ``first``.

    ``attempts`` holds the time of each first report, and its tag. ``reported`` holds the number of attempts
    that each source has reported.
    """

    attempts: deque[tuple[float, int]]
    reported: dict[str, int]
    first: int = 0

    def match(self, source: SourceId) -> int | None:
        """Record a report of ``source``; return the tag of the known attempt that it reports, else None."""
        number = max(self.reported.get(source.name, 0), self.first)
        if number >= self.first + len(self.attempts):
            return None
        self.reported[source.name] = number + 1
        return self.attempts[number - self.first][1]

    def drop_oldest(self) -> None:
        """Discard the first attempt."""
        self.attempts.popleft()
        self.first += 1


class Deduplicator:
    """Decides for each report whether its attempt is new. ``evicted`` counts attempts discarded early."""

    def __init__(
        self,
        horizon: float = HORIZON,
        *,
        max_buckets: int = _MAX_BUCKETS,
        max_attempts: int = _MAX_ATTEMPTS,
    ) -> None:
        self.evicted = 0
        self._horizon = horizon
        self._max_buckets = max_buckets
        self._max_attempts = max_attempts
        self._buckets: OrderedDict[Bucket, _Open] = OrderedDict()
        self._expire_at = -inf  # no bucket expires before this time

    def __len__(self) -> int:
        """Return the number of buckets."""
        return len(self._buckets)

    def record_report(self, bucket: Bucket, source: SourceId, now: float, tag: int = 0) -> int | None:
        """Record a report of ``source`` at ``now`` (monotonic seconds).

        Return None if it is the first report of an attempt, which gets the tag ``tag``. Otherwise return the
        tag of the attempt that another source has reported.
        """
        known = self._find(bucket, now)
        if known is None:
            if len(self._buckets) >= self._max_buckets:
                _, oldest = self._buckets.popitem(last=False)
                self.evicted += len(oldest.attempts)
            self._buckets[bucket] = _Open(deque(((now, tag),)), {source.name: 1})
            return None
        self._buckets.move_to_end(bucket)
        matched = known.match(source)
        if matched is not None:
            return matched
        if len(known.attempts) >= self._max_attempts:
            known.drop_oldest()
            self.evicted += 1
        known.attempts.append((now, tag))
        known.reported[source.name] = known.first + len(known.attempts)
        return None

    def match_report(self, bucket: Bucket, source: SourceId, now: float) -> int | None:
        """Record a report of ``source`` only if another has reported the attempt; return that one's tag."""
        known = self._find(bucket, now)
        if known is None:
            return None
        matched = known.match(source)
        if matched is not None:
            self._buckets.move_to_end(bucket)
        return matched

    def _find(self, bucket: Bucket, now: float) -> _Open | None:
        """Return a bucket with its open attempts."""
        if now >= self._expire_at:
            self._expire(now)
        known = self._buckets.get(bucket)
        if known is not None:
            while known.attempts and now - known.attempts[0][0] >= self._horizon:
                known.drop_oldest()
        return known

    def _expire(self, now: float) -> None:
        """Discard the buckets without an open attempt: their last report is older than the horizon."""
        while self._buckets:
            bucket, oldest = next(iter(self._buckets.items()))
            if oldest.attempts and now - oldest.attempts[-1][0] < self._horizon:
                self._expire_at = oldest.attempts[-1][0] + self._horizon
                return
            del self._buckets[bucket]


def bucket_of(event: SecurityEvent, address: Address) -> Bucket:
    """Return the bucket of attempts of ``address`` that another source may have reported already."""
    if event.service is Service.PJSIP:
        what = session_key(event.session)
    elif event.service is Service.AMI:
        what = b""  # one failure has two texts in its log, and three kinds of events
    elif event.service is Service.SIP and event.acl_name not in _APART:
        what = b"guess"  # the wire shows no kind of failure
    else:
        what = f"{event.kind}/{event.acl_name}".encode()
    return event.source.asterisk, address_key(address), event.service, what
