"""The limiter in the running daemon: its judgements, its part of the status, its alarms and numbers."""

from collections.abc import Coroutine, Iterator

from ringfence.features.limiter.alarms import LimiterAlarmCode
from ringfence.features.limiter.floods import FloodJudge, FloodWatch
from ringfence.firewall.contract import Counters
from ringfence.guard.feature import Fact, Feature, Given, Number
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.process import every
from ringfence.values.network import Address

_FULL = (
    "the limiter has no room for more sources: packets come from a million addresses, most of them forged. "
    "With nftables new sources pass unlimited, with ipset they are dropped until there is room"
)


class Limiter(Feature):
    """Lets ``judge`` judge floods each second, and shows what the limiter of ``side`` drops."""

    def __init__(self, side: FirewallSide, judge: FloodJudge) -> None:
        self._side = side
        self._judge = judge
        self._full = 0  # how many packets had no room by the last reading

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that judges floods."""
        return [every(1.0, "floods", self._judge.check, self._side.common.alarms)]

    def status(self) -> dict[str, object]:
        """Return how many packets it dropped, and whether it waits for the friends."""
        latest = self._side.kernel.counters.latest or Counters()
        return {
            "limiter_drops": latest.limiter_drops,
            "limiter_waits": "limiter" in self._side.kernel.rules.waiting,
        }

    def numbers(self) -> Iterator[Number]:
        """Yield the numbers of packets over the limit and without room, if they are known."""
        latest = self._side.kernel.counters.latest
        if latest is not None:
            text = "Packets over the limit: dropped, or passed if the limiter only observes."
            yield Number("limiter_drops", text, latest.limiter_drops, only_grows=True)
            text = "Packets from sources for which the limiter had no room."
            yield Number("limiter_full", text, latest.limiter_full, only_grows=True)

    def on_fact(self, fact: Fact) -> None:
        """Activate an alarm if more packets had no room since the last reading of the counters."""
        if isinstance(fact, Counters):
            if fact.limiter_full > self._full:
                self._side.common.alarms.activate(LimiterAlarmCode.LIMITER_FULL, "", _FULL)
            self._full = fact.limiter_full


def build(given: Given) -> Limiter:
    """Return the limiter's part of the daemon."""
    side, connections = given.side, given.connections
    kernel, common = side.kernel, side.common

    def had_connection(address: Address) -> bool | None:
        """Whether ``address`` has, or had within a minute, a connection to this host; None if unknown."""
        connections.refresh()
        return connections.had_any(address, common.clock.mono())

    watch = FloodWatch(kernel.backend, kernel.enforcer, common.alarms)
    return Limiter(side, FloodJudge(watch, side.detector, had_connection, given.effects, common.clock))
