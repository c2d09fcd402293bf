"""Follows the kernel's links, addresses and routes by rtnetlink, with the library pyroute2.

Everything is read again after each burst of notifications. The content of a notification is not used. So a
lost notification (ENOBUFS), a repeated change, or a new socket needs no special treatment.

A dump comes in several parts. If something changes between two of them, entries may be missing or appear
twice, and the kernel marks the rest of the dump (NLM_F_DUMP_INTR). pyroute2 ignores the mark. This module
checks it, and reads such a dump again.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink import NLM_F_DUMP_INTR
from pyroute2.netlink.exceptions import NetlinkError

from ringfence.clock import Backoff
from ringfence.errors import HostError

# Seconds without a notification that end a burst. An interface that comes up causes several at once.
_SETTLE = 0.05
_RECEIVE_BUFFER = 1 << 20  # some thousand notifications
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0

READINGS = 6
"""The maximum number of times that a dump is read, if it changes during each reading.

The pauses between them add up to 0.3 s.
"""
_AGAIN = 0.01

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
    """Call ``read`` now and after each notification of ``groups``, and ``changed`` if its result has changed.

    ``groups`` are multicast groups of rtnetlink, one bit each. This runs until cancelled. There are at least
    ``apart`` seconds between two readings. ``failed`` is called with each error of the socket, and if a dump
    changes during each of ``READINGS`` readings. In both cases the socket is opened again, after pauses that
    grow. After an error, ``changed`` is called even with an unchanged result, to show that the error has
    cleared. ``what`` names the data in error messages.
    """
    backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        known: Read | None = None
        try:
            async with AsyncIPRoute(rcvbuf=_RECEIVE_BUFFER) as route:
                await route.bind(groups=groups)
                mark = _Mark(route)
                while True:
                    now = await _whole(what, route, mark, read)
                    backoff.reset()
                    if now != known:
                        known = now
                        changed(now)
                    await asyncio.sleep(apart)
                    await _notified(route)
        except (NetlinkError, OSError) as error:
            failed(HostError(f"{what} cannot be followed by rtnetlink: {error}"))
        except HostError as error:
            failed(error)
        await asyncio.sleep(backoff.next())


def read_now(what: str, read: Callable[[IPRoute], Read]) -> Read:
    """Return what ``read`` returns; raise HostError if it fails, or if the dump changes each time.

    Do not call it in a running event loop (pyroute2 runs one of its own); use :func:`follow` there.
    """
    try:
        with IPRoute() as route:
            mark = _Mark(route)
            backoff = Backoff(_AGAIN)
            for _ in range(READINGS):
                mark.is_set = False
                found = read(route)
                if not mark.is_set:
                    return found
                time.sleep(backoff.next())
    except (NetlinkError, OSError) as error:
        raise HostError(f"{what} cannot be read by rtnetlink: {error}") from error
    raise _changing(what)


async def _whole(
    what: str, route: AsyncIPRoute, mark: "_Mark", read: Callable[[AsyncIPRoute], Awaitable[Read]]
) -> Read:
    backoff = Backoff(_AGAIN)
    for _ in range(READINGS):
        mark.is_set = False
        found = await read(route)
        if not mark.is_set:
            return found
        await asyncio.sleep(backoff.next())
    raise _changing(what)


def _changing(what: str) -> HostError:
    return HostError(f"{what} cannot be read by rtnetlink: they changed during each of {READINGS} readings")


class _Mark:
    """Notices if the kernel marks a dump as changed while it was read; ``is_set`` is then true.

    The mark may be only in the message that ends a dump, and pyroute2 does not return that message. But
    pyroute2 calls ``marshal.get_parser`` with the flags of every message, so this class replaces that method.
    """

    def __init__(self, route: AsyncIPRoute | IPRoute) -> None:
        self.is_set = False
        self._parser = route.marshal.get_parser
        route.marshal.get_parser = self._get_parser

    def _get_parser(self, kind: int, flags: int, number: int) -> Any:  # noqa: ANN401 - pyroute2 has no types
        if flags & NLM_F_DUMP_INTR:
            self.is_set = True
        return self._parser(kind, flags, number)


async def _notified(route: AsyncIPRoute) -> None:
    """Wait for a notification, and then until no other one follows within ``_SETTLE`` seconds.

    The second wait takes at most ten times ``_SETTLE``.
    """
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
