"""The networks of this host's container bridges, followed while containers start and stop.

SIP answers from these networks that pass through this host count as if this host had sent them
(``sources/wire.py``). So a bridge is a container bridge only if no other machine can send into it: it has
ports, and each of them is a veth whose other end is in another network namespace. Examples are docker0, br-…,
cni0, podman0 and lxcbr0 while a container runs. A bridge with a network card, with a virtual machine's tap,
with a tunnel, or with a veth to another bridge of this host is no container bridge.

The network of a bridge is the one in which this host has an address on the bridge. Link-local networks are
left out, because they are not routed. A network is also left out if another link of this host has a part of
it. Otherwise a stranger behind that link could use an address of the network. The firewall's log rule, which
copies SIP answers to ringfence, would not notice that: it only checks that a packet came from the link to
which its source address belongs (rpfilter).

Each reading reads all links and addresses, which takes 0.3 ms of CPU for each link. It delayed the event loop
by up to 15 ms with 200 links and 30 ms with 900 (two busy cores). So there is at most one reading a second,
even on a host that starts containers all the time.
"""

from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any

from attrs import frozen
from pyroute2 import AsyncIPRoute
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK

from ringfence.errors import HostError
from ringfence.host.rtnetlink import follow
from ringfence.model import Network
from ringfence.networks import contains

APART = 1.0
"""Minimum seconds between two readings."""

_WHAT = "the bridges of containers"
_GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR


async def follow_containers(
    changed: Callable[[frozenset[Network]], None],
    failed: Callable[[HostError], None] = lambda _error: None,
) -> None:
    """Call ``changed`` with the networks of all container bridges now and after each change, until cancelled.

    ``failed`` is called with each error; when it has cleared, ``changed`` is called again.
    """
    await follow(_WHAT, _GROUPS, _read, changed, failed, apart=APART)


@frozen
class _Link:
    """A network interface.

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


async def _read(route: AsyncIPRoute) -> frozenset[Network]:
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
    end, on other links the address of this host.
    """
    address, local = message.get("address"), message.get("local")
    network = ip_network((address, message["prefixlen"]), strict=False)
    single = network.prefixlen == network.max_prefixlen
    return _HostNetwork(message["index"], network, own=single and local in (None, address))
