"""The part that reads the packet counters of the firewall's rules, and passes them on to listeners."""

import asyncio
from collections.abc import Sequence

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.ban_facts import Listener
from ringfence.bans.enforcer import Enforcer
from ringfence.errors import FirewallError
from ringfence.firewall.contract import Backend, Counters


class CounterWatch:
    """Reads the packet counters of ringfence's firewall rules. Each of ``listeners`` is called with them.

    An alarm is activated if they cannot be read.
    """

    def __init__(
        self,
        backend: Backend,
        enforcer: Enforcer,
        alarms: Alarms,
        listeners: Sequence[Listener],
    ) -> None:
        self._backend = backend
        self._enforcer = enforcer
        self._alarms = alarms
        self._listeners = listeners
        self.latest: Counters | None = None
        """The counters that were read last; None if nothing is enforced, or if they could not be read."""

    async def read(self) -> Counters:
        """Read the firewall's counters in a thread, call the listeners with them, and return them.

        If nothing is enforced, or if reading fails, call no listener, and return counters that are all 0. A
        failure activates an alarm.
        """
        self.latest = await self._read()
        if self.latest is None:
            return Counters()
        for listener in self._listeners:
            listener.on_fact(self.latest)
        return self.latest

    async def _read(self) -> Counters | None:
        if not self._enforcer.enforcing:
            return None
        try:
            counters = await asyncio.to_thread(self._backend.counters)
        except FirewallError as error:
            self._alarms.activate(AlarmCode.FIREWALL_COUNTERS, "", f"the counters cannot be read: {error}")
            return None
        self._alarms.clear(AlarmCode.FIREWALL_COUNTERS, "")
        return counters
