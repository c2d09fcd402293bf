"""From decisions to bans in the kernel, and the account of them: what is out, until when, and why.

A ban is recorded when the kernel has acknowledged it, and not before. One that the kernel refused is said
loudly, kept as *pending* and tried again until it succeeds or its time is over; its subject counts as held
meanwhile, so that a firewall that is gone does not fill the log. Where a set is full, the bans with the least
time left give way. A ban longer than the backend can time is renewed while it runs. With enforcement switched
off everything is seen and nothing is done.

All of it is synchronous and called from one event loop: a ban is one netlink exchange away from the event
that caused it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite

import structlog
from attrs import define, evolve, field

from ringfence.bans.exempt import Exempt, overlap
from ringfence.bans.ledger import (
    Counts,
    Ledger,
    Record,
    ban_of,
    key_of,
    network_of,
    parts_of,
    renew_at,
)
from ringfence.bans.orders import described, in_order, keys_of, lines
from ringfence.bans.records import Records
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.judge import Decision
from ringfence.detect.networks import NetworkSet
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.errors import ControlError, FirewallError, SetFullError
from ringfence.firewall.contract import Add, Backend, Change, Opened, Outcome, Remove, Roll
from ringfence.firewall.probe import Verification, verify
from ringfence.model import Ban, Made, Network, Origin, Scope

MOST_PENDING = 1_000
"""So many bans that the kernel refused are asked for again."""

CLOCK_STEP = 5.0
"""The wall clock was set, or the host slept, where it goes so many seconds from the other one."""

ADOPTED_FOR = 86_400.0
"""What somebody else put into a set without an end is given one, so many seconds on: all that bans ends."""

CHUNK = 2_000
"""So many bans go to the kernel in one call, some ten milliseconds."""

_GIVE_WAY = 256  # who gives way is looked for among all bans, so for as many new ones at once


@define
class Enforcer:
    """Owns the bans. Needs :meth:`start` before anything else.

    ``rolls`` gives what is to be on a roll, whenever it has to be written.
    """

    backend: Backend
    records: Records
    detector: Detector
    clock: Clock = field(factory=Clock)
    rolls: Callable[[Roll], Iterable[Network]] = field(default=lambda _: ())
    enforcing: bool = field(default=False, init=False)
    opened: Opened | None = field(default=None, init=False)
    verification: Verification | None = field(default=None, init=False)
    exempt: Exempt = field(factory=Exempt, init=False)
    firewall_error: str = field(default="", init=False)
    counts: Counts = field(factory=Counts, init=False)
    ledger: Ledger = field(factory=Ledger, init=False)
    look: int = field(default=0, init=False)
    """The number of the last comparison with the kernel."""
    lifted_lately: set[int] = field(factory=set, init=False)
    """Whom the kernel let go since the last comparison began."""
    unfilled: set[Roll] = field(factory=set, init=False)
    """What could not be written, and is to be tried again."""
    _pending: dict[int, Ban] = field(factory=dict, init=False)
    _unfreed: set[int] = field(factory=set, init=False)
    _seen_only: set[Network] = field(factory=set, init=False)
    _offset: float | None = field(default=None, init=False)
    _giving_way: dict[tuple[int, int, Scope], list[int]] = field(factory=dict, init=False)
    _log: structlog.stdlib.BoundLogger = field(factory=structlog.get_logger, init=False)

    def start(self, *, verified: bool = True) -> None:
        """Put the firewall in place, see with a test packet that it works, bring kernel and store together.

        With ``verified`` false no packet is sent.

        Raises FirewallError (ProbeError where the packet got through).

        What runs in the store and not in the kernel goes back (a reboot); what is in the kernel and not in
        the store is adopted for the time it has left. Switched off, nothing is touched.
        """
        self.detector.banned = self.holds
        if self.records.switched_off:
            self._log.warning("enforcement.off", mend="ringfence on")
            return
        self.opened = self.backend.open()
        self.fill(*Roll)
        if verified:
            self.verification = verify(self.backend, self.opened.families)
        self.enforcing = True
        now = self.clock.wall()
        self._set_clock(now)
        found = {key_of(element.network, element.scope): element.timeout for element in self.backend.list()}
        inside, missing, put_back = len(found), list[tuple[Ban, Made]](), 0
        for ban, made in self.records.running(now):
            key = key_of(ban.network, ban.scope)
            left = found.pop(key, None)
            if left is not None:
                self._enter(key, ban, made, now, left)
                continue
            missing.append((ban, made))
            if len(missing) >= CHUNK:
                put_back += self._put_back(missing)
                missing.clear()
        put_back += self._put_back(missing)
        self._let_go(found, now)
        self.adopt(found)
        self._log.info("bans.restored", kept=inside - len(found), put_back=put_back, adopted=len(found))

    def _let_go(self, found: dict[int, float], now: float) -> None:
        """Lift what was to be lifted when the last daemon ended, instead of adopting it."""
        lifted = {key_of(*ban) for ban in self.records.lately_lifted(now)} & found.keys() if found else set()
        self._apply([Remove(*network_of(key)) for key in lifted])
        for key in lifted:
            del found[key]

    def _put_back(self, missing: Sequence[tuple[Ban, Made]]) -> int:
        self.place([ban for ban, _ in missing], [made for _, made in missing], record=False)
        return len(missing)

    def adopt(self, found: Mapping[int, float]) -> None:
        """Take over what the kernel has and nobody knows: key to seconds left.

        It keeps the time it has; what has no end gets one, and what must not be banned is let go.
        """
        now = self.clock.wall()
        endless = [key for key, left in found.items() if not isfinite(left)]
        for start in range(0, len(endless), CHUNK):
            self._apply([in_order(key, ADOPTED_FOR) for key in endless[start : start + CHUNK]])
        bans = []
        for key, timeout in found.items():
            network, scope = network_of(key)
            left = timeout if isfinite(timeout) else ADOPTED_FOR
            rule, why = str(Origin.ADOPTED), "found in the kernel"
            bans.append(Ban(network, now, now + left, rule, why, Origin.ADOPTED, scope=scope))
            self._enter(key, bans[-1], Made(), now, left)
        if bans:
            self.records.ban(bans)
        self.free(key for key in found if self.exempt.refusal(network_of(key)[0]) is not None)

    def carry_out(self, decision: Decision) -> None:
        """Ban what a rule decided on. Never raises: what fails is said, and tried again.

        The kernel comes first: a guess takes 0.3 ms, and the database may take longer to say that this
        sender has been here before and earns a longer ban.
        """
        now = self.clock.wall()
        subject, rule, scope = decision.subject, decision.rule, decision.scope
        seconds, before = decision.seconds or rule.ban_for(0), 0
        outcomes = self._apply([Add(subject, seconds, scope)]) if self.enforcing else []
        if decision.seconds is None:
            before = self.records.offences(subject, now - RETURN_WITHIN)
            if rule.ban_for(before) != seconds:
                seconds = rule.ban_for(before)
                if outcomes and outcomes[0].error is None:
                    outcomes = self._apply([Add(subject, seconds, scope)])
        expires = now + seconds
        made, origin = decision.attempts, Origin.RULE
        ban = Ban(subject, now, expires, rule.name, rule.meaning, origin, made, scope, before + 1)
        if not self.enforcing:
            self._seen_only.add(subject)
            self.detector.hold(subject, self.clock.mono() + expires - now, scope)
            self._log.warning("ban.not_enforced", address=str(subject), rule=rule.name, why="switched off")
            return
        self._account([ban], outcomes, now)
        if scope is Scope.FULL:
            self._supersede(subject, now)

    def _supersede(self, subject: Network, now: float) -> None:
        """End the narrow ban of who is banned in full now: one ban is what there is to be told."""
        narrow, full = (key_of(subject, scope) for scope in (Scope.SIP_UDP, Scope.FULL))
        if full not in self.ledger or narrow not in self.ledger:
            return
        if self._apply([Remove(subject, Scope.SIP_UDP)])[0].error is None:
            self.ledger.pop(narrow)
            self.lifted_lately.add(narrow)
            self.records.end([(subject, Scope.SIP_UDP)], now, wait=False)

    def ban(
        self, networks: Sequence[Network], seconds: float, reason: str, *, force: bool = False
    ) -> list[str]:
        """Ban by an administrator's word; give what could not be done, a line each.

        What the kernel refused stays pending, as a rule's ban does.
        """
        self.must_enforce()
        now = self.clock.wall()
        refused, bans = [], []
        for network in networks:
            why = self.exempt.refusal(network, force=force)
            if why is not None:
                refused.append(f"{network}: {why}")
                continue
            rule = str(Origin.ADMIN)
            bans.append(Ban(network, now, now + seconds, rule, reason, Origin.ADMIN, forced=force))
        return refused + lines(outcome for outcome in self.place(bans) if outcome.error is not None)

    def ban_at(self, key: int) -> Ban | None:
        """Give the ban of that key, running or pending, without its attempts."""
        record = self.ledger.get(key)
        return ban_of(key, record) if record is not None else self._pending.get(key)

    def switch_off(self) -> None:
        """Take every rule and set of ours out of the kernel, until :meth:`switch_on`.

        What fails of it raises in the end: a database that is full must not keep the bans in place.
        """
        self.enforcing = False
        try:
            self.backend.flush()
        finally:
            self._forget_all()
            self.records.store.switched_off = True
        self._log.warning("enforcement.off", mend="ringfence on")

    def switch_on(self) -> None:
        """Enforce again; bans that were running and have time left come back."""
        for network in self._seen_only:
            self.detector.release(network)
        self._seen_only.clear()
        self.records.store.switched_off = False
        if not self.enforcing:
            self.start()

    def allow(self, exempt: Exempt) -> None:
        """Take who is not banned, and lift at once the bans of whom it was not so before.

        What the kernel refuses to let go is said, and tried again.
        """
        before, self.exempt = self.exempt, exempt
        self.detector.never = exempt.never
        if self.enforcing:
            self.fill(Roll.ALLOW, Roll.FRIENDS)
            self.free(self._freed(before, exempt))

    def _freed(self, before: Exempt, after: Exempt) -> set[int]:
        allowed = NetworkSet(after.allowed.networks - before.allowed.networks)
        freed = {key for key in self.keys() if allowed.contains_prefix(*parts_of(key))} if allowed else set()
        for network in after.protected.keys() - before.protected.keys():
            freed.update(key for key in self.touching(network) if not self.is_forced(key))
        return freed

    def keys(self) -> list[int]:
        """Give the key of every ban, those that the kernel refused so far too."""
        return [*self.ledger.keys(), *self._pending]

    def touching(self, network: Network) -> list[int]:
        """Give the bans that have an address in common with ``network``."""
        now = self.clock.wall()
        found = [key for key in self._pending if overlap(network_of(key)[0], network)]
        for scope in Scope:
            found += self.ledger.covering(network, scope, now)
            found += self.ledger.within(network, scope)
        return found

    def is_forced(self, key: int) -> bool:
        """Say whether an administrator insisted on a ban."""
        record = self.ledger.get(key) or self._pending.get(key)
        return record is not None and record.forced

    def fill(self, *rolls: Roll) -> None:
        """Write rolls into the kernel; a failure is said, shown and :attr:`unfilled`; no ban waits for it."""
        for roll in rolls:
            try:
                self.backend.fill(roll, self.rolls(roll))
            except FirewallError as error:
                self.firewall_error = str(error)
                if roll not in self.unfilled:
                    self._log.error("lists.failed", list=str(roll), error=str(error))
                self.unfilled.add(roll)
            else:
                self.unfilled.discard(roll)

    def free(self, keys: Iterable[int]) -> None:
        """Lift bans; what the kernel does not let go is said once, and tried again."""
        asked = set(keys)
        failed = self.lift(asked)
        left = {key_of(outcome.change.network, outcome.change.scope) for outcome in failed}
        for key in left:  # never to be asked for again, whether or not the kernel has it
            self._pending.pop(key, None)
        if left - self._unfreed:
            addresses = sorted(str(network_of(key)[0]) for key in left)
            self._log.error("unban.failed", addresses=addresses[:20], error=str(failed[0].error))
        self._unfreed = self._unfreed - asked | left

    def tend(self) -> None:
        """Do what time asks for, every second or so: retry, renew, forget what has run out."""
        now = self.clock.wall()
        self._set_clock(now)
        over, renew = self.ledger.due(now)
        for key in over:
            self.ledger.pop(key)
        if not self.enforcing:
            return
        if self._unfreed:
            self.free(self._unfreed)
        for key in [key for key, ban in self._pending.items() if ban.expires <= now]:
            del self._pending[key]
            self.firewall_error = ""  # said again by whatever is refused still
        self.place(list(self._pending.values()))
        self.renew(renew)

    def _set_clock(self, now: float) -> None:
        """Follow the wall clock where it was set: a ban lasts as long as it was meant to."""
        offset = now - self.clock.mono()
        step, self._offset = offset - self._offset if self._offset is not None else 0.0, offset
        if abs(step) > CLOCK_STEP:
            self.ledger.shift(step)
            for key, ban in self._pending.items():
                self._pending[key] = evolve(ban, since=ban.since + step, expires=ban.expires + step)
            self._log.warning("clock.set", seconds=round(step))

    def renew(self, keys: Sequence[int]) -> None:
        """Have the kernel count anew how long these bans last."""
        now = self.clock.wall()
        records = [(key, record) for key in keys if (record := self.ledger.get(key)) is not None]
        changes = [in_order(key, record.expires - now) for key, record in records]
        for (_, record), outcome in zip(records, self._apply(changes), strict=True):
            if outcome.error is None:
                record.renew_at = renew_at(record.expires, now, outcome.timeout)

    def restore(self, keys: Sequence[int]) -> int:
        """Put bans back that the kernel has lost; give how many it took."""
        now = self.clock.wall()
        bans = []
        for key in keys:
            record = self.ledger.get(key)
            if record is not None and record.expires > now:
                bans.append((key, record))
        changes = [in_order(key, record.expires - now) for key, record in bans]
        taken = 0
        for (key, record), outcome in zip(bans, self._apply(changes), strict=True):
            if outcome.error is not None:
                self.ledger.pop(key)
                self._refused(ban_of(key, record), outcome.error)
                continue
            record.renew_at = renew_at(record.expires, now, outcome.timeout)
            taken += 1
        return taken

    @property
    def pending(self) -> int:
        """How many bans the kernel has refused so far and will be asked for again."""
        return len(self._pending)

    def holds(self, network: Network, scope: Scope) -> bool:
        """Say whether what a ban of ``scope`` covers is dropped of ``network``, or is to be."""
        if key_of(network, scope) in self._pending:
            return True
        return bool(self.ledger.covering(network, scope, self.clock.wall()))

    def must_enforce(self) -> None:
        """Raise ControlError where enforcement is switched off."""
        if not self.enforcing:
            raise ControlError("enforcement is switched off; switch it on with: ringfence on")

    def place(
        self, bans: Sequence[Ban], made: Sequence[Made] | None = None, *, record: bool = True
    ) -> list[Outcome]:
        """Ask the kernel for ``bans``, and keep account of what it answered."""
        now = self.clock.wall()
        outcomes = self._apply([Add(ban.network, ban.expires - now, ban.scope) for ban in bans])
        return self._account(bans, outcomes, now, made, record=record)

    def _account(
        self,
        bans: Sequence[Ban],
        outcomes: Sequence[Outcome],
        now: float,
        made: Sequence[Made] | None = None,
        *,
        record: bool = True,
    ) -> list[Outcome]:
        taken, final = [], []
        for ban, number, first in zip(
            bans, made or [Made.by(ban.attempts) for ban in bans], outcomes, strict=True
        ):
            outcome = self._make_room(ban, first, now) if isinstance(first.error, SetFullError) else first
            final.append(outcome)
            if outcome.error is not None:
                self._refused(ban, outcome.error)
                continue
            key = key_of(ban.network, ban.scope)
            self._pending.pop(key, None)
            self._enter(key, ban, number, now, outcome.timeout)
            taken.append(ban)
            if record:
                self.counts.placed += 1
                self._log.warning("ban.placed", **described(ban))
        if record and taken:
            self.records.ban(taken)
        return final

    def _enter(self, key: int, ban: Ban, made: Made, now: float, granted: float) -> None:
        again = renew_at(ban.expires, now, granted)
        self.ledger.put(key, Record.of(ban, made, again, self.look))

    def _make_room(self, ban: Ban, refused: Outcome, now: float) -> Outcome:
        """Have the ban with the least time left give way, if that is less than the new one's."""
        like = (ban.network.version, ban.network.prefixlen, ban.scope)
        waiting = self._giving_way.get(like)
        if not waiting:
            waiting = self._giving_way[like] = self.ledger.soonest(ban.network, ban.scope, _GIVE_WAY)[::-1]
        while waiting:
            record = self.ledger.get(waiting[-1])
            if record is not None and record.expires >= ban.expires:  # he stays the first in line
                break
            key = waiting.pop()
            if record is None:
                continue
            if self.lift([key], wait=False):
                break
            self.counts.gave_way += 1
            return self._apply([Add(ban.network, ban.expires - now, ban.scope)])[0]
        return refused

    def _refused(self, ban: Ban, error: FirewallError) -> None:
        key = key_of(ban.network, ban.scope)
        if key not in self._pending:
            self.counts.failed += 1
            self._log.error("ban.failed", error=str(error), **described(ban))
            if len(self._pending) >= MOST_PENDING:
                # Counted anew from nothing, and so asked for again if he goes on.
                self.detector.release(ban.network)
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
        elif not self.unfilled and self._pending.keys() <= keys_of(changes if self._pending else ()):
            self.firewall_error = ""
        return outcomes

    def lift(self, keys: Iterable[int], *, wait: bool = True) -> list[Outcome]:
        """Take bans out of the records, the kernel, and then the account; give what the kernel refused.

        ``wait`` as :meth:`Records.end` has it.
        """
        bans, when = [network_of(key) for key in dict.fromkeys(keys)], self.clock.wall()
        if bans:
            self.records.end(bans, when, wait=wait)
        lifted, failed = [], []
        for outcome in self._apply([Remove(*ban) for ban in bans]):
            network, scope = outcome.change.network, outcome.change.scope
            if outcome.error is not None:
                failed.append(outcome)
                continue
            key = key_of(network, scope)
            self.ledger.pop(key)
            self._pending.pop(key, None)
            self.lifted_lately.add(key)
            self.detector.release(network)
            lifted.append((network, scope))
        if failed:
            self.records.resume([(out.change.network, out.change.scope) for out in failed], when)
        if lifted:
            self.counts.lifted += len(lifted)
            addresses = [str(network) for network, _ in lifted[:20]]
            self._log.info("ban.lifted", addresses=addresses, number=len(lifted))
        return failed

    def _forget_all(self) -> None:
        for ban in self._pending.values():
            self.detector.release(ban.network)
        self.ledger.clear()
        self._pending.clear()
        self._unfreed.clear()
        self._giving_way.clear()
        self.firewall_error = ""
