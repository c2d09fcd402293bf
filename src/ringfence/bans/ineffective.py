"""Detects ineffective bans: attempts that keep arriving from a banned address.

An attempt that is reported after a ban does not yet show a fault, because Asterisk still handles packets that
it received before. A UDP socket's buffer (``net.core.rmem_default``, 212,992 bytes) holds 166 requests of 300
to 500 bytes, which Asterisk handles in 0.05 s at 3,300 guesses per second (measured). The buffer of a TCP
connection (``net.ipv4.tcp_rmem``, 6 MiB) holds at most 12,600 requests of 500 bytes: 3.8 s. PJSIP's own
queues refuse requests if 500 are waiting (``AST_TASKPROCESSOR_HIGH_WATER_LEVEL``): 0.2 s. ``GRACE`` has room
for four such connections at once. A sender that fills more, on a host with larger buffers, may cause a false
alarm, which bans nothing.

So an attempt counts if the time of its event is more than ``GRACE`` after the ban was placed. A single one
may be an accident (a clock that was set, a line that was written late), so ``ENOUGH`` of them are needed.
Packets with a forged source address cause no false alarm, because they are dropped too if this address is
banned.
"""

from collections import OrderedDict
from collections.abc import Mapping

from attrs import define

from ringfence.model import Address

GRACE = 15.0
"""Seconds. An attempt may have arrived before the ban if its event is at most this long after the ban."""
ENOUGH = 3
MOST = 1_024
"""The maximum number of addresses. If there are more, the one whose last attempt is oldest is forgotten."""


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
