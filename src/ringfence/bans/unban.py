"""Unban by command: one ban, the bans around and within a network, or every ban.

An address is unbanned by removing every ban that covers it. If such a ban is of a wider network, the rest of
this network stays banned for the same time, in parts: unbanning one address of a /24 leaves eight smaller
bans. An IPv6 address is unbanned with its /64, because attempts are counted for the whole /64, and it is
banned as a whole.
"""

import asyncio
from collections.abc import Container, Iterable, Sequence
from ipaddress import ip_network
from itertools import chain
from typing import Self

import structlog
from attrs import evolve, frozen

from ringfence.ban_facts import News, Unbanned
from ringfence.bans.book import failure_lines, in_parts
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.listing import listed
from ringfence.errors import ControlError
from ringfence.firewall.contract import Outcome
from ringfence.ledger import Ledger, clock_step, key_of, network_of, parts_of
from ringfence.values.ban import CLAIMED_SCOPES, WHOLE_SCOPES, BanEnd, Origin, Scope
from ringfence.values.friend import Friend
from ringfence.values.network import (
    PREFIX_LENGTHS,
    Address,
    Network,
    exempts_friends,
    format_network,
    is_one_host,
    overlap,
    sender_of,
    whole_sender,
    without,
)


@frozen
class UnbanResult:
    """The result of an unban: lines about problems, lines with notes, and networks that were not banned.

    ``ended`` is the number of bans that ended.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    not_banned: tuple[str, ...] = ()
    ended: int = 0


def unban_known(enforcer: Enforcer, bans: Iterable[tuple[Network, Scope]]) -> None:
    """Remove bans of senders whose address Asterisk may know since a reload, and log the reason."""
    keys = [key_of(network, scope) for network, scope in bans]
    if keys:
        structlog.get_logger().info("ban.reloaded", number=len(keys), why=_RELOADED)
        enforcer.apply(enforcer.book.unban_with_retry(keys))


_RELOADED = (
    "Asterisk has read its trunks again, and may know these senders now: none of them tried a password"
)


def unban_friends(enforcer: Enforcer, friends: Iterable[Address], trunks: Container[Address] = ()) -> None:
    """Remove two kinds of rules' bans that cover the addresses of new friends (phones and trunks).

    The first kind are bans on unproven evidence, of the scopes SIP_UDP and SIP_TCP: senders may have forged
    the friend's address. The second are the bans of a prefix around the address (with a length of
    ``PREFIX_LENGTHS``). All other bans stay, for example one of the address itself for proven attempts,
    unless ``trunks`` has the address: no rule bans a trunk. A ban of a /64 need not be removed, because the
    kernel does not apply it to friends.
    """
    now, freed, ledger = enforcer.now(), set[int](), enforcer.ledger
    for address in friends if len(ledger) or ledger.pending else ():
        network = ip_network(address)
        around = [key for scope in CLAIMED_SCOPES for key in _around(ledger, network, scope, now)]
        wide = [key for scope in WHOLE_SCOPES for key in _around(ledger, network, scope, now)]
        around += [key for key in wide if address in trunks or parts_of(key)[2] in PREFIX_LENGTHS]
        for key in around:
            ban, (banned, scope) = ledger.ban(key), network_of(key)
            if ban is None or ban.origin is not Origin.RULE or exempts_friends(banned):
                continue
            if address in trunks or scope in WHOLE_SCOPES or not ban.counts.are_proven:
                freed.add(key)
    enforcer.apply(enforcer.book.unban_with_retry(freed))


def _around(ledger: Ledger, network: Network, scope: Scope, now: float) -> list[int]:
    """Return the keys of the bans that contain ``network``.

    Of pending bans, only those of the lengths that rules ban are found.
    """
    found = ledger.covering(network, scope, now)
    if ledger.pending:
        own = network.prefixlen
        lengths = [own, *(length for length in PREFIX_LENGTHS if length < own)]
        keys = [key_of(network.supernet(new_prefix=length), scope) for length in lengths]
        found += [key for key in keys if key in ledger.pending]
    return found


def unban_claims(enforcer: Enforcer, friend: Friend) -> None:
    """Remove bans on unproven evidence of an address from which a phone has logged in.

    Such evidence may be forged, and such a ban never affects a friend (a known phone). A ban of a /64 stays:
    the kernel lets its friends pass. So does a ban on proven attempts with credentials: a login does not undo
    a friend's guesses.
    """
    if not is_one_host(friend.address):
        return
    network = sender_of(friend.address)
    keys = [key_of(network, scope) for scope in CLAIMED_SCOPES]
    bans = [(key, ban) for key in keys if (ban := enforcer.ledger.ban(key)) is not None]
    claimed = [key for key, one in bans if one.origin is Origin.RULE and not one.counts.are_proven]
    if claimed:
        enforcer.apply(enforcer.book.unban_with_retry(claimed))


async def unban(enforcer: Enforcer, networks: Sequence[Network]) -> UnbanResult:
    """Remove the bans of ``networks``, of wider networks that contain them, and of networks within them.

    While the command waits for the disk, at most two seconds for each network and each ``book.CHUNK`` bans,
    the daemon continues to place bans. If a network has no recorded ban, a thread reads the kernel's bans,
    once for all networks. Commands take turns after each network, so that two do not split one ban.
    """
    problems: list[str] = []
    notes: list[str] = []
    not_banned: list[str] = []
    ended = 0
    foreign: _Foreign | None = None
    for network in networks:
        async with enforcer.unbanning:
            enforcer.require_enforcing()  # enforcement may be switched off while this function waits
            keys = [*dict.fromkeys(enforcer.ledger.overlapping(network, enforcer.now()))]
            if not keys:
                foreign = foreign if foreign is not None else await _Foreign.read(enforcer)
                enforcer.require_enforcing()
                keys = foreign.adopt(enforcer, network)
            if not keys:
                not_banned.append(format_network(network))
            begun = _CommandTime.now(enforcer, keys)
            for part in in_parts(keys):
                for key in part:
                    failed, note = _keep_rest(enforcer, key, network)
                    problems += failed
                    notes += note
                await asyncio.sleep(0)
                enforcer.require_enforcing()
            number, failed = await _unban_in_parts(enforcer, keys, begun)
            ended += number
            problems += failed
            if keys:
                enforcer.report(Unbanned(whole_sender(network)))
        await asyncio.sleep(0)  # there may be thousands of networks without a ban
    return UnbanResult(tuple(problems), tuple(notes), tuple(not_banned), ended)


async def unban_all(enforcer: Enforcer) -> int:
    """Remove every ban, and return the number of bans that the kernel had.

    Raise ControlError if the kernel refuses to remove some.
    """
    async with enforcer.unbanning:
        enforcer.require_enforcing()
        bans = listed(enforcer.backend, enforcer.ledger.all_keys())
        inside = await asyncio.to_thread(lambda: [key_of(one.network, one.scope) for one in bans])
        keys = [*dict.fromkeys(chain(inside, enforcer.ledger.all_keys()))]
        _, problems = await _unban_in_parts(enforcer, keys, _CommandTime.now(enforcer))
    if problems:
        raise ControlError("; ".join(problems[:20]))
    return len(inside)


@frozen
class _CommandTime:
    """When a command began: ``when`` by the wall clock, which was ``offset`` ahead of the monotonic one."""

    when: float
    offset: float

    @classmethod
    def now(cls, enforcer: Enforcer, keys: Iterable[int] = ()) -> Self:
        """Return the present time, for a command that begins, and that ends the bans ``keys``.

        The command is never older than these bans. A step back of the clock by less than ``CLOCK_STEP`` moves
        no ban, so one that was just placed may begin after the present time.
        """
        when = enforcer.now()  # if the clock was set, this moves the ledger's offset
        records = map(enforcer.ledger.get, keys)
        begins = (one.since for one in records if one is not None)
        return cls(max([when, *begins]), enforcer.ledger.offset)

    def by_clock(self, enforcer: Enforcer) -> float:
        """Return ``when`` by the clock that the times of all bans have now: it may have been set since."""
        enforcer.now()
        return self.when + clock_step(self.offset, enforcer.ledger.offset)


def _begun_by(ledger: Ledger, keys: Iterable[int], when: float) -> list[int]:
    """Return those of ``keys`` whose ban began at ``when`` (epoch seconds) or earlier, or is unknown.

    An adopted ban began before it was found, so before its recorded begin.
    """
    records = ((key, ledger.get(key)) for key in keys)
    adopted = Origin.ADOPTED
    return [key for key, one in records if one is None or one.since <= when or one.origin is adopted]


async def _unban_in_parts(
    enforcer: Enforcer, keys: Sequence[int], begun: _CommandTime
) -> tuple[int, list[str]]:
    """Remove bans, ``book.CHUNK`` at a time, so that a new ban does not wait for all of them.

    A ban that began after ``begun`` stays. Return the number of bans that ended, and a line for each that the
    kernel refused to remove.
    """
    ended, problems = 0, list[str]()
    for part in in_parts(keys):
        if not enforcer.enforcing:  # enforcement was switched off while this function waited
            break
        number, failed = await _unban_recorded(enforcer, part, begun)
        ended += number
        problems += failure_lines(failed)
        await asyncio.sleep(0)
    return ended, problems


async def _unban_recorded(
    enforcer: Enforcer, keys: Sequence[int], begun: _CommandTime
) -> tuple[int, list[Outcome]]:
    """Record the end of bans in the store, then remove them.

    Return the number of bans that ended, and the changes that the kernel refused. This call waits for the
    store, and the event loop continues meanwhile. A ban that began after ``begun`` stays. If enforcement is
    switched off meanwhile, the kernel has no bans any more, and nothing is removed.
    """
    when, how, ledger = begun.by_clock(enforcer), BanEnd.REMOVED, enforcer.ledger
    old = _begun_by(ledger, keys, when)
    known = {key: ledger.get(key) for key in old}
    await enforcer.records.end_and_wait([network_of(key) for key in old], when, how)
    if not enforcer.enforcing:  # enforcement was switched off while the store was written
        return 0, []
    when = begun.by_clock(enforcer)
    old = _begun_by(ledger, old, when)
    # If a pending ban was placed meanwhile, or a foreign one adopted, its end was recorded before its begin.
    late = {key for key in old if (present := ledger.get(key)) is not None and present is not known[key]}
    ended = [key for key in old if key not in late]
    failed = enforcer.apply(enforcer.book.unban(ended, recorded=when, how=how))
    number = len(ended) - len(failed)
    if late:
        more, refused = await _unban_recorded(enforcer, [*late], _CommandTime.now(enforcer))
        return number + more, [*failed, *refused]
    return number, failed


@frozen
class _Foreign:
    """The bans that the kernel had, but not the ledger, when the kernel was read.

    ``left`` has their keys, and the seconds that each had left ``at`` this time (monotonic seconds).
    """

    left: dict[int, float]
    at: float

    @classmethod
    async def read(cls, enforcer: Enforcer) -> Self:
        """Read the kernel's bans in a thread: that takes half a second for 100 000 bans."""
        at, bans, known = enforcer.clock.mono(), listed(enforcer.backend, None), {*enforcer.ledger.all_keys()}

        def read() -> dict[int, float]:
            found = ((key_of(one.network, one.scope), one.timeout) for one in bans)
            return {key: left for key, left in found if key not in known}

        return cls(await asyncio.to_thread(read), at)

    def adopt(self, enforcer: Enforcer, network: Network) -> list[int]:
        """Adopt the bans around and within ``network`` that have time left, and return their keys.

        A ban that the ledger has by now was placed while the kernel was read: it is left out.
        """
        age = enforcer.clock.mono() - self.at
        keys = [key for key in self.left if overlap(network_of(key)[0], network)]
        lasting = {key: left for key in keys if (left := self.left.pop(key) - age) > 0}
        found = {key: left for key, left in lasting.items() if not enforcer.ledger.knows(key)}
        enforcer.apply(enforcer.book.adopt(found, enforcer.now()))
        return [*found]


