"""The history of a period, as JSON: the numbers of attempts, bans and unbans over time.

A *slot* is a minute, an hour or a day, with the counts of that time (``store/timeline.py``). ``watched`` is
the number of seconds of it in which the daemon ran.

The keys are an interface for scripts: keys may be added, but not changed or removed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ringfence.model import AttemptKind, rfc3339
from ringfence.store.timeline import Slot, Timeline, slot_length

ATTEMPTS, BANS, UNBANS, UNCONFIRMED = "attempts", "bans", "unbans", "unconfirmed"
TOTAL, PROVEN = "total", "proven"
"""The constants above are parts of the names of counts: ``attempts.guess.proven`` or ``bans.slow``.

An attempt counts as proven in the minute of its proof. This may be later than the minute of the attempt.
"""


def read_history(
    timeline: Timeline, seconds: float, now: float, newest: Slot | None = None
) -> dict[str, Any]:
    """Return the totals and the slots of the ``seconds`` before ``now`` (seconds since the epoch).

    Minutes are kept for a shorter time than hours, and hours than days. The slots are the shortest ones that
    are kept for the whole period. ``newest`` has counts that are not in the database yet; None if all are.
    Raise StoreError if the database cannot be read.
    """
    length = slot_length(seconds)
    since = int((now - seconds) // length) * length
    slots = {slot.start: slot for slot in timeline.read(length, since, now)}
    if newest is not None:
        start = newest.start // length * length
        slots[start] = _sum((slots.get(start, Slot(start, 0.0, {})), newest), start)
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
    """Return ``counts`` as nested objects.

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
