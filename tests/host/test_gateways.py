"""The gateways of this host, read and followed in a network namespace."""

import asyncio
from collections.abc import Iterator, Mapping
from ipaddress import ip_network

import pytest
from tests.host.following import followed_by
from tests.support.netns import run

from ringfence.errors import HostError
from ringfence.host import routes
from ringfence.host.routes import follow_gateways, read_gateways
from ringfence.values.network import Network

pytestmark = pytest.mark.kernel


def ip(*lines: str) -> None:
    """Run a batch of lines of ``ip``."""
    run("ip", "-batch", "-", text="".join(f"{line}\n" for line in lines))


@pytest.fixture(autouse=True)
def _cables(netns: None) -> Iterator[None]:
    """Add two cards with an address each, and remove the pause between readings."""
    for number in (8, 9):
        ip(
            f"link add eth{number} type veth peer name far{number}",
            f"link set eth{number} addrgenmode none",
            f"link set eth{number} up",
            f"link set far{number} up",
            f"address add 192.0.2.{number}/24 dev eth{number}",
            f"address add 2001:db8:{number}::7/64 dev eth{number} nodad",
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "GATEWAYS_APART", 0.0)
        yield


def told(gateways: Mapping[str, str]) -> dict[Network, str]:
    """Return these gateways as the reader reports them."""
    return {ip_network(address): reason for address, reason in gateways.items()}


def test_the_next_hops_of_all_routes_are_gateways() -> None:
    """Gateways of both IP versions count, with several next hops or next hops of the other IP version."""
    ip(
        "route add default via 192.0.2.1 dev eth9",
        "route add 10.0.0.0/8 nexthop via 192.0.2.3 dev eth9 nexthop via 192.0.2.4 dev eth8",
        "route add 10.1.0.0/16 via inet6 fe80::5 dev eth9",
        "route add 10.2.0.0/16 nexthop via inet6 fe80::6 dev eth8 nexthop via 192.0.2.4 dev eth9",
        "route add 10.3.0.0/16 via 192.0.2.33 dev eth9 table default",
        "route add unreachable 10.4.0.0/16",
        "route add default via fe80::1 dev eth9",
        "route add 2001:db8:77::/48 nexthop via 2001:db8:9::3 dev eth9 nexthop via 2001:db8:8::4 dev eth8",
    )
    assert read_gateways() == told(
        {
            "192.0.2.1": "the gateway of eth9",
            "192.0.2.3": "the gateway of eth9",
            "192.0.2.4": "the gateway of eth8, eth9",
            "192.0.2.33": "the gateway of eth9",
            "fe80::1": "the gateway of eth9",
            "fe80::5": "the gateway of eth9",
            "fe80::6": "the gateway of eth8",
            "2001:db8:9::3": "the gateway of eth9",
            "2001:db8:8::4": "the gateway of eth8",
        }
    )


def test_other_tables_are_the_routing_of_others() -> None:
    """A next hop in a table that is not the main or the default one is no gateway of this host."""
    ip("route add default via 192.0.2.1 dev eth9 table 77")
    assert read_gateways() == {}


def test_changes_are_followed() -> None:
    """A gateway counts as long as at least one route uses it."""
    seen: list[Mapping[Network, str]] = []
    failed: list[HostError] = []

    async def until(expected: Mapping[str, str]) -> None:
        async with asyncio.timeout(20):
            while seen[-1:] != [told(expected)]:  # noqa: ASYNC110 - an Event would know no more
                await asyncio.sleep(0.01)

    async def script() -> None:
        await until({})
        ip("route add default via 192.0.2.1 dev eth9")
        await until({"192.0.2.1": "the gateway of eth9"})
        ip("route add default via fe80::1 dev eth8")
        await until({"192.0.2.1": "the gateway of eth9", "fe80::1": "the gateway of eth8"})
        ip("route replace default via 192.0.2.2 dev eth9")
        await until({"192.0.2.2": "the gateway of eth9", "fe80::1": "the gateway of eth8"})
        ip("link set eth8 down")
        await until({"192.0.2.2": "the gateway of eth9"})
        ip("link delete eth9")
        await until({})

    asyncio.run(followed_by(follow_gateways(), seen, failed, script()))

    assert failed == []


def test_gateways_that_cannot_be_read_are_a_host_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that pyroute2 raises becomes a HostError."""

    def failing() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("ringfence.host.routes.IPRoute", failing)

    with pytest.raises(HostError, match="the gateways of this host cannot be read by rtnetlink"):
        read_gateways()


def test_a_gateway_on_an_unknown_link_counts() -> None:
    """A gateway counts even if the name of its link is unknown."""
    assert routes._name_of_link(4_000_000) == ""
    message = {"attrs": [("RTA_GATEWAY", "192.0.2.1"), ("RTA_OIF", 4_000_000)], "oif": 4_000_000}
    assert routes._gateways([message]) == told({"192.0.2.1": "a gateway"})
