"""Carries out decisions as bans in the kernel, and records each ban with its end and its reason.

A ban is recorded only after the kernel has acknowledged it. A ban that the kernel refuses is logged, kept as
*pending*, and tried again until it succeeds or its time is over. Its subject counts as banned meanwhile, so
that a broken firewall does not fill the log. If a set is full, the bans with the least time left end early. A
ban longer than the backend's longest timeout is renewed while it lasts. With enforcement switched off,
everything is observed and nothing is banned.

All of it is synchronous and called from one event loop: a ban is one netlink exchange away from the event
that caused it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import isfinite

import structlog
from attrs import define, evolve, field

from ringfence.bans.exemptions import Exempt, meets_friend, overlap, too_wide
from ringfence.bans.filling import Filler, Steps
from ringfence.bans.giving_way import GivingWay
from ringfence.bans.ledger import (
    EnforcerCounts,
    Ledger,
    Record,
    ban_of,
    key_of,
    network_of,
    parts_of,
    renew_at,
)
from ringfence.bans.listing import listed
from ringfence.bans.orders import add_order, ban_fields, failure_lines, keys_of
from ringfence.bans.restart import ADOPTED_FOR, CLOCK_STEP, adopted_ban, follow_clock, unbanned_keys
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.judge import Decision
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.errors import ControlError, FirewallError, SetFullError
from ringfence.firewall.contract import Add, Backend, Change, NetworkList, Opened, Outcome, Remove
from ringfence.firewall.probe import Verification, verify
from ringfence.model import AttemptCounts, Ban, Network, Origin, Scope
from ringfence.networks import NetworkSet
from ringfence.store.records import Records

MOST_PENDING = 1_000
"""At most this many refused bans are tried again."""

CHUNK = 2_000
"""Bans per call to the kernel, some ten milliseconds."""


@define
class Enforcer:
    """Owns the bans. :meth:`start` must be called first.

    ``list_contents`` returns the networks of a list of the kernel whenever it has to be written.
    """

    backend: Backend
    records: Records
    detector: Detector
    clock: Clock = field(factory=Clock)
    list_contents: Callable[[NetworkList], Iterable[Network]] = field(default=lambda _: ())
    ledger: Ledger = field(factory=Ledger)
    enforcing: bool = field(default=False, init=False)
    opened: Opened | None = field(default=None, init=False)
    verification: Verification | None = field(default=None, init=False)
    exempt: Exempt = field(factory=Exempt, init=False)
    firewall_error: str = field(default="", init=False)
    counts: EnforcerCounts = field(factory=EnforcerCounts, init=False)
    comparison: int = field(default=0, init=False)
    """The number of the latest comparison with the kernel."""
    recently_unbanned: set[int] = field(factory=set, init=False)
    """Bans that were removed from the kernel since the latest comparison began."""
    filler: Filler = field(init=False)
    _pending: dict[int, Ban] = field(factory=dict, init=False)
    _failed_unbans: set[int] = field(factory=set, init=False)
    _offset: float | None = field(default=None, init=False)
    _giving_way: GivingWay = field(factory=GivingWay, init=False)
    _log: structlog.stdlib.BoundLogger = field(factory=structlog.get_logger, init=False)

    @filler.default
    def _its_filler(self) -> Filler:
        return Filler(self._filling, partial(setattr, self, "firewall_error"))

    def _filling(self, target: NetworkList) -> tuple[Iterable[Network], Callable[[Iterable[Network]], Steps]]:
        return self.list_contents(target), partial(self.backend.replace_list_in_steps, target)

    def start(self, *, verified: bool = True) -> None:
        """Put the firewall in place, verify it with a test packet, and reconcile the kernel with the store.

        With ``verified`` false no packet is sent.

        Raise FirewallError (ProbeError if the packet got through).

        Bans that are in the store but not in the kernel are restored (after a reboot). Bans that are in the
        kernel but not in the store are adopted for the time they have left. If enforcement is switched off,
        nothing changes.
        """
        self.detector.banned = self.is_banned
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
        now = self.clock.wall()
        known = (key_of(ban.network, ban.scope) for ban, _ in self.records.running(now))
        found = {key_of(one.network, one.scope): one.timeout for one in listed(self.backend, known)}
        self._offset = now - self.clock.mono()
        follow_clock(self.records, found, self._offset, now)
        inside, missing, put_back = len(found), list[tuple[Ban, AttemptCounts]](), 0
        for ban, made in self.records.running(now):
            key = key_of(ban.network, ban.scope)
            left = found.pop(key, None)
            if left is not None:
                self._add_to_ledger(key, ban, made, now, left)
                continue
            missing.append((ban, made))
            if len(missing) >= CHUNK:
                put_back += self._restore_missing(missing)
                missing.clear()
        put_back += self._restore_missing(missing)
        self._finish_unbans(found, now)
        self.adopt(found)
        self._log.info("bans.restored", kept=inside - len(found), put_back=put_back, adopted=len(found))

    def _finish_unbans(self, found: dict[int, float], began: float) -> None:
        """Remove the bans whose unban was recorded, but not carried out when the last daemon ended."""
        ended = self.records.lately_lifted(began) if found else ()
        lifted = unbanned_keys(found, ended, began, self.clock.wall())
        self._apply([Remove(*network_of(key)) for key in lifted])
        for key in lifted:
            del found[key]

    def _restore_missing(self, missing: Sequence[tuple[Ban, AttemptCounts]]) -> int:
        self.place([ban for ban, _ in missing], [made for _, made in missing], record=False)
        return len(missing)

    def adopt(self, found: Mapping[int, float]) -> None:
        """Adopt bans of the kernel that have no record: key to seconds left.

        A ban keeps the time it has. A ban without an end gets one, and a ban of an exempt network is removed.
        """
        now = self.clock.wall()
        endless = [key for key, left in found.items() if not isfinite(left)]
        for start in range(0, len(endless), CHUNK):
            self._apply([add_order(key, ADOPTED_FOR) for key in endless[start : start + CHUNK]])
        bans = []
        for key, timeout in found.items():
            left = timeout if isfinite(timeout) else ADOPTED_FOR
            bans.append(adopted_ban(key, now, left))
            self._add_to_ledger(key, bans[-1], AttemptCounts(), now, left)
        if bans:
            self.records.ban(bans)
        self.unban_with_retry(key for key in found if self.exempt.refusal(network_of(key)[0]) is not None)

    def carry_out(self, decision: Decision) -> None:
        """Carry out a decision of a rule. Never raises: a failure is logged, and tried again.

        The kernel comes first, in 0.3 ms. The database may take longer to count the earlier bans of this
        subject, which lengthen the ban.
        """
        now = self.clock.wall()
        subject, rule, scope = decision.subject, decision.rule, decision.scope
        # A log may be read after a restart: the ban starts at the last attempt, and may be over already.
        age = max(0.0, self.clock.mono() - decision.at)
        seconds, before = decision.seconds or rule.ban_for(0), 0
        outcomes = self._add_for(decision, seconds - age)
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
            self.detector.record_ban(subject, self.clock.mono() + expires - now, scope)
            self._log.warning("ban.not_enforced", address=str(subject), rule=rule.name, why="switched off")
            return
        self._account([ban], outcomes, now)
        if scope is Scope.FULL:
            self._supersede(subject, now)

    def _add_for(self, decision: Decision, seconds: float) -> list[Outcome]:
        """Add a ban with ``seconds`` left to the kernel, if any are left."""
        if not self.enforcing or seconds <= 0.0:
            return []
        return self._apply([Add(decision.subject, seconds, decision.scope)])

    def _supersede(self, subject: Network, now: float) -> None:
        """Remove the narrow bans of a subject that now has a full ban, so that it is listed once."""
        if key_of(subject) not in self.ledger:
            return
        for scope in (Scope.SIP_UDP, Scope.SIP_TCP):
            narrow = key_of(subject, scope)
            if narrow in self.ledger and self._apply([Remove(subject, scope)])[0].error is None:
                self.ledger.pop(narrow)
                self.recently_unbanned.add(narrow)
                self.records.end([(subject, scope)], now)

    def ban(
        self, networks: Sequence[Network], seconds: float, reason: str, *, force: bool = False
    ) -> list[str]:
        """Ban networks for an administrator; return a line for each one that was not banned.

        A ban that the kernel refuses stays pending, like a rule's ban.
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
        return refused + failure_lines(outcome for outcome in self.place(bans) if outcome.error is not None)

    def ban_at(self, key: int) -> Ban | None:
        """Return the ban with that key, active or pending, without its attempts."""
        record = self.ledger.get(key)
        return ban_of(key, record) if record is not None else self._pending.get(key)

    def switch_off(self) -> None:
        """Remove all rules and sets of ringfence from the kernel, until :meth:`switch_on`.

        Errors are raised only at the end: a full database must not keep the bans in place.
        """
        self.enforcing = False
        self.filler.stop()
        try:
            self.backend.flush()
        finally:
            self._forget_all()
            self.records.set_switched_off(True)
        self._log.warning("enforcement.off", fix="ringfence on")

    def switch_on(self) -> None:
        """Enforce again; bans that have time left are restored."""
        self.detector.record_all_unbanned()
        self.records.set_switched_off(False)
        if not self.enforcing:
            self.start()

    def allow(self, exempt: Exempt) -> None:
        """Set the exemptions, and remove the bans of newly exempt networks at once.

        A ban that the kernel does not remove is logged, and its removal is tried again.
        """
        before, self.exempt = self.exempt, exempt
        self.detector.exempt = exempt.never
        if self.enforcing:
            self.fill(NetworkList.ALLOW, NetworkList.FRIENDS)
            self.unban_with_retry(self._newly_exempt(before, exempt))

    def _newly_exempt(self, before: Exempt, after: Exempt) -> set[int]:
        allowed = NetworkSet(after.allowed.networks - before.allowed.networks)
        freed = {key for key in self.keys() if allowed.contains_prefix(*parts_of(key))} if allowed else set()
        for network in after.protected.keys() - before.protected.keys():
            freed.update(key for key in self.overlapping(network) if not self.is_forced(key))
        return freed

    def keys(self) -> list[int]:
        """Return the key of every ban, including the pending ones."""
        return [*self.ledger.keys(), *self._pending]

    def overlapping(self, network: Network) -> list[int]:
        """Return the bans that have an address in common with ``network``."""
        now = self.clock.wall()
        found = [key for key in self._pending if overlap(network_of(key)[0], network)]
        for scope in Scope:
            found += self.ledger.covering(network, scope, now)
            found += self.ledger.within(network, scope)
        return found

    def is_forced(self, key: int) -> bool:
        """Whether an administrator forced a ban."""
        record = self.ledger.get(key) or self._pending.get(key)
        return record is not None and record.forced

    def fill(self, *targets: NetworkList) -> None:
        """Write lists into the kernel. No ban waits for a long list or for one that fails."""
        self.filler.fill(*targets)

    def unban_with_retry(self, keys: Iterable[int]) -> None:
        """Remove bans; a failure is logged once, and tried again."""
        asked = set(keys)
        failed = self.unban(asked)
        left = {key_of(outcome.change.network, outcome.change.scope) for outcome in failed}
        for key in left:  # the kernel must not be asked for these bans again
            self._pending.pop(key, None)
        if left - self._failed_unbans:
            addresses = sorted(str(network_of(key)[0]) for key in left)
            self._log.error("unban.failed", addresses=addresses[:20], error=str(failed[0].error))
        self._failed_unbans = self._failed_unbans - asked | left

    def tick(self) -> None:
        """Do the periodic work, about every second: retry, renew, and drop expired bans."""
        now = self.clock.wall()
        self._set_clock(now)
        over, renew = self.ledger.due(now)
        for key in over:
            self.ledger.pop(key)
        if not self.enforcing:
            return
        if self._failed_unbans:
            self.unban_with_retry(self._failed_unbans)
        for key in [key for key, ban in self._pending.items() if ban.expires <= now]:
            del self._pending[key]
            self.firewall_error = ""  # a ban that is still refused sets it again
        self.place(list(self._pending.values()))
        self.renew(renew)

    def _set_clock(self, now: float) -> None:
        """Follow a change of the wall clock: a ban keeps its duration."""
        offset = now - self.clock.mono()
        step, self._offset = offset - self._offset if self._offset is not None else 0.0, offset
        if abs(step) > CLOCK_STEP:
            self.ledger.shift(step)
            for key, ban in self._pending.items():
                self._pending[key] = evolve(ban, since=ban.since + step, expires=ban.expires + step)
            self.records.clock_moved(offset, step, now)
            self._log.warning("clock.set", seconds=round(step))

    def renew(self, keys: Sequence[int]) -> None:
        """Restart the kernel's timeouts of these bans."""
        now = self.clock.wall()
        records = [(key, record) for key in keys if (record := self.ledger.get(key)) is not None]
        changes = [add_order(key, record.expires - now) for key, record in records]
        for (_, record), outcome in zip(records, self._apply(changes), strict=True):
            if outcome.error is None:
                record.renew_at = renew_at(record.expires, now, outcome.timeout)

    def restore(self, keys: Sequence[int]) -> int:
        """Restore bans that the kernel has lost; return the number that it accepted."""
        now = self.clock.wall()
        bans = []
        for key in keys:
            record = self.ledger.get(key)
            if record is not None and record.expires > now:
                bans.append((key, record))
        changes = [add_order(key, record.expires - now) for key, record in bans]
        taken = 0
        for (key, record), outcome in zip(bans, self._apply(changes), strict=True):
            if outcome.error is not None:
                self.ledger.pop(key)
                self._record_refusal(ban_of(key, record), outcome.error)
                continue
            record.renew_at = renew_at(record.expires, now, outcome.timeout)
            taken += 1
        return taken

    @property
    def pending(self) -> int:
        """The number of bans that the kernel has refused and that are tried again."""
        return len(self._pending)

    def is_banned(self, network: Network, scope: Scope) -> bool:
        """Whether packets of ``network`` are dropped, or are to be, by a ban that covers ``scope``."""
        if key_of(network, scope) in self._pending:
            return True
        covering = self.ledger.covering(network, scope, self.clock.wall())
        friend = self.detector.friends.has(network.network_address)
        return any(not friend or meets_friend(network_of(key)[0], network) for key in covering)

    def require_enforcing(self) -> None:
        """Raise ControlError if enforcement is switched off."""
        if not self.enforcing:
            raise ControlError("enforcement is switched off; switch it on with: ringfence on")

    def place(
        self, bans: Sequence[Ban], made: Sequence[AttemptCounts] | None = None, *, record: bool = True
    ) -> list[Outcome]:
        """Add ``bans`` to the kernel, and record its answers."""
        now = self.clock.wall()
        outcomes = self._apply([Add(ban.network, ban.expires - now, ban.scope) for ban in bans])
        return self._account(bans, outcomes, now, made, record=record)

    def _account(
        self,
        bans: Sequence[Ban],
        outcomes: Sequence[Outcome],
        now: float,
        made: Sequence[AttemptCounts] | None = None,
        *,
        record: bool = True,
    ) -> list[Outcome]:
        taken, final = [], []
        for ban, number, first in zip(
            bans, made or [AttemptCounts.of(ban.attempts) for ban in bans], outcomes, strict=True
        ):
            outcome = self._make_room(ban, first, now) if isinstance(first.error, SetFullError) else first
            final.append(outcome)
            if outcome.error is not None:
                self._record_refusal(ban, outcome.error)
                continue
            key = key_of(ban.network, ban.scope)
            self._pending.pop(key, None)
            self._add_to_ledger(key, ban, number, now, outcome.timeout)
            taken.append(ban)
            if record:
                self.counts.placed += 1
                self._log.warning("ban.placed", **ban_fields(ban))
        if record and taken:
            self.records.ban(taken)
        return final

    def _add_to_ledger(self, key: int, ban: Ban, made: AttemptCounts, now: float, granted: float) -> None:
        again = renew_at(ban.expires, now, granted)
        self.ledger.put(key, Record.of(ban, made, again, self.comparison))

    def _make_room(self, ban: Ban, refused: Outcome, now: float) -> Outcome:
        """Remove the ban with the least time left, if the new one lasts longer, and try again."""
        key = self._giving_way.next(self.ledger, ban)
        if key is None or self.unban([key]):
            return refused
        self.counts.displaced += 1
        return self._apply([Add(ban.network, ban.expires - now, ban.scope)])[0]

    def _record_refusal(self, ban: Ban, error: FirewallError) -> None:
        key = key_of(ban.network, ban.scope)
        if key not in self._pending:
            self.counts.failed += 1
            self._log.error("ban.failed", error=str(error), **ban_fields(ban))
            if len(self._pending) >= MOST_PENDING:
                # The subject is counted from zero again, and banned again if it continues.
                self.detector.record_unban(ban.network)
                return
        self._pending[key] = ban

    def _apply(self, changes: Sequence[Change]) -> list[Outcome]:
        if not changes:
            return []
        try:
            outcomes = self.backend.apply(changes)
        except FirewallError as error:
            outcomes = [Outcome(change, error=error) for change in changes]
        errors = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
        if errors:
            self.firewall_error = errors[0]
        elif not self.filler.unfilled and self._pending.keys() <= keys_of(changes if self._pending else ()):
            self.firewall_error = ""
        return outcomes

    def unban(self, keys: Iterable[int], *, recorded: float = 0.0) -> list[Outcome]:
        """Remove bans from the store, the kernel and the ledger; return what the kernel refused.

        ``recorded`` is the time of the removal if the store has recorded it already.
        """
        bans, when = [network_of(key) for key in dict.fromkeys(keys)], recorded or self.clock.wall()
        if bans and not recorded:
            self.records.end(bans, when)
        lifted, failed = [], []
        for outcome in self._apply([Remove(*ban) for ban in bans]):
            network, scope = outcome.change.network, outcome.change.scope
            if outcome.error is not None:
                failed.append(outcome)
                continue
            key = key_of(network, scope)
            self.ledger.pop(key)
            self._pending.pop(key, None)
            self.recently_unbanned.add(key)
            self.detector.record_unban(network)
            lifted.append((network, scope))
        if failed:
            self.records.resume([(out.change.network, out.change.scope) for out in failed], when)
        if lifted:
            self.counts.unbanned += len(lifted)
            addresses = [str(network) for network, _ in lifted[:20]]
            self._log.info("ban.removed", addresses=addresses, number=len(lifted))
        return failed

    def _forget_all(self) -> None:
        for ban in self._pending.values():
            self.detector.record_unban(ban.network)
        self.ledger.clear()
        self._pending.clear()
        self._failed_unbans.clear()
        self._giving_way.clear()
        self.firewall_error = ""
