"""This host's links, addresses, networks, bridges and gateways, by rtnetlink (with the library pyroute2)."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, TypeVar

from attrs import frozen
from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink import NLM_F_DUMP_INTR
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
)

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.clock import Backoff
from ringfence.errors import HostError
from ringfence.values.network import Network, contains, is_single

# -- follows the kernel's links, addresses and routes by rtnetlink, with the library pyroute2
#
# Everything is read again after each burst of messages. The content of a message is not used. So
# a lost message (ENOBUFS), a repeated change, or a new socket needs no special treatment.
#
# A dump comes in several parts. If something changes between two of them, entries may be missing or appear
# twice, and the kernel marks the rest of the dump (NLM_F_DUMP_INTR). pyroute2 ignores the mark. This module
# checks it, and reads such a dump again.


# Seconds without a message that end a burst. An interface that comes up causes several at once.
_SETTLE = 0.05
_RECEIVE_BUFFER = 1 << 20  # some thousand messages
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0

READINGS = 6
"""The maximum number of times that a list of the kernel is read, if it changes during each reading.

The pauses between the readings add up to 0.3 s.
"""
_AGAIN = 0.01

Read = TypeVar("Read")
Reader = Callable[[AsyncIPRoute], Awaitable[Read]]
"""A function that reads a list of the kernel by rtnetlink."""


async def follow(
    what: str, groups: int, read: Reader[Read], *, apart: float = 0.0
) -> AsyncIterator[Read | HostError]:
    """Call ``read`` now and after each message of ``groups``; yield its result if that has changed.

    ``groups`` are multicast groups of rtnetlink, one bit each. There are at least ``apart`` seconds between
    two readings. Each error of the socket is yielded too, and an error if the kernel's list changes during
    each of ``READINGS`` readings. In both cases the socket is opened again, after pauses that grow. The first
    result after an error is yielded even if it is unchanged, to show that the error has cleared. ``what``
    names the data in error messages.
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
                        yield now
                    await asyncio.sleep(apart)
                    await _burst(route)
        except (NetlinkError, OSError) as error:
            yield HostError(f"{what} cannot be followed by rtnetlink: {error}")
        except HostError as error:
            yield error
        await asyncio.sleep(backoff.next())


def read_now(what: str, read: Callable[[IPRoute], Read]) -> Read:
    """Return what ``read`` returns; raise HostError if it fails, or if the kernel's list changes each time.

    ``what`` names the data in the error. Do not call this in a running event loop (pyroute2 runs one of its
    own); use :func:`follow` there.
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


async def _whole(what: str, route: AsyncIPRoute, mark: "_Mark", read: Reader[Read]) -> Read:
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
    """Shows whether the kernel marked its list as changed while it was read: then ``is_set`` is true.

    The mark may be only in the message that ends the list, and pyroute2 does not return that message. But
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


