"""The networks of container bridges, read and followed among real bridges, veth pairs and namespaces."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import ip_network

import pytest
from pyroute2 import AsyncIPRoute
from tests.host.following import followed_by
from tests.support.netns import neighbour, run

from ringfence.errors import HostError
from ringfence.host import routes
from ringfence.host.routes import follow_containers
from ringfence.values.network import Network

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

NONE: frozenset[Network] = frozenset()


def nets(*texts: str) -> frozenset[Network]:
    """Return the networks of these texts."""
    return frozenset(ip_network(text) for text in texts)


@pytest.fixture(name="container")
def _container() -> Iterator[str]:
    """Return the name of a namespace for the far end of veth pairs."""
    with neighbour() as name:
        yield name


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the pause between readings, which exists for hosts with many containers."""
    monkeypatch.setattr(routes, "BRIDGES_APART", 0.0)


class Followed:
    """The sets of networks and the errors that the follower reported, in order."""

    def __init__(self) -> None:
        self.seen: list[frozenset[Network]] = []
        self.failed: list[HostError] = []

    async def until(self, *expected: str) -> None:
        """Wait until these networks are the set that was reported last."""
        async with asyncio.timeout(20):
            while self.seen[-1:] != [nets(*expected)]:  # noqa: ASYNC110 - an Event would know no more
                await asyncio.sleep(0.01)


def follow(script: Callable[[Followed], Coroutine[None, None, None]]) -> Followed:
    """Follow the bridges in a running loop while ``script`` runs."""
    followed = Followed()
    asyncio.run(followed_by(follow_containers(), followed.seen, followed.failed, script(followed)))
    return followed


def read() -> frozenset[Network]:
    """Return the set that is reported first."""

    async def script(followed: Followed) -> None:
        async with asyncio.timeout(20):
            while not followed.seen:  # noqa: ASYNC110 - an Event would know no more
                await asyncio.sleep(0.01)

    return follow(script).seen[0]


def ip(*lines: str) -> None:
    """Run a batch of lines of ``ip``."""
    run("ip", "-batch", "-", text="".join(f"{line}\n" for line in lines))


def add_bridge(name: str = "br9", address: str = "10.9.9.1/24") -> None:
    """Add a bridge with an address."""
    ip(f"link add {name} type bridge", f"link set {name} up", f"address add {address} dev {name}")


def plug(container: str, port: str, bridge: str = "br9") -> None:
    """Plug a container into a bridge."""
    ip(
        f"link add {port} type veth peer name eth0 netns {container}",
        f"link set {port} master {bridge} up",
    )


def test_a_bridge_of_containers(container: str) -> None:
    """Each network of a bridge counts, in both IP versions, except link-local ones; other links have none."""
    add_bridge()
    plug(container, "near9")
    ip(
        "address add 10.9.8.1/25 dev br9",
        "address add fd00:9::1/64 dev br9 nodad",
        "address add fe80::1/64 dev br9 nodad",
        "address add 192.0.2.1/24 dev lo",
        "link add eth9 type veth peer name far8",
        "address add 198.51.100.7/24 dev eth9",
    )
    assert read() == nets("10.9.9.0/24", "10.9.8.0/25", "fd00:9::/64")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["tuntap add tap9 mode tap", "link set tap9 master br9"],
        ["link add vx9 type vxlan id 9 dstport 4789", "link set vx9 master br9"],
        ["link add near8 type veth peer name far8", "link set near8 master br9"],
    ],
    ids=["no port", "virtual machine", "tunnel", "cable of the host's own"],
)
def test_a_bridge_with_other_ports_does_not_count(container: str, lines: list[str]) -> None:
    """A bridge does not count without ports, or if one of its ports does not lead into a container."""
    add_bridge()
    if lines:
        plug(container, "near9")
    ip(*lines)
    assert read() == NONE


@pytest.mark.parametrize(
    ("address", "counts"),
    [
        ("10.9.9.200/28", False),
        ("10.9.9.1/24", False),
        ("10.1.2.3 peer 10.9.9.77", False),
        ("10.1.2.3 peer 0.0.0.0", True),
        ("10.9.9.5/32", True),
        ("10.9.0.1/16", True),
        ("fd00:9::1/64", True),
    ],
    ids=[
        *("a part", "the same", "the far end of a tunnel", "a tunnel without a far end"),
        *("a second own address", "a wider one", "IPv6"),
    ],
)
def test_a_network_that_another_link_reaches_does_not_count(
    container: str, address: str, *, counts: bool
) -> None:
    """A network that another link reaches too does not count, unless the route of that link is wider."""
    add_bridge()
    plug(container, "near9")
    ip("link add eth9 type veth peer name far8", f"address add {address} dev eth9")
    assert read() == (nets("10.9.9.0/24") if counts else NONE)


def test_changes_of_containers_are_followed(container: str) -> None:
    """A bridge counts from its first container until the last one leaves or another kind of port joins."""

    async def script(followed: Followed) -> None:
        await followed.until()
        add_bridge()
        # A container runtime does the same: it makes the veth pair here, then moves one end.
        ip("link add near9 type veth peer name far9", "link set near9 master br9 up")
        ip(f"link set far9 netns {container} name eth0")
        run("ip", "-n", container, "link", "set", "eth0", "up")
        await followed.until("10.9.9.0/24")
        ip("address add fd00:9::1/64 dev br9 nodad")
        await followed.until("10.9.9.0/24", "fd00:9::/64")
        ip("tuntap add tap9 mode tap", "link set tap9 master br9")
        await followed.until()
        ip("link set tap9 nomaster")
        await followed.until("10.9.9.0/24", "fd00:9::/64")
        ip("address delete 10.9.9.1/24 dev br9")
        await followed.until("fd00:9::/64")
        run("ip", "-n", container, "link", "delete", "eth0")
        await followed.until()

    followed = follow(script)

    assert followed.failed == []


def test_an_error_names_what_cannot_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what cannot be followed, for the administrator."""
    troubles = [OSError(24, "Too many open files")]
    read_links = routes._read_bridges

    async def failing(route: AsyncIPRoute) -> frozenset[Network]:
        if troubles:
            raise troubles.pop()
        return await read_links(route)

    monkeypatch.setattr(routes, "_read_bridges", failing)
    [error] = follow(Followed.until).failed

    assert type(error) is HostError
    assert str(error) == (
        "the bridges of containers cannot be followed by rtnetlink: [Errno 24] Too many open files"
    )


def test_a_link_without_a_kind_does_not_lead_into_a_container() -> None:
    """Real hardware has no link kind, and attributes that the kernel omits are not guessed."""
    card = {"index": 2, "master": 5, "linkinfo": {"slave_kind": "bridge"}}
    assert routes._link(card) == routes._Link(2, "", master=5, leads_away=False)
    assert routes._link({"index": 2}) == routes._Link(2, "", master=None, leads_away=False)
