"""The firewall's rules: which are wanted now, how they get into the kernel, and how damage is repaired."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import chain, repeat
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from attrs import evolve

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.reconcile import Reconciler
from ringfence.clock import until_tick
from ringfence.config.schema import Settings
from ringfence.detect.detector import Detector
from ringfence.errors import FirewallBusyError, FirewallError, StoreError
from ringfence.firewall.cleanup import flush_other_backends
from ringfence.firewall.contract import Backend, FirewallPlan
from ringfence.firewall.limits import LimitMode, Until
from ringfence.firewall.ports import PROTOCOLS, Ports
from ringfence.friends.startup import StartupGate
from ringfence.guard.exemptions import ExemptionTracker, KernelFriends
from ringfence.guard.process import claim_sets, every
from ringfence.host.listening import (
    ASSIGNED,
    ListeningPorts,
    NamedUsers,
    find_named_users,
    find_ports,
    find_proxy_sockets,
    find_proxy_users,
    find_users,
    is_here,
)
from ringfence.host.speech import Speeches
from ringfence.values.event import Endpoint, Transport
from ringfence.values.friend import Friend
from ringfence.values.network import Address, Network

WANTED_EVERY = 1.0  # seconds between two checks whether other rules are wanted
RETRY_EVERY = 30.0  # seconds until a failed change of the rules is tried again
PORTS_EVERY = 5.0
"""Seconds between two look-ups of the SIP ports: a reload of Asterisk may open one at any time."""
STARTING_EVERY, STARTING_LOOKS = 1.0, 60
"""Seconds between two look-ups while Asterisk has no SIP port, and the maximum number of these in a row."""
ABSENT_LOOKS = 3
"""The number of look-ups in a row without a port after which the rules no longer guard it."""


class SipSockets(NamedTuple):
    """The SIP ports of Asterisk and of its SIP proxies, and the sockets on which the proxies listen.

    ``ports`` is None if neither Asterisk's ports nor a proxy are found. ``unnamed``: a proxy listens, but the
    configuration names none. ``starting``: Asterisk has other ports, but none of SIP. ``named`` are the users
    that are named like Asterisk and like proxies. ``users`` are those of the sockets of Asterisk and of the
    configured proxies (empty if unknown).
    """

    ports: Ports | None
    proxies: frozenset[Endpoint]
    unnamed: bool = False
    starting: bool = False
    named: NamedUsers = NamedUsers()
    users: frozenset[int] = frozenset()


def find_sip_sockets(settings: Settings, speeches: Speeches | None = None) -> SipSockets:
    """Look up the SIP ports of Asterisk and of its proxies, and the proxies' sockets.

    If a proxy is found, but Asterisk is not, Asterisk's default ports are used. They are added to the ports
    of an Asterisk without SIP: a starting one opens those of HTTP, AMI and IAX2 first. ``speeches`` finds out
    which protocols Asterisk's sockets speak. If it is None, the numbers of the ports decide.

    The look-up of users' names may be slow, so do not call this in the event loop.
    """
    named = find_named_users(user for pbx in settings.asterisk for user in pbx.ami.server_users)
    found = find_ports(next(iter(_manager_ports(settings)), None), speeches=speeches, named=named)
    listening = find_proxy_sockets(named)
    proxies = listening if settings.proxies() else frozenset()
    unnamed = bool(listening - proxies)
    # An Asterisk without AMI may run as another user than those that have it.
    alike = len({pbx.ami.enabled for pbx in settings.asterisk}) == 1
    users = find_answer_users(settings, named) if alike else frozenset()
    if found is None and not proxies:
        return SipSockets(None, proxies, unnamed=unnamed, named=named, users=users)
    # Leave out UDP ports that the kernel assigned: a proxy does not serve SIP there, but uses them to send
    # requests to other services.
    udp = {one.port for one in proxies if one.transport is Transport.UDP and one.port < ASSIGNED}
    tcp = {one.port for one in proxies if one.transport is Transport.TCP}
    asterisk, usual = Ports(*(found if found is not None else ListeningPorts((), ()))), Ports()
    starting = found is not None and not asterisk.have_sip
    ports = evolve(
        asterisk,
        udp=tuple(sorted(udp.union(asterisk.udp, () if asterisk.udp and not starting else usual.udp))),
        tcp=tuple(sorted(tcp.union(asterisk.tcp, () if asterisk.tcp and not starting else usual.tcp))),
    )
    return SipSockets(ports, proxies, unnamed=unnamed, starting=starting, named=named, users=users)


def find_answer_users(settings: Settings, named: NamedUsers) -> frozenset[int]:
    """Look up the user ids of the sockets from which Asterisk and the configured proxies send answers.

    ``named`` are the users that are named like these programs. Return the empty set if Asterisk's user ids
    are unknown.
    """
    users = find_users(_manager_ports(settings), named)
    return users | find_proxy_users(named) if users and settings.proxies() else users


def _manager_ports(settings: Settings) -> list[int]:
    """Return the ports at which AMI is reached on this host.

    ringfence takes the process that listens at such a port for an Asterisk of this host.
    """
    return [pbx.ami.port for pbx in settings.asterisk if pbx.ami.enabled and is_here(pbx.ami.host)]


class RulePart:
    """A feature's part of the firewall's rules, in the daemon and at boot. By default it adds nothing."""

    def plan(self, plan: FirewallPlan) -> FirewallPlan:
        """Return ``plan``, the rules that are wanted now, with the rules of this feature."""
        return plan

    def configure(self, settings: Settings) -> object:
        """Apply a new configuration to the feature, before the firewall's rules are updated."""

    def on_friend(self, friend: Friend) -> object:
        """Record a reason why an address is a friend, before the friend is added."""

    def facts_about(self, network: Network) -> Mapping[str, Any]:  # noqa: ARG002 - for those that do something
        """Return what this feature does with packets from ``network``, as fields of ``NetworkFacts``."""
        return {}


