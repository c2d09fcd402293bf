"""The facts about one account, from a running daemon, and its memory of failures.

``Failed`` remembers the failures of accounts by address, whether or not they count. The accounts that work
here have a table of their own, so that an attacker who tries many names displaces none of them. Bounds:
``MOST_KNOWN`` and ``MOST_UNKNOWN`` accounts, and ``MOST_ADDRESSES`` of each; those that failed longest ago
are discarded first, but addresses where the account works last.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from ringfence.daemon.firewall_side import FirewallSide
from ringfence.detect.friends import Friends
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.errors import ControlError, RingfenceError, StoreError
from ringfence.explain.account import AccountFacts, Failures, failures_of, is_about_account, merged
from ringfence.explain.account_json import Document, account_document
from ringfence.explain.account_offline import MOST_ATTEMPTS
from ringfence.model import Address, Ban, ListKind, Scope
from ringfence.store.bans import KEEP

MOST_KNOWN = 16_384
MOST_UNKNOWN = 2_048
MOST_ADDRESSES = 16
_MAX_NAME = 256  # characters of an account in a request

_Here = OrderedDict[Address, Failures]


class Failed:
    """The latest failures of accounts, by address."""

    def __init__(self, friends: Friends) -> None:
        self._friends = friends
        self._known: OrderedDict[str, _Here] = OrderedDict()
        self._unknown: OrderedDict[str, _Here] = OrderedDict()

    def on_judgement(self, judgement: Judgement) -> None:
        """Record an attempt on an account."""
        attempt, disposition = judgement.attempt, judgement.disposition
        account = attempt.account
        if not account or disposition in (Disposition.PROVEN, Disposition.FORGED):
            return
        known = self._friends.knows_account(account)
        table, most = (self._known, MOST_KNOWN) if known else (self._unknown, MOST_UNKNOWN)
        if account not in table:
            table[account] = self._unknown.pop(account, OrderedDict())
        here = table[account]
        table.move_to_end(account)
        if len(table) > most:
            table.popitem(last=False)
        before = here.pop(attempt.address, None)
        first, times = (before.first, before.times) if before is not None else (attempt.time, 0)
        here[attempt.address] = Failures(attempt, first, times + 1)
        if len(here) > MOST_ADDRESSES:
            strange = (one for one in here if not self._friends.worked_at(account, one))
            del here[next(strange, next(iter(here)))]

    def of(self, account: str) -> list[Failures]:
        """Return the failures of ``account``, those of the latest address last."""
        here = self._known.get(account) or self._unknown.get(account)
        return list(here.values()) if here else []


class AccountFactsReader:
    """Handles ``{"do": "why_account", "account": "204"}`` from the firewall's side."""

    def __init__(self, side: FirewallSide, failed: Failed) -> None:
        self._side = side
        self._failed = failed

    async def answer(self, request: Mapping[str, Any]) -> Document:
        """Handle a request."""
        account = request.get("account")
        if not isinstance(account, str) or not 0 < len(account) <= _MAX_NAME:
            raise ControlError(f"an account has 1 to {_MAX_NAME} characters")
        return account_document(await self.known(account))

    async def known(self, account: str) -> AccountFacts:
        """Collect what is known of ``account``."""
        side, now = self._side, self._side.clock.wall()
        problems: list[str] = []
        recorded: list[Failures] = []
        try:
            attempts = side.store.bans.attempts_on
            recorded = failures_of(await asyncio.to_thread(attempts, account, now - KEEP, MOST_ATTEMPTS))
        except StoreError as error:
            problems.append(f"recorded attempts are unknown: {error}")
        known = side.friends.friends
        friends, former = known.of_account(account)
        failures = merged(self._failed.of(account), recorded)
        homes = dict.fromkeys(friend.address for friend in (*friends, *former))
        addresses = dict.fromkeys([*homes, *(one.last.address for one in failures)])
        return AccountFacts(
            account,
            now,
            friends,
            former,
            failures,
            {address: bans for address in addresses if (bans := self._bans(address, now))},
            tuple([address for address in homes if await self._denied(address, problems)]),
            tuple(alarm for alarm in side.alarms.active if is_about_account(alarm, account)),
            known.outage_mode,
            problems=tuple(problems),
        )

    def _bans(self, address: Address, now: float) -> tuple[Ban, ...]:
        bans, network = self._side.known_bans, ip_network(address)
        keys = [key for scope in Scope for key in bans.ledger.covering(network, scope, now)]
        return tuple(ban for ban in map(bans.get, keys) if ban is not None)

    async def _denied(self, address: Address, problems: list[str]) -> bool:
        try:
            holders = await self._side.lists.holding(ip_network(address))
        except RingfenceError as error:
            problems.append(f"which list holds {address} is not known: {error}")
            return False
        kinds = {holder.entry.kind for holder in holders}
        return ListKind.DENY in kinds and ListKind.ALLOW not in kinds