async def _burst(route: AsyncIPRoute) -> None:
    """Wait for a message of rtnetlink, and then until no other one follows within ``_SETTLE`` seconds.

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


# -- this host's own addresses, read once or followed. A reading takes 5 ms, and addresses change rarely


_ADDRESSES = "this host's own addresses"


def read_addresses() -> frozenset[Network]:
    """Return this host's present addresses, each as a /32 or /128; raise HostError if they cannot be read.

    Do not call it in a running event loop (pyroute2 runs one of its own); use follow_addresses there.
    """
    return read_now(_ADDRESSES, _read_addresses)


def follow_addresses() -> AsyncIterator[frozenset[Network] | HostError]:
    """Yield all own addresses now and after each change.

    Each error is yielded too; when it has cleared, the addresses are yielded again.
    """
    return follow(_ADDRESSES, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR, _read_again)


def _read_addresses(route: IPRoute) -> frozenset[Network]:
    return _networks(route.get_addr())


async def _read_again(route: AsyncIPRoute) -> frozenset[Network]:
    return _networks([message async for message in await route.get_addr()])


def _networks(messages: Iterable[Any]) -> frozenset[Network]:
    """Return this host's addresses in rtnetlink messages: IFA_LOCAL if a message has it, else IFA_ADDRESS.

    On a point-to-point link, IFA_ADDRESS is the remote end.
    """
    own = (message.get("local") or message.get("address") for message in messages)
    return frozenset(ip_network(address) for address in own if address)


# -- the network interfaces of this host, by name


def missing_interfaces(names: Iterable[str]) -> list[Alarm]:
    """Return an alarm for each of ``names`` (from the configuration) that is no interface of this host.

    If the interfaces cannot be read, return one alarm about that.
    """
    try:
        there = {name for _, name in socket.if_nameindex()}
    except OSError as error:
        return [Alarm(AlarmCode.HOST_UNREADABLE, "interfaces", f"cannot be read: {error.strerror}")]
    text = "[firewall] interfaces: there is no such interface; what comes by others is not dropped"
    return [Alarm(AlarmCode.FIREWALL_INTERFACES, name, text) for name in names if name not in there]


# -- the private networks to which this host has routes: those of its interfaces, and those behind a VPN
#
# Public networks are left out. At a hosting company, the network of an interface is often public, and its
# other addresses belong to strangers.


_NETWORKS = "the networks of this host"
_MAIN = 254
_UNICAST = 1
# Python's ``is_private`` is not used: it includes the networks for documentation and for benchmarks.
_PRIVATE = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)


def read_local_networks() -> dict[Network, str]:
    """Return the private networks of the main routing table, each with the name of its interface.

    Raise HostError if they cannot be read. Do not call it in a running event loop.
    """
    return read_now(_NETWORKS, _read_networks)


def _read_networks(route: IPRoute) -> dict[Network, str]:
    return networks_from(route.get_routes(table=_MAIN))


def networks_from(messages: Iterable[Any]) -> dict[Network, str]:
    """Return the private destinations of routes (rtnetlink messages), each with its interface's name.

    A network that lies within another network of the result is left out.
    """
    found: dict[Network, str] = {}
    for message in messages:
        attributes = dict(message["attrs"])
        destination, length = attributes.get("RTA_DST"), message["dst_len"]
        if not destination or message["type"] != _UNICAST:
            continue
        network = ip_network(f"{destination}/{length}", strict=False)
        if any(contains(private, network) for private in _PRIVATE):
            found.setdefault(network, _name_of_link(attributes.get("RTA_OIF")))
    return {
        network: name
        for network, name in found.items()
        if not any(contains(other, network) for other in found if other != network)
    }


def _name_of_link(index: int | None) -> str:
    """Return the name of the interface with this index; "" if there is none, or no index."""
    with contextlib.suppress(OSError):
        return socket.if_indextoname(index) if index else ""
    return ""


# -- the networks of this host's container bridges, followed while containers start and stop
#
# SIP answers from these networks that pass through this host count as if this host had sent them
# (``sources/wire.py``). So a bridge is a container bridge only if no other machine can send into it: it has
# ports, and each of them is a veth whose other end is in another network namespace. Examples are docker0,
# br-…, cni0, podman0 and lxcbr0 while a container runs. A bridge with a network card, with a virtual
# machine's tap, with a tunnel, or with a veth to another bridge of this host is no container bridge.
#
# The network of a bridge is the one in which this host has an address on the bridge. Link-local networks
# are left out, because they are not routed. A network is also left out if another link of this host has a
# part of it. Otherwise a stranger behind that link could use an address of the network. The firewall's log
# rule, which copies SIP answers to ringfence, would not notice that: it only checks that a packet came from
# the link to which its source address belongs (rpfilter).
#
# Each reading reads all links and addresses, which takes 0.3 ms of CPU for each link. It delayed the event
# loop by up to 15 ms with 200 links and 30 ms with 900 (two busy cores). So there is at most one reading a
# second, even on a host that starts containers all the time.


BRIDGES_APART = 1.0
"""Minimum seconds between two readings of the container bridges."""

_BRIDGES = "the bridges of containers"
_GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR


def follow_containers() -> AsyncIterator[frozenset[Network] | HostError]:
    """Yield the networks of all container bridges now and after each change.

    Each error is yielded too; when it has cleared, the networks are yielded again.
    """
    return follow(_BRIDGES, _GROUPS, _read_bridges, apart=BRIDGES_APART)


@frozen
class _Link:
    """A network interface, as rtnetlink lists it.

    ``master`` is the bridge (or bond, or VRF) that has this link as a port; None if there is none.
    ``leads_away``: the link is a veth whose other end is in another network namespace.
    """

    index: int
    kind: str
    master: int | None
    leads_away: bool


@frozen
class _HostNetwork:
    """A network in which this host has an address, and its link.

    ``own``: the network contains only that address.
    """

    link: int
    network: Network
    own: bool


async def _read_bridges(route: AsyncIPRoute) -> frozenset[Network]:
    links = [_link(message) async for message in await route.get_links()]
    found = [_host_network(message) async for message in await route.get_addr()]
    bridges = _container_bridges(links)
    elsewhere = [item.network for item in found if item.link not in bridges and not item.own]
    return frozenset(
        item.network
        for item in found
        if item.link in bridges
        and not item.network.is_link_local
        and not any(contains(item.network, network) for network in elsewhere)
    )


def _container_bridges(links: Sequence[_Link]) -> frozenset[int]:
    """Return the bridges that have ports, all of which lead into containers."""
    into_containers = {link.master for link in links if link.leads_away}
    elsewhere = {link.master for link in links if not link.leads_away}
    bridges = {link.index for link in links if link.kind == "bridge"}
    return frozenset(bridges & into_containers - elsewhere)


def _link(message: Any) -> _Link:  # noqa: ANN401 - pyroute2 has no types
    info = message.get("linkinfo")
    kind = info.get("kind") if info else None
    return _Link(
        index=message["index"],
        kind=kind or "",
        master=message.get("master"),
        # The kernel reports the other end's network namespace only if it is another one than ours.
        leads_away=kind == "veth" and message.get("link_netnsid") is not None,
    )


def _host_network(message: Any) -> _HostNetwork:  # noqa: ANN401 - pyroute2 has no types
    """Return the network and the link of an address of this host.

    ``message`` is the kernel's entry for that address. On a point-to-point link its IFA_ADDRESS is the remote
    end, on other links the address of this host. The kernel leaves out a remote end of 0.0.0.0.
    """
    local = message.get("local")
    address = message.get("address") or local
    network = ip_network((address, message["prefixlen"]), strict=False)
    own = is_single(network) and local in (None, address)
    return _HostNetwork(message["index"], network, own=own)


# -- the gateways of this host: the next hops of its routes, read once or followed
#
# Only the routing tables ``main`` and ``default`` are read, because containers and VPNs use the other ones.
#
# A route takes 0.1 ms to read, and a host with a routing protocol has thousands, which change all the time.
# So readings are at least five seconds apart, and run in a thread. With 1,000 routes a reading delayed the
# event loop by up to 14 ms, and by 35 ms without the thread. With 10,000 routes garbage collection delayed
# it by 0.2 s.


GATEWAYS_APART = 5.0
"""Minimum seconds between two readings of the gateways."""

_GATEWAYS = "the gateways of this host"
_TABLES = (254, 253)  # main, default


def read_gateways() -> dict[Network, str]:
    """Return the present gateways, each with its description; raise HostError if they cannot be read.

    Do not call it in a running event loop (pyroute2 runs one of its own); use follow_gateways there.
    """
    return read_now(_GATEWAYS, _read_gateways)


def follow_gateways() -> AsyncIterator[Mapping[Network, str] | HostError]:
    """Yield all gateways with their descriptions, now and after each change.

    Each error is yielded too; when it has cleared, the gateways are yielded again.
    """
    return follow(_GATEWAYS, RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE, _read_aside, apart=GATEWAYS_APART)


async def _read_aside(_: AsyncIPRoute) -> Mapping[Network, str]:
    return await asyncio.to_thread(read_gateways)


def _read_gateways(route: IPRoute) -> dict[Network, str]:
    return _gateways(message for table in _TABLES for message in route.get_routes(table=table))


def _gateways(messages: Iterable[Any]) -> dict[Network, str]:
    """Return the gateways of routes (rtnetlink messages), each described by the interfaces of its routes."""
    links: dict[Network, set[str]] = {}
    for message in messages:
        for hop in (message, *(message.get("multipath") or ())):
            for address in _next_hops(hop):
                # If a route has several hops, each of them has its own interface.
                link = hop.get("oif") or message.get("oif")
                links.setdefault(ip_network(address), set()).add(_name_of_link(link))
    return {
        network: f"the gateway of {', '.join(sorted(names - {''}))}" if names - {""} else "a gateway"
        for network, names in links.items()
    }


def _next_hops(hop: Any) -> Iterator[str]:  # noqa: ANN401 - pyroute2 has no types
    """Yield the gateway of a route's next hop: RTA_GATEWAY, or RTA_VIA if it has another IP version."""
    attributes = dict(hop["attrs"]) if "attrs" in hop else {}
    gateway, via = attributes.get("RTA_GATEWAY"), attributes.get("RTA_VIA")
    if gateway:
        yield gateway
    if via and via.get("addr"):
        yield via["addr"]
