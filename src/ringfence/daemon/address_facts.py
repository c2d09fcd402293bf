"""The facts about one address, collected in a running daemon.

Facts in memory are read in the event loop, which takes some microseconds each. The bans in the kernel, the
past bans and the lists are read in threads, so that a request delays no ban.
"""

import asyncio
from collections.abc import Mapping
from ipaddress import IPv6Network
from typing import Any

from ringfence.daemon.firewall_side import FirewallSide
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.errors import RingfenceError
from ringfence.explain.as_json import Document, document
from ringfence.explain.facts import ActiveBan, BanRecords, NetworkFacts, is_about, read_bans, running_of
from ringfence.ledger import network_of
from ringfence.lists.manager import Holder
from ringfence.model import (
    Network,
    Scope,
    parse_network,
)
from ringfence.networks import IPV6_SENDER, is_one_host, prefix_of


class AddressFacts:
    """Handles the request ``{"do": "why", "network": "198.51.100.7"}`` with the facts of a running daemon."""

    def __init__(self, side: FirewallSide) -> None:
        self._side = side

    async def answer(self, request: Mapping[str, Any]) -> Document:
        """Return the facts about the network in ``request``."""
        return document(await self.known(parse_network(request["network"])))

    async def known(self, network: Network) -> NetworkFacts:
        """Return the facts about ``network``. The field ``problems`` names facts that cannot be read."""
        side, detector, wall = self._side, self._side.detector, self._side.clock.wall()
        problems: list[str] = []
        subject = detector.subject_of(network.network_address) if _is_sender(network) else network
        found = await asyncio.to_thread(read_bans, side.backend, side.store.bans, network, wall)
        holders = await self._holding(network, problems)
        mono = side.clock.mono()
        story = None
        if _is_sender(network) and (_is_single(network) or subject == network):
            story = detector.summary_of(network.network_address, mono)
        around = network if story is None else prefix_of(network.network_address)
        return NetworkFacts(
            network=network,
            now=wall,
            subject=subject,
            running=self._running(network, found, wall),
            past=tuple(past for past in found.past if not past.runs(wall)),
            offences=side.store.records.offences(subject, wall - RETURN_WITHIN),
            holders=tuple(holders),
            protected=side.enforcer.exempt.protected,
            friends=story.friends if story is not None else (),
            former=story.former if story is not None else (),
            story=story,
            ahead=wall - mono,
            contains_exempt=detector.friends.any_in(around) or detector.exempt.overlaps(around),
            claimed=side.wanted_rules.settings.claims(),
            ration=side.backend.plan.ration,
            alarms=tuple(alarm for alarm in side.alarms.active if is_about(alarm.subject, network)),
            enforcing=side.enforcer.enforcing,
            problems=(*found.problems, *problems),
        )

    async def _holding(self, network: Network, problems: list[str]) -> list[Holder]:
        try:
            return await self._side.lists.holding(network)
        except RingfenceError as error:
            problems.append(f"which list holds it is not known: {error}")
            return []

    def _running(self, network: Network, found: BanRecords, now: float) -> tuple[ActiveBan, ...]:
        """Return the active bans that cover ``network``.

        A ban is returned if it is in the kernel, in the database or in the ledger. ``found`` has those of the
        kernel and of the database. ``now`` is in seconds since the epoch.
        """
        ledger = self._side.enforcer.ledger
        keys = [key for scope in Scope for key in ledger.covering(network, scope, now)]
        return running_of(found, {network_of(key): ledger.ban(key) for key in keys}, now)


def _is_single(network: Network) -> bool:
    return network.prefixlen == network.max_prefixlen


def _is_sender(network: Network) -> bool:
    """Whether ``network`` belongs to one sender: one address, or an IPv6 /64 or a part of a /64.

    The networks of NAT64 are different: a /64 there has many senders, each with one address. So only a single
    address there is one sender.
    """
    if _is_single(network):
        return True
    part_of_sender = isinstance(network, IPv6Network) and network.prefixlen >= IPV6_SENDER
    return part_of_sender and not is_one_host(network.network_address)
