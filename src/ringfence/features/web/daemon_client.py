"""Sends the pages' requests to the daemon, in threads, because an answer may take seconds.

An answer that many pages need is kept for a few seconds, and all open pages share it. An answer that took
long, such as a list of 100,000 bans, is kept for longer. So the pages use only a small part of the daemon's
time.
"""

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from attrs import frozen

from ringfence import control
from ringfence.clock import Clock
from ringfence.errors import DaemonUnreachableError, NoAnswerError

PATIENCE = 10.0
"""Seconds that a page waits for the daemon's answer. A command waits longer."""
MOST_COSTLY = 2
"""The maximum number of requests of :meth:`DaemonClient.ask_costly` at the same time."""
MOST_SHARE = 0.02
"""The part of the daemon's time that one repeated request of all open pages may take: 2 %.

So after an answer that took one second, the same request is sent again only after 50 seconds.
"""
LONGEST_KEPT = 60.0
"""The longest time (seconds) for which an answer is kept because it took long.

So a request that takes longer than 1.2 s may take a larger part of the daemon's time than ``MOST_SHARE``.
"""
OUTDATED_FOR = 10.0
"""The seconds for which :meth:`DaemonClient.latest` still returns an answer that is no longer kept.

An open page is updated more often, so its updates never wait for a long list.
"""

UNRECORDED: ContextVar[list[str]] = ContextVar("UNRECORDED")
"""The reasons why changes of the present command are not recorded. The caller that runs a command sets it."""

_Key = tuple[object, ...]


@frozen
class _Kept:
    """An answer that :meth:`DaemonClient.recent` returns until ``until`` (monotonic seconds)."""

    answer: Any
    until: float


class DaemonClient:
    """Sends requests to the daemon at ``socket``, its control socket."""

    def __init__(self, socket: Path, clock: Clock) -> None:
        self._socket = socket
        self._clock = clock
        self._kept: dict[_Key, _Kept] = {}
        self._asked: dict[_Key, asyncio.Future[Any]] = {}
        self._costly = asyncio.Semaphore(MOST_COSTLY)
        self._changes = 0

    async def ask(self, do: str, /, **arguments: Any) -> Any:  # noqa: ANN401 - any JSON value
        """Send the request named ``do``; return its result. Raise the errors of ``ringfence.control.ask``."""
        return await asyncio.to_thread(control.ask, self._socket, do, timeout=PATIENCE, **arguments)

    async def command(self, do: str, /, **arguments: Any) -> Any:  # noqa: ANN401 - any JSON value
        """Send a request that changes something; return the answer, for which this waits 30 seconds at most.

        After a NoAnswerError the daemon may have carried out the request. If a change is in force, but not
        recorded, :data:`UNRECORDED` gets the reason.
        """
        unrecorded = UNRECORDED.get([])
        return await asyncio.to_thread(control.ask, self._socket, do, unrecorded=unrecorded, **arguments)

    async def ask_costly(self, do: str, /, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        """Send a request whose answer is not shared; return it. At most MOST_COSTLY are sent at a time.

        The others wait for their turn. So a user who sends many of them delays only such requests, and not
        the daemon. Raise DaemonUnreachableError if the turn does not come within PATIENCE seconds.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self._costly.acquire()
        except TimeoutError:
            raise DaemonUnreachableError("too many requests wait for the daemon; try again later") from None
        try:
            return await self.ask(do, **arguments)
        finally:
            self._costly.release()

    async def recent(self, kept_for: float, do: str, /, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the answer to a request; a kept one if it is at most ``kept_for`` seconds old.

        Pages that ask at the same time share one request: they get the same answer or the same error. An
        answer that took long is kept for longer than ``kept_for`` (see MOST_SHARE), but at most LONGEST_KEPT
        seconds. Use this only for requests with few possible arguments, because one answer is kept for each
        combination of arguments.
        """
        key, now = (do, *sorted(arguments.items())), self._clock.mono()
        kept = self._kept.get(key)
        if kept is not None and now < kept.until:
            return kept.answer
        if key in self._asked:
            return await asyncio.shield(self._asked[key])
        asked = self._asked[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await self._renewed(key, now, kept_for, do, arguments)
        except BaseException as error:
            stopped = NoAnswerError("the request was stopped")
            asked.set_exception(error if isinstance(error, Exception) else stopped)
            asked.exception()  # without this call, asyncio logs the error if no other page waits
            raise
        else:
            asked.set_result(answer)
            return answer
        finally:
            if self._asked.get(key) is asked:
                del self._asked[key]

    async def _renewed(
        self, key: _Key, now: float, kept_for: float, do: str, arguments: Mapping[str, object]
    ) -> Any:  # noqa: ANN401 - any JSON value
        """Send a request and return its answer. Keep it under ``key``, unless a command runs meanwhile.

        It is kept for ``kept_for`` seconds after ``now`` (monotonic seconds), or longer if it took long.
        """
        changes = self._changes
        answer = await self.ask(do, **arguments)
        if changes == self._changes:  # otherwise a command ran meanwhile: the answer may not show its effect
            took = self._clock.mono() - now
            kept_for = max(kept_for, min(LONGEST_KEPT, took / MOST_SHARE))
            self._kept[key] = _Kept(answer, now + kept_for)
        return answer

    async def latest(self, kept_for: float, do: str, /, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return at once a kept answer, even if it should have been renewed in the last OUTDATED_FOR seconds.

        So an update of a page does not wait for a long list. Without such an answer, do the same as
        :meth:`recent`. The caller must call :meth:`recent` afterwards, so that the next update has a newer
        answer.
        """
        kept = self._kept.get((do, *sorted(arguments.items())))
        if kept is not None and self._clock.mono() < kept.until + OUTDATED_FOR:
            return kept.answer
        return await self.recent(kept_for, do, **arguments)

    def forget(self) -> None:
        """Forget the kept answers, because a command may have changed something."""
        self._changes += 1
        self._kept.clear()
        self._asked.clear()
