"""Bans that do not work: whose attempts go on although they should no longer arrive.

Attempts that are told after a ban are no sign by themselves: Asterisk still works off what it had received
before. How much that is: a UDP socket's buffer (``net.core.rmem_default``, 212 992 bytes) holds 166 requests
of 300 to 500 bytes, measured: 0.05 s at the 3 300 guesses a second that Asterisk answers. A TCP connection's
(``net.ipv4.tcp_rmem``, 6 MiB) holds at most 12 600 of 500 bytes: 3.8 s. PJSIP's own queues refuse requests
from 500 waiting on (``AST_TASKPROCESSOR_HIGH_WATER_LEVEL``): 0.2 s. ``GRACE`` has room for four such
connections at once; whoever fills more, on a host that is set to hold more, may be taken for one whose ban
does not work. It is an alarm and bans nobody.

So an attempt counts here that bears an event's time more than GRACE after the ban was placed, and one alone
is an accident (a clock that was set, a line that was written late): ``ENOUGH`` of them show it. A forged
sender needs no ban to fail: packets that bear a banned address are dropped whoever has sent them.
"""

from collections import OrderedDict
from collections.abc import Mapping

from attrs import define

from ringfence.model import Address

GRACE = 15.0
"""How long after a ban attempts may still be what had arrived before (seconds, by the events' own times)."""
ENOUGH = 3
MOST = 1_024
"""How many addresses are remembered; beyond it the one that was told of longest ago is forgotten."""


@define
class _Late:
    """What came from one address after the ban that was placed at ``since``."""

    since: float
    attempts: int = 0


class Ineffective:
    """Remembers who was told of after his ban."""

    def __init__(self) -> None:
        self._late: OrderedDict[Address, _Late] = OrderedDict()

    def observe(self, address: Address, since: float, time: float) -> bool:
        """Note an attempt of a banned address; say whether just this one shows that the ban does not work.

        ``since`` is when the ban was placed, ``time`` the attempt's own time, both on the wall clock. A ban
        that was placed again, after whatever was mended, begins anew.
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
    def shown(self) -> Mapping[Address, int]:
        """The addresses of which it is shown, each with how many attempts came after the ban."""
        return {address: late.attempts for address, late in self._late.items() if late.attempts >= ENOUGH}

    def forget(self, address: Address) -> None:
        """Forget an address: its ban is over, or was lifted."""
        self._late.pop(address, None)
