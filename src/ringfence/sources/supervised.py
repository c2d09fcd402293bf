"""The part that all sources share: a condition, and sessions that are begun again after each end."""

import asyncio
import random

import structlog

from ringfence.clock import Backoff
from ringfence.sources.state import Condition, EndError, State

GOOD_AFTER = 30.0
"""A session of this length (seconds) was good, so the next one begins soon."""


class SupervisedSource:
    """A source with sessions: a connection, a binding, a file that is followed. :meth:`run` repeats them.

    ``condition`` may be read at any time. ``settled`` is set once the first state is known. A defect of
    ringfence ends the session in which it happened: ``status`` shows it, and the source continues.
    """

    good_after = GOOD_AFTER

    def __init__(self, log: structlog.stdlib.BoundLogger, backoff: Backoff | None = None) -> None:
        self.condition = Condition(State.CONNECTING)
        self.settled = asyncio.Event()
        self._log = log
        self._backoff = backoff if backoff is not None else Backoff(choose=random.uniform)

    async def run(self) -> None:
        """Run one session after the other until cancelled."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        while True:
            began = loop.time()
            try:
                await self._session()
            except EndError as end:
                self._set_condition(end.condition)
            except Exception as error:  # noqa: BLE001 - whatever it is, the source goes on
                defect = Condition(State.DEFECT, f"{type(error).__name__}; see the log")
                if defect != self.condition:
                    self._log.exception("source.defect")
                self._set_condition(defect)
            if task is not None and task.cancelling():
                # It was cancelled at the moment when the session ended, and TaskGroup raised the latter.
                raise asyncio.CancelledError
            if loop.time() - began >= self.good_after:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next())

    async def _session(self) -> None:
        """Run until the session ends; raise an EndError with the resulting condition."""
        raise NotImplementedError

    def _set_condition(self, condition: Condition) -> None:
        if condition == self.condition:
            return
        changed, self.condition = condition.state is not self.condition.state, condition
        self.settled.set()
        if changed:
            listens = condition.state is State.LISTENING
            (self._log.info if listens else self._log.warning)(
                "source.state", state=str(condition.state), detail=condition.detail
            )
