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
from typing import TYPE_CHECKING, Any

import structlog
from attrs import evolve, frozen

from ringfence import config, control, systemd
from ringfence.detect.detector import Detector
from ringfence.detect.networks import NetworkSet
from ringfence.enforce import ALWAYS_ALLOWED, Clock, Enforcer
from ringfence.errors import ConfigError, ControlError, HostError
from ringfence.evidence import Evidence
from ringfence.firewall import make_backend
from ringfence.firewall.contract import Element, Plan
from ringfence.firewall.ownership import claim_sets
from ringfence.host.addresses import follow_addresses, read_addresses
from ringfence.host.bridges import follow_containers
from ringfence.host.connections import Connections
from ringfence.later import Later
from ringfence.model import Network, network_from
from ringfence.report import bans_report, status_report
from ringfence.sources.ami import AmiSource
from ringfence.sources.logs import Logs, LogSource
from ringfence.sources.state import State
from ringfence.store import Store
from ringfence.targets import logs_of, target_of
from ringfence.values import MAX_DURATION

if TYPE_CHECKING:
    from ringfence.sources.wire import WireSource

TEND_EVERY = 5.0
JUDGE_EVERY = 0.5
PURGE_EVERY = 3_600.0


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
        self._own: frozenset[Network] = frozenset()
        self._config_problem = ""
        self._host_problems: dict[str, str] = {}
        self._listeners: dict[str, _Listener] = {}
        self._positions: dict[str, str] = {}
        self._wire: WireSource | None = None  # what is not configured is not even loaded: it is memory
        self._connections = Connections()
        self._detector = Detector(
            settings.rule_table(),
            several=settings.several_sources(),
            connected=self._connections.has,
        )
        self._stopped = asyncio.Event()
        self._later: Later
        self._enforcer: Enforcer
        self._evidence: Evidence

    def run(self) -> None:
        """Guard until SIGTERM or SIGINT. Raises RingfenceError where the guard cannot be mounted."""
        with ExitStack() as stack:
            store = stack.enter_context(Store.open(self._settings.store.path, owner=True))
            backend = make_backend(self._settings.firewall.backend, Plan(log_group=self._log_group()))
            if backend.enforces:
                stack.enter_context(claim_sets())
            stack.callback(backend.close)
            self._own = read_addresses()
            self._later = stack.enter_context(Later())
            self._enforcer = Enforcer(backend, store, self._detector, self._clock, self._later)
            self._evidence = Evidence(self._detector, self._enforcer.carry_out, self._clock)
            self._evidence.whose = self._settings.asterisk[0].name
            self._detector.never = self._never()
            self._enforcer.start()
            self._enforcer.allow(self._never())
            # What is there now stays: no collection has to look at it while a guess is on its way. Under
            # attack each attempt leaves some objects behind, none of them in a circle: seldom is enough.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 20, 20)
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
                group.create_task(
                    follow_addresses(self._addresses_changed, partial(self._host_failed, "addresses"))
                ),
                group.create_task(self._tend()),
                group.create_task(self._judge_late()),
                group.create_task(self._watchdog()),
            ]
            if self._settings.wire:
                from ringfence.sources.wire import WireSource  # noqa: PLC0415 - loaded where it is asked for

                self._wire = WireSource(self._evidence.see, self._detector.blind)
                tasks.append(group.create_task(self._wire.run(), name="wire"))
                failed = partial(self._host_failed, "containers")
                tasks.append(group.create_task(follow_containers(self._containers_changed, failed)))
            self._listen(self._settings.heard())
            systemd.notify("READY=1")
            self._log.info("daemon.ready", firewall=self._enforcer.backend.name)
            await self._stopped.wait()
            systemd.notify("STOPPING=1")
            for listener in self._listeners.values():
                listener.end()
            for task in tasks:
                task.cancel()
        self._log.info("daemon.stopped", bans="left in place")

    # -- the configuration ------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again; a bad one is refused, and the old one stays."""
        try:
            new = config.load(self._path)
        except ConfigError as error:
            self._config_problem = f"the new configuration is refused, the old one stays: {error}"
            self._log.error("configuration.refused", problems=error.problems)
            return
        kept = [
            key
            for key in ("firewall", "store", "control")
            if getattr(new, key) != getattr(self._settings, key)
        ]
        later = [*kept, *(["asterisk.wire"] if new.wire is not (self._wire is not None) else [])]
        self._config_problem = f"[{'], ['.join(later)}] changed: restart ringfence" if later else ""
        self._settings = evolve(new, **{key: getattr(self._settings, key) for key in kept})
        self._detector.configure(new.rule_table(), new.several_sources())
        self._enforcer.allow(self._never())
        self._listen(new.heard())
        self._log.info("configuration.loaded", restart_for=later)

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
                ami = AmiSource(target_of(pbx), self._evidence.hear) if pbx.ami.enabled else None
                logs = self._logs(pbx, ended) if pbx.logs.wanted else None
                sources = [source for source in (ami, logs) if source is not None]
                tasks = [self._group.create_task(source.run(), name=str(source.id)) for source in sources]
                self._listeners[pbx.name] = _Listener(pbx, ami, logs, tuple(tasks))

    def _log_group(self) -> int | None:
        if not self._settings.wire:
            return None
        from ringfence.sources.wire import GROUP  # noqa: PLC0415 - loaded where it is asked for

        return GROUP

    def _logs(self, pbx: config.AsteriskSettings, before: Sequence[asyncio.Task[None]]) -> Logs:
        return Logs(logs_of(pbx), self._evidence.hear, self._log_positions, self._remember_position, before)

    def _log_positions(self) -> Mapping[str, str]:
        # What was said last may still be on its way to the database.
        return {**self._enforcer.log_positions(), **self._positions}

    def _remember_position(self, key: str, position: str) -> None:
        self._positions[key] = position
        self._enforcer.remember_position(key, position)

    def _never(self) -> NetworkSet:
        return NetworkSet([*ALWAYS_ALLOWED, *self._own, *self._settings.allow.networks])

    # -- the host ---------------------------------------------------------------------------------------

    def _addresses_changed(self, own: frozenset[Network]) -> None:
        self._host_problems.pop("addresses", None)
        if own != self._own:
            self._own = own
            self._enforcer.allow(self._never())
            self._log.info("host.addresses", own=sorted(str(network) for network in own))

    def _containers_changed(self, networks: frozenset[Network]) -> None:
        self._host_problems.pop("containers", None)
        if self._wire is not None and networks != frozenset(self._wire.containers):
            self._wire.count_containers(networks)
            self._log.info("host.containers", networks=[str(network) for network in self._wire.containers])

    def _host_failed(self, what: str, error: HostError) -> None:
        self._host_problems[what] = str(error)
        self._log.error("host.failed", error=str(error))

    async def _tend(self) -> None:
        purged = self._clock.mono()
        while True:
            await asyncio.sleep(TEND_EVERY)
            self._enforcer.tend()
            if self._clock.mono() - purged >= PURGE_EVERY:
                purged = self._clock.mono()
                self._enforcer.purge()

    async def _judge_late(self) -> None:
        """Judge what has waited for another witness."""
        while True:
            await asyncio.sleep(JUDGE_EVERY)
            self._evidence.tend(wire=self._sees_all(), listening=self._listening_since)

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
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    # -- the control socket -----------------------------------------------------------------------------

    def _handlers(self) -> Mapping[str, control.Handler]:
        return {
            "bans": self._bans,
            "status": self._status,
            "ban": self._ban,
            "unban": self._unban,
            "off": self._off,
            "on": self._on,
        }

    async def _bans(self, _: Mapping[str, Any]) -> object:
        return bans_report(self._enforcer.listing(await self._elements()))

    async def _elements(self) -> Sequence[Element]:
        """Read the kernel's list in a thread: nobody who only looks holds up a ban."""
        return await asyncio.to_thread(lambda: list(self._enforcer.backend.list()))

    async def _status(self, _: Mapping[str, Any]) -> object:
        bans = len(await self._elements())
        sources = [source for listener in self._listeners.values() for source in listener.sources]
        problems = [*([self._config_problem] if self._config_problem else []), *self._host_problems.values()]
        problems += self._evidence.problems
        problems += [self._connections.error] if self._connections.error else []
        if self._later.refused:
            problems.append(
                f"the disk is too slow: {self._later.refused} bans or ends of bans are not recorded"
            )
        return status_report(
            sources, self._wire, self._detector, self._enforcer, self._clock.mono(), bans, problems
        )

    def _ban(self, request: Mapping[str, Any]) -> object:
        seconds, reason = request.get("seconds"), request.get("reason", "")
        if not isinstance(seconds, int | float) or not 0 < seconds <= MAX_DURATION:
            raise ControlError("a ban needs a length: seconds, above 0 and at most ten years")
        if not isinstance(reason, str):
            raise ControlError("a reason is a text")
        return self._enforcer.ban(_networks(request), seconds, reason)

    def _unban(self, request: Mapping[str, Any]) -> object:
        if request.get("all") is True:
            return self._enforcer.unban_all()
        return self._enforcer.unban(_networks(request))

    def _off(self, _: Mapping[str, Any]) -> object:
        self._enforcer.switch_off()
        return True

    def _on(self, _: Mapping[str, Any]) -> object:
        self._enforcer.switch_on()
        self._enforcer.allow(self._never())
        return True


def _networks(request: Mapping[str, Any]) -> list[Network]:
    try:
        return [network_from(text) for text in request["networks"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError(f"not an address or network: {error}") from None
