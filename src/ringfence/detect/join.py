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
from math import inf

from attrs import define

from ringfence.detect.fold import AddressKey, address_key, session_key
from ringfence.model import Address, SecurityEvent, Service, SourceId

HORIZON = 10.0  # seconds
_MAX_BUCKETS = 65_536
_MAX_ATTEMPTS = 1_024

Bucket = tuple[str, AddressKey, Service, bytes]
"""The Asterisk, the address, the service, and the session or what failed."""


@define
class _Open:
    """The attempts of one bucket that are younger than the horizon: the first is number ``first``.

    ``told`` says up to which one each witness has told.
    """

    times: deque[float]
    told: dict[str, int]
    first: int = 0

    def joined(self, source: SourceId) -> bool:
        """Take a telling of ``source`` where there is an attempt that it has not told of; say whether."""
        number = max(self.told.get(source.witness, 0), self.first)
        if number >= self.first + len(self.times):
            return False
        self.told[source.witness] = number + 1
        return True

    def drop_oldest(self) -> None:
        """Forget the first attempt."""
        self.times.popleft()
        self.first += 1


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
        self._expire_at = -inf  # no bucket is to be forgotten before

    def __len__(self) -> int:
        """How many buckets are kept."""
        return len(self._buckets)

    def is_new(self, bucket: Bucket, source: SourceId, now: float) -> bool:
        """Take a telling of ``source`` at ``now`` (monotonic seconds); say whether the attempt is new."""
        known = self._find(bucket, now)
        if known is None:
            if len(self._buckets) >= self._max_buckets:
                _, oldest = self._buckets.popitem(last=False)
                self.evicted += len(oldest.times)
            self._buckets[bucket] = _Open(deque((now,)), {source.witness: 1})
            return True
        self._buckets.move_to_end(bucket)
        if known.joined(source):
            return False
        if len(known.times) >= self._max_attempts:
            known.drop_oldest()
            self.evicted += 1
        known.times.append(now)
        known.told[source.witness] = known.first + len(known.times)
        return True

    def joins(self, bucket: Bucket, source: SourceId, now: float) -> bool:
        """Take a telling of ``source`` if another has told of the attempt before; say whether one has."""
        known = self._find(bucket, now)
        if known is None or not known.joined(source):
            return False
        self._buckets.move_to_end(bucket)
        return True

    def _find(self, bucket: Bucket, now: float) -> _Open | None:
        """Give a bucket with the attempts that are still open."""
        if now >= self._expire_at:
            self._expire(now)
        known = self._buckets.get(bucket)
        if known is not None:
            while known.times and now - known.times[0] >= self._horizon:
                known.drop_oldest()
        return known

    def _expire(self, now: float) -> None:
        """Forget the buckets whose last telling is older than the horizon; none of their attempts is open."""
        while self._buckets:
            bucket, oldest = next(iter(self._buckets.items()))
            if oldest.times and now - oldest.times[-1] < self._horizon:
                self._expire_at = oldest.times[-1] + self._horizon
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
