"""Detects ineffective bans: attempts that keep arriving from a banned address.

An attempt soon after a ban does not show a fault, because Asterisk still handles requests that it received
before the ban. It handles 3,300 guesses per second (measured). So the requests that wait at the ban take:

* 0.05 s in a UDP socket's buffer (``net.core.rmem_default``): 166 requests with the kernel's overhead;
* 3.8 s in a TCP connection's buffer (``net.ipv4.tcp_rmem``, 6 MiB): at most 12,600 requests of 500 bytes;
* 0.2 s in a queue of PJSIP (``AST_TASKPROCESSOR_HIGH_WATER_LEVEL``): at most 500 requests.

``GRACE`` is enough for four TCP connections with full buffers. A sender with more connections, or a host with
larger buffers, may cause a false alarm. A false alarm bans nothing.

An attempt counts if the time of its event is more than ``GRACE`` after the ban was placed. A single attempt
may be an accident (a clock that was set, a line that was written late), so ``ENOUGH`` attempts are needed.
Packets with a forged source address cause no false alarm: if this address is banned, they are dropped too.
"""

from collections import OrderedDict
from collections.abc import Mapping

from attrs import define

from ringfence.model import Address

GRACE = 15.0
"""Seconds. If the event of an attempt is at most this long after the ban, the attempt does not count."""
ENOUGH = 3
MOST = 1_024
"""The maximum number of addresses. If there are more, the one with the oldest last attempt is forgotten."""


@define
class _Late:
    """The attempts of one address after the ban that was placed at ``since``."""

    since: float
    attempts: int = 0


class Ineffective:
    """Counts the attempts of addresses after their bans."""

    def __init__(self) -> None:
        self._late: OrderedDict[Address, _Late] = OrderedDict()

    def observe(self, address: Address, since: float, time: float) -> bool:
        """Record an attempt of a banned address.

        Return True if the number of attempts reaches ``ENOUGH`` with this one, else False. ``since`` is the
        time of the ban, ``time`` that of the attempt, both in seconds since the epoch. If the address was
        banned again, counting starts again.
        """
        if time <= since + GRACE:
            return False
        late = self._late.get(address)
        if late is None or late.since != since:
            late = self._late[address] = _Late(since)
        late.attempts += 1
        self._late.move_to_end(address)
        if len(self._late) > MOST:
            self._late.popitem(last=False)
        return late.attempts == ENOUGH

    @property
    def confirmed(self) -> Mapping[Address, int]:
        """The addresses with an ineffective ban, each with its number of attempts after the ban."""
        return {address: late.attempts for address, late in self._late.items() if late.attempts >= ENOUGH}
