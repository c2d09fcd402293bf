"""Whom a ban would hurt this host itself: gateways, DNS resolvers, and where somebody is logged in from.

The host's own addresses are followed by themselves (``addresses.py``). Gateways are told by the kernel;
resolvers and logins are looked at every two seconds: the files are few and short (0.06 ms a login, 0.02 ms
for the resolvers), and there is nothing in it that can be lost or fall silent. They are read in a thread,
since a file or a user's name may come from elsewhere over the network.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from ringfence.errors import HostError
from ringfence.host.gateways import follow_gateways, read_gateways
from ringfence.host.logins import read_logins
from ringfence.host.resolvers import read_resolvers
from ringfence.model import Network

LOOK_EVERY = 2.0
"""How often resolvers and logins are looked at (seconds)."""

Reasons: TypeAlias = Mapping[Network, str]
"""Networks, each with what it is to people (``the gateway of eth0``)."""


def read_protected(failed: Callable[[HostError], None] = lambda _error: None) -> Reasons:
    """Give all that is protected now; ``failed`` is told what could not be read, and the rest is given.

    Not within a running event loop: there, follow_protected.
    """
    parts: list[Reasons] = []
    for read in (read_gateways, read_resolvers, read_logins):
        try:
            parts.append(read())
        except HostError as error:
            failed(error)
    return _together(parts)


async def follow_protected(
    changed: Callable[[Reasons], None],
    failed: Callable[[HostError], None] = lambda _error: None,
) -> None:
    """Call ``changed`` with all that is protected (as read_protected gives it) now and after each change.

    Runs until cancelled. ``failed`` is told of each trouble, after which what was known last counts. Whenever
    ``changed`` is called, a trouble is over unless ``failed`` is told of it again at once.
    """
    follower = _Follower(changed, failed)
    async with asyncio.TaskGroup() as group:
        group.create_task(follow_gateways(follower.gateways_are, follower.gateways_failed))
        group.create_task(follower.look_at("resolvers", read_resolvers))
        group.create_task(follower.look_at("logins", read_logins))


class _Follower:
    """What is known of each part. Nothing is told before each part has been read or has failed."""

    def __init__(self, changed: Callable[[Reasons], None], failed: Callable[[HostError], None]) -> None:
        self._changed = changed
        self._failed = failed
        self._parts: dict[str, Reasons | None] = {"gateways": None, "resolvers": None, "logins": None}
        self._troubles: dict[str, str] = {}
        self._told: Reasons | None = None

    def gateways_are(self, gateways: Reasons) -> None:
        self._is("gateways", gateways)

    def gateways_failed(self, error: HostError) -> None:
        self._has_failed("gateways", error)

    async def look_at(self, part: str, read: Callable[[], Reasons]) -> None:
        while True:
            try:
                now = await asyncio.to_thread(read)
            except HostError as error:
                if self._troubles.get(part) != str(error):
                    self._has_failed(part, error)
            else:
                self._is(part, now)
            await asyncio.sleep(LOOK_EVERY)

    def _is(self, part: str, now: Reasons) -> None:
        self._parts[part] = now
        if self._troubles.pop(part, None) is not None:
            self._told = None
        self._tell()

    def _has_failed(self, part: str, error: HostError) -> None:
        self._troubles[part] = str(error)
        if self._parts[part] is None:
            self._parts[part] = {}
        if not self._tell():
            self._failed(error)

    def _tell(self) -> bool:
        parts = [part for part in self._parts.values() if part is not None]
        if len(parts) == len(self._parts) and (now := _together(parts)) != self._told:
            self._told = now
            self._changed(now)
            for trouble in self._troubles.values():  # so that nobody takes it for over
                self._failed(HostError(trouble))
            return True
        return False


def _together(parts: list[Reasons]) -> Reasons:
    """Give every reason for each network: a router is often gateway and resolver."""
    reasons: dict[Network, list[str]] = {}
    for network, reason in _each(parts):
        reasons.setdefault(network, []).append(reason)
    return {network: " and ".join(each) for network, each in reasons.items()}


def _each(parts: list[Reasons]) -> Iterator[tuple[Network, str]]:
    return (item for part in parts for item in part.items())
