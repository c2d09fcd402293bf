"""The alarm for bans that have no effect: attempts of a banned address keep arriving."""

import asyncio

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.ineffective import Ineffective
from ringfence.bans.ledger import Ledger
from ringfence.bans.reconcile import Reconciler
from ringfence.clock import Clock
from ringfence.daemon.firewall_rules import WantedRules
from ringfence.daemon.protected_networks import ProtectedNetworks
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.host.diagnosis import Diagnosis, Observations
from ringfence.model import Address, Attempt, Scope

MOST_WAITING = 100
"""The maximum number of addresses that wait for a diagnosis. Further addresses get no alarm."""


class BanEffectiveness:
    """Activates the alarm, with the likely causes. For this, :meth:`run` must be running."""

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
        """Record an attempt of a banned or exempt address; ignore other attempts."""
        if judgement.disposition is Disposition.LATE:
            self._on_late(judgement.attempt)
        elif judgement.disposition is Disposition.EXEMPT:
            self._on_exempt(judgement.attempt)

    def _on_late(self, attempt: Attempt) -> None:
        """Record an attempt of a banned address. Several attempts after the ban activate the alarm."""
        subject = self._detector.subject_of(attempt.address)
        now = self._clock.wall()
        keys = [key for scope in Scope for key in self._ledger.covering(subject, scope, now)]
        placed = [record.since for record in map(self._ledger.get, keys) if record is not None]
        if placed:
            self._record(attempt, max(placed))

    def _on_exempt(self, attempt: Attempt) -> None:
        """Record an attempt that arrives from this host's own address.

        A proxy on this host may have put it in place of the attacker's address, which then is never banned.
        """
        if self._protected.is_own(attempt.address):
            self._record(attempt, 0.0)

    def _record(self, attempt: Attempt, since: float) -> None:
        if self._arrivals.full():
            return  # a later attempt of the address counts
        if self._ineffective.observe(attempt.address, since, attempt.time):
            self._arrivals.put_nowait(attempt.address)

    async def run(self) -> None:
        """Look for the causes of each ineffective ban, and activate its alarm, until cancelled."""
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
