"""The daemon: builds and connects all parts, supervises them, and starts them without a gap in protection.

Start: lock the database and the kernel's sets, put the firewall in place, verify it with a test packet, and
take over the existing bans. Then start the sources, and only then send READY to systemd.

Stop: everything ends except the bans, which stay in the kernel.

Periodic work that fails raises an alarm and is tried again. All other tasks are in one TaskGroup, so a defect
in one of them ends the daemon. Then systemd starts it again. In the meantime the kernel continues to drop
packets of banned senders.
"""

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path

import structlog
from attrs import asdict

from ringfence import control_server
from ringfence.clock import Clock
from ringfence.config.schema import Settings
from ringfence.detect.detector import Detector
from ringfence.friends.registry import FriendRegistry
from ringfence.gathering import GatheringLoop, GatheringSelector
from ringfence.guard import process
from ringfence.guard.facts import FailureMemory
from ringfence.guard.feature import Features, Given
from ringfence.guard.firewall_side import FirewallSide, build_firewall_side, choose
from ringfence.guard.pipeline import EffectHandler, Pipeline, known_sources
from ringfence.guard.process import (
    claim_sets,
    every,
    release_freed_memory,
    share_memory_between_threads,
    tune_collector,
)
from ringfence.guard.reload import Reloader
from ringfence.guard.request_table import RequestGate, Rights
from ringfence.guard.requests import RequestHandlers
from ringfence.guard.source_manager import LogPositions, SourceManager, SourceWatchdog, WireReader
from ringfence.guard.status import StatusCollector
from ringfence.host.connections import ConnectionTable
from ringfence.store.database import Store
from ringfence.store.writer import Writer
from ringfence.threads import descriptors_needed

# -- the wait at the start, until the friends of this PBX are known


LOOK_EVERY = 0.05  # seconds between two checks whether the phones are known


class StartupWait:
    """Delays bans until the registered phones are known: before that, a rule could ban one of them."""

    def __init__(
        self,
        friends: FriendRegistry,
        sources: SourceManager,
        effects: EffectHandler,
        reloader: Reloader,
        clock: Clock,
    ) -> None:
        self._friends = friends
        self._sources = sources
        self._effects = effects
        self._reloader = reloader
        self._clock = clock
        self._log = structlog.get_logger()

    def begin(self) -> None:
        """Carry out no decision to ban from now on, but keep it for :meth:`run`."""
        self._effects.hold()

    async def run(self) -> None:
        """Wait until the registered phones are known; then carry out the bans that rules decided meanwhile.

        Return somewhat later: when the kernel may drop the packets above its rate limits, too. Before that,
        these limits only count (``FirewallPlan.observing``).
        """
        startup, waits = self._friends.startup, True
        while waits or not startup.for_limits:
            self.look()
            if waits and startup.for_bans:
                waits = False
                self._log.info("friends.known", friends=len(self._friends.friends))
                self._reloader.warn_of_decoys()
                self._effects.release()
            await asyncio.sleep(LOOK_EVERY)

    def look(self) -> None:
        """Look which Asterisks have reported their phones. Call this periodically, also after :meth:`run`."""
        self._friends.startup.update(self._sources.readiness(), self._clock.mono())


# Seconds between two calls of periodic work.
SECOND = 1.0
JUDGE_EVERY = 0.5
ALARMS_EVERY = 2.0
ZONE_EVERY = 10.0
RETRY_EVERY = 30.0
COUNTERS_EVERY = 30.0
PURGE_EVERY = 3_600.0


