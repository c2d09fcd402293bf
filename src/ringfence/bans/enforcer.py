"""Carries out the bans that rules or administrators have decided, and keeps the firewall as it should be.

With enforcement switched off, everything is observed and nothing is banned.

All functions are synchronous, and called from one event loop. So nothing else runs between the event that
leads to a ban and the netlink exchange that places it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite

import structlog
from attrs import Factory, define, evolve, frozen

from ringfence.ban_facts import Fact, News, Over, Placed
from ringfence.bans.delays import BanDelays
from ringfence.bans.exempt import Exempt, too_wide
from ringfence.bans.filling import Filler
from ringfence.bans.listing import listed
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Decision
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.errors import ControlError, FirewallError, SetFullError
from ringfence.firewall.contract import (
    MAX_TIMEOUT,
    Add,
    Backend,
    Change,
    LimitMode,
    NetworkList,
    Opened,
    Outcome,
    Remove,
)
from ringfence.firewall.probe import Verification, verify
from ringfence.ledger import Ledger, Record, ban_of, key_of, network_of, parts_of, renew_at
from ringfence.model import CLAIMED_SCOPES, Ban, BanEnd, Friend, Network, Origin, Scope, printable
from ringfence.networks import NetworkSet, is_one_host, sender_of
from ringfence.store.bans import Records
from ringfence.store.rows import Ended


@define
class BanCounts:
    """Numbers of bans since the start.

    ``placed_by`` counts the placed bans, by the name of their rule (or their origin) and their scope.
    ``failed`` counts the bans that the kernel refused, and ``unbanned`` the bans that were removed before
    their end. ``displaced`` is the part of ``unbanned`` that was removed because a set was full.
    """

    placed_by: Counter[tuple[str, Scope]] = Factory(Counter)
    failed: int = 0
    unbanned: int = 0
    displaced: int = 0

    @property
    def placed(self) -> int:
        """The number of placed bans."""
        return self.placed_by.total()


# -- selects the bans that are removed early if a set is full: those with the least time left


AT_ONCE = 256
"""The number of bans that one search returns. A search takes long, because it goes through all bans."""


@define
class GivingWay:
    """Finds the bans of a full set that end first, so that they can make room for a longer ban."""

    # The ends and keys of the bans found, by IP version, prefix length and scope. The earliest end is last.
    _waiting: dict[tuple[int, int, Scope], list[tuple[float, int]]] = Factory(dict)

    def next(self, ledger: Ledger, ban: Ban) -> int | None:
        """Return the key of the ban to remove for ``ban``; None if no ban ends earlier than ``ban``."""
        like = (ban.network.version, ban.network.prefixlen, ban.scope)
        waiting = self._waiting.setdefault(like, [])
        while waiting and not _still_ends(ledger, *waiting[-1]):
            waiting.pop()
        if not waiting:
            waiting += ledger.soonest(ban.network, ban.scope, AT_ONCE)[::-1]
        # If the bans found end too late for ``ban``, they are kept for a later call with a longer ban.
        if not waiting or waiting[-1][0] >= ban.expires:
            return None
        return waiting.pop()[1]

    def clear(self) -> None:
        """Forget the bans that were found."""
        self._waiting.clear()


def _still_ends(ledger: Ledger, expires: float, key: int) -> bool:
    """Whether a ban was neither removed nor replaced since it was found with this end."""
    record = ledger.get(key)
    return record is not None and record.expires == expires


# -- small conversions of bans and of changes: from and to keys, and to texts for answers and the log


ADOPTED_FOR = 86_400.0
"""Seconds after which an adopted ban ends if it has no end in the kernel. Each ban of ringfence must end.

