"""The host's own addresses, read once or followed: rtnetlink by pyroute2.

The whole list is read again after every burst of notifications (5 ms, and addresses change rarely): what a
notification says is never trusted to be complete, so a lost one (ENOBUFS), a floating address that moved
twice, or a fresh socket need nothing of their own.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Any

from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR

from ringfence.errors import HostError
from ringfence.model import Network

# Seconds: an interface that comes up brings several addresses at once.
_SETTLE = 0.05
_RECEIVE_BUFFER = 1 << 20  # some thousand notifications
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0


def read_addresses() -> frozenset[Network]:
    """Give this host's own addresses now, each as a /32 or /128; HostError where they cannot be read.

    Not within a running event loop (pyroute2 runs one of its own): there, follow_addresses.
    """
    try:
        with IPRoute() as route:
            return _networks(route.get_addr())
    except (NetlinkError, OSError) as error:
        raise HostError(f"this host's own addresses cannot be read by rtnetlink: {error}") from error


async def follow_addresses(
    changed: Callable[[frozenset[Network]], None],
    failed: Callable[[HostError], None] = lambda _error: None,
) -> None:
    """Call ``changed`` with all own addresses (as read_addresses gives them) now and after each change.

    Runs until cancelled. ``failed`` is told of each trouble with the kernel's socket, which is then opened
    again, with growing pauses; ``changed`` is not called for an unchanged set.
    """
    known: frozenset[Network] | None = None
    pause = _FIRST_PAUSE
    while True:
        try:
            async with AsyncIPRoute(rcvbuf=_RECEIVE_BUFFER) as route:
                await route.bind(groups=RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR)
                while True:
                    now = _networks([message async for message in await route.get_addr()])
                    pause = _FIRST_PAUSE
                    if now != known:
                        known = now
                        changed(now)
                    await _notified(route)
        except (NetlinkError, OSError) as error:
            failed(HostError(f"this host's own addresses cannot be followed by rtnetlink: {error}"))
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


def _networks(messages: Iterable[Any]) -> frozenset[Network]:
    """Read the addresses: IFA_LOCAL is the own end of a point-to-point link, elsewhere the same or absent."""
    own = (message.get("local") or message.get("address") for message in messages)
    return frozenset(ip_network(address) for address in own if address)
