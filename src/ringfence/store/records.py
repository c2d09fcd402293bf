"""The records of bans: most writes are queued, and errors are logged and not raised."""

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

_WAIT = 1.0  # seconds that :meth:`Records.end_and_wait` waits at most


class Records:
    """The recorded bans, and whether enforcement is switched off.

    Only :meth:`set_switched_off` raises StoreError.
    """

    def __init__(self, bans: BanTable, state: SavedState, best_effort: BestEffort) -> None:
        self._bans = bans
        self._state = state
        self._best_effort = best_effort

    def ban(self, bans: Sequence[Ban]) -> None:
        """Queue a write that records bans. The kernel has already acknowledged them."""
        self._best_effort.write(partial(self._bans.record, bans))

    def end(self, bans: Sequence[tuple[Network, Scope]], when: float) -> object:
        """Queue a write that records the removal of bans at ``when``.

        Return what the queue returns (a future, or None).
        """
        return self._best_effort.write(lambda: self._bans.end(bans, when))

    async def end_and_wait(self, bans: Sequence[tuple[Network, Scope]], when: float) -> None:
        """Queue a write that records the removal of bans, and wait at most a second until it is done.

        The caller removes the bans from the kernel afterwards. The daemon may be killed in between. Then the
        next start finds a ban in the kernel that is recorded as removed, and removes it. In the other order,
        the next start would find a recorded ban that is missing in the kernel, and restore it.
        """
        done = self.end(bans, when)
        if isinstance(done, Future):
            await asyncio.wait([asyncio.wrap_future(done)], timeout=_WAIT)

    def resume(self, bans: Sequence[tuple[Network, Scope]], when: float) -> None:
        """Queue a write that undoes :meth:`end`, because the kernel refused to remove these bans.

        ``when`` is the time that was passed to :meth:`end` (seconds since the epoch).
        """
        self._best_effort.write(lambda: self._bans.resume(bans, when))

    def removed_early(self, now: float) -> Iterable[Ended]:
        """Return the bans that were removed or replaced, and that would otherwise end only after ``now``.

        Return [] if they cannot be read.
        """
        return self._best_effort.read(lambda: self._bans.removed_early(now), [])

    def not_removed(self) -> Iterable[Ended]:
        """Return the bans that were neither removed nor replaced, including expired ones.

        Return [] if they cannot be read.
        """
        return self._best_effort.read(self._bans.not_removed, [])

    def clock(self) -> float | None:
        """Return the last recorded wall clock minus monotonic clock, in seconds; None if it is unknown."""
        return self._best_effort.read(self._bans.clock, None)

    def record_clock(self, offset: float, step: float, now: float) -> None:
        """Call :meth:`BanTable.record_clock` at once, in the caller's thread."""
        self._best_effort.write_now(lambda: self._bans.record_clock(offset, step, now))

    def queue_clock_record(self, offset: float, step: float, now: float) -> None:
        """Queue a call of :meth:`BanTable.record_clock`."""
        self._best_effort.write(lambda: self._bans.record_clock(offset, step, now))

    def running(self, now: float) -> Iterator[tuple[Ban, AttemptCounts]]:
        """Yield the recorded bans that have time left, and the counts of attempts that led to each.

        Invalid rows are left out. (If the kernel still has the ban of an invalid row, the daemon adopts it
        from there.)

        If a ban began after ``now``, the clock is wrong: a host without a battery boots with a date in the
        past. It is unknown whether such a ban is over. So it is yielded with ``now`` as its begin, and with
        its full length.
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
        """Return the number of bans of ``network`` that rules have made since ``since``.

        Bans on evidence whose source address was not proven (scope SIP_UDP or SIP_TCP) do not count. Return 0
        if the number cannot be read.
        """
        return self._best_effort.read(lambda: self._bans.count_offences(network, since), 0)

    @property
    def switched_off(self) -> bool:
        """Whether an administrator has switched enforcement off; False if that cannot be read."""
        return self._best_effort.read(self._state.switched_off, fallback=False)

    def set_switched_off(self, value: bool) -> None:  # noqa: FBT001 - the value itself
        """Record whether enforcement is switched off, before this returns; raise StoreError if that fails."""
        self._state.set_switched_off(value)
