"""Carries out the bans that rules or administrators have decided, and keeps the firewall as it should be.

With enforcement switched off, everything is observed and nothing is banned.

All functions are synchronous, and called from one event loop. So nothing else runs between the event that
leads to a ban and the netlink exchange that places it.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

import structlog
from attrs import frozen

from ringfence.bans.filling import Filler
from ringfence.bans.kernel_bans import CHUNK, BanWatch, Exempt, KernelBans, failure_lines, listed, too_wide
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Decision
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.errors import ControlError
from ringfence.firewall.contract import MAX_TIMEOUT, Add, Backend, NetworkList, Opened, Outcome, Remove
from ringfence.firewall.probe import Verification, verify
from ringfence.ledger import Record, key_of, network_of, parts_of
from ringfence.model import AttemptCounts, Ban, Network, Origin
from ringfence.networks import NetworkSet
from ringfence.store.bans import Records
from ringfence.store.rows import Ended

# -- the times from the report of an attempt to the kernel's acknowledgement of its ban, as a histogram


BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the buckets, in seconds; one more bucket has no bound."""

OLD = 60.0
"""Seconds. A longer delay is not counted: ringfence read the report late, for example in an old log."""


class BanDelays:
    """A histogram of delays, in seconds."""

    def __init__(self) -> None:
        self.sum = 0.0
        """The sum of all delays."""
        self._numbers = [0] * (len(BOUNDS) + 1)

    def record(self, seconds: float) -> None:
        """Count a delay. A delay of ``OLD`` seconds or more is ignored: its evidence was read late."""
        if seconds < OLD:
            self._numbers[bisect_left(BOUNDS, seconds)] += 1
            self.sum += max(0.0, seconds)

    def cumulative(self) -> list[int]:
        """Return the number of delays up to each of ``BOUNDS``. The last item is the number of all delays."""
        return list(accumulate(self._numbers))


# -- reconciles the kernel with the store when the daemon starts, after a restart or a reboot
#
# An *element* is the entry of a ban in a set of the kernel. The kernel counts down its timeout even without
# a daemon. So an element and its ban in the database end at the same time of the wall clock. If their ends
# differ, the element belongs to another ban, or the clock was set in between.
#
# A stored ban that the kernel's listing lacks is added at once, even if the kernel may have it. After a
# reboot all bans are missing, and it takes 2 s to look up 100,000 bans one by one.


EARLY = 1.0
LATE = 2.0
"""``EARLY`` and ``LATE`` are the seconds by which an element may end before its ban, and after it.

If it ends still earlier or later, it belongs to another ban. ipset rounds timeouts up to whole seconds.
"""

CLOCK_STEP = 5.0
"""Seconds. If the wall clock moves further than this against the monotonic clock, it counts as set.

A suspended host has the same effect, because its monotonic clock stops.
"""


@frozen
class Restored:
    """The result of :func:`restore_bans`.

    ``kept`` is the number of bans that both the kernel and the store had, ``put_back`` the number of those
    that only the store had. ``unknown`` has the keys of the bans that only the kernel has, each with the
    seconds left.
    """

    kept: int
    put_back: int
    unknown: Mapping[int, float]


def restore_bans(
    backend: Backend, records: Records, bans: KernelBans, clock: Clock, offset: float
) -> Restored:
    """Compare the store's bans with the kernel's when the daemon starts.

    Bans that both have are recorded in the ledger. Bans that only the store has are added to the kernel. If
    an unban was recorded, but the last daemon ended before the kernel removed the ban, the ban is removed
    now. ``offset`` is the wall clock minus the monotonic clock.
    """
    began = clock.wall()
    found = {key_of(one.network, one.scope): one.timeout for one in listed(backend, None)}
    follow_clock(records, found, offset, began)
    inside, missing, put_back = len(found), list[tuple[Ban, AttemptCounts]](), 0
    for ban, made in records.running(began):
        left = found.pop(key_of(ban.network, ban.scope), None)
        if left is not None:
            bans.record_active(ban, made, began, left)
            continue
        missing.append((ban, made))
        if len(missing) >= CHUNK:
            put_back += _put_back(bans, missing)
            missing.clear()
    put_back += _put_back(bans, missing)
    ended = unbanned_keys(found, records.removed_early(began) if found else (), began, clock.wall())
    bans.apply([Remove(*network_of(key)) for key in ended])
    unknown = {key: left for key, left in found.items() if key not in ended}
    return Restored(inside - len(unknown), put_back, unknown)


