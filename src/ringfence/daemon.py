"""The daemon: every part wired to its neighbours, supervised, started in an order that leaves no gap.

Start: claim the store and the sets, put the firewall in place, see with a test packet that it works, take
over the bans that are there; then listen, and only then tell systemd READY. Stop: everything is let go but
the bans. All tasks live in one TaskGroup: a defect in one ends the daemon loudly, and systemd starts it anew
while the kernel goes on dropping.
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

from ringfence import config, control, systemd, trial
from ringfence.answers import Answers
from ringfence.bans.records import Records
from ringfence.calm import calm_collector
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.friends import Friends
from ringfence.errors import ConfigError, HostError
from ringfence.evidence import Evidence
from ringfence.firewall.contract import Usage
from ringfence.firewall.ownership import claim_sets
from ringfence.friends.known import Ear
from ringfence.host.bridges import follow_containers
from ringfence.host.connections import Connections
from ringfence.keeper import Keeper
from ringfence.later import Later
from ringfence.model import Network, SecurityEvent
from ringfence.report import Reloaded, Seen, decoy_problems
from ringfence.silence import Silence
from ringfence.sources.ami import AmiSource
from ringfence.sources.logs import Logs, LogSource
from ringfence.sources.state import State
from ringfence.store import Store
from ringfence.targets import logs_of, target_of

if TYPE_CHECKING:
    from ringfence.bans.enforce import Enforcer
    from ringfence.sources.wire import WireSource

JUDGE_EVERY = 0.5
FRIENDS_EVERY = 0.05


@frozen
class _Listener:
    """The sources of one PBX at work, and what they were made of."""

    settings: config.AsteriskSettings
    ami: AmiSource | None
    logs: Logs | None
    tasks: tuple[asyncio.Task[None], ...]

    @property
    def sources(self) -> "tuple[AmiSource | LogSource, ...]":
        """Whoever speaks of it now."""
        ami = () if self.ami is None else (self.ami,)
        return (*ami, *(self.logs.sources if self.logs is not None else ()))

    def end(self) -> None:
        """Listen no longer."""
        for task in self.tasks:
            task.cancel()


class Daemon:
    """One ringfence. :meth:`run` blocks until a signal ends it."""

    def __init__(self, path: Path, settings: config.Settings, clock: Clock | None = None) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock if clock is not None else Clock()
        self._log = structlog.get_logger()
        self._config_problems: list[str] = []
        self._host_problems: dict[str, str] = {}
        self._listeners: dict[str, _Listener] = {}
        self._positions: dict[str, str] = {}
        self._wire: WireSource | None = None  # what is not configured is not even loaded: it is memory
        self._connections = Connections()
        self._friends = Friends()
        self._detector = Detector(
            settings.rule_table(),
            several=settings.several_sources(),
            connected=self._connections.has,
            claimed=settings.claims(),
            friends=self._friends,
        )
        self._stopped = asyncio.Event()
        self._later: Later
        self._keeper: Keeper
        self._enforcer: Enforcer
        self._evidence: Evidence
        self._silence: Silence

    def run(self, trial_for: float = 0.0) -> None:
        """Guard until SIGTERM or SIGINT. Raises RingfenceError where the guard cannot be mounted.

        ``trial_for`` seconds on everything is taken away again, unless it is confirmed (0: no trial).
        """
        with ExitStack() as stack:
            store, fleeting = Store.open_anyhow(self._settings.store.path)
            stack.enter_context(store)
            self._later = stack.enter_context(Later())
            self._keeper = Keeper(
                self._settings,
                Records(store, self._later, fleeting),
                self._detector,
                self._clock,
                friends=self._friends,
                log_group=self._log_group(),
                flooded=lambda networks: self._evidence.limited(networks, self._clock.mono()),
            )
            stack.callback(self._keeper.close)
            self._enforcer = self._keeper.enforcer
            self._silence = Silence(self._keeper.alarms)
            if self._enforcer.backend.enforces:
                stack.enter_context(claim_sets())
            self._evidence = Evidence(
                self._detector,
                self._enforcer.carry_out,
                self._clock,
                self._keeper.alarms,
                self._keeper.late,
                self._keeper.exempted,
            )
            self._detector.succeeded = self._keeper.friends.succeeded
            self._detector.expires_friends = False
            self._evidence.whose = self._settings.asterisk[0].name
            if trial_for:
                trial.begin(store, self._clock.wall() + trial_for)
            end = trial.until(store)
            if end is not None:
                trial.stand_by(self._path, end)
                stack.callback(self._keeper.end_trial)  # who stops a trial has seen enough of it
            gc.disable()  # what a hundred thousand bans leave behind is in no circle
            self._keeper.mount()
            calm_collector()
            # The thread that writes to the disk gives way to an event at once, not after 5 ms.
            sys.setswitchinterval(0.0005)
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        async with (
            control.serve(self._settings.control.socket, self._handlers()),
            asyncio.TaskGroup() as group,
        ):
            self._group = group
            tasks = [
                group.create_task(self._keeper.run(), name="keeper"),
                group.create_task(self._judge_late()),
                group.create_task(self._watchdog()),
            ]
            if self._settings.wire:
                from ringfence.sources.wire import WireSource  # noqa: PLC0415 - loaded where it is asked for

                self._wire = WireSource(self._evidence.see, self._detector.blind)
                self._evidence.see((), self._clock.mono())  # what AMI tells first may come before it
                tasks.append(group.create_task(self._wire.run(), name="wire"))
                failed = partial(self._host_failed, "containers")
                tasks.append(group.create_task(follow_containers(self._containers_changed, failed)))
            self._listen(self._settings.heard())
            self._keeper.friends.known.begin(self._ears, self._clock.mono())
            self._evidence.wait()
            tasks.append(group.create_task(self._wait_for_friends()))
            systemd.notify("READY=1")
            self._log.info("daemon.ready", firewall=self._enforcer.backend.name)
            await self._stopped.wait()
            systemd.stopping()
            for listener in self._listeners.values():
                listener.end()
            for task in tasks:
                task.cancel()
        self._log.info("daemon.stopped", bans="left in place")

    def _handlers(self) -> Mapping[str, control.Handler]:
        answers = Answers(self._keeper, self._seen).handlers()
        return {**answers, "reload": lambda _: asdict(self.reload())}

    # -- the configuration ------------------------------------------------------------------------------

    def reload(self) -> Reloaded:
        """Read the configuration again; a bad one is refused, and the old one stays. Say what came of it."""
        try:
            new = config.load(self._path)
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
        self._detector.configure(new.rule_table(), new.several_sources(), new.claims())
        self._keeper.configure(self._settings)
        self._listen(new.heard())
        self._log.info("configuration.loaded", restart_for=later)
        return Reloaded(str(self._path), notes=(*self._config_problems, *self._warn_of_decoys()))

    def _warn_of_decoys(self) -> list[str]:
        """Say in the log which decoys are none, as ``status`` does as long as it is so."""
        found = decoy_problems(self._settings.rule_table(), self._friends.knew)
        for problem in found:
            self._log.warning("configuration.decoy", problem=problem)
        return found

    def _listen(self, wanted: Sequence[config.AsteriskSettings]) -> None:
        """Have the sources of each entry: end those that changed or went, begin those that are new."""
        ended: list[asyncio.Task[None]] = []
        for name, listener in list(self._listeners.items()):
            if listener.settings not in wanted:
                listener.end()
                ended += listener.tasks
                del self._listeners[name]
        for pbx in wanted:
            if pbx.name not in self._listeners:
                ami = self._ami(pbx) if pbx.ami.enabled else None
                logs = self._logs(pbx, ended) if pbx.logs.wanted else None
                sources = [source for source in (ami, logs) if source is not None]
                tasks = [self._group.create_task(source.run(), name=str(source.id)) for source in sources]
                self._listeners[pbx.name] = _Listener(pbx, ami, logs, tuple(tasks))

    def _ami(self, pbx: config.AsteriskSettings) -> AmiSource:
        friends = self._keeper.friends
        return AmiSource(target_of(pbx), self._hear, roster=friends.roster, contact=friends.contact)

    def _ears(self) -> list[Ear]:
        """Say of each manager interface since when it is heard, and whether it has told of its phones."""
        amis = [listener.ami for listener in self._listeners.values() if listener.ami is not None]
        return [Ear(since=ami.listening_since, rostered=ami.rostered.is_set()) for ami in amis]

    def _hear(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Judge what AMI or a log told, knowing all that left on the wire before it.

        A nonce proves an address as long as no other is known to have got it: nobody can use one that is
        still on its way to him.
        """
        if self._wire is not None:
            self._wire.drain()
        self._evidence.hear(events, now)

    def _log_group(self) -> int | None:
        if not self._settings.wire:
            return None
        from ringfence.sources.wire import GROUP  # noqa: PLC0415 - loaded where it is asked for

        return GROUP

    def _logs(self, pbx: config.AsteriskSettings, before: Sequence[asyncio.Task[None]]) -> Logs:
        return Logs(logs_of(pbx), self._hear, self._log_positions, self._remember_position, before)

    def _log_positions(self) -> Mapping[str, str]:
        # What was said last may still be on its way to the database.
        return {**self._enforcer.records.log_positions(), **self._positions}

    def _remember_position(self, key: str, position: str) -> None:
        self._positions[key] = position
        self._enforcer.records.log_position(key, position)

    # -- the host ---------------------------------------------------------------------------------------

    def _containers_changed(self, networks: frozenset[Network]) -> None:
        self._host_problems.pop("containers", None)
        if self._wire is not None and networks != frozenset(self._wire.containers):
            self._wire.count_containers(networks)
            self._log.info("host.containers", networks=[str(network) for network in self._wire.containers])

    def _host_failed(self, what: str, error: HostError) -> None:
        self._host_problems[what] = str(error)
        self._log.error("host.failed", error=str(error))

    async def _wait_for_friends(self) -> None:
        """Let no ban fall before it is known whose phones are registered."""
        while not self._keeper.friends_known:  # noqa: ASYNC110 - time alone may decide
            await asyncio.sleep(FRIENDS_EVERY)
        self._log.info("friends.known", friends=len(self._friends))
        self._warn_of_decoys()
        self._evidence.go_on()

    async def _judge_late(self) -> None:
        """Judge what has waited for another witness."""
        while True:
            await asyncio.sleep(JUDGE_EVERY)
            self._evidence.tend(wire=self._sees_all(), listening=self._listening_since)
            self._look_for_silence()

    def _look_for_silence(self) -> None:
        sources = [source for listener in self._listeners.values() for source in listener.sources]
        conditions = {str(source.id): source.condition for source in sources}
        if self._wire is not None:
            conditions["wire"] = self._wire.condition
        self._silence.look(conditions, self._clock.mono())
        for source in sources:
            if not isinstance(source, AmiSource):
                said = ((name, alarm.count) for name, alarm in source.alarms.items())
                self._silence.lost(str(source.id), said)

    def _sees_all(self) -> bool:
        """Say whether every challenge over UDP comes by on the wire, and counts there."""
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

    async def _watchdog(self) -> None:
        """Tell systemd that the loop turns; a loop that hangs is killed and started anew."""
        interval = systemd.watchdog_interval()
        while interval is not None:
            systemd.feed_watchdog()
            await asyncio.sleep(interval)

    # -- what commands are told -------------------------------------------------------------------------

    def _seen(self, usage: Usage) -> Seen:
        """Say how everything is now."""
        rules = self._settings.rule_table()
        problems = [*self._config_problems, *decoy_problems(rules, self._friends.knew)]
        problems += self._host_problems.values()
        problems += [*self._keeper.problems, *self._evidence.problems]
        problems += [self._connections.error] if self._connections.error else []
        if self._later.refused:
            problems.append(
                f"the disk is too slow: {self._later.refused} bans or ends of bans are not recorded"
            )
        return Seen(
            now=self._clock.mono(),
            sources=[source for listener in self._listeners.values() for source in listener.sources],
            wire=self._wire,
            detector=self._detector,
            reconciler=self._keeper.reconciler,
            usage=usage,
            why=self._keeper.why,
            alarms=self._keeper.alarms.up,
            problems=problems,
            rules=rules,
        )
