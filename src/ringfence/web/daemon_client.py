"""The daemon as the pages ask it: in threads, because answers take time, and no more often than needed.

Several open pages share one answer: an answer that many pages use is kept for a few seconds. An answer that
took long, such as a list of 100,000 bans, is kept for longer, so that pages use at most a small part of the
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
"""Seconds that a page waits for the daemon. Commands wait longer."""
MOST_SHARE = 0.02
"""The part of the time in which the daemon works for one kind of answer."""
LONGEST_KEPT = 60.0  # seconds
LATELY = 20.0
"""Seconds for which an answer can be shown while a newer one is asked for."""

_Key = tuple[object, ...]


@frozen
class _Kept:
    """An answer, when it came, and until when pages share it (monotonic seconds)."""

    answer: Any
    came: float
    until: float


class DaemonClient:
    """Asks the daemon at ``socket``. ``mono`` returns monotonic seconds."""

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
        """Return an answer that is at most ``kept_for`` seconds old, or older if it takes long to compute.

        Each request has few possible arguments, since the answers are kept.
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
                if changes == self._changes:  # else the answer may be from before the command
                    self._kept[key] = kept
            return kept.answer

    async def latest(self, kept_for: float, do: str, /, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the last answer at once if it came lately, so that an update does not wait for a long list.

        Otherwise return what :meth:`recent` returns. Call that afterwards, for the next update.
        """
        kept = self._kept.get((do, *sorted(arguments.items())))
        if kept is not None and self._mono() < kept.came + LATELY:
            return kept.answer
        return await self.recent(kept_for, do, **arguments)

    def forget(self) -> None:
        """Forget the kept answers: a command has changed something."""
        self._changes += 1
        self._kept.clear()
