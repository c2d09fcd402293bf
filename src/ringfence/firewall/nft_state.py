"""What stands in table ``inet ringfence``, without the elements: read in some milliseconds, and compared."""

import errno
import itertools
import operator
import re
from collections.abc import Iterator, Sequence

from attrs import evolve, field, frozen

from ringfence.errors import FirewallError
from ringfence.firewall import nft_messages as messages
from ringfence.firewall.netlink import Conversation, NetlinkError
from ringfence.firewall.nft_messages import Chain, Rule, SetHead, Table
from ringfence.firewall.nft_rules import BITS, MARK, TABLE, BanSet, Ruleset

_HOOKS = ("prerouting", "input", "forward", "output")
# A rule's set of constants, which nobody can change but with the rule.
_ANONYMOUS = "__set"
_CONSTANTS = re.compile(rb"__set[0-9]++")
_TIMEOUT_FLAG, _INTERVAL_FLAG, _EVAL_FLAG = 0x10, 0x04, 0x20


@frozen
class State:
    """The table with its chains, rules and named sets. Equal exactly where nobody changed anything."""

    table: Table
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]
    sets: tuple[SetHead, ...]
    bans: frozenset[BanSet] = field(init=False)
    """The sets of bans among ``sets``."""

    @bans.default
    def _of_bans(self) -> frozenset[BanSet]:
        return frozenset(one for head in self.sets if (one := BanSet.read(head.name)) is not None)

    @property
    def mark(self) -> str:
        """The mark of the ruleset that was put in place, "" where it is gone."""
        return next((rule.comment for rule in self.rules if rule.comment.startswith(MARK)), "")

    @property
    def shape(self) -> tuple[object, ...]:
        """What two installations of one ruleset have in common."""
        return (
            self.table.dormant,
            tuple(sorted((chain.name, chain.hook, chain.priority, chain.policy) for chain in self.chains)),
            # The order within a chain counts; a set of constants gets whatever name is free.
            sorted(
                ((rule.chain, rule.comment, _CONSTANTS.sub(b"", rule.body)) for rule in self.rules),
                key=operator.itemgetter(0),
            ),
            tuple(sorted(head.name for head in self.sets)),
        )

    def holds(self, rules: Ruleset) -> bool:
        """Say whether what stands is ``rules``, by its mark and the number of rules in each chain."""
        numbers = dict.fromkeys((chain.name for chain in self.chains), 0)
        for rule in self.rules:
            numbers[rule.chain] = numbers.get(rule.chain, 0) + 1
        return (
            not self.table.dormant
            and numbers == {chain.name: len(chain.rules) for chain in rules.chains}
            and self.mark == rules.mark
        )

    def stale(self, rules: Ruleset) -> tuple[str, ...]:
        """Name the chains that ``rules`` has not, or has with another hook."""
        wanted = {
            chain.name: (None if chain.hook is None else _HOOKS.index(chain.hook), chain.priority)
            for chain in rules.chains
        }
        return tuple(
            chain.name for chain in self.chains if wanted.get(chain.name) != (chain.hook, chain.priority)
        )


def read_state(kernel: Conversation) -> State | None:
    """Read what stands; None where there is no table of ours."""
    try:
        [table] = messages.tables_of(kernel.request(messages.get_table(TABLE)))
        chains = messages.chains_of(kernel.request(messages.get_chains()))
        rules = messages.rules_of(kernel.request(messages.get_rules(TABLE)))
        sets = messages.sets_of(kernel.request(messages.get_sets(TABLE)))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return None
        raise
    return State(
        table,
        tuple(chain for chain in chains if chain.table == TABLE),
        tuple(rules),
        tuple(evolve(head, elements=None) for head in sets if not head.name.startswith(_ANONYMOUS)),
    )


def read_sets(kernel: Conversation) -> list[SetHead]:
    """Read the heads of our sets, with how many elements each has where the kernel counts; none: no table."""
    try:
        return messages.sets_of(kernel.request(messages.get_sets(TABLE)))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return []
        raise


def require_ours(state: State) -> None:
    """Raise FirewallError where a set has one of our names and is none of ours."""
    for head in state.sets:
        wrong = "; ".join(_lacks(head))
        if wrong:
            raise FirewallError(
                f"set {head.name} of table inet {TABLE} exists and {wrong}; "
                f"mend: `ringfence off`, or `nft delete table inet {TABLE}`"
            )


def _lacks(head: SetHead) -> Iterator[str]:
    ban = BanSet.read(head.name)
    word = head.name.rstrip("46")
    if ban is not None:
        flags, version = _TIMEOUT_FLAG, ban.version
    elif word in ("allow", "deny", "friends"):
        flags, version = _INTERVAL_FLAG, int(head.name[-1])
    elif word in ("rate", "bytes", "flood"):
        flags, version = _TIMEOUT_FLAG | _EVAL_FLAG, int(head.name[-1])
    else:
        return
    if head.flags != flags:
        yield f"has the flags {head.flags:#x} and not {flags:#x}"
    if head.key_length * 8 != BITS[version]:
        yield f"does not hold addresses of IPv{version}"


def difference(before: State, now: State | None) -> str | None:
    """Name what somebody has changed, None where nothing."""
    if now is None:
        return f"table inet {TABLE} is gone"
    if now == before:
        return None
    return next(
        itertools.chain(
            _of_the_table(before.table, now.table),
            _of_what_has_names("set", before.sets, now.sets),
            _of_what_has_names("chain", before.chains, now.chains),
            (what for chain in before.chains for what in _of_the_rules(chain.name, before, now)),
        ),
        f"the rules of table inet {TABLE} were changed",
    )


def _of_the_table(before: Table, now: Table) -> Iterator[str]:
    if now.dormant and not before.dormant:
        yield f"table inet {TABLE} is dormant"
    elif now != before:
        yield f"table inet {TABLE} is another"


def _of_what_has_names(
    what: str, before: Sequence[SetHead | Chain], now: Sequence[SetHead | Chain]
) -> Iterator[str]:
    mine, others = {one.name: one for one in before}, {one.name: one for one in now}
    for name, one in mine.items():
        if name not in others:
            yield f"{what} {name} of table inet {TABLE} is gone"
        elif one != others[name]:
            yield f"{what} {name} of table inet {TABLE} is another"
    yield from (f"somebody put {what} {name} into table inet {TABLE}" for name in others if name not in mine)


def _of_the_rules(chain: str, before: State, now: State) -> Iterator[str]:
    mine, others = ([rule for rule in state.rules if rule.chain == chain] for state in (before, now))
    if len(others) < len(mine):
        yield f"a rule of chain {chain} of table inet {TABLE} is gone"
    elif mine != others:
        yield f"the rules of chain {chain} of table inet {TABLE} were changed"
