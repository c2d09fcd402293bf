"""The history: counts of attempts and bans by minute, hour and day, recorded once a minute, and as JSON."""

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from ringfence.control_server import Encoded, Handler
from ringfence.detect.rules import counted_rule
from ringfence.features.history.table import DAY, HOUR, MINUTE, Slot, Timeline, slot_length
from ringfence.guard.feature import Feature, Given
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.request_fields import PERIOD, read
from ringfence.store.database import Store
from ringfence.values.attempt import AttemptKind, Proof
from ringfence.values.text import rfc3339

# -- the history of a period, as JSON: the numbers of attempts, bans and unbans over time
#
# A *slot* is a minute, an hour or a day, with the counts of that time (``table.py``). ``watched`` is
# the number of seconds of it in which the daemon ran.
#
# The keys are an interface for scripts: keys may be added, but not changed or removed.


ATTEMPTS, BANS, UNBANS, UNCONFIRMED = "attempts", "bans", "unbans", "unconfirmed"
TOTAL, PROVEN = "total", "proven"
"""Parts of the names of counts, such as ``attempts.guess.proven`` or ``bans.slow``.

An attempt counts as proven in the minute of its proof. This may be later than the minute of the attempt.
"""


def read_history(timeline: Timeline, seconds: float, now: float, *newest: Slot) -> dict[str, Any]:
    """Return the counts in the ``seconds`` before ``now`` (seconds since the epoch), as JSON values.

    ``totals`` has the sums, and ``slots`` those of each minute, hour or day. Minutes are kept for a shorter
    time than hours, and hours than days. The slots are the shortest ones that are kept for the whole period.
    ``newest`` have counts that are not in the database yet. Raise StoreError if the database cannot be read.
    """
    length = slot_length(seconds)
    since = int((now - seconds) // length) * length
    slots = {slot.start: slot for slot in timeline.read(length, since, now)}
    for new in newest:
        start = new.start // length * length
        slots[start] = _sum((slots.get(start, Slot(start, 0.0, {})), new), start)
    whole = _sum(slots.values(), since)
    return {
        "since": rfc3339(since),
        "until": rfc3339(now),
        "step": length,
        "watched": round(whole.watched),
        "totals": _nested(whole.counts),
        "slots": [
            {"start": rfc3339(start), "watched": round(slots[start].watched), **_nested(slots[start].counts)}
            for start in sorted(slots)
        ],
    }


def _sum(slots: Iterable[Slot], start: int) -> Slot:
    watched, counts = 0.0, Counter[str]()
    for slot in slots:
        watched += slot.watched
        counts.update(slot.counts)
    return Slot(start, watched, counts)


def _nested(counts: Mapping[str, int]) -> dict[str, Any]:
    """Return ``counts`` as nested mappings, split at the dots of their names.

    The count ``attempts.guess.proven``, for example, has the keys ``attempts``, ``guess`` and ``proven``.
    """
    bans = {name.partition(".")[2]: number for name, number in counts.items() if name.startswith(f"{BANS}.")}
    return {
        ATTEMPTS: {
            str(kind): {part: counts.get(f"{ATTEMPTS}.{kind}.{part}", 0) for part in (TOTAL, PROVEN)}
            for kind in AttemptKind
            if any(name.startswith(f"{ATTEMPTS}.{kind}.") for name in counts)
        },
        BANS: dict(sorted(bans.items())),
        UNBANS: counts.get(UNBANS, 0),
        UNCONFIRMED: counts.get(UNCONFIRMED, 0),
    }


# -- records once a minute, for the timeline in the database, how much the daemon's counters have grown


REQUESTS = {"history": read({"seconds": PERIOD}, page={"seconds": PERIOD})}


class History(Feature):
    """Records how much the counters of the detector and the enforcer have grown since the last record."""

    def __init__(self, side: FirewallSide) -> None:
        self._detector = side.detector
        self._enforcer = side.kernel.enforcer
        self._timeline = Timeline(side.common.store.connection)
        self._best_effort = side.common.store.best_effort
        self._clock = side.common.clock
        self._records = 0
        self._recorded = self._counts()
        self._until = self._clock.mono()

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers of the feature's requests on the control socket, by the request's name."""
        return {"history": self.answer}

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that records the counts of attempts and bans."""
        return [self.run()]

    async def run(self) -> None:
        """Record the counts of attempts and bans at the end of each minute, and when cancelled.

        While an earlier record waits for the disk, record them at the end of each hour only. So days of a
        full disk push no ban out of the queue of writes.
        """
        try:
            while True:
                await asyncio.sleep(max(1.0, MINUTE - self._clock.wall() % MINUTE))
                if self._hour_is_over() or not self._best_effort.waiting_calls(self._timeline.add):
                    self.record()
        finally:
            self.record()

    def _hour_is_over(self) -> bool:
        """Whether an hour has ended since the last record."""
        now = self._clock.wall()
        return (now - (self._clock.mono() - self._until)) // HOUR != now // HOUR

    def record(self) -> None:
        """Queue the numbers of attempts and bans since the last call, to be added to the database."""
        new = self.unrecorded()
        self._records += 1
        self._recorded.update(new.counts)
        self._until += new.watched
        self._best_effort.write(self._timeline.add, new.start, new.watched, new.counts)

    def unrecorded(self) -> Slot:
        """Return the counts of attempts and bans since the last record as one slot.

        All of them count for one minute: the one in the middle of the time since the last record.
        """
        watched = max(0.0, self._clock.mono() - self._until)
        gained = self._counts()
        gained.subtract(self._recorded)
        start = int((self._clock.wall() - watched / 2) // MINUTE) * MINUTE
        return Slot(start, watched, {name: number for name, number in gained.items() if number})

    async def answer(self, request: Mapping[str, Any]) -> Encoded:
        """Return what :func:`read_history` returns for the last ``seconds`` of the request, as JSON.

        The default is a day. A thread reads the database and encodes the answer.
        """
        seconds = request.get("seconds", DAY)
        while True:
            before, waiting = self._records, self._waiting(seconds)
            encoded = await asyncio.to_thread(self._encoded, seconds, [*waiting, self.unrecorded()])
            # If counts were recorded meanwhile, they may be in the answer twice. Then the loop reads again.
            if before == self._records and len(waiting) == len(self._waiting(seconds)):
                return encoded

    def _waiting(self, seconds: float) -> list[Slot]:
        """Return the counts of the last ``seconds`` that wait because the disk takes no writes."""
        if self._best_effort.takes_writes:
            return []
        since = self._clock.wall() - seconds
        waiting = (Slot(*one) for one in self._best_effort.waiting_calls(self._timeline.add))
        return [slot for slot in waiting if slot.start >= since]

    def _encoded(self, seconds: float, newest: Iterable[Slot]) -> Encoded:
        found = read_history(self._timeline, seconds, self._clock.wall(), *newest)
        return Encoded((json.dumps(found).encode(),))

    def _counts(self) -> Counter[str]:
        """Return the present counts of attempts and bans since the start, by their names in the database."""
        counts, bans = self._detector.counts, self._enforcer.book.counts
        found = Counter({UNBANS: bans.unbanned, UNCONFIRMED: counts.unconfirmed})
        for kind, by_proof in counts.by_kind.items():
            number, later = sum(by_proof), counts.proven_later[kind]
            found[f"{ATTEMPTS}.{kind}.{TOTAL}"] = number
            found[f"{ATTEMPTS}.{kind}.{PROVEN}"] = number - by_proof[Proof.CLAIMED] + later
        for (rule, _), number in bans.placed_by.items():
            found[f"{BANS}.{counted_rule(rule)}"] += number
        return found


def build(given: Given) -> History:
    """Return the feature that records the history of attempts and bans."""
    return History(given.side)


def _recorded(store: Store, arguments: Mapping[str, Any], now: float) -> dict[str, Any]:
    return read_history(Timeline(store.connection), arguments["seconds"], now)


RECORDED = {"history": _recorded}
