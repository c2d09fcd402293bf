"""The static ruleset of table ``inet ringfence``, as text for ``nft -f -``: a pure function of the plan.

The same text makes the table, repairs it, and replaces the rules of another plan, in one transaction.
``flush table`` removes the old rules and leaves the sets with all their elements. Packets pass the old rules
until the new ones are in place.

``firewall/stages.py`` has the rules of the chains with a hook, and ``matches.py`` writes them. Here are the
chains to which they jump.

* **Prefixes.** A ban is an element of a hash set for its prefix length
  (``ip saddr & 255.255.255.0 @ban4_24``). Interval sets are not used for bans: they refuse overlaps, and
  listing 100 000 intervals takes the kernel 4 s instead of 0.4 s. Each length costs one lookup for every
  packet. So only the usual lengths have sets from the start. The set of any other length is made, with its
  rules, at the first ban of such a length. This takes the kernel a millisecond, without ``nft``, because
  meanwhile a sender guesses on (:func:`messages_to_add`). ``size`` limits each set separately.
* **Friends.** A ban of a /64, or of a part of it, does not apply to the friends in it
  (``networks.exempts_friends``): ``ip6 saddr != @friends6`` stands before the lookup of such a ban. It costs
  an IPv6 packet one lookup.
* **Network lists** are interval sets. To replace a long list whose contents in the kernel are unknown, a
  second set is filled (``deny4_2``, the *alternate set*). Then one transaction makes the rules use the second
  set, and deletes the first one.
* **Scopes.** Sets such as ``ban4_32`` hold full bans. Sets such as ``asterisk4_32`` hold the bans of rules
  with ``scope = "sip"``: they apply to UDP and TCP from and to the SIP ports. Sets such as ``sip4_32`` hold
  *narrow* bans, whose evidence a forged datagram could have caused: they apply to UDP from and to the SIP
  ports only. Sets such as ``tcp4_32`` hold bans of TCP from and to the SIP ports. With ``every_port`` false,
  full bans and the deny list apply to the SIP ports only, and to ``PROBE_PORT``, on which the probe tests
  bans.
* **Fragments** (``contract.FRAGMENTS``). An expression ``tproxy`` makes the kernel reassemble the packets of
  both IP versions before raw, as soon as a rule contains it. So it stands in a chain that no packet reaches
  (``reassembly``). ``ct`` would do so too, but then the kernel tracks every packet.

Counters are named, so that they outlive the rules. The names of interfaces are the only text that the
administrator writes into the ruleset. A name with a quote or another special character is refused.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType

from attrs import Factory, field, frozen

from ringfence.firewall import network_lists
from ringfence.firewall.contract import (
    DROPPED_PREFIX,
    DROPPED_RATE,
    FRAGMENTS,
    FROM_BANNED,
    FROM_DENIED,
    PROBE_NETWORKS,
    PROBE_PORT,
    REFUSALS,
    REQUEST_PREFIX,
    REQUEST_RATE,
    SENDER_SECONDS,
    TO_BANNED,
    TO_DENIED,
    BanAction,
    FirewallPlan,
    Fragments,
)
from ringfence.firewall.limits import Key, Table
from ringfence.firewall.network_lists import PASSING
from ringfence.firewall.nftables import messages
from ringfence.firewall.nftables.matches import (
    FRAGMENT_TESTS,
    KEYWORDS,
    LOG,
    SCOPES,
    TO_THIS_HOST,
    Matches,
    beginnings,
    counted,
    network_of,
    over,
)
from ringfence.firewall.stages import Hook, Side, Stage, counter_names, stages
from ringfence.values.ban import Scope
from ringfence.values.network import BITS, VERSIONS, exempts_friends

TABLE = "ringfence"
MARK = "ringfence "
SIDES: Mapping[str, str] = {"from": "saddr", "to": "daddr"}
"""The address that is looked up, by the beginning of the names of the chains that do so."""
NARROW = "from_narrow"
"""The chain that copies packets which a ban of SIP over UDP then drops. Only a plan with copies has it."""
# The prefix lengths of most bans by rules. Administrators, other hosts and distributed attacks ban others.
DEFAULT_LENGTHS: Mapping[int, tuple[int, ...]] = {4: (32, 24), 6: (128, 64, 56, 48, 32)}
COUNTERS: Mapping[str, str] = {
    "from_banned": FROM_BANNED,
    "to_banned": TO_BANNED,
    "from_denied": FROM_DENIED,
    "to_denied": TO_DENIED,
    "fragments": FRAGMENTS,
}
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_SECOND = "_2"
_LIST_SETS = frozenset(f"{which}{version}" for version in VERSIONS for which in network_lists.every())
_REJECTS = {
    BanAction.PORT_UNREACHABLE: ("reject with icmpx port-unreachable",),
    BanAction.ADMIN_PROHIBITED: ("reject with icmpx admin-prohibited",),
    BanAction.TCP_RESET: ("meta l4proto tcp reject with tcp reset", "drop"),
}
_RAW, _BEFORE_FILTER = -300, -10
_COPIED = Table("copied", SENDER_SECONDS)
"""The table of senders whose requests were copied lately, which limits the copies of each."""
REASSEMBLING = f"meta l4proto udp tproxy to :{PROBE_PORT}"
"""A rule that no packet reaches: it makes the kernel reassemble fragments before all other rules."""
DROPPING = "\n".join(f"{fragment} {TO_THIS_HOST} drop" for fragment in FRAGMENT_TESTS.values())
"""Rules that drop fragments, to test whether the kernel accepts their expressions."""


@frozen
class BanSet:
    """A set of bans: its scope, IP version and prefix length.

    ``name`` is the set's name in the table, such as ``ban4_24``.
    """

    scope: Scope
    version: int
    length: int
    name: str = field(
        init=False,
        eq=False,
        default=Factory(lambda own: f"{SCOPES[own.scope]}{own.version}_{own.length}", takes_self=True),
    )

    @property
    def exempts_friends(self) -> bool:
        """Whether the bans in this set do not apply to friends."""
        return exempts_friends(network_of(self.version, self.length))

    def chain(self, side: str) -> str:
        """Return the chain that looks up addresses in this set; ``side`` is one of ``SIDES``."""
        return f"{side}{self.version}_{SCOPES[self.scope]}"

    @classmethod
    def parse(cls, name: str) -> "BanSet | None":
        """Parse a set's name; None if it is not that of a set of bans."""
        return _by_name().get(name)


