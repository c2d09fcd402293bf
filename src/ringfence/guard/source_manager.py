"""Runs the sources of all PBXs, replaces them after a reload, and checks them."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import structlog
from attrs import define

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.clock import Clock
from ringfence.config.schema import AsteriskSettings
from ringfence.detect.detector import Detector
from ringfence.errors import HostError, SourceError
from ringfence.friends.registry import FriendRegistry
from ringfence.friends.startup import SourceReadiness
from ringfence.guard.firewall_manager import WantedRules, find_answer_users
from ringfence.guard.haste import Haste
from ringfence.guard.pipeline import Pipeline
from ringfence.host.listening import foreign_user
from ringfence.host.routes import follow_containers
from ringfence.parse.line_result import LogAlarm
from ringfence.sources.ami import AmiSource, AmiTarget, AmiTls
from ringfence.sources.logs import LogPlan, Logs, LogSource, Positions
from ringfence.sources.roster import AmiListener
from ringfence.sources.standby import Standby
from ringfence.sources.state import WITHOUT_WIRE, Condition, State, coverage_gaps
from ringfence.sources.wire import WireHost, WireSource
from ringfence.store.tables import SavedState
from ringfence.store.writer import BestEffort
from ringfence.values.friend import Contact, Roster
from ringfence.values.network import Address, Network
from ringfence.values.text import printable

if TYPE_CHECKING:
    from ringfence.sources.log_ingest import AlarmCount
    from ringfence.sources.nflog import NflogSource

# -- the parameters of the sources (addresses, logins, paths of logs), from the configuration
#
# The daemon and ``ringfence check`` both use these functions, so that both connect in the same way.


def target_of(pbx: AsteriskSettings) -> AmiTarget:
    """Return where the manager interface (AMI) of ``pbx`` is, with its login and its TLS settings.

    Raise SourceError if the configuration was loaded without its secrets.
    """
    ami = pbx.ami
    if ami.secret is None:
        raise SourceError(f"{pbx.name}: the configuration was loaded without its secrets")
    return AmiTarget(
        asterisk=pbx.name,
        host=ami.host,
        port=ami.port,
        username=ami.username,
        secret=ami.secret,
        tls=AmiTls(ami.tls_ca, ami.tls_verify) if ami.tls else None,
    )


def logs_of(pbx: AsteriskSettings) -> LogPlan:
    """Return which logs of ``pbx`` are read, their time zone, and the administrator's own line patterns."""
    logs = pbx.logs
    users = logs.journal_users
    return LogPlan(pbx.name, logs.paths, logs.journal, logs.timezone, logs.patterns, journal_users=users)


# -- the positions up to which logs were read


class LogPositions(Positions):
    """Up to where each log was read, in the database. A position can be read before it is written."""

    def __init__(self, state: SavedState, best_effort: BestEffort) -> None:
        super().__init__()
        self._state = state
        self._best_effort = best_effort

    def read(self) -> Mapping[str, str]:
        """Return the latest position in each log, by the log's key."""
        return {**self._best_effort.read(self._state.positions, {}), **self.latest}

    def record(self, key: str, position: str) -> None:
        """Queue the position up to which the log ``key`` was read, to be written to the database."""
        super().record(key, position)
        self._best_effort.write(self._state.set_positions, {key: position}, key=("position", key))


# -- the wire source in a running daemon: it reads the SIP challenges that this host or its containers send


_UNKNOWN_USER = (
    "the user of Asterisk's sockets is unknown, so answers of this host do not count; fix: let AMI listen on "
    "this host with its own port, and if Asterisk's user is not named asterisk, add it to server_users in "
    "[asterisk.ami]"
)
_UNKNOWN_ADDRESS = (
    "the address of Asterisk's container is unknown, so answers of containers do not count; fix: host of "
    "[asterisk.ami] = the container's address"
)
RENEW = 60.0
"""Seconds after which the user ids of Asterisk's sockets are looked up again."""
RENEW_FOREIGN = 2.0
"""Minimum seconds between look-ups of Asterisk's user ids that packets of other user ids cause."""


