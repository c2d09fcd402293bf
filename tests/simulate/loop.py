"""An event loop without real time, and the time itself.

Everything outside of the daemon's process (packets, bytes of Asterisk, threads, a kill) is an *action* of
the :class:`Schedule`. The loop carries an action out when its time has come. Actions and timers that are due
at the same moment have an order that follows from the seed. Callbacks of ``call_soon`` keep theirs: asyncio
promises it, so no real loop has another one.

Each callback takes some time, which follows from the seed too. So two timers close to each other may be due
together, or one after the other.
"""

import asyncio
import errno
import hashlib
import os
import random
import threading
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any, Generic, Protocol, TypeVar

from ringfence.threads import Threads

UP_FOR = 1_000_000.0
"""The monotonic clock when a simulation begins (seconds)."""

LONGEST_STEP = 0.0003
"""The longest time that one callback takes (seconds)."""

LONGEST_WAY = 0.002
"""The longest time that bytes are on their way, without a delay (seconds)."""

LONGEST_WORK = 0.02
"""The longest time until a thread has done a piece of work (seconds)."""

Action = Callable[[], object]
T = TypeVar("T")


class Killed(BaseException):
    """The process of the daemon was killed between two callbacks."""


class Schedule:
    """The clocks, and the actions that are due at a later time. ``wall`` is the time of day at the start."""

    def __init__(self, chosen: random.Random, wall: float) -> None:
        self.chosen = chosen
        self.mono = UP_FOR
        self.ahead = wall - UP_FOR
        """The wall clock minus the monotonic clock (seconds)."""
        self._due: list[tuple[float, int, Action]] = []
        self._number = count()

    @property
    def wall(self) -> float:
        """The time of day (seconds since the epoch)."""
        return self.mono + self.ahead

    @property
    def next(self) -> float:
        """The time of the next action (monotonic seconds)."""
        return self._due[0][0] if self._due else inf

    def after(self, seconds: float, action: Action) -> None:
        """Carry out an action after some seconds."""
        heappush(self._due, (self.mono + seconds, next(self._number), action))

    def take_due(self) -> list[Action]:
        """Return the actions that are due now, and forget them."""
        found = []
        while self._due and self._due[0][0] <= self.mono:
            found.append(heappop(self._due)[2])
        return found

    def run_until(self, until: float, loop: "SimulatedLoop | None" = None) -> None:
        """Let the time pass, with a daemon in ``loop`` or without one."""
        while self.mono < until:
            if loop is not None:
                loop.turn(until)
                continue
            self.mono = max(self.mono, min(until, self.next))
            for action in self.take_due():
                action()


class Channel(Generic[T]):
    """A way on which nothing overtakes: ``receive`` gets each thing some time after :meth:`send`."""

    def __init__(self, schedule: Schedule, receive: Callable[[T], object]) -> None:
        self._schedule = schedule
        self._receive = receive
        self._waiting = deque[T]()
        self._until = 0.0

    def send(self, thing: T, delay: float = 0.0) -> None:
        """Let a thing arrive after a delay (seconds), and after everything that was sent earlier."""
        now = self._schedule.mono
        self._until = max(self._until, now + delay + self._schedule.chosen.random() * LONGEST_WAY)
        self._waiting.append(thing)
        self._schedule.after(self._until - now, self._arrive)

    def _arrive(self) -> None:
        self._receive(self._waiting.popleft())


class Readable(Protocol):
    """A descriptor that the loop can watch."""

    def waits(self) -> bool:
        """Whether something waits to be read."""


