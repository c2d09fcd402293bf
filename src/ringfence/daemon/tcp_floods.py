"""TCP floods of the SIP ports: seconds in which a subject exceeded the kernel's limit of packets.

They are counted separately from UDP floods. Datagrams are easily forged, and seconds with forged datagrams
must not count against a sender with a TCP connection.
"""

from collections import OrderedDict, deque

from ringfence.detect.rules import Rule
from ringfence.model import Attempt, Network

_MOST = 4_096


class TcpFloods:
    """The latest seconds over the limit, of at most 4,096 subjects.

    The subject whose latest second is oldest is discarded first.
    """

    def __init__(self) -> None:
        self._seconds: OrderedDict[Network, deque[tuple[float, Attempt]]] = OrderedDict()

    def add(self, subject: Network, attempt: Attempt, rule: Rule, now: float) -> tuple[Attempt, ...]:
        """Record one second over the limit of ``subject``, at ``now`` (monotonic), as ``attempt``.

        If ``rule`` now has enough attempts of ``subject`` within its window, return and forget them;
        otherwise return ().
        """
        seconds = self._seconds.setdefault(subject, deque())
        self._seconds.move_to_end(subject)
        seconds.append((now, attempt))
        while now - seconds[0][0] >= rule.window:
            seconds.popleft()
        if len(seconds) >= rule.attempts:
            del self._seconds[subject]
            return tuple(one for _, one in seconds)
        if len(self._seconds) > _MOST:
            self._seconds.popitem(last=False)
        return ()
