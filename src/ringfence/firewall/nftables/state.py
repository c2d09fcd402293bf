"""The state of table ``inet ringfence``: its chains, rules and sets without elements.

Reading it takes some milliseconds. It is compared with the state after our last installation, to notice
changes by other programs.
"""

import errno
import itertools
import operator
import re
from collections.abc import Iterator, Sequence

from attrs import evolve, field, frozen

from ringfence.errors import FirewallError
from ringfence.firewall.nftables import messages
from ringfence.firewall.nftables.messages import NftChain, NftRule, NftSetHeader, Table
from ringfence.firewall.nftables.ruleset import MARK, TABLE, BanSet, Ruleset, alternate_name, base_name
from ringfence.netlink.connection import NetlinkConnection, NetlinkError
from ringfence.networks import BITS

_OURS = f"{TABLE}\0".encode()
_HOOKS = ("prerouting", "input", "forward", "output")
# The beginning of the name of an anonymous set. It holds constants of a rule, and changes only with the rule.
_ANONYMOUS = "__set"
_CONSTANTS = re.compile(rb"__set[0-9]++")
_TIMEOUT_FLAG, _INTERVAL_FLAG, _EVAL_FLAG = 0x10, 0x04, 0x20


@frozen
class TableState:
    """The table with its chains, rules and named sets.

    Two states are equal exactly if nothing was changed. Elements of sets do not count.
    """

    table: Table
    chains: tuple[NftChain, ...]
    rules: tuple[NftRule, ...]
    sets: tuple[NftSetHeader, ...]
    unused: frozenset[str] = field(default=frozenset(), eq=False)
    """Sets of network lists that no rule uses: they are being filled, or a killed process left them."""
    bans: frozenset[BanSet] = field(init=False)
    """The sets of bans among ``sets``."""

    @bans.default
    def _ban_sets(self) -> frozenset[BanSet]:
        return frozenset(one for head in self.sets if (one := BanSet.parse(head.name)) is not None)

    @property
    def mark(self) -> str:
        """The mark of the written ruleset, a comment in its first rule; "" if no rule has it."""
        return next((rule.comment for rule in self.rules if rule.comment.startswith(MARK)), "")

    @property
    def shape(self) -> tuple[object, ...]:
        """The state without handles and generated names.

        It is equal for two installations of the same ruleset.
        """
        return (
            self.table.dormant,
            tuple(sorted((chain.name, chain.hook, chain.priority, chain.policy) for chain in self.chains)),
            # The order of rules within a chain matters. The names of anonymous sets do not.
            sorted(
                ((rule.chain, rule.comment, _CONSTANTS.sub(b"", rule.body)) for rule in self.rules),
                key=operator.itemgetter(0),
            ),
            tuple(sorted(head.name for head in self.sets)),
        )

    @property
    def names(self) -> dict[str, str]:
        """The present name of the set of each network list (``deny4_2``), by its base name (``deny4``)."""
        return {first: head.name for head in self.sets if (first := base_name(head.name)) is not None}

    def matches(self, rules: Ruleset) -> bool:
        """Whether the table contains ``rules``. False for a dormant table.

        Only the mark and the number of rules in each chain are compared.
        """
        numbers = dict.fromkeys((chain.name for chain in self.chains), 0)
        for rule in self.rules:
            numbers[rule.chain] = numbers.get(rule.chain, 0) + 1
        return (
            not self.table.dormant
            and numbers == {chain.name: len(chain.rules) for chain in rules.chains}
            and self.mark == rules.mark
        )

    def stale_chains(self, rules: Ruleset) -> tuple[str, ...]:
        """Return the chains to delete: ``rules`` lacks them, or has them with another hook or priority."""
        wanted = {
            chain.name: (None if chain.hook is None else _HOOKS.index(chain.hook), chain.priority)
            for chain in rules.chains
        }
        return tuple(
            chain.name for chain in self.chains if wanted.get(chain.name) != (chain.hook, chain.priority)
        )


def read_state(kernel: NetlinkConnection) -> TableState | None:
    """Read the state of our table; None if it does not exist."""
    try:
        [table] = messages.tables_of(kernel.request(messages.get_table(TABLE)))
        # The kernel lists the chains of every table. Some hosts have thousands, so only ours are parsed.
        chains = messages.chains_of(one for one in kernel.request(messages.get_chains()) if _OURS in one)
        rules = messages.rules_of(kernel.request(messages.get_rules(TABLE)))
        sets = messages.sets_of(kernel.request(messages.get_sets(TABLE)))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return None
        raise
    unused = _unused([head.name for head in sets if base_name(head.name)], rules)
    return TableState(
        table,
        tuple(chain for chain in chains if chain.table == TABLE),
        tuple(rules),
        tuple(
            evolve(head, elements=None)
            for head in sets
            if not head.name.startswith(_ANONYMOUS) and head.name not in unused
        ),
        unused,
    )


