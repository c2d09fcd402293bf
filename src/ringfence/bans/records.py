"""The store as those see it who must not wait for it, nor fail with it.

What is only to be remembered is done later, in order, in a thread of its own; what fails is said once, shown
as :attr:`Records.error`, and stops no ban: the kernel's word is there already.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

import structlog
from attrs import evolve

from ringfence.errors import StoreError
from ringfence.model import Ban, Made, Network, Scope, network_from
from ringfence.store import Store

_T = TypeVar("_T")
_NAMES = "names"
_WAIT = 1.0  # seconds


def _at_once(action: Callable[[], object]) -> None:
    action()


class Records:
    """A store, and ``later``, which is given what may wait. ``fleeting``: why nothing in it lasts."""

    def __init__(
        self,
        store: Store,
        later: Callable[[Callable[[], object]], object] = _at_once,
        fleeting: str = "",
    ) -> None:
        self.store = store
        self._errors = {"writing": "", "reading": ""}
        self.fleeting = fleeting
        self.unreadable = ""
        """What of the bans made no sense at the start."""
        self._later = later
        self._log = structlog.get_logger()

    @property
    def error(self) -> str:
        """What fails, "" where nothing: a full disk can still be read, so one is not over by the other."""
        return self._errors["writing"] or self._errors["reading"]

    def ban(self, bans: Sequence[Ban]) -> None:
        """Remember bans that the kernel has."""
        self.remember(partial(self.store.record, bans))

    def end(self, bans: Sequence[tuple[Network, Scope]], when: float, *, wait: bool = True) -> None:
        """Remember that bans are lifted, and wait for that, a second at most.

        Before the kernel lets them go: whoever ends in between leaves an element that the next start finds
        lifted, and not a ban that is said to run and does not. Not to ``wait`` is for where a new ban would.
        """
        done = self.remember(lambda: self.store.end(bans, when))
        if wait and isinstance(done, Future):
            with suppress(TimeoutError):  # the disk is slow, and the administrator waits
                done.result(_WAIT)

    def resume(self, bans: Sequence[tuple[Network, Scope]], when: float) -> None:
        """Remember that bans which were to be lifted at ``when`` go on: the kernel did not let go."""
        self.remember(lambda: self.store.resume(bans, when))

    def lately_lifted(self, now: float) -> Iterable[tuple[Network, Scope]]:
        """Give the bans that were lifted before their time was over."""
        return self.read(lambda: self.store.lately_lifted(now), ())

    def running(self, now: float) -> Iterator[tuple[Ban, Made]]:
        """Give what the store has of bans with time left, and how many attempts led to each.

        What cannot be read is left out: the guard stands without it, and what the kernel still has of it is
        found there. A ban that began after ``now`` is one of a clock that is late (a host
        without a battery boots years ago): nobody can tell whether it is over, so it begins now, and cannot
        last longer than it was meant to.
        """
        try:
            for ban, made in self.store.each_running(now):
                late = ban.since - now
                yield (evolve(ban, since=now, expires=ban.expires - late), made) if late > 0 else (ban, made)
        except StoreError as error:
            self._failed(error)
        if self.store.unreadable:
            self.unreadable = (
                f"{self.store.unreadable} bans in {self.store.path} make no sense and are left out"
            )
            self._log.error("store.failed", error=self.unreadable)

    @property
    def switched_off(self) -> bool:
        """Whether an administrator wants nothing enforced; not so where nobody can tell."""
        return self.read(lambda: self.store.switched_off, fallback=False)

    def offences(self, network: Network, since: float) -> int:
        """Count the bans that rules gave ``network`` since then; 0 where nobody can tell."""
        return self.read(lambda: self.store.bans_before(network, since), 0)

    def log_positions(self) -> Mapping[str, str]:
        """Give how far each log was read before."""
        return self.read(self.store.positions, {})

    def log_position(self, key: str, position: str) -> None:
        """Remember how far a log was read."""
        self.remember(lambda: self.store.remember_positions({key: position}))

    def names(self) -> dict[str, frozenset[Network]]:
        """Give where names led when it was last known."""
        try:
            told = json.loads(self.read(lambda: self.store.fact(_NAMES), None) or "{}")
            return {name: frozenset(map(network_from, networks)) for name, networks in told.items()}
        except (ValueError, TypeError, AttributeError) as error:  # somebody has written there
            self._failed(StoreError(f"where names led makes no sense: {error}"))
            return {}

    def name_answers(self, answers: Mapping[str, frozenset[Network]]) -> None:
        """Remember where names lead: the next start may come while no server answers."""
        told = {name: sorted(map(str, networks)) for name, networks in answers.items()}
        self.remember(lambda: self.store.remember_fact(_NAMES, json.dumps(told)))

    def purge(self, now: float) -> None:
        """Forget what ended long ago."""
        self.remember(lambda: self.store.purge(now))

    def remember(self, action: Callable[[], object]) -> object:
        """Have something written into the store; give what ``later`` gave."""
        return self._later(lambda: self._done(action, None, "writing"))

    def read(self, action: Callable[[], _T], fallback: _T) -> _T:
        """Ask the store for something; ``fallback`` is the answer where it fails."""
        return self._done(action, fallback, "reading")

    def _done(self, action: Callable[[], _T], fallback: _T, what: str) -> _T:
        try:
            result = action()
        except StoreError as error:
            self._failed(error, what)
            return fallback
        self._errors[what] = ""
        return result

    def _failed(self, error: StoreError, what: str = "reading") -> None:
        known = str(error) in self._errors.values()
        self._errors[what] = str(error)
        if not known:
            self._log.error("store.failed", error=str(error))