class SocketUsers:
    """The user ids of the sockets of Asterisk, and of a configured SIP proxy.

    Only challenges (SIP 401 or 407) from sockets of these ids count as Asterisk's: a stranger can make
    another program of this host send a packet that looks like one.

    After each change, except the first lookup, answers may have been missed, so ``detector`` is informed that
    packets were lost.
    """

    def __init__(self, rules: WantedRules, clock: Clock, detector: Detector) -> None:
        self.users: frozenset[int] = frozenset()
        self._rules = rules
        self._named = rules.named
        self._detector = detector
        self._clock = clock
        self._found_at = -inf
        self._log = structlog.get_logger()

    def has(self, user: int) -> bool | None:
        """Whether sockets of Asterisk (or a SIP proxy) have the user id ``user``; None if no id is known.

        The ids are looked up again after a minute (``RENEW``), for an unknown id after two seconds
        (``RENEW_FOREIGN``), and when ``rules.named`` has changed. A thread looks up those names, because that
        may be slow.
        """
        now, named = self._clock.mono(), self._rules.named
        age = now - self._found_at
        if age >= RENEW or named != self._named or (age >= RENEW_FOREIGN and user not in self.users):
            before, self.users = self.users, find_answer_users(self._rules.settings, named)
            self._named = named
            if self.users != before and self._found_at > -inf:
                self._detector.observe_loss(now)
                self._log.info("wire.users", users=sorted(self.users))
            self._found_at = now
        return user in self.users if self.users else None


HURRY_FOR = 60.0
"""Seconds after a stranger got an answer by TLS in which every new line of a log is read at once."""


