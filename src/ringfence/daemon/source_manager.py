"""Runs the sources of all PBXs, replaces them after a reload, and checks them."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import define

from ringfence.clock import Clock
from ringfence.config.schema import AsteriskSettings
from ringfence.daemon.log_positions import LogPositions
from ringfence.daemon.pipeline import Pipeline
from ringfence.daemon.source_watchdog import SourceWatchdog
from ringfence.daemon.targets import logs_of, target_of
from ringfence.friends.readiness import SourceReadiness
from ringfence.friends.registry import FriendRegistry
from ringfence.model import Address, Contact, SecurityEvent
from ringfence.sources.ami import AmiSource
from ringfence.sources.coverage_gaps import coverage_gaps
from ringfence.sources.logs import Logs, LogSource
from ringfence.sources.standby import Standby
from ringfence.sources.state import State

if TYPE_CHECKING:
    from ringfence.daemon.wire import WireReader


@define(eq=False)
class PbxSources:
    """The sources of one PBX, and the settings from which they were built."""

    settings: AsteriskSettings
    ami: AmiSource | None
    logs: Logs | None

    @property
    def active(self) -> "Iterator[AmiSource | LogSource]":
        """The AMI source, if it is enabled, and the sources of the logs that are read now."""
        if self.ami is not None:
            yield self.ami
        if self.logs is not None:
            yield from self.logs.sources

    async def run(self) -> None:
        """Run the sources until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in (self.ami, self.logs):
                if source is not None:
                    group.create_task(source.run(), name=str(source.id))


class SourceManager:
    """Runs the sources of the PBXs that :meth:`configure` was called with.

    ``wire`` reads the SIP challenges that leave this host; None if they are not read.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        friends: FriendRegistry,
        positions: LogPositions,
        watchdog: SourceWatchdog,
        wire: "WireReader | None",
        clock: Clock,
    ) -> None:
        self._pipeline = pipeline
        self._friends = friends
        self._positions = positions
        self._watchdog = watchdog
        self._wire = wire
        self._clock = clock
        self._pbxs: dict[str, PbxSources] = {}
        self._changed = asyncio.Event()

    def configure(self, wanted: Sequence[AsteriskSettings]) -> None:
        """Replace the sources of the PBXs whose settings changed.

        :meth:`run` then stops the old ones and starts the new ones.
        """
        kept = {name: pbx for name, pbx in self._pbxs.items() if pbx.settings in wanted}
        self._pbxs = {pbx.name: kept.get(pbx.name) or self._sources_of(pbx) for pbx in wanted}
        if self._wire is not None:
            self._wire.set_asterisks([pbx.ami for pbx in self._pbxs.values()])
        self._changed.set()

    async def run(self) -> None:
        """Run the sources until cancelled."""
        tasks: dict[PbxSources, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            if self._wire is not None:
                group.create_task(self._wire.run())
            while True:
                self._changed.clear()
                ended = [tasks.pop(pbx) for pbx in [*tasks] if pbx not in self._pbxs.values()]
                for task in ended:
                    task.cancel()
                if ended:  # wait for their end: two readers of one log would report every event twice
                    await asyncio.wait(ended)
                for pbx in self._pbxs.values():
                    if pbx not in tasks:
                        tasks[pbx] = group.create_task(pbx.run(), name=pbx.settings.name)
                await self._changed.wait()

    @property
    def active(self) -> "list[AmiSource | LogSource]":
        """The sources of all PBXs that are active now, without the wire."""
        return [source for pbx in self._pbxs.values() for source in pbx.active]

    @property
    def addresses(self) -> frozenset[Address]:
        """The addresses of all Asterisks outside of loopback, as far as AMI names them."""
        known = (pbx.ami.addresses for pbx in self._pbxs.values() if pbx.ami is not None)
        return frozenset().union(*(found for found in known if found is not None))

    def readiness(self) -> list[SourceReadiness]:
        """Return for each manager interface (AMI) whether it is ready. The wait at the start needs this.

        ``since`` is the time since which it delivers events (monotonic seconds); None if it delivers none
        now. ``roster_ready``: the list of this Asterisk's phones (roster) has arrived.
        """
        amis = [pbx.ami for pbx in self._pbxs.values() if pbx.ami is not None]
        return [
            SourceReadiness(since=ami.listening_since, roster_ready=ami.roster_ready.is_set()) for ami in amis
        ]

    def look(self) -> None:
        """Judge the reports that have waited long enough for confirmation; update the alarms of sources."""
        sees_all = self._wire is not None and self._wire.sees_all
        self._pipeline.tick(wire=sees_all, listening=self._listening_since)
        sources = self.active
        conditions = {str(source.id): source.condition for source in sources}
        if self._wire is not None:
            conditions["wire"] = self._wire.condition
        self._watchdog.check(conditions, self._clock.mono())
        for source in sources:
            if not isinstance(source, AmiSource):
                counts = ((fault, alarm.count) for fault, alarm in source.alarms.items())
                self._watchdog.on_log_alarms(str(source.id), counts)

    def coverage_gaps(self) -> list[str]:
        """Return a line for each PBX and each kind of attempt that its present sources cannot report."""
        wire = self._wire is not None and self._wire.is_listening
        found = []
        for name, pbx in self._pbxs.items():
            logs = pbx.logs.sources if pbx.logs is not None else ()
            log = any(source.condition.state is State.LISTENING for source in logs)
            tls = name in self._pipeline.chan_sip_tls
            proxies = bool(pbx.settings.proxies)
            gaps = coverage_gaps(
                ami=pbx.ami is not None, log=log, wire=wire, chan_sip_tls=tls, proxies=proxies
            )
            found += [f"{name}: {gap}" for gap in gaps]
        return found

    def _listening_since(self, asterisk: str) -> float | None:
        pbx = self._pbxs.get(asterisk)
        return pbx.ami.listening_since if pbx is not None and pbx.ami is not None else None

    def _sources_of(self, pbx: AsteriskSettings) -> PbxSources:
        standby = Standby(self._on_events, self._on_events, ami=pbx.ami.enabled)
        ami = None
        if pbx.ami.enabled:
            ami = AmiSource(
                target_of(pbx),
                standby.on_ami_events,
                roster=self._friends.on_roster,
                contact=self._on_contact,
                coverage=standby.coverage,
            )
        logs = None
        if pbx.logs.wanted:
            positions = self._positions
            logs = Logs(logs_of(pbx), self._on_events, positions.read, positions.record, standby=standby)
        return PbxSources(pbx, ami, logs)

    def _on_contact(self, contact: Contact) -> None:
        """Handle the change of a phone's contact: first in the detector, then in the list of friends.

        The order matters, because the detector checks whether the account worked at that address before.
        """
        self._pipeline.on_contact(contact, self._clock.mono())
        self._friends.on_contact(contact)

    def _on_events(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Judge events of AMI or a log, after the challenges that Asterisk sent before them.

        So the wire source is read first. The order matters, because a challenge contains a nonce, and the
        sender's answer repeats it. This proves the sender's address only if the nonce was sent to no other
        address, and the challenges show to which addresses it was sent.
        """
        if self._wire is not None:
            self._wire.drain()
        self._pipeline.on_events(events, now)
