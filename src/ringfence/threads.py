"""Threads that exist before they are needed.

The kernel may refuse a new thread at any moment: the limit of tasks is reached, or memory is short. Python's
own pools start a thread when work arrives, so the refusal would end whatever asked for the work. The threads
of :class:`Threads` are all started together: the daemon does so before it is READY. Afterwards it starts only
threads whose refusal fails nothing but their own work (:func:`start_aside`).
"""

import asyncio
import os
import selectors
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, ParamSpec, TypeVar

from ringfence.errors import StartError

P = ParamSpec("P")
T = TypeVar("T")

SHARED = 6
"""The number of threads of an event loop's own pool, which ``asyncio.to_thread`` uses.

It is larger than the number of requests that run for all users except root (``control_server.MOST_RUNNING``).
"""

MOMENT = 0.2
"""The most seconds that an event loop waits for a lock that a thread or another process holds."""


def runs_loop() -> bool:
    """Whether this thread runs an event loop now, so that it must wait for nothing else."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_REFUSED = (
    "cannot start a thread: resource temporarily unavailable; fix: raise the limit of tasks (TasksMax= of "
    "the unit, ulimit -u), or free memory"
)


def start_aside(action: Callable[[], object], name: str) -> None:
    """Run ``action`` in a new thread; the process may end before it. Raise StartError if it cannot start."""
    try:
        Thread(target=action, name=name, daemon=True).start()
    except (RuntimeError, MemoryError):
        raise StartError(_REFUSED) from None


@contextmanager
def descriptors_needed() -> Iterator[None]:
    """Raise StartError if the block, which makes an event loop or its selector, raises OSError."""
    try:
        yield
    except OSError as error:
        raise StartError(
            f"cannot make an event loop: {error.strerror}; fix: raise the limit of open files "
            "(LimitNOFILE= of the unit, ulimit -n), or free memory"
        ) from None


class Threads(ThreadPoolExecutor):
    """A pool of ``number`` threads, which are started together: by :meth:`start`, or by the first work."""

    def __init__(self, number: int, name: str) -> None:
        super().__init__(number, name)
        self._number = number
        self._is_started = False

    def start(self) -> None:
        """Start all threads. Raise StartError if the kernel refuses one; the next call tries again."""
        if self._is_started:
            return
        gate = Event()  # no thread is free before all exist, so each piece of work needs a thread of its own
        try:
            for _ in range(self._number):
                super().submit(gate.wait)
        except (RuntimeError, MemoryError):
            raise StartError(_REFUSED) from None
        finally:
            gate.set()
        self._is_started = True

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn`` in one of the threads. Raise StartError if they do not exist and cannot be started."""
        self.start()
        return super().submit(fn, *args, **kwargs)


class ThreadedLoop(asyncio.SelectorEventLoop):
    """An event loop whose shared threads exist from its start, and which starts no other thread.

    Raise StartError if they cannot be started, or if the kernel refuses a descriptor.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        with descriptors_needed():
            try:
                super().__init__(selector)
            except OSError:
                asyncio.BaseEventLoop.close(self)  # its own close() needs the parts that could not be made
                raise
        self._shared = Threads(SHARED, "shared")
        try:
            self._shared.start()
        except BaseException:
            self.close()
            raise
        self.set_default_executor(self._shared)
        if sys.version_info < (3, 12):  # later versions wait for children as this does
            self._wait_for_children()

    def _wait_for_children(self) -> None:
        """Make asyncio wait for child processes by their descriptors, not by a thread for each child."""
        try:
            os.close(os.pidfd_open(os.getpid()))
        except (AttributeError, OSError):  # before Linux 5.3
            return
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(self)
        asyncio.set_child_watcher(watcher)

    def close(self) -> None:
        """Close the loop; later loops of this process wait for child processes as Python does by default."""
        super().close()
        if sys.version_info < (3, 12):
            asyncio.set_child_watcher(asyncio.ThreadedChildWatcher())  # the default

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Wait until the loop's shared threads have ended. Unlike asyncio, start no thread for that."""
        self._shared.shutdown()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as ``asyncio.run`` does, but raise StartError if a thread cannot be started."""
    try:
        with asyncio.Runner(loop_factory=ThreadedLoop) as runner:
            return runner.run(work)
    finally:
        work.close()  # without effect if it has ended
