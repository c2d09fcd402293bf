"""The latest events of all sources of one Asterisk. Each event counts once, at its first delivery.

AMI and the SECURITY lines of a log carry the same events with the same time (``EventTV``, in milliseconds).
An event is recognised by its kind, service, remote endpoint and time. Its session is not compared, because a
log may show only a part of it: Asterisk leaves out the text between an ESC and the next ``m``.

Different events may agree in all that is compared. So the deliveries of each source are counted. An event is
new if its source has now delivered such events more often than any other source.
"""

from collections import deque

from ringfence.model import SecurityEvent

REMEMBERED = 35.0
"""Seconds for which a delivery is remembered: longer than ringfence takes to notice a dead AMI connection."""
MOST = 16_384
"""The maximum number of remembered events: five seconds of the fastest measured attack."""

_Identity = tuple[float, int, int, str, str]


class Deliveries:
    """Counts of the deliveries of each event by each source, in the last ``remembered`` seconds.

    At most ``most`` different events are remembered; the oldest are forgotten first.
    """

    def __init__(self, remembered: float = REMEMBERED, most: int = MOST) -> None:
        self._remembered = remembered
        self._most = most
        self._known: dict[_Identity, dict[str, int]] = {}  # how often each source delivered an event
        self._first: deque[tuple[float, _Identity]] = deque()

    def __len__(self) -> int:
        """Return the number of different events that are remembered."""
        return len(self._known)

    def is_new(self, event: SecurityEvent, now: float) -> bool:
        """Record that ``event`` was delivered at ``now`` (monotonic seconds); return whether it is new."""
        first = self._first
        while first and (now - first[0][0] >= self._remembered or len(first) >= self._most):
            del self._known[first.popleft()[1]]
        remote, source = event.remote, event.source.name
        # The values of the enumerations, because hashing a member is slow.
        identity = (event.time, int(remote.address), remote.port, event.kind.value, event.service.value)
        by_source = self._known.get(identity)
        if by_source is None:
            self._known[identity] = {source: 1}
            first.append((now, identity))
            return True
        counted = max(by_source.values())
        by_source[source] = by_source.get(source, 0) + 1
        return by_source[source] > counted
