"""Reads from the kernel which sources send more than the limiter allows, and the counters of all rules."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.errors import FirewallError
from ringfence.firewall.contract import Backend, Counters, Flooder, LimitMode

if TYPE_CHECKING:
    from ringfence.model import Network


class LimiterWatch:
    """Reads the sources that exceed the limit, and the counters of the firewall's rules.

    An alarm is activated if either cannot be read, or if the limiter or the ration had no room.
    """

    def __init__(self, backend: Backend, enforcer: Enforcer, alarms: Alarms) -> None:
        self._backend = backend
        self._enforcer = enforcer
        self._alarms = alarms
        self.latest: Counters | None = None
        """The counters that were read last; None if nothing is enforced, or if they could not be read."""
        self._packets: dict[tuple[Network, bool], int] = {}
        self._full = self._ration_full = 0
        self._failed = False

    def new_flooders(self) -> Sequence[Flooder]:
        """Return the sources that exceeded the limit since the last call.

        Return [] if nothing is enforced, if the limiter is off or only observes, or if the sources cannot be
        read. The second failure in a row activates an alarm. A first failure does not, because it may come
        from damage that is repaired at once.
        """
        if not self._enforcer.enforcing or self._backend.plan.limit.mode is not LimitMode.ENFORCE:
            return []
        try:
            found = self._backend.flooders()
        except FirewallError as error:
            if self._failed:
                self._alarms.activate(AlarmCode.LIMITER_UNREADABLE, "", f"floods cannot be read: {error}")
            self._failed = True
            return []
        self._failed = False
        self._alarms.clear(AlarmCode.LIMITER_UNREADABLE, "")
        before = self._packets
        self._packets = {(flooder.network, flooder.tcp): flooder.packets for flooder in found}
        return [one for one in found if one.packets != before.get((one.network, one.tcp), 0)]

    async def counters(self) -> Counters:
        """Return the counters of the firewall's rules. A thread reads them.

        Return empty counters if nothing is enforced, or if reading fails. A failure activates an alarm.
        Another alarm is activated if the limiter or the ration had no room since the last call.
        """
        self.latest = await self._read()
        return self.latest if self.latest is not None else Counters()

    async def _read(self) -> Counters | None:
        if not self._enforcer.enforcing:
            return None
        try:
            counters = await asyncio.to_thread(self._backend.counters)
        except FirewallError as error:
            self._alarms.activate(AlarmCode.FIREWALL_COUNTERS, "", f"the counters cannot be read: {error}")
            return None
        self._alarms.clear(AlarmCode.FIREWALL_COUNTERS, "")
        before, self._full = self._full, counters.limiter_full
        if counters.limiter_full > before:
            self._alarms.activate(AlarmCode.LIMITER_FULL, "", _FULL)
        before, self._ration_full = self._ration_full, counters.ration_full
        if counters.ration_full > before:
            self._alarms.activate(AlarmCode.RATION_FULL, "", _RATION_FULL)
        return counters


_FULL = (
    "the limiter has no room for more sources: packets come from a million addresses, most of them forged. "
    "With nftables new sources pass unlimited, with ipset they are dropped until there is room"
)
_RATION_FULL = (
    "the ration has no room for more strangers: Asterisk refuses many thousand addresses a second, "
    "most of them forged. Refusals to new strangers pass without a ration; bans work"
)
