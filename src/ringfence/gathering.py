"""An event loop that lets events gather, as network drivers moderate interrupts.

One guess causes some six packets and lines of logs. A wake-up for each of them would cost more time than all
decoding and judging. So sources mark their descriptors as *patient* (:func:`patient`). Under sustained load,
after the loop has handled what arrived at these, it rests: it leaves them alone for some time, and then
handles together what has arrived. After a pause it handles events at once for ``ONSET`` seconds. So on a calm
host a ban comes in time for a guesser that nothing else limits.

Only patient descriptors wait. Timers, commands, pages and the work of threads are handled at once. A rest
ends early if much arrives at the manager interface, so an attack at full speed is noticed at once. It also
ends if a source has left something unread (:func:`more_waits`).
"""

import asyncio
import errno
import math
import select
import selectors
import socket
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import structlog

from ringfence.threads import ThreadedLoop

PERIOD = 0.001
"""The minimum seconds for which events gather under sustained load, even if ``rest`` returns fewer."""

QUIET = 0.005
"""The seconds without an event after which events no longer gather for ``PERIOD``: the load is over."""

CALM = 0.2
"""The seconds without an event after which events no longer gather for longer than ``PERIOD``.

On a busy PBX something arrives more often.
"""

ONSET = 0.05
"""The seconds of load after which the event loop's load counts as sustained.

It must be longer than a few quick guesses, or else the ban comes too late for the last one. Five guesses at
full speed take some 5 ms. With an onset of 5 ms, and a log as the only source, a sender made 6 guesses before
it was banned (median of 20 measurements)."""

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Error numbers of a host that lacks descriptors or memory."""

_Ready = list[tuple[selectors.SelectorKey, int]]


class Connection(Protocol):
    """A TCP connection, as asyncio shows it."""

    def fileno(self) -> int:
        """Return the descriptor; -1 if the connection is closed."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Set a socket option."""


class GatheringSelector(selectors.BaseSelector):
    """A selector that leaves patient descriptors (those given to :meth:`mark`) alone while it rests.

    ``rest`` returns how many seconds to rest after events of patient descriptors, under sustained load. A
    longer rest is cut to ``PERIOD`` when it returns 0. ``clock`` returns monotonic seconds.
    """

    def __init__(self, rest: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._rest = rest
        self._clock = clock
        self._eager = selectors.EpollSelector()
        self._patient = selectors.EpollSelector()
        self._crowds = select.epoll()
        self._during_rest, self._after_rest = select.poll(), select.poll()
        for poll in (self._during_rest, self._after_rest):
            poll.register(self._eager.fileno(), select.POLLIN)
        self._during_rest.register(self._crowds.fileno(), select.POLLIN)
        self._after_rest.register(self._patient.fileno(), select.POLLIN)
        maps: list[Any] = [self._eager.get_map(), self._patient.get_map()]
        self._map: Mapping[Any, selectors.SelectorKey] = ChainMap(*maps)
        self._connections: dict[int, tuple[Connection, int]] = {}
        self._marked: set[int] = set()
        self._rests = False
        self._rests_until = self._latest = -math.inf
        self._began = self._last_calm = -math.inf

    def mark(self, descriptor: int) -> None:
        """Let events of a descriptor gather until :meth:`unmark`, whenever it is registered."""
        self._marked.add(descriptor)
        self._move(descriptor, self._eager, self._patient)

    def unmark(self, descriptor: int) -> None:
        """Handle events of a descriptor at once from now on."""
        self._marked.discard(descriptor)
        connection, _ = self._connections.pop(descriptor, (None, 0))
        if connection is not None:
            with suppress(OSError):  # it is closed, so the kernel has removed it
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                self._crowds.unregister(descriptor)
        self._move(descriptor, self._patient, self._eager)

    def end_rest_at(self, connection: Connection, much: int) -> None:
        """End each rest when ``much`` bytes of a connection wait, until :meth:`unmark` of its descriptor."""
        self._crowds.register(connection.fileno(), select.EPOLLIN)
        self._connections[connection.fileno()] = connection, much

    def end_rest(self) -> None:
        """End the rest now, because a source has left something unread at its descriptor."""
        self._rests_until = -math.inf

    def _set_low_water(self, *, much: bool) -> None:
        """Make connections count as readable only if much waits there, or if anything does."""
        for connection, size in self._connections.values():
            with suppress(OSError):  # it is closed
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size if much else 1)

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
        self._crowds.close()

    def select(self, timeout: float | None = None) -> _Ready:
        """Return the ready descriptors as pairs (key, events); marked ones only when the rest is over.

        Wait for at most ``timeout`` seconds; None means without limit. With 0, return at once.
        """
        if self._rests_until > self._latest + PERIOD and not self._rest():
            self._rests_until = self._latest + PERIOD  # something among the last events forbids the rest
        rest = self._rests_until - self._clock()
        if rest > 0:
            found = _wait(self._during_rest, rest if timeout is None else min(rest, timeout))
            if self._crowds.fileno() in found:
                timeout = 0
            elif found or (timeout is not None and timeout <= rest):
                return self._eager.select(0) if found else []
            else:
                timeout = None if timeout is None else timeout - rest
        if self._rests:
            self._rests, self._rests_until = False, -math.inf
            self._set_low_water(much=False)
        found = _wait(self._after_rest, timeout)
        ready = self._eager.select(0) if self._eager.fileno() in found else []
        if self._patient.fileno() in found:
            ready += self._patient.select(0)
            self._begin_rest(self._clock())
        return ready

    def _begin_rest(self, now: float) -> None:
        pause = now - self._latest
        if pause >= QUIET:
            self._began = now
        if pause >= CALM:
            self._last_calm = now
        self._latest = now
        rest = self._rest() if now - self._last_calm >= ONSET else 0.0
        seconds = max(rest, PERIOD if now - self._began >= ONSET else 0.0)
        self._rests, self._rests_until = seconds > 0, now + seconds
        if self._rests:
            self._set_low_water(much=True)


def _wait(poll: select.poll, timeout: float | None) -> list[int]:
    """Return the descriptors of ``poll`` that are ready, after at most ``timeout`` seconds."""
    return [one for one, _ in poll.poll(None if timeout is None else math.ceil(timeout * 1_000))]


class GatheringLoop(ThreadedLoop):
    """An event loop with a :class:`GatheringSelector`, and with shared threads that exist from its start."""

    def __init__(self, selector: GatheringSelector) -> None:
        super().__init__(selector)
        self.selector = selector

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log a lack of descriptors or memory in one line: it is no defect. Log all else as asyncio does.

        asyncio reports so that it could not accept a connection. It tries again after a second.
        """
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            what = context.get("message", "")
            structlog.get_logger().error("loop.out_of_resources", what=what, error=error.strerror)
        else:
            super().default_exception_handler(context)


@contextmanager
def patient(descriptor: int | Connection, much: int = 0) -> Iterator[None]:
    """Let events of a descriptor gather during the block, if the running loop is a GatheringLoop.

    With ``much``, it is a connection, and a rest ends when so many bytes wait there. Do nothing for a closed
    descriptor (-1).
    """
    loop = asyncio.get_running_loop()
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    if not isinstance(loop, GatheringLoop) or number < 0:
        yield
        return
    loop.selector.mark(number)
    if not isinstance(descriptor, int):
        loop.selector.end_rest_at(descriptor, much)
    try:
        yield
    finally:
        loop.selector.unmark(number)


def more_waits() -> None:
    """End the rest of the running loop, if it is a GatheringLoop, because a descriptor was not read empty."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, GatheringLoop):
        loop.selector.end_rest()
