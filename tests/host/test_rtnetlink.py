"""Following the kernel's links and addresses: what was lost or fails is made good, and seldom enough."""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine

import pytest
from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR
from tests.support.netns import run

from ringfence.errors import HostError
from ringfence.host import rtnetlink
from ringfence.host.rtnetlink import follow

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

LOOPBACK = {"127.0.0.1"}


class Followed:
    """What was told, in order, and when each reading began; ``troubles`` are what the next readings meet."""

    def __init__(self) -> None:
        self.seen: list[set[str]] = []
        self.failed: list[HostError] = []
        self.read_at: list[float] = []
        self.troubles: list[OSError] = []

    async def until(self, expected: set[str]) -> None:
        """Wait until that is the last that was told."""
        async with asyncio.timeout(20):
            while self.seen[-1:] != [expected]:  # noqa: ASYNC110 - an Event would know no more
                await asyncio.sleep(0.01)

    async def read(self, route: AsyncIPRoute) -> set[str]:
        """Read the IPv4 addresses."""
        self.read_at.append(asyncio.get_running_loop().time())
        if self.troubles:
            raise self.troubles.pop()
        addresses = [message.get("address") async for message in await route.get_addr()]
        return {address for address in addresses if ":" not in address}


def followed_while(
    script: Callable[[Followed], Coroutine[None, None, None]], *, apart: float = 0.0
) -> Followed:
    """Follow the addresses while ``script`` runs."""
    told = Followed()
    sinks = told.seen.append, told.failed.append

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(
                follow("the addresses", RTMGRP_IPV4_IFADDR, told.read, *sinks, apart=apart)
            )
            await script(told)
            task.cancel()

    asyncio.run(main())
    return told


def add(*addresses: str) -> None:
    """Give loopback more addresses."""
    run("ip", "-batch", "-", text="".join(f"address add {one}/32 dev lo\n" for one in addresses))


def test_lost_notifications_lose_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """After more changes than the socket's buffer holds (ENOBUFS) all is told all the same."""
    monkeypatch.setattr(rtnetlink, "_RECEIVE_BUFFER", 4096)
    many = [f"10.{n >> 8}.{n & 255}.9" for n in range(400)]

    async def script(told: Followed) -> None:
        await told.until(LOOPBACK)
        add(*many)
        await told.until({*LOOPBACK, *many})

    told = followed_while(script)

    assert [str(error) for error in told.failed if "the addresses cannot" not in str(error)] == []
    assert told.failed != []


def test_trouble_is_told_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that fails is told as a HostError and opened again, with pauses."""
    troubles = [OSError(24, "Too many open files"), NetlinkError(1, "no")]

    def failing(**options: int) -> AsyncIPRoute:
        if troubles:
            raise troubles.pop()
        return AsyncIPRoute(**options)

    monkeypatch.setattr(rtnetlink, "AsyncIPRoute", failing)
    begun = time.monotonic()

    told = followed_while(lambda told: told.until(LOOPBACK))

    assert [type(error) for error in told.failed] == [HostError, HostError]
    assert time.monotonic() - begun >= 0.3


def test_the_end_of_a_trouble_is_told() -> None:
    """After a trouble what is read is told again, also where it is what was told before."""

    async def script(told: Followed) -> None:
        await told.until(LOOPBACK)
        told.seen.clear()
        told.troubles.append(OSError(105, "No buffer space available"))
        run("ip", "-batch", "-", text="address add 192.0.2.7/32 dev lo\naddress del 192.0.2.7/32 dev lo\n")
        await told.until(LOOPBACK)

    told = followed_while(script)

    assert [str(error) for error in told.failed] == [
        "the addresses cannot be followed by rtnetlink: [Errno 105] No buffer space available"
    ]


def test_readings_are_apart() -> None:
    """Where readings are dear, changes without end are read at most so often, and the last one is seen."""

    async def script(told: Followed) -> None:
        await told.until(LOOPBACK)
        for n in range(10):
            add(f"192.0.2.{n}")
            await asyncio.sleep(0.1)
        await told.until({*LOOPBACK, *(f"192.0.2.{n}" for n in range(10))})

    told = followed_while(script, apart=0.5)

    assert all(b - a >= 0.5 for a, b in itertools.pairwise(told.read_at))
