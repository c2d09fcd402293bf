"""The present state of all parts, for ``ringfence status`` and for the alarms."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.clock import Clock
from ringfence.daemon.firewall_side import FirewallSide
from ringfence.daemon.metrics_server import MetricsServer
from ringfence.daemon.reload import Reloader
from ringfence.daemon.source_manager import SourceManager
from ringfence.daemon.status import StatusData
from ringfence.firewall.contract import Counters
from ringfence.host.connections import ConnectionTable
from ringfence.store.writer import Writer

if TYPE_CHECKING:
    from ringfence.daemon.source_manager import WireReader


class StatusCollector:
    """Collects the state of all parts.

    ``wire`` and ``metrics`` are None if they are not configured. There are eight parameters because each part
    of the daemon knows its own state.
    """

    def __init__(
        self,
        side: FirewallSide,
        sources: SourceManager,
        wire: "WireReader | None",
        reloader: Reloader,
        connections: ConnectionTable,
        writer: Writer,
        clock: Clock,
        metrics: MetricsServer | None = None,
    ) -> None:
        self._side = side
        self._sources = sources
        self._wire = wire
        self._reloader = reloader
        self._connections = connections
        self._writer = writer
        self._clock = clock
        self._metrics = metrics

    def collect(self, counters: Counters) -> StatusData:
        """Update the alarms, and return the present state. ``counters`` are those of the firewall's rules."""
        side = self._side
        self.update_alarms()
        return StatusData(
            now=self._clock.mono(),
            sources=self._sources.active,
            wire=self._wire.source if self._wire is not None else None,
            detector=side.detector,
            reconciler=side.reconciler,
            usage=counters,
            why=side.why,
            alarms=side.alarms.active,
            unseen=self._sources.coverage_gaps(),
            rules=self._reloader.settings.rule_table(),
            proxies=[network for pbx in self._reloader.settings.asterisk for network in pbx.proxies],
        )

    def update_alarms(self) -> None:
        """Activate the alarms that follow from the present state of all parts.

        Clear those that no longer follow from it, and all alarms whose time has ended.
        """
        alarms = self._side.alarms
        alarms.expire()
        if not self._connections.error:  # clear the alarm: an earlier run of the daemon may have set it
            alarms.clear(AlarmCode.HOST_UNREADABLE, "connections")
        alarms.hold(
            [
                *self._reloader.alarms,
                *(self._wire.alarms if self._wire is not None else ()),
                *self._side.present_alarms,
                *self._others(),
            ]
        )

    def _others(self) -> Iterator[Alarm]:
        if self._metrics is not None:
            yield from self._metrics.alarms
        if self._connections.error:
            yield Alarm(AlarmCode.HOST_UNREADABLE, "connections", self._connections.error)
        if self._writer.refused:
            text = f"{self._writer.refused} bans or ends of bans are not recorded"
            yield Alarm(AlarmCode.STORE_SLOW, "", text)
