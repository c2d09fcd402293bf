"""Carries out what the book of bans decides: in the kernel, the store and the log, and with the listeners.

With enforcement switched off, everything is observed and nothing is banned.

All functions are synchronous, and called from one event loop. So nothing else runs between the event that
leads to a ban and the netlink exchange that places it.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import ceil, inf

import structlog
from attrs import evolve, frozen

from ringfence.ban_facts import Adopted, ClockSet, Fact, Listener, NotRemoved, Placed, Refused
from ringfence.bans.book import Batch, Book, Steps, T
from ringfence.bans.delays import BanDelays
from ringfence.bans.exempt import Exempt
from ringfence.bans.filling import Filler, ListContents
from ringfence.bans.restore import follow_clock, restore_bans
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Decision
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.errors import ControlError, FirewallError, StoreError
from ringfence.firewall import network_lists
from ringfence.firewall.contract import MAX_TIMEOUT, Add, Backend, Opened, Outcome
from ringfence.firewall.limits import Until
from ringfence.firewall.probe import Verification, verify
from ringfence.ledger import Record, ban_of, key_of, network_of
from ringfence.store.bans import Records
from ringfence.values.ban import Ban, Origin
from ringfence.values.network import Network
from ringfence.values.text import printable


@frozen
class _BansOf:
    """Bans made from records in memory. Each iteration builds them again, so that none takes memory.

    ``records`` has the key and the record of each, with its begin and its end. Those in the record move when
    the clock is set.
    """

    records: Sequence[tuple[int, Record, float, float]]

    def __iter__(self) -> Iterator[Ban]:
        for key, record, since, expires in self.records:
            yield evolve(ban_of(key, record), since=since, expires=expires)


class Enforcer:
    """Carries out in the kernel and the store what the ``book`` decides; switches enforcement off and on.

    Call :meth:`start` or :meth:`attach` first. ``lists`` returns the networks that one of the
    kernel's lists must contain. ``opened`` is the latest result of the backend. ``verification`` is the
    result of the test packets of :meth:`start`, None if it sent none. The detector and each of ``listeners``
    are called with each fact; they must not wait.
    """

    def __init__(
        self,
        backend: Backend,
        records: Records,
        detector: Detector,
        clock: Clock,
        lists: ListContents | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.backend = backend
        self.records = records
        self.detector = detector
        self.clock = clock
        self.ledger = detector.bans
        self.ledger.offset = clock.wall() - clock.mono()
        self.book = Book(self.ledger)
        self._listeners = listeners
        self.filler = Filler(backend, lists if lists is not None else ListContents())
        self.delays = BanDelays()
        self.enforcing = False
        self.opened: Opened | None = None
        self.plan = backend.plan
        """The plan of the rules that the kernel has: a refused change leaves the earlier one."""
        self.unread = ""
        """Why some bans were not restored when enforcement was switched on; "" if all were."""
        self.not_removed = ""
        """Why the kernel refused to remove the rules when enforcement was switched off; "" if it did not."""
        self.rebuilt_at = -inf
        """When rules that were missing, or may have been, were written last (monotonic seconds)."""
        self.verification: Verification | None = None
        self.unbanning = asyncio.Lock()
        """Held by a command that unbans: it may split a ban and wait for the disk, before it removes it."""
        self._log = structlog.get_logger()

    # -- enforcement on and off

    def start(self, *, verified: bool = True, recorded: bool = True) -> None:
        """Write rules, sets and lists, test them with packets, and reconcile the kernel with the store.

        Bans that are in the store but not in the kernel are restored (after a reboot). Bans that are in the
        kernel but not in the store are adopted for the time that they have left. With ``verified`` false, no
        test packet is sent. If not all bans and unbans are ``recorded``, the bans that the store lacks are
        restored later (:meth:`retry_restore`). If enforcement is switched off, rules that an earlier daemon
        could not remove are removed. Raise FirewallError; ProbeError if the rules did not drop a test packet.
        """
        if self.records.switched_off:
            # If the clock is set before the next start in this boot, that start knows by how much.
            with suppress(StoreError):
                follow_clock(self.records, {}, self.ledger.offset, self.clock.boot(), self.clock.wall())
            self._log.warning("enforcement.off", fix="ringfence on")
            self.remove_rules()
            return
        self.opened = self._rebuilt()
        if verified:
            self.verification = verify(self.backend, self.opened.families)
            for check in self.verification.untried:
                self._log.info("probe.untried", direction=check.name, why=check.note)
        self.enforcing, self.not_removed = True, ""
        if step := self.book.follow_clock(self.clock.wall() - self.clock.mono()):
            self.report(ClockSet(step))
        try:
            self._restore(recorded=recorded)
        except FirewallError:
            self.enforcing = False  # so that it is tried again as a whole
            raise

    def _restore(self, *, recorded: bool = True) -> None:
        """Restore and adopt bans (:func:`restore_bans`), and set :attr:`unread`. Raise FirewallError."""
        steps = restore_bans(self.book, self.backend, self.records, self.clock, recorded=recorded)
        try:
            restored = self.apply(steps)
        except StoreError as error:
            self.unread = str(error)
            self._log.error("bans.unread", error=self.unread)
        else:
            self.unread = "" if recorded else "the database lacks the latest bans and unbans"
            self._log.info("bans.restored", **restored)

    def retry_restore(self) -> bool:
        """Restore the recorded bans that an earlier try left out; return whether all are restored now.

        First all times must be by the present clock, and the database must have recorded everything: a ban
        that has ended since must not return. Raise FirewallError.
        """
        if not self.enforcing or not self.unread:
            return False
        self.now()
        if not self.records.catch_up():
            return False
        self._restore()
        return not self.unread

    @property
    def knows_bans(self) -> bool:
        """Whether the ledger has all bans in force: enforcement is on, and no recorded ban was left out."""
        return self.enforcing and not self.unread

    def attach(self) -> None:
        """Load the store's bans, for a command that runs without a daemon.

        The kernel's rules and bans are not changed. Raise FirewallError.
        """
        self.backend.attach()
        self.enforcing = True
        with suppress(StoreError):  # a command can still unban what the kernel has
            for ban in self.records.running(self.clock.wall()):
                self.ledger.put(key_of(ban.network, ban.scope), Record.of(ban))

    def reopen(self, *, damaged: bool = False) -> Opened | None:
        """Write the rules and sets that are missing, or that differ from the backend's settings.

        ``damaged``: sets may have lost networks, so all lists are written again.

        Return the backend's result, such as the IP versions that are guarded. Return None and switch
        enforcement off if `ringfence off` could not reach the daemon: the command then removes the rules
        itself, and records that enforcement is off. It records first, so the record is read before and after
        the rules are written. Raise FirewallError.
        """
        if not self.records.switched_off:
            self.opened = self._rebuilt() if damaged else self._open()
            if not self.records.switched_off:
                return self.opened
        self.switch_off()
        return None

    def _rebuilt(self) -> Opened:
        """Write rules and sets, begin to write all lists, and return the backend's result.

        Rules against strangers drop nothing until the lists are complete. Raise FirewallError if rules or
        sets cannot be written. A list that cannot be written is tried again later.
        """
        # RuleUpdates puts the wanted plan in place again when the lists are written.
        self.backend.plan = self.backend.plan.observing(Until.LISTS)
        self.opened = None  # if the kernel refuses, no rule is known to be in place
        opened = self._open()
        self.rebuilt_at = self.clock.mono()
        self.filler.refill()
        return opened

    def _open(self) -> Opened:
        opened = self.backend.open()
        self.plan = self.backend.plan
        return opened

    def switch_off(self) -> None:
        """Remove all rules and sets of ringfence from the kernel, and queue the record that it is off.

        Enforcement stays off even if the kernel refuses, or if the database cannot record it. Raise
        FirewallError if the kernel refuses.
        """
        self.enforcing, self.unread = False, ""
        self.filler.stop()
        self.remove_rules()
        self.apply(self.book.forget())
        self.records.set_switched_off(True)
        self._log.warning("enforcement.off", fix="ringfence on")
        if self.not_removed:
            raise FirewallError(self.not_removed)

    def remove_rules(self) -> None:
        """Remove all rules and sets of ringfence from the kernel. If it refuses, ``not_removed`` says why."""
        try:
            self.backend.flush()
        except FirewallError as error:
            self.not_removed = str(error)
        else:
            self.not_removed = ""

    def switch_on(self, *, recorded: bool = True) -> None:
        """Enforce again, and restore the bans that have time left; ``recorded`` is that of :meth:`start`.

        While enforcement was off, rules have decided on bans that were not placed. The attempts that led to
        these bans are not counted again: only new attempts can lead to a ban.
        """
        # A clock that was set is followed by :meth:`start`, by what the database has.
        self.apply(self.book.forget_assumed(self._ledger_time()))
        self.records.set_switched_off(False)
        if not self.enforcing:
            self.start(recorded=recorded)

    def require_enforcing(self) -> None:
        """Raise ControlError if enforcement is switched off."""
        if not self.enforcing:
            raise ControlError("enforcement is switched off; switch it on with: ringfence on")

    @property
    def firewall_error(self) -> str:
        """The latest error of the firewall; "" if the kernel has accepted all bans and lists."""
        return self.book.error or self.filler.error

    # -- bans

    def carry_out(self, *decisions: Decision) -> None:
        """Place the bans that rules have decided; never raise: log a failure, and try the ban again.

        The kernel gets all of them in one batch, so that it writes rules for new prefix lengths once. One
        ban is added within 0.3 ms. If a decision has a length, its ban has this length. Otherwise it first
        has the length of a first ban. Then the earlier bans of this network are counted in the database,
        which may take longer. If there are any, the ban is made longer. A ban starts at the last attempt.
        """
        now, adds, aged = self.clock.mono(), [], []
        for decision in decisions:
            age = max(0.0, now - decision.at)  # if a log was read after a restart, the ban may be over
            left = (decision.seconds or decision.rule.ban_for(0)) - age
            is_asked = self.enforcing and left > 0
            aged.append((decision, age, is_asked))
            if is_asked:
                adds.append(Add(decision.subject, ceil(min(left, MAX_TIMEOUT)), decision.scope))
        answers = iter(self._exchange(Batch(adds)) if adds else ())
        for decision, age, is_asked in aged:
            self._record_decision(decision, age, next(answers) if is_asked else None)

    def _record_decision(self, decision: Decision, age: float, answer: Outcome | None) -> None:
        """Record the ban of a decision, ``age`` seconds after its last attempt.

        ``answer`` is the kernel's answer to the ban; None if the kernel was not asked yet.
        """
        now, is_accepted = self.now(), answer is not None and answer.error is None
        if is_accepted:
            self.delays.record(self.clock.mono() - decision.at)
        subject, rule, scope, before = decision.subject, decision.rule, decision.scope, 0
        seconds = first = decision.seconds or rule.ban_for(0)
        if decision.seconds is None:
            before = self.records.offences(subject, now - RETURN_WITHIN)
            seconds = rule.ban_for(before)
        since, expires = now - age, now - age + seconds
        if seconds <= age:
            self._log.info("ban.expired", address=str(subject), rule=rule.name, seconds_ago=round(age))
        elif not self.enforcing:
            self.ledger.assume(subject, scope, expires)
            self._log.warning("ban.not_enforced", address=str(subject), rule=rule.name, why="switched off")
        else:
            if is_accepted and seconds != first:
                answer = None  # the kernel must have the ban for longer
            ban = Ban(
                subject,
                since=since,
                expires=expires,
                rule=rule.name,
                reason=rule.meaning,
                attempts=decision.attempts,
                scope=scope,
                offence=before + 1,
            )
            self.apply(self.book.add_decided(ban, answer, now))

    def ban(
        self, networks: Sequence[Network], seconds: float, reason: str, *, force: bool = False
    ) -> list[str]:
        """Ban networks for an administrator, for ``seconds``; return a line for each that was not banned.

        A line has the network and the reason. With ``force``, protected and very wide networks are banned
        too. A ban that the kernel refuses is tried again later, like the ban of a rule. Raise ControlError if
        enforcement is switched off.
        """
        self.require_enforcing()
        now, rule = self.now(), str(Origin.ADMIN)
        end, by = now + seconds, Origin.ADMIN
        bans = [
            Ban(network, since=now, expires=end, rule=rule, reason=reason, origin=by, forced=force)
            for network in networks
        ]
        return self.apply(self.book.ban(bans, now))

    # -- what the book asks and reports

    def apply(self, steps: Steps[T]) -> T:
        """Carry out ``steps``, such as those of the book; return their result, and raise what they raise.

        The kernel's answers go back to the book, and its facts to the store, the listeners and the log.
        """
        try:
            step = next(steps)
            while True:
                answers: Sequence[Outcome] = ()
                if isinstance(step, Batch):
                    answers = self._exchange(step)
                else:
                    self.report(step)
                step = steps.send(answers)
        except StopIteration as end:
            result: T = end.value
            return result

    def _exchange(self, batch: Batch) -> Sequence[Outcome]:
        """Have the database record which bans end, then return the kernel's answers to the ``batch``."""
        bans = [(change.network, change.scope) for change in batch.changes]
        when = batch.recorded or self._ledger_time()
        if batch.how is not None and not batch.recorded:
            self.records.end(bans, when, batch.how)
        try:
            outcomes = self.backend.apply(batch.changes)
        except FirewallError as error:
            outcomes = [Outcome(change, error=error) for change in batch.changes]
        failed = [ban for ban, one in zip(bans, outcomes, strict=True) if one.error is not None]
        if batch.how is not None and failed:
            self.records.resume(failed, when)
        if batch.how is not None and batch.how.is_early and len(failed) < len(bans):
            removed = [str(one.change.network) for one in outcomes if one.error is None]
            self._log.info("ban.removed", addresses=removed[:20], number=len(removed))
        return outcomes

    def report(self, fact: Fact) -> None:
        """Pass a fact, such as a begun ban, to the database, the listeners and the log."""
        if isinstance(fact, Placed | Adopted):
            self.records.ban(fact.bans)
        for listener in (self.detector, *self._listeners):
            listener.on_fact(fact)
        if isinstance(fact, Placed):
            for ban in fact.bans:
                self._log.warning("ban.placed", **ban_fields(ban))
        elif isinstance(fact, Refused):
            self._log.error("ban.failed", error=str(fact.error), **ban_fields(fact.ban))
        elif isinstance(fact, NotRemoved):
            addresses = sorted(map(str, fact.networks))[:20]
            self._log.error("unban.failed", addresses=addresses, error=str(fact.error))

    # -- exemptions and lists

    def allow(self, exempt: Exempt, *, restored: bool = False) -> None:
        """Set the exempt networks, and remove the bans of those that were not exempt before.

        ``restored``: bans were just restored, so the bans of all exempt networks are removed.
        """
        now = self.now()
        self.detector.exempt = exempt.never_banned
        if self.enforcing:
            self.filler.fill(network_lists.ALLOW, network_lists.FRIENDS)
        self.apply(self.book.exclude(exempt, now, restored=restored))

    def record_all(self) -> None:
        """Make the store record exactly the bans in force, and the clock of their times.

        It may lack some bans, still have ended ones, and have missed that the clock was set.
        """
        now = self.now()
        pending = frozenset(map(network_of, self.ledger.pending))
        bans = [(key, one, one.since, one.expires) for key, one in self.ledger.items()]
        self.records.replace(_BansOf(bans), pending, now)
        self.records.queue_clock_record(self.ledger.offset, self.clock.boot(), 0.0, now)

    # -- time

    def now(self) -> float:
        """Return the time (epoch seconds). If the wall clock was set, first move the times of all bans.

        The listeners move the times that they keep (:class:`ringfence.ban_facts.ClockSet`). So no time by the
        new clock is compared with one by the old clock.
        """
        now = self.clock.wall()
        offset = now - self.clock.mono()
        step = self.book.follow_clock(offset)
        if step:
            self.records.queue_clock_record(offset, self.clock.boot(), step, now)
            self._log.warning("clock.set", seconds=round(step))
            self.report(ClockSet(step))
        return now

    def _ledger_time(self) -> float:
        """Return the time by the ledger's clock (epoch seconds), without updating it as :meth:`now` does."""
        return self.clock.mono() + self.ledger.offset

    def tick(self) -> None:
        """Do the periodic work, about once a second.

        Retry refused bans, renew timeouts, forget expired bans, and follow changes of the wall clock.
        """
        now = self.now()
        over, to_renew = self.apply(self.book.expire(now))
        if over:
            # Recorded, because the clock may be set back later: an ended ban must not begin again.
            self.records.expire([network_of(key) for key in over], now)
        if self.enforcing:
            self.apply(self.book.retry(now))
            self.apply(self.book.renew(to_renew, now))


def ban_fields(ban: Ban) -> dict[str, object]:
    """Return the fields by which the log shows a ban, by name.

    These are its network (``address``), its length in ``seconds``, its ``rule``, the number of ``attempts``,
    and up to five ``accounts`` that they tried.
    """
    return {
        "address": str(ban.network),
        "seconds": round(ban.expires - ban.since),
        "rule": ban.rule,
        "attempts": len(ban.attempts),
        "accounts": sorted({printable(attempt.account) for attempt in ban.attempts})[:5],
    }