class Peer(Protocol):
    """A program to which the daemon connects."""

    def connected(self, transport: "SimulatedTransport") -> None:
        """Handle a new connection."""

    def received(self, transport: "SimulatedTransport", data: bytes) -> None:
        """Handle bytes of the daemon."""


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address in memory, but on its number in its loop."""

    def __init__(self, work: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:  # noqa: ANN401 - asyncio's
        self._number = number
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedLoop(asyncio.BaseEventLoop):
    """The event loop of one process of the daemon. ``peers`` are the programs that listen, by port.

    The attribute ``defects`` has the errors that no task handled. ``dies_after`` is the number of callbacks
    until the process is killed, None if it is not.
    """

    def __init__(self, schedule: Schedule, peers: dict[int, Peer]) -> None:
        super().__init__()
        self.defects: list[str] = []
        self.dies_after: int | None = None
        self.trace = hashlib.blake2b(digest_size=8)
        """The digest of every callback and its time."""
        self._schedule = schedule
        self._peers = peers
        self._readers: dict[Readable, asyncio.Handle] = {}
        self._signals: dict[int, Action] = {}
        numbers = count()
        self.set_task_factory(lambda loop, work, **options: _Task(work, next(numbers), loop=loop, **options))
        self.set_exception_handler(self._on_defect)
        self.set_default_executor(Threads(6, "shared"))

    def time(self) -> float:
        """Return the monotonic clock."""
        return self._schedule.mono

    def turn(self, until: float) -> None:
        """Carry out what is due, and all callbacks that are ready. Raise Killed if the process is killed.

        If nothing is due, the time passes until something is, but not beyond ``until``.
        """
        loop: Any = self  # the two queues of asyncio's own loop
        while loop._scheduled and loop._scheduled[0]._cancelled:
            loop._timer_cancelled_count -= 1
            heappop(loop._scheduled)._scheduled = False
        waiting = [reader for reader in self._readers if reader.waits()]
        schedule = self._schedule
        if not loop._ready and not waiting:
            when = loop._scheduled[0]._when if loop._scheduled else inf
            schedule.mono = max(schedule.mono, min(when, schedule.next, until))
        due: list[asyncio.Handle | Action] = [*schedule.take_due(), *(self._readers[one] for one in waiting)]
        while loop._scheduled and loop._scheduled[0]._when <= schedule.mono:
            handle = heappop(loop._scheduled)
            handle._scheduled = False
            due.append(handle)
        schedule.chosen.shuffle(due)
        events._set_running_loop(self)
        loop._thread_id = threading.get_ident()
        try:
            for one in due:
                if isinstance(one, asyncio.Handle):
                    loop._ready.append(one)
                else:
                    one()
            for _ in range(len(loop._ready)):
                handle = loop._ready.popleft()
                if not handle._cancelled:
                    self._run(handle)
        finally:
            loop._thread_id = None
            events._set_running_loop(None)

    def _run(self, handle: Any) -> None:  # noqa: ANN401 - asyncio's private handle
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                raise Killed
        self._schedule.mono += self._schedule.chosen.random() * LONGEST_STEP
        self.trace.update(f"{self._schedule.mono!r} {_name_of(handle._callback)}\n".encode())
        handle._run()

    def _on_defect(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.defects.append(f"{context.get('message')}: {context.get('exception')!r}")

    def signal(self, number: int) -> None:
        """Send the process a signal. Without a handler, the next callback kills it."""
        if number in self._signals:
            self.call_soon(self._signals[number])
        else:
            self.dies_after = 0

    # -- what asyncio's own loops add to their base class

    def add_signal_handler(self, number: int, callback: Any, *arguments: Any) -> None:  # type: ignore[override]  # noqa: ANN401
        """Set the handler of a signal."""
        self._signals[number] = lambda: callback(*arguments)

    def add_reader(self, descriptor: Any, callback: Any, *arguments: Any) -> None:  # type: ignore[override]  # noqa: ANN401
        """Call ``callback`` in each turn in which something waits at the descriptor."""
        self._readers[descriptor] = asyncio.Handle(callback, arguments, self)

    def remove_reader(self, descriptor: Any) -> bool:  # noqa: ANN401
        """Watch the descriptor no longer."""
        handle = self._readers.pop(descriptor, None)
        if handle is not None:
            handle.cancel()
        return handle is not None

    async def create_connection(self, factory: Any, host: str, port: int, **_: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        """Connect to the program that listens at a port; raise ConnectionRefusedError if none does."""
        await asyncio.sleep(self._schedule.chosen.random() * LONGEST_WORK)
        peer = self._peers.get(port)
        if peer is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        protocol = factory()
        transport = SimulatedTransport(self._schedule, self, protocol, peer, (host, port))
        protocol.connection_made(transport)
        peer.connected(transport)
        return transport, protocol

    def _write_to_self(self) -> None:
        """Do nothing: no thread runs, so nobody waits."""

    def _process_events(self, _: object) -> None:
        """Do nothing: no selector is used."""


def _name_of(callback: Any) -> str:  # noqa: ANN401 - any callable
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return getattr(task.get_coro(), "__qualname__", "")
    return getattr(callback, "__qualname__", type(callback).__qualname__)


class SimulatedTransport(asyncio.Transport):
    """One connection of the daemon to a :class:`Peer`, with an order of bytes and a delay of each way."""

    def __init__(
        self,
        schedule: Schedule,
        loop: SimulatedLoop,
        protocol: asyncio.BufferedProtocol,
        peer: Peer,
        remote: tuple[str, int],
    ) -> None:
        super().__init__({"socket": -1, "sockname": ("127.0.0.1", 40_000), "peername": remote})
        self.is_open = True
        self.slow_until = 0.0
        """The time until which no byte of the peer arrives (monotonic seconds)."""
        self._schedule = schedule
        self._loop = loop
        self._protocol = protocol
        self._peer = peer
        self._coming = Channel(schedule, self._arrived)
        self._going = Channel(schedule, self._arrived_there)

    def write(self, data: Any) -> None:  # noqa: ANN401 - asyncio's
        """Send bytes of the daemon."""
        self._going.send(bytes(data))

    def _arrived_there(self, data: bytes) -> None:
        if self.is_open:
            self._peer.received(self, data)

    def deliver(self, data: bytes, delay: float = 0.0) -> None:
        """Send bytes of the peer, in pieces that follow from the seed, after a delay (seconds)."""
        chosen = self._schedule.chosen
        delay = max(delay, self.slow_until - self._schedule.mono)
        while data:
            size = chosen.choice((len(data), chosen.randint(1, len(data))))
            piece, data = data[:size], data[size:]
            self._coming.send(piece, delay)

    def _arrived(self, piece: bytes) -> None:
        if self.is_open:
            self._loop.call_soon(self._receive, piece)

    def _receive(self, piece: bytes) -> None:
        while piece and self.is_open:
            buffer: Any = self._protocol.get_buffer(-1)
            taken = piece[: len(buffer)]
            buffer[: len(taken)] = taken
            piece = piece[len(taken) :]
            self._protocol.buffer_updated(len(taken))

    def abort(self) -> None:
        """End the connection. Bytes that have not arrived are lost."""
        if self.is_open:
            self.is_open = False
            with suppress(RuntimeError):  # the process was killed, and its loop is closed
                self._loop.call_soon(self._protocol.connection_lost, None)


class ThreadWork:
    """The work of threads: it is done in the event loop's thread, some time later.

    One thread does its work in order. The threads of a pool do theirs in an order that follows from the seed.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._free_at: dict[Threads, float] = {}
        self._life = 0  # of the process to which the threads belong

    def kill(self) -> None:
        """Forget all work, because the process was killed."""
        self._free_at.clear()
        self._life += 1

    def submit(self, pool: Threads, action: Callable[[], Any]) -> Future[Any]:
        """Do the work later, and return its future."""
        future: Future[Any] = Future()
        life = self._life
        took = self._schedule.chosen.random() * LONGEST_WORK
        begins = self._schedule.mono
        if pool._max_workers == 1:
            begins = max(begins, self._free_at.get(pool, 0.0))
            self._free_at[pool] = begins + took + 1e-9

        def work() -> None:
            if life == self._life and future.set_running_or_notify_cancel():
                try:
                    future.set_result(action())
                except BaseException as error:  # noqa: BLE001 - the future's, as in a thread
                    future.set_exception(error)

        self._schedule.after(begins + took - self._schedule.mono, work)
        return future
