"""Why: asked of a running daemon.

What is kept in tables is read in the event loop, some microseconds each; the kernel's list, the database and
the lists in threads, so that nobody who only asks holds up a ban.
"""

import asyncio
from collections.abc import Mapping
from ipaddress import IPv6Network
from typing import Any

from ringfence.bans.ledger import network_of
from ringfence.detect.places import prefix_of
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.errors import ControlError, RingfenceError
from ringfence.keeper import Keeper
from ringfence.lists.holding import Holder
from ringfence.model import Network, Scope, network_from
from ringfence.why.document import Document, document
from ringfence.why.known import Known, Running, is_about
from ringfence.why.records import Found, look, running_of

_SENDER = 64
"""Whoever has one address of such a prefix of IPv6 usually has them all."""


class Asking:
    """Answers ``{"do": "why", "network": "198.51.100.7"}`` from all that the keeper has."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._enforcer = keeper.enforcer

    async def answer(self, request: Mapping[str, Any]) -> Document:
        """Answer a command."""
        try:
            network = network_from(request["network"])
        except (KeyError, TypeError, ValueError) as error:
            raise ControlError(f"not an address or network: {error}") from None
        return document(await self.known(network))

    async def known(self, network: Network) -> Known:
        """Gather what is known of ``network``."""
        enforcer, detector, wall = self._enforcer, self._enforcer.detector, self._enforcer.clock.wall()
        problems: list[str] = []
        subject = detector.subject_of(network.network_address) if _is_sender(network) else network
        found = await asyncio.to_thread(look, enforcer.backend, enforcer.records.store, network, wall)
        holders = await self._holding(network, problems)
        mono = enforcer.clock.mono()
        story = None
        if _is_sender(network) and (_is_single(network) or subject == network):
            story = detector.story(network.network_address, mono)
        around = network if story is None else prefix_of(network.network_address)
        return Known(
            network=network,
            now=wall,
            subject=subject,
            running=self._running(network, found, wall),
            past=tuple(past for past in found.past if not past.runs(wall)),
            offences=enforcer.records.offences(subject, wall - RETURN_WITHIN),
            holders=tuple(holders),
            protected=enforcer.exempt.protected,
            friends=story.friends if story is not None else (),
            former=story.former if story is not None else (),
            story=story,
            ahead=wall - mono,
            spared=detector.friends.live_in(around) or detector.never.touches(around),
            claimed=self._keeper.claims,
            alarms=tuple(alarm for alarm in self._keeper.alarms.up if is_about(alarm.subject, network)),
            enforcing=enforcer.enforcing,
            problems=(*found.problems, *problems),
        )

    async def _holding(self, network: Network, problems: list[str]) -> list[Holder]:
        try:
            return await self._keeper.lists.holding(network)
        except RingfenceError as error:
            problems.append(f"which list holds it is not known: {error}")
            return []

    def _running(self, network: Network, found: Found, now: float) -> tuple[Running, ...]:
        """Give the bans that cover it: those that the kernel has, and those that it should have."""
        enforcer = self._enforcer
        keys = [key for scope in Scope for key in enforcer.ledger.covering(network, scope, now)]
        known = {network_of(key): enforcer.ban_at(key) for key in keys}
        return running_of(found, known, now)


def _is_single(network: Network) -> bool:
    return network.prefixlen == network.max_prefixlen


def _is_sender(network: Network) -> bool:
    """Say whether all of ``network`` is counted and banned as one, or may be."""
    return _is_single(network) or (isinstance(network, IPv6Network) and network.prefixlen >= _SENDER)
