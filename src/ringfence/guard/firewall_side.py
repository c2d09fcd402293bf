"""The firewall's side of the daemon: the firewall, its bans, and the parts that they depend on.

The daemon's other side is the sources, which report attempts. ``ringfence restore`` builds this side only.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

import structlog
from attrs import frozen

from ringfence import street
from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.alarms import MOST_UNWRITTEN, AlarmRecord, Alarms
from ringfence.ban_facts import Listener, Over
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.reconcile import Reconciler
from ringfence.clock import Clock
from ringfence.config.schema import Settings
from ringfence.detect.detector import Detector
from ringfence.errors import StoreError
from ringfence.firewall import choose_backend, make_backend
from ringfence.firewall.contract import Backend
from ringfence.friends.registry import FriendRegistry, Passing
from ringfence.guard.ban_effectiveness import BanEffectiveness
from ringfence.guard.counters import CounterWatch
from ringfence.guard.exemptions import (
    ExemptionTracker,
    KernelFriends,
    KernelLists,
    NetworkFollower,
)
from ringfence.guard.firewall_manager import ChangeWatch, FirewallManager, RulePart, RuleUpdates, WantedRules
from ringfence.guard.followers import Followers
from ringfence.guard.haste import Haste
from ringfence.host.names import Names
from ringfence.host.protected import ProtectedNetworks
from ringfence.host.routes import missing_interfaces
from ringfence.lists.locator import Locator
from ringfence.lists.manager import Lists
from ringfence.lists.regions import files_of
from ringfence.store.database import Store
from ringfence.store.writer import MOST_KEPT
from ringfence.values.ban import WHOLE_SCOPES, BanEnd
from ringfence.values.network import format_network

# -- the alarms: those about the present state of the firewall, and those that a restart keeps


def firewall_alarms(enforcer: Enforcer) -> Iterator[Alarm]:
    """Yield the alarms that follow from the firewall's present state.

    Missing rules for the wire source are not here, but in :attr:`WireReader.alarms`.
    """
    backend, opened = enforcer.backend, enforcer.opened
    if not enforcer.enforcing:
        text = "no address is banned; switch it on with: ringfence on"
        if enforcer.not_removed:
            text = (
                f"bans may still be in force: the kernel refuses to remove the rules: {enforcer.not_removed}"
                "; ringfence tries again every 30 seconds; switch it on with: ringfence on"
            )
        if enforcer.records.switch_is_unrecorded:
            text += " (the database does not have this yet, so a reboot may switch it on)"
        yield Alarm(AlarmCode.FIREWALL_OFF, "", text)
    elif not backend.enforces:
        yield Alarm(AlarmCode.FIREWALL_DRY_RUN, "", f"the {backend.name} firewall drops nothing")
    if enforcer.unread:
        text = f"some recorded bans may not be in force: {enforcer.unread}"
        yield Alarm(AlarmCode.STORE_UNREAD, "", text)
    if enforcer.firewall_error:
        pending = len(enforcer.ledger.pending)
        text = f"the firewall refuses bans ({pending} pending): {enforcer.firewall_error}"
        yield Alarm(AlarmCode.FIREWALL_REFUSED, "", text)
    if opened is not None and opened.limits and backend.enforces:
        yield Alarm(AlarmCode.FIREWALL_LIMITS, "", f"the limits are not in place: {opened.limits}")


class KeptAlarms:
    """Saves the alarms in the database, and restores them at the start.

    A changed alarm is kept here until it is in the database. Only the latest state of each alarm is kept, and
    only of the ``MOST_UNWRITTEN`` alarms that changed last.
    """

    def __init__(self, alarms: Alarms, store: Store) -> None:
        self._alarms = alarms
        self._store = store
        self._unwritten: dict[int, AlarmRecord] = {}
        self._lock = threading.Lock()

    def restore(self) -> None:
        """Restore the alarms that were active when the last daemon ended; none if they cannot be read."""
        table, read = self._store.alarms, self._store.best_effort.read
        self._alarms.restore(read(table.active, []), read(table.next_number, None))

    def save(self) -> None:
        """Queue the alarms that changed since the last call, to be written to the database."""
        changed = self._alarms.take_changes()
        if not changed:
            return
        with self._lock:
            for record in changed:
                self._unwritten.pop(record.number, None)
                self._unwritten[record.number] = record
            while len(self._unwritten) > MOST_UNWRITTEN:
                del self._unwritten[next(iter(self._unwritten))]
        self._store.best_effort.write(self._record, key="alarms")

    def _record(self) -> None:
        """Write the changed alarms to the database. The writer's thread calls this."""
        with self._lock:
            changed = dict(self._unwritten)
        self._store.alarms.record(changed.values())
        with self._lock:
            for number, record in changed.items():
                if self._unwritten.get(number) is record:
                    del self._unwritten[number]


# -- periodic work on the database: its alarms, and the removal of old rows


