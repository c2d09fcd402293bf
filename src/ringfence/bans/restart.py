"""Reconciles the kernel with the store when the daemon starts, after a restart or a reboot.

An *element* is the entry of a ban in a set of the kernel. The kernel counts down its timeout even without a
daemon. So an element and its ban in the database end at the same time of the wall clock. If their ends
differ, the element belongs to another ban, or the clock was set in between.

A stored ban that the kernel's listing lacks is added at once, even if the kernel may have it. After a reboot
all bans are missing, and it takes 2 s to look up 100,000 bans one by one.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from ringfence.bans.kernel_bans import CHUNK, KernelBans
from ringfence.bans.ledger import key_of, network_of
from ringfence.bans.listing import listed
from ringfence.clock import Clock
from ringfence.firewall.contract import MAX_TIMEOUT, Backend, Remove
from ringfence.model import Ban
from ringfence.store.attempt_counts import AttemptCounts
from ringfence.store.records import Records
from ringfence.store.rows import Ended

EARLY = 1.0
LATE = 2.0
"""``EARLY`` and ``LATE`` are the seconds by which an element may end before its ban, and after it.

If it ends still earlier or later, it belongs to another ban. ipset rounds timeouts up to whole seconds.
"""

CLOCK_STEP = 5.0
"""Seconds. If the wall clock moves further than this against the monotonic clock, it counts as set.

A suspended host has the same effect, because its monotonic clock stops.
"""


@frozen
class Restored:
    """The result of :func:`restore_bans`.

    ``kept`` is the number of bans that both the kernel and the store had, ``put_back`` the number of those
    that only the store had. ``unknown`` has the keys of the bans that only the kernel has, each with the
    seconds left.
    """

    kept: int
    put_back: int
    unknown: Mapping[int, float]


def restore_bans(
    backend: Backend, records: Records, bans: KernelBans, clock: Clock, offset: float
) -> Restored:
    """Compare the store's bans with the kernel's when the daemon starts.

    Bans that both have are recorded in the ledger. Bans that only the store has are added to the kernel. If
    an unban was recorded, but the last daemon ended before the kernel removed the ban, the ban is removed
    now. ``offset`` is the wall clock minus the monotonic clock.
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
    """Return the keys of the bans that the kernel still has although their unban is recorded in the store.

    ``found`` has the keys of the kernel's bans and the seconds left, as listed between ``began`` and ``now``.
    ``ended`` are the bans that the store records as ended early. If an element ends at another time than such
    a ban, it belongs to a later ban whose record was lost. Then its key is not returned.
    """
    keys = set()
    for network, scope, expires in ended:
        key = key_of(network, scope)
        left = found.get(key)
        if left is None:
            continue
        same_end = began + left - LATE <= expires <= now + left + EARLY
        # A ban may be longer than MAX_TIMEOUT, the longest timeout in the kernel. Then its timeout is renewed
        # when half of it is left, and its element may end before the ban.
        renewed = expires - now > MAX_TIMEOUT / 2 and began + left - LATE <= expires
        if same_end or renewed:
            keys.add(key)
    return keys


def follow_clock(records: Records, found: Mapping[int, float], offset: float, now: float) -> None:
    """If the wall clock was set since bans were recorded in the database, move the times of these bans.

    ``offset`` is the wall clock minus the monotonic clock, now. The database has an earlier offset. If the
    two differ, the clock was set, or the host was booted again. A ban in the kernel shows which: if the clock
    was set, the end of this ban in the kernel differs from its end in the database by as much.
    ``found`` has the keys of the kernel's bans, each with the seconds left.
    """
    known = records.clock()
    step = offset - known if known is not None else 0.0
    confirmed = abs(step) > CLOCK_STEP and any(
        abs(now + left - step - expires) <= CLOCK_STEP
        for network, scope, expires in (records.not_removed() if found else ())
        if (left := found.get(key_of(network, scope))) is not None
    )
    records.record_clock(offset, step if confirmed else 0.0, now)