class WantedRules:
    """The rules that are wanted now. They depend on the configuration, the SIP ports and the friends.

    ``startup`` decides whether the friends are known. ``parts`` may be added until the start.
    """

    def __init__(self, settings: Settings, startup: StartupGate, parts: Sequence[RulePart]) -> None:
        self._parts = parts
        self.settings = settings
        self.ports: Ports | None = None
        """The SIP ports of Asterisk and of its proxies; None if unknown."""
        self.named = NamedUsers()
        """The users that are named like Asterisk and like SIP proxies, as far as they were looked up."""
        self.users = frozenset[int]()
        """The users of the sockets of Asterisk and of configured proxies; empty if they are unknown."""
        self.containers: frozenset[Address] = frozenset()
        """The addresses of Asterisks in containers."""
        self._startup = startup
        # The plan that follows from these settings and ports: it is asked for each second.
        self._configured: tuple[Settings, Ports | None, FirewallPlan] | None = None

    @property
    def plan(self) -> FirewallPlan:
        """The rules that are wanted now. While friends may be unknown, rate limits only count packets."""
        plan = self.final if self._startup.for_limits else self.final.observing(Until.FRIENDS)
        return plan.observing(Until.ROSTERS) if self._startup.lacks_roster else plan

    @property
    def final(self) -> FirewallPlan:
        """The firewall rules that are wanted once the friends (known phones and trunks) are known."""
        known = self._configured
        if known is None or known[0] is not self.settings or known[1] != self.ports:
            known = self._configured = self.settings, self.ports, self.settings.plan(self.ports)
        plan = evolve(known[2], containers=self.containers)
        for part in self._parts:
            plan = part.plan(plan)
        return plan