class StoreWatch:
    """Reports problems of the running daemon's database, retries its writes, and removes old rows."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    @property
    def alarms(self) -> list[Alarm]:
        """The present alarms about the database."""
        error = self._store.error
        texts = {
            AlarmCode.STORE_DAMAGED: self._store.damage(),
            AlarmCode.STORE_IN_MEMORY: self._store.memory_reason,
            AlarmCode.STORE_INVALID_BANS: self._store.best_effort.unreadable,
            AlarmCode.STORE_NOT_RECORDED: f"the latest changes are not recorded: {error}" if error else "",
            AlarmCode.STORE_SLOW: self._slow,
        }
        return [Alarm(code, "", text) for code, text in texts.items() if text]

    @property
    def _slow(self) -> str:
        effort = self._store.best_effort
        slow = effort.diverged and effort.dropped
        return f"more than {MOST_KEPT} writes waited, and the oldest were dropped" if slow else ""

    def retry(self, enforcer: Enforcer) -> None:
        """Try again the writes to the database that failed.

        If writes were dropped, compare the bans in the database with those in force once the database works.
        """
        effort = self._store.best_effort
        effort.retry()
        if effort.diverged and not effort.waiting and enforcer.knows_bans:
            enforcer.record_all()
            effort.diverged = False

    def purge(self) -> None:
        """Queue the removal of old rows from the database."""
        self._store.best_effort.write_once(partial(self._store.purge, self._clock.wall()))


@frozen
class CommonParts:
    """The parts that the whole daemon shares: the clock, the database, the alarms, the listeners.

    ``followers`` passes changes on to commands that follow them. ``locator`` looks up the locations of
    addresses. Each of ``listeners`` is called with each fact: about bans, alarms and requests, a new
    configuration, and the counters of the rules. More may be added before the start.
    """

    clock: Clock
    store: Store
    store_watch: StoreWatch
    alarms: Alarms
    kept_alarms: KeptAlarms
    followers: Followers
    locator: Locator
    listeners: list[Listener]


@frozen
class ExemptionParts:
    """The parts that know which networks must not be banned, and keep the kernel's lists of them current."""

    protected: ProtectedNetworks
    names: Names
    friends: FriendRegistry
    lists: Lists
    networks: NetworkFollower
    exemptions: ExemptionTracker
    kernel_friends: KernelFriends


@frozen
class KernelParts:
    """The parts that change or watch the kernel's rules and bans.

    ``why`` is the reason why ``backend`` was chosen, as text for people. ``lists`` are the wanted contents of
    the kernel's lists.
    """

    backend: Backend
    why: str
    enforcer: Enforcer
    reconciler: Reconciler
    wanted_rules: WantedRules
    rules: RuleUpdates
    manager: FirewallManager
    changes: ChangeWatch
    counters: CounterWatch
    effectiveness: BanEffectiveness
    haste: Haste
    lists: KernelLists


@frozen
class FirewallSide:
    """All parts of the firewall's side, connected with each other.

    They change nothing in the kernel before :meth:`start`. ``parts`` are the parts of features.
    """

    common: CommonParts
    exempt: ExemptionParts
    detector: Detector
    kernel: KernelParts
    parts: Sequence[RulePart]

    def start(self, *, verified: bool = True) -> None:
        """Restore the alarms. Put the firewall in place, and every ban that has not ended yet.

        With ``verified``, a test packet checks that the rules drop packets of banned senders. If enforcement
        is switched off, the kernel is not changed. Raise FirewallError; ProbeError if the packet passed.
        """
        self.common.kept_alarms.restore()
        self.exempt.networks.read()
        self._restore_friends()
        self.exempt.kernel_friends.select()
        self.kernel.rules.update()
        self.kernel.manager.start(verified=verified)
        self.kernel.rules.update()  # the lists are written, so more packets may be dropped
        structlog.get_logger().info("firewall.chosen", backend=self.kernel.backend.name, why=self.kernel.why)

    def retry_friends(self) -> None:
        """Load the friends of the database if the start could not read them. Call this periodically.

        First the database must have recorded everything: a friend that was forgotten must not return.
        """
        effort = self.common.store.best_effort
        if self.exempt.friends.unread and not effort.waiting:
            with suppress(StoreError):  # it was reported
                effort.required(self.exempt.friends.load)
                self._restore_friends()

    def _restore_friends(self) -> None:
        """Restore which friends are new, and from which accounts guesses came."""
        active = self.common.alarms.records()
        guilty = {one.subject for one in active if one.code == AlarmCode.FRIEND_GUESSING}
        self.detector.restore_friends(guilty, self.common.clock.wall())

    @property
    def present_alarms(self) -> list[Alarm]:
        """The alarms about the present state of firewall, lists and database; a missing one has ended."""
        return [
            *firewall_alarms(self.kernel.enforcer),
            *missing_interfaces(self.kernel.wanted_rules.settings.firewall.interfaces),
            *self.common.store_watch.alarms,
            *self.exempt.protected.alarms,
            *self.exempt.names.alarms,
            *self.exempt.lists.alarms,
        ]

    def configure(self, settings: Settings) -> None:
        """Apply a new configuration. Changed rules take effect at once, changed lists some time later.

        The backend stays the one that was chosen at the start. Rules that the kernel has refused are tried
        again, because an administrator may have loaded a missing module.
        """
        if settings.proxies().networks != self.exempt.protected.proxies.networks:
            self.exempt.protected.proxies = settings.proxies()
            self.exempt.networks.on_protected()
        for other in self.exempt.lists.others:
            other.configure(settings)
        self.exempt.lists.configure(settings.lists())
        self.exempt.friends.retain_trunks({pbx.name for pbx in settings.asterisk if pbx.ami.enabled})
        self.common.locator.configure(files_of(settings))
        self.kernel.wanted_rules.settings = settings
        for part in self.parts:
            part.configure(settings)
        opened = self.kernel.enforcer.opened
        self.kernel.rules.update(again=opened is not None and bool(opened.wire or opened.limits))
        self.exempt.exemptions.set_most(settings.firewall.max_bans)
        for listener in self.common.listeners:
            listener.on_fact(settings)


