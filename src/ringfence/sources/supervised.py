"""The base class of sources: it keeps the condition, and runs one session after the other."""

import asyncio
import random

import structlog

from ringfence.clock import Backoff
from ringfence.sources.state import Condition, EndError, State

GOOD_AFTER = 30.0
"""If a session lasted at least this long (seconds), the pause before the next one is short again."""


class SupervisedSource:
    """A source that works in sessions. :meth:`run` begins a new one after each end.

    A session is one connection, one binding of a socket, or the following of one file. ``condition`` may be
    read at any time. ``settled`` is set once the first session has reported its state. ``backoff`` computes
    the pauses between sessions. An exception that is not an EndError is a defect of ringfence: it ends the
    session, ``status`` shows it, and the next session begins.
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
                # The task was cancelled while the session ended. The session's TaskGroup then raises the
                # session's own error in place of CancelledError.
                raise asyncio.CancelledError
            if loop.time() - began >= self.good_after:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next())

    async def _session(self) -> None:
        """Run one session until it ends; raise an EndError with the resulting condition."""
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