class RuleUpdates:
    """Puts the wanted firewall rules into the kernel whenever they change.

    The backend stays the one that was chosen at the start, even if a reloaded configuration names another.
    Whenever listening SIP proxies are found, ``detector`` gets their sockets.
    """

    def __init__(
        self,
        wanted: WantedRules,
        backend: Backend,
        enforcer: Enforcer,
        alarms: Alarms,
        detector: Detector,
    ) -> None:
        self._detector = detector
        self._wanted = wanted
        self._backend = backend
        self._enforcer = enforcer
        self._alarms = alarms
        self._failed = False
        self._absent: dict[tuple[str, int], int] = {}  # by protocol and port: looks in a row that lacked it
        self._log = structlog.get_logger()

    @property
    def waiting(self) -> set[str]:
        """The names of the rate limits that only count packets now, until the friends are known."""
        final, present = self._wanted.final.modes, self._backend.plan.modes
        return {one for one in final if final[one] is LimitMode.ENFORCE and present[one] is LimitMode.OBSERVE}

    @property
    def has_succeeded(self) -> bool:
        """Whether the kernel has the rules that were wanted at the last :meth:`update`."""
        return self._enforcer.enforcing and not self._failed

    def update(self, *, again: bool = False) -> None:
        """Put the wanted rules in place if they have changed, if the last call failed, or with ``again``.

        A failure activates an alarm, and :meth:`run` tries again. If enforcement is off, the kernel is not
        changed: the backend only keeps the wanted rules for later. ``again``: the kernel may accept rules now
        that it refused before.
        """
        before, plan = self._backend.plan, self._wanted.plan
        if plan == before and not self._failed and not again:
            return
        self._backend.plan = plan
        if not self._enforcer.enforcing:
            return
        failed = self._failed
        try:
            opened = self._enforcer.reopen()
            if opened is None:  # `ringfence off` could not reach this daemon
                return
        except (FirewallError, StoreError) as error:
            self._failed = True
            self._alarms.activate(AlarmCode.FIREWALL_NOT_CHANGED, "", f"the new rules are missing: {error}")
        else:
            self._failed = False
            self._alarms.clear(AlarmCode.FIREWALL_NOT_CHANGED, "")
            if plan != before or failed:
                self._log.info("firewall.changed", what=plan.changed_keys(before))
            # Damage may have emptied the lists, so they are written again when it is repaired. This is also
            # done after a failed change: it may have repaired damage without writing the lists.
            if opened.repaired or failed:
                self._enforcer.filler.refill()
                self.update()  # until long lists are complete, no rule against strangers drops

    async def run(self) -> None:
        """Update the rules after changes of the SIP ports and when the friends are known, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(every(WANTED_EVERY, "rules", self._check, self._alarms))
            group.create_task(every(RETRY_EVERY, "rules again", self.update, self._alarms))
            group.create_task(self._follow_ports())

    def _check(self) -> None:
        """Update the rules if other rules are wanted now, for example since the friends are known."""
        if self._backend.plan != self._wanted.plan:
            self.update()

    async def _follow_ports(self) -> None:
        """Look up the SIP ports, and whether they speak TLS, periodically; use them for the rules."""
        # To find out which protocol each socket speaks takes seconds. So at first the port numbers decide:
        # the rules guard the ports at once, and the proxies are known.
        self.use(await asyncio.to_thread(find_sip_sockets, self._wanted.settings))
        speeches, soon = Speeches(), STARTING_LOOKS
        for pause in chain((1.0,), repeat(PORTS_EVERY)):
            found = await asyncio.to_thread(find_sip_sockets, self._wanted.settings, speeches)
            self.use(found)
            starting = found.starting or found.ports is None
            soon = soon - 1 if starting else STARTING_LOOKS
            await asyncio.sleep(STARTING_EVERY if starting and soon > 0 else pause)

    def use(self, found: SipSockets) -> None:
        """Use the SIP ports in ``found`` for the rules, and pass the proxies' sockets to the detector.

        Activate an alarm if a SIP proxy is configured, but none was found, and another one if a proxy was
        found, but none is configured; otherwise clear these alarms.
        """
        self._wanted.named, self._wanted.users = found.named, found.users
        if found.unnamed:
            self._alarms.activate(AlarmCode.PROXY_UNNAMED, "", "Kamailio or OpenSIPS listens here")
        else:
            self._alarms.clear(AlarmCode.PROXY_UNNAMED, "")
        if found.proxies:  # else keep the last ones: a proxy that starts again has the same sockets
            self._detector.set_proxy_sockets(found.proxies)
        if self._wanted.settings.proxies() and not found.proxies:
            self._alarms.activate(AlarmCode.PROXY_MISSING, "", "no Kamailio or OpenSIPS listens here")
        else:
            self._alarms.clear(AlarmCode.PROXY_MISSING, "")
        if found.ports is None:  # Asterisk is down: all ports stay
            self._absent.clear()
        else:
            self._set_ports(found.ports, starting=found.starting)

    def use_containers(self, addresses: frozenset[Address]) -> None:
        """Use ``addresses`` as those of Asterisks in containers from now on."""
        if addresses != self._wanted.containers:
            self._wanted.containers = addresses
            self._log.info("asterisk.containers", addresses=sorted(map(str, addresses)))
            self.update()

    def _with_absent(self, found: Ports, *, starting: bool) -> Ports:
        """Return ``found`` with the ports that were there lately, or with all that were there before a start.

        While Asterisk starts or stops, it has only some of its ports: those of HTTP and AMI open first. The
        others stay guarded meanwhile, however long it takes (``starting``).
        """
        present = self._wanted.ports or found
        absent = {
            (protocol, port)
            for protocol in PROTOCOLS
            for port in present.of(protocol)
            if port not in found.of(protocol)
        }
        self._absent = {one: 0 if starting else self._absent.get(one, 0) + 1 for one in absent}
        kept = {one for one, looks in self._absent.items() if looks < ABSENT_LOOKS}
        return Ports(
            *(
                tuple(sorted({*now, *(port for port in before if (protocol, port) in kept)}))
                for protocol, now, before in (
                    ("udp", found.udp, present.udp),
                    ("tcp", found.tcp, present.tcp),
                    ("tcp", found.sip, present.sip),
                    ("tcp", found.sips, present.sips),
                    ("tcp", found.other, present.other),
                )
            )
        )

    def _set_ports(self, found: Ports, *, starting: bool) -> None:
        present, ports = self._wanted.ports, self._with_absent(found, starting=starting)
        if present is None or not ports.is_like(present):
            self._wanted.ports = ports
            self.update()
            self._log.info("asterisk.ports", udp=ports.udp, tcp=ports.streams, tls=ports.tls, other=ports.web)


LOOK_EVERY = 1.0  # seconds between two checks of rules and sets
RULES_EVERY = 0.2  # seconds between two checks of the rules alone
SETTLED = 2.0
"""Seconds without changes by other programs, after which the next change is checked at once."""


class FirewallManager:
    """Puts the firewall in place and switches it on.

    ``folder`` is the folder of the control socket. A dry run may need it for the lock that it holds
    while it removes the rules of other backends.
    """

    def __init__(
        self,
        backend: Backend,
        enforcer: Enforcer,
        exemptions: ExemptionTracker,
        friends: KernelFriends,
        alarms: Alarms,
        folder: Path,
    ) -> None:
        self._backend = backend
        self._enforcer = enforcer
        self._exemptions = exemptions
        self._friends = friends
        self._alarms = alarms
        self._folder = folder
        self._leftovers = False  # whether sets or rules of another backend could not be removed
        self._log = structlog.get_logger()

    def start(self, *, verified: bool = True) -> None:
        """Put the rules in place, and every ban that has not ended yet.

        With ``verified``, a test packet checks that the rules drop packets of banned senders. If enforcement
        is switched off, the kernel is not changed. Raise FirewallError; ProbeError if the packet passed.
        """
        self._enforcer.start(verified=verified)
        # The wanted rules are in place, so clear the alarms that an earlier run of the daemon activated.
        self._alarms.clear(AlarmCode.FIREWALL_NOT_ENFORCED, "")
        self._alarms.clear(AlarmCode.FIREWALL_NOT_CHANGED, "")
        self._exemptions.apply(restored=True)
        self._flush_other_backends()

    def switch_on(self, *, recorded: bool = True) -> None:
        """Put rules and bans in place again after enforcement was off. Raise FirewallError or StoreError.

        If not all bans and unbans are ``recorded``, some bans are restored later (:meth:`retry_switch`).
        """
        self._enforcer.switch_on(recorded=recorded)
        self._alarms.clear(AlarmCode.FIREWALL_NOT_ENFORCED, "")
        self._friends.renew()
        self._exemptions.apply(restored=True)
        self._flush_other_backends()

    def retry_switch(self) -> None:
        """Switch enforcement on, or off, as the administrator wants it, if an earlier try failed.

        If some recorded bans were not restored, try that again. If the rules of another backend
        could not be removed, try that again too. A failure causes an alarm.
        """
        if self._enforcer.enforcing:
            if self._enforcer.retry_restore():
                self._friends.renew()
                self._exemptions.apply(restored=True)
            if self._leftovers:
                self._flush_other_backends()
            return
        if self._enforcer.records.switched_off:
            if self._enforcer.not_removed:
                self._enforcer.remove_rules()
            return
        try:
            self.switch_on(recorded=self._enforcer.records.catch_up())
        except (FirewallError, StoreError) as error:
            self._alarms.activate(AlarmCode.FIREWALL_NOT_ENFORCED, "", f"nothing is enforced: {error}")

    def _flush_other_backends(self) -> None:
        """Remove the sets and rules of other backends from the kernel; a failure activates an alarm.

        The kernel has some if another backend was in use before. Call this when the rules of the present
        backend are in place. Do nothing while enforcement is off, or if this is a dry run and another daemon
        holds the lock of the sets.
        """
        if not self._enforcer.enforcing:
            return
        # A daemon that enforces has the lock already. A dry run has none, so it takes the lock here: it must
        # not remove the rules of another daemon.
        claim = nullcontext() if self._backend.enforces else claim_sets(self._folder)
        try:
            with claim:
                others = flush_other_backends(self._backend.name)
        except FirewallBusyError:
            return
        except FirewallError as error:
            self._leftovers = True
            text = f"another backend's rules stay: {error}; fix, as root: ringfence off, ringfence on"
            self._alarms.activate(AlarmCode.FIREWALL_LEFTOVERS, "", text, inf)
        else:
            self._leftovers = False
            self._alarms.clear(AlarmCode.FIREWALL_LEFTOVERS, "")
            if others:
                self._log.warning("firewall.taken_over", before=others, now=self._backend.name)


class ChangeWatch:
    """Checks whether other programs have damaged ringfence's rules and sets; the checks repair the damage.

    Rules and sets are checked each second. With a backend whose changes the kernel reports, they are also
    checked at once after a change. If another change follows within two seconds (``SETTLED``), it waits for
    the next check: a program that changes its own table five times a second would multiply the checks. With
    other backends, the rules alone are also checked five times a second.

    A check that repairs damage starts processes and blocks the event loop. The pause after it is twice as
    long as the check. So checks take at most a third of the time, even if another program always removes the
    rules.
    """

    def __init__(self, backend: Backend, enforcer: Enforcer, reconciler: Reconciler) -> None:
        self._backend = backend
        self._enforcer = enforcer
        self._reconciler = reconciler

    async def run(self) -> None:
        """Check ringfence's rules and sets for damage by other programs, and repair it, until cancelled."""
        now = asyncio.get_running_loop().time
        full, pause, reported_at = now() + until_tick(LOOK_EVERY), RULES_EVERY, -inf
        while True:
            # While the kernel reports changes, only a long check needs a pause.
            if pause >= RULES_EVERY or self._descriptor is None:
                await asyncio.sleep(max(RULES_EVERY, pause))
            reported = await self._is_reported(full - now())
            if reported:
                before, reported_at = reported_at, now()
                if reported_at - before <= SETTLED:
                    await asyncio.sleep(full - now())
            began = now()
            if reported or began >= full:
                full = began + until_tick(LOOK_EVERY)
                self._reconciler.check()
            else:
                self._reconciler.check_rules()
            pause = 2 * (now() - began)

    @property
    def _descriptor(self) -> int | None:
        """The descriptor that is readable after a change of the kernel's rules; the backend may replace it.

        None if nothing is enforced, or if the kernel does not report changes of this backend.
        """
        return self._backend.watch_fd() if self._enforcer.enforcing else None

    async def _is_reported(self, seconds: float) -> bool:
        """Wait until the kernel reports a change by another program; return whether it did.

        Return False after ``seconds`` without a change. Return False at once if nothing is enforced, or if
        the kernel does not report changes of this backend.
        """
        descriptor = self._descriptor
        if descriptor is None:
            return False
        loop, reported = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, reported.set)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await reported.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(descriptor)
        return True