@cache
def _by_name() -> Mapping[str, BanSet]:
    """Return every possible set of bans by its name (cached, because names are parsed every second)."""
    every = (
        BanSet(scope, version, length)
        for scope in Scope
        for version, bits in BITS.items()
        for length in range(1, bits + 1)
    )
    return {one.name: one for one in every}


@frozen
class RulesetChain:
    """The rules of a chain; ``hook`` and ``priority`` are None if packets reach it from other chains only."""

    name: str
    rules: tuple[str, ...]
    hook: str | None = None
    priority: int | None = None


@frozen
class Ruleset:
    """The ruleset of one plan: its sets by name, and its chains.

    ``mark`` is the comment in its first rule, by which the ruleset is recognized in the kernel. It contains a
    hash of the sets and chains, without those that bans add (:func:`messages_to_add`).
    """

    sets: Mapping[str, str]
    chains: tuple[RulesetChain, ...]
    mark: str


def alternate_name(name: str) -> str:
    """Return the other name of a network list's set: ``deny4_2`` for ``deny4``, and the reverse."""
    return name.removesuffix(_SECOND) if name.endswith(_SECOND) else f"{name}{_SECOND}"


def base_name(name: str) -> str | None:
    """Return the base name of a network list's set: ``deny4`` for ``deny4`` and for ``deny4_2``.

    None if ``name`` is not the name of such a set.
    """
    first = name.removesuffix(_SECOND)
    return first if first in _LIST_SETS else None


def default_ban_sets() -> frozenset[BanSet]:
    """Return the sets of bans that exist from the start."""
    return frozenset(
        BanSet(scope, version, length)
        for scope in Scope
        for version in VERSIONS
        for length in DEFAULT_LENGTHS[version]
    )


def ruleset(
    plan: FirewallPlan,
    bans: Iterable[BanSet],
    *,
    inner: bool = True,
    fragments: Fragments = Fragments.REASSEMBLED,
    names: Mapping[str, str] = MappingProxyType({}),
) -> Ruleset:
    """Build the ruleset of ``plan`` with the sets ``bans``.

    ``inner``: the log rules use ``@ih``. ``fragments``: what happens to fragments of strangers.
    ``names`` maps the base name of a list set to its present name; a list that is missing there has the base
    name.
    """
    bans, usual = frozenset(bans), default_ban_sets()
    ordered = sorted(bans, key=lambda one: (one.scope.value, one.version, -one.length))
    lists = {first: names.get(first, first) for first in _LIST_SETS}
    sets = {one.name: _ban_set(one, plan.maxelem) for one in ordered} | _fixed_sets(plan, lists)
    chains = tuple(_chains(plan, ordered, lists, inner=inner, fragments=fragments))
    if bans - usual:
        same = ruleset(plan, bans & usual, inner=inner, fragments=fragments, names=names)
        return Ruleset(sets, chains, same.mark)
    mark = hashlib.sha256(repr((sorted(sets.items()), chains)).encode()).hexdigest()[:16]
    return Ruleset(sets, chains, f"{MARK}{mark}")