def _put_back(bans: KernelBans, missing: Sequence[tuple[Ban, AttemptCounts]]) -> int:
    bans.add([ban for ban, _ in missing], [made for _, made in missing], record=False)
    return len(missing)


def unbanned_keys(found: Mapping[int, float], ended: Iterable[Ended], began: float, now: float) -> set[int]:
    """Return the keys of the bans that the kernel still has although their unban is recorded in the store.

    ``found`` has the keys of the kernel's bans and the seconds left, as listed between ``began`` and ``now``.
    ``ended`` are the bans that the store records as ended early. If an element ends at another time than such
    a ban, it belongs to a later ban whose record was lost. Then its key is not returned.
    """
    keys = set()
    for network, scope, expires in ended:
        key = key_of(network, scope)
        left = found.get(key)
        if left is None:
            continue
        same_end = began + left - LATE <= expires <= now + left + EARLY
        # A ban may be longer than MAX_TIMEOUT, the longest timeout in the kernel. Then its timeout is renewed
        # when half of it is left, and its element may end before the ban.
        renewed = expires - now > MAX_TIMEOUT / 2 and began + left - LATE <= expires
        if same_end or renewed:
            keys.add(key)
    return keys


def follow_clock(records: Records, found: Mapping[int, float], offset: float, now: float) -> None:
    """If the wall clock was set since bans were recorded in the database, move the times of these bans.

    ``offset`` is the wall clock minus the monotonic clock, now. The database has an earlier offset. If the
    two differ, the clock was set, or the host was booted again. A ban in the kernel shows which: if the clock
    was set, the end of this ban in the kernel differs from its end in the database by as much.
    ``found`` has the keys of the kernel's bans, each with the seconds left.
    """
    known = records.clock()
    step = offset - known if known is not None else 0.0
    confirmed = abs(step) > CLOCK_STEP and any(
        abs(now + left - step - expires) <= CLOCK_STEP
        for network, scope, expires in (records.not_removed() if found else ())
        if (left := found.get(key_of(network, scope))) is not None
    )
    records.record_clock(offset, step if confirmed else 0.0, now)


