"""The daemon: builds and connects all parts, supervises them, and starts them without a gap in protection.

Start: lock the store and the sets, put the firewall in place, verify it with a test packet, and take over the
existing bans. Then start the sources, and only then send READY to systemd. Stop: everything ends except the
bans. All tasks are in one TaskGroup: a defect in one ends the daemon, and systemd starts it again while the
kernel continues to drop packets.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from attrs import asdict, evolve, frozen

from ringfence import control
from ringfence.alarm_codes import AlarmCode
from ringfence.bans.suspects import Suspects
from ringfence.clock import Clock
from ringfence.config import loader
from ringfence.daemon import systemd, trial
from ringfence.daemon.collector import tune_collector
from ringfence.daemon.firewall_side import FirewallSide, build_firewall_side, choose
from ringfence.daemon.lock import claim_sets
from ringfence.daemon.moderation import ModeratedSelector
from ringfence.daemon.periodic import every
from ringfence.daemon.pipeline import Pipeline
from ringfence.daemon.requests import RequestHandlers
from ringfence.daemon.source_watchdog import SourceWatchdog
from ringfence.daemon.status import Reloaded, StatusData, decoy_problems
from ringfence.daemon.targets import logs_of, target_of
from ringfence.detect.detector import Detector
from ringfence.detect.friends import Friends
from ringfence.errors import ConfigError, HostError
from ringfence.firewall.contract import Counters
from ringfence.friends.readiness import SourceReadiness
from ringfence.host.bridges import follow_containers
from ringfence.host.connections import ConnectionTable
from ringfence.model import Contact, Network, SecurityEvent
from ringfence.sources.ami import AmiSource
from ringfence.sources.coverage_gaps import coverage_gaps
from ringfence.sources.logs import Logs, LogSource
from ringfence.sources.standby import Standby
from ringfence.sources.state import State
from ringfence.store.best_effort import Records
from ringfence.store.database import Store
from ringfence.store.writer import Writer

if TYPE_CHECKING:
    from ringfence.bans.enforcer import Enforcer
    from ringfence.sources.wire import WireSource

SECOND = 1.0
JUDGE_EVERY = 0.5
RETRY_EVERY = 30.0
COUNTERS_EVERY = 30.0
PURGE_EVERY = 3_600.0
FRIENDS_EVERY = 0.05
STORE_EVERY = 2.0


@frozen
class _Listener:
    """The running sources of one PBX, and the settings that they were built from."""

    settings: loader.AsteriskSettings
    ami: AmiSource | None
    logs: Logs | None
    tasks: tuple[asyncio.Task[None], ...]

    @property
    def sources(self) -> "tuple[AmiSource | LogSource, ...]":
        """The sources that are active now."""
        ami = () if self.ami is None else (self.ami,)
        return (*ami, *(self.logs.sources if self.logs is not None else ()))

    def stop(self) -> None:
        """Stop the sources."""
        for task in self.tasks:
            task.cancel()


class Daemon:
    """The daemon. :meth:`run` blocks until a signal ends it."""

    def __init__(self, path: Path, settings: loader.Settings, clock: Clock | None = None) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock if clock is not None else Clock()
        self._log = structlog.get_logger()
        self._config_problems: list[str] = []
        self._host_problems: dict[str, str] = {}
        self._listeners: dict[str, _Listener] = {}
        self._positions: dict[str, str] = {}
        self._wire: WireSource | None = None  # loaded only if configured, which saves memory
        self._connections = ConnectionTable()
        self._friends = Friends()
        self._detector = Detector(
            settings.rule_table(),
            several=settings.several_sources(),
            connections=self._connections,
            claimed=settings.claims(),
            friends=self._friends,
            corroborated=settings.corroborated(),
        )
        self._stopped = asyncio.Event()
        self._writer: Writer
        self._side: FirewallSide
        self._why: str
        self._enforcer: Enforcer
        self._pipeline: Pipeline
        self._source_watchdog: SourceWatchdog

    def run(self, trial_for: float = 0.0) -> None:
        """Guard until SIGTERM or SIGINT. Raise RingfenceError if the firewall cannot be put in place.

        After ``trial_for`` seconds everything is removed again, unless it is confirmed (0: no trial).
        """
        with ExitStack() as stack:
            store, fleeting = Store.open_or_memory(self._settings.store.path)
            stack.enter_context(store)
            self._writer = stack.enter_context(Writer())
            records = Records(store, self._writer, fleeting)
            log_group = self._log_group()
            backend, self._why = choose(self._settings, log_group)
            stack.callback(backend.close)
            side = build_firewall_side(
                self._settings, records, self._detector, backend, self._clock, log_group
            )
            self._side, self._enforcer = side, side.enforcer
            self._source_watchdog = SourceWatchdog(side.alarms)
            if backend.enforces:
                stack.enter_context(claim_sets(self._settings.control.socket.parent))
            self._pipeline = Pipeline(
                self._detector,
                side.enforcer.carry_out,
                self._clock,
                side.alarms,
                side.effectiveness.on_late,
                side.effectiveness.on_exempt,
                observe=Suspects(backend, self._clock).observe,
                unshield=side.friends.changed.set,
                had_connection=self._connections.had_any,
            )
            self._detector.succeeded = side.friends.on_success
            self._detector.expires_friends = False
            self._pipeline.wire_asterisk = self._settings.asterisk[0].name
            if trial_for:
                trial.begin(store, self._clock.wall() + trial_for)
            end = side.trial.until
            if end is not None:
                trial.start_standby(self._path, end)
                stack.callback(side.trial.end)  # a stop also ends the trial
            gc.disable()  # 100,000 bans leave no reference cycles to collect
            side.start()
            tune_collector()
            # A database thread that holds the interpreter yields to an event after 0.5 ms, not 5 ms.
            sys.setswitchinterval(0.0005)
            with asyncio.Runner(loop_factory=_moderated_loop) as runner:
                runner.run(self._serve())
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a signal must not interrupt the last writes

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        async with (
            control.serve(self._settings.control.socket, self._handlers()),
            self._connections.followed(),
            asyncio.TaskGroup() as group,
        ):
            self._group = group
            tasks = [
                *self._run_side(group),
                group.create_task(self._tick()),
                group.create_task(self._watchdog()),
                group.create_task(self._watch_store()),
            ]
            if self._settings.wire:
                from ringfence.sources.wire import WireSource  # noqa: PLC0415 - loaded where it is asked for

                self._wire = WireSource(self._pipeline.on_challenges, self._detector.observe_loss)
                self._pipeline.on_challenges(
                    (), self._clock.mono()
                )  # the first events of AMI may come before the first challenge
                tasks.append(group.create_task(self._wire.run(), name="wire"))
                failed = partial(self._host_failed, "containers")
                tasks.append(group.create_task(follow_containers(self._containers_changed, failed)))
            self._update_listeners(self._settings.heard())
            self._side.friends.startup.begin(self._readiness, self._clock.mono())
            self._pipeline.pause()
            tasks.append(group.create_task(self._wait_for_friends()))
            systemd.notify("READY=1")
            self._log.info("daemon.ready", firewall=self._enforcer.backend.name)
            await self._stopped.wait()
            systemd.stopping()
            for listener in self._listeners.values():
                listener.stop()
            for task in tasks:
                task.cancel()
        self._log.info("daemon.stopped", bans="left in place")

    def _run_side(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start the tasks that maintain the firewall, the bans, the lists and the friends."""
        side = self._side
        work = (
            side.networks.run(),
            side.lists.run(),
            side.friends.run(),
            side.kernel_friends.run(),
            side.reconciler.run(),
            side.enforcer.filler.run(),
            side.changes.run(),
            side.rules.run(),
            side.effectiveness.run(),
            self._read_counters(),
            every(SECOND, side.enforcer.tick),
            every(SECOND, self._judge_floods),
            every(SECOND, side.trial.look),
            every(RETRY_EVERY, side.manager.retry_switch_on),
            every(PURGE_EVERY, lambda: side.records.purge(self._clock.wall())),
        )
        return [group.create_task(one) for one in work]

    async def _read_counters(self) -> None:
        """Read the rules' counters now and then, for the alarms that follow from them."""
        while True:
            await asyncio.sleep(COUNTERS_EVERY)
            await self._side.limiter.counters()

    def _handlers(self) -> Mapping[str, control.Handler]:
        answers = RequestHandlers(self._side, self._status_data).handlers()
        return {**answers, "reload": lambda _: asdict(self.reload())}

    # -- the configuration ------------------------------------------------------------------------------

    def reload(self) -> Reloaded:
        """Load the configuration again; if it is invalid, the old one stays. Return the result."""
        try:
            new = loader.load(self._path)
        except ConfigError as error:
            head = f"the new configuration is refused, the old one stays; {error.where}: "
            self._config_problems = [head + problem for problem in error.problems]
            for problem in error.problems:
                self._log.error("configuration.refused", problem=problem)
            return Reloaded(where=error.where, refused=tuple(error.problems))
        kept = [key for key in ("store", "control") if getattr(new, key) != getattr(self._settings, key)]
        later = [f"[{key}]" for key in kept]
        later += ["[asterisk.wire]"] if new.wire is not (self._wire is not None) else []
        later += ["[firewall] backend"] if new.firewall.backend != self._settings.firewall.backend else []
        self._config_problems = [f"{', '.join(later)} changed: restart ringfence"] if later else []
        self._settings = evolve(new, **{key: getattr(self._settings, key) for key in kept})
        self._detector.configure(new.rule_table(), new.several_sources(), new.claims(), new.corroborated())
        self._pipeline.wire_asterisk = new.asterisk[0].name
        self._side.configure(self._settings)
        self._update_listeners(new.heard())
        self._log.info("configuration.loaded", restart_for=later)
        return Reloaded(str(self._path), notes=(*self._config_problems, *self._warn_of_decoys()))

    def _warn_of_decoys(self) -> list[str]:
        """Log and return the decoys that are real accounts; ``status`` reports them as long as this is so."""
        found = decoy_problems(self._settings.rule_table(), self._friends.knows_account)
        for problem in found:
            self._log.warning("configuration.decoy", problem=problem)
        return found

    def _update_listeners(self, wanted: Sequence[loader.AsteriskSettings]) -> None:
        """Run the sources of each entry: stop those that changed or were removed, start new ones."""
        ended: list[asyncio.Task[None]] = []
        for name, listener in list(self._listeners.items()):
            if listener.settings not in wanted:
                listener.stop()
                ended += listener.tasks
                del self._listeners[name]
        for pbx in wanted:
            if pbx.name not in self._listeners:
                standby = Standby(self._on_events, self._on_events, ami=pbx.ami.enabled)
                ami = self._ami(pbx, standby) if pbx.ami.enabled else None
                logs = self._logs(pbx, ended, standby) if pbx.logs.wanted else None
                sources = [source for source in (ami, logs) if source is not None]
                tasks = [self._group.create_task(source.run(), name=str(source.id)) for source in sources]
                self._listeners[pbx.name] = _Listener(pbx, ami, logs, tuple(tasks))

    def _ami(self, pbx: loader.AsteriskSettings, standby: Standby) -> AmiSource:
        friends = self._side.friends
        return AmiSource(
            target_of(pbx),
            standby.on_ami_events,
            roster=friends.on_roster,
            contact=self._on_contact,
            coverage=standby.coverage,
        )

    def _on_contact(self, contact: Contact) -> None:
        """Handle a contact change: first count the phone's failures, then update its friend status."""
        self._pipeline.on_contact(contact, self._clock.mono())
        self._side.friends.on_contact(contact)

    def _readiness(self) -> list[SourceReadiness]:
        """Return for each manager interface when it connected, and whether its roster is known."""
        amis = [listener.ami for listener in self._listeners.values() if listener.ami is not None]
        return [
            SourceReadiness(since=ami.listening_since, roster_ready=ami.roster_ready.is_set()) for ami in amis
        ]

    def _on_events(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Judge events of AMI or a log, after all challenges that left on the wire before.

        A nonce proves an address as long as no other address is known to have received it. A sender cannot
        use a nonce that has not reached it.
        """
        if self._wire is not None:
            self._wire.drain()
        self._pipeline.on_events(events, now)

    def _judge_floods(self) -> None:
        """Judge the sources that exceeded the limiter's rate in the last second, by UDP and by TCP."""
        flooders, now = self._side.limiter.new_flooders(), self._clock.mono()
        self._pipeline.on_udp_floods([one.network for one in flooders if not one.tcp], now)
        self._pipeline.on_tcp_floods([one.network for one in flooders if one.tcp], now)

    def _log_group(self) -> int | None:
        if not self._settings.wire:
            return None
        from ringfence.sources.wire import GROUP  # noqa: PLC0415 - loaded where it is asked for

        return GROUP

    def _logs(
        self, pbx: loader.AsteriskSettings, before: Sequence[asyncio.Task[None]], standby: Standby
    ) -> Logs:
        return Logs(
            logs_of(pbx), self._on_events, self._log_positions, self._remember_position, before, standby
        )

    def _log_positions(self) -> Mapping[str, str]:
        # The latest position may not be in the database yet.
        return {**self._enforcer.records.log_positions(), **self._positions}

    def _remember_position(self, key: str, position: str) -> None:
        self._positions[key] = position
        self._enforcer.records.log_position(key, position)

    # -- the host ---------------------------------------------------------------------------------------

    def _containers_changed(self, networks: frozenset[Network]) -> None:
        self._host_problems.pop("containers", None)
        if self._wire is not None and networks != frozenset(self._wire.containers):
            self._wire.set_containers(networks)
            self._log.info("host.containers", networks=[str(network) for network in self._wire.containers])

    def _host_failed(self, what: str, error: HostError) -> None:
        self._host_problems[what] = str(error)
        self._log.error("host.failed", error=str(error))

    async def _wait_for_friends(self) -> None:
        """Wait until the registered phones are known, then let rules ban."""
        while not self._side.friends.startup.for_bans(self._clock.mono()):  # noqa: ASYNC110 - time alone may decide
            await asyncio.sleep(FRIENDS_EVERY)
        self._log.info("friends.known", friends=len(self._friends))
        self._warn_of_decoys()
        self._pipeline.resume()

    async def _tick(self) -> None:
        """Judge attempts that waited for another source, and check the sources."""
        while True:
            self._pipeline.tick(wire=self._sees_all(), listening=self._listening_since)
            self._check_sources()
            await asyncio.sleep(JUDGE_EVERY)

    def _check_sources(self) -> None:
        sources = [source for listener in self._listeners.values() for source in listener.sources]
        conditions = {str(source.id): source.condition for source in sources}
        if self._wire is not None:
            conditions["wire"] = self._wire.condition
        self._source_watchdog.check(conditions, self._clock.mono())
        for source in sources:
            if not isinstance(source, AmiSource):
                said = ((name, alarm.count) for name, alarm in source.alarms.items())
                self._source_watchdog.on_lost_lines(str(source.id), said)

    def _sees_all(self) -> bool:
        """Whether the wire sees and counts every challenge over UDP."""
        opened = self._enforcer.opened
        listens = self._wire is not None and self._wire.condition.state is State.LISTENING
        return (
            listens
            and opened is not None
            and not opened.wire
            and all(trouble is None for trouble in opened.families.values())
            and "containers" not in self._host_problems
        )

    def _listening_since(self, asterisk: str) -> float | None:
        listener = self._listeners.get(asterisk)
        ami = listener.ami if listener is not None else None
        return ami.listening_since if ami is not None else None

    async def _watch_store(self) -> None:
        """Update the alarms of the database, which stay until an administrator has fixed it."""
        records, alarms = self._enforcer.records, self._side.alarms
        while True:
            for code, text in (
                (AlarmCode.STORE_DAMAGED, records.damage),
                (AlarmCode.STORE_IN_MEMORY, records.fleeting),
            ):
                if text:
                    alarms.activate(code, "", text)
                else:
                    alarms.clear(code, "")
            await asyncio.sleep(STORE_EVERY)

    async def _watchdog(self) -> None:
        """Report to systemd that the event loop runs; systemd kills and restarts a daemon that hangs."""
        interval = systemd.watchdog_interval()
        while interval is not None:
            systemd.feed_watchdog()
            await asyncio.sleep(interval)

    # -- status ----------------------------------------------------------------------------------------

    def _status_data(self, usage: Counters) -> StatusData:
        """Return the present state of all parts."""
        rules = self._settings.rule_table()
        problems = [*self._config_problems, *decoy_problems(rules, self._friends.knows_account)]
        problems += self._host_problems.values()
        problems += self._side.problems
        problems += [self._connections.error] if self._connections.error else []
        if self._writer.refused:
            problems.append(
                f"the disk is too slow: {self._writer.refused} bans or ends of bans are not recorded"
            )
        return StatusData(
            now=self._clock.mono(),
            sources=[source for listener in self._listeners.values() for source in listener.sources],
            wire=self._wire,
            detector=self._detector,
            reconciler=self._side.reconciler,
            usage=usage,
            why=self._why,
            alarms=self._side.alarms.active,
            problems=problems,
            unseen=self._unseen(),
            rules=rules,
        )

    def _unseen(self) -> list[str]:
        """Return what the active sources of each PBX cannot show."""
        wire = self._wire is not None and self._wire.condition.state is State.LISTENING
        found = []
        for name, listener in self._listeners.items():
            logs = listener.logs.sources if listener.logs is not None else ()
            log = any(source.condition.state is State.LISTENING for source in logs)
            tls = name in self._pipeline.chan_sip_tls
            gaps = coverage_gaps(ami=listener.ami is not None, log=log, wire=wire, chan_sip_tls=tls)
            found += [f"{name}: {gap}" for gap in gaps]
        return found


def _moderated_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(ModeratedSelector())