def ruleset_text(
    rules: Ruleset,
    *,
    stale: Iterable[str] = (),
    unused: Iterable[str] = (),
    table: str = TABLE,
) -> str:
    """Return ``rules`` as text for ``nft -f -``.

    The text first deletes the chains ``stale``, and those sets of ``unused`` that ``rules`` does not have.
    ``table`` is the name of the table.
    """
    lines = [f"add table inet {table}", f"flush table inet {table}"]
    lines += [f"delete chain inet {table} {name}" for name in stale]
    lines += [f"delete set inet {table} {name}" for name in unused if name not in rules.sets]
    lines.append(f"table inet {table} {{")
    lines += [f"  counter {name} {{ }}" for name in (*COUNTERS, *counter_names())]
    lines += [f"  set {name} {{ {body} }}" for name, body in rules.sets.items()]
    for index, chain in enumerate(rules.chains):
        lines.append(f"  chain {chain.name} {{")
        if chain.hook is not None:
            lines.append(f"    type filter hook {chain.hook} priority {chain.priority}; policy accept;")
        marks = [
            f' comment "{rules.mark}"' if not (index or number) else "" for number in range(len(chain.rules))
        ]
        lines += [f"    {rule}{mark}" for rule, mark in zip(chain.rules, marks, strict=True)]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def empty_set(name: str, version: int) -> str:
    """Return the text for ``nft -f -`` that makes a list set; if the set exists, the text empties it."""
    there = f"add set inet {TABLE} {name} {{ {_list_set(version)} }}\n"
    return f"{there}delete set inet {TABLE} {name}\n{there}"


def _list_set(version: int) -> str:
    return f"type {_TYPES[version]}; flags interval;"


def _ban_set(one: BanSet, size: int) -> str:
    return f"type {_TYPES[one.version]}; flags timeout; counter; size {size};"


def _fixed_sets(plan: FirewallPlan, lists: Mapping[str, str]) -> dict[str, str]:
    """Return the declarations of the sets that hold no bans, by the name of the set.

    ``lists`` has the names of the list sets by list and IP version (``allow4``).
    """
    sets: dict[str, str] = {}
    for version in VERSIONS:
        sets |= {lists[f"{which}{version}"]: _list_set(version) for which in network_lists.every()}
        tables = [table for stage in stages(plan) for table in stage.tables]
        for one in [*tables, *([_COPIED] if plan.limits_copies else [])]:
            kind = f"{_TYPES[version]}{' . inet_service' if one.key is Key.FLOW else ''}"
            body = f"type {kind}; flags dynamic,timeout; timeout {one.seconds}s; size {one.room};"
            sets[f"{one.name}{version}"] = body
    return sets


def _chains(
    plan: FirewallPlan, bans: list[BanSet], lists: Mapping[str, str], *, inner: bool, fragments: Fragments
) -> Iterator[RulesetChain]:
    """Yield the chains, each after those to which it jumps.

    ``lists`` has the names of the list sets by list and IP version (``allow4``).
    ``inner``: the log rules use ``@ih``, the data after the TCP header. ``fragments``: what happens
    to fragments of strangers.
    """
    log = (LOG,) if plan.log else ()
    verdict = _REJECTS.get(plan.action, ("drop",))
    for side, last in (("from", verdict), ("to", ("drop",))):
        for why in ("banned", "denied"):
            counting = (
                f'{KEYWORDS[v]} {SIDES[side]} != {PROBE_NETWORKS[v]} counter name "{side}_{why}"'
                for v in VERSIONS
            )
            yield RulesetChain(f"{side}_{why}", (*counting, *log, *last))
        if side == "from" and _copies_dropped(plan):
            yield RulesetChain(NARROW, (_copy(plan, DROPPED_RATE, DROPPED_PREFIX), "goto from_banned"))
        for version in VERSIONS:
            yield from _lookup_chains(
                plan, side, version, [one for one in bans if one.version == version], lists
            )
    matches, steps = Matches(plan, lists, inner), stages(plan, fragments)
    yield from (RulesetChain(name, tuple(rules)) for name, rules in matches.chains(steps).items())
    if fragments is Fragments.REASSEMBLED:
        yield RulesetChain("reassembly", (REASSEMBLING,))
    yield RulesetChain("fragments", ('counter name "fragments"', *log, "drop"))
    yield from _base_chains(plan, matches, steps)


