"""Reconciles the kernel with the store when the daemon starts, after a restart or a reboot.

An *element* is the entry of a ban in a set of the kernel. The kernel counts down its timeout even without a
daemon. So an element and its ban in the database end at the same time of the wall clock. If their ends
differ, the element belongs to another ban, or the clock was set in between.

A stored ban that the kernel's listing lacks is added at once, even if the kernel may have it. After a reboot
all bans are missing, and it takes 2 s to look up 100,000 bans one by one.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from math import isfinite

from attrs import evolve

from ringfence.ban_facts import News
from ringfence.bans.book import CHUNK, Book, Steps
from ringfence.bans.listing import listed
from ringfence.clock import Clock
from ringfence.errors import StoreError
from ringfence.firewall.contract import MAX_TIMEOUT, Backend
from ringfence.ledger import CLOCK_STEP, clock_step, key_of
from ringfence.store.bans import Records
from ringfence.store.rows import Ended
from ringfence.values.ban import Ban

EARLY = 1.0
LATE = 2.0
"""The seconds by which a ban in the kernel may end before its recorded end (``EARLY``), or after (``LATE``).

With a greater difference it is another ban. ipset rounds timeouts up to whole seconds.
"""


def restore_bans(
    book: Book, backend: Backend, records: Records, clock: Clock, *, recorded: bool
) -> Steps[dict[str, int]]:
    """At the daemon's start, add the stored bans that the kernel lacks; adopt those that the store lacks.

    If an unban was recorded, but the last daemon ended before the kernel removed the ban, the ban is removed
    now. If the kernel refuses that, it is tried again.

    If not all bans and unbans are ``recorded``, restore only the bans that no waiting write changes. What
    else the kernel has stays as it is. If the clock was set, restore none: their times are by the old clock.

    Bans of the ledger stay as they are. It has some if an earlier call could not restore all. Then this is
    called again.

    Also record the clock (:func:`follow_clock`). Raise StoreError if the database cannot be read. Until then
    no ban is adopted, and none ends. Return three numbers of bans: ``kept``, which the kernel had
    and the store knew, ``put_back``, which only the store had, and ``adopted``, which only the kernel had.
    """
    if not recorded and _is_set(records, book.ledger.offset):
        return {"kept": 0, "put_back": 0, "adopted": 0}
    began = clock.wall()
    placed = frozenset(book.ledger.all_keys())
    listing = ((key_of(one.network, one.scope), one.timeout) for one in listed(backend, None))
    found = {key: left for key, left in listing if key not in placed}
    same_boot = follow_clock(records, found, book.ledger.offset, clock.boot(), began)
    inside, put_back, stored = len(found), 0, records.running(began)
    while bans := list(islice(stored, CHUNK)):
        kept, missing = list[tuple[Ban, float]](), list[Ban]()
        for ban in bans:
            key = key_of(ban.network, ban.scope)
            left = found.pop(key, None)
            if key in placed:
                continue
            if left is None:
                missing.append(ban)
            else:
                right = _as_in_kernel(ban, began, left) if same_boot or ban.since == began else ban
                kept.append((right, left))
        yield from book.keep(kept, began)
        yield from book.add(missing, News.KNOWN, clock.wall())
        put_back += len(missing)
    if not recorded:
        return {"kept": inside - len(found), "put_back": put_back, "adopted": 0}
    ended = unbanned_keys(found, records.removed_early(began) if found else (), began, clock.wall())
    yield from book.unban_with_retry(ended)
    unknown = {key: left for key, left in found.items() if key not in ended}
    yield from book.adopt(unknown, clock.wall())
    return {"kept": inside - len(unknown), "put_back": put_back, "adopted": len(unknown)}


def _is_set(records: Records, offset: float) -> bool:
    """Whether the clock was set since the database recorded it, or is unknown. Raise StoreError.

    ``offset`` is the wall clock minus the monotonic clock.
    """
    known, _ = records.clock()
    return known is None or clock_step(known, offset) != 0.0


def set_since_last_run(records: Records, clock: Clock) -> float:
    """Return by how many seconds the clock was set since an earlier daemon of this boot recorded it.

    Call this before the start, which records the clock. Return 0.0 if it was not set, or if that is unknown.
    """
    try:
        known, booted = records.clock()
    except StoreError:  # it was reported
        return 0.0
    if known is None or not booted or booted != clock.boot():
        return 0.0
    return clock_step(known, clock.wall() - clock.mono())


def _as_in_kernel(ban: Ban, began: float, left: float) -> Ban:
    """Return ``ban`` with its end in the kernel: ``left`` seconds after ``began`` (epoch seconds).

    Call this if the clock was wrong, or if the kernel has had the ban since it was recorded: after a reboot
    another program may have restored an old copy. Return ``ban`` unchanged if both ends are nearly the same.
    If not, the clock was set and the record of that is missing, or the record of the latest ban is. A ban
    that has no end in the kernel, or that is longer than a timeout there, is returned unchanged too.
    """
    ends = began + left
    differs = ban.since == began or abs(ends - ban.expires) > CLOCK_STEP
    whole = isfinite(left) and ban.expires - ban.since <= MAX_TIMEOUT
    return evolve(ban, expires=ends) if differs and whole else ban


def unbanned_keys(found: Mapping[int, float], ended: Iterable[Ended], began: float, now: float) -> set[int]:
    """Return the keys of the bans that the kernel still has although their unban is recorded in the store.

    ``found`` has the keys of the kernel's bans and the seconds left, as listed between ``began`` and ``now``
    (epoch seconds). ``ended`` are the bans that the store records as ended early. If a ban in the kernel ends
    at another time than such a ban, it is a later one whose record was lost. Then its key is not returned.
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


def follow_clock(records: Records, found: Mapping[int, float], offset: float, boot: str, now: float) -> bool:
    """Record the clock in the database; if it was set since bans were recorded, move the bans' times.

    ``offset`` is the wall clock minus the monotonic clock, now. The database has an earlier offset. If the
    two differ, the clock was set, or the host was booted again. If ``boot``, the identity of this boot, is
    the recorded one, the clock was set. Otherwise a ban in the kernel decides: if the clock was set, the end
    of this ban in the kernel differs from its end in the database by as much. ``found`` has the keys of the
    kernel's bans, each with the seconds left at ``now`` (epoch seconds). Return whether it is the same boot.
    Raise StoreError if the database cannot be read. If it is the recorded offset that cannot, queue a write
    that records the clock, and moves the bans, in the same boot. It precedes the records of all later bans:
    these have times by the present clock.
    """
    try:
        known, booted = records.clock()
    except StoreError:
        records.queue_clock_follow(offset, boot, now)
        raise
    step = 0.0 if known is None else clock_step(known, offset)
    same_boot = bool(boot) and boot == booted
    confirmed = bool(step) and (
        same_boot
        or any(
            abs(now + left - step - expires) <= CLOCK_STEP
            for network, scope, expires in (records.not_removed() if found else ())
            if (left := found.get(key_of(network, scope))) is not None
        )
    )
    records.record_clock(offset, boot, step if confirmed else 0.0, now)
    return same_boot
