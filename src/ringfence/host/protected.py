"""The *protected* addresses, whose ban would hurt this host: its gateways, DNS resolvers and remote logins.

The host's own addresses are followed separately (``addresses.py``). The kernel reports changes of gateways.
Resolvers and logins are read every two seconds, because their files are few and short (0.06 ms for each
login, 0.02 ms for the resolvers). They are read in a thread, because a file or a user's name may come from a
server on the network.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeAlias

from ringfence.errors import HostError
from ringfence.host.gateways import follow_gateways, read_gateways
from ringfence.host.logins import read_logins
from ringfence.host.resolvers import read_resolvers
from ringfence.model import Network

LOOK_EVERY = 2.0
"""Seconds between two readings of resolvers and logins."""

Reasons: TypeAlias = Mapping[Network, str]
"""Networks, each with its role (``the gateway of eth0``)."""


def read_protected(failed: Callable[[HostError], None] = lambda _error: None) -> Reasons:
    """Return all protected networks: those of gateways, DNS resolvers and remote logins.

    ``failed`` is called with an error for each of these three parts that cannot be read. Do not call this
    function in a running event loop; use follow_protected there.
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
    """Call ``changed`` with all protected networks now and after each change, until cancelled.

    ``failed`` is called with each error of a part (gateways, resolvers or logins), and the last known
    networks of this part stay valid. A call of ``changed`` clears all errors. If some remain, ``failed`` is
    called again for each of them, right after ``changed``.
    """
    follower = _Follower(changed, failed)
    async with asyncio.TaskGroup() as group:
        group.create_task(follow_gateways(follower.gateways_are, follower.gateways_failed))
        group.create_task(follower.look_at("resolvers", read_resolvers))
        group.create_task(follower.look_at("logins", read_logins))


class _Follower:
    """Joins the three parts: gateways, resolvers and logins.

    ``changed`` is not called before each part has been read or has failed.
    """

    def __init__(self, changed: Callable[[Reasons], None], failed: Callable[[HostError], None]) -> None:
        self._changed = changed
        self._failed = failed
        self._parts: dict[str, Reasons | None] = {"gateways": None, "resolvers": None, "logins": None}
        self._troubles: dict[str, str] = {}
        self._published: Reasons | None = None

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
            self._published = None
        self._publish()

    def _has_failed(self, part: str, error: HostError) -> None:
        self._troubles[part] = str(error)
        if self._parts[part] is None:
            self._parts[part] = {}
        if not self._publish():
            self._failed(error)

    def _publish(self) -> bool:
        parts = [part for part in self._parts.values() if part is not None]
        if len(parts) == len(self._parts) and (now := _together(parts)) != self._published:
            self._published = now
            self._changed(now)
            for trouble in self._troubles.values():  # changed() clears all errors; these remain
                self._failed(HostError(trouble))
            return True
        return False


def _together(parts: list[Reasons]) -> Reasons:
    """Return the networks of all parts, each with all its roles: a router is often gateway and resolver."""
    reasons: dict[Network, list[str]] = {}
    for part in parts:
        for network, reason in part.items():
            reasons.setdefault(network, []).append(reason)
    return {network: " and ".join(each) for network, each in reasons.items()}
