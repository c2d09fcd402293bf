"""Watches the firewall, compares it with the ledger, and repairs differences.

A quick check is made every second (``Backend.health``; it starts no process and takes two milliseconds). It
checks whether the rules are unchanged, and whether the sets have the right number of bans. If the kernel
reports a change by another program, this check is made at once. It reports no changes of iptables-legacy, so
there the rules alone are also checked five times a second (``Backend.rules_differ``, 0.1 milliseconds). Every
minute, and after damage, all bans of the kernel are read and compared with the ledger:

* Bans that the kernel lacks are restored, ``book.CHUNK`` at a time, so that a new ban waits only some
  milliseconds.
* Bans with a wrong timeout in the kernel (because a clock was set, for example) are renewed.
* Bans that the ledger lacks are adopted with their timeout. If they have no end, they end a day later. Bans
  of exempt networks are removed. Until the recorded bans are read, none is adopted.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from math import inf, isfinite

import structlog
from attrs import define, frozen

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.book import in_parts
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.listing import listed
from ringfence.errors import FirewallError, StoreError
from ringfence.firewall import network_lists
from ringfence.ledger import key_of

COMPARE_EVERY = 60.0
LOOKED_UP = 2_000
"""The maximum number of bans that are looked up one by one, if the kernel's listing lacks them.

If it lacks more, they are restored without a look-up.
"""
APART = 5.0
"""Minimum seconds between two comparisons of the kernel's bans with the recorded ones, if none is damaged."""
SOONEST = 0.5
"""Minimum seconds between two comparisons of the kernel's bans with the recorded ones after damage."""
SLACK = 5.0  # seconds by which the kernel's timeout of a ban may differ from the time that the ban has left


@frozen
class _Found:
    """The differences between the kernel's bans and the recorded ones.

    ``unknown`` has the keys of bans without a record, each with the seconds left. ``mistimed`` are the keys
    of bans with a wrong timeout, and ``missing`` those of bans that the kernel lacks.
    """

    unknown: dict[int, float]
    mistimed: list[int]
    missing: list[int]


@define
class ReconcileCounts:
    """How often the firewall was repaired, and how many bans were restored and adopted."""

    repaired: int = 0
    restored: int = 0
    adopted: int = 0


