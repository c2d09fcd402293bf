"""What the list says is what the kernel does: the firewall watched, compared with our account, and healed.

Every second a quick look (``Backend.pulse``, no process, a millisecond): are our rules as we put them, are as
many bans in the sets as there should be? Where the kernel tells of changes by others, the look comes at once.
Every minute, and after every trouble, all of the kernel's bans are read and compared with the account, both
ways:

* what is missing goes back, ``CHUNK`` at a time, so that a new ban waits some milliseconds and not for all;
* whose time in the kernel is shorter or longer than it should be (a clock was set, say) is renewed;
* what is there without us is adopted with the time that it has; what has no end gets one, a day on; what must
  not be banned is let go.
"""

import asyncio
from math import isfinite

import structlog
from attrs import define, frozen

from ringfence.alarms import Alarms
from ringfence.bans.enforce import CHUNK, Enforcer
from ringfence.bans.ledger import key_of
from ringfence.errors import FirewallError, StoreError
from ringfence.firewall.contract import Roll

COMPARE_EVERY = 60.0
SLACK = 5.0  # seconds by which the kernel's time may differ from ours


@frozen
class _Found:
    """What a reading of the kernel found: who is not in the account, and whose time is another."""

    unknown: dict[int, float]
    mistimed: list[int]


@define
class ReconcileCounts:
    """How often the firewall had to be healed, how many bans were put back and how many adopted."""

    healed: int = 0
    restored: int = 0
    adopted: int = 0


class Reconciler:
    """Keeps kernel and account together."""

    def __init__(self, enforcer: Enforcer, alarms: Alarms) -> None:
        self.counts = ReconcileCounts()
        self.trouble = ""
        """What was wrong with the rules last, and was healed."""
        self._elements: int | None = None
        self._missing = 0
        self._broken = False
        self._enforcer = enforcer
        self._alarms = alarms
        self._wanted = asyncio.Event()
        self._log = structlog.get_logger()

    @property
    def expected(self) -> int:
        """How many bans there should be in the kernel now."""
        now = self._enforcer.clock.wall()
        return self._enforcer.ledger.alive(now) + self._enforcer.pending

    @property
    def enforced(self) -> int:
        """How many of them are: by the last look where it counts them, else by the last comparison.

        0, while the rules are not as they should be and cannot be healed.
        """
        if not self._enforcer.enforcing or self._broken:
            return 0
        alive = self._enforcer.ledger.alive(self._enforcer.clock.wall())
        return min(alive, self._elements) if self._elements is not None else alive - self._missing

    def look(self) -> None:
        """Look quickly, and heal the rules where something is amiss; what is missing then follows at once."""
        enforcer = self._enforcer
        if not enforcer.enforcing:
            return
        try:
            pulse = enforcer.backend.pulse()
            self._broken = pulse.trouble is not None
            if pulse.trouble is not None:
                self._heal(pulse.trouble)
                self._broken = False
        except (FirewallError, StoreError) as error:
            self._alarms.sound("firewall", "rules", f"the firewall cannot be looked after: {error}")
            return
        self._alarms.over("firewall", "rules")
        self._elements = pulse.elements
        if pulse.elements is not None:
            alive = enforcer.ledger.alive(enforcer.clock.wall())
            lost = alive - enforcer.ledger.unsure - pulse.elements
            if lost > 0:
                self._log.error("bans.missing", number=lost)
                self._wanted.set()
        if pulse.trouble is not None or pulse.changed:
            self._wanted.set()

    def _heal(self, trouble: str) -> None:
        enforcer = self._enforcer
        if enforcer.records.switched_off:
            enforcer.switch_off()  # by somebody who could not ask us
            return
        enforcer.opened = enforcer.backend.open()
        enforcer.fill(*Roll)
        self.counts.healed += 1
        self.trouble = trouble
        self._log.error("firewall.healed", trouble=trouble)

    async def run(self) -> None:
        """Compare every minute and when something was amiss, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(COMPARE_EVERY):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                await self.compare()
            except FirewallError as error:
                self._alarms.sound(
                    "firewall", "bans", f"the bans cannot be compared with the kernel: {error}"
                )
            else:
                self._alarms.over("firewall", "bans")

    async def compare(self) -> None:
        """Read all that the kernel has, and bring it and the account together."""
        enforcer = self._enforcer
        if not enforcer.enforcing:
            return
        enforcer.look += 1
        enforcer.lifted_lately.clear()
        enforcer.fill(*sorted(enforcer.unfilled))
        began = enforcer.clock.wall()
        found = await asyncio.to_thread(self._read, enforcer.look, began)
        await self._mend(found, began)

    async def _mend(self, found: _Found, began: float) -> None:
        enforcer = self._enforcer
        if not enforcer.enforcing:  # switched off meanwhile
            return
        unknown = {key: left for key, left in found.unknown.items() if left > SLACK}
        missing = [
            key
            for key, record in enforcer.ledger.items()
            if record.seen != enforcer.look and record.expires > began + SLACK
        ]
        self._missing = len(missing)
        for start in range(0, len(unknown), CHUNK):
            part = {key: unknown[key] for key in list(unknown)[start : start + CHUNK]}
            self._adopt(part)
            await asyncio.sleep(0)
        for start in range(0, len(missing), CHUNK):
            self.counts.restored += enforcer.restore(missing[start : start + CHUNK])
            self._missing = max(0, self._missing - CHUNK)  # what was refused is pending now
            await asyncio.sleep(0)
        for start in range(0, len(found.mistimed), CHUNK):
            enforcer.renew(found.mistimed[start : start + CHUNK])
            await asyncio.sleep(0)
        if missing or unknown:
            self._log.warning("bans.reconciled", put_back=len(missing), adopted=len(unknown))

    def _adopt(self, found: dict[int, float]) -> None:
        """Adopt who is still unknown, and was not let in meanwhile."""
        enforcer = self._enforcer
        left = {
            key: seconds
            for key, seconds in found.items()
            if enforcer.enforcing and key not in enforcer.lifted_lately and key not in enforcer.ledger
        }
        if left:
            enforcer.adopt(left)
            self.counts.adopted += len(left)

    def _read(self, look: int, now: float) -> _Found:
        """Mark who is in the kernel. In a thread: it only touches marks, and sizes nothing."""
        enforcer = self._enforcer
        unknown, mistimed = {}, []
        for element in enforcer.backend.list():
            key = key_of(element.network, element.scope)
            record = enforcer.ledger.get(key)
            if record is None:
                unknown[key] = element.timeout
                continue
            record.seen = look
            early = record.expires - now - element.timeout  # an element without an end ends late
            if early < -SLACK or (early > SLACK and not isfinite(record.renew_at)):
                mistimed.append(key)
        return _Found(unknown, mistimed)
