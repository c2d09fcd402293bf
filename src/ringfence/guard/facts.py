"""What a running daemon knows about one account or one network, for ``ringfence why``; the ended bans."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv6Network, ip_network
from itertools import islice
from typing import Any

from attrs import Factory, define

from ringfence.control import MOST_ENDED
from ringfence.control_server import in_thread
from ringfence.detect.friends import Friends
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.errors import RingfenceError, StoreError
from ringfence.explain.account import (
    MOST_ATTEMPTS,
    AccountFacts,
    Failures,
    account_document,
    failures_of,
    is_about_account,
    latest_of,
    merged,
)
from ringfence.explain.as_json import Document, document
from ringfence.explain.facts import ActiveBan, BanRecords, NetworkFacts, is_about, read_bans, running_of
from ringfence.guard.firewall_side import FirewallSide
from ringfence.ledger import network_of
from ringfence.lists.manager import Holder
from ringfence.store.bans import KEEP, BanTable, RecordedBan
from ringfence.values.ban import Ban, Scope, ban_json
from ringfence.values.entry import ListKind
from ringfence.values.event import short_account
from ringfence.values.network import (
    IPV6_SENDER,
    Address,
    Network,
    NetworkSet,
    affects,
    format_network,
    is_one_host,
    is_single,
    parse_network,
    prefix_of,
)
from ringfence.values.text import rfc3339

# -- the facts about one account, collected in a running daemon, and the daemon's memory of failures
#
# ``FailureMemory`` remembers failed attempts by account and address, whether or not they count for a rule.
# It has two tables: one for the accounts that work on this PBX, one for all other names. So an attacker who
# tries many names displaces no account that works.
#
# A table has at most ``MOST_KNOWN`` or ``MOST_UNKNOWN`` pairs of account and address. The accounts that
# failed longest ago are discarded first. An account has at most ``MOST_ADDRESSES`` addresses. The addresses
# where it failed longest ago are discarded first, and those where it works only if there are no others.


MOST_KNOWN = 8_192
MOST_UNKNOWN = 2_048
MOST_ADDRESSES = 16

_ByAddress = OrderedDict[Address, Failures]


@define(eq=False)
class _Table:
    """Accounts with their failed attempts by address. The account that failed longest ago is first.

    ``size`` is the number of pairs of account and address in the table, ``most`` its maximum.
    """

    most: int
    accounts: OrderedDict[str, _ByAddress] = Factory(OrderedDict)
    size: int = 0

    def pop(self, account: str) -> _ByAddress:
        """Remove an account and return its failures by address; empty if the table lacks the account."""
        failures = self.accounts.pop(account, None) or OrderedDict()
        self.size -= len(failures)
        return failures

    def add(self, account: str, failures: _ByAddress) -> None:
        """Add an account that the table lacks, with its failures by address, as the latest one.

        While the table is too large, discard the first account.
        """
        self.accounts[account] = failures
        self.size += len(failures)
        while self.size > self.most:
            _, removed = self.accounts.popitem(last=False)
            self.size -= len(removed)


class FailureMemory:
    """Remembers the latest failed attempts on each account, by address."""

    def __init__(self, friends: Friends) -> None:
        self._friends = friends
        self._known = _Table(MOST_KNOWN)
        self._unknown = _Table(MOST_UNKNOWN)

    def on_judgement(self, judgement: Judgement) -> None:
        """Record the failed attempt of ``judgement`` for its account and its address.

        Ignore attempts without an account, forged reports, and judgements of attempts that were counted
        before.
        """
        attempt, disposition = judgement.attempt, judgement.disposition
        account = attempt.account
        if not account or disposition in (Disposition.COUNTED_BEFORE, Disposition.FORGED):
            return
        table, other = self._unknown, self._known
        if self._friends.knows_account(account):
            table, other = other, table
        # If the account began or ceased to work since its last failure, the other table has its failures.
        earlier = other.pop(account)
        failures = table.pop(account) or earlier
        before = failures.pop(attempt.address, None)
        first, times = (before.first, before.times) if before is not None else (attempt.time, 0)
        failures[attempt.address] = Failures(attempt, first, times + 1)
        if len(failures) > MOST_ADDRESSES:
            never_worked = (one for one in failures if not self._friends.worked_at(account, one))
            del failures[next(never_worked, next(iter(failures)))]
        table.add(account, failures)

    def failures_of(self, account: str) -> list[Failures]:
        """Return the failed attempts on ``account``, one entry for each address, the latest one last."""
        account = short_account(account)
        failures = self._known.accounts.get(account) or self._unknown.accounts.get(account)
        return list(failures.values()) if failures else []


class AccountFactsReader:
    """Handles the request ``{"do": "why_account", "account": "204"}`` with the facts of a running daemon."""

    def __init__(self, side: FirewallSide, failures: FailureMemory) -> None:
        self._side = side
        self._failures = failures

    async def answer(self, request: Mapping[str, Any]) -> Document:
        """Return the facts about the account that ``request`` names, as JSON values."""
        return account_document(await self.known(request["account"]))

    async def known(self, account: str) -> AccountFacts:
        """Return the facts about ``account``. The field ``problems`` names facts that cannot be read."""
        side, now = self._side, self._side.common.clock.wall()
        problems: list[str] = []
        recorded: list[Failures] = []
        try:
            attempts = side.common.store.bans.attempts_on
            kept = short_account(account)
            recorded = failures_of(await asyncio.to_thread(attempts, kept, now - KEEP, MOST_ATTEMPTS))
        except StoreError as error:
            problems.append(f"recorded attempts are unknown: {error}")
        known = side.exempt.friends.friends
        friends, former = map(latest_of, known.of_account(account))
        failures = merged(self._failures.failures_of(account), recorded)
        failed_at = [one.last.address for one in failures]
        locations = await side.common.locator.of(failed_at)
        homes = dict.fromkeys(friend.address for friend in (*friends, *former))
        addresses = dict.fromkeys([*homes, *failed_at])
        return AccountFacts(
            account,
            now,
            friends,
            former,
            failures,
            {address: bans for address in addresses if (bans := self._bans(address, now))},
            tuple([address for address in homes if await self._denied(address, problems)]),
            tuple(alarm for alarm in side.common.alarms.shown if is_about_account(alarm, account)),
            known.outage_mode,
            problems=tuple(problems),
            locations=dict(zip(failed_at, locations, strict=True)),
        )

    def _bans(self, address: Address, now: float) -> tuple[Ban, ...]:
        """Return the bans that drop the packets of ``address``. A ban of a /64 exempts the friends in it."""
        ledger, network = self._side.kernel.enforcer.ledger, ip_network(address)
        friend = self._side.detector.friends.has(address)
        keys = [key for scope in Scope for key in ledger.covering(network, scope, now)]
        applying = (key for key in keys if affects(network_of(key)[0], friend=friend))
        return tuple(ban for ban in map(ledger.ban, applying) if ban is not None)

    async def _denied(self, address: Address, problems: list[str]) -> bool:
        try:
            holders = await self._side.exempt.lists.holding(ip_network(address))
        except RingfenceError as error:
            problems.append(f"which list holds {address} is not known: {error}")
            return False
        friend = self._side.detector.friends.has(address)
        kinds = {holder.entry.kind for holder in holders if holder.by_hand or not friend}
        return ListKind.DENY in kinds and not any(one.entry.kind is ListKind.ALLOW for one in holders)


# -- the list of ended bans, as JSON
#
# The keys are an interface for scripts: keys may be added, but not changed or removed.


def past_bans(
    table: BanTable, since: float, now: float, networks: Sequence[Network] | None
) -> Iterator[dict[str, Any]]:
    """Yield the bans that ended from ``since`` to ``now``, the latest first, at most MOST_ENDED.

    ``since`` and ``now`` are in seconds since the epoch. If ``networks`` is not None, yield only bans that
    overlap one of these networks. Reading a full database takes a second, so the daemon runs this in a
    thread. Raise StoreError if the database cannot be read.
    """
    wanted = None if networks is None else NetworkSet(networks)
    ended = table.ended(since, now)
    found = (one for one in ended if wanted is None or wanted.overlaps(one.ban.network))
    yield from map(_as_json, islice(found, MOST_ENDED))


def since_from(request: Mapping[str, Any], now: float) -> float:
    """Return the start of the period that a request asks for: ``seconds`` before ``now``.

    Start and ``now`` are seconds since the epoch. If ``seconds`` is missing in the request or longer than
    KEEP (for so long the database keeps bans), it counts as KEEP.
    """
    return now - min(float(request.get("seconds", KEEP)), KEEP)


def _as_json(one: RecordedBan) -> dict[str, Any]:
    return {
        "address": format_network(one.ban.network),
        "scope": str(one.ban.scope),
        **ban_json(one.ban),
        "ended": rfc3339(one.ended),
        **one.end.as_json(),
    }


# -- the facts about one address
#
# Facts in memory are read in the event loop, which takes some microseconds each. The bans in the kernel, the
# past bans and the lists are read in threads, so that a request delays no ban.


class AddressFactsReader:
    """Handles the request ``{"do": "why", "network": "198.51.100.7"}`` with the facts of a running daemon."""

    def __init__(self, side: FirewallSide) -> None:
        self._side = side

    async def answer(self, request: Mapping[str, Any]) -> Document:
        """Return the facts about the network that ``request`` names, as JSON values."""
        return document(await self.known(parse_network(request["network"])))

    async def known(self, network: Network) -> NetworkFacts:
        """Return the facts about ``network``. The field ``problems`` names facts that cannot be read."""
        side, detector, wall = self._side, self._side.detector, self._side.common.clock.wall()
        problems: list[str] = []
        subject = detector.subject_of(network.network_address) if _is_sender(network) else network
        found = await in_thread(read_bans, side.kernel.backend, side.common.store.bans, network, wall)
        holders = await self._holding(network, problems)
        [location] = await side.common.locator.of([network.network_address])
        mono = side.common.clock.mono()
        story = None
        if _is_sender(network) and (is_single(network) or subject == network):
            story = detector.summary_of(network.network_address, mono)
        around = network if story is None else prefix_of(network.network_address)
        return NetworkFacts(
            network=network,
            now=wall,
            subject=subject,
            running=self._running(network, found, wall),
            past=tuple(past for past in found.past if not past.runs(wall)),
            offences=side.common.store.records.offences(subject, wall - RETURN_WITHIN),
            holders=tuple(holders),
            protected=side.kernel.enforcer.book.exempt.protected,
            friends=story.friends if story is not None else (),
            former=story.former if story is not None else (),
            passes=side.kernel.lists.passes(network),
            story=story,
            ahead=wall - mono,
            contains_exempt=detector.friends.any_in(around) or detector.exempt.overlaps(around),
            claimed=side.kernel.wanted_rules.settings.claims(),
            plan=side.kernel.enforcer.plan,
            alarms=tuple(alarm for alarm in side.common.alarms.shown if is_about(alarm.subject, network)),
            enforcing=side.kernel.enforcer.enforcing,
            problems=(*found.problems, *problems),
            location=location,
            **{key: fact for part in side.parts for key, fact in part.facts_about(network).items()},
        )

    async def _holding(self, network: Network, problems: list[str]) -> list[Holder]:
        try:
            return await self._side.exempt.lists.holding(network)
        except RingfenceError as error:
            problems.append(f"which list holds it is not known: {error}")
            return []

    def _running(self, network: Network, found: BanRecords, now: float) -> tuple[ActiveBan, ...]:
        """Return the active bans that cover ``network``.

        A ban is returned if it is in the kernel, in the database or in the ledger. ``found`` has those of the
        kernel and of the database. ``now`` is in seconds since the epoch.
        """
        ledger = self._side.kernel.enforcer.ledger
        keys = [key for scope in Scope for key in ledger.covering(network, scope, now)]
        friend = is_single(network) and self._side.detector.friends.has(network.network_address)
        return running_of(found, {network_of(key): ledger.ban(key) for key in keys}, now, friend=friend)


def _is_sender(network: Network) -> bool:
    """Whether ``network`` belongs to one sender: one address, or an IPv6 /64 or a part of a /64.

    The networks of NAT64 are different: a /64 there has many senders, each with one address. So only a single
    address there is one sender.
    """
    if is_single(network):
        return True
    part_of_sender = isinstance(network, IPv6Network) and network.prefixlen >= IPV6_SENDER
    return part_of_sender and not is_one_host(network.network_address)