class Daemon:
    """The running daemon. The firewall is in place when :meth:`serve` begins."""

    def __init__(
        self,
        side: FirewallSide,
        startup: StartupWait,
        sources: SourceManager,
        reloader: Reloader,
        connections: ConnectionTable,
        status: StatusCollector,
        answers: Mapping[str, control_server.Handler],
        features: Features,
    ) -> None:
        self._side = side
        self._startup = startup
        self._sources = sources
        self._reloader = reloader
        self._connections = connections
        self._status = status
        self._answers = answers
        self.features = features
        self._stopped = asyncio.Event()
        self._log = structlog.get_logger()

    async def serve(self) -> None:
        """Run all parts until SIGTERM or SIGINT. SIGHUP reloads the configuration."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.reload)
        settings = self._reloader.settings
        async with (
            control_server.serve(settings.control.socket, self._handlers()),
            self._connections.followed(),
            asyncio.TaskGroup() as group,
        ):
            self._startup.begin()
            self._sources.configure(settings.asterisk_with_logs())
            tasks = [group.create_task(work) for work in (process.report_ready(), *self._work())]
            release_freed_memory()
            self._log.info("daemon.ready", firewall=self._side.kernel.backend.name)
            await self._stopped.wait()
            process.report_stopping()
            for feature in self.features.all:
                await feature.stop()
            for task in tasks:
                task.cancel()
        self._side.common.kept_alarms.save()
        for feature in self.features.all:
            feature.finish()
        self._log.info("daemon.stopped", bans="left in place")

    def _work(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutines that run until the daemon stops."""
        side = self._side
        periodic = (
            (JUDGE_EVERY, "sources", self._sources.check),
            (SECOND, "rosters", self._startup.look),
            (SECOND, "Asterisks", self._look_at_asterisks),
            (SECOND, "enforcer", side.kernel.enforcer.tick),
            (ALARMS_EVERY, "alarms", self._status.update_alarms),
            (ALARMS_EVERY, "saved alarms", side.common.kept_alarms.save),
            (ALARMS_EVERY, "records", self._retry_records),
            # Without this call glibc reads the host's time zone once. Logs and quiet hours follow a new one.
            (ZONE_EVERY, "time zone", time.tzset),
            (RETRY_EVERY, "switch", side.kernel.manager.retry_switch),
            (RETRY_EVERY, "friends", side.retry_friends),
            (COUNTERS_EVERY, "counters", side.kernel.counters.read),  # each reading updates alarms about them
            (PURGE_EVERY, "purge", side.common.store_watch.purge),
        )
        return [
            self._sources.run(),
            self._startup.run(),
            *(every(seconds, name, action, side.common.alarms) for seconds, name, action in periodic),
            side.exempt.networks.run(),
            side.exempt.lists.run(),
            side.exempt.friends.run(),
            side.exempt.kernel_friends.run(),
            side.kernel.reconciler.run(),
            side.kernel.enforcer.filler.run(),
            side.kernel.changes.run(),
            side.kernel.rules.run(),
            *chain.from_iterable(feature.jobs() for feature in self.features.all),
            _feed_watchdog(),
        ]

    def _retry_records(self) -> None:
        """Try again to write to the database, and to the log, what could not be written earlier."""
        self._side.common.store_watch.retry(self._side.kernel.enforcer)
        process.LOG.retry()

    def _look_at_asterisks(self) -> None:
        """Pass the addresses of Asterisks in containers (not this host's own addresses) on to the rules.

        The table of connections gets the users of Asterisk's sockets here.
        """
        own = self._side.exempt.protected.is_own
        others = frozenset(one for one in self._sources.addresses if not own(one))
        self._connections.elsewhere = bool(others)
        self._connections.users = self._side.kernel.wanted_rules.users
        self._side.kernel.rules.use_containers(others)

    def _reload(self, _: Mapping[str, object]) -> dict[str, object]:
        return asdict(self._reloader.reload())

    def _handlers(self) -> Mapping[str, control_server.Handler]:
        side, admins = self._side, self._reloader.settings.control.admins
        return RequestGate(
            {**self._answers, "reload": self._reload},
            Rights(os.geteuid(), frozenset(admins)),
            side.exempt.friends.friends,
            side.common.listeners,
            side.common.clock,
            side.common.store.best_effort,
        ).handlers()


async def _feed_watchdog() -> None:
    """Report to systemd periodically that the event loop runs. Return at once if systemd has no watchdog.

    If the reports stop because the daemon hangs, systemd kills the daemon and starts it again.
    """
    interval = process.watchdog_interval()
    while interval is not None:
        process.feed_watchdog()
        await asyncio.sleep(interval)


