"""Following what the kernel says of links and addresses: rtnetlink by pyroute2.

The whole is read again after every burst of notifications: what a notification says is never trusted to be
complete, so a lost one (ENOBUFS), something that changed twice, or a fresh socket need nothing of their own.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ringfence.errors import HostError

# Seconds: an interface that comes up brings several notifications at once.
_SETTLE = 0.05
_RECEIVE_BUFFER = 1 << 20  # some thousand notifications
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0

Read = TypeVar("Read")


async def follow(
    what: str,
    groups: int,
    read: Callable[[AsyncIPRoute], Awaitable[Read]],
    changed: Callable[[Read], None],
    failed: Callable[[HostError], None],
    *,
    apart: float = 0.0,
) -> None:
    """Call ``changed`` with what ``read`` gives, now and when a notification of ``groups`` has changed it.

    Runs until cancelled. ``failed`` is told of each trouble with the kernel's socket, in which ``what`` says
    to people what is read; it is then opened again, with growing pauses. ``changed`` is not called with the
    same again, but after a trouble: then it is over. Readings are ``apart`` seconds from each other at least.
    """
    pause = _FIRST_PAUSE
    while True:
        known: Read | None = None
        try:
            async with AsyncIPRoute(rcvbuf=_RECEIVE_BUFFER) as route:
                await route.bind(groups=groups)
                while True:
                    now = await read(route)
                    pause = _FIRST_PAUSE
                    if now != known:
                        known = now
                        changed(now)
                    await asyncio.sleep(apart)
                    await _notified(route)
        except (NetlinkError, OSError) as error:
            failed(HostError(f"{what} cannot be followed by rtnetlink: {error}"))
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _notified(route: AsyncIPRoute) -> None:
    """Wait for a change, and until a burst of them is over (but not longer than ten settling times)."""
    await _next_message(route)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE * 10):
            while True:
                async with asyncio.timeout(_SETTLE):
                    await _next_message(route)


async def _next_message(route: AsyncIPRoute) -> None:
    async with contextlib.aclosing(route.get()) as messages:
        async for _message in messages:
            return