@frozen
class ChosenBackend:
    """A firewall backend, and as text the reason why it was chosen."""

    backend: Backend
    why: str


def choose(settings: Settings) -> ChosenBackend:
    """Return the firewall backend that the configuration names. For ``auto``, return one that works here."""
    plan = settings.plan(None)
    if settings.firewall.backend == "auto":
        return ChosenBackend(*choose_backend(plan))
    return ChosenBackend(make_backend(settings.firewall.backend, plan), "the configuration says so")


@frozen
class OfficeAlarms:
    """Clears the alarms about banned offices: addresses from which several phones fail."""

    alarms: Alarms

    def on_fact(self, fact: object) -> None:
        """If ``fact`` is the end of a ban, clear the alarm that the banned address may be an office's."""
        if isinstance(fact, Over) and fact.scope in WHOLE_SCOPES and fact.how is not BanEnd.REPLACED:
            self.alarms.clear(AlarmCode.OFFICE_BANNED, format_network(fact.network))


def _common(settings: Settings, store: Store, clock: Clock) -> CommonParts:
    followers = Followers(clock)
    listeners: list[Listener] = [followers]
    alarms = Alarms(clock, listeners)
    listeners.append(OfficeAlarms(alarms))
    watch, kept = StoreWatch(store, clock), KeptAlarms(alarms, store)
    locator = Locator(files_of(settings))
    return CommonParts(clock, store, watch, alarms, kept, followers, locator, listeners)


def build_firewall_side(
    settings: Settings, store: Store, detector: Detector, chosen: ChosenBackend, clock: Clock
) -> FirewallSide:
    """Return the firewall's parts, built on the chosen backend and connected; the kernel is unchanged."""
    common = _common(settings, store, clock)
    backend, alarms = chosen.backend, common.alarms
    protected, names = ProtectedNetworks(settings.proxies()), Names(store.names.load())
    known, passing = detector.friends, Passing(detector.friends)
    kernel_lists = KernelLists(passing, detector.bans, settings.firewall.max_bans)
    enforcer = Enforcer(backend, store.records, detector, clock, kernel_lists, common.listeners)
    parts: list[RulePart] = []
    friends = FriendRegistry(
        known, store.friends, store.best_effort, enforcer.now, names, protected.own_addresses, parts
    )
    common.listeners.append(friends)
    wanted = WantedRules(settings, friends.startup, parts)
    reconciler, exemptions = Reconciler(enforcer, alarms), ExemptionTracker(protected, kernel_lists, enforcer)
    common.listeners.append(exemptions)
    follow, folder = partial(names.want, by="lists"), settings.control.socket.parent
    others = [module.build(settings) for module in street.modules("denied")]
    changed = exemptions.on_lists_changed
    lists = Lists(store.entries, settings.lists(), changed, now=clock.wall, follow=follow, others=others)
    common.listeners.append(lists)
    kernel_friends = KernelFriends(friends, passing, kernel_lists, enforcer, detector, clock)
    networks = NetworkFollower(protected, names, lists, friends, exemptions, store)
    kernel = KernelParts(
        backend=backend,
        why=chosen.why,
        enforcer=enforcer,
        reconciler=reconciler,
        wanted_rules=wanted,
        rules=RuleUpdates(wanted, backend, enforcer, alarms, detector),
        manager=FirewallManager(backend, enforcer, exemptions, kernel_friends, alarms, folder),
        changes=ChangeWatch(backend, enforcer, reconciler),
        counters=CounterWatch(backend, enforcer, alarms, common.listeners),
        effectiveness=BanEffectiveness(detector, reconciler, protected, alarms, clock),
        haste=Haste(enforcer, clock),
        lists=kernel_lists,
    )
    exempt = ExemptionParts(protected, names, friends, lists, networks, exemptions, kernel_friends)
    side = FirewallSide(common, exempt, detector, kernel, parts)
    parts += [module.build(side) for module in street.modules("firewall")]
    return side
