"""The firewall's side of the daemon: what the rules are to be, who is exempt, and who looks after the bans.

Knows the configuration, the lists and the host; the enforcer knows the kernel. A change of any of them is in
force when the call returns, or at the next look, a second later.
"""

import asyncio
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from ipaddress import ip_network
from itertools import chain, islice, repeat

import structlog
from attrs import evolve

from ringfence import trial
from ringfence.alarms import Alarms
from ringfence.bans.enforce import Enforcer
from ringfence.bans.exempt import ITSELF, Exempt, reachable
from ringfence.bans.ineffective import Ineffective
from ringfence.bans.lifting import spare
from ringfence.bans.reconcile import Reconciler
from ringfence.bans.records import Records
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.friends import Friends
from ringfence.detect.networks import NetworkSet
from ringfence.detect.rules import Claimed
from ringfence.errors import FirewallBusyError, FirewallError, HostError, StoreError
from ringfence.firewall import choose, make_backend
from ringfence.firewall.contract import Flooder, LimitMode, Plan, Ports, Roll, Usage
from ringfence.firewall.leftovers import flush_the_other
from ringfence.firewall.ownership import claim_sets
from ringfence.friends.keeping import Keeping
from ringfence.host.addresses import follow_addresses, read_addresses
from ringfence.host.diagnosis import Diagnosis, Seen
from ringfence.host.listening import find_ports
from ringfence.host.names import Names
from ringfence.host.protected import follow_protected, read_protected
from ringfence.lists.manager import Lists
from ringfence.lists.rolls import Rolls
from ringfence.model import Address, Attempt, Network, Scope, rfc3339
from ringfence.settings import Settings

TEND_EVERY = 1.0
PURGE_EVERY = 3_600.0
USAGE_EVERY = 30.0
PORTS_EVERY = 60.0
FRIENDS_EVERY = 0.1
_OWN = "an address of this host"


