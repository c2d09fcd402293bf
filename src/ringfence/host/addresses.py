"""The host's own addresses, read once or followed (5 ms a reading, and addresses change rarely)."""

from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Any

from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR

from ringfence.errors import HostError
from ringfence.host.rtnetlink import follow
from ringfence.model import Network

_WHAT = "this host's own addresses"


def read_addresses() -> frozenset[Network]:
    """Give this host's own addresses now, each as a /32 or /128; HostError where they cannot be read.

    Not within a running event loop (pyroute2 runs one of its own): there, follow_addresses.
    """
    try:
        with IPRoute() as route:
            return _networks(route.get_addr())
    except (NetlinkError, OSError) as error:
        raise HostError(f"{_WHAT} cannot be read by rtnetlink: {error}") from error


async def follow_addresses(
    changed: Callable[[frozenset[Network]], None],
    failed: Callable[[HostError], None] = lambda _error: None,
) -> None:
    """Call ``changed`` with all own addresses (as read_addresses gives them) now and after each change.

    Runs until cancelled. ``failed`` is told of each trouble; when it is over ``changed`` is called again.
    """
    await follow(_WHAT, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR, _read, changed, failed)


async def _read(route: AsyncIPRoute) -> frozenset[Network]:
    return _networks([message async for message in await route.get_addr()])


def _networks(messages: Iterable[Any]) -> frozenset[Network]:
    """Read the addresses: IFA_LOCAL is the own end of a point-to-point link, elsewhere the same or absent."""
    own = (message.get("local") or message.get("address") for message in messages)
    return frozenset(ip_network(address) for address in own if address)
