"""This host's own addresses, read once or followed. A reading takes 5 ms, and addresses change rarely."""

from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR

from ringfence.errors import HostError
from ringfence.host.rtnetlink import follow, read_now
from ringfence.model import Network

_WHAT = "this host's own addresses"


def read_addresses() -> frozenset[Network]:
    """Return this host's present addresses, each as a /32 or /128; raise HostError if they cannot be read.

    Do not call it in a running event loop (pyroute2 runs one of its own); use follow_addresses there.
    """
    return read_now(_WHAT, lambda route: _networks(route.get_addr()))


async def follow_addresses(
    changed: Callable[[frozenset[Network]], None],
    failed: Callable[[HostError], None] = lambda _error: None,
) -> None:
    """Call ``changed`` with all own addresses now and after each change, until cancelled.

    ``failed`` is called with each error; when it has cleared, ``changed`` is called again.
    """
    await follow(_WHAT, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR, _read, changed, failed)


async def _read(route: AsyncIPRoute) -> frozenset[Network]:
    return _networks([message async for message in await route.get_addr()])


def _networks(messages: Iterable[Any]) -> frozenset[Network]:
    """Return the addresses of this host: IFA_LOCAL if a message has it, else IFA_ADDRESS.

    On a point-to-point link, IFA_ADDRESS is the remote end.
    """
    own = (message.get("local") or message.get("address") for message in messages)
    return frozenset(ip_network(address) for address in own if address)