An adopted ban was found in the kernel, and the database does not have it.
"""


def add_order(key: int, seconds: float) -> Add:
    """Return the change that adds the ban with this key to the kernel, for ``seconds`` from now."""
    network, scope = network_of(key)
    return Add(network, seconds, scope)


def adopted_ban(key: int, now: float, left: float) -> Ban:
    """Return a ban for a key that was found in the kernel without a record. It ends in ``left`` seconds."""
    network, scope = network_of(key)
    rule, reason = str(Origin.ADOPTED), "found in the kernel"
    return Ban(network, now, now + left, rule, reason, Origin.ADOPTED, scope=scope)


def keys_of(changes: Iterable[Change]) -> set[int]:
    """Return the keys of the bans that ``changes`` concern."""
    return {key_of(change.network, change.scope) for change in changes}


def failure_lines(failed: Iterable[Outcome]) -> list[str]:
    """Return a line for each failed change."""
    return [f"{outcome.change.network}: {outcome.error}" for outcome in failed]


def ban_fields(ban: Ban) -> dict[str, object]:
    """Return the fields of a ban for the log."""
    return {
        "address": str(ban.network),
        "seconds": round(ban.expires - ban.since),
        "rule": ban.rule,
        "attempts": len(ban.attempts),
        "accounts": sorted({printable(attempt.account) for attempt in ban.attempts})[:5],
    }


CHUNK = 2_000
"""The maximum number of bans in one call to the kernel, which takes some ten milliseconds."""
_NARROWER = {
    Scope.FULL: (Scope.SIP, *CLAIMED_SCOPES),
    Scope.SIP: CLAIMED_SCOPES,
}
"""For each scope, the narrower scopes. A ban of the scope also drops what a ban of a narrower one drops."""


class Enforcer:
    """Places and removes bans in the kernel, and records the kernel's answers in the ledger and the store.

    A ban is recorded in the :attr:`ledger` only after the kernel has acknowledged it. A ban that the kernel
    refuses is logged and kept as *pending*: it is tried again until it succeeds or its time is over. If a set
    is full, the bans with the least time left are removed early. If a ban is longer than the longest timeout
    in the kernel, its timeout is renewed while it lasts.

    Call :meth:`start` or :meth:`attach` first. ``list_contents`` returns the networks that one of the
    kernel's lists must contain. ``opened`` is the result of the last :meth:`reopen`. ``verification`` is the
    result of the test packets of :meth:`start`, None if it sent none. Each of ``listeners`` is called with
    each fact; it must not wait.
    """

    def __init__(
        self,
        backend: Backend,
        records: Records,
        detector: Detector,
        clock: Clock,
        list_contents: Callable[[NetworkList], Iterable[Network]] = lambda _: (),
        listeners: Sequence[Callable[[Fact], object]] = (),
    ) -> None:
        self.backend = backend
        self.records = records
        self.detector = detector
        self.clock = clock
        self.ledger = detector.bans
        self.ledger.offset = clock.wall() - clock.mono()
        self._listeners = listeners
        self.counts = BanCounts()
        self.error = ""
        """The latest error of the kernel; "" if it has accepted all bans."""
        self.filler = Filler(backend, list_contents)
        self.exempt = Exempt()
        self.delays = BanDelays()
        self.enforcing = False
        self.opened: Opened | None = None
        self.verification: Verification | None = None
        self._comparison = 0
        self._recently_unbanned: set[int] = set()
        self._failed_unbans: set[int] = set()
        self._giving_way = GivingWay()
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
        self.opened = self._rebuilt()
        if verified:
            self.verification = verify(self.backend, self.opened.families)
            for check in self.verification.untried:
                self._log.info("probe.untried", direction=check.name, why=check.note)
        self.enforcing = True
        self.ledger.offset = self.clock.wall() - self.clock.mono()
        restored = restore_bans(self)
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
            self.opened = self._rebuilt() if damaged else self.backend.open()
            if not self.records.switched_off:
                return self.opened
        self.switch_off()
        return None

    def _rebuilt(self) -> Opened:
        """Write rules, sets and lists. The fence drops nothing yet, because its lists may be empty."""
        plan = self.backend.plan
        if plan.fence is LimitMode.ENFORCE:  # RuleUpdates enforces it again when the lists are written
            self.backend.plan = evolve(plan, fence=LimitMode.OBSERVE)
        opened = self.backend.open()
        self.filler.refill()
        return opened

    def switch_off(self) -> None:
        """Remove all rules and sets of ringfence from the kernel, and queue the record that it is off.

        Enforcement stays off even if the kernel refuses, or if the database cannot record it. Raise
        FirewallError if the kernel refuses.
        """
        self.enforcing = False
        try:
            self.filler.stop()
            self.backend.flush()
        finally:
            self._forget_bans()
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
        self.record_outcomes([ban], outcomes)
        self.supersede(ban)

    def _add_for(self, decision: Decision, seconds: float) -> list[Outcome]:
        """Add the ban to the kernel for ``seconds``, and return the kernel's answers.

        Return [] and do nothing if ``seconds`` is not positive, or if enforcement is switched off.
        """
        if not self.enforcing or seconds <= 0.0:
            return []
        return self.apply([Add(decision.subject, seconds, decision.scope)])

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
        outcomes = self.add(bans)
        return refused + failure_lines(outcome for outcome in outcomes if outcome.error is not None)

    def adopt(self, found: Mapping[int, float]) -> None:
        """Record bans that the kernel has, but the ledger lacks. Bans of exempt networks are removed instead.

        ``found`` has their keys, and the seconds that each has left (infinity if a ban has no end). A ban
        without an end gets one, in ``ADOPTED_FOR`` seconds.
        """
        now = self.clock.wall()
        endless = [key for key, left in found.items() if not isfinite(left)]
        for start in range(0, len(endless), CHUNK):
            self.apply([add_order(key, ADOPTED_FOR) for key in endless[start : start + CHUNK]])
        bans = []
        for key, timeout in found.items():
            left = timeout if isfinite(timeout) else ADOPTED_FOR
            bans.append(adopted_ban(key, now, left))
            self.record_active(bans[-1], now, left)
        if bans:
            self.records.ban(bans)
        self.unban_with_retry(key for key in found if self.exempt.refusal(network_of(key)[0]) is not None)

    @property
    def firewall_error(self) -> str:
        """The latest error of the firewall; "" if the kernel has accepted all bans and lists."""
        return self.error or self.filler.error

    # -- the kernel's answers

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Carry out changes in the kernel, but not in the ledger and the store.

        Return the kernel's answers. Never raises.
        """
        if not changes:
            return []
        try:
            outcomes = self.backend.apply(changes)
        except FirewallError as error:
            outcomes = [Outcome(change, error=error) for change in changes]
        errors = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
        if errors:
            self.error = errors[0]
        elif self.error and self.ledger.pending_keys() <= keys_of(changes):
            self.error = ""
        return outcomes

    def add(self, bans: Sequence[Ban], news: News = News.NEW) -> list[Outcome]:
        """Add ``bans`` to the kernel, record its answers, and return its last answer to each ban."""
        now = self.clock.wall()
        outcomes = self.apply([Add(ban.network, ban.expires - now, ban.scope) for ban in bans])
        return self.record_outcomes(bans, outcomes, news)

    def record_outcomes(
        self, bans: Sequence[Ban], outcomes: Sequence[Outcome], news: News = News.NEW
    ) -> list[Outcome]:
        """Record the kernel's answers (``outcomes``) to ``bans``, and return its last answer to each ban.

        If a set was full, a ban that ends earlier is removed, and the new ban is added again.
        """
        now = self.clock.wall()
        taken, final = [], []
        for ban, first in zip(bans, outcomes, strict=True):
            outcome = self._make_room(ban, first, now) if isinstance(first.error, SetFullError) else first
            final.append(outcome)
            if outcome.error is not None:
                self._record_refusal(ban, outcome.error, news)
                continue
            self.record_active(ban, now, outcome.timeout)
            taken.append(ban)
        if taken and news is not News.KNOWN:
            self.records.ban(taken)
            self._report(Placed(taken, news is News.NEW))
            for ban in taken:
                self.counts.placed_by[ban.rule, ban.scope] += 1
                self._log.warning("ban.placed", **ban_fields(ban))
        return final

    def _report(self, fact: Fact) -> None:
        for listener in self._listeners:
            listener(fact)

    def record_active(self, ban: Ban, now: float, granted: float) -> None:
        """Record in the ledger that the kernel has a ban; ``granted`` is its timeout there in seconds."""
        again = renew_at(ban.expires, now, granted)
        self.ledger.put(key_of(ban.network, ban.scope), Record.of(ban, again, self._comparison))

    def _make_room(self, ban: Ban, refused: Outcome, now: float) -> Outcome:
        """Remove a ban that ends before ``ban`` from the full set, and add ``ban`` again.

        Return the kernel's answer. ``refused`` is its first answer, and is returned if no ban was removed.
        """
        key = self._giving_way.next(self.ledger, ban)
        if key is None or self.unban([key], how=BanEnd.DISPLACED):
            return refused
        self.counts.displaced += 1
        return self.apply([Add(ban.network, ban.expires - now, ban.scope)])[0]

    def _record_refusal(self, ban: Ban, error: FirewallError, news: News) -> None:
        if key_of(ban.network, ban.scope) not in self.ledger.pending_keys():
            self.counts.failed += 1
            self._log.error("ban.failed", error=str(error), **ban_fields(ban))
        if not self.ledger.refuse(ban, news):
            # Too many bans are pending, so this one is not tried again. The detector forgets it, and
            # decides on another ban after enough new attempts.
            self.detector.record_unban(ban.network)

    # -- keep bans in the kernel

    def renew(self, keys: Sequence[int]) -> None:
        """Set the kernel's timeouts of these bans to the time that they have left."""
        now = self.clock.wall()
        records = [(key, record) for key in keys if (record := self.ledger.get(key)) is not None]
        changes = [add_order(key, record.expires - now) for key, record in records]
        for (_, record), outcome in zip(records, self.apply(changes), strict=True):
            if outcome.error is None:
                record.renew_at = renew_at(record.expires, now, outcome.timeout)

    def restore(self, keys: Sequence[int]) -> int:
        """Add bans again that the kernel has lost. Return how many it accepted; the others are pending."""
        now, ledger = self.clock.wall(), self.ledger
        bans = []
        for key in keys:
            record = ledger.get(key)
            if record is not None and record.expires > now:
                bans.append((key, record))
        changes = [add_order(key, record.expires - now) for key, record in bans]
        taken = 0
        for (key, record), outcome in zip(bans, self.apply(changes), strict=True):
            if outcome.error is not None:
                ledger.pop(key)
                self._record_refusal(ban_of(key, record), outcome.error, News.KNOWN)
                continue
            record.renew_at = renew_at(record.expires, now, outcome.timeout)
            taken += 1
        return taken

    def retry(self) -> None:
        """Try again the changes that the kernel has refused: first the removals, then the pending bans."""
        if self._failed_unbans:
            self.unban_with_retry(self._failed_unbans)
        if self.ledger.expire_pending(self.clock.wall()):
            self.error = ""  # set again if a ban is still refused
        pending = self.ledger.pending
        for news in News:
            self.add([one.ban for one in pending if one.news is news], news)

    def begin_comparison(self) -> int:
        """Begin a comparison of the kernel with the ledger; return its number, for :attr:`Record.seen`."""
        self._comparison += 1
        self._recently_unbanned.clear()
        return self._comparison

    def was_unbanned(self, key: int) -> bool:
        """Whether a ban was removed from the kernel since the latest comparison began."""
        return key in self._recently_unbanned

    # -- remove bans

    def unban(
        self, keys: Iterable[int], *, recorded: float = 0.0, how: BanEnd = BanEnd.REMOVED
    ) -> list[Outcome]:
        """Remove bans from the kernel and the ledger; return the changes that the kernel refused.

        The store records the end of the bans, and ``how`` they ended. If the caller has already recorded it
        there, ``recorded`` is the recorded time (seconds since the epoch), otherwise 0.
        """
        bans, when = [network_of(key) for key in dict.fromkeys(keys)], recorded or self.clock.wall()
        if bans and not recorded:
            self.records.end(bans, when, how)
        lifted, failed = [], []
        for outcome in self.apply([Remove(*ban) for ban in bans]):
            network, scope = outcome.change.network, outcome.change.scope
            if outcome.error is not None:
                failed.append(outcome)
                continue
            self._discard(key_of(network, scope))
            self.detector.record_unban(network)
            lifted.append((network, scope))
            self._report(Over(network, scope, how))
        if failed:
            self.records.resume([(out.change.network, out.change.scope) for out in failed], when)
        if lifted:
            self.counts.unbanned += len(lifted)
            addresses = [str(network) for network, _ in lifted[:20]]
            self._log.info("ban.removed", addresses=addresses, number=len(lifted))
        return failed

    def _discard(self, key: int) -> None:
        self.ledger.discard(key)
        self._recently_unbanned.add(key)

    def on_login(self, friend: Friend) -> None:
        """End the claimed bans of an address from which a phone has logged in.

        Their evidence may be forged, and such a ban never affects a friend. A ban of a /64 stays: the kernel
        lets its friends pass. So does a ban on proven attempts: a login does not undo a friend's guesses.
        """
        network = sender_of(friend.address)
        keys = [key_of(network, scope) for scope in CLAIMED_SCOPES] if is_one_host(friend.address) else []
        records = {key: record for key in keys if (record := self.ledger.get(key)) is not None}
        claimed = [
            key
            for key, record in records.items()
            if record.origin is Origin.RULE and not record.counts.are_proven
        ]
        if claimed:
            self.unban_with_retry(claimed)

    def unban_with_retry(self, keys: Iterable[int]) -> None:
        """Remove bans. If the kernel refuses, that is logged once, and :meth:`retry` tries again."""
        asked = set(keys)
        failed = self.unban(asked)
        left = {key_of(outcome.change.network, outcome.change.scope) for outcome in failed}
        for key in left:  # if a ban to remove stayed pending, ``retry`` would place it again
            self.ledger.discard_pending(key)
        if left - self._failed_unbans:
            addresses = sorted(str(network_of(key)[0]) for key in left)
            self._log.error("unban.failed", addresses=addresses[:20], error=str(failed[0].error))
        self._failed_unbans = self._failed_unbans - asked | left

    def supersede(self, ban: Ban) -> None:
        """Remove the bans of the same network that have a narrower scope than ``ban``, a new ban.

        So listings show the network once. A ban of scope ``SIP`` stays if it lasts longer than ``ban``. Bans
        of ``SIP_UDP`` and ``SIP_TCP``, whose evidence may be forged, are removed in any case.
        """
        subject, ledger = ban.network, self.ledger
        if key_of(subject, ban.scope) not in ledger:
            return
        for scope in _NARROWER.get(ban.scope, ()):
            narrow = key_of(subject, scope)
            record = ledger.get(narrow)
            if record is None or (scope is Scope.SIP and record.expires > ban.expires):
                continue
            if self.apply([Remove(subject, scope)])[0].error is None:
                self._discard(narrow)
                self.records.end([(subject, scope)], self.clock.wall(), BanEnd.REPLACED)
                self._report(Over(subject, scope, BanEnd.REPLACED))

    def _forget_bans(self) -> None:
        """Forget all bans, because the kernel no longer has any."""
        for pending in self.ledger.pending:
            self.detector.record_unban(pending.ban.network)
        self.ledger.clear()
        self._failed_unbans.clear()
        self._giving_way.clear()
        self.error = ""

    # -- exemptions and lists

    def allow(self, exempt: Exempt, *, restored: bool = False) -> None:
        """Set the exempt networks, and remove the bans of those that were not exempt before.

        ``restored``: bans were just restored from the store, so the bans of all exempt networks are removed.
        If the kernel does not remove a ban, that is logged, and tried again.
        """
        before, self.exempt = Exempt() if restored else self.exempt, exempt
        self.detector.exempt = exempt.never_banned
        if self.enforcing:
            self.fill(NetworkList.ALLOW, NetworkList.FRIENDS)
            self.unban_with_retry(self._newly_exempt(before, exempt))

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

    def record_all(self) -> None:
        """Let the store record exactly the bans in force, because it may lack some and have ended ones."""
        kept = dict(self.ledger.items())
        pending = frozenset(map(network_of, self.ledger.pending_keys()))
        self.records.replace(lambda: (ban_of(*item) for item in kept.items()), pending, self.clock.wall())

    # -- periodic work

    def tick(self) -> None:
        """Do the periodic work, about once a second.

        Retry refused bans, renew timeouts, forget expired bans, and follow changes of the wall clock.
        """
        self._follow_clock()
        now = self.clock.wall()
        self.ledger.expire_assumed(now)
        over, renew = self.ledger.due(now)
        if over:
            # Recorded, because the clock may be set back later: an ended ban must not begin again.
            self.records.expire([network_of(key) for key in over], now)
        for key in over:
            self.ledger.pop(key)
            self._report(Over(*network_of(key), BanEnd.EXPIRED))
        if self.enforcing:
            self.retry()
            self.renew(renew)

    def _follow_clock(self) -> None:
        """If the wall clock was set, move the times of all bans, so that the time left stays the same."""
        now = self.clock.wall()
        offset = now - self.clock.mono()
        step, self.ledger.offset = offset - self.ledger.offset, offset
        if abs(step) > CLOCK_STEP:
            self.ledger.shift(step)
            self.records.queue_clock_record(offset, self.clock.boot(), step, now)
            self._log.warning("clock.set", seconds=round(step))


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


