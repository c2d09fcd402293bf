"""An event loop that lets events gather, as network drivers moderate interrupts.

One guess causes some six packets and lines of logs. A wake-up for each of them would cost more time than all
decoding and judging. So sources mark their descriptors as *patient* (:func:`patient`). Under sustained load,
after the loop has handled what arrived at these, it rests: it leaves them alone for some time, and then
handles together what has arrived. After a pause it handles events at once for ``ONSET`` seconds. So on a calm
host a ban comes in time for a guesser whom nothing else limits.

Only patient descriptors wait. Timers, commands, pages and the work of threads are handled at once.
"""

import asyncio
import math
import select
import selectors
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ringfence.threads import ThreadedLoop

PERIOD = 0.001
"""The minimum seconds for which events gather under sustained load, even if ``rest`` returns fewer."""

QUIET = 0.005
"""The seconds without an event after which the load counts as over, and rests of ``PERIOD`` end."""

CALM = 0.2
"""The seconds without an event after which the load counts as over, and longer rests than ``PERIOD`` end.

On a busy PBX something arrives more often.
"""

ONSET = 0.05
"""The seconds of load after which the event loop's load counts as sustained.

It must be longer than a few quick guesses, or else the ban comes too late for the last one. Five guesses at
full speed take some 5 ms. With an onset of 5 ms, and a log as the only source, a sender made 6 guesses before
it was banned (median of 20 measurements)."""

_Ready = list[tuple[selectors.SelectorKey, int]]


class GatheringSelector(selectors.BaseSelector):
    """A selector that leaves patient descriptors (those given to :meth:`mark`) alone while it rests.

    ``rest`` returns how many seconds to rest after events of patient descriptors, under sustained load.
    ``clock`` returns monotonic seconds.
    """

    def __init__(self, rest: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._rest = rest
        self._clock = clock
        self._eager = selectors.EpollSelector()
        self._patient = selectors.EpollSelector()
        self._either = select.poll()
        self._parts = {one.fileno(): one for one in (self._eager, self._patient)}
        for descriptor in self._parts:
            self._either.register(descriptor, select.POLLIN)
        maps: list[Any] = [self._eager.get_map(), self._patient.get_map()]
        self._map: Mapping[Any, selectors.SelectorKey] = ChainMap(*maps)
        self._marked: set[int] = set()
        self._rests_until = self._latest = -math.inf
        self._began = self._last_calm = -math.inf

    def mark(self, descriptor: int) -> None:
        """Let events of a descriptor gather until :meth:`unmark`, whenever it is registered."""
        self._marked.add(descriptor)
        self._move(descriptor, self._eager, self._patient)

    def unmark(self, descriptor: int) -> None:
        """Handle events of a descriptor at once from now on."""
        self._marked.discard(descriptor)
        self._move(descriptor, self._patient, self._eager)

    def _move(self, descriptor: int, old: selectors.BaseSelector, new: selectors.BaseSelector) -> None:
        if descriptor in old.get_map():
            key = old.unregister(descriptor)
            new.register(key.fileobj, key.events, key.data)

    def _of(self, fileobj: Any) -> selectors.BaseSelector:  # noqa: ANN401 - as selectors has it
        return self._patient if fileobj in self._patient.get_map() else self._eager

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:  # noqa: ANN401
        """Register a descriptor, or an object that has one."""
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        new = self._patient if descriptor in self._marked else self._eager
        return new.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401
        """Unregister a descriptor. Its mark stays."""
        return self._of(fileobj).unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:  # noqa: ANN401
        """Change the events for which a descriptor is registered."""
        return self._of(fileobj).modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return the registered descriptors with their keys."""
        return self._map

    def close(self) -> None:
        """Close the selector."""
        self._eager.close()
        self._patient.close()

    def select(self, timeout: float | None = None) -> _Ready:
        """Return the ready descriptors as pairs (key, events); marked ones only when the rest is over.

        Wait for at most ``timeout`` seconds; None means without limit. With 0, return at once.
        """
        rest = self._rests_until - self._clock()
        if rest > 0:
            ready = self._eager.select(rest if timeout is None else min(rest, timeout))
            if ready or (timeout is not None and timeout <= rest):
                return ready
            timeout = None if timeout is None else timeout - rest
        found: _Ready = []
        for descriptor, _ in self._either.poll(None if timeout is None else math.ceil(timeout * 1_000)):
            found += self._parts[descriptor].select(0)
            if self._parts[descriptor] is self._patient:
                self._begin_rest(self._clock())
        return found

    def _begin_rest(self, now: float) -> None:
        pause = now - self._latest
        if pause >= QUIET:
            self._began = now
        if pause >= CALM:
            self._last_calm = now
        self._latest = now
        rest = self._rest() if now - self._last_calm >= ONSET else 0.0
        self._rests_until = now + max(rest, PERIOD if now - self._began >= ONSET else 0.0)


class GatheringLoop(ThreadedLoop):
    """An event loop with a :class:`GatheringSelector`, and with shared threads that exist from its start."""

    def __init__(self, selector: GatheringSelector) -> None:
        super().__init__(selector)
        self.selector = selector


@contextmanager
def patient(descriptor: int) -> Iterator[None]:
    """Let events of ``descriptor`` gather during the block, if the running loop is a GatheringLoop.

    Do nothing for a closed descriptor (-1).
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, GatheringLoop) or descriptor < 0:
        yield
        return
    loop.selector.mark(descriptor)
    try:
        yield
    finally:
        loop.selector.unmark(descriptor)
