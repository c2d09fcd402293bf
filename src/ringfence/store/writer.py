"""A thread for database writes, so that the disk never delays a ban.

A commit takes 0.1 ms, but one in a few hundred waits for the disk: up to 21 ms were measured while another
program wrote much. An attacker can send 60 guesses in 21 ms. So writes run in this thread, in order, while
the event loop continues. At most ``MOST_KEPT`` writes wait: beyond that, the oldest is dropped and counted.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple

import structlog

from ringfence.errors import StoreDamagedError, StoreError
from ringfence.plurals import counted
from ringfence.threads import MOMENT, Threads, runs_loop

MOST_KEPT = 10_000
"""The maximum number of writes that wait. A write that records a ban with its attempts takes some 3 KiB.

Beyond this number, the oldest without a key is dropped. Then :attr:`BestEffort.diverged` asks for a
comparison with the ledger.
"""
WAIT = 2.0
"""Seconds that :meth:`BestEffort.recorded` waits at most for the disk."""

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_Action = Callable[[], object]
Later = Callable[[_Action], object]
"""A queue of writes, such as :class:`Writer`: it is called with a write."""


class _NoKey:
    """The key of a waiting write that was passed without one. No other write has the same."""


def at_once(action: _Action) -> object:
    """Run a write now. Callers without a queue pass this function as the argument ``later``."""
    return action()


class BestEffort:
    """Runs reads and writes of the database at ``path``; logs their errors, and raises none.

    Writes run later, in order, in a thread of their own. An error does not affect a ban, because a ban is
    recorded after the kernel has it. A write that fails, because the disk is full for example, is kept and
    tried again before each later write, and by :meth:`retry`, until it succeeds.

    ``later`` puts a write into a queue, or runs it at once. ``memory_reason`` is the reason why the database
    is in memory only, "" if it is in the file. ``gone`` returns the reason why the next start will not find
    the file, "" if it will.
    """

    def __init__(
        self,
        path: Path,
        later: Later = at_once,
        memory_reason: str = "",
        gone: Callable[[], str] = str,
    ) -> None:
        self.damage = ""
        """A message about damage that a read or write has found, with the fix; "" if there is none."""
        self.unreadable = ""
        """A message about bans whose rows were invalid at the start; "" if there were none."""
        self.dropped = 0
        """The number of writes that were dropped, because too many waited."""
        self.diverged = False
        """Whether a write was dropped or can never succeed, so that the recorded bans may lack some."""
        self._errors = {"writing": "", "switch": "", "once": "", "reading": ""}
        self._path = path
        self._later = later
        self.memory_reason = memory_reason
        self._gone = gone
        self._kept: dict[object, _Action] = {}
        self._changing, self._writing = threading.Lock(), threading.Lock()
        self._queued: object = None
        self._log = structlog.get_logger()

    @property
    def error(self) -> str:
        """The error of the latest write or read of the database that failed and still matters; or "".

        A successful read does not clear the error of a write, because a full disk can still be read.
        """
        return next(filter(None, self._errors.values()), "")

    @property
    def takes_writes(self) -> bool:
        """Whether no write has failed since the latest one that succeeded."""
        return not self._errors["writing"] and not self._errors["once"]

    @property
    def waiting(self) -> int:
        """The number of writes that are not done yet."""
        return len(self._kept)

    def waiting_calls(self, action: Callable[..., object]) -> list[tuple[Any, ...]]:
        """Return the arguments with which the writes that are not done yet call ``action``, in order."""
        with self._changing:
            kept = [*self._kept.values()]
        return [one.args for one in kept if isinstance(one, partial) and one.func == action]

    def write(self, action: Callable[[*_Ts], object], *arguments: *_Ts, key: object = None) -> object:
        """Queue a write of the database, and try it again until it succeeds; return what ``later`` returns.

        A write calls ``action`` with ``arguments``. A write with a ``key`` records a whole state. It replaces
        a waiting write with the same key.
        """
        with self._changing:
            if key is not None:
                self._kept.pop(key, None)
            elif len(self._kept) >= MOST_KEPT:
                # A state, such as the off switch, is recorded by no other write.
                del self._kept[next(one for one in self._kept if isinstance(one, _NoKey))]
                self.dropped += 1
                self.diverged = True
            self._kept[_NoKey() if key is None else key] = partial(action, *arguments)
        return self._queue()

    def write_once(self, action: _Action) -> object:
        """Queue a write of the database that is not tried again, because nothing depends on it."""
        return self._later(partial(self._done, "once", None, action))

    def write_now(self, action: Callable[[*_Ts], object], *arguments: *_Ts) -> None:
        """Run a write in the caller's thread, before this returns. If that fails, it is tried again.

        It fails in an event loop, too, if another thread writes for long.
        """
        with self._changing:
            self._kept[_NoKey()] = partial(action, *arguments)
        self.write_kept()

    def finish_record(self, action: Callable[[*_Ts], object], *arguments: *_Ts) -> None:
        """Run the last step of recording the off switch; until it succeeds, :attr:`lacks` has the reason."""
        self._done("switch", None, action, *arguments)

    def retry(self) -> None:
        """Try the waiting writes again."""
        if self._kept:
            self._queue()

    async def _undone(self) -> Collection[object]:
        """Wait at most :data:`WAIT` until the writes that wait now are done; return those that are not.

        Nobody waits for writes that arrive meanwhile: under an attack, some write always waits.
        """
        reached: Future[None] = Future()
        mark, action = _NoKey(), partial(reached.set_result, None)
        with self._changing:
            earlier = [*self._kept.items()]
            if earlier:
                self._kept[mark] = action  # behind these writes: those that follow may take long
        done = self._queue() if earlier else None
        try:
            if isinstance(done, Future):
                ends = [asyncio.wrap_future(one) for one in (reached, done)]
                await asyncio.wait(ends, timeout=WAIT, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also if the client has gone
            self._forget(mark, action)
        return [key for key, one in earlier if self._kept.get(key) is one]

    async def recorded(self) -> str:
        """Wait for the writes that wait now, for a moment; return why the database lacks some, "" if none.

        So a person who commands a change learns whether it survives a restart.
        """
        return self._lacks(await self._undone())

    async def caught_up(self) -> bool:
        """Wait as :meth:`recorded` does; return whether the database has all that was to be written."""
        return not await self._undone()

    @property
    def lacks(self) -> str:
        """The reason why the database lacks something that is in force; "" if it lacks nothing."""
        return self._lacks(self._kept)

    def _lacks(self, waiting: Collection[object]) -> str:
        """Return why the database lacks something; "" if it lacks nothing. ``waiting``: undone writes."""
        slow = f"{self._path}: the disk is slow, and the record still waits" if waiting else ""
        why = "some writes were dropped, because too many waited or one can never succeed"
        dropped = f"{self._path}: {why}" if self.diverged else ""
        failed = (self._errors["writing"] if waiting else "") or self._errors["switch"]
        return self.memory_reason or self.damage or self._gone() or failed or slow or dropped

    def read(self, action: Callable[[*_Ts], _T], fallback: _T, *arguments: *_Ts) -> _T:
        """Call a read in the caller's thread. Return its result, or ``fallback`` if it fails."""
        return self._done("reading", fallback, action, *arguments)

    def required(self, action: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        """Call a read in the caller's thread, and return its result. Log, keep and raise its error."""
        return self._tried("reading", action, *arguments)

    def report(self, error: StoreError) -> None:
        """Log and keep the error of a read that the caller ran by itself."""
        self._failed(error, "reading")

    def report_unreadable(self, number: int) -> None:
        """Log and keep a message that the rows of ``number`` bans were invalid at the start."""
        self.unreadable = f"{counted(number, 'ban')} in {self._path} left out as invalid"
        self._log.error("store.failed", error=self.unreadable)

    def _queue(self) -> object:
        """Queue a call of :meth:`write_kept`, unless one is queued; return what ``later`` returns."""
        queued = self._queued
        if not isinstance(queued, Future) or queued.running() or queued.done():
            self._queued = queued = self._later(self.write_kept)
        return queued

    def write_kept(self) -> None:
        """Run the writes that wait now, in order, until one fails that may succeed later.

        They run in the caller's thread; the daemon calls this when the queue has ended. An event loop does
        not wait for another thread that writes for long: then none is run. Writes that arrive meanwhile have
        a call of their own, so that nobody waits for them. If writes have defects, raise the first defect at
        the end, because a defect must not stop the other writes.
        """
        if not self._writing.acquire(timeout=MOMENT if runs_loop() else -1):
            return
        try:
            defects = self._run_kept()
        finally:
            self._writing.release()
        for other in defects[1:]:
            self._log.error("writer.defect", exc_info=other)
        if defects:
            raise defects[0]

    def _run_kept(self) -> list[Exception]:
        """Run the writes that wait now, as :meth:`write_kept` does, and return their defects."""
        defects, failed = list[Exception](), False
        with self._changing:
            waiting = [*self._kept.items()]
        for key, action in waiting:
            if self._kept.get(key) is not action:  # dropped, or replaced by a later state
                continue
            try:
                action()
            except StoreError as error:
                self._failed(error, "writing")
                failed = True
                if _may_succeed_later(error):
                    break
                self.diverged = self.diverged or not self.damage
            except Exception as error:  # noqa: BLE001 - the caller raises or logs it
                defects.append(error)
                self.diverged = True
            self._forget(key, action)
        if waiting and not failed:  # the disk takes writes again, also that of the next purge
            self._errors["writing"] = self._errors["once"] = ""
        return defects

    def _forget(self, key: object, action: _Action) -> None:
        with self._changing:
            if self._kept.get(key) is action:
                del self._kept[key]

    def _done(self, operation: str, fallback: _T, action: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        try:
            return self._tried(operation, action, *arguments)
        except StoreError:
            return fallback

    def _tried(self, operation: str, action: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        try:
            result = action(*arguments)
        except StoreError as error:
            self._failed(error, operation)
            raise
        self._errors[operation] = ""
        return result

    def _failed(self, error: StoreError, operation: str) -> None:
        known = str(error) in self._errors.values()
        self._errors[operation] = str(error)
        if isinstance(error, StoreDamagedError):
            self.damage = str(error)
        if not known:
            self._log.error("store.failed", error=str(error))


def _may_succeed_later(error: StoreError) -> bool:
    """Whether to try a write again: the disk, a lock or a right caused ``error``, not the content."""
    environment = sqlite3.OperationalError, OSError, NoneType
    return not isinstance(error, StoreDamagedError) and isinstance(error.__cause__, environment)


WAIT_AT_END = 2.0
"""Seconds to wait for queued writes at the daemon's end. Each write to a locked database takes 5 s."""


class Writer:
    """A single-threaded FIFO executor for database writes.

    It needs no limit: at most one call of :meth:`BestEffort.write_kept` waits, and one purge an hour.
    """

    def __init__(self) -> None:
        self._waiting = 0
        self.thread = Threads(1, "later")
        self._log = structlog.get_logger()

    def __call__(self, action: _Action) -> Future[object]:
        """Queue ``action``. An exception that it raises is a defect, and is logged with its traceback.

        Return the future of ``action``.
        """
        self._waiting += 1
        future = self.thread.submit(action)
        future.add_done_callback(self._done)
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the queued actions; after WAIT_AT_END seconds, wait only for the one that runs."""
        if self._waiting:
            wait([self.thread.submit(bool)], WAIT_AT_END)
        self.thread.shutdown(cancel_futures=True)

    def _done(self, future: Future[object]) -> None:
        self._waiting -= 1
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._log.error("writer.defect", exc_info=error)
