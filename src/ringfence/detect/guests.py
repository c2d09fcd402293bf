"""Guests: the strangers whose calls Asterisk takes without a password, such as a carrier without an identify.

The kernel copies what a stranger asks by UDP, TCP and WS, and the answers. A call is an INVITE without
credentials that Asterisk does not refuse. Another INVITE of the same call is no new one.

Nothing follows from being a guest: ``ringfence check`` names it, so that an administrator may allow a
carrier. A sender can forge a call, but it can add no address to a list. Bounds: ``MOST`` guests, of each the
calls since it was silent for a day. The guest that called longest ago is forgotten first.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

from attrs import define

from ringfence.detect.conversation import Asked
from ringfence.detect.judgement import Guest
from ringfence.detect.rules import DAY
from ringfence.detect.sessions import remember

if TYPE_CHECKING:
    from ringfence.values.network import Address

MOST = 256
_INVITE = "INVITE"
_REFUSED = 300  # the lowest status by which Asterisk takes no call


@define(eq=False)
class _Calls:
    """One stranger's calls. ``call_id`` is the Call-ID of the last one, ``at`` its time (monotonic seconds).

    ``began`` and ``last`` are the times of the first and the last call, in seconds since the epoch.
    """

    began: float
    last: float = 0.0
    at: float = 0.0
    number: int = 0
    call_id: bytes = b""


class Guests:
    """Remembers the strangers whose calls Asterisk took without a password, and their calls."""

    def __init__(self) -> None:
        self._calls: OrderedDict[Address, _Calls] = OrderedDict()

    def record(self, asked: Asked | None, status: int, now: float, wall: float) -> None:
        """Record that Asterisk answered ``asked`` with ``status``, if that took a stranger's call.

        ``now`` is the time in monotonic seconds, ``wall`` the same time in seconds since the epoch.
        """
        if asked is None or status >= _REFUSED:
            return
        request = asked.request
        if request.method != _INVITE or request.credentials:
            return
        known = self._calls.get(request.address)
        if known is None or now - known.at >= DAY:
            known = _Calls(wall)
        if known.call_id != request.call_ids[0]:
            known.call_id, known.number = request.call_ids[0], known.number + 1
        known.last, known.at = wall, now
        remember(self._calls, request.address, known, MOST)

    def within_a_day(self, now: float) -> list[Guest]:
        """Return the strangers that called without a password within the last day, the latest last."""
        return [
            Guest(address, calls.number, calls.began, calls.last)
            for address, calls in self._calls.items()
            if now - calls.at < DAY
        ]
