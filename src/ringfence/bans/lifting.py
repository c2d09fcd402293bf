"""Letting in again: one ban, the bans around and within a network, or every ban.

Who is let in by name is let in: every ban that covers him ends. Of a ban of a wider network the rest stays
banned, in parts, for as long as it was: unbanning one address of a /24 leaves eight smaller bans. An IPv6
address is let in with its /64, since that is what is counted and banned.
"""

import asyncio
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Network, ip_network
from itertools import chain

from attrs import evolve, frozen

from ringfence.bans.enforce import CHUNK, Enforcer
from ringfence.bans.exempt import overlap
from ringfence.bans.ledger import key_of, network_of, parts_of
from ringfence.bans.orders import lines
from ringfence.errors import ControlError
from ringfence.firewall.contract import Outcome
from ringfence.model import Address, Network, Origin, Scope

_IPV6_SUBJECT = 64
_PREFIXES = {4: (24,), 6: (48,)}


@frozen
class Lifted:
    """What came of it: what could not be done, and what is to be said beside, a line each."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def spare(enforcer: Enforcer, friends: Iterable[Address]) -> None:
    """Lift the rules' bans on mere claims of those who turned out to be friends, and of networks around them.

    Somebody may have forged their address before they came. What they were banned for themselves stays.
    """
    now, freed = enforcer.clock.wall(), set[int]()
    for address in friends if len(enforcer.ledger) else ():
        network = ip_network(address)
        around = enforcer.ledger.covering(network, Scope.SIP_UDP, now)
        wide = enforcer.ledger.covering(network, Scope.FULL, now)
        around += [key for key in wide if parts_of(key)[2] in _PREFIXES[network.version]]
        for key in around:
            record = enforcer.ledger.get(key)
            if record is not None and record.origin is Origin.RULE:
                freed.add(key)
    if freed:
        enforcer.free(freed)


def unban(enforcer: Enforcer, networks: Sequence[Network]) -> Lifted:
    """Lift the bans that ``networks`` lie in, and those that lie in them."""
    enforcer.must_enforce()
    problems: list[str] = []
    notes: list[str] = []
    for network in networks:
        found = dict.fromkeys(enforcer.touching(network))
        if not found:
            foreign = _known_to_the_kernel(enforcer, network)
            enforcer.adopt(foreign)
            found = dict.fromkeys(foreign)
        if not found:
            problems.append(f"{network}: is not banned")
        for key in found:
            parts = _rest(network_of(key)[0], network)
            failed = _split(enforcer, key, parts)
            if parts and not failed:
                pieces = "one part" if len(parts) == 1 else f"{len(parts)} parts"
                notes.append(f"{network_of(key)[0]}: the rest of it stays banned, in {pieces}")
            problems += lines(failed)
            banned = network_of(key)[0]
            if not parts and banned.prefixlen < network.prefixlen:
                notes.append(f"{banned}: is let in as a whole, since one sender has all of it")
        problems += lines(enforcer.lift(found))
    return Lifted(tuple(problems), tuple(notes))


async def unban_all(enforcer: Enforcer) -> int:
    """Lift every ban there is, also those that nobody knows but the kernel, and give their number.

    ``CHUNK`` at a time, so that a new ban waits for some of them and not for all.
    """
    enforcer.must_enforce()
    inside = await asyncio.to_thread(lambda: [key_of(e.network, e.scope) for e in enforcer.backend.list()])
    keys, problems = [*dict.fromkeys(chain(inside, enforcer.keys()))], list[str]()
    for start in range(0, len(keys), CHUNK):
        if not enforcer.enforcing:  # switched off meanwhile
            break
        problems += lines(enforcer.lift(keys[start : start + CHUNK]))
        await asyncio.sleep(0)
    if problems:
        raise ControlError("; ".join(problems[:20]))
    return len(inside)


def _known_to_the_kernel(enforcer: Enforcer, network: Network) -> dict[int, float]:
    return {
        key_of(element.network, element.scope): element.timeout
        for element in enforcer.backend.list()
        if overlap(element.network, network)
    }


def _split(enforcer: Enforcer, key: int, parts: Sequence[Network]) -> list[Outcome]:
    """Ban ``parts`` of a banned network for as long as it is, which stays; give what was refused.

    A part that is banned for longer stays so.
    """
    whole = enforcer.ban_at(key)
    bans = [evolve(whole, network=part) for part in parts] if whole is not None else []
    shorter = []
    for ban in bans:
        there = enforcer.ledger.get(key_of(ban.network, ban.scope))
        if there is None or there.expires < ban.expires:
            shorter.append(ban)
    return [outcome for outcome in enforcer.place(shorter) if outcome.error is not None]


def _rest(banned: Network, freed: Network) -> tuple[Network, ...]:
    """Give what stays of ``banned`` without ``freed``: nothing where that is as wide or wider."""
    if isinstance(banned, IPv6Network) and isinstance(freed, IPv6Network):
        if freed.prefixlen > _IPV6_SUBJECT:
            freed = freed.supernet(new_prefix=_IPV6_SUBJECT)
        strictly = banned.prefixlen < freed.prefixlen and freed.subnet_of(banned)
        return tuple(banned.address_exclude(freed)) if strictly else ()
    if isinstance(banned, IPv6Network) or isinstance(freed, IPv6Network):
        return ()
    strictly = banned.prefixlen < freed.prefixlen and freed.subnet_of(banned)
    return tuple(banned.address_exclude(freed)) if strictly else ()
