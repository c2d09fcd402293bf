"""Following the kernel's links and addresses: recovery from losses and errors, pauses between readings."""

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Coroutine
from functools import partial

import pytest
from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR
from tests.host.following import followed_by
from tests.support.netns import run

from ringfence.errors import HostError
from ringfence.host import routes
from ringfence.host.routes import READINGS, follow, read_now

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

LOOPBACK = {"127.0.0.1"}


class Followed:
    """The reports of the follower, in order, and the start time of each reading.

    Each of the next readings raises one of ``troubles``, or calls one of ``disturbances`` while it runs.
    """

    def __init__(self) -> None:
        self.seen: list[set[str]] = []
        self.failed: list[HostError] = []
        self.read_at: list[float] = []
        self.troubles: list[OSError] = []
        self.disturbances: list[Callable[[], object]] = []

    async def until(self, expected: set[str]) -> None:
        """Wait until ``expected`` is the set that was reported last."""
        async with asyncio.timeout(20):
            while self.seen[-1:] != [expected]:  # noqa: ASYNC110 - an Event would know no more
                await asyncio.sleep(0.01)

    async def read(self, route: AsyncIPRoute) -> set[str]:
        """Return the IPv4 addresses."""
        self.read_at.append(asyncio.get_running_loop().time())
        if self.troubles:
            raise self.troubles.pop()
        if self.disturbances:
            at_first_message(route, self.disturbances.pop(0))
        addresses = [message.get("address") async for message in await route.get_addr()]
        return {address for address in addresses if ":" not in address}


def followed_while(
    script: Callable[[Followed], Coroutine[None, None, None]],
    *,
    apart: float = 0.0,
    told: Followed | None = None,
) -> Followed:
    """Follow the addresses while ``script`` runs."""
    told = Followed() if told is None else told
    following = follow("the addresses", RTMGRP_IPV4_IFADDR, told.read, apart=apart)
    asyncio.run(followed_by(following, told.seen, told.failed, script(told)))
    return told


def add(*addresses: str) -> None:
    """Add addresses to the loopback interface."""
    run("ip", "-batch", "-", text="".join(f"address add {one}/32 dev lo\n" for one in addresses))


def test_lost_notifications_lose_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """All addresses are reported, even after more changes than the socket's buffer holds (ENOBUFS)."""
    monkeypatch.setattr(routes, "_RECEIVE_BUFFER", 4096)
    many = [f"10.{n >> 8}.{n & 255}.9" for n in range(400)]

    async def script(told: Followed) -> None:
        await told.until(LOOPBACK)
        add(*many)
        await told.until({*LOOPBACK, *many})

    told = followed_while(script)

    assert [str(error) for error in told.failed if "the addresses cannot" not in str(error)] == []
    assert told.failed != []


def test_an_error_is_reported_and_clears(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the socket is reported as HostError, and the socket is opened again after a pause."""
    troubles = [OSError(24, "Too many open files"), NetlinkError(1, "no")]

    def failing(**options: int) -> AsyncIPRoute:
        if troubles:
            raise troubles.pop()
        return AsyncIPRoute(**options)

    monkeypatch.setattr(routes, "AsyncIPRoute", failing)
    begun = time.monotonic()

    told = followed_while(lambda told: told.until(LOOPBACK))

    assert [type(error) for error in told.failed] == [HostError, HostError]
    assert time.monotonic() - begun >= 0.3


def test_the_end_of_an_error_is_reported() -> None:
    """After an error the next reading is reported, even if it equals the last reported set."""

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
    """With a minimum interval, continuous changes are read at most that often, and the last one is seen."""

    async def script(told: Followed) -> None:
        await told.until(LOOPBACK)
        for n in range(10):
            add(f"192.0.2.{n}")
            await asyncio.sleep(0.1)
        await told.until({*LOOPBACK, *(f"192.0.2.{n}" for n in range(10))})

    told = followed_while(script, apart=0.5)

    assert all(b - a >= 0.5 for a, b in itertools.pairwise(told.read_at))


MANY = [f"10.{n >> 8}.{n & 255}.9" for n in range(1_200)]
"""Addresses whose dump comes in several parts."""

LATE = ["10.200.0.9", "10.200.1.9", "10.200.2.9"]


def at_first_message(route: AsyncIPRoute | IPRoute, action: Callable[[], object]) -> None:
    """Call ``action`` when the first message of the next dump is parsed: the kernel still has the rest."""
    before = route.marshal.get_parser

    def get_parser(kind: int, flags: int, number: int) -> object:
        route.marshal.get_parser = before
        action()
        return before(kind, flags, number)

    route.marshal.get_parser = get_parser


def test_a_dump_that_changed_while_it_was_read_is_read_again() -> None:
    """The incomplete reading is not reported, and it is no error."""
    add(*MANY)
    told = Followed()
    told.disturbances = [partial(add, one) for one in LATE]

    followed_while(lambda told: told.until({*LOOPBACK, *MANY, *LATE}), told=told)

    assert told.seen == [{*LOOPBACK, *MANY, *LATE}]
    assert told.failed == []


def test_a_dump_that_always_changes_is_an_error() -> None:
    """An error is reported after a limited number of readings; a later complete reading is reported too."""
    add(*MANY)
    told = Followed()
    many = [f"10.200.{n}.9" for n in range(READINGS)]
    told.disturbances = [partial(add, one) for one in many]

    followed_while(lambda told: told.until({*LOOPBACK, *MANY, *many}), told=told)

    assert [str(error) for error in told.failed] == [
        f"the addresses cannot be read by rtnetlink: they changed during each of {READINGS} readings"
    ]
    assert told.seen == [{*LOOPBACK, *MANY, *many}]


def test_a_single_reading_repeats_a_changed_dump() -> None:
    """The first reading repeats a changed dump too, and fails if the dump always changes."""
    add(*MANY)
    late = [f"10.200.{n}.9" for n in range(2 + READINGS)]
    changes = [partial(add, one) for one in late[:2]]

    def read(route: IPRoute) -> set[str]:
        if changes:
            at_first_message(route, changes.pop(0))
        return {message.get("address") for message in route.get_addr(family=socket.AF_INET)}

    assert read_now("the addresses", read) == {*LOOPBACK, *MANY, *late[:2]}
    changes = [partial(add, one) for one in late[2:]]
    with pytest.raises(HostError, match=f"they changed during each of {READINGS} readings"):
        read_now("the addresses", read)
    assert changes == []