class WireReader(WireHost):
    """Runs the wire source, which reads the SIP packets that the kernel copies to ringfence.

    It also keeps the source's list of the networks of containers up to date. ``hurry`` is set while logs must
    be read at once: the kernel does not copy everything, or a stranger has an exchange by TLS.

    ``rules`` has the configuration, which names the SIP proxies and the ports of web pages.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        detector: Detector,
        enforcer: Enforcer,
        clock: Clock,
        rules: WantedRules,
        haste: Haste,
    ) -> None:
        self.users = SocketUsers(rules, clock, detector)
        self.hurry = asyncio.Event()
        self.hurry.set()
        self._exchanged_at = -inf
        self.source = WireSource(pipeline, self)
        self._amis: Sequence[AmiSource | None] = ()
        self._rules = rules
        self._haste = haste
        self._pipeline = pipeline
        pipeline.wire = self
        self._enforcer = enforcer
        self._rebuilt_at: float | None = None  # unknown until the first check
        self._clock = clock
        self._error = ""
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Follow the networks of containers, whose packets :attr:`source` reads, until cancelled."""
        # This call without packets shows the detector that the wire is read. Otherwise an event of AMI
        # that arrives before the first answer would be judged as if there were no wire.
        self._pipeline.on_packets((), self._clock.mono())
        async for found in follow_containers():
            self.set_containers(found)

    def ask_amis(self) -> None:
        """Ask every Asterisk by AMI how far its events have been read; the answer comes later.

        Meanwhile no events gather: the unreadable requests that wait may be those of a new friend, and the
        kernel does not limit the answers to friends.
        """
        self._haste.hurry()
        for ami in self._amis:
            if ami is not None:
                ami.reading.ask()

    def drain(self) -> bool:
        """Read the packets that have arrived, so that they count before the next events of other sources.

        Return whether all were read.
        """
        return self.source.drain()

    def check(self) -> None:
        """Set ``hurry`` if logs must be read at once, because packets are unreadable; otherwise clear it.

        If the rules were missing since the last call, also record that copies of packets were lost.
        """
        before, self._rebuilt_at = self._rebuilt_at, self._enforcer.rebuilt_at
        if before is not None and before != self._rebuilt_at:
            self.source.on_gap(self._clock.mono())
        if self.sees_all and self._clock.mono() - self._exchanged_at >= HURRY_FOR:
            self.hurry.clear()
        else:
            self.hurry.set()

    def on_exchange(self) -> None:
        """Make logs be read at once for ``HURRY_FOR`` seconds: a stranger gets an answer by TLS."""
        self._exchanged_at = self._clock.mono()
        self.hurry.set()

    @property
    def condition(self) -> Condition:
        """The state of the source that reads copied SIP packets, such as ``listening``, with a detail."""
        return self.source.condition

    @property
    def is_listening(self) -> bool:
        """Whether the SIP challenges that leave this host are read now."""
        return self.condition.state is State.LISTENING

    @property
    def sees_all(self) -> bool:
        """Whether every SIP challenge that leaves this host over UDP is read now.

        The wire source must be listening. Enforcement must be on: otherwise no rule is in place. The firewall
        must guard both IP versions, and have the rules that copy challenges to the wire source. The list of
        the containers' networks must be readable.
        """
        opened = self._enforcer.opened
        return (
            self.is_listening
            and self._enforcer.enforcing
            and opened is not None
            and not opened.wire
            and all(trouble is None for trouble in opened.families.values())
            and not self._error
        )

    @property
    def alarms(self) -> list[Alarm]:
        """The alarms about the source that reads copied packets, and about the networks of containers."""
        found = [Alarm(AlarmCode.HOST_UNREADABLE, "containers", self._error)] if self._error else []
        opened = self._enforcer.opened
        if opened is not None and opened.wire:
            text = f"the wire sees nothing: {opened.wire}; {WITHOUT_WIRE}"
            found.append(Alarm(AlarmCode.WIRE_BLIND, "", text))
        elif self.source.counts.unowned and not self.users.users:
            found.append(Alarm(AlarmCode.WIRE_USER, "", _UNKNOWN_USER))
        elif self.source.counts.unnamed and any(ami is None or ami.addresses is None for ami in self._amis):
            found.append(Alarm(AlarmCode.WIRE_USER, "containers", _UNKNOWN_ADDRESS))
        elif self.condition.state not in (State.LISTENING, State.CONNECTING):
            why = printable(self.condition.detail) or str(self.condition.state)
            found.append(Alarm(AlarmCode.WIRE_BLIND, "", f"the wire is not seen: {why}; {WITHOUT_WIRE}"))
        return found

    def set_asterisks(self, amis: Sequence[AmiSource | None]) -> None:
        """Use ``amis`` as the AMI sources of all Asterisks from now on; None for one without AMI."""
        self._amis = amis

    def is_asterisks(self, user: int) -> bool | None:
        """Whether sockets of Asterisk (or a SIP proxy) have the user id ``user``; None if no id is known."""
        return self.users.has(user)

    def has_pages(self, port: int) -> bool:
        """Whether strangers may read web pages at a port by TLS."""
        sip = port in self._enforcer.backend.plan.sip_ports.tls
        return not sip and self._rules.settings.has_pages(port)

    def is_container(self, address: Address) -> bool | None:
        """Whether a container's ``address`` is an Asterisk's; None if that of some Asterisk is unknown."""
        found = [ami.addresses if ami is not None else None for ami in self._amis]
        if any(address in one for one in found if one is not None):
            return True
        return None if not found or None in found else False

    def set_containers(self, networks: frozenset[Network] | HostError) -> None:
        """Use ``networks`` as the networks of this host's containers; with an error, keep those before."""
        if isinstance(networks, HostError):
            self._error = str(networks)
            self._log.error("host.failed", error=self._error)
            return
        self._error = ""
        if networks != frozenset(self.source.containers):
            self.source.set_containers(networks)
            self._log.info("host.containers", networks=[str(network) for network in self.source.containers])


# -- alarms about sources that have stopped, and about logs with faults, such as missing lines
#
# While a source is down, attempts that only this source reports are missed. A source that has not been
# listening for ``PATIENCE`` has an alarm, with the reason, until it listens again. A log that was never read
# causes no such alarm while it does not exist.


PATIENCE = 5.0
"""Seconds that a source may take to start, or to listen again, before there is an alarm."""

DAY = 86_400.0
"""Seconds that an alarm about a fault of a log (such as missing lines) lasts."""


