"""The state of table ``inet ringfence``: its chains, rules and sets without elements.

Reading it takes some milliseconds. It is compared with the state after our last installation, to notice
changes by other programs.
"""

import errno
import itertools
import operator
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType

from attrs import evolve, field, frozen

from ringfence.errors import FirewallError, FirewallIncompleteError
from ringfence.firewall.contract import Counters, Element, Remembered, RuleCounter
from ringfence.firewall.limits import Key
from ringfence.firewall.limits import Table as SenderTable
from ringfence.firewall.nftables import elements, messages
from ringfence.firewall.nftables.messages import NftChain, NftRule, NftSetHeader, Table
from ringfence.firewall.nftables.ruleset import (
    COUNTERS,
    MARK,
    SIDES,
    TABLE,
    BanSet,
    Ruleset,
    alternate_name,
    base_name,
)
from ringfence.firewall.stages import added_stages, counter_names
from ringfence.netlink.connection import NetlinkConnection, NetlinkError, NetlinkInterruptedError, text
from ringfence.values.ban import Scope
from ringfence.values.network import BITS, VERSIONS, Network

_OURS = f"{TABLE}\0".encode()
_HOOKS = ("prerouting", "input", "forward", "output")
# The beginning of the name of an anonymous set. It holds constants of a rule, and changes only with the rule.
_ANONYMOUS = "__set"
_CONSTANTS = re.compile(rb"__set[0-9]++")
_TIMEOUT_FLAG, _INTERVAL_FLAG, _EVAL_FLAG = 0x10, 0x04, 0x20
_LIMIT = text(1, "limit")  # NFTA_EXPR_NAME


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

    def replaceable(self, bans: Iterable[BanSet]) -> set[str]:
        """Return the names of all sets but ``bans``: a ruleset that lacks one of them deletes it.

        Other releases and features may have left some.
        """
        return {*self.unused, *(head.name for head in self.sets)} - {one.name for one in bans}

    def without(self, bans: Iterable[BanSet]) -> "TableState":
        """Return the state without the sets ``bans`` and the rules that name them."""
        names = {one.name for one in bans}
        named = [name.encode() + b"\0" for name in names]
        return evolve(
            self,
            rules=tuple(rule for rule in self.rules if not any(name in rule.body for name in named)),
            sets=tuple(head for head in self.sets if head.name not in names),
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

    def following_rule(self, new: BanSet, side: str) -> int | None:
        """Return the handle of the rule before which the one for a ``new`` set of bans belongs.

        Rules for longer prefixes stand before it (``ruleset``). None: it belongs at the end of its chain.
        """
        kind = new.scope, new.version
        longer = [one for one in self.bans if (one.scope, one.version) == kind and one.length > new.length]
        rules = [rule for rule in self.rules if rule.chain == new.chain(side)]
        return rules[len(longer)].handle if len(longer) < len(rules) else None

    def stale_chains(self, rules: Ruleset) -> tuple[str, ...]:
        """Return the chains to delete: ``rules`` lacks them, or has them with another hook or priority.

        A packet on its way passes prerouting with the old rules, and may meet the next hook when the new ones
        stand. A deleted chain drops it there by its old rules. An emptied one would let it pass
        (``Matches.name_of``).
        """
        wanted = {
            chain.name: (None if chain.hook is None else _HOOKS.index(chain.hook), chain.priority)
            for chain in rules.chains
        }
        return tuple(
            chain.name for chain in self.chains if wanted.get(chain.name) != (chain.hook, chain.priority)
        )


def read_state(
    kernel: NetlinkConnection, names: Mapping[str, str] = MappingProxyType({})
) -> TableState | None:
    """Read the state of our table; None if it does not exist.

    ``names`` has the present names of the sets of network lists, as :func:`ruleset`.
    """
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
    unused = _unused([head.name for head in sets if base_name(head.name)], rules, names)
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


def read_added(kernel: NetlinkConnection, before: TableState, bans: Collection[BanSet]) -> TableState:
    """Return the state ``before`` with the new sets ``bans`` and their rules. No other chain is read.

    Reading all takes ten times as long. A change by another program is not in the result, so that a later
    comparison finds it. Raise FirewallError if new sets or rules are gone, or if one of their chains changed.
    """
    names = {one.name.encode() + b"\0" for one in bans}
    chains = {one.chain(side) for one in bans for side in SIDES}
    rules: list[NftRule] = []
    for chain, known in itertools.groupby(before.rules, operator.attrgetter("chain")):
        if chain in chains:
            rules += messages.rules_of(kernel.request(messages.get_rules(TABLE, chain)))
        else:
            rules += known
    kept = tuple(rule for rule in rules if not any(name in rule.body for name in names))
    heads = [evolve(head, elements=None) for head in read_sets(kernel) if BanSet.parse(head.name) in bans]
    added = len(heads), len(rules) - len(kept)
    if kept != before.rules or added != (len(bans), len(SIDES) * len(bans)):
        raise FirewallError(f"another program changes the rules of table inet {TABLE} as soon as they stand")
    return evolve(before, rules=tuple(rules), sets=(*before.sets, *heads))


def _unused(list_sets: Sequence[str], rules: Sequence[NftRule], names: Mapping[str, str]) -> frozenset[str]:
    """Return the names in ``list_sets`` (sets for network lists) that are unused.

    A set is unused if no rule names it, and a rule names the other set of the list. If no rule names either,
    because the plan does not use the list, the one that is not its present set by ``names`` is unused.
    """
    named = {name for name in list_sets if any(name.encode() + b"\0" in rule.body for rule in rules)}
    return frozenset(
        name
        for name in list_sets
        if name not in named
        and (alternate_name(name) in named or name != names.get(base := base_name(name) or name, base))
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


def changed_limits(before: TableState, now: TableState) -> list[str]:
    """Return the sets of ``before`` whose elements may have other limits than the rules of ``now``.

    The kernel copies a limit into an element when it makes it, and keeps it as long as its sender goes on.
    """
    old, new = ([rule.body for rule in state.rules if _LIMIT in rule.body] for state in (before, now))
    names = (head.name for head in before.sets if head.flags & _EVAL_FLAG)
    return [name for name in names if (wanted := _naming(new, name)) and wanted != _naming(old, name)]


def _naming(bodies: Iterable[bytes], name: str) -> set[bytes]:
    """Return those of the bodies of rules that name the set ``name``."""
    named = text(1, name)  # NFTA_DYNSET_SET_NAME
    return {body for body in bodies if named in body}


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
    elif base is not None:
        flags, version = _INTERVAL_FLAG, int(base[-1])
    elif kind in _tables():
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
            (one for chain in before.chains for one in _rule_differences(chain.name, before, now)),
        ),
        f"the rules of table inet {TABLE} were changed",
    )


