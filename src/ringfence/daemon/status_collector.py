"""The present state of all parts, for ``ringfence status``."""

from typing import TYPE_CHECKING

from ringfence.clock import Clock
from ringfence.daemon.firewall_side import FirewallSide
from ringfence.daemon.reload import Reloader
from ringfence.daemon.source_manager import SourceManager
from ringfence.daemon.status import StatusData
from ringfence.firewall.contract import Counters
from ringfence.host.connections import ConnectionTable
from ringfence.store.writer import Writer

if TYPE_CHECKING:
    from ringfence.daemon.wire import Wire


class StatusCollector:
    """Collects the state of all parts; ``wire`` is None if the wire is not read."""

    def __init__(
        self,
        side: FirewallSide,
        sources: SourceManager,
        wire: "Wire | None",
        reloader: Reloader,
        connections: ConnectionTable,
        writer: Writer,
        clock: Clock,
    ) -> None:
        self._side = side
        self._sources = sources
        self._wire = wire
        self._reloader = reloader
        self._connections = connections
        self._writer = writer
        self._clock = clock

    def collect(self, counters: Counters) -> StatusData:
        """Return the present state; ``counters`` are those of the firewall's rules."""
        side = self._side
        return StatusData(
            now=self._clock.mono(),
            sources=self._sources.active,
            wire=self._wire.source if self._wire is not None else None,
            detector=side.detector,
            reconciler=side.reconciler,
            usage=counters,
            why=side.why,
            alarms=side.alarms.active,
            problems=self._problems(),
            store_problems=side.store.problems(),
            unseen=self._sources.coverage_gaps(),
            rules=self._reloader.settings.rule_table(),
        )

    def _problems(self) -> list[str]:
        problems = [*self._reloader.problems]
        problems += self._wire.problems if self._wire is not None else []
        problems += self._side.problems
        problems += [self._connections.error] if self._connections.error else []
        if self._writer.refused:
            problems.append(
                f"the disk is too slow: {self._writer.refused} bans or ends of bans are not recorded"
            )
        return problems
