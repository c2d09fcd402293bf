"""The addresses of the host itself, read and followed in a network namespace."""

import asyncio
from collections.abc import Callable, Coroutine
from ipaddress import ip_network

import pytest
from tests.host.following import followed_by
from tests.support.netns import netns as fresh
from tests.support.netns import run

from ringfence.errors import HostError
from ringfence.host.routes import follow_addresses, read_addresses
from ringfence.values.network import Network

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

LOOPBACK = {"127.0.0.1", "::1"}


def nets(*texts: str) -> frozenset[Network]:
    """Return the networks of these texts."""
    return frozenset(ip_network(text) for text in texts)


def add_cable() -> None:
    """Add a pair of interfaces that are up, without link-local addresses."""
    run("ip", "link", "add", "eth9", "type", "veth", "peer", "name", "far9")
    for device in ("eth9", "far9"):
        run("ip", "link", "set", device, "addrgenmode", "none")
        run("ip", "link", "set", device, "up")


def follow(script: Callable[["Followed"], Coroutine[None, None, None]]) -> "Followed":
    """Follow the addresses in a running loop while ``script`` runs."""
    followed = Followed()
    asyncio.run(followed_by(follow_addresses(), followed.seen, followed.failed, script(followed)))
    return followed


class Followed:
    """The sets of addresses and the errors that the follower reported, in order."""

    def __init__(self) -> None:
        self.seen: list[frozenset[Network]] = []
        self.failed: list[HostError] = []

    async def until(self, expected: frozenset[Network]) -> None:
        """Wait until ``expected`` is the set that was reported last."""
        async with asyncio.timeout(20):
            while self.seen[-1:] != [expected]:  # noqa: ASYNC110 - an Event would know no more
                await asyncio.sleep(0.01)


def test_own_addresses_are_read_once() -> None:
    """Each own address is a network of full length, and a point-to-point link counts with its local end."""
    add_cable()
    for address in (["192.0.2.7/24"], ["198.51.100.1", "peer", "198.51.100.2"], ["2001:db8::7/64", "nodad"]):
        run("ip", "address", "add", *address, "dev", "eth9")

    assert read_addresses() == nets(*LOOPBACK, "192.0.2.7", "198.51.100.1", "2001:db8::7")


def test_no_address_is_an_empty_set() -> None:
    """A host whose interfaces are all down has no address."""
    with fresh(loopback=False):
        assert read_addresses() == frozenset()


def test_changes_are_followed() -> None:
    """The whole set is reported at the start and after each change, unless a burst undoes the change."""
    add_cable()

    async def script(followed: Followed) -> None:
        await followed.until(nets(*LOOPBACK))
        run("ip", "address", "add", "192.0.2.7/24", "dev", "eth9")
        await followed.until(nets(*LOOPBACK, "192.0.2.7"))
        run("ip", "address", "add", "2001:db8::7/64", "dev", "eth9", "nodad")
        await followed.until(nets(*LOOPBACK, "192.0.2.7", "2001:db8::7"))
        run(
            "ip", "-batch", "-", text="address add 192.0.2.8/24 dev eth9\naddress del 192.0.2.8/24 dev eth9\n"
        )
        await asyncio.sleep(0.3)
        run("ip", "link", "delete", "eth9")
        await followed.until(nets(*LOOPBACK))

    followed = follow(script)

    assert followed.seen == [
        nets(*LOOPBACK),
        nets(*LOOPBACK, "192.0.2.7"),
        nets(*LOOPBACK, "192.0.2.7", "2001:db8::7"),
        nets(*LOOPBACK),
    ]
    assert followed.failed == []


def test_addresses_that_cannot_be_read_are_a_host_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that pyroute2 raises becomes a HostError."""

    def failing() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("ringfence.host.routes.IPRoute", failing)

    with pytest.raises(HostError, match="cannot be read by rtnetlink"):
        read_addresses()