class SourceWatchdog:
    """Activates and clears alarms about sources that stopped. :meth:`check` is called twice a second."""

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._quiet_since: dict[str, float] = {}
        self._listened: set[str] = set()
        self._last_raised: dict[tuple[str, LogAlarm], AlarmCount] = {}

    def check(self, conditions: Mapping[str, Condition], now: float) -> None:
        """Activate or clear the alarm of each source, by its condition at ``now`` (monotonic seconds).

        ``conditions`` has the condition of each source by its name. The alarm of a source that is no longer
        there is cleared.
        """
        for name, condition in conditions.items():
            if condition.state is State.LISTENING:
                self._listened.add(name)
            if condition.state is State.LISTENING or self._is_waited_for(name, condition):
                self._quiet_since.pop(name, None)
                # An earlier run of the daemon may have activated the alarm, even if this run has not.
                self._alarms.clear(AlarmCode.SOURCE_SILENT, name)
            elif now - self._quiet_since.setdefault(name, now) >= PATIENCE:
                detail = printable(condition.detail)
                text = f"reports nothing for {PATIENCE:.0f} s and more: {condition.state}, {detail}"
                self._alarms.activate(AlarmCode.SOURCE_SILENT, name, text)
        for name in self._quiet_since.keys() - conditions.keys():
            del self._quiet_since[name]
            self._alarms.clear(AlarmCode.SOURCE_SILENT, name)

    def _is_waited_for(self, name: str, condition: Condition) -> bool:
        return condition.state is State.WAITING and name not in self._listened

    def on_log_alarms(self, name: str, counts: "Iterable[tuple[LogAlarm, AlarmCount]]") -> list[LogAlarm]:
        """Activate an alarm for each fault of the log ``name`` that has occurred again since the last call.

        Return these faults. ``counts`` has each fault with the number of its occurrences so far, and the time
        of the latest. A new source of the log counts from zero.
        """
        again = []
        for fault, raised in counts:
            if raised.count and raised != self._last_raised.get((name, fault)):
                self._last_raised[name, fault] = raised
                self._alarms.activate(_CODES[fault], name, fault, lasts=DAY)
                again.append(fault)
        return again


_CODES = {
    LogAlarm.QUEUE_FULL: AlarmCode.LOG_LOST,
    LogAlarm.QUEUE_RESUMED: AlarmCode.LOG_LOST,
    LogAlarm.SILENCED: AlarmCode.LOG_SILENCED,
    LogAlarm.TAMPERED: AlarmCode.LOG_TAMPERED,
    LogAlarm.CLOCK: AlarmCode.LOG_CLOCK,
    LogAlarm.JOURNAL_DROPS: AlarmCode.LOG_JOURNAL_DROPS,
    LogAlarm.JOURNAL_USER: AlarmCode.LOG_JOURNAL_USER,
}


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


