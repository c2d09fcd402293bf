"""Whether our rules still stand, seen without a process: some 0.1 ms where nothing has changed.

iptables-nft's rules are rules of nftables: while its generation is the same nothing has changed, and when it
is not, the rules are read by netlink and compared. Of iptables-legacy's tables the number of rules and their
bytes are asked; there a change of somebody else's rules is trouble too, until ``open`` finds ours in place.
"""

from collections.abc import Collection, Mapping
from socket import AF_INET, AF_INET6
from typing import Protocol

from ringfence.firewall import nft_messages, xtables
from ringfence.firewall.iptables_rules import CHAINS, HOOKS
from ringfence.firewall.netlink import Conversation

FAMILIES = {4: AF_INET, 6: AF_INET6}
# By table and chain, in order: the rule's handle and what it does. Somebody may put another rule under the
# same handle, and a rule that is made again has another.
_Noted = Mapping[tuple[str, str], tuple[tuple[int, bytes], ...]]


class Watch(Protocol):
    """One IP version's rules, watched."""

    def note(self, tables: Collection[str]) -> None:
        """Take what stands in ``tables`` now as what is to stand."""

    def look(self) -> tuple[str | None, bool]:
        """Say what is other of ours than it was noted, and whether anything changed since the last look."""


class NftWatch:
    """The rules of iptables-nft."""

    def __init__(self, version: int, kernel: Conversation) -> None:
        self._version = version
        self._kernel = kernel
        self._tables: Collection[str] = ()
        self._noted: _Noted = {}
        self._generation: int | None = None
        self._trouble: str | None = None

    def note(self, tables: Collection[str]) -> None:
        """Take what stands in ``tables`` now as what is to stand."""
        self._tables, self._trouble = tables, None
        self._generation = self._number()
        self._noted = self._rules()

    def look(self) -> tuple[str | None, bool]:
        """Say what is other of ours than it was noted, and whether anything changed since the last look."""
        number = self._number()
        changed, self._generation = number != self._generation, number
        if changed:
            self._trouble = self._compare()
        return self._trouble, changed

    def _number(self) -> int | None:
        answers = self._kernel.request(nft_messages.get_generation())
        generation = nft_messages.generation_of(answers[0]) if answers else None
        return generation.number if generation is not None else None

    def _rules(self) -> _Noted:
        """Give the rules of our chains, and of each builtin chain the first, which is to be ours."""
        noted: dict[tuple[str, str], tuple[tuple[int, bytes], ...]] = {}
        for table in self._tables:
            request = nft_messages.get_rules(table, family=FAMILIES[self._version])
            for rule in nft_messages.rules_of(self._kernel.request(request)):
                key = table, rule.chain
                if rule.chain in CHAINS[table] or (rule.chain in HOOKS[table] and key not in noted):
                    noted[key] = (*noted.get(key, ()), (rule.handle, rule.body))
        return noted

    def _compare(self) -> str | None:
        now = self._rules()
        for (table, chain), rules in self._noted.items():
            found = now.get((table, chain), ())
            if found == rules:
                continue
            where = f"chain {chain} in table {table} of IPv{self._version}"
            if chain in HOOKS[table] and found:
                return f"another rule stands before ours in {where}"
            return f"rules of {where} were {'changed' if found else 'removed'}"
        return None


class LegacyWatch:
    """The rules of iptables-legacy."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._noted: Mapping[str, xtables.Size | None] = {}
        self._last: Mapping[str, xtables.Size | None] = {}

    def note(self, tables: Collection[str]) -> None:
        """Take what stands in ``tables`` now as what is to stand."""
        self._noted = self._last = self._sizes(tables)

    def look(self) -> tuple[str | None, bool]:
        """Say which table has other rules than were noted, and whether any changed since the last look."""
        now = self._sizes(self._noted)
        changed, self._last = now != self._last, now
        for table, size in self._noted.items():
            if now[table] != size:
                return f"the rules in table {table} of IPv{self._version} were changed", changed
        return None, changed

    def _sizes(self, tables: Collection[str]) -> dict[str, xtables.Size | None]:
        return {table: xtables.table_size(self._version, table) for table in tables}
