"""Private networks of this host's routes."""

from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.host.routes import networks_from, read_local_networks


def route(network: str, *, kind: int = 1) -> dict[str, object]:
    """Return a route as pyroute2 does."""
    address, _, length = network.partition("/")
    return {"type": kind, "dst_len": int(length), "attrs": [("RTA_DST", address)]}


def test_only_private_networks_count() -> None:
    """Public networks, those for documentation, and special routes do not count."""
    routes = [
        route("192.168.7.0/24"),
        route("203.0.113.0/24"),
        route("198.18.0.0/16"),
        route("10.0.0.0/8", kind=7),
        route("fd00:1::/64"),
        route("2001:db8::/32"),
        {"type": 1, "dst_len": 0, "attrs": []},
    ]

    assert [str(network) for network in networks_from(routes)] == ["192.168.7.0/24", "fd00:1::/64"]


def test_a_network_within_another_one_is_left_out() -> None:
    """The widest network is enough."""
    found = networks_from([route("10.1.2.0/24"), route("10.1.0.0/16")])

    assert [str(network) for network in found] == ["10.1.0.0/16"]


@pytest.mark.kernel
def test_networks_are_read_from_the_kernel(netns: None) -> None:
    """The network of an interface and the network of a route count, each with the interface's name."""
    run("ip", "link", "add", "office", "type", "veth", "peer", "name", "far")
    for link in ("office", "far"):
        run("ip", "link", "set", link, "up")
    run("ip", "address", "add", "192.168.7.1/24", "dev", "office")
    run("ip", "route", "add", "10.8.0.0/24", "via", "192.168.7.2")

    assert read_local_networks() == {
        ip_network("192.168.7.0/24"): "office",
        ip_network("10.8.0.0/24"): "office",
    }