def _keep_rest(enforcer: Enforcer, key: int, network: Network) -> tuple[list[str], list[str]]:
    """Ban the parts of the banned network ``key`` that an unban of ``network`` leaves banned.

    Return lines about problems, and lines with notes.
    """
    banned = network_of(key)[0]
    parts = without(banned, whole_sender(network))
    if parts:
        failed = _split(enforcer, key, parts)
        pieces = "one part" if len(parts) == 1 else f"{len(parts)} parts"
        rest = f"{banned}: the rest of it stays banned, in {pieces}"
        return failed, [] if failed else [rest]
    whole = banned.prefixlen < network.prefixlen
    return [], [f"{banned}: unbanned as a whole, since one sender has all of it"] if whole else []


def _split(enforcer: Enforcer, key: int, parts: Sequence[Network]) -> list[str]:
    """Ban ``parts`` of a banned network for the time that its ban has left; return a line for each failure.

    ``key`` is the key of the ban of the whole network. The caller removes this ban afterwards. If a part
    already has a ban that ends as late or later, this ban stays.
    """
    now = enforcer.now()
    whole = enforcer.ledger.ban(key)
    bans = [evolve(whole, network=part) for part in parts] if whole is not None else []
    wanted = []
    for ban in bans:
        there = enforcer.ledger.get(key_of(ban.network, ban.scope))
        if there is None or there.expires < ban.expires:
            wanted.append(ban)
    return failure_lines(enforcer.apply(enforcer.book.add(wanted, News.PART, now)))