def _table_differences(before: Table, now: Table) -> Iterator[str]:
    if now.dormant and not before.dormant:
        yield f"table inet {TABLE} is dormant"
    elif now != before:
        yield f"table inet {TABLE} was replaced"


def _named_differences(
    kind: str, before: Sequence[NftSetHeader | NftChain], now: Sequence[NftSetHeader | NftChain]
) -> Iterator[str]:
    ours, present = {one.name: one for one in before}, {one.name: one for one in now}
    for name, one in ours.items():
        if name not in present:
            yield f"{kind} {name} of table inet {TABLE} is gone"
        elif one != present[name]:
            yield f"{kind} {name} of table inet {TABLE} was replaced"
    yield from (
        f"another program added {kind} {name} to table inet {TABLE}" for name in present if name not in ours
    )


def _rule_differences(chain: str, before: TableState, now: TableState) -> Iterator[str]:
    ours, present = ([rule for rule in state.rules if rule.chain == chain] for state in (before, now))
    if len(present) < len(ours):
        yield f"a rule of chain {chain} of table inet {TABLE} is gone"
    elif ours != present:
        yield f"the rules of chain {chain} of table inet {TABLE} were changed"


# -- complete lists of the bans in nftables sets, also while other programs change the sets
#
# The kernel lists a hash set in parts, 150 of them for 50 000 elements. At each part it finds its position
# again by the number of elements before it. If the set changes between two parts, the list may lack
# elements that never changed: 20 to 43 of 50 000 at 100 transactions a second. The kernel marks such a list
# (NLM_F_DUMP_INTR). It does not mark the list if the change came during the last part, so the generation
# (the number of the last transaction) is compared too. Nor does it mark a list during which elements
# expired.
#
# Therefore a list is repeated if anything changed meanwhile, in any table, and the results are combined.
# Each repetition takes 0.5 s of CPU for 50 000 bans, and a program that often changes its own table would
# interrupt every one.
#
# Lookups avoid repetitions: if the caller names the known bans, those that the list lacks are looked up one
# by one. Since 6.16 the kernel reports a set's number of elements. So the number of missing ones is known:
# if it is at most ``_FEW``, the list is not repeated.


_TRIES = 3
_FEW = 1_000
"""Maximum missing bans of a set that are looked up (20 µs each); for more, the set is listed again."""


def bans(kernel: NetlinkConnection, known: Iterable[tuple[Network, Scope]] | None) -> Iterator[Element]:
    """Yield every ban.

    ``known`` are bans that the caller expects. They are looked up one by one at the end, because the kernel's
    list may lack some. Raise FirewallIncompleteError if a set changed meanwhile: other bans may be missing.
    """
    unsure: list[str] = []
    for head in read_sets(kernel):
        ban = BanSet.parse(head.name)
        if ban is None or head.elements == 0:
            continue
        enough = head.elements - _FEW if known is not None and head.elements is not None else None
        whole, listed = _list_set(kernel, ban, enough)
        if not whole:
            unsure.append(head.name)
        yield from listed
    for network, scope in known or ():
        missed = find(kernel, network, scope)
        if missed is not None:
            yield missed
    if unsure:
        raise FirewallIncompleteError(
            f"{', '.join(unsure)} of table inet {TABLE} changed while they were listed; a ban that "
            "another program added may be missing; fix: list again"
        )


