"""A thread for what may wait: the database's disk must not stand between an event and a ban.

A commit takes 0.1 ms and, once in some hundred, waits for the disk: 21 ms were measured beside a program
that writes much, and somebody else makes 60 guesses in that time. So what is only to be remembered is done
here, in order, while the event loop goes on. Bounded: beyond ``MOST`` things that wait, a new one is refused
and counted.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import structlog

MOST = 10_000
"""Bans with their evidence, some 3 KiB each."""


class Later:
    """Call it with what is to be done; it is done after all that was given before."""

    def __init__(self, most: int = MOST) -> None:
        self.refused = 0
        self._most = most
        self._waiting = 0
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="later")
        self._log = structlog.get_logger()

    def __call__(self, action: Callable[[], object]) -> Future[object] | None:
        """Have ``action`` done; what it raises is a defect, and is logged in full.

        Give what its end can be waited for by, None where it was refused.
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
        """Wait until everything is done."""
        self._pool.shutdown()

    def _done(self, future: Future[object]) -> None:
        self._waiting -= 1
        error = future.exception()
        if error is not None:
            self._log.error("later.defect", exc_info=error)
