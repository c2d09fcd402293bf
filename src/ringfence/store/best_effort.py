"""A best-effort front for the store: writes are queued, errors are logged and never raised.

Writes run later, in order, in a thread of their own. An error is logged once, shown as :attr:`Records.error`,
and stops no ban, because the kernel has acknowledged it already.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import structlog
from attrs import evolve

from ringfence.errors import StoreDamagedError, StoreError
from ringfence.model import AttemptCounts, Ban, Network, Scope, parse_network
from ringfence.store.database import Store
from ringfence.store.rows import Ended

_T = TypeVar("_T")
_NAMES = "names"
_WAIT = 1.0  # seconds


def _at_once(action: Callable[[], object]) -> None:
    action()


class Records:
    """The store behind a queue of writes.

    ``later`` runs a write. ``fleeting`` is the reason why the store is in memory only, "" if it is not.
    """

    def __init__(
        self,
        store: Store,
        later: Callable[[Callable[[], object]], object] = _at_once,
        fleeting: str = "",
    ) -> None:
        self.store = store
        self._errors = {"writing": "", "reading": ""}
        self.fleeting = fleeting
        self._damaged = ""
        self.unreadable = ""
        """A message about bans that were unreadable at the start."""
        self._later = later
        self._log = structlog.get_logger()

    @property
    def error(self) -> str:
        """The present error, "" if none. A full disk can still be read, so reading does not clear it."""
        return self._errors["writing"] or self._errors["reading"]

    @property
    def damage(self) -> str:
        """A message about damage to the database, with what to do; "" if there is none."""
        return self._damaged or self.store.look_for_damage()

    def ban(self, bans: Sequence[Ban]) -> None:
        """Record bans that the kernel has."""
        self.remember(partial(self.store.record, bans))

    def end(self, bans: Sequence[tuple[Network, Scope]], when: float) -> object:
        """Record that bans were removed; return what ``later`` returned. Does not wait for the disk."""
        return self.remember(lambda: self.store.end(bans, when))

    async def end_aside(self, bans: Sequence[tuple[Network, Scope]], when: float) -> None:
        """Record that bans were removed, and wait for it for a second at most, while the event loop goes on.

        The kernel removes them afterwards. If the daemon is killed in between, the next start finds an
        element whose ban was removed, and not a recorded ban that the kernel does not have.
        """
        done = self.end(bans, when)
        if isinstance(done, Future):
            await asyncio.wait([asyncio.wrap_future(done)], timeout=_WAIT)

    def resume(self, bans: Sequence[tuple[Network, Scope]], when: float) -> None:
        """Record that bans continue which were to be removed at ``when``, because the kernel refused."""
        self.remember(lambda: self.store.resume(bans, when))

    def lately_lifted(self, now: float) -> Iterable[Ended]:
        """Return the bans that were removed before their time was over."""
        return self.read(lambda: self.store.lately_lifted(now), ())

    def ends(self) -> Iterable[Ended]:
        """Return the bans that were not removed, including expired ones."""
        return self.read(self.store.ends, ())

    def clock(self) -> float | None:
        """Return the lead of the wall clock over the monotonic one as last recorded."""
        return self.read(self.store.clock, None)

    def clock_is(self, offset: float, step: float, now: float) -> None:
        """Record that lead, and move the bans by ``step`` seconds; done when this returns."""
        self._done(lambda: self.store.clock_is(offset, step, now), None, "writing")

    def clock_moved(self, offset: float, step: float, now: float) -> None:
        """Record that lead and move the bans later, in order with the other writes."""
        self.remember(lambda: self.store.clock_is(offset, step, now))

    def running(self, now: float) -> Iterator[tuple[Ban, AttemptCounts]]:
        """Yield the recorded bans with time left, and the counts of attempts that led to each.

        Unreadable bans are left out; if the kernel still has one, it is found there. A ban that began after
        ``now`` means that the clock is slow (a host without a battery boots with a date in the past). It is
        unknown whether such a ban is over, so it begins now and cannot last longer than intended.
        """
        try:
            for ban, made in self.store.each_running(now):
                late = ban.since - now
                yield (evolve(ban, since=now, expires=ban.expires - late), made) if late > 0 else (ban, made)
        except StoreError as error:
            self._failed(error)
        if self.store.unreadable:
            self.unreadable = (
                f"{self.store.unreadable} bans in {self.store.path} are invalid and are left out"
            )
            self._log.error("store.failed", error=self.unreadable)

    @property
    def switched_off(self) -> bool:
        """Whether an administrator has switched enforcement off; false if that cannot be read."""
        return self.read(lambda: self.store.switched_off, fallback=False)

    def offences(self, network: Network, since: float) -> int:
        """Count the bans of ``network`` by rules since then; 0 if that cannot be read."""
        return self.read(lambda: self.store.bans_before(network, since), 0)

    def log_positions(self) -> Mapping[str, str]:
        """Return the position up to which each log was read."""
        return self.read(self.store.positions, {})

    def log_position(self, key: str, position: str) -> None:
        """Record the position up to which a log was read."""
        self.remember(lambda: self.store.remember_positions({key: position}))

    def names(self) -> dict[str, frozenset[Network]]:
        """Return the last known networks of each name."""
        try:
            told = json.loads(self.read(lambda: self.store.fact(_NAMES), None) or "{}")
            return {name: frozenset(map(parse_network, networks)) for name, networks in told.items()}
        except (ValueError, TypeError, AttributeError) as error:  # edited by hand
            self._failed(StoreError(f"the recorded addresses of names are invalid: {error}"))
            return {}

    def name_answers(self, answers: Mapping[str, frozenset[Network]]) -> None:
        """Record the networks of each name, because no DNS server may answer at the next start."""
        told = {name: sorted(map(str, networks)) for name, networks in answers.items()}
        self.remember(lambda: self.store.remember_fact(_NAMES, json.dumps(told)))

    def purge(self, now: float) -> None:
        """Remove bans that ended long ago."""
        self.remember(lambda: self.store.purge(now))

    def remember(self, action: Callable[[], object]) -> object:
        """Queue a write to the store; return what ``later`` returned."""
        return self._later(lambda: self._done(action, None, "writing"))

    def read(self, action: Callable[[], _T], fallback: _T) -> _T:
        """Return the result of a read; ``fallback`` if it fails."""
        return self._done(action, fallback, "reading")

    def _done(self, action: Callable[[], _T], fallback: _T, operation: str) -> _T:
        try:
            result = action()
        except StoreError as error:
            self._failed(error, operation)
            return fallback
        self._errors[operation] = ""
        return result

    def _failed(self, error: StoreError, operation: str = "reading") -> None:
        known = str(error) in self._errors.values()
        self._errors[operation] = str(error)
        if isinstance(error, StoreDamagedError):
            self._damaged = str(error)
        if not known:
            self._log.error("store.failed", error=str(error))
