"""The gateways of this host: the next hops of the routes in its main table, read once or followed.

Of the tables ``main`` and ``default``; what other tables hold is the routing of others (containers, VPNs).
A route costs 0.1 ms to read, and a host that speaks a routing protocol has thousands, which change all the
time. So readings are at least five seconds apart, and in a thread, which gives way to a guess: with 1 000
routes the longest turn of the event loop was 14 ms, and 35 ms without the thread (with 10 000 0.2 s, spent on
collecting what was left behind).
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE

from ringfence.errors import HostError
from ringfence.host.rtnetlink import follow
from ringfence.model import Network

APART = 5.0
"""How long nothing is read again after a reading (seconds)."""

_WHAT = "the gateways of this host"
_TABLES = (254, 253)  # main, default


def read_gateways() -> dict[Network, str]:
    """Give the gateways now, each with what it is to people; HostError where they cannot be read.

    Not within a running event loop (pyroute2 runs one of its own): there, follow_gateways.
    """
    try:
        return _read()
    except (NetlinkError, OSError) as error:
        raise HostError(f"{_WHAT} cannot be read by rtnetlink: {error}") from error


async def follow_gateways(
    changed: Callable[[Mapping[Network, str]], None],
    failed: Callable[[HostError], None] = lambda _error: None,
) -> None:
    """Call ``changed`` with all gateways (as read_gateways gives them) now and after each change.

    Runs until cancelled. ``failed`` is told of each trouble; when it is over ``changed`` is called again.
    """
    await follow(_WHAT, RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE, _read_aside, changed, failed, apart=APART)


async def _read_aside(_: AsyncIPRoute) -> Mapping[Network, str]:
    return await asyncio.to_thread(_read)


def _read() -> dict[Network, str]:
    with IPRoute() as route:
        return _gateways(message for table in _TABLES for message in route.get_routes(table=table))


def _gateways(messages: Iterable[Any]) -> dict[Network, str]:
    """Name each gateway by its interfaces: several routes may go by it, and it may be on several links."""
    links: dict[Network, set[str]] = {}
    for message in messages:
        for hop in (message, *(message.get("multipath") or ())):
            for address in _next_hops(hop):
                # Of a hop among several the interface is no attribute but a field.
                link = hop.get("oif") or message.get("oif")
                links.setdefault(ip_network(address), set()).add(_name(link))
    return {
        network: f"the gateway of {', '.join(sorted(names - {''}))}" if names - {""} else "a gateway"
        for network, names in links.items()
    }


def _next_hops(hop: Any) -> Iterator[str]:  # noqa: ANN401 - pyroute2 has no types
    """Give the next hop's address: RTA_GATEWAY, or RTA_VIA where it is of the other IP version."""
    attributes = dict(hop["attrs"]) if "attrs" in hop else {}
    gateway, via = attributes.get("RTA_GATEWAY"), attributes.get("RTA_VIA")
    if gateway:
        yield gateway
    if via and via.get("addr"):
        yield via["addr"]


def _name(index: int | None) -> str:
    """Name a link; nothing where it has just gone."""
    with contextlib.suppress(OSError):
        return socket.if_indextoname(index) if index else ""
    return ""