def restore_bans(enforcer: Enforcer) -> Restored:
    """Compare the store's bans with the kernel's when the daemon starts.

    Bans that both have are recorded in the ledger. Bans that only the store has are added to the kernel. If
    an unban was recorded, but the last daemon ended before the kernel removed the ban, the ban is removed
    now.
    """
    records, began = enforcer.records, enforcer.clock.wall()
    found = {key_of(one.network, one.scope): one.timeout for one in listed(enforcer.backend, None)}
    follow_clock(records, found, enforcer.ledger.offset, enforcer.clock.boot(), began)
    inside, missing, put_back = len(found), list[Ban](), 0
    for ban in records.running(began):
        left = found.pop(key_of(ban.network, ban.scope), None)
        if left is not None:
            enforcer.record_active(ban, began, left)
            continue
        missing.append(ban)
        if len(missing) >= CHUNK:
            enforcer.add(missing, News.KNOWN)
            put_back += len(missing)
            missing = []
    enforcer.add(missing, News.KNOWN)
    put_back += len(missing)
    ended = unbanned_keys(found, records.removed_early(began) if found else (), began, enforcer.clock.wall())
    enforcer.apply([Remove(*network_of(key)) for key in ended])
    unknown = {key: left for key, left in found.items() if key not in ended}
    return Restored(inside - len(unknown), put_back, unknown)


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


def follow_clock(records: Records, found: Mapping[int, float], offset: float, boot: str, now: float) -> None:
    """If the wall clock was set since bans were recorded in the database, move the times of these bans.

    ``offset`` is the wall clock minus the monotonic clock, now. The database has an earlier offset. If the
    two differ, the clock was set, or the host was booted again. If ``boot``, the identity of this boot, is
    the recorded one, the clock was set. Otherwise a ban in the kernel shows which: if the clock was set, the
    end of this ban in the kernel differs from its end in the database by as much.
    ``found`` has the keys of the kernel's bans, each with the seconds left.
    """
    known, booted = records.clock()
    step = offset - known if known is not None else 0.0
    confirmed = abs(step) > CLOCK_STEP and (
        (boot and boot == booted)
        or any(
            abs(now + left - step - expires) <= CLOCK_STEP
            for network, scope, expires in (records.not_removed() if found else ())
            if (left := found.get(key_of(network, scope))) is not None
        )
    )
    records.record_clock(offset, boot, step if confirmed else 0.0, now)
