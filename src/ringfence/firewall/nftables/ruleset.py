"""The static ruleset of table ``inet ringfence``, as text for ``nft -f -``: a pure function of the plan.

The same text makes the table, repairs it, and replaces the rules of another plan, in one transaction.
``flush table`` removes the old rules and leaves the sets with all their elements. Packets pass the old rules
until the new ones are in place.

``firewall/stages.py`` has the rules of the chains with a hook, and ``matches.py`` writes them. Here are the
chains to which they jump.

* **Prefixes.** A ban is an element of a hash set for its prefix length
  (``ip saddr & 255.255.255.0 @ban4_24``). Interval sets are not used for bans: they refuse overlaps, and
  listing 100 000 intervals takes the kernel 4 s instead of 0.4 s. Each length costs one lookup for every
  packet. So only the common lengths have sets from the start. The set of any other length is made, with its
  rules, at the first ban of such a length. ``size`` limits each set separately.
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
* **Full tables.** The tables of the limiter and of the rations hold a million sources. If one is full (forged
  sources can fill it), packets of new sources pass without a limit, and are counted (``no_room``,
  ``ration_full``, ``asked_full``). That of the ration fills only if the SIP ports refuse 100 000 strangers a
  second.
* **The ration of questions.** ``asked_begun4`` lets few flows of a stranger begin, ``asked4`` counts their
  datagrams, and ``asked_clear4`` and ``asked_sealed4`` their bytes.

Counters are named, so that they outlive the rules. The names of interfaces are the only text that the
administrator writes into the ruleset. A name with a quote or another special character is refused.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType

from attrs import Factory, field, frozen

from ringfence.firewall.contract import (
    DROPPED_PREFIX,
    DROPPED_RATE,
    FLOOD_SECONDS,
    FLOW_SECONDS,
    FRAGMENTS,
    FROM_BANNED,
    FROM_DENIED,
    GUESS,
    MOST_FLOODERS,
    MOST_HELLO,
    MOST_LIMITED,
    MOST_WEBSOCKETS,
    NEAR,
    NEAR_LENGTHS,
    OUTSIDE_SECONDS,
    PASSING,
    PROBE_NETWORKS,
    PROBE_PORT,
    REFUSALS,
    REQUEST_PREFIX,
    REQUEST_RATE,
    SENDER_SECONDS,
    SERVED,
    TO_BANNED,
    TO_DENIED,
    WEBSOCKET_SECONDS,
    AskingRation,
    BanAction,
    FirewallPlan,
    Fragments,
    LimitMode,
    NetworkList,
    Ports,
)
from ringfence.firewall.nftables.matches import (
    FRAGMENT_TESTS,
    HEADERS,
    KEYWORDS,
    STATUS_LINE,
    TO_THIS_HOST,
    Matches,
    beginnings,
    data,
    port_tests,
)
from ringfence.firewall.stages import Hook, Stage, stages
from ringfence.values.ban import Scope
from ringfence.values.network import BITS, VERSIONS, Network, exempts_friends

TABLE = "ringfence"
MARK = "ringfence "
# Common prefix lengths of bans: addresses and /64s, and those that registries assign and whois prints.
DEFAULT_LENGTHS: Mapping[int, tuple[int, ...]] = {4: (32, 24, 16, 8), 6: (128, 64, 56, 48, 32)}
COUNTERS: Mapping[str, str] = {
    "from_banned": FROM_BANNED,
    "to_banned": TO_BANNED,
    "from_denied": FROM_DENIED,
    "to_denied": TO_DENIED,
    "fragments": FRAGMENTS,
    "over_limit": "over the limit",
    "no_room": "without room in the limiter",
    "rationed": "over the ration of refusals",
    "ration_full": "without room in the ration",
    "fenced": "from outside the fence",
    "asked": "over the ration of questions",
    "asked_full": "without room in the ration of questions",
}
_SCOPES = {Scope.FULL: "ban", Scope.SIP: "asterisk", Scope.SIP_UDP: "sip", Scope.SIP_TCP: "tcp"}
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_SECOND = "_2"
_LIST_SETS = frozenset(f"{which}{version}" for version in VERSIONS for which in NetworkList)
_REJECTS = {
    BanAction.PORT_UNREACHABLE: ("reject with icmpx port-unreachable",),
    BanAction.ADMIN_PROHIBITED: ("reject with icmpx admin-prohibited",),
    BanAction.TCP_RESET: ("meta l4proto tcp reject with tcp reset", "drop"),
}
_MOST_COMPARED = 16  # bytes in one comparison
_RAW, _BEFORE_FILTER = -300, -10
REASSEMBLING = f"meta l4proto udp tproxy to :{PROBE_PORT}"
"""A rule whose presence makes the kernel reassemble packets. No packet may reach it."""
DROPPING = "\n".join(f"{fragment} {TO_THIS_HOST} drop" for fragment in FRAGMENT_TESTS.values())
"""Rules with the expressions that drop fragments."""
_ASKED = ("_begun", "", "_clear", "_sealed")  # what the ration of questions counts, in names of sets
_UNASKED = (f"@th,64,64 {STATUS_LINE} return", f"@th,64,32 0x{b'ACK '.hex()} return")
_CLIENT_FRAME = "& 0x7080 == 0x0080"  # the first two bytes: no reserved bit, and a mask
_LOG = 'limit rate 5/second burst 5 packets log prefix "ringfence: "'


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
        default=Factory(lambda own: f"{_SCOPES[own.scope]}{own.version}_{own.length}", takes_self=True),
    )

    @property
    def exempts_friends(self) -> bool:
        """Whether the bans in this set do not apply to friends."""
        return exempts_friends(_network_of(self.version, self.length))

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
    hash of the sets and chains.
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
    ordered = sorted(bans, key=lambda one: (one.scope.value, one.version, -one.length))
    lists = {first: names.get(first, first) for first in _LIST_SETS}
    sets = {one.name: _ban_set(one, plan.maxelem) for one in ordered} | _fixed_sets(plan, lists)
    chains = tuple(_chains(plan, ordered, lists, inner=inner, fragments=fragments))
    mark = hashlib.sha256(repr((sorted(sets.items()), chains)).encode()).hexdigest()[:16]
    return Ruleset(sets, chains, f"{MARK}{mark}")


def ruleset_text(
    rules: Ruleset, *, stale: Iterable[str] = (), unused: Iterable[str] = (), table: str = TABLE
) -> str:
    """Return ``rules`` as text for ``nft -f -``.

    The text first deletes the chains ``stale``, and those sets of ``unused`` that ``rules`` does not have.
    ``table`` is the name of the table.
    """
    lines = [f"add table inet {table}", f"flush table inet {table}"]
    lines += [f"delete chain inet {table} {name}" for name in stale]
    lines += [f"delete set inet {table} {name}" for name in unused if name not in rules.sets]
    lines.append(f"table inet {table} {{")
    lines += [f"  counter {name} {{ }}" for name in COUNTERS]
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
    on = {name: mode is not LimitMode.OFF for name, mode in plan.modes.items()}
    asked, flow = [f"asked{near}{what}" for near in ("", "_near") for what in _ASKED], " . inet_service"
    rows: tuple[tuple[bool, Sequence[str], str, int, int], ...] = (
        (on["limiter"], ["rate", "bytes"], "", FLOOD_SECONDS, MOST_LIMITED),
        (on["limiter"], ["flood", "flood_tcp"], "", FLOOD_SECONDS, MOST_FLOODERS),
        (on["ration"], ["ration", "ration_bytes"], "", FLOOD_SECONDS, MOST_LIMITED),
        (on["asking"], asked, "", FLOOD_SECONDS, MOST_LIMITED),
        (on["asking"], ["asked_flows"], flow, FLOW_SECONDS, MOST_LIMITED),
        (on["asking"], ["asked_each"], flow, FLOOD_SECONDS, MOST_LIMITED),
        (on["asking"], ["asked_websocket"], flow, WEBSOCKET_SECONDS, MOST_WEBSOCKETS),
        (on["fence"], ["fenced"], "", OUTSIDE_SECONDS, MOST_FLOODERS),
        (plan.limits_copies, ["copied"], "", SENDER_SECONDS, MOST_LIMITED),
    )
    sets: dict[str, str] = {}
    for version in VERSIONS:
        sets |= {lists[f"{which}{version}"]: _list_set(version) for which in NetworkList}
        for wanted, names, port, seconds, size in rows:
            body = f"type {_TYPES[version]}{port}; flags dynamic,timeout; timeout {seconds}s; size {size};"
            sets |= {f"{name}{version}": body for name in names if wanted}
    return sets


def _chains(
    plan: FirewallPlan, bans: list[BanSet], lists: Mapping[str, str], *, inner: bool, fragments: Fragments
) -> Iterator[RulesetChain]:
    """Yield the chains, each after those to which it jumps.

    ``lists`` has the names of the list sets by list and IP version (``allow4``).
    ``inner``: the log rules use ``@ih``, the data after the TCP header. ``fragments``: what happens
    to fragments of strangers.
    """
    log = (_LOG,) if plan.log else ()
    verdict = _REJECTS.get(plan.action, ("drop",))
    for side, last in (("from", verdict), ("to", ("drop",))):
        for why in ("banned", "denied"):
            address = "saddr" if side == "from" else "daddr"
            counting = (
                f'{KEYWORDS[v]} {address} != {PROBE_NETWORKS[v]} counter name "{side}_{why}"'
                for v in VERSIONS
            )
            yield RulesetChain(f"{side}_{why}", (*counting, *log, *last))
        if side == "from" and _copies_dropped(plan):
            yield RulesetChain("from_narrow", (_copy(plan, DROPPED_RATE, DROPPED_PREFIX), "goto from_banned"))
        for version in VERSIONS:
            yield from _lookup_chains(
                plan, side, version, [one for one in bans if one.version == version], lists
            )
    for version in VERSIONS if plan.limit.mode is not LimitMode.OFF else ():
        yield from _limiter_chains(plan, version, log)
    yield from _asking_chains(plan, log, inner=inner)
    matches, steps = Matches(plan, lists, inner), stages(plan, fragments)
    yield from (RulesetChain(name, tuple(rules)) for name, rules in matches.split(steps).items())
    for version in VERSIONS if plan.ration.mode is not LimitMode.OFF else ():
        yield from _ration_chains(plan, version, log)
    yield from _fence_chains(plan, log)
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
    address = f"{keyword} {'saddr' if side == 'from' else 'daddr'}"
    found: dict[Scope, list[str]] = {scope: [] for scope in Scope}
    for one in bans:
        # Friends are excluded before the lookup of the ban, because that lookup counts the packet.
        friends = f"{address} != @{lists[f'friends{version}']} " if one.exempts_friends else ""
        narrow = side == "from" and one.scope is Scope.SIP_UDP and _copies_dropped(plan)
        end = "from_narrow" if narrow else f"{side}_banned"
        found[one.scope].append(f"{friends}{_masked(address, one)} @{one.name} goto {end}")
    for which, scope in plan.dropped_lists.items():
        if not (which.by_machine and plan.new_only):
            # Most packets come from other networks, so friends are looked up last.
            passing = (f" {address} != @{lists[f'{one}{version}']}" for one in PASSING if which.by_machine)
            tests = f"{address} @{lists[f'{which}{version}']}{''.join(passing)}"
            found[scope].append(f"{tests} goto {side}_denied")
    for scope, rules in found.items():
        yield RulesetChain(f"{side}{version}_{_SCOPES[scope]}", tuple(rules))
    port = "dport" if side == "from" else "sport"
    jumps = tuple(
        f"{test}jump {side}{version}_{_SCOPES[scope]}"
        for scope, ports in plan.covered.items()
        for test in ([f"{one} " for one in port_tests(ports, port)] if ports else [""])
    )
    yield RulesetChain(f"{side}{version}", jumps)


def _fence_chains(plan: FirewallPlan, log: tuple[str, ...]) -> Iterator[RulesetChain]:
    """Yield the chains of the fence, for each IP version; none if the fence is off."""
    dropping = (*log, "drop") if plan.fence is LimitMode.ENFORCE else ()
    for version in VERSIONS if plan.fence is not LimitMode.OFF else ():
        # Not ``update``: it would renew the hour, and the packets of a day would look like those of an hour.
        seen = f"add @fenced{version} {{ {_counted(version, 'saddr')} counter }}"
        answers = "ct direction reply return"
        yield RulesetChain(f"fenced{version}", (answers, seen, 'counter name "fenced"', *dropping))


def _copies_dropped(plan: FirewallPlan) -> bool:
    """Whether a narrow ban (of SIP over UDP only) itself copies packets to the wire before it drops them.

    The answer is False if no copies are configured, and also with a reject action: prerouting then copies the
    packets first, and input or forward rejects them afterwards.
    """
    return plan.log_group is not None and plan.action not in _REJECTS


def _copy(plan: FirewallPlan, rate: int, prefix: str = REQUEST_PREFIX) -> str:
    """Return the statements that copy a request to the wire source, at most ``rate`` a second."""
    limit = f"limit rate {rate}/second burst {rate} packets"
    return f'{limit} log prefix "{prefix}" group {plan.log_group}'


def _over_copies(plan: FirewallPlan) -> Iterator[str]:
    """Yield the rules that copy no more requests of a source over its limit; none if there is no such limit.

    If the table is full, the rule does not match, and the request is copied.
    """
    over = _over(plan.sender_rate, plan.sender_rate)
    for version in VERSIONS if plan.limits_copies else ():
        yield f"update @copied{version} {{ {_counted(version, 'saddr')} {over} }} return"


def _masked(address: str, one: BanSet) -> str:
    if one.length == BITS[one.version]:
        return address
    return f"{address} & {_network_of(one.version, one.length).netmask}"


def _network_of(version: int, length: int) -> Network:
    return (IPv4Network if version == 4 else IPv6Network)((0, length))  # noqa: PLR2004 - IPv4


def _limiter_chains(plan: FirewallPlan, version: int, log: tuple[str, ...]) -> Iterator[RulesetChain]:
    limit, source = plan.limit, _counted(version, "saddr")
    dropping = (*log, "drop") if limit.mode is LimitMode.ENFORCE else ()
    yield RulesetChain(
        f"over{version}",
        (
            'counter name "over_limit"',
            f"meta l4proto udp update @flood{version} {{ {source} counter }}",
            f"meta l4proto tcp update @flood_tcp{version} {{ {KEYWORDS[version]} saddr counter }}",
            *dropping,
        ),
    )
    packets = _over(limit.rate, limit.burst)
    octets = _over_bytes(limit.rate * GUESS, limit.burst * GUESS)
    over = f"goto over{version}"
    yield RulesetChain(
        f"limit{version}",
        (
            f"update @rate{version} {{ {source} {packets} }} {over}",
            f"meta l4proto tcp update @bytes{version} {{ {source} {octets} }} {over}",
            f'{source} != @rate{version} counter name "no_room"',
        ),
    )


def _asking_chains(plan: FirewallPlan, log: tuple[str, ...], *, inner: bool) -> Iterator[RulesetChain]:
    """Yield the chains of the ration of questions; none if it is off. ``inner`` is as in :func:`_chains`.

    A chain goes to the next one and never returns. So a packet over the ration is counted once, even if it
    passes in the mode observe.
    """
    asking = plan.asking
    if asking.mode is LimitMode.OFF:
        return
    dropping = (*log, "drop") if asking.mode is LimitMode.ENFORCE else ()
    for version, keyword in KEYWORDS.items():
        yield RulesetChain(f"asked{version}", ('counter name "asked"', *dropping))
        for what in _limits_of(asking):
            yield from _asking_steps(asking, version, what, inner=inner)
        flow, clear = f"{keyword} saddr . tcp sport", f"goto asking_clear{version}"
        frames = (f"{begin}@{base},{at},16 {_CLIENT_FRAME} {clear}" for begin, base, at in data(inner=inner))
        keep = f"update @asked_websocket{version} {{ {flow} }}"
        yield RulesetChain(
            f"asking_web{version}", (f"{flow} @asked_websocket{version} {keep} {clear}", *frames)
        )


def _asking_steps(asking: AskingRation, version: int, what: str, *, inner: bool) -> Iterator[RulesetChain]:
    """Yield the chains that count ``what`` strangers send: in all, in a first packet, and in any packet."""
    protocol = "tcp" if what else "udp"
    flow, flows = f"{KEYWORDS[version]} saddr . {protocol} sport", f"@asked_flows{version}"
    keep, last = f"update {flows} {{ {flow} }}", f"goto asking_more{what}{version}"
    empty = ("tcp flags & syn == syn return", *(f"{test} return" for test in _without_data(version)))
    short = f"ip{'' if version == VERSIONS[0] else '6'} length <= {MOST_HELLO}"
    hello = tuple(
        f"{short} {begin}@{base},{at},16 0x1603 @{base},{at + 40},8 0x01 return"
        for begin, base, at in data(inner=inner)
    )
    limits = _limits_of(asking)
    begun = _asked(asking, version, "_begun", lambda times: _over(times * asking.flows_a_second, times))
    one = f"{flow} timeout {asking.seconds}s {_over(asking.flow_rate, asking.burst)}"
    each = () if what else (f"update @asked_each{version} {{ {one} }} goto asked{version}",)
    more = (*each, *_asked(asking, version, what, limits[what]))
    yield RulesetChain(f"asking_more{what}{version}", more)
    first = (*begun, keep, *(hello if what == "_sealed" else ()), last)
    yield RulesetChain(f"asking_first{what}{version}", first)
    new = f"{flow} != {flows} goto asking_first{what}{version}"
    yield RulesetChain(f"asking{what}{version}", (*(empty if what else _UNASKED), new, keep, last))


def _limits_of(asking: AskingRation) -> Mapping[str, Callable[[int], str]]:
    """Return the limits of datagrams (""), of bytes in clear and of bytes by TLS, for a multiple of each."""
    rate = asking.bytes_a_second
    return {
        "": lambda times: _over(times * asking.rate, times * asking.burst),
        "_clear": lambda times: _over_bytes(times * rate, times * asking.bytes_at_once),
        "_sealed": lambda times: _over_bytes(times * rate, times * asking.sealed_bytes_at_once),
    }


def _asked(asking: AskingRation, version: int, what: str, over: Callable[[int], str]) -> tuple[str, ...]:
    """Return the rules that limit ``what`` a stranger sends, and then what its neighbours do.

    ``what`` is one of ``_ASKED``. ``over`` returns the match of what is over so many times the ration.
    """
    rules: list[str] = []
    near = f"{KEYWORDS[version]} saddr & {_network_of(version, NEAR_LENGTHS[version]).netmask}"
    for name, source, times in (("", _counted(version, "saddr"), 1), ("_near", near, NEAR)):
        strangers = f"@asked{name}{what}{version}"
        rules += [
            f"update {strangers} {{ {source} timeout {asking.seconds}s {over(times)} }} goto asked{version}",
            f'{source} != {strangers} counter name "asked_full"',
        ]
    return tuple(rules)


def _ration_chains(plan: FirewallPlan, version: int, log: tuple[str, ...]) -> Iterator[RulesetChain]:
    ration, target = plan.ration, _counted(version, "daddr")
    dropping = (*log, "drop") if ration.mode is LimitMode.ENFORCE else ()
    yield RulesetChain(f"rationed{version}", ('counter name "rationed"', *dropping))
    over = _over(ration.rate, ration.burst)
    yield RulesetChain(
        f"ration{version}",
        (
            f"update @ration{version} {{ {target} {over} }} goto rationed{version}",
            f'{target} != @ration{version} counter name "ration_full"',
        ),
    )
    octets = _over_bytes(ration.bytes_a_second, ration.bytes_a_second)
    yield RulesetChain(
        f"ration_stream{version}",
        (
            "tcp flags & syn == syn return",
            *(f"{test} return" for test in _without_data(version)),
            *(
                f"{test} tcp doff {words} @th,{32 * words},16 0x1603 return"
                for test in port_tests(Ports((), plan.sip_ports.tls), "sport")
                for words in HEADERS
            ),
            *(
                f"{test} {_within_a_frame(version)} tcp doff {words} {_begins(words, served)} return"
                for test in port_tests(Ports((), plan.sip_ports.streams), "sport")
                for words in HEADERS
                for served in SERVED
            ),
            f"update @ration_bytes{version} {{ {target} {octets} }} goto rationed{version}",
            f'{target} != @ration_bytes{version} counter name "ration_full"',
        ),
    )


def _counted(version: int, side: str) -> str:
    """Return the key by which packets are counted: the address ``side`` (saddr or daddr), of IPv6 its /64."""
    address = f"{KEYWORDS[version]} {side}"
    return address if version == 4 else f"{address} & ffff:ffff:ffff:ffff::"  # noqa: PLR2004 - IPv4


def _over(rate: int, burst: int) -> str:
    """Return the limit for packets over ``rate`` a second, after ``burst`` at once."""
    return f"limit rate over {rate}/second burst {burst} packets"


def _over_bytes(rate: int, burst: int) -> str:
    """Return the limit for packets over ``rate`` bytes a second, after ``burst`` bytes at once.

    The kernel adds the rate to the burst of a byte limit, but not to that of a packet limit. So the rate is
    subtracted from the burst here.
    """
    return f"limit rate over {rate} bytes/second burst {max(burst - rate, 0)} bytes"


def _begins(words: int, text: bytes) -> str:
    """Return the match of TCP data that begins with ``text``, behind a header of ``words`` 32-bit words."""
    parts = ((at, text[at : at + _MOST_COMPARED]) for at in range(0, len(text), _MOST_COMPARED))
    return " ".join(f"@th,{32 * words + 8 * at},{8 * len(part)} 0x{part.hex()}" for at, part in parts)


def _within_a_frame(version: int) -> str:
    """Return the match of packets that fit into an Ethernet frame."""
    return "ip length <= 1500" if version == 4 else "ip6 length <= 1460"  # noqa: PLR2004 - IPv4


def _without_data(version: int) -> Iterator[str]:
    """Yield the matches of TCP segments without data, for both usual lengths of TCP's header."""
    for words in HEADERS:
        length = f"ip length {20 + 4 * words}" if version == 4 else f"ip6 length {4 * words}"  # noqa: PLR2004
        yield f"tcp doff {words} {length}"


def _base_chains(plan: FirewallPlan, matches: Matches, steps: tuple[Stage, ...]) -> Iterator[RulesetChain]:
    """Yield the chains that copy packets to the wire, and those with a hook, such as prerouting."""
    if plan.log_group is not None:
        log = f"log group {plan.log_group}"
        yield RulesetChain("requests", (*_over_copies(plan), _copy(plan, REQUEST_RATE)))
        answers = tuple(f"{begins} {log}" for begins in beginnings(REFUSALS, inner=matches.inner))
        yield RulesetChain("answers", answers)
        known = (
            f"{key} daddr != @{matches.lists[f'observed{v}']} {key} daddr @{matches.lists[f'{which}{v}']} "
            "goto answers"
            for v, key in KEYWORDS.items()
            for which in (NetworkList.ALLOW, NetworkList.FRIENDS)
        )
        yield RulesetChain("segments", (*known, log))
    for hook in Hook:
        priority = _RAW if hook in (Hook.ARRIVING, Hook.LEAVING) else _BEFORE_FILTER
        rules = matches.rules(steps, hook)
        if rules or priority == _RAW:
            yield RulesetChain(hook.value, rules, hook.value, priority)
