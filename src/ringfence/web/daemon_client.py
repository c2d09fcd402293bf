"""Sends the pages' requests to the daemon, in threads, because an answer may take seconds.

An answer that many pages need is kept for a few seconds, and all open pages share it. An answer that took
long, such as a list of 100,000 bans, is kept for longer. So the pages need at most a small part of the
daemon's time.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from ringfence import control

PATIENCE = 10.0
"""Seconds that a page waits for the daemon's answer. A command on the terminal waits longer."""
MOST_SHARE = 0.02
"""The largest part of its time that the daemon spends on one request that pages repeat.

After an answer that took a second, the same request is sent again only after 50 seconds.
"""
LONGEST_KEPT = 60.0
"""The longest time (seconds) that an answer is kept because it took long."""
LATELY = 20.0
"""Seconds after its arrival in which an answer may be shown while a newer one is requested."""

_Key = tuple[object, ...]


@frozen
class _Kept:
    """An answer, the time when it came, and the time until which pages share it (monotonic seconds)."""

    answer: Any
    came: float
    until: float


class DaemonClient:
    """Sends requests to the daemon at ``socket``, its control socket. ``mono`` returns monotonic seconds."""

    def __init__(self, socket: Path, mono: Callable[[], float]) -> None:
        self._socket = socket
        self._mono = mono
        self._kept: dict[_Key, _Kept] = {}
        self._locks: defaultdict[_Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._changes = 0

    async def ask(self, do: str, /, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        """Send a request and return its result; raise the errors of :func:`ringfence.control.ask`."""
        return await asyncio.to_thread(lambda: control.ask(self._socket, do, timeout=PATIENCE, **arguments))

    async def recent(self, kept_for: float, do: str, /, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the answer to a request; a kept one if it is at most ``kept_for`` seconds old.

        If the answer took long, it is kept for longer: so long that the daemon spends at most MOST_SHARE of
        its time on this request, but at most LONGEST_KEPT seconds. Use this only for requests with few
        possible arguments, because one answer is kept for each of them.
        """
        key = (do, *sorted(arguments.items()))
        async with self._locks[key]:
            now = self._mono()
            kept = self._kept.get(key)
            if kept is None or now >= kept.until:
                changes = self._changes
                answer = await self.ask(do, **arguments)
                came = self._mono()
                kept_for = max(kept_for, min(LONGEST_KEPT, (came - now) / MOST_SHARE))
                kept = _Kept(answer, came, now + kept_for)
                if changes == self._changes:  # otherwise the answer may be older than a command's change
                    self._kept[key] = kept
            return kept.answer

    async def latest(self, kept_for: float, do: str, /, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the kept answer at once if it came within the last LATELY seconds.

        So an update of a page does not wait for a long list. Otherwise return what :meth:`recent` returns.
        After this, call :meth:`recent`, so that the next update has a newer answer.
        """
        kept = self._kept.get((do, *sorted(arguments.items())))
        if kept is not None and self._mono() < kept.came + LATELY:
            return kept.answer
        return await self.recent(kept_for, do, **arguments)

    def forget(self) -> None:
        """Forget the kept answers, because a command may have changed something."""
        self._changes += 1
        self._kept.clear()
