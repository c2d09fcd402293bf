"""The firewall's side of the daemon: the wanted rules, the exemptions, and what maintains the bans.

A change of the configuration, the lists or the host is in force when the call returns, or a tick later.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain, islice, repeat

import structlog
from attrs import evolve

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.exemptions import ITSELF, Exempt, without_reserved
from ringfence.bans.ineffective import Ineffective
from ringfence.bans.reconcile import Reconciler
from ringfence.bans.unban import unban_friends
from ringfence.clock import Clock
from ringfence.config.schema import Settings
from ringfence.daemon import trial
from ringfence.daemon.lock import claim_sets
from ringfence.detect.detector import Detector
from ringfence.detect.friends import Friends
from ringfence.detect.rules import Claimed
from ringfence.errors import FirewallBusyError, FirewallError, HostError, StoreError
from ringfence.firewall import choose_backend, make_backend
from ringfence.firewall.cleanup import flush_other_backends
from ringfence.firewall.contract import Counters, FirewallPlan, Flooder, LimitMode, NetworkList, Ports
from ringfence.friends.passing import Passing
from ringfence.friends.registry import FriendRegistry
from ringfence.host.addresses import follow_addresses, read_addresses
from ringfence.host.diagnosis import Diagnosis, Observations
from ringfence.host.interfaces import missing_interfaces
from ringfence.host.listening import find_ports
from ringfence.host.names import Names
from ringfence.host.protected import follow_protected, read_protected
from ringfence.lists.compose import ListNetworks
from ringfence.lists.manager import Lists
from ringfence.model import Address, Attempt, Network, Scope, rfc3339
from ringfence.networks import NetworkSet
from ringfence.store.best_effort import Records

TEND_EVERY = 1.0
PURGE_EVERY = 3_600.0
USAGE_EVERY = 30.0
PORTS_EVERY = 60.0
FRIENDS_EVERY = 0.1
_OWN = "an address of this host"


class Keeper:
    """Owns the enforcer. ``flooded`` is called with the sources that exceed the limiter's rate."""

    def __init__(
        self,
        settings: Settings,
        records: Records,
        detector: Detector,
        clock: Clock,
        *,
        friends: Friends | None = None,
        log_group: int | None = None,
        flooded: Callable[[Sequence[Flooder]], None] = lambda _: None,
    ) -> None:
        self.alarms = Alarms(clock.wall)
        self._settings = settings
        self._clock = clock
        self._log_group = log_group
        self._ports: Ports | None = None
        self._on_floods = flooded
        self._log = structlog.get_logger()
        self._wanted: dict[str, frozenset[str]] = {}
        self._passing_before: Collection[Address] = ()
        self.friends = FriendRegistry(
            records.store,
            clock.wall,
            friends=friends,
            remember=records.remember,
            follow=partial(self._follow, "friends"),
            own=lambda address: address in self._own_addresses,
        )
        self._passing = Passing(self.friends.friends)
        plan, self.why = self._plan(), "the configuration says so"
        if settings.firewall.backend == "auto":
            backend, self.why = choose_backend(plan)
        else:
            backend = make_backend(settings.firewall.backend, plan)
        self.enforcer = Enforcer(backend, records, detector, clock, list_contents=self._list_contents)
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
        self._enforcer_updated = False
        self._written_deny: object = None  # the deny list that was last written into the kernel
        self._protected: Mapping[Network, str] = {}
        self._host_errors: dict[str, str] = {}
        self._ineffective = Ineffective()
        self._diagnosis = Diagnosis()
        self._arrivals: asyncio.Queue[Address] = asyncio.Queue(maxsize=100)
        self._packets: dict[tuple[Network, bool], int] = {}
        self._limiter_full = 0
        self._plan_failed = False
        self._watched: int | None = None

    def mount(self, *, verified: bool = True) -> None:
        """Put the firewall and every ban that has time left in place; raise as :meth:`Enforcer.start`."""
        try:
            self._own = read_addresses()
        except HostError as error:  # follow_addresses tries again
            self._failed("addresses", error)
        self._protected = read_protected(partial(self._failed, "protected"))
        self.lists.protect(self._reasons())
        self.lists.on_resolved(self._names.answers)
        self.friends.on_resolved(self._names.answers)
        self.lists.load()
        self.enforcer.records.read(self.friends.load, None)
        self._update_passing()
        self.enforcer.backend.plan = self._plan()
        self.enforcer.detector.exempt = self._exempt().never
        self.enforcer.start(verified=verified)
        self.enforcer.allow(self._exempt())
        self._log.info("firewall.chosen", backend=self.enforcer.backend.name, why=self.why)
        self._flush_other_backends()

    def switch_on(self) -> None:
        """Start to enforce again."""
        self.enforcer.switch_on()
        self.enforcer.exempt = Exempt()  # so that bans of addresses that became exempt meanwhile are removed
        self._passing_before = ()
        self.enforcer.allow(self._exempt())
        self._flush_other_backends()

    def _flush_other_backends(self) -> None:
        """Remove what another backend left in the kernel, now that this one is complete."""
        enforcer = self.enforcer
        if not enforcer.enforcing:
            return
        try:
            # A dry run drops nothing. While another daemon guards, it must not remove anything either.
            with (
                nullcontext()
                if enforcer.backend.enforces
                else claim_sets(self._settings.control.socket.parent)
            ):
                others = flush_other_backends(enforcer.backend.name)
        except FirewallBusyError:
            return
        except FirewallError as error:
            text = f"another backend's rules stay: {error}; fix, as root: ringfence off, ringfence on"
            self.alarms.activate(AlarmCode.FIREWALL_LEFTOVERS, "", text)
        else:
            self.alarms.clear(AlarmCode.FIREWALL_LEFTOVERS, "")
            if others:
                self._log.warning("firewall.taken_over", before=others, now=enforcer.backend.name)

    @property
    def claims(self) -> Claimed:
        """The limits for evidence whose address is only claimed."""
        return self._settings.claims()

    @property
    def trial(self) -> float | None:
        """The end of the trial (wall clock), None without a trial."""
        return self.enforcer.records.read(lambda: trial.until(self.enforcer.records.store), None)

    def end_trial(self) -> None:
        """Remove everything if there is an unconfirmed trial."""
        if self.trial is None:
            return
        self._log.warning("trial.ended", fix="ringfence on")
        try:
            self.enforcer.switch_off()
            trial.confirm(self.enforcer.records.store)
        except (FirewallError, StoreError) as error:
            text = f"the trial has ended, but not everything is removed: {error}; fix: ringfence off"
            self.alarms.activate(AlarmCode.TRIAL_NOT_ENDED, "", text)

    def close(self) -> None:
        """Close the connection to the kernel; the rules and bans stay."""
        self.enforcer.backend.close()

    @property
    def problems(self) -> list[str]:
        """The problems of this side, a line each."""
        end = self.trial
        tried = (
            [f"a trial: everything is removed at {rfc3339(end)}, unless: ringfence confirm"] if end else []
        )
        return [
            *tried,
            *missing_interfaces(self._settings.firewall.interfaces),
            *self._host_errors.values(),
            *self._names.problems,
            *self.lists.problems,
        ]

    def configure(self, settings: Settings) -> None:
        """Apply a new configuration: lists and rules are in force at once, the backend does not change."""
        before, self._settings = self._settings.firewall.max_bans, settings
        self.lists.configure(settings.lists())
        self._replan()
        if settings.firewall.max_bans != before and self.enforcer.enforcing:
            self.enforcer.fill(NetworkList.ALLOW, NetworkList.DENY)

    def _ports_changed(self, ports: Ports) -> None:
        if ports != self._ports:
            self._ports = ports
            self._log.info("asterisk.ports", udp=ports.udp, tcp=ports.tcp)
            self._replan()

    def _replan(self) -> None:
        backend = self.enforcer.backend
        plan = self._plan()
        before = backend.plan
        if plan == before and not self._plan_failed:
            return
        backend.plan = plan
        if not self.enforcer.enforcing:
            return
        try:
            self.enforcer.opened = backend.open()
        except FirewallError as error:
            self._plan_failed = True  # tried again with the next reading of the counters
            self.alarms.activate(AlarmCode.FIREWALL_NOT_CHANGED, "", f"the new rules are missing: {error}")
        else:
            self._plan_failed = False
            self.alarms.clear(AlarmCode.FIREWALL_NOT_CHANGED, "")
            self._log.info("firewall.changed", what=plan.changed_keys(before))

    def _plan(self) -> FirewallPlan:
        """Return the rules that are wanted now: the limiter drops nothing before the friends are known."""
        plan = self._settings.plan(self._ports, self._log_group)
        return evolve(plan, limit=evolve(plan.limit, mode=LimitMode.OBSERVE)) if self.limiter_waits else plan

    @property
    def limiter_waits(self) -> bool:
        """Whether the limiter only observes because the friends are not known yet."""
        mode = self._settings.firewall.limit.mode
        return mode is LimitMode.ENFORCE and not self.friends.startup.for_limiter(self._clock.mono())

    # -- friends ----------------------------------------------------------------------------------------

    @property
    def friends_known(self) -> bool:
        """Whether the registered phones are friends, or the wait for them is over."""
        return self.friends.startup.for_bans(self._clock.mono())

    async def _update_friends(self) -> None:
        """Write the friends into the kernel after each change, using at most a twentieth of the time."""
        while True:
            await self.friends.changed.wait()
            self.friends.changed.clear()
            began = self._clock.mono()
            if self._update_passing() and self.enforcer.enforcing:
                self.enforcer.fill(NetworkList.FRIENDS)
                unban_friends(self.enforcer, set(self._passing.addresses) - set(self._passing_before))
                self._passing_before = self._passing.addresses
            await asyncio.sleep(max(FRIENDS_EVERY, 20 * (self._clock.mono() - began)))

    def _update_passing(self) -> bool:
        """Update the friends that the kernel passes, at most as many as fit; return whether they changed."""
        unshielded = self.enforcer.detector.unshielded(self._clock.mono())
        return self._passing.look(self._settings.firewall.max_bans, unshielded)

    # -- exemptions -------------------------------------------------------------------------------------

    def _reasons(self) -> dict[Network, str]:
        return {**dict.fromkeys(self._own, _OWN), **self._protected}

    def _exempt(self) -> Exempt:
        return Exempt(NetworkSet(self.lists.networks.allow), {**ITSELF, **self._reasons()})

    def _list_contents(self, roll: NetworkList) -> Iterable[Network]:
        rolls = self.lists.networks
        if roll is NetworkList.DENY:
            self._written_deny = rolls.deny
            return islice(rolls.deny, self._settings.firewall.max_bans)
        return self._allowed(rolls) if roll is NetworkList.ALLOW else self._passing.networks

    def _allowed(self, rolls: ListNetworks) -> Iterable[Network]:
        now, around = self._clock.wall(), self.enforcer.ledger.covering
        forced = self.enforcer.is_forced
        # Read now: the rest may be read in another thread.
        guarded = [one for one in rolls.guarded if not any(map(forced, around(one, Scope.FULL, now)))]
        allowed = islice(rolls.allow, self._settings.firewall.max_bans)
        return chain(guarded, chain.from_iterable(map(without_reserved, allowed)))

    def _lists_changed(self, rolls: ListNetworks) -> None:
        self._enforcer_updated = True
        self.enforcer.allow(self._exempt())
        if self.enforcer.enforcing and rolls.deny != self._written_deny:
            self.enforcer.fill(NetworkList.DENY)

    def _names_changed(self, answers: Mapping[str, frozenset[Network]]) -> None:
        self.lists.on_resolved(answers)
        self.friends.on_resolved(answers)
        self.enforcer.records.name_answers(answers)

    def _follow(self, whose: str, names: frozenset[str]) -> None:
        """Follow the names of one part together with those of the others."""
        self._wanted[whose] = names
        self._names.want(frozenset().union(*self._wanted.values()))

    def _addresses_changed(self, own: frozenset[Network]) -> None:
        self._host_errors.pop("addresses", None)
        if own != self._own:
            self._own = own
            self._log.info("host.addresses", own=sorted(str(network) for network in own))
            self._protect()

    def _protected_changed(self, protected: Mapping[Network, str]) -> None:
        self._host_errors.pop("protected", None)
        if protected != self._protected:
            self._protected = protected
            self._protect()

    def _protect(self) -> None:
        """Update the protected networks of the lists, and the enforcer if the lists did not do it."""
        self._enforcer_updated = False
        self.lists.protect(self._reasons())
        if not self._enforcer_updated:
            self.enforcer.allow(self._exempt())

    def _failed(self, what: str, error: HostError) -> None:
        self._host_errors[what] = str(error)
        self._log.error("host.failed", error=str(error))

    # -- ineffective bans -------------------------------------------------------------------------------

    def on_late(self, attempt: Attempt) -> None:
        """Record an attempt of a banned address; several of them activate an alarm."""
        subject = self.enforcer.detector.subject_of(attempt.address)
        now, ledger = self._clock.wall(), self.enforcer.ledger
        keys = [key for scope in Scope for key in ledger.covering(subject, scope, now)]
        records = map(ledger.get, keys)
        placed = [record.since for record in records if record is not None]
        if placed:
            self._arrived(attempt, max(placed))

    def on_exempted(self, attempt: Attempt) -> None:
        """Record an attempt of an exempt address: other senders may use this host's own address."""
        if attempt.address in self._own_addresses:
            self._arrived(attempt, 0.0)

    def _arrived(self, attempt: Attempt, since: float) -> None:
        if self._ineffective.observe(attempt.address, since, attempt.time):
            with suppress(asyncio.QueueFull):  # the alarm then names fewer addresses
                self._arrivals.put_nowait(attempt.address)

    @property
    def _own(self) -> frozenset[Network]:
        return self._own_networks

    @_own.setter
    def _own(self, own: frozenset[Network]) -> None:
        self._own_networks = own
        self._own_addresses = {n.network_address for n in own if not n.network_address.is_loopback}

    async def _diagnose_arrivals(self) -> None:
        while True:
            address = await self._arrivals.get()
            damage = self.reconciler.last_damage
            causes = [f"a rule was damaged: {damage}"] if damage else []
            arrived = self._ineffective.confirmed.get(address, 0)
            others = self.enforcer.detector.counts.attempts - arrived
            seen = Observations(arrived, others, tuple(self._manager_ports))
            causes += await self._diagnosis.likely_causes(address, seen)
            text = "its packets arrive although it is, or should be, banned: " + "; ".join(causes)
            self.alarms.activate(AlarmCode.BAN_NOT_EFFECTIVE, str(address), text)

    @property
    def _manager_ports(self) -> list[int]:
        """The ports of the manager interfaces on this host."""
        return self._settings.manager_ports()

    # -- periodic work ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Maintain the firewall and the bans until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(follow_addresses(self._addresses_changed, partial(self._failed, "addresses")))
            group.create_task(follow_protected(self._protected_changed, partial(self._failed, "protected")))
            group.create_task(self._names.run())
            group.create_task(self.lists.run())
            group.create_task(self.friends.run())
            group.create_task(self._update_friends())
            group.create_task(self.reconciler.run())
            group.create_task(self.enforcer.filler.run())
            group.create_task(self._tick())
            group.create_task(self._follow_ports())
            group.create_task(self._diagnose_arrivals())

    async def _tick(self) -> None:
        purged = used = self._clock.mono()
        while True:
            await asyncio.sleep(TEND_EVERY)
            self.enforcer.tick()
            self._watch()
            self.reconciler.check()
            self._check_limiter()
            if self._passing.is_stale(self.enforcer.detector.unshielded(self._clock.mono())):
                self.friends.changed.set()
            if self.enforcer.backend.plan.limit.mode is not self._plan().limit.mode:
                self._replan()
            now = self._clock.mono()
            if now - purged >= PURGE_EVERY:
                purged = now
                self.enforcer.records.purge(self._clock.wall())
            if now - used >= USAGE_EVERY:
                used = now
                await self.counters()
                self._replan()
                self._retry_switch_on()
            end = self.trial
            if end is not None and end <= self._clock.wall():
                self.end_trial()

    def _retry_switch_on(self) -> None:
        """Try again to enforce, if an earlier attempt failed."""
        if self.enforcer.enforcing or self.enforcer.records.switched_off:
            return
        try:
            self.switch_on()
        except (FirewallError, StoreError) as error:
            self.alarms.activate(AlarmCode.FIREWALL_NOT_ENFORCED, "", f"nothing is enforced: {error}")
        else:
            self.alarms.clear(AlarmCode.FIREWALL_NOT_ENFORCED, "")

    def _watch(self) -> None:
        """Watch for changes by other programs, once until the next tick. The descriptor may change."""
        loop = asyncio.get_running_loop()
        if self._watched is not None:
            loop.remove_reader(self._watched)
        self._watched = self.enforcer.backend.watch_fd() if self.enforcer.enforcing else None
        if self._watched is not None:
            loop.add_reader(self._watched, self._notified)

    def _notified(self) -> None:
        """Check at once after a change by others. The next one waits for the tick: some make many."""
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None
        self.reconciler.check()

    async def _follow_ports(self) -> None:
        """Look up the ports on which Asterisk listens, more often after the start."""
        for pause in chain((1.0, 4.0, 10.0), repeat(PORTS_EVERY)):
            found = await asyncio.to_thread(find_ports, next(iter(self._manager_ports), None))
            if found is not None:
                self._ports_changed(Ports(found.udp or Ports().udp, found.tcp or Ports().tcp))
            await asyncio.sleep(pause)

    def _check_limiter(self) -> None:
        """Report the sources that exceeded the limit in this second. A limiter that observes reports none."""
        enforcer = self.enforcer
        if not enforcer.enforcing or enforcer.backend.plan.limit.mode is not LimitMode.ENFORCE:
            return
        try:
            found = enforcer.backend.flooders()
        except FirewallError as error:
            self.alarms.activate(AlarmCode.LIMITER_UNREADABLE, "", f"floods cannot be read: {error}")
            return
        self._on_floods([flooder for flooder in found if self._is_new(flooder)])
        self._packets = {(flooder.network, flooder.tcp): flooder.packets for flooder in found}

    def _is_new(self, flooder: Flooder) -> bool:
        return flooder.packets != self._packets.get((flooder.network, flooder.tcp), 0)

    async def counters(self) -> Counters:
        """Read the counters of the rules in a thread; a full limiter activates an alarm."""
        if not self.enforcer.enforcing:
            return Counters()
        try:
            usage = await asyncio.to_thread(self.enforcer.backend.counters)
        except FirewallError as error:
            self.alarms.activate(AlarmCode.FIREWALL_COUNTERS, "", f"the counters cannot be read: {error}")
            return Counters()
        self.alarms.clear(AlarmCode.FIREWALL_COUNTERS, "")
        more = usage.limiter_full - self._limiter_full
        self._limiter_full = usage.limiter_full
        if more > 0:
            self.alarms.activate(AlarmCode.LIMITER_FULL, "", _FULL)
        return usage


_FULL = (
    "the limiter has no room for more sources: packets come from a million addresses, most of them forged. "
    "With nftables new sources pass unlimited, with ipset they are dropped until there is room"
)
