"""The gateways of this host: the next hops of its routes, read once or followed.

Only the routing tables ``main`` and ``default`` are read, because containers and VPNs use the other ones.

A route takes 0.1 ms to read, and a host with a routing protocol has thousands, which change all the time. So
readings are at least five seconds apart, and run in a thread. With 1,000 routes a reading delayed the event
loop by up to 14 ms, and by 35 ms without the thread. With 10,000 routes garbage collection delayed it by 0.2
s.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink.rtnl import RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE

from ringfence.errors import HostError
from ringfence.host.rtnetlink import follow, read_now
from ringfence.model import Network

APART = 5.0
"""Minimum seconds between two readings."""

_WHAT = "the gateways of this host"
_TABLES = (254, 253)  # main, default


def read_gateways() -> dict[Network, str]:
    """Return the present gateways, each with its description; raise HostError if they cannot be read.

    Do not call it in a running event loop (pyroute2 runs one of its own); use follow_gateways there.
    """
    return read_now(_WHAT, _read)


async def follow_gateways(
    changed: Callable[[Mapping[Network, str]], None],
    failed: Callable[[HostError], None] = lambda _error: None,
) -> None:
    """Call ``changed`` with all gateways now and after each change, until cancelled.

    ``failed`` is called with each error; when it has cleared, ``changed`` is called again.
    """
    await follow(_WHAT, RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE, _read_aside, changed, failed, apart=APART)


async def _read_aside(_: AsyncIPRoute) -> Mapping[Network, str]:
    return await asyncio.to_thread(read_gateways)


def _read(route: IPRoute) -> dict[Network, str]:
    return _gateways(message for table in _TABLES for message in route.get_routes(table=table))


def _gateways(messages: Iterable[Any]) -> dict[Network, str]:
    """Return the gateways of routes, each described by the interfaces of all its routes."""
    links: dict[Network, set[str]] = {}
    for message in messages:
        for hop in (message, *(message.get("multipath") or ())):
            for address in _next_hops(hop):
                # If a route has several hops, each of them has its own interface.
                link = hop.get("oif") or message.get("oif")
                links.setdefault(ip_network(address), set()).add(_name(link))
    return {
        network: f"the gateway of {', '.join(sorted(names - {''}))}" if names - {""} else "a gateway"
        for network, names in links.items()
    }


def _next_hops(hop: Any) -> Iterator[str]:  # noqa: ANN401 - pyroute2 has no types
    """Yield the address of a next hop: RTA_GATEWAY, or RTA_VIA if its IP version is not that of the route."""
    attributes = dict(hop["attrs"]) if "attrs" in hop else {}
    gateway, via = attributes.get("RTA_GATEWAY"), attributes.get("RTA_VIA")
    if gateway:
        yield gateway
    if via and via.get("addr"):
        yield via["addr"]


def _name(index: int | None) -> str:
    """Return the name of the interface with this index; "" if it does not exist any more."""
    with contextlib.suppress(OSError):
        return socket.if_indextoname(index) if index else ""
    return ""
