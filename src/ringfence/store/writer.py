"""A thread for database writes, so that the disk never delays a ban.

A commit takes 0.1 ms, but one in a few hundred waits for the disk: up to 21 ms were measured while another
program wrote much. An attacker can send 60 guesses in 21 ms. So writes run in this thread, in order, while
the event loop continues. The queue is limited: if ``MOST`` writes are waiting, a new one is refused and
counted.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import structlog

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