class SourceManager(AmiListener):
    """Runs the sources of the PBXs that :meth:`configure` was called with, and those of the whole host.

    ``wire`` reads the SIP challenges that leave this host; None if they are not read.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        friends: FriendRegistry,
        positions: LogPositions,
        watchdog: SourceWatchdog,
        wire: WireReader | None,
        clock: Clock,
    ) -> None:
        self._pipeline = pipeline
        self._friends = friends
        self._positions = positions
        self._watchdog = watchdog
        self.others: list[NflogSource] = [] if wire is None else [wire.source]
        """The sources of the whole host: the wire, and those of features."""
        self.listeners: list[AmiListener] = []
        """Further objects that get each roster, and each change of a phone; more may be added."""
        self._wire = wire
        self._clock = clock
        self._pbxs: dict[str, PbxSources] = {}
        self._changed = asyncio.Event()

    def add(self, source: "NflogSource") -> None:
        """Add a source of the whole host. Call this before :meth:`run`."""
        self.others.append(source)

    def configure(self, wanted: Sequence[AsteriskSettings]) -> None:
        """Replace the sources of the PBXs whose settings changed.

        :meth:`run` then stops the old ones and starts the new ones. An AMI source that stays connects at once
        if it waits: the administrator may have corrected its login in Asterisk. If a source cannot be made,
        raise SourceError, ImportError or OSError, and replace none.
        """
        kept = {name: pbx for name, pbx in self._pbxs.items() if pbx.settings in wanted}
        self._pbxs = {pbx.name: kept.get(pbx.name) or self._sources_of(pbx) for pbx in wanted}
        for pbx in self._pbxs.values():
            if pbx.ami is not None:
                pbx.ami.retry()
        if self._wire is not None:
            self._wire.set_asterisks([pbx.ami for pbx in self._pbxs.values()])
        self._changed.set()

    async def run(self) -> None:
        """Run the sources until cancelled."""
        tasks: dict[PbxSources, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            if self._wire is not None:
                group.create_task(self._wire.run())
            for source in self.others:
                group.create_task(source.run(), name=source.id)
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
        """Those AMI and log sources that are active now, of all PBXs."""
        return [source for pbx in self._pbxs.values() for source in pbx.active]

    @property
    def addresses(self) -> frozenset[Address]:
        """The addresses of all Asterisks, except loopback, as far as their AMI reports them."""
        known = (pbx.ami.addresses for pbx in self._pbxs.values() if pbx.ami is not None)
        return frozenset().union(*(found for found in known if found is not None))

    def readiness(self) -> list[SourceReadiness]:
        """Return the readiness of each manager interface (AMI), for which the daemon's start waits.

        ``since`` is the time of the login there (monotonic seconds); None without one now. An Asterisk may
        report its phones and no events. ``roster_ready``: the list of its phones (roster) has arrived.
        """
        amis = [pbx.ami for pbx in self._pbxs.values() if pbx.ami is not None]
        return [
            SourceReadiness(since=ami.logged_in_since, roster_ready=ami.roster_ready.is_set()) for ami in amis
        ]

    def check(self) -> None:
        """Judge the reports that have waited long enough for confirmation; update the alarms of sources."""
        if self._wire is not None:
            self._wire.check()
        sees_all = self._wire is not None and self._wire.sees_all
        listening = self.listening
        self._pipeline.tick(
            wire=sees_all, listening=listening, all_report=listening.keys() >= self._pbxs.keys()
        )
        sources = self.active
        conditions = {str(source.id): source.condition for source in (*sources, *self.others)}
        self._watchdog.check(conditions, self._clock.mono())
        for source in sources:
            if not isinstance(source, AmiSource):
                again = self._watchdog.on_log_alarms(str(source.id), source.alarms.items())
                if LogAlarm.SILENCED in again:
                    self._pipeline.on_silence()

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

    @property
    def listening(self) -> dict[str, float]:
        """Since when each AMI that delivers events has been connected, by the name of its Asterisk."""
        amis = {name: pbx.ami.listening_since for name, pbx in self._pbxs.items() if pbx.ami is not None}
        return {name: since for name, since in amis.items() if since is not None}

    def _sources_of(self, pbx: AsteriskSettings) -> PbxSources:
        sink = self._pipeline.on_events
        standby = Standby(sink, sink, ami=pbx.ami.enabled)
        ami = None
        if pbx.ami.enabled:
            ami = AmiSource(
                target_of(pbx),
                standby.on_ami_events,
                listener=self,
                coverage=standby.coverage,
                foreign_user=partial(foreign_user, users=pbx.ami.server_users),
            )
        logs = None
        if pbx.logs.wanted:
            logs = Logs(
                logs_of(pbx),
                sink,
                self._positions,
                standby=standby,
                hurry=self._wire.hurry if self._wire is not None else None,
            )
        return PbxSources(pbx, ami, logs)

    def on_roster(self, roster: Roster) -> None:
        """Pass the list of an Asterisk's phones and trunks on to the friends and to each listener."""
        self._friends.on_roster(roster)
        for listener in self.listeners:
            listener.on_roster(roster)

    def on_reload(self) -> None:
        """Unban the senders that Asterisk may know, since it has read its trunks again."""
        self._pipeline.on_reload()

    def on_read(self) -> None:
        """Judge the unreadable requests without an event, now that every AMI has been read further."""
        amis = [pbx.ami for pbx in self._pbxs.values()]
        self._pipeline.on_read(min(-inf if ami is None else ami.reading.until for ami in amis))

    def on_contact(self, contact: Contact) -> None:
        """Handle the change of a registered phone's address: in the detector, the friends, each listener.

        The order matters, because the detector checks whether the account worked at that address before.
        """
        self._pipeline.on_contact(contact, self._clock.mono())
        self._friends.on_contact(contact)
        for listener in self.listeners:
            listener.on_contact(contact)
