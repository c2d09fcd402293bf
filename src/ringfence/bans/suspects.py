"""Suspects: addresses whose requests the kernel copies, so that a returned nonce proves them.

The kernel forgets an address after ``OBSERVE_SECONDS``. Each address is requested again after half that time
at the earliest. At most ``MOST_A_SECOND`` are requested per second, because a request takes some 20 µs, and
there may be many forged senders.
"""

from collections import OrderedDict
from collections.abc import Iterable

from ringfence.clock import Clock
from ringfence.firewall.contract import OBSERVE_MOST, OBSERVE_SECONDS, Backend
from ringfence.model import Address

MOST_A_SECOND = 100


class Suspects:
    """Requests to ``backend`` to observe addresses, within limits."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self._asked: OrderedDict[Address, float] = OrderedDict()
        self._second = 0.0
        self._number = 0

    def __len__(self) -> int:
        """The number of addresses that are remembered as requested."""
        return len(self._asked)

    def observe(self, addresses: Iterable[Address]) -> None:
        """Make the kernel copy the requests of ``addresses``, within the limits."""
        now = self._clock.mono()
        if now - self._second >= 1.0:
            self._second, self._number = now, 0
        wanted = []
        for address in addresses:
            fresh = now - self._asked.get(address, now - OBSERVE_SECONDS) < OBSERVE_SECONDS / 2
            if fresh or self._number >= MOST_A_SECOND:
                continue
            self._number += 1
            self._asked[address] = now
            self._asked.move_to_end(address)
            wanted.append(address)
        while len(self._asked) > OBSERVE_MOST:
            self._asked.popitem(last=False)
        if wanted:
            self._backend.observe(wanted)
