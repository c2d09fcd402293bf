"""The bans in the kernel after a restart: which were unbanned, and whether the clock was set.

The kernel counts down on its own. So the end of an element, by the wall clock, is the end of its ban in the
database, unless it belongs to another ban or the clock was set in between.
"""

from collections.abc import Iterable, Mapping

from ringfence.bans.ledger import key_of, network_of
from ringfence.model import Ban, Origin
from ringfence.store.records import Records
from ringfence.store.rows import Ended

EARLY = 1.0
LATE = 2.0
"""Seconds by which an element may end before and after its ban: ipset rounds up to whole seconds."""

CLOCK_STEP = 5.0
"""A step of this many seconds against the monotonic clock means that the clock was set or the host slept."""


ADOPTED_FOR = 86_400.0
"""Seconds for which elements without an end are adopted, because every ban ends."""

_LONGEST = 2_147_483.0
"""The longest timeout of ipset in seconds. A longer ban is renewed at half of it: its element ends earlier.
"""


def adopted_ban(key: int, now: float, left: float) -> Ban:
    """Return the ban of an element in the kernel that has no record."""
    network, scope = network_of(key)
    rule, reason = str(Origin.ADOPTED), "found in the kernel"
    return Ban(network, now, now + left, rule, reason, Origin.ADOPTED, scope=scope)


def unbanned_keys(found: Mapping[int, float], ended: Iterable[Ended], began: float, now: float) -> set[int]:
    """Return the keys in ``found`` (seconds left) whose bans were unbanned, but not yet in the kernel.

    An element with another end is a later ban, whose record was lost. The listing was read between ``began``
    and ``now``.
    """
    keys = set()
    for network, scope, expires in ended:
        key = key_of(network, scope)
        left = found.get(key)
        if left is None:
            continue
        same_end = began + left - LATE <= expires <= now + left + EARLY
        renewed = expires - now > _LONGEST / 2 and began + left - LATE <= expires
        if same_end or renewed:
            keys.add(key)
    return keys


def follow_clock(records: Records, found: Mapping[int, float], offset: float, now: float) -> None:
    """Move the bans in the database if the clock was set since they were recorded.

    ``offset`` is the wall clock's lead over the monotonic clock. A difference to the recorded one means
    nothing after a reboot, so the elements in ``found`` must confirm it: at least one ends when its ban does,
    by the clock as it was.
    """
    known = records.clock()
    step = offset - known if known is not None else 0.0
    confirmed = abs(step) > CLOCK_STEP and any(
        abs(now + left - step - expires) <= CLOCK_STEP
        for network, scope, expires in (records.ends() if found else ())
        if (left := found.get(key_of(network, scope))) is not None
    )
    records.clock_is(offset, step if confirmed else 0.0, now)
