"""Records once a minute, for the timeline in the database, how much the daemon's counters have grown."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from ringfence.bans.enforcer import Enforcer
from ringfence.clock import Clock
from ringfence.control import Encoded
from ringfence.daemon.timeline_json import ATTEMPTS, BANS, PROVEN, TOTAL, UNBANS, UNCONFIRMED, read_history
from ringfence.detect.detector import Detector
from ringfence.detect.rules import RULES
from ringfence.model import Origin, Proof
from ringfence.store.database import Store
from ringfence.store.timeline import DAY, MINUTE, Slot

OTHER_RULE = "other"
"""The name under which a new ban is counted if this version of ringfence does not have its rule.

Example: an earlier version banned a network by a rule that has been removed since. Now a part of the network
is unbanned. The other parts then get new bans by the old rule.
"""
BANNED_BY = frozenset({*(rule.name for rule in RULES), str(Origin.ADMIN)})
"""The names under which new bans are counted, besides ``OTHER_RULE``.

These are the names of the rules, and one name for the bans by administrators.
"""


def counted_rule(rule: str) -> str:
    """Return the name under which the bans of ``rule`` are counted."""
    return rule if rule in BANNED_BY else OTHER_RULE


class TimelineRecorder:
    """Records how much the counters of the detector and the enforcer have grown since the last record."""

    def __init__(self, detector: Detector, enforcer: Enforcer, store: Store, clock: Clock) -> None:
        self._detector = detector
        self._enforcer = enforcer
        self._store = store
        self._clock = clock
        self._records = 0
        self._recorded = self._counts()
        self._until = clock.mono()

    async def run(self) -> None:
        """Record at the end of each minute, and when cancelled."""
        try:
            while True:
                await asyncio.sleep(max(1.0, MINUTE - self._clock.wall() % MINUTE))
                self.record()
        finally:
            self.record()

    def record(self) -> None:
        """Queue the counts since the last record, to be added to the database."""
        new = self.unrecorded()
        self._records += 1
        self._recorded.update(new.counts)
        self._until += new.watched
        self._store.best_effort.write(partial(self._store.timeline.add, new.start, new.watched, new.counts))

    def unrecorded(self) -> Slot:
        """Return the counts since the last record as one slot.

        All of them count for one minute: the one in the middle of the time since the last record.
        """
        watched = max(0.0, self._clock.mono() - self._until)
        gained = self._counts()
        gained.subtract(self._recorded)
        start = int((self._clock.wall() - watched / 2) // MINUTE) * MINUTE
        return Slot(start, watched, {name: number for name, number in gained.items() if number})

    async def answer(self, request: Mapping[str, Any]) -> Encoded:
        """Handle the request ``{"do": "history", "seconds": 86400}``.

        A thread reads the database and encodes the answer.
        """
        seconds = request.get("seconds", DAY)
        while True:
            before = self._records
            encoded = await asyncio.to_thread(self._encoded, seconds, self.unrecorded())
            # If counts were recorded meanwhile, they may be in the answer twice. Then the loop reads again.
            if before == self._records:
                return encoded

    def _encoded(self, seconds: float, new: Slot) -> Encoded:
        found = read_history(self._store.timeline, seconds, self._clock.wall(), new)
        return Encoded((json.dumps(found).encode(),))

    def _counts(self) -> Counter[str]:
        """Return the present values of the counters, by their names in the database."""
        counts, bans = self._detector.counts, self._enforcer.bans.counts
        found = Counter({UNBANS: bans.unbanned, UNCONFIRMED: counts.unconfirmed})
        for kind, by_proof in counts.by_kind.items():
            number, later = sum(by_proof), counts.proven_later[kind]
            found[f"{ATTEMPTS}.{kind}.{TOTAL}"] = number
            found[f"{ATTEMPTS}.{kind}.{PROVEN}"] = number - by_proof[Proof.CLAIMED] + later
        for (rule, _), number in bans.placed_by.items():
            found[f"{BANS}.{counted_rule(rule)}"] += number
        return found
