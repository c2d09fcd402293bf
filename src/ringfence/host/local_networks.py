"""The private networks to which this host has routes: those of its interfaces, and those behind a VPN.

Public networks are left out. At a hosting company, the network of an interface is often public, and its other
addresses belong to strangers.
"""

import contextlib
import socket
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

from pyroute2 import IPRoute

from ringfence.host.rtnetlink import read_now
from ringfence.model import Network
from ringfence.networks import contains

_WHAT = "the networks of this host"
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
    return read_now(_WHAT, _read)


def _read(route: IPRoute) -> dict[Network, str]:
    return networks_from(route.get_routes(table=_MAIN))


def networks_from(messages: Iterable[Any]) -> dict[Network, str]:
    """Return the private destinations of routes, each with the name of its interface.

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
            found.setdefault(network, _name(attributes.get("RTA_OIF")))
    return {
        network: name
        for network, name in found.items()
        if not any(contains(other, network) for other in found if other != network)
    }


def _name(index: int | None) -> str:
    """Return the name of the interface with this index; "" if there is none, or no index."""
    with contextlib.suppress(OSError):
        return socket.if_indextoname(index) if index else ""
    return ""
