"""Checks whether our iptables rules are still installed, without a process: 0.1 ms if nothing changed.

Rules of iptables-nft are rules of nftables. The kernel numbers every transaction of nftables (the
generation). While that number is the same, nothing has changed. After a change the rules are read by netlink
and compared. For tables of iptables-legacy the kernel reports only the number of rules and their bytes. So
there a change of another program's rules counts as damage too, until ``open`` finds our rules in place.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

from ringfence.firewall.ipset import xtables
from ringfence.firewall.ipset.iptables_rules import CHAINS, HOOKS
from ringfence.firewall.nftables import messages as nft_messages
from ringfence.netlink.connection import NetlinkConnection
from ringfence.netlink.messages import FAMILIES

# By table and chain: the handle and the body of each rule, in order. Both are compared: a replaced rule may
# keep its handle, and a rule that was deleted and added again has the same body.
_Recorded = Mapping[tuple[str, str], tuple[tuple[int, bytes], ...]]


class Watch(Protocol):
    """A check of one IP version's rules."""

    def record(self, tables: Collection[str]) -> None:
        """Record the present rules in ``tables`` as the wanted ones."""

    def check(self) -> tuple[str | None, bool]:
        """Check our rules, and return two values.

        The first is a message about damage to our rules, None without damage. The second is whether any rule,
        also of another program, changed since the last check.
        """


class NftWatch:
    """The check of the rules of iptables-nft."""

    def __init__(self, version: int, kernel: NetlinkConnection) -> None:
        self._version = version
        self._kernel = kernel
        self._tables: Collection[str] = ()
        self._recorded: _Recorded = {}
        self._generation: int | None = None
        self._damage: str | None = None

    def record(self, tables: Collection[str]) -> None:
        """Record the present rules in ``tables`` as the wanted ones."""
        self._tables, self._damage = tables, None
        self._generation = self._number()
        self._recorded = self._rules()

    def check(self) -> tuple[str | None, bool]:
        """Check our rules, and return two values.

        The first is a message about damage to our rules, None without damage. The second is whether any rule,
        also of another program, changed since the last check.
        """
        number = self._number()
        changed, self._generation = number != self._generation, number
        if changed:
            self._damage = self._compare()
        return self._damage, changed

    def _number(self) -> int | None:
        answers = self._kernel.request(nft_messages.get_generation())
        generation = nft_messages.generation_of(answers[0]) if answers else None
        return generation.number if generation is not None else None

    def _rules(self) -> _Recorded:
        """Return the rules of our chains, and the first rule of each builtin chain, which should be ours."""
        recorded: dict[tuple[str, str], tuple[tuple[int, bytes], ...]] = {}
        for table in self._tables:
            request = nft_messages.get_rules(table, family=FAMILIES[self._version])
            for rule in nft_messages.rules_of(self._kernel.request(request)):
                key = table, rule.chain
                if rule.chain in CHAINS[table] or (rule.chain in HOOKS[table] and key not in recorded):
                    recorded[key] = (*recorded.get(key, ()), (rule.handle, rule.body))
        return recorded

    def _compare(self) -> str | None:
        now = self._rules()
        for (table, chain), rules in self._recorded.items():
            found = now.get((table, chain), ())
            if found == rules:
                continue
            where = f"chain {chain} in table {table} of IPv{self._version}"
            if chain in HOOKS[table] and found:
                return f"another rule stands before ours in {where}"
            return f"rules of {where} were {'changed' if found else 'removed'}"
        return None


class LegacyWatch:
    """The check of the rules of iptables-legacy."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._recorded: Mapping[str, xtables.Size | None] = {}
        self._last: Mapping[str, xtables.Size | None] = {}

    def record(self, tables: Collection[str]) -> None:
        """Record the present sizes of ``tables`` as those of the wanted rules."""
        self._recorded = self._last = self._sizes(tables)

    def check(self) -> tuple[str | None, bool]:
        """Check the sizes of the tables, and return two values.

        The first is a message about a table that no longer has its recorded size; None if there is none. The
        second is whether any size changed since the last check.
        """
        now = self._sizes(self._recorded)
        changed, self._last = now != self._last, now
        for table, size in self._recorded.items():
            if now[table] != size:
                return f"the rules in table {table} of IPv{self._version} were changed", changed
        return None, changed

    def _sizes(self, tables: Collection[str]) -> dict[str, xtables.Size | None]:
        return {table: xtables.table_size(self._version, table) for table in tables}
