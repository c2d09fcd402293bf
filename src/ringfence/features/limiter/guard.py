"""The limiter as a part of the daemon: its check for floods, its section of the status, and its alarms."""

from collections.abc import Coroutine

from ringfence.features.limiter.alarms import LimiterAlarmCode
from ringfence.features.limiter.floods import FloodJudge, FloodWatch
from ringfence.features.limiter.stage import DROPS, FULL, Limit
from ringfence.firewall.contract import Counters
from ringfence.guard.feature import Fact, Feature, Given, Section, packets_of
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.process import every
from ringfence.values.network import Address

_NUMBERS = {
    DROPS: "Packets over the limit: dropped, or passed if the limiter only observes.",
    FULL: "Packets from sources for which the limiter had no room.",
}
"""The counters of the limiter that the status has, with descriptions."""

_FULL = (
    "the limiter has no room for more sources: packets come from a million addresses, most of them forged. "
    "With nftables new sources pass unlimited, with ipset they are dropped until there is room"
)


class Limiter(Feature):
    """Makes ``judge`` judge floods of packets each second; reports how many packets the limit drops."""

    def __init__(self, side: FirewallSide, judge: FloodJudge) -> None:
        self._side = side
        self._judge = judge
        self._before: Counters | None = None  # by the last reading

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that judges floods of packets."""
        return [every(1.0, "floods", self._judge.check, self._side.common.alarms)]

    def section(self) -> Section:
        """Return the limiter's packet counters, and whether it waits until the friends are known."""
        waits = Limit.name in self._side.kernel.rules.waiting
        return Section(packets_of(self._side, _NUMBERS), {"limiter_waits": waits})

    def on_fact(self, fact: Fact) -> None:
        """If the fact is new packet counters, activate an alarm if the limiter's table was full again."""
        if isinstance(fact, Counters):
            before, self._before = self._before, fact
            if fact.has_grown(FULL, before):
                self._side.common.alarms.activate(LimiterAlarmCode.LIMITER_FULL, "", _FULL)


def build(given: Given) -> Limiter:
    """Return the part of the daemon that handles the limit on packets of each source."""
    side, connections = given.side, given.connections
    kernel, common = side.kernel, side.common

    def had_connection(address: Address) -> bool | None:
        """Whether ``address`` has, or had within a minute, a connection to this host; None if unknown."""
        connections.refresh()
        return connections.had_any(address, common.clock.mono())

    watch = FloodWatch(kernel.backend, kernel.enforcer, common.alarms)
    return Limiter(side, FloodJudge(watch, side.detector, had_connection, given.effects, common.clock))
