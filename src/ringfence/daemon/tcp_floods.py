"""TCP floods of the SIP ports: seconds in which a subject sent more TCP packets than the limiter allows.

They are counted separately from UDP floods, because the source addresses of UDP packets are easily forged. An
attacker could send such packets with the address of a sender that has a TCP connection. They must not count
against this sender.
"""

from collections import OrderedDict, deque

from ringfence.detect.rules import Rule
from ringfence.model import Attempt, Network

_MOST = 4_096


class TcpFloods:
    """Remembers the latest seconds over the limit, for at most 4,096 subjects.

    If there are more, the subject that has been within the limit for the longest time is discarded.
    """

    def __init__(self) -> None:
        self._seconds: OrderedDict[Network, deque[tuple[float, Attempt]]] = OrderedDict()

    def add(self, subject: Network, attempt: Attempt, rule: Rule, now: float) -> tuple[Attempt, ...]:
        """Record that ``subject`` was over the limit for one second at ``now`` (monotonic), as ``attempt``.

        If the subject now has enough attempts for a ban by ``rule``, return and forget them. Otherwise return
        ().
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
