"""A thread for database writes, so that the disk never delays a ban.

A commit takes 0.1 ms, but one in a few hundred waits for the disk: up to 21 ms were measured while another
program wrote much. An attacker can send 60 guesses in 21 ms. So writes run in this thread, in order, while
the event loop continues. The queue is limited: if ``MOST`` writes are waiting, a new one is refused and
counted.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import structlog

from ringfence.errors import StoreDamagedError, StoreError

# -- best-effort access to the database: writes are queued, errors are logged and never raised
#
# Writes run later, in order, in a thread of their own. An error is logged once and kept in
# :attr:`BestEffort.error`. An error does not affect a ban, because a ban is recorded after the kernel has
# it.


_T = TypeVar("_T")


def at_once(action: Callable[[], object]) -> None:
    """Run a write now. Callers without a queue pass this function as the argument ``later``."""
    action()


class BestEffort:
    """Runs reads and writes of the database at ``path``; logs their errors, and keeps the latest.

    ``later`` puts a write into a queue, or runs it at once.
    """

    def __init__(self, path: Path, later: Callable[[Callable[[], object]], object] = at_once) -> None:
        self.damage = ""
        """A message about damage that a read or write has found, with the fix; "" if there is none."""
        self.unreadable = ""
        """A message about bans whose rows were invalid at the start; "" if there were none."""
        self._errors = {"writing": "", "reading": ""}
        self._path = path
        self._later = later
        self._log = structlog.get_logger()

    @property
    def error(self) -> str:
        """The error of the latest write, or if that succeeded, of the latest read; "" if both succeeded.

        A successful read does not clear the error of a write, because a full disk can still be read.
        """
        return self._errors["writing"] or self._errors["reading"]

    @property
    def takes_writes(self) -> bool:
        """Whether the latest write succeeded."""
        return not self._errors["writing"]

    def write(self, action: Callable[[], object]) -> object:
        """Pass a write to ``later``, and return what ``later`` returns."""
        return self._later(lambda: self._done(action, None, "writing"))

    def write_now(self, action: Callable[[], object]) -> None:
        """Run a write in the caller's thread, before this returns."""
        self._done(action, None, "writing")

    def read(self, action: Callable[[], _T], fallback: _T) -> _T:
        """Run a read in the caller's thread. Return its result, or ``fallback`` if it fails."""
        return self._done(action, fallback, "reading")

    def report(self, error: StoreError) -> None:
        """Log and keep the error of a read that the caller ran without :meth:`read`."""
        self._failed(error, "reading")

    def report_unreadable(self, number: int) -> None:
        """Log and keep a message: at the start, the rows of ``number`` bans were invalid."""
        self.unreadable = f"{number} bans in {self._path} are invalid and are left out"
        self._log.error("store.failed", error=self.unreadable)

    def _done(self, action: Callable[[], _T], fallback: _T, operation: str) -> _T:
        try:
            result = action()
        except StoreError as error:
            self._failed(error, operation)
            return fallback
        self._errors[operation] = ""
        return result

    def _failed(self, error: StoreError, operation: str) -> None:
        known = str(error) in self._errors.values()
        self._errors[operation] = str(error)
        if isinstance(error, StoreDamagedError):
            self.damage = str(error)
        if not known:
            self._log.error("store.failed", error=str(error))


MOST = 10_000
"""The maximum number of waiting writes. A write that records a ban with its attempts takes some 3 KiB."""


class Writer:
    """A single-threaded, bounded FIFO executor for database writes."""

    def __init__(self, most: int = MOST) -> None:
        self.refused = 0
        self._most = most
        self._waiting = 0
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="later")
        self._log = structlog.get_logger()

    @property
    def waiting(self) -> int:
        """The number of writes that wait or run."""
        return self._waiting

    def __call__(self, action: Callable[[], object]) -> Future[object] | None:
        """Queue ``action``. An exception that it raises is a defect, and is logged with its traceback.

        Return the future of ``action``. If the queue is full, count ``action`` as refused and return None.
        """
        if self._waiting >= self._most:
            self.refused += 1
            return None
        self._waiting += 1
        future = self._pool.submit(action)
        future.add_done_callback(self._done)
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all queued actions are done."""
        self._pool.shutdown()

    def _done(self, future: Future[object]) -> None:
        self._waiting -= 1
        error = future.exception()
        if error is not None:
            self._log.error("writer.defect", exc_info=error)