def _unused(list_sets: Sequence[str], rules: Sequence[NftRule]) -> frozenset[str]:
    """Return the names in ``list_sets`` (sets for network lists) that are unused.

    The second set of a list (``deny4_2``) is unused if no rule names it. The first one (``deny4``) is unused
    if no rule names it and a rule names the second one.
    """
    named = {name for name in list_sets if any(name.encode() + b"\0" in rule.body for rule in rules)}
    return frozenset(
        name
        for name in list_sets
        if name not in named and (name != base_name(name) or alternate_name(name) in named)
    )


def read_sets(kernel: NetlinkConnection) -> list[NftSetHeader]:
    """Read the headers of our sets; return an empty list if our table does not exist.

    The headers contain the number of elements if the kernel counts them.
    """
    try:
        return messages.sets_of(kernel.request(messages.get_sets(TABLE)))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return []
        raise


def read_generation(kernel: NetlinkConnection) -> int:
    """Return the generation, a number that each transaction in any table increments; 0 if it is unknown."""
    [answer] = kernel.request(messages.get_generation())
    generation = messages.generation_of(answer)
    return generation.number if generation is not None else 0


def require_own_sets(state: TableState) -> None:
    """Raise FirewallError if a set with one of our names has another type."""
    for head in state.sets:
        wrong = "; ".join(_mismatches(head))
        if wrong:
            raise FirewallError(
                f"set {head.name} of table inet {TABLE} exists and {wrong}; "
                f"fix: `ringfence off`, or `nft delete table inet {TABLE}`"
            )


def _mismatches(head: NftSetHeader) -> Iterator[str]:
    ban = BanSet.parse(head.name)
    base = base_name(head.name)
    kind = head.name.rstrip("46")
    if ban is not None:
        flags, version = _TIMEOUT_FLAG, ban.version
    elif kind == "observe":
        flags, version = _TIMEOUT_FLAG, int(head.name[-1])
    elif base is not None:
        flags, version = _INTERVAL_FLAG, int(base[-1])
    elif kind in ("rate", "bytes", "flood", "flood_tcp"):
        flags, version = _TIMEOUT_FLAG | _EVAL_FLAG, int(head.name[-1])
    else:
        return
    if head.flags != flags:
        yield f"has the flags {head.flags:#x} and not {flags:#x}"
    if head.key_length * 8 != BITS[version]:
        yield f"does not hold addresses of IPv{version}"


def difference(before: TableState, now: TableState | None) -> str | None:
    """Return a message about what another program has changed in our table, None if nothing.

    ``before`` is the state after our last installation. ``now`` is None if the table is gone.
    """
    if now is None:
        return f"table inet {TABLE} is gone"
    if now == before:
        return None
    return next(
        itertools.chain(
            _table_differences(before.table, now.table),
            _named_differences("set", before.sets, now.sets),
            _named_differences("chain", before.chains, now.chains),
            (what for chain in before.chains for what in _rule_differences(chain.name, before, now)),
        ),
        f"the rules of table inet {TABLE} were changed",
    )


def _table_differences(before: Table, now: Table) -> Iterator[str]:
    if now.dormant and not before.dormant:
        yield f"table inet {TABLE} is dormant"
    elif now != before:
        yield f"table inet {TABLE} was replaced"


def _named_differences(
    what: str, before: Sequence[NftSetHeader | NftChain], now: Sequence[NftSetHeader | NftChain]
) -> Iterator[str]:
    ours, present = {one.name: one for one in before}, {one.name: one for one in now}
    for name, one in ours.items():
        if name not in present:
            yield f"{what} {name} of table inet {TABLE} is gone"
        elif one != present[name]:
            yield f"{what} {name} of table inet {TABLE} was replaced"
    yield from (
        f"another program added {what} {name} to table inet {TABLE}" for name in present if name not in ours
    )


def _rule_differences(chain: str, before: TableState, now: TableState) -> Iterator[str]:
    ours, present = ([rule for rule in state.rules if rule.chain == chain] for state in (before, now))
    if len(present) < len(ours):
        yield f"a rule of chain {chain} of table inet {TABLE} is gone"
    elif ours != present:
        yield f"the rules of chain {chain} of table inet {TABLE} were changed"
