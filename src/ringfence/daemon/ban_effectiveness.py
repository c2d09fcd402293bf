"""The alarm about a ban that has no effect: attempts keep arriving from the banned address."""

import asyncio

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.ineffective import Ineffective
from ringfence.bans.ledger import Ledger
from ringfence.bans.reconcile import Reconciler
from ringfence.clock import Clock
from ringfence.daemon.exemptions import ProtectedNetworks
from ringfence.daemon.firewall_manager import WantedRules
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.host.diagnosis import Diagnosis, Observations
from ringfence.model import Address, Attempt, Scope

MOST_WAITING = 100
"""The maximum number of addresses that wait for a diagnosis.

While so many wait, :class:`BanEffectiveness` counts no attempts.
"""


class BanEffectiveness:
    """Detects bans without effect, looks for the likely causes, and activates the alarm.

    :meth:`on_judgement` counts the attempts. :meth:`run` looks for causes and activates the alarms.
    """

    def __init__(
        self,
        detector: Detector,
        ledger: Ledger,
        reconciler: Reconciler,
        protected: ProtectedNetworks,
        rules: WantedRules,
        alarms: Alarms,
        clock: Clock,
    ) -> None:
        self._detector = detector
        self._ledger = ledger
        self._reconciler = reconciler
        self._protected = protected
        self._rules = rules
        self._alarms = alarms
        self._clock = clock
        self._ineffective = Ineffective()
        self._diagnosis = Diagnosis()
        self._arrivals: asyncio.Queue[Address] = asyncio.Queue(maxsize=MOST_WAITING)

    def on_judgement(self, judgement: Judgement) -> None:
        """Count an attempt from a banned address, or from an address of this host; ignore others."""
        if judgement.disposition is Disposition.LATE:
            self._on_late(judgement.attempt)
        elif judgement.disposition is Disposition.EXEMPT:
            self._on_exempt(judgement.attempt)

    def _on_late(self, attempt: Attempt) -> None:
        """Count an attempt from a banned address. Several attempts after the ban cause the alarm."""
        subject = self._detector.subject_of(attempt.address)
        now = self._clock.wall()
        keys = [key for scope in Scope for key in self._ledger.covering(subject, scope, now)]
        placed = [record.since for record in map(self._ledger.get, keys) if record is not None]
        if placed:
            self._record(attempt, max(placed))

    def _on_exempt(self, attempt: Attempt) -> None:
        """Count an attempt from an exempt address, if it is an address of this host.

        A proxy on this host may hide attackers: Asterisk then sees the host's own address instead of theirs.
        That address is never banned, so the attempts go on. Several of them cause the alarm.
        """
        if self._protected.is_own(attempt.address):
            self._record(attempt, 0.0)

    def _record(self, attempt: Attempt, since: float) -> None:
        if self._arrivals.full():
            return  # too many addresses wait: if the attempts go on, a later one counts
        if self._ineffective.observe(attempt.address, since, attempt.time):
            self._arrivals.put_nowait(attempt.address)

    async def run(self) -> None:
        """Look for the likely causes of each ban without effect, and activate its alarm, until cancelled."""
        while True:
            address = await self._arrivals.get()
            damage = self._reconciler.last_damage
            causes = [f"a rule was damaged: {damage}"] if damage else []
            arrived = self._ineffective.confirmed.get(address, 0)
            others = self._detector.counts.attempts - arrived
            seen = Observations(arrived, others, tuple(self._rules.manager_ports))
            causes += await self._diagnosis.likely_causes(address, seen)
            text = "its packets arrive although it is, or should be, banned: " + "; ".join(causes)
            self._alarms.activate(AlarmCode.BAN_NOT_EFFECTIVE, str(address), text)