class Keeper:
    """Owns the enforcer and all that it is to be told. ``flooded`` is called with who is over the limit."""

    def __init__(
        self,
        settings: Settings,
        records: Records,
        detector: Detector,
        clock: Clock,
        *,
        friends: Friends | None = None,
        log_group: int | None = None,
        flooded: Callable[[Iterable[Network]], None] = lambda _: None,
    ) -> None:
        self.alarms = Alarms(clock.wall)
        self._settings = settings
        self._clock = clock
        self._log_group = log_group
        self._ports: Ports | None = None
        self._flooded = flooded
        self._log = structlog.get_logger()
        self._wanted: dict[str, frozenset[str]] = {}
        self._passing: dict[Address, Network] = {}
        self._spared: Collection[Address] = ()
        self.friends = Keeping(
            records.store,
            clock.wall,
            friends=friends,
            remember=records.remember,
            follow=partial(self._follow, "friends"),
            own=lambda address: address in self._own_addresses,
        )
        plan, self.why = self._plan(), "the configuration says so"
        if settings.firewall.backend == "auto":
            backend, self.why = choose(plan)
        else:
            backend = make_backend(settings.firewall.backend, plan)
        self.enforcer = Enforcer(backend, records, detector, clock, rolls=self._roll)
        self.reconciler = Reconciler(self.enforcer, self.alarms)
        self._names = Names(self._names_changed, records.names())
        self.lists = Lists(
            records.store,
            settings.lists(),
            self._lists_changed,
            now=clock.wall,
            follow=partial(self._follow, "lists"),
        )
        self._own = frozenset()
        self._told = False
        self._denied: object = None  # what the kernel was told last
        self._protected: Mapping[Network, str] = {}
        self._troubles: dict[str, str] = {}
        self._ineffective = Ineffective()
        self._diagnosis = Diagnosis()
        self._arrivals: asyncio.Queue[Address] = asyncio.Queue(maxsize=100)
        self._packets: dict[Network, int] = {}
        self._limiter_full = 0
        self._planless = False
        self._watched: int | None = None

    def mount(self, *, verified: bool = True) -> None:
        """Put the firewall in place, with every ban that has time left; raises as :meth:`Enforcer.start`."""
        self._own = read_addresses()
        self._protected = read_protected(partial(self._failed, "protected"))
        self.lists.protect(self._reasons())
        self.lists.resolved(self._names.answers)
        self.friends.resolved(self._names.answers)
        self.lists.load()
        self.enforcer.records.read(self.friends.load, None)
        self._see_who_passes()
        self.enforcer.backend.plan = self._plan()
        self.enforcer.detector.never = self._exempt().never
        self.enforcer.start(verified=verified)
        self.enforcer.allow(self._exempt())
        self._log.info("firewall.chosen", backend=self.enforcer.backend.name, why=self.why)
        self._take_away_the_other()

    def switch_on(self) -> None:
        """Enforce again."""
        self.enforcer.switch_on()
        self.enforcer.exempt = Exempt()  # whoever came to be exempt meanwhile is let go
        self._spared = ()
        self.enforcer.allow(self._exempt())
        self._take_away_the_other()

    def _take_away_the_other(self) -> None:
        """Take away what another backend still has, now that everything stands in this one."""
        enforcer = self.enforcer
        if not enforcer.enforcing:
            return
        try:
            # A dry run drops nothing; but beside a daemon that guards it touches nothing either.
            with nullcontext() if enforcer.backend.enforces else claim_sets():
                others = flush_the_other(enforcer.backend.name)
        except FirewallBusyError:
            return
        except FirewallError as error:
            mend = "as root: ringfence off, ringfence on"
            text = f"what another backend left cannot be taken away: {error}; mend, {mend}"
            self.alarms.sound("firewall", "leftovers", text)
        else:
            self.alarms.over("firewall", "leftovers")
            if others:
                self._log.warning("firewall.taken_over", before=others, now=enforcer.backend.name)

    @property
    def claims(self) -> Claimed:
        """What evidence may do that only claims its address."""
        return self._settings.claims()

    @property
    def trial(self) -> float | None:
        """When the trial ends (wall clock), None where there is none."""
        return self.enforcer.records.read(lambda: trial.until(self.enforcer.records.store), None)

    def end_trial(self) -> None:
        """Take everything away, if there is a trial and nobody has confirmed it."""
        if self.trial is None:
            return
        self._log.warning("trial.over", mend="ringfence on")
        try:
            self.enforcer.switch_off()
            trial.confirm(self.enforcer.records.store)
        except (FirewallError, StoreError) as error:
            text = f"the trial's end did not take everything away: {error}; mend: ringfence off"
            self.alarms.sound("firewall", "trial", text)

    def close(self) -> None:
        """Let go of the kernel; what is in it stays."""
        self.enforcer.backend.close()

    @property
    def problems(self) -> list[str]:
        """What is wrong on this side, a line each."""
        end = self.trial
        tried = [f"a trial: all is removed at {rfc3339(end)}, unless: ringfence confirm"] if end else []
        return [
            *tried,
            *self._unguarded,
            *self._troubles.values(),
            *self._names.problems,
            *self.lists.problems,
        ]

    @property
    def _unguarded(self) -> list[str]:
        """Say which of the named interfaces are not there: by a slip of the pen nobody would be dropped."""
        there = {name for _, name in socket.if_nameindex()}
        missing = [name for name in self._settings.firewall.interfaces if name not in there]
        if not missing:
            return []
        names = ", ".join(missing)
        return [f"[firewall] interfaces: there is no {names} here; what comes by others is not dropped"]

    def configure(self, settings: Settings) -> None:
        """Take a new configuration: lists and rules are in force at once, the backend stays what it is."""
        self._settings = settings
        self.lists.configure(settings.lists())
        self._replan()

    def _ports_are(self, ports: Ports) -> None:
        if ports != self._ports:
            self._ports = ports
            self._log.info("asterisk.ports", udp=ports.udp, tcp=ports.tcp)
            self._replan()

    def _replan(self) -> None:
        backend = self.enforcer.backend
        plan = self._plan()
        before = backend.plan
        if plan == before and not self._planless:
            return
        backend.plan = plan
        if not self.enforcer.enforcing:
            return
        try:
            self.enforcer.opened = backend.open()
        except FirewallError as error:
            self._planless = True  # tried again with the next usage
            self.alarms.sound("firewall", "plan", f"the new rules could not be put in place: {error}")
        else:
            self._planless = False
            self.alarms.over("firewall", "plan")
            self._log.info("firewall.changed", what=plan.differing(before))

    def _plan(self) -> Plan:
        """Give the rules that are wanted now: the limiter drops nothing before it knows whom to spare."""
        plan = self._settings.plan(self._ports, self._log_group)
        return evolve(plan, limit=evolve(plan.limit, mode=LimitMode.OBSERVE)) if self.limiter_waits else plan

    @property
    def limiter_waits(self) -> bool:
        """Whether the limiter only observes until it is known whom to spare."""
        mode = self._settings.firewall.limit.mode
        return mode is LimitMode.ENFORCE and not self.friends.known.for_limiter(self._clock.mono())

    # -- friends ----------------------------------------------------------------------------------------

    @property
    def friends_known(self) -> bool:
        """Whether the phones that are registered are friends, or are not to be waited for any longer."""
        return self.friends.known.for_bans(self._clock.mono())

    async def _keep_friends(self) -> None:
        """Have the kernel know who is a friend: at once, but no more than a twentieth of the time."""
        while True:
            await self.friends.stirred.wait()
            self.friends.stirred.clear()
            began = self._clock.mono()
            if self._see_who_passes() and self.enforcer.enforcing:
                self.enforcer.fill(Roll.FRIENDS)
                spare(self.enforcer, self._passing.keys() - self._spared)
                self._spared = self._passing.keys()
            await asyncio.sleep(max(FRIENDS_EVERY, 20 * (self._clock.mono() - began)))

    def _see_who_passes(self) -> bool:
        """See who passes the limiter, as many as a set holds; say whether that is another than before.

        To make a network takes longer than all the rest of a filling: who was there keeps his.
        """
        before = self._passing
        addresses = islice(self.friends.friends.addresses(), self._settings.firewall.max_bans)
        self._passing = {address: before.get(address) or ip_network(address) for address in addresses}
        return self._passing.keys() != before.keys()

    # -- who is exempt ----------------------------------------------------------------------------------

    def _reasons(self) -> dict[Network, str]:
        return {**dict.fromkeys(self._own, _OWN), **self._protected}

    def _exempt(self) -> Exempt:
        return Exempt(NetworkSet(self.lists.rolls.allow), {**ITSELF, **self._reasons()})

    def _roll(self, roll: Roll) -> Iterable[Network]:
        rolls = self.lists.rolls
        if roll is Roll.DENY:
            self._denied = rolls.deny
            return rolls.deny
        return self._allowed(rolls) if roll is Roll.ALLOW else self._passing.values()

    def _allowed(self, rolls: Rolls) -> Iterator[Network]:
        for network in rolls.allow:
            yield from reachable(network)
        now, ledger = self._clock.wall(), self.enforcer.ledger
        for network in rolls.guarded:
            if not any(self.enforcer.is_forced(key) for key in ledger.covering(network, Scope.FULL, now)):
                yield network

    def _lists_changed(self, rolls: Rolls) -> None:
        self._told = True
        self.enforcer.allow(self._exempt())
        if self.enforcer.enforcing and rolls.deny != self._denied:
            self.enforcer.fill(Roll.DENY)

    def _names_changed(self, answers: Mapping[str, frozenset[Network]]) -> None:
        self.lists.resolved(answers)
        self.friends.resolved(answers)
        self.enforcer.records.name_answers(answers)

    def _follow(self, whose: str, names: frozenset[str]) -> None:
        """Follow the names of one side beside those of the others."""
        self._wanted[whose] = names
        self._names.want(frozenset().union(*self._wanted.values()))

    def _addresses_changed(self, own: frozenset[Network]) -> None:
        self._troubles.pop("addresses", None)
        if own != self._own:
            self._own = own
            self._log.info("host.addresses", own=sorted(str(network) for network in own))
            self._protect()

    def _protected_changed(self, protected: Mapping[Network, str]) -> None:
        self._troubles.pop("protected", None)
        if protected != self._protected:
            self._protected = protected
            self._protect()

    def _protect(self) -> None:
        """Tell the lists, which tell the enforcer; where they make nothing new of it, tell it ourselves."""
        self._told = False
        self.lists.protect(self._reasons())
        if not self._told:
            self.enforcer.allow(self._exempt())

    def _failed(self, what: str, error: HostError) -> None:
        self._troubles[what] = str(error)
        self._log.error("host.failed", error=str(error))

    # -- bans that do not work --------------------------------------------------------------------------

    def late(self, attempt: Attempt) -> None:
        """Note an attempt of who is banned: an alarm, once he shows that packets of his still arrive."""
        subject = self.enforcer.detector.subject_of(attempt.address)
        now, ledger = self._clock.wall(), self.enforcer.ledger
        keys = [key for scope in Scope for key in ledger.covering(subject, scope, now)]
        records = map(ledger.get, keys)
        placed = [record.since for record in records if record is not None]
        if placed:
            self._arrived(attempt, max(placed))

    def exempted(self, attempt: Attempt) -> None:
        """Note an attempt of who is never banned: with this host's own address others may stand behind it."""
        if attempt.address in self._own_addresses:
            self._arrived(attempt, 0.0)

    def _arrived(self, attempt: Attempt, since: float) -> None:
        if self._ineffective.observe(attempt.address, since, attempt.time):
            with suppress(asyncio.QueueFull):  # it is shown all the same
                self._arrivals.put_nowait(attempt.address)

    @property
    def _own(self) -> frozenset[Network]:
        return self._own_networks

    @_own.setter
    def _own(self, own: frozenset[Network]) -> None:
        self._own_networks = own
        self._own_addresses = {n.network_address for n in own if not n.network_address.is_loopback}

    async def _look_for_causes(self) -> None:
        while True:
            address = await self._arrivals.get()
            trouble = self.reconciler.trouble
            causes = [f"a rule was not as it should be: {trouble}"] if trouble else []
            arrived = self._ineffective.shown.get(address, 0)
            others = self.enforcer.detector.counts.attempts - arrived
            seen = Seen(arrived, others, tuple(self._manager_ports))
            causes += await self._diagnosis.likely_causes(address, seen)
            text = "its packets arrive although it is, or should be, banned: " + "; ".join(causes)
            self.alarms.sound("ban.not_effective", str(address), text)

    @property
    def _manager_ports(self) -> list[int]:
        """Where the manager interfaces of this host listen."""
        amis = [pbx.ami for pbx in self._settings.asterisk if pbx.ami.enabled]
        return [ami.port for ami in amis if ami.host in {"127.0.0.1", "::1", "localhost"}]

    # -- what time asks for -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Look after the bans until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(follow_addresses(self._addresses_changed, partial(self._failed, "addresses")))
            group.create_task(follow_protected(self._protected_changed, partial(self._failed, "protected")))
            group.create_task(self._names.run())
            group.create_task(self.lists.run())
            group.create_task(self.friends.run())
            group.create_task(self._keep_friends())
            group.create_task(self.reconciler.run())
            group.create_task(self._tend())
            group.create_task(self._follow_ports())
            group.create_task(self._look_for_causes())

    async def _tend(self) -> None:
        purged = used = self._clock.mono()
        while True:
            await asyncio.sleep(TEND_EVERY)
            self.enforcer.tend()
            self._watch()
            self.reconciler.look()
            self._look_at_limiter()
            if self.enforcer.backend.plan.limit.mode is not self._plan().limit.mode:
                self._replan()
            now = self._clock.mono()
            if now - purged >= PURGE_EVERY:
                purged = now
                self.enforcer.records.purge(self._clock.wall())
            if now - used >= USAGE_EVERY:
                used = now
                await self.usage()
                self._replan()
                self._try_again()
            end = self.trial
            if end is not None and end <= self._clock.wall():
                self.end_trial()

    def _try_again(self) -> None:
        """Enforce where that is wanted and could not be: what stood in the way may be gone."""
        if self.enforcer.enforcing or self.enforcer.records.switched_off:
            return
        try:
            self.switch_on()
        except (FirewallError, StoreError) as error:
            self.alarms.sound("firewall", "on", f"nothing is enforced, although it should be: {error}")
        else:
            self.alarms.over("firewall", "on")

    def _watch(self) -> None:
        """Have the kernel's word of a change looked into at once; by what is another now and then."""
        loop = asyncio.get_running_loop()
        if self._watched is not None:
            loop.remove_reader(self._watched)
        self._watched = self.enforcer.backend.watch_fd() if self.enforcer.enforcing else None
        if self._watched is not None:
            loop.add_reader(self._watched, self.reconciler.look)

    async def _follow_ports(self) -> None:
        """Look on which ports Asterisk listens: soon after the start, since it comes later, then seldom."""
        for pause in chain((1.0, 4.0, 10.0), repeat(PORTS_EVERY)):
            found = await asyncio.to_thread(find_ports, next(iter(self._manager_ports), None))
            if found is not None:
                self._ports_are(Ports(found.udp or Ports().udp, found.tcp or Ports().tcp))
            await asyncio.sleep(pause)

    def _look_at_limiter(self) -> None:
        """Tell of who went over the limit in this second. What is only observed is no attempt."""
        enforcer = self.enforcer
        if not enforcer.enforcing or enforcer.backend.plan.limit.mode is not LimitMode.ENFORCE:
            return
        try:
            found = enforcer.backend.flooding()
        except FirewallError as error:
            self.alarms.sound("limiter", "flooding", f"who floods cannot be seen: {error}")
            return
        self._flooded([flooder.network for flooder in found if self._is_new(flooder)])
        self._packets = {flooder.network: flooder.packets for flooder in found}

    def _is_new(self, flooder: Flooder) -> bool:
        return flooder.packets != self._packets.get(flooder.network, 0)

    async def usage(self) -> Usage:
        """Ask what the rules have met, in a thread; where the limiter was full, that is an alarm."""
        if not self.enforcer.enforcing:
            return Usage()
        try:
            usage = await asyncio.to_thread(self.enforcer.backend.usage)
        except FirewallError as error:
            self.alarms.sound("firewall", "usage", f"the rules' counters cannot be read: {error}")
            return Usage()
        self.alarms.over("firewall", "usage")
        more = usage.limiter_full - self._limiter_full
        self._limiter_full = usage.limiter_full
        if more > 0:
            self.alarms.sound("limiter", "full", _FULL)
        return usage


_FULL = (
    "the limiter has no room for more sources: somebody sends from a million addresses, most of them forged. "
    "With nftables newcomers pass it unlimited, with ipset they do not pass at all until there is room"
)