class Reconciler:
    """Keeps the kernel's bans and rules as the ledger has them: finds differences and repairs them."""

    def __init__(self, enforcer: Enforcer, alarms: Alarms) -> None:
        self.counts = ReconcileCounts()
        self.last_damage = ""
        """The latest damage to the rules that was repaired."""
        self._elements: int | None = None
        self._missing = 0
        self._broken = False
        self._suspects_lists = False
        self._filled = -inf  # when the lists were written again (monotonic seconds)
        self._enforcer = enforcer
        self._ledger = enforcer.ledger
        self._alarms = alarms
        self._wanted = asyncio.Event()
        self._damaged = asyncio.Event()
        self._log = structlog.get_logger()

    @property
    def expected(self) -> int:
        """The number of bans that should be in the kernel now, including those that it has refused so far."""
        now = self._enforcer.clock.wall()
        return self._ledger.alive(now) + len(self._ledger.pending)

    @property
    def enforced(self) -> int:
        """The number of bans in the kernel, by the latest check or comparison that counted them.

        The number is 0 while the rules are damaged and cannot be repaired.
        """
        if not self._enforcer.enforcing or self._broken:
            return 0
        alive = self._ledger.alive(self._enforcer.clock.wall())
        return min(alive, self._elements) if self._elements is not None else alive - self._missing

    def check_rules(self) -> None:
        """Check the kernel's rules, but not the bans; if the rules differ, call :meth:`check`.

        If the last :meth:`check` could not repair the rules, do nothing. A repair starts processes, so it is
        tried again only by the regular :meth:`check`, once a second.
        """
        if self._enforcer.enforcing and not self._broken:
            with suppress(FirewallError):  # the next check reports it
                if not self._enforcer.backend.rules_differ():
                    return
                self.check()

    def check(self) -> None:
        """Check the kernel quickly, and repair damaged rules; missing bans are left to :meth:`run`."""
        enforcer = self._enforcer
        if not enforcer.enforcing:
            return
        try:
            health = enforcer.backend.health()
            self._broken = health.damage is not None
            if health.damage is not None:
                self._repair(health.damage)
                self._broken = False
        except (FirewallError, StoreError) as error:
            self._alarms.activate(AlarmCode.FIREWALL_DAMAGED, "", f"the firewall cannot be checked: {error}")
            return
        self._alarms.clear(AlarmCode.FIREWALL_DAMAGED, "")
        self._elements = health.elements
        if health.elements is None and health.changed:  # no number shows whether a list was emptied
            self._suspects_lists = True
        self._fill_lists()
        if health.elements is not None:
            alive = self._ledger.alive(enforcer.now())
            lost = alive - self._ledger.uncertainty - health.elements
            if lost > 0:
                self._log.error("bans.missing", number=lost)
                self._damaged.set()
        if health.damage is not None:
            self._damaged.set()
        if health.changed or self._damaged.is_set():
            self._wanted.set()

    def _fill_lists(self) -> None:
        """Write the lists again if another program may have emptied them, at most once in COMPARE_EVERY.

        The lists keep their state as complete: otherwise the fence would only observe meanwhile.
        """
        now, enforcer = self._enforcer.clock.mono(), self._enforcer
        waits = now - self._filled < COMPARE_EVERY or enforcer.filler.filling
        if self._suspects_lists and enforcer.enforcing and not waits:
            self._suspects_lists, self._filled = False, now
            enforcer.filler.fill(*network_lists.every())

    def _repair(self, damage: str) -> None:
        enforcer = self._enforcer
        if enforcer.reopen(damaged=True) is None:  # `ringfence off` removed the rules: this is no damage
            return
        self.counts.repaired += 1
        self.last_damage = damage
        self._log.error("firewall.repaired", damage=damage)

    async def run(self) -> None:
        """Compare the kernel with the ledger every minute and after damage, until cancelled.

        After damage to rules or bans, the comparison begins at once, unless the last one ended just before:
        the pause is at least ``SOONEST`` seconds, and four times as long as the last comparison took. After
        other changes, the pause is at least ``APART`` seconds, because each comparison reads all bans.
        """
        mono = self._enforcer.clock.mono
        last, took = -inf, 0.0
        while True:
            await _within(COMPARE_EVERY, self._wanted)
            if self._wanted.is_set():
                await _within(last + APART - mono(), self._damaged)
                await asyncio.sleep(max(0.0, last + max(SOONEST, 4 * took) - mono()))
            self._wanted.clear()
            self._damaged.clear()
            began = mono()
            try:
                await self.compare()
            except FirewallError as error:
                text = f"the bans cannot be compared with the kernel: {error}"
                self._alarms.activate(AlarmCode.FIREWALL_NOT_COMPARED, "", text)
            else:
                self._alarms.clear(AlarmCode.FIREWALL_NOT_COMPARED, "")
            last = mono()
            took = last - began

    async def compare(self) -> None:
        """Read all bans of the kernel, and reconcile them with the ledger."""
        enforcer = self._enforcer
        if not enforcer.enforcing:
            return
        look = enforcer.book.begin_comparison()
        began = enforcer.now()
        known = [*self._ledger.keys()]
        found = await asyncio.to_thread(self._read, known, look, began)
        await self._apply_differences(found)

    async def _apply_differences(self, found: _Found) -> None:
        enforcer, missing = self._enforcer, found.missing
        if not enforcer.enforcing:  # enforcement was switched off during the comparison
            return
        lasting = {key: left for key, left in found.unknown.items() if left > SLACK}
        unknown = lasting if enforcer.knows_bans else {}
        self._missing, before = len(missing), self.counts.restored
        for part in in_parts([*unknown]):
            self._adopt({key: unknown[key] for key in part})
            await asyncio.sleep(0)
        for part in in_parts(missing):
            accepted = enforcer.apply(enforcer.book.restore(part, enforcer.now()))
            self.counts.restored += accepted
            # A refused ban is missing if it is still in the ledger. Otherwise it is pending.
            self._missing += sum(key in self._ledger for key in part) - accepted - len(part)
            await asyncio.sleep(0)
        for part in in_parts(found.mistimed):
            enforcer.apply(enforcer.book.renew(part, enforcer.now()))
            await asyncio.sleep(0)
        if missing or unknown:
            self._log.warning("bans.reconciled", put_back=self.counts.restored - before, adopted=len(unknown))

    def _adopt(self, found: dict[int, float]) -> None:
        """Adopt bans that were found in the kernel, except those recorded or unbanned meanwhile.

        ``found`` has the bans' keys, each with the seconds left. A pending ban is not adopted: the kernel may
        have added it although its answer was an error or was lost. The next retry records it.
        """
        enforcer, book = self._enforcer, self._enforcer.book
        if not enforcer.knows_bans:  # enforcement was switched off between two parts
            return
        left = {
            key: seconds
            for key, seconds in found.items()
            if not self._ledger.knows(key) and not book.was_unbanned(key)
        }
        if left:
            enforcer.apply(enforcer.book.adopt(left, enforcer.now()))
            self.counts.adopted += len(left)

    def _read(self, known: Sequence[int], look: int, now: float) -> _Found:
        """Read the kernel's bans, and return the differences from the bans ``known``.

        ``look`` is the number of this comparison. Each record whose ban is found is marked with it. This may
        run in a thread, because it changes nothing but these marks, and goes through no collection that
        may change meanwhile.
        """
        unknown, mistimed = {}, []
        for element in listed(self._enforcer.backend, known, LOOKED_UP):
            key = key_of(element.network, element.scope)
            record = self._ledger.get(key)
            if record is None:
                unknown[key] = element.timeout
                continue
            record.seen = look
            early = record.expires - now - element.timeout  # minus infinity if the element has no end
            if early < -SLACK or (early > SLACK and not isfinite(record.renew_at)):
                mistimed.append(key)
        missing = [
            key
            for key in known
            if (record := self._ledger.get(key)) is not None
            and record.seen != look
            and record.expires > now + SLACK
        ]
        return _Found(unknown, mistimed, missing)


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for ``event``, at most ``seconds``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