class Enforcer:
    """Decides which bans are placed and removed.

    :attr:`bans` places and removes them in the kernel, and :attr:`ledger` has all of them: the detector reads
    it. Call :meth:`start` or :meth:`attach` first. ``list_contents`` returns the networks that one of the
    kernel's lists must contain. ``opened`` is the result of the last :meth:`reopen`. ``verification`` is the
    result of the test packets of :meth:`start`, None if it sent none. ``watch`` has functions that are called
    with new and ended bans; they must not wait.
    """

    def __init__(
        self,
        backend: Backend,
        records: Records,
        detector: Detector,
        clock: Clock,
        list_contents: Callable[[NetworkList], Iterable[Network]] = lambda _: (),
        watch: BanWatch | None = None,
    ) -> None:
        self.backend = backend
        self.records = records
        self.detector = detector
        self.clock = clock
        self.ledger = detector.bans
        self.ledger.offset = clock.wall() - clock.mono()
        self.watch = watch if watch is not None else BanWatch()
        self.bans = KernelBans(backend, records, detector, clock, self.watch)
        self.filler = Filler(backend, list_contents)
        self.exempt = Exempt()
        self.delays = BanDelays()
        self.enforcing = False
        self.opened: Opened | None = None
        self.verification: Verification | None = None
        self._log = structlog.get_logger()

    # -- enforcement on and off

    def start(self, *, verified: bool = True) -> None:
        """Write rules, sets and lists, test them with packets, and reconcile the kernel with the store.

        Bans that are in the store but not in the kernel are restored (after a reboot). Bans that are in the
        kernel but not in the store are adopted for the time that they have left. With ``verified`` false, no
        test packet is sent. If enforcement is switched off, the kernel is not changed. Raise FirewallError;
        ProbeError if the rules did not drop a test packet.
        """
        if self.records.switched_off:
            self._log.warning("enforcement.off", fix="ringfence on")
            return
        self.opened = self.backend.open()
        self.fill(*NetworkList)
        if verified:
            self.verification = verify(self.backend, self.opened.families)
            for check in self.verification.untried:
                self._log.info("probe.untried", direction=check.name, why=check.note)
        self.enforcing = True
        self.ledger.offset = self.clock.wall() - self.clock.mono()
        restored = restore_bans(self.backend, self.records, self.bans, self.clock, self.ledger.offset)
        self.adopt(restored.unknown)
        self._log.info(
            "bans.restored",
            kept=restored.kept,
            put_back=restored.put_back,
            adopted=len(restored.unknown),
        )

    def attach(self) -> None:
        """Write rules and sets, and load the store's bans, for a command that runs without a daemon.

        The bans in the kernel are not changed. Raise FirewallError.
        """
        self.opened = self.backend.open()
        self.enforcing = True
        for ban, made in self.records.running(self.clock.wall()):
            self.ledger.put(key_of(ban.network, ban.scope), Record.of(ban, made))

    def reopen(self) -> Opened | None:
        """Write the rules and sets that are missing, or that differ from the backend's settings.

        Return the backend's result, such as the IP versions that are guarded. Return None and switch
        enforcement off if `ringfence off` could not reach the daemon: the command then removes the rules
        itself, and records that enforcement is off. It records first, so the record is read before and after
        the rules are written. Raise FirewallError or StoreError.
        """
        if not self.records.switched_off:
            self.opened = self.backend.open()
            if not self.records.switched_off:
                return self.opened
        self.switch_off()
        return None

    def switch_off(self) -> None:
        """Remove all rules and sets of ringfence from the kernel, and record that enforcement is off.

        If one of these two steps fails (the database may be full), the other one is still tried, and the
        error is raised afterwards.
        """
        self.enforcing = False
        self.filler.stop()
        try:
            self.backend.flush()
        finally:
            self.bans.clear()
            self.records.set_switched_off(True)
        self._log.warning("enforcement.off", fix="ringfence on")

    def switch_on(self) -> None:
        """Enforce again, and restore the bans that have time left.

        While enforcement was off, rules have decided on bans that were not placed. The attempts that led to
        these bans are not counted again: only new attempts can lead to a ban.
        """
        for subject in self.ledger.assumed(self.clock.wall()):
            self.ledger.discard_assumed(subject)
            self.detector.record_unban(subject)
        self.records.set_switched_off(False)
        if not self.enforcing:
            self.start()

    def require_enforcing(self) -> None:
        """Raise ControlError if enforcement is switched off."""
        if not self.enforcing:
            raise ControlError("enforcement is switched off; switch it on with: ringfence on")

    # -- bans

    def carry_out(self, decision: Decision) -> None:
        """Place the ban that a rule has decided. Never raises: a failure is logged, and the ban tried again.

        The ban is added to the kernel within 0.3 ms. If the decision has a length, the ban has this length.
        Otherwise it first has the length of a first ban. Then the earlier bans of this network are counted in
        the database, which may take longer. If there are any, the ban is made longer.
        """
        now = self.clock.wall()
        subject, rule, scope = decision.subject, decision.rule, decision.scope
        # The ban starts at the last attempt. If a log was read after a restart, the ban may already be over.
        age = max(0.0, self.clock.mono() - decision.at)
        seconds, before = decision.seconds or rule.ban_for(0), 0
        outcomes = self._add_for(decision, seconds - age)
        if outcomes and outcomes[0].error is None:
            self.delays.record(self.clock.mono() - decision.at)
        if decision.seconds is None:
            before = self.records.offences(subject, now - RETURN_WITHIN)
            if rule.ban_for(before) != seconds:
                seconds = rule.ban_for(before)
                if not outcomes or outcomes[0].error is None:
                    outcomes = self._add_for(decision, seconds - age)
        if seconds <= age:
            self._log.info("ban.expired", address=str(subject), rule=rule.name, seconds_ago=round(age))
            return
        expires = now - age + seconds
        made, origin = decision.attempts, Origin.RULE
        ban = Ban(subject, now - age, expires, rule.name, rule.meaning, origin, made, scope, before + 1)
        if not self.enforcing:
            self.ledger.assume(subject, scope, expires)
            self._log.warning("ban.not_enforced", address=str(subject), rule=rule.name, why="switched off")
            return
        self.bans.record_outcomes([ban], outcomes)
        self.bans.supersede(ban)

    def _add_for(self, decision: Decision, seconds: float) -> list[Outcome]:
        """Add the ban to the kernel for ``seconds``, and return the kernel's answers.

        Return [] and do nothing if ``seconds`` is not positive, or if enforcement is switched off.
        """
        if not self.enforcing or seconds <= 0.0:
            return []
        return self.bans.apply([Add(decision.subject, seconds, decision.scope)])

    def ban(
        self, networks: Sequence[Network], seconds: float, reason: str, *, force: bool = False
    ) -> list[str]:
        """Ban networks for an administrator, for ``seconds``; return a line for each that was not banned.

        A line has the network and the reason. With ``force``, protected and very wide networks are banned
        too. A ban that the kernel refuses is tried again later, like the ban of a rule. Raise ControlError if
        enforcement is switched off.
        """
        self.require_enforcing()
        now = self.clock.wall()
        refused, bans = [], []
        for network in networks:
            why = self.exempt.refusal(network, force=force) or (None if force else too_wide(network))
            if why is not None:
                refused.append(f"{network}: {why}")
                continue
            rule = str(Origin.ADMIN)
            bans.append(Ban(network, now, now + seconds, rule, reason, Origin.ADMIN, forced=force))
        outcomes = self.bans.add(bans)
        return refused + failure_lines(outcome for outcome in outcomes if outcome.error is not None)

    def adopt(self, found: Mapping[int, float]) -> None:
        """Adopt bans of the kernel that have no record. Bans of exempt networks are removed instead.

        ``found`` has the keys of these bans, and the seconds that each has left.
        """
        self.bans.adopt(found)
        self.bans.unban_with_retry(
            key for key in found if self.exempt.refusal(network_of(key)[0]) is not None
        )

    @property
    def firewall_error(self) -> str:
        """The latest error of the firewall; "" if the kernel has accepted all bans and lists."""
        return self.bans.error or self.filler.error

    # -- exemptions and lists

    def allow(self, exempt: Exempt, *, restored: bool = False) -> None:
        """Set the exempt networks, and remove the bans of those that were not exempt before.

        ``restored``: bans were just restored from the store, so the bans of all exempt networks are removed.
        If the kernel does not remove a ban, that is logged, and tried again.
        """
        before, self.exempt = Exempt() if restored else self.exempt, exempt
        self.detector.exempt = exempt.never
        if self.enforcing:
            self.fill(NetworkList.ALLOW, NetworkList.FRIENDS)
            self.bans.unban_with_retry(self._newly_exempt(before, exempt))

    def _newly_exempt(self, before: Exempt, after: Exempt) -> set[int]:
        ledger, now = self.ledger, self.clock.wall()
        allowed = NetworkSet(after.allowed.networks - before.allowed.networks)
        keys = ledger.all_keys() if allowed else ()
        freed = {key for key in keys if allowed.contains_prefix(*parts_of(key))}
        for network in after.protected.keys() - before.protected.keys():
            freed.update(key for key in ledger.overlapping(network, now) if not ledger.is_forced(key))
        return freed

    def fill(self, *targets: NetworkList) -> None:
        """Write lists into the kernel. Bans do not wait for a long list, or for one that fails."""
        self.filler.fill(*targets)

    # -- periodic work

    def tick(self) -> None:
        """Do the periodic work, about once a second.

        Retry refused bans, renew timeouts, forget expired bans, and follow changes of the wall clock.
        """
        self._follow_clock()
        now = self.clock.wall()
        self.ledger.expire_assumed(now)
        over, renew = self.ledger.due(now)
        for key in over:
            self.ledger.pop(key)
            self.watch.ended(*network_of(key), "expired")
        if self.enforcing:
            self.bans.retry()
            self.bans.renew(renew)

    def _follow_clock(self) -> None:
        """If the wall clock was set, move the times of all bans, so that the time left stays the same."""
        now = self.clock.wall()
        offset = now - self.clock.mono()
        step, self.ledger.offset = offset - self.ledger.offset, offset
        if abs(step) > CLOCK_STEP:
            self.ledger.shift(step)
            self.records.queue_clock_record(offset, step, now)
            self._log.warning("clock.set", seconds=round(step))
