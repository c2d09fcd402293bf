"""Joining what several sources tell: one attempt is counted once, whoever tells of it, and how often.

A source's tellings (fold.py) fall into buckets: for PJSIP one for each Call-ID of an address; elsewhere one
for each kind of failure of an address, since chan_sip's log names no session. Within a bucket a source tells
of the oldest attempt that is younger than the horizon and that it has not told of yet; where there is none,
the attempt is new, and counts at once. So the number of attempts is the highest number that any one source
tells of within the horizon: nothing is counted twice, and what one source is made to hide another tells.

The horizon is short, since what one source tells beyond the others would otherwise be a credit for ever: 10 s
is more than three times as late as a log line has been seen to be. Two Asterisks never share a bucket: the
same Call-ID used against both is two attempts.

Since each source tells of the oldest first, what it has told of is always the first so many of a bucket: a
bucket is the times of its attempts and a place for each source, and a telling costs the same however many
there are. Bounds: 65 536 buckets, 1 024 attempts in each; what is forgotten early can only be counted again.
"""

from collections import OrderedDict, deque

from attrs import Factory, define

from ringfence.detect.fold import AddressKey, address_key, session_key
from ringfence.model import Address, SecurityEvent, Service, SourceId

HORIZON = 10.0  # seconds
_MAX_BUCKETS = 65_536
_MAX_ATTEMPTS = 1_024

Bucket = tuple[str, AddressKey, Service, bytes]
"""The Asterisk, the address, the service, and the session or what failed."""


@define
class _Open:
    """The attempts of one bucket that are younger than the horizon: the first is number ``first``."""

    first: int = 0
    times: deque[float] = Factory(deque)
    told: dict[SourceId, int] = Factory(dict)


class Join:
    """Says of each telling whether it is of a new attempt. ``evicted`` counts attempts forgotten early."""

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

    def __len__(self) -> int:
        """How many buckets are kept."""
        return len(self._buckets)

    def is_new(self, bucket: Bucket, source: SourceId, now: float) -> bool:
        """Take a telling of ``source`` at ``now`` (monotonic seconds); say whether the attempt is new."""
        if self.joins(bucket, source, now):
            return False
        known = self._buckets.get(bucket)
        if known is None:
            if len(self._buckets) >= self._max_buckets:
                _, oldest = self._buckets.popitem(last=False)
                self.evicted += len(oldest.times)
            known = self._buckets[bucket] = _Open()
        self._buckets.move_to_end(bucket)
        if len(known.times) >= self._max_attempts:
            self._drop_oldest(known)
            self.evicted += 1
        known.times.append(now)
        known.told[source] = known.first + len(known.times)
        return True

    def joins(self, bucket: Bucket, source: SourceId, now: float) -> bool:
        """Take a telling of ``source`` if another has told of the attempt before; say whether one has."""
        self._expire(now)
        known = self._buckets.get(bucket)
        if known is None:
            return False
        while known.times and now - known.times[0] >= self._horizon:
            self._drop_oldest(known)
        number = max(known.told.get(source, 0), known.first)
        if number >= known.first + len(known.times):
            return False
        known.told[source] = number + 1
        self._buckets.move_to_end(bucket)
        return True

    def _drop_oldest(self, known: _Open) -> None:
        known.times.popleft()
        known.first += 1

    def _expire(self, now: float) -> None:
        """Forget the buckets whose last telling is older than the horizon; none of their attempts is open."""
        while self._buckets:
            bucket, oldest = next(iter(self._buckets.items()))
            if oldest.times and now - oldest.times[-1] < self._horizon:
                return
            del self._buckets[bucket]


def bucket_of(event: SecurityEvent, address: Address) -> Bucket:
    """Say among which attempts of ``address`` the event may tell of one that another source has told of."""
    if event.service is Service.PJSIP:
        what = session_key(event.session)
    elif event.service is Service.AMI:
        what = b""  # its log has two wordings for one failure, its events have three kinds
    else:
        what = f"{event.kind}/{event.acl_name}".encode()
    return event.source.asterisk, address_key(address), event.service, what