def find(kernel: NetlinkConnection, network: Network, scope: Scope) -> Element | None:
    """Return one ban from the kernel, None if it is not there."""
    ban = BanSet(scope, network.version, network.prefixlen)
    try:
        answers = kernel.request(elements.query_elements(TABLE, ban.name, network))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return None
        raise
    found = (one for answer in answers for one in elements.bans_of(answer, ban.version, ban.length, scope))
    return next(found, None)


def covering(kernel: NetlinkConnection, network: Network) -> Iterator[Element]:
    """Yield the bans of ``network`` and of all networks around it: one lookup for each set."""
    for head in read_sets(kernel):
        ban = BanSet.parse(head.name)
        if ban is None or ban.version != network.version or ban.length > network.prefixlen:
            continue
        found = find(kernel, network.supernet(new_prefix=ban.length), ban.scope)
        if found is not None:
            yield found


def read_part(kernel: NetlinkConnection, name: str) -> list[bytes]:
    """Return the kernel's answers that list the elements of the set ``name``.

    If the set changes meanwhile, some elements may be missing. The callers accept that, because they read the
    set again soon.
    """
    try:
        return list(kernel.stream(elements.dump_elements(TABLE, name)))
    except NetlinkInterruptedError as error:
        return error.answers


def _list_set(kernel: NetlinkConnection, ban: BanSet, enough: int | None) -> tuple[bool, Iterable[Element]]:
    """Read one set; return whether nothing changed meanwhile, and the elements.

    If something changed, the set is read again, up to three times in all, and the results are combined. If
    ``enough`` is a number and as many elements were found, it is not read again.
    """
    found: dict[int, tuple[float, int, int]] = {}  # numbers, as 262,000 elements would take 150 MB
    for _ in range(_TRIES):
        answers: list[bytes] = []
        generation = read_generation(kernel)
        try:
            answers.extend(kernel.stream(elements.dump_elements(TABLE, ban.name)))
            whole = read_generation(kernel) == generation
        except NetlinkInterruptedError as error:
            whole, answers = False, error.answers
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return True, ()
            raise
        every = (
            one for answer in answers for one in elements.bans_of(answer, ban.version, ban.length, ban.scope)
        )
        if whole:
            return True, every
        found.update(
            (int(one.network.network_address), (one.timeout, one.packets, one.bytes)) for one in every
        )
        if enough is not None and len(found) >= enough:
            break
    kind = IPv4Network if ban.version == VERSIONS[0] else IPv6Network
    return False, (
        Element(kind((address, ban.length)), *values, ban.scope) for address, values in found.items()
    )


# -- reads the numbers that nftables counts: dropped packets, elements of sets, and sources over the limit


def read_counters(kernel: NetlinkConnection) -> Counters:
    """Return the counters of the rules, and the sizes of the sets."""
    counters = {one.name: one for one in messages.counters_of(kernel.request(messages.get_counters(TABLE)))}
    sets: dict[str, int | None] = {}
    for head in read_sets(kernel):
        kind = _kind_of_set(head.name)
        if kind is not None:
            number, so_far = head.elements, sets.get(kind, 0)
            sets[kind] = None if number is None or so_far is None else so_far + number
    return Counters(
        tuple(
            RuleCounter(label, counters[name].packets, counters[name].bytes)
            for name, label in COUNTERS.items()
            if name in counters
        ),
        sets,
        {name: counters[name].packets for name in counter_names() if name in counters},
    )


def read_remembered(kernel: NetlinkConnection, table: SenderTable) -> list[Remembered]:
    """Return the senders in ``table``."""
    return [
        one
        for version in VERSIONS
        for answer in read_part(kernel, f"{table.name}{version}")
        for one in elements.remembered_of(answer, whole=table.key is Key.ADDRESS)
    ]


def total_bans(heads: Iterable[NftSetHeader]) -> int | None:
    """Return the number of bans in the kernel; None if the kernel does not count elements (before 6.16).

    ``heads`` are the headers of all our sets.
    """
    numbers = [head.elements for head in heads if BanSet.parse(head.name) is not None]
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _kind_of_set(name: str) -> str | None:
    if BanSet.parse(name) is not None:
        return "bans"
    base = base_name(name)
    if base is not None:
        return base[:-1]
    table = _tables().get(name[:-1])
    return table.what or None if table is not None else None


@cache
def _tables() -> Mapping[str, SenderTable]:
    """Return the features' tables of senders, by name; tables of flows are left out."""
    tables = (table for stage in added_stages() for table in stage.tables)
    return {table.name: table for table in tables if table.key is not Key.FLOW}