def build_daemon(
    path: Path,
    settings: Settings,
    side: FirewallSide,
    connections: ConnectionTable,
    options: Mapping[str, str],
) -> Daemon:
    """Return the daemon, with all its parts built and connected with the firewall's parts (``side``).

    ``settings`` is the configuration that was read from the file ``path``. ``options`` are those of the
    command line that features read.
    """
    clock = side.common.clock
    failures = FailureMemory(side.exempt.friends.friends)
    features = Features(side.common.alarms)
    effects = EffectHandler(
        side.kernel.enforcer,
        side.common.alarms,
        side.exempt.friends,
        (failures, features, side.common.followers, side.kernel.effectiveness, side.kernel.haste),
        (features,),
    )
    pipeline = Pipeline(
        side.detector,
        effects,
        clock,
        settings.asterisk[0].name,
        connections,
        side.common.followers.event_listeners,
    )
    wire = None
    if settings.wire:
        kernel = side.kernel
        rules, haste = kernel.wanted_rules, kernel.haste
        wire = WireReader(pipeline, side.detector, kernel.enforcer, clock, rules, haste)
    positions = LogPositions(side.common.store.state, side.common.store.best_effort)
    watchdog = SourceWatchdog(side.common.alarms)
    sources = SourceManager(pipeline, side.exempt.friends, positions, watchdog, wire, clock)
    reloader = Reloader(path, settings, pipeline, side, sources)
    status = StatusCollector(side, sources, wire, reloader, connections, features.all)
    startup = StartupWait(side.exempt.friends, sources, effects, reloader, clock)
    answers = RequestHandlers(side, status, failures).handlers()
    given = Given(
        side, effects, pipeline, sources, wire, connections, reloader, features.all, answers, options
    )
    features.build(given)
    answers |= features.handlers()
    return Daemon(side, startup, sources, reloader, connections, status, answers, features)


def run(path: Path, settings: Settings, options: Mapping[str, str]) -> None:
    """Run the daemon until SIGTERM or SIGINT. Raise RingfenceError if the firewall cannot be put in place.

    ``options`` are those of the command line that features read.
    """
    clock, connections = Clock(), ConnectionTable()
    with ExitStack() as stack:
        writer = Writer()
        runtime = settings.control.socket.parent
        store = stack.enter_context(Store.open_or_memory(settings.store.path, writer, runtime=runtime))
        stack.callback(store.best_effort.write_kept)  # a last try, when the writer has ended
        stack.enter_context(writer)  # ends before the store closes, so that the queued writes are done
        chosen = choose(settings)
        stack.callback(chosen.backend.close)
        if chosen.backend.enforces:
            stack.enter_context(claim_sets(runtime))
        store.switch.settle()
        detector = Detector(
            settings.rule_table(),
            connections=connections,
            claimed=settings.claims(),
            sources=known_sources(settings),
        )
        side = build_firewall_side(settings, store, detector, chosen, clock)
        daemon = build_daemon(path, settings, side, connections, options)
        runner = _start_threads(writer, side, daemon.features)
        stack.callback(runner.close)
        for feature in daemon.features.all:
            feature.begin()
            stack.callback(feature.end)
        for number in signal.SIGHUP, signal.SIGTERM:  # would end the process before the last writes
            stack.callback(signal.signal, number, signal.SIG_IGN)
        stack.callback(runner.close)  # again: the work in threads ends before the features do
        gc.disable()  # loading 100,000 bans leaves no reference cycles to collect
        side.start()
        tune_collector()
        # The event loop then waits at most 0.5 ms, not 5 ms, for a thread that holds Python's lock (GIL).
        sys.setswitchinterval(0.0005)
        runner.run(daemon.serve())


def _start_threads(writer: Writer, side: FirewallSide, features: Features) -> asyncio.Runner:
    """Start every thread of the daemon, before it changes anything; return the runner of its event loop.

    Raise StartError if the kernel refuses a thread or a descriptor.
    """
    share_memory_between_threads()
    threads = [writer.thread, side.kernel.enforcer.filler.thread, side.exempt.lists.thread]
    for thread in chain(threads, *(feature.threads() for feature in features.all)):
        thread.start()
    with descriptors_needed():
        selector = GatheringSelector(side.kernel.haste.rest)
    runner = asyncio.Runner(loop_factory=partial(GatheringLoop, selector))
    runner.get_loop()  # the loop has the shared threads
    return runner
