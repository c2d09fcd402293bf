"""The records of bans, read and written without waiting for the disk and without failing."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

from attrs import evolve

from ringfence.errors import StoreError
from ringfence.model import Ban, Network, Scope
from ringfence.store.attempt_counts import AttemptCounts
from ringfence.store.bans import BanTable
from ringfence.store.best_effort import BestEffort
from ringfence.store.rows import Ended
from ringfence.store.state import SavedState

_WAIT = 1.0  # seconds


class Records:
    """The recorded bans, and the switch for enforcement. Only :meth:`set_switched_off` raises StoreError."""

    def __init__(self, bans: BanTable, state: SavedState, best_effort: BestEffort) -> None:
        self._bans = bans
        self._state = state
        self._best_effort = best_effort

    def ban(self, bans: Sequence[Ban]) -> None:
        """Record bans that the kernel has."""
        self._best_effort.write(partial(self._bans.record, bans))

    def end(self, bans: Sequence[tuple[Network, Scope]], when: float) -> object:
        """Record that bans were removed; return what the queue returned. Does not wait for the disk."""
        return self._best_effort.write(lambda: self._bans.end(bans, when))

    async def end_and_wait(self, bans: Sequence[tuple[Network, Scope]], when: float) -> None:
        """Record that bans were removed, and wait for the disk for at most a second.

        The event loop continues.

        The caller removes them from the kernel afterwards. If the daemon is killed in between, the next start
        finds a ban in the kernel whose record has ended, and removes it. In the other order it would find a
        recorded ban that is missing in the kernel, and restore it.
        """
        done = self.end(bans, when)
        if isinstance(done, Future):
            await asyncio.wait([asyncio.wrap_future(done)], timeout=_WAIT)

    def resume(self, bans: Sequence[tuple[Network, Scope]], when: float) -> None:
        """Undo the record that bans ended at ``when``, because the kernel refused to remove them."""
        self._best_effort.write(lambda: self._bans.resume(bans, when))

    def removed_early(self, now: float) -> Iterable[Ended]:
        """Return the bans that were removed before their time was over."""
        return self._best_effort.read(lambda: self._bans.removed_early(now), [])

    def not_removed(self) -> Iterable[Ended]:
        """Return the bans that were not removed, including expired ones."""
        return self._best_effort.read(self._bans.not_removed, [])

    def clock(self) -> float | None:
        """Return the last recorded difference of the clocks: wall clock minus monotonic clock."""
        return self._best_effort.read(self._bans.clock, None)

    def record_clock(self, offset: float, step: float, now: float) -> None:
        """Record that difference, and move the bans by ``step`` seconds, before this returns."""
        self._best_effort.write_now(lambda: self._bans.record_clock(offset, step, now))

    def queue_clock_record(self, offset: float, step: float, now: float) -> None:
        """Queue a write that does the same as :meth:`clock_is`."""
        self._best_effort.write(lambda: self._bans.record_clock(offset, step, now))

    def running(self, now: float) -> Iterator[tuple[Ban, AttemptCounts]]:
        """Yield the recorded bans with time left, and the counts of attempts that led to each.

        Unreadable bans are left out. If the kernel still has such a ban, it is adopted from there. A ban that
        began after ``now`` means that the clock is slow (a host without a battery boots with a date in the
        past). It is unknown whether such a ban is over, so it begins now and cannot last longer than
        intended.
        """
        unreadable = 0
        try:
            for row in self._bans.running(now):
                if row is None:
                    unreadable += 1
                    continue
                ban, made = row
                late = ban.since - now
                yield (evolve(ban, since=now, expires=ban.expires - late), made) if late > 0 else (ban, made)
        except StoreError as error:
            self._best_effort.report(error)
        if unreadable:
            self._best_effort.report_unreadable(unreadable)

    def offences(self, network: Network, since: float) -> int:
        """Count the bans of ``network`` by rules since then; 0 if that cannot be read."""
        return self._best_effort.read(lambda: self._bans.count_offences(network, since), 0)

    @property
    def switched_off(self) -> bool:
        """Whether an administrator has switched enforcement off; false if that cannot be read."""
        return self._best_effort.read(self._state.switched_off, fallback=False)

    def set_switched_off(self, value: bool) -> None:  # noqa: FBT001 - the value itself
        """Record whether enforcement is switched off, at once; raise StoreError if that fails."""
        self._state.set_switched_off(value)