def _lookup_chains(
    plan: FirewallPlan, side: str, version: int, bans: list[BanSet], lists: Mapping[str, str]
) -> Iterator[RulesetChain]:
    """Yield the chains that look up the address of a packet.

    It is the source address if ``side`` is "from", the target address if it is "to". ``lists`` has the names
    of the list sets by list and IP version (``allow4``).
    """
    keyword = KEYWORDS[version]
    address = f"{keyword} {SIDES[side]}"
    found: dict[Scope, list[str]] = {scope: [] for scope in Scope}
    for one in bans:
        # Friends are excluded before the lookup of the ban, because that lookup counts the packet.
        friends = f"{address} != @{lists[f'friends{version}']} " if one.exempts_friends else ""
        found[one.scope].append(f"{friends}{_masked(address, one)} @{one.name} goto {_end(plan, side, one)}")
    for which, scope in plan.dropped_lists.items():
        if not (which.by_machine and plan.new_only):
            # Most packets come from other networks, so friends are looked up last.
            passing = (f" {address} != @{lists[f'{one}{version}']}" for one in PASSING if which.by_machine)
            tests = f"{address} @{lists[f'{which}{version}']}{''.join(passing)}"
            found[scope].append(f"{tests} goto {side}_denied")
    for scope, rules in found.items():
        yield RulesetChain(f"{side}{version}_{SCOPES[scope]}", tuple(rules))


def messages_to_add(
    plan: FirewallPlan,
    bans: Iterable[BanSet],
    names: Mapping[str, str],
    following: Callable[[BanSet, str], int | None],
) -> Iterator[bytes]:
    """Yield the netlink messages that make the sets ``bans``, with the rules that :func:`ruleset` makes.

    ``names`` is as for :func:`ruleset`. ``following`` returns before which rule the one for a set belongs, as
    ``TableState.following_rule`` does.
    """
    for one in sorted(bans, key=lambda one: -one.length):
        yield messages.add_set(TABLE, one.name, one.version, plan.maxelem)
        base = f"friends{one.version}"
        friends = names.get(base, base) if one.exempts_friends else ""
        network = network_of(one.version, one.length)
        for side, address in SIDES.items():
            yield messages.add_lookup(
                TABLE,
                one.chain(side),
                one.name,
                network,
                address,
                _end(plan, side, one),
                unless=friends,
                before=following(one, side),
            )


def _end(plan: FirewallPlan, side: str, one: BanSet) -> str:
    """Return the chain for packets whose address is in the set ``one``; ``side`` is "from" or "to"."""
    narrow = side == "from" and one.scope is Scope.SIP_UDP and _copies_dropped(plan)
    return NARROW if narrow else f"{side}_banned"


def _copies_dropped(plan: FirewallPlan) -> bool:
    """Whether packets that a ban of SIP over UDP drops are copied to the NFLOG group just before.

    False if no copies are configured, and also with a reject action: prerouting then copies the
    packets first, and input or forward rejects them afterwards.
    """
    return plan.log_group is not None and plan.action not in _REJECTS


def _copy(plan: FirewallPlan, rate: int, prefix: str = REQUEST_PREFIX) -> str:
    """Return nft's statements that copy a request to the NFLOG group, at most ``rate`` a second."""
    limit = f"limit rate {rate}/second burst {rate} packets"
    return f'{limit} log prefix "{prefix}" group {plan.log_group}'


def _over_copies(plan: FirewallPlan) -> Iterator[str]:
    """Yield the rules by which requests of a source over its limit are not copied; nothing without a limit.

    If the table is full, the rule does not match, and the request is copied.
    """
    limit = over(plan.sender_rate, plan.sender_rate)
    for version in VERSIONS if plan.limits_copies else ():
        yield f"update @{_COPIED.name}{version} {{ {counted(version, Side.FROM)} {limit} }} return"


def _masked(address: str, one: BanSet) -> str:
    if one.length == BITS[one.version]:
        return address
    return f"{address} & {network_of(one.version, one.length).netmask}"


def _base_chains(plan: FirewallPlan, matches: Matches, steps: tuple[Stage, ...]) -> Iterator[RulesetChain]:
    """Yield the chains that copy packets to the NFLOG group, and those with a hook, such as prerouting."""
    if plan.log_group is not None:
        log = f"log group {plan.log_group}"
        yield RulesetChain("requests", (*_over_copies(plan), _copy(plan, REQUEST_RATE)))
        answers = tuple(f"{begins} {log}" for begins in beginnings(REFUSALS, inner=matches.inner))
        yield RulesetChain("answers", answers)
        known = (
            f"{key} daddr != @{matches.lists[f'observed{v}']} {key} daddr @{matches.lists[f'{which}{v}']} "
            "goto answers"
            for v, key in KEYWORDS.items()
            for which in (network_lists.ALLOW, network_lists.FRIENDS)
        )
        yield RulesetChain("segments", (*known, log))
    for hook in Hook:
        priority = _RAW if hook in (Hook.ARRIVING, Hook.LEAVING) else _BEFORE_FILTER
        chains = matches.at(steps, hook)
        if priority == _RAW:
            chains.setdefault(hook.value, ())
        for name, rules in chains.items():
            base = (hook.value, priority) if name == matches.name_of(hook) else ()
            yield RulesetChain(name, rules, *base)
