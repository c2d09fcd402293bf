"""The start: reconciles the kernel with the store, after a restart or a reboot.

The kernel counts down on its own. So the end of an element, by the wall clock, is the end of its ban in the
database, unless it belongs to another ban or the clock was set in between.

A stored ban that the kernel's listing lacks is added, whether or not it is in the kernel. After a reboot all
bans are missing, and to look up each of them first takes 2 s for 100,000 bans.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from ringfence.bans.kernel_bans import CHUNK, KernelBans
from ringfence.bans.ledger import key_of, network_of
from ringfence.bans.listing import listed
from ringfence.clock import Clock
from ringfence.firewall.contract import MAX_TIMEOUT, Backend, Remove
from ringfence.model import AttemptCounts, Ban
from ringfence.store.records import Records
from ringfence.store.rows import Ended

EARLY = 1.0
LATE = 2.0
"""Seconds by which an element may end before and after its ban: ipset rounds up to whole seconds."""

CLOCK_STEP = 5.0
"""Seconds. If the wall clock moves this far against the monotonic clock, it was set, or the host slept."""


@frozen
class Restored:
    """What the start found: ``kept`` bans were in the kernel, and ``put_back`` ones in the store alone.

    ``unknown`` are the bans that only the kernel has: key to seconds left.
    """

    kept: int
    put_back: int
    unknown: Mapping[int, float]


def restore_bans(
    backend: Backend, records: Records, bans: KernelBans, clock: Clock, offset: float
) -> Restored:
    """Record the bans that the store and the kernel have, and restore those that only the store has.

    ``offset`` is the wall clock's lead over the monotonic clock. A ban whose unban was recorded, but not
    carried out when the last daemon ended, is removed.
    """
    began = clock.wall()
    found = {key_of(one.network, one.scope): one.timeout for one in listed(backend, None)}
    follow_clock(records, found, offset, began)
    inside, missing, put_back = len(found), list[tuple[Ban, AttemptCounts]](), 0
    for ban, made in records.running(began):
        left = found.pop(key_of(ban.network, ban.scope), None)
        if left is not None:
            bans.record_active(ban, made, began, left)
            continue
        missing.append((ban, made))
        if len(missing) >= CHUNK:
            put_back += _put_back(bans, missing)
            missing.clear()
    put_back += _put_back(bans, missing)
    ended = unbanned_keys(found, records.removed_early(began) if found else (), began, clock.wall())
    bans.apply([Remove(*network_of(key)) for key in ended])
    unknown = {key: left for key, left in found.items() if key not in ended}
    return Restored(inside - len(unknown), put_back, unknown)


def _put_back(bans: KernelBans, missing: Sequence[tuple[Ban, AttemptCounts]]) -> int:
    bans.add([ban for ban, _ in missing], [made for _, made in missing], record=False)
    return len(missing)


def unbanned_keys(found: Mapping[int, float], ended: Iterable[Ended], began: float, now: float) -> set[int]:
    """Return the keys in ``found`` (seconds left) whose bans were unbanned, but not yet in the kernel.

    An element with another end belongs to a later ban, whose record was lost. The listing was read between
    ``began`` and ``now``.
    """
    keys = set()
    for network, scope, expires in ended:
        key = key_of(network, scope)
        left = found.get(key)
        if left is None:
            continue
        same_end = began + left - LATE <= expires <= now + left + EARLY
        # A ban longer than the longest timeout is renewed at half of it: its element ends earlier.
        renewed = expires - now > MAX_TIMEOUT / 2 and began + left - LATE <= expires
        if same_end or renewed:
            keys.add(key)
    return keys


def follow_clock(records: Records, found: Mapping[int, float], offset: float, now: float) -> None:
    """Move the bans in the database if the clock was set since they were recorded.

    ``offset`` is the wall clock minus the monotonic clock. After a reboot the recorded offset is meaningless.
    So a difference counts only if the elements in ``found`` confirm it: at least one must end when its ban
    ends by the earlier clock.
    """
    known = records.clock()
    step = offset - known if known is not None else 0.0
    confirmed = abs(step) > CLOCK_STEP and any(
        abs(now + left - step - expires) <= CLOCK_STEP
        for network, scope, expires in (records.not_removed() if found else ())
        if (left := found.get(key_of(network, scope))) is not None
    )
    records.record_clock(offset, step if confirmed else 0.0, now)
