"""The static ruleset of table ``inet ringfence``, as text for ``nft -f -``: a pure function of the plan.

The same text makes the table, repairs it, and replaces the rules of another plan, in one transaction.
``flush table`` removes the old rules and leaves the sets with all their elements. Packets pass the old rules
until the new ones are in place.

    prerouting (raw)  from4, from6: packets from banned addresses; fragments of strangers; the limiter; the
                      ration of questions; the copies of strangers' requests; the log rules for the wire; to4,
                      to6: packets routed to banned addresses; the ration of forwarded refusals
    output (raw)      the log rules, to4, to6; the ration of this host's refusals

Priority raw is before connection tracking. So a ban also stops established connections, and protects a
container behind DNAT. ``contract.py`` explains the wire, and the order of the rules. Packets of networks in
``allow4`` and ``allow6`` skip the rules that drop. They are not accepted either, so the log rules and the
administrator's own rules still see them.

* **Prefixes.** A ban is an element of a hash set for its prefix length
  (``ip saddr & 255.255.255.0 @ban4_24``). Interval sets are not used for bans: they refuse overlaps, and
  listing 100 000 intervals takes the kernel 4 s instead of 0.4 s. Each length costs one lookup for every
  packet. So only the common lengths have sets from the start. The set of any other length is made, with its
  rules, at the first ban of such a length. ``size`` limits each set separately.
* **Friends.** A ban of a /64, or of a part of it, does not apply to the friends in it
  (``networks.exempts_friends``): ``ip6 saddr != @friends6`` stands before the lookup of such a ban. It costs
  an IPv6 packet one lookup.
  Fetched and decided networks do not apply to ``contract.PASSING``: their rules look these up last. With
  ``new_only``, these rules stand in input and forward, behind connection tracking, and match new flows only.
* **Network lists** are interval sets. To replace a long list whose contents in the kernel are unknown, a
  second set is filled (``deny4_2``, the *alternate set*). Then one transaction makes the rules use the second
  set, and deletes the first one.
* **Scopes.** Sets such as ``ban4_32`` hold full bans. Sets such as ``asterisk4_32`` hold the bans of rules
  with ``scope = "sip"``: they apply to UDP and TCP from and to the SIP ports. Sets such as ``sip4_32`` hold
  *narrow* bans, whose evidence a forged datagram could have caused: they apply to UDP from and to the SIP
  ports only. Sets such as ``tcp4_32`` hold bans of TCP from and to the SIP ports. With ``every_port`` false,
  full bans and the deny list apply to the SIP ports only, and to ``PROBE_PORT``, on which the probe tests
  bans.
* **Interfaces** limit where packets are dropped. The loopback interface is always included, because the probe
  tests bans there. Prerouting does not know the output interface of a packet. Therefore, if interfaces are
  named, packets routed to banned addresses are dropped in forward.
* **Fragments** (``contract.FRAGMENTS``). An expression ``tproxy`` makes the kernel reassemble the packets of
  both IP versions before raw, as soon as a rule contains it. So it stands in a chain that no packet reaches
  (``reassembly``). ``ct`` would do so too, but then the kernel tracks every packet.
* **Reject actions.** Not every kernel permits a reject in raw. So packets from banned addresses are rejected
  in input and forward, before the administrator's filter, and not dropped in raw. (After DNAT, input and
  forward see the ports of the container.) Packets to banned addresses are dropped in output, except for the
  packets that a reject sends: ICMP errors (destination unreachable) or RSTs. Such a packet never answers a
  guess.
* **The limiter** inspects packets to the SIP ports of this host, except those of friends and of allowed
  networks. It does not apply to a container's own calls. It limits the packets of a source, and for TCP also
  the bytes: 300 for each packet that the limit permits. This is because one TCP segment may carry many
  guesses, and a packet of 64 kB that was combined from several segments (GRO) more than a hundred. No guess
  is shorter than 300 bytes. The limiter's tables hold a million sources for ten seconds. If a table is full
  (forged sources can fill it), packets of new sources pass without a limit, and are counted (``no_room``).
* **The ration of questions** (``contract.AskingRation``) stands behind the limiter and before the copies, so
  that the wire sees what Asterisk sees. Its rules compare the port first: a packet of media costs one
  comparison for each. It counts packets to this host and to its containers, as the fence does. ``begin4``
  lets few flows of a stranger begin, ``asking4`` counts their datagrams, and ``asking_clear4`` and
  ``asking_sealed4`` their bytes. A connection is a WebSocket if Asterisk answered 101
  (``asked_websocket4``). That answer may stand behind another one in its segment, if the sender delays both.
  So segments that begin with a client's frame count too. SYN-ACKs to strangers ask for short segments, if
  the ration drops packets: few guesses fit into one (``contract.SEGMENT``). If a table is full, packets of
  new strangers pass, and are counted (``asked_full``).
* **The log rules** copy SIP answers: datagrams whose payload begins with "SIP/2.0 401", 403, 404 or 407.
  (A 404 answers a call to an unknown extension.) To strangers they also copy all other answers by UDP from
  the SIP ports: a success shows that the request was no guess. Of TCP, every segment from the SIP ports to a
  stranger is copied, also one without data: an answer may stand anywhere in the stream, and the sender
  decides where.
  Segments to friends and allowed networks, and over the loopback interface, are copied only if they begin
  with a 401, 403 or 407, because phones and trunks receive much. To observed friends (``observed4``) all is
  copied that is copied to strangers. The status line may also begin a WebSocket
  text frame (RFC 6455: 0x81, then a length below 126, or 126 and a length of 16 bits; a server does not
  mask).
* **The ration** (``contract.Ration``) is last in its chains, so that the wire sees the refusals that it
  drops, and a banned address uses up none of it. It inspects datagrams from the SIP ports whose payload
  begins with "SIP/2.0 401", 403 or 407, except to loopback, friends and allowed networks. Of TCP it counts
  the bytes of every segment with data from ``Ports.streams`` and ``Ports.tls``. It leaves out segments that
  begin a TLS handshake (16 03): a certificate is as long as ten refusals, and nobody chooses the bytes of an
  encrypted answer. Nor does it count segments of a frame at most that begin as the answers to a call
  (``contract.SERVED``): Asterisk serves that stranger (a guest, a carrier without a password), and its calls
  must not wait. From the other TCP ports, ``Ports.web``, it counts segments that begin with a 401, 403 or
  407, also in a WebSocket frame. If a table is full, packets to new strangers pass, and are counted
  (``ration_full``). It fills only if the SIP ports refuse 100 000 strangers a second.
* **The fence** stands in input and forward, behind connection tracking, and lets pass the answers to what
  this host began. A stranger's own flow from before the fence ends too, or it could guess there for ever. It
  remembers for an hour who came from outside (``fenced4``), and always drops without an answer. In forward it
  covers packets to the containers only: this host may route the packets of another PBX.
* **``@ih``** is the data after the TCP header, with any options (kernel 5.16, nft 1.0.1). If the kernel or
  ``nft`` refuses it, the log rules inspect only segments with headers of 20 and of 32 bytes (with
  timestamps).
* **Forwarded answers.** Prerouting sees the answers of bridged containers, and any packets from outside.
  There the log rules copy a packet under two conditions. It is to be forwarded, so a provider's 401 to this
  host is not copied. And it arrived by the interface that leads back to its source address, so a packet that
  a stranger sends with a container's address is not copied. The log rules are never limited to interfaces.
* **Requests of strangers** and of observed friends. Their packets to the SIP ports are copied to the same
  group with a prefix. One chain does this, so that both IP versions share its limit. Each source has a limit
  too (``contract.SENDER_RATE``). A sender has often answered its last challenge when a ban takes effect. So a
  narrow ban copies datagrams before it drops them (``from_narrow``), with a limit of their own. The nonce in
  such a datagram proves the address, and the ban becomes a full one.
* **Asterisk's export** of decrypted messages (``contract.HepExport``) is copied in output, also over
  loopback, with a prefix. Asterisk exports UDP, TCP and WS too. The chunks of its datagrams have fixed
  places, so only those of TLS and WSS reach the wire.

Counters are named, so that they outlive the rules. The names of interfaces are the only text that the
administrator writes into the ruleset. A name with a quote or another special character is refused.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType

from attrs import Factory, field, frozen

from ringfence.errors import FirewallError
from ringfence.firewall.contract import (
    COPIED,
    DROPPED_PREFIX,
    DROPPED_RATE,
    FLOOD_SECONDS,
    FLOW_SECONDS,
    FRAGMENTS,
    FROM_BANNED,
    FROM_DENIED,
    GUESS,
    HEP_PREFIX,
    HEP_PROTOCOL,
    HEP_SOURCE_PORT,
    HEP_TARGET_PORT,
    HEP_TCP,
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
    SEGMENT,
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
_KEYWORDS = {4: "ip", 6: "ip6"}
_REJECTS = {
    BanAction.PORT_UNREACHABLE: ("reject with icmpx port-unreachable",),
    BanAction.ADMIN_PROHIBITED: ("reject with icmpx admin-prohibited",),
    BanAction.TCP_RESET: ("meta l4proto tcp reject with tcp reset", "drop"),
}
_REJECT_REPLIES = {
    BanAction.PORT_UNREACHABLE: ("icmp type destination-unreachable", "icmpv6 type destination-unreachable"),
    BanAction.ADMIN_PROHIBITED: ("icmp type destination-unreachable", "icmpv6 type destination-unreachable"),
    BanAction.TCP_RESET: ("tcp flags & rst == rst",),
}
_ANSWERS, _DATAGRAMS = (
    f"{{ {', '.join(f'0x{begin.hex()}' for begin in begins)} }}" for begins in (REFUSALS, COPIED)
)
_STATUS_LINE = f"0x{b'SIP/2.0 '.hex()}"
_MOST_COMPARED = 16  # bytes in one comparison
_UDP_HEADER = 8  # bytes
_HEADERS = (5, 8)  # TCP data offsets, in words of 32 bits
_TO_BE_ROUTED = "fib saddr . iif oif != 0 fib daddr type unicast"
_RAW, _BEFORE_FILTER = -300, -10
_FRAGMENTS = {4: "ip frag-off & 0x3fff != 0", 6: "exthdr frag exists"}
_TO_THIS_HOST = "fib daddr type local"
REASSEMBLING = f"meta l4proto udp tproxy to :{PROBE_PORT}"
"""A rule whose presence makes the kernel reassemble packets. No packet may reach it."""
DROPPING = "\n".join(f"{fragment} {_TO_THIS_HOST} drop" for fragment in _FRAGMENTS.values())
"""Rules with the expressions that drop fragments."""
_ASKED = ("_begun", "", "_clear", "_sealed")  # what the ration of questions counts, in names of sets
_UNASKED = (f"@th,64,64 {_STATUS_LINE} return", f"@th,64,32 0x{b'ACK '.hex()} return")
_UPGRADED = b"HTTP/1.1 101"
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
    sets = {}
    for version in VERSIONS:
        for which in NetworkList:
            sets[lists[f"{which}{version}"]] = _list_set(version)
        if plan.limit.mode is not LimitMode.OFF:
            body = f"type {_TYPES[version]}; flags dynamic,timeout; timeout {FLOOD_SECONDS}s; size"
            sets[f"rate{version}"] = sets[f"bytes{version}"] = f"{body} {MOST_LIMITED};"
            sets[f"flood{version}"] = sets[f"flood_tcp{version}"] = f"{body} {MOST_FLOODERS};"
        if plan.ration.mode is not LimitMode.OFF:
            body = f"type {_TYPES[version]}; flags dynamic,timeout; timeout {FLOOD_SECONDS}s; size"
            sets[f"ration{version}"] = sets[f"ration_bytes{version}"] = f"{body} {MOST_LIMITED};"
        if plan.asking.mode is not LimitMode.OFF:
            sets |= _asking_sets(version)
        if plan.fence is not LimitMode.OFF:
            body = f"type {_TYPES[version]}; flags dynamic,timeout; timeout {OUTSIDE_SECONDS}s; size"
            sets[f"fenced{version}"] = f"{body} {MOST_FLOODERS};"
        if plan.limits_copies:
            body = f"type {_TYPES[version]}; flags dynamic,timeout; timeout {SENDER_SECONDS}s; size"
            sets[f"copied{version}"] = f"{body} {MOST_LIMITED};"
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
                f'{_KEYWORDS[v]} {address} != {PROBE_NETWORKS[v]} counter name "{side}_{why}"'
                for v in VERSIONS
            )
            yield RulesetChain(f"{side}_{why}", (*counting, *log, *last))
        if side == "from" and _copies_dropped(plan):
            yield RulesetChain("from_narrow", (_copy(plan, DROPPED_RATE, DROPPED_PREFIX), "goto from_banned"))
        for version in VERSIONS:
            yield from _lookup_chains(
                plan, side, version, [one for one in bans if one.version == version], lists
            )
    if plan.limit.mode is not LimitMode.OFF:
        for version in VERSIONS:
            yield from _limiter_chains(plan, version, log)
    yield from _asking_chains(plan, lists, log, inner=inner)
    if plan.ration.mode is not LimitMode.OFF:
        for version in VERSIONS:
            yield from _ration_chains(plan, version, log)
    yield from _fence_chains(plan, log)
    if fragments is Fragments.REASSEMBLED:
        yield RulesetChain("reassembly", (REASSEMBLING,))
    yield RulesetChain("fragments", ('counter name "fragments"', *log, "drop"))
    yield from _base_chains(plan, lists, inner=inner, fragments=fragments)


def _lookup_chains(
    plan: FirewallPlan, side: str, version: int, bans: list[BanSet], lists: Mapping[str, str]
) -> Iterator[RulesetChain]:
    """Yield the chains that look up the address of a packet.

    It is the source address if ``side`` is "from", the target address if it is "to". ``lists`` has the names
    of the list sets by list and IP version (``allow4``).
    """
    keyword = _KEYWORDS[version]
    address = f"{keyword} {'saddr' if side == 'from' else 'daddr'}"
    found: dict[Scope, list[str]] = {scope: [] for scope in Scope}
    for one in bans:
        # Friends are excluded before the lookup of the ban, because that lookup counts the packet.
        friends = f"{address} != @{lists[f'friends{version}']} " if one.exempts_friends else ""
        narrow = side == "from" and one.scope is Scope.SIP_UDP and _copies_dropped(plan)
        end = "from_narrow" if narrow else f"{side}_banned"
        found[one.scope].append(f"{friends}{_masked(address, one)} @{one.name} goto {end}")
    found[Scope.FULL].append(f"{address} @{lists[f'deny{version}']} goto {side}_denied")
    for which, scope in plan.foreign_lists.items() if not plan.new_only else ():
        # Most packets come from other networks, so friends are looked up last.
        passing = " ".join(f"{address} != @{lists[f'{one}{version}']}" for one in PASSING)
        found[scope].append(f"{address} @{lists[f'{which}{version}']} {passing} goto {side}_denied")
    for scope, rules in found.items():
        yield RulesetChain(f"{side}{version}_{_SCOPES[scope]}", tuple(rules))
    ports, port = plan.sip_ports, "dport" if side == "from" else "sport"
    full = _full_tests(plan, port)
    yield RulesetChain(
        f"{side}{version}",
        (
            *(f"{test}jump {side}{version}_ban" for test in full),
            *(f"{test} jump {side}{version}_asterisk" for test in _port_tests(ports, port)),
            *(f"{test} jump {side}{version}_sip" for test in _port_tests(Ports(ports.udp, ()), port)),
            *(f"{test} jump {side}{version}_tcp" for test in _port_tests(Ports((), ports.tcp), port)),
        ),
    )


def _full_tests(plan: FirewallPlan, port: str) -> list[str]:
    """Return the matches for the packets that a full ban covers; ``port`` is sport or dport."""
    if plan.every_port:
        return [""]
    trying = Ports(tuple(sorted({*plan.sip_ports.udp, PROBE_PORT})), plan.sip_ports.tcp)
    return [f"{test} " for test in _port_tests(trying, port)]


def _fetched_rules(plan: FirewallPlan, come: str, lists: Mapping[str, str]) -> Iterator[str]:
    """Yield the rules that drop new flows from fetched and decided networks, behind connection tracking.

    ``come`` is the match for the input interfaces, "" for all.
    """
    if not plan.new_only:
        return
    full, sip = _full_tests(plan, "dport"), [f"{test} " for test in _port_tests(plan.sip_ports, "dport")]
    for version, keyword in _KEYWORDS.items():
        strangers = _strangers(version, "saddr", lists, *PASSING)
        for which, scope in plan.foreign_lists.items():
            new = f"ct state new,untracked {keyword} saddr @{lists[f'{which}{version}']}"
            for test in full if scope is Scope.FULL else sip:
                yield f"{come}{test}{new} {strangers} goto from_denied"


def _fence_chains(plan: FirewallPlan, log: tuple[str, ...]) -> Iterator[RulesetChain]:
    """Yield the chains of the fence, for each IP version; none if the fence is off."""
    dropping = (*log, "drop") if plan.fence is LimitMode.ENFORCE else ()
    for version in VERSIONS if plan.fence is not LimitMode.OFF else ():
        # Not ``update``: it would renew the hour, and the packets of a day would look like those of an hour.
        seen = f"add @fenced{version} {{ {_counted(version, 'saddr')} counter }}"
        answers = "ct direction reply return"
        yield RulesetChain(f"fenced{version}", (answers, seen, 'counter name "fenced"', *dropping))


def _fence_rules(
    plan: FirewallPlan, come: str, lists: Mapping[str, str], containers: Mapping[int, str] | None = None
) -> Iterator[str]:
    """Yield the rules that send packets from outside the fence to its chains; none if the fence is off.

    ``containers`` has by IP version the match of packets to containers; None: packets to this host.
    """
    if plan.fence is LimitMode.OFF:
        return
    for version, to in (dict.fromkeys(VERSIONS, "") if containers is None else containers).items():
        outside = _strangers(version, "saddr", lists, *PASSING, NetworkList.INSIDE)
        for test in _port_tests(plan.sip_ports, "dport"):
            known = f'{come}iifname != "lo" {to}{test} ct state new,established,untracked'
            yield f"{known} {outside} jump fenced{version}"


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


def _port_tests(ports: Ports, port: str) -> list[str]:
    """Return the matches for packets from (``port``: "sport") or to ("dport") ``ports``, one per protocol."""
    return [
        f"{protocol} {port} {{ {', '.join(map(str, numbers))} }}"
        for protocol, numbers in (("udp", ports.udp), ("tcp", ports.tcp))
        if numbers
    ]


def _limiter_chains(plan: FirewallPlan, version: int, log: tuple[str, ...]) -> Iterator[RulesetChain]:
    limit, source = plan.limit, _counted(version, "saddr")
    dropping = (*log, "drop") if limit.mode is LimitMode.ENFORCE else ()
    yield RulesetChain(
        f"over{version}",
        (
            'counter name "over_limit"',
            f"meta l4proto udp update @flood{version} {{ {source} counter }}",
            f"meta l4proto tcp update @flood_tcp{version} {{ {_KEYWORDS[version]} saddr counter }}",
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


def _asking_sets(version: int) -> dict[str, str]:
    """Return the declarations of the sets of the ration of questions."""
    address, dynamic = _TYPES[version], "flags dynamic,timeout; timeout"
    stranger = f"type {address}; {dynamic} {FLOOD_SECONDS}s; size {MOST_LIMITED};"
    flow = f"type {address} . inet_service; {dynamic}"
    return {
        **{f"asked{near}{what}{version}": stranger for near in ("", "_near") for what in _ASKED},
        f"asked_flows{version}": f"{flow} {FLOW_SECONDS}s; size {MOST_LIMITED};",
        f"asked_each{version}": f"{flow} {FLOOD_SECONDS}s; size {MOST_LIMITED};",
        f"asked_websocket{version}": f"{flow} {WEBSOCKET_SECONDS}s; size {MOST_WEBSOCKETS};",
    }


def _asking_chains(
    plan: FirewallPlan, lists: Mapping[str, str], log: tuple[str, ...], *, inner: bool
) -> Iterator[RulesetChain]:
    """Yield the chains of the ration of questions; none if it is off.

    ``lists`` and ``inner`` are as in :func:`_chains`. A chain goes to the next one and never returns. So a
    packet over the ration is counted once, even if it passes in the mode observe.
    """
    asking, containers = plan.asking, _containers(plan, "daddr")
    if asking.mode is LimitMode.OFF:
        return
    dropping = (*log, "drop") if asking.mode is LimitMode.ENFORCE else ()
    for version, keyword in _KEYWORDS.items():
        yield RulesetChain(f"asked{version}", ('counter name "asked"', *dropping))
        for what in _limits_of(asking):
            yield from _asking_steps(asking, version, what, inner=inner)
        flow, clear = f"{keyword} saddr . tcp sport", f"goto asking_clear{version}"
        frames = (f"{begin}@{base},{at},16 {_CLIENT_FRAME} {clear}" for begin, base, at in _data(inner=inner))
        keep = f"update @asked_websocket{version} {{ {flow} }}"
        yield RulesetChain(
            f"asking_web{version}", (f"{flow} @asked_websocket{version} {keep} {clear}", *frames)
        )
    for what in _asking_ports(plan):
        rules = (
            f"{to}{_strangers(version, 'saddr', lists, NetworkList.UNSHIELDED)} goto asking{what}{version}"
            for version in VERSIONS
            for to in ("fib daddr type local ", containers.get(version, ""))
            if to
        )
        yield RulesetChain(f"asking{what}", tuple(rules))


def _asking_steps(asking: AskingRation, version: int, what: str, *, inner: bool) -> Iterator[RulesetChain]:
    """Yield the chains that count ``what`` strangers send: in all, in a first packet, and in any packet."""
    protocol = "tcp" if what else "udp"
    flow, flows = f"{_KEYWORDS[version]} saddr . {protocol} sport", f"@asked_flows{version}"
    keep, last = f"update {flows} {{ {flow} }}", f"goto asking_more{what}{version}"
    empty = ("tcp flags & syn == syn return", *(f"{test} return" for test in _without_data(version)))
    short = f"ip{'' if version == VERSIONS[0] else '6'} length <= {MOST_HELLO}"
    hello = tuple(
        f"{short} {begin}@{base},{at},16 0x1603 @{base},{at + 40},8 0x01 return"
        for begin, base, at in _data(inner=inner)
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
    near = f"{_KEYWORDS[version]} saddr & {_network_of(version, NEAR_LENGTHS[version]).netmask}"
    for name, source, times in (("", _counted(version, "saddr"), 1), ("_near", near, NEAR)):
        strangers = f"@asked{name}{what}{version}"
        rules += [
            f"update {strangers} {{ {source} timeout {asking.seconds}s {over(times)} }} goto asked{version}",
            f'{source} != {strangers} counter name "asked_full"',
        ]
    return tuple(rules)


def _asking_ports(plan: FirewallPlan) -> Mapping[str, Ports]:
    """Return the ports with a ration of questions, by what is counted there; empty if it is off."""
    ports, asking = plan.sip_ports, plan.asking
    if plan.asking.mode is LimitMode.OFF:
        return {}
    return {
        "": Ports(ports.conversations.udp, ()),
        "_clear": Ports((), ports.streams),
        "_sealed": Ports((), asking.sealed(ports)),
        "_web": Ports((), asking.pages(ports)),
    }


def _asking_rules(plan: FirewallPlan, come: str) -> Iterator[str]:
    """Yield the rules that send packets to the SIP ports to the ration of questions.

    ``come`` is the match for the input interfaces, "" for all.
    """
    for what, ports in _asking_ports(plan).items():
        for test in _port_tests(ports, "dport"):
            yield f'{test} {come}iifname != "lo" jump asking{what}'


def _upgrade_rules(
    plan: FirewallPlan, lists: Mapping[str, str], ways: Mapping[int, str], *, inner: bool
) -> Iterator[str]:
    """Yield the rules that remember the connections of strangers that Asterisk upgrades to WebSocket.

    ``lists``, ``ways`` and ``inner`` are as in :func:`_ration_rules`.
    """
    for version, way in ways.items():
        strangers = _strangers(version, "daddr", lists, NetworkList.UNSHIELDED)
        keep = f"update @asked_websocket{version} {{ {_KEYWORDS[version]} daddr . tcp dport }}"
        for test in _port_tests(_asking_ports(plan).get("_web", Ports((), ())), "sport"):
            for begin, base, at in _data(inner=inner):
                upgraded = f"{begin}@{base},{at},{8 * len(_UPGRADED)} 0x{_UPGRADED.hex()}"
                yield f"{test} {way}{upgraded} {strangers} {keep}"


def _segment_rules(plan: FirewallPlan, lists: Mapping[str, str], ways: Mapping[int, str]) -> Iterator[str]:
    """Yield the rules that ask strangers for short segments; for the parameters see :func:`_ration_rules`."""
    if plan.asking.mode is not LimitMode.ENFORCE:
        return
    for version, way in ways.items():
        strangers = _strangers(version, "daddr", lists, NetworkList.UNSHIELDED)
        for test in _port_tests(Ports((), plan.sip_ports.tcp), "sport"):
            begin = f"{test} {way}tcp flags & (syn | ack) == syn | ack {strangers}"
            yield f"{begin} tcp option maxseg size set {SEGMENT}"


def _data(*, inner: bool) -> Iterator[tuple[str, str, int]]:
    """Yield where the data of a TCP segment begins: a match of its header, the base, and the offset in bits.

    ``inner``: it is the base ``@ih``.
    """
    if inner:
        yield "", "ih", 0
    else:
        yield from ((f"tcp doff {words} ", "th", 32 * words) for words in _HEADERS)


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
                for test in _port_tests(Ports((), plan.sip_ports.tls), "sport")
                for words in _HEADERS
            ),
            *(
                f"{test} {_within_a_frame(version)} tcp doff {words} {_begins(words, served)} return"
                for test in _port_tests(Ports((), plan.sip_ports.streams), "sport")
                for words in _HEADERS
                for served in SERVED
            ),
            f"update @ration_bytes{version} {{ {target} {octets} }} goto rationed{version}",
            f'{target} != @ration_bytes{version} counter name "ration_full"',
        ),
    )


def _counted(version: int, side: str) -> str:
    """Return the key by which packets are counted: the address ``side`` (saddr or daddr), of IPv6 its /64."""
    address = f"{_KEYWORDS[version]} {side}"
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
    for words in _HEADERS:
        length = f"ip length {20 + 4 * words}" if version == 4 else f"ip6 length {4 * words}"  # noqa: PLR2004
        yield f"tcp doff {words} {length}"


def _last_rules(
    plan: FirewallPlan, lists: Mapping[str, str], ways: Mapping[int, str], *, inner: bool
) -> Iterator[str]:
    """Yield the last rules for what the SIP ports send; the parameters are those of :func:`_ration_rules`."""
    yield from _segment_rules(plan, lists, ways)
    yield from _upgrade_rules(plan, lists, ways, inner=inner)
    yield from _ration_rules(plan, lists, ways, inner=inner)


def _ration_rules(
    plan: FirewallPlan, lists: Mapping[str, str], ways: Mapping[int, str], *, inner: bool
) -> Iterator[str]:
    """Yield the rules that send refusals and segments to strangers to the ration.

    ``lists`` has the names of the list sets by list and IP version (``allow4``). ``ways`` has by IP version
    the match of the packets that count; none of a version that is missing there. ``inner``: the rules use
    ``@ih``.
    """
    if plan.ration.mode is LimitMode.OFF:
        return
    for version, way in ways.items():
        strangers = _strangers(version, "daddr", lists, NetworkList.UNSHIELDED)
        for test in _port_tests(Ports(plan.sip_ports.udp, ()), "sport"):
            yield f"{way}{test} @th,64,88 {_ANSWERS} {strangers} jump ration{version}"
        for test in _port_tests(Ports((), plan.sip_ports.streams + plan.sip_ports.tls), "sport"):
            yield f"{way}{test} {strangers} jump ration_stream{version}"
        for test in _port_tests(Ports((), plan.sip_ports.web), "sport"):
            for begins in _beginnings(inner=inner):
                yield f"{way}{test} {begins} {strangers} jump ration{version}"


def _from_containers(plan: FirewallPlan) -> dict[int, str]:
    """Return by IP version the match of the forwarded packets that Asterisks in containers send."""
    return {version: f"{ours}{_TO_BE_ROUTED} " for version, ours in _containers(plan, "saddr").items()}


def _containers(plan: FirewallPlan, side: str) -> dict[int, str]:
    """Return by IP version the match of packets whose ``side`` (saddr or daddr) is a container's address."""
    found = {v: sorted(one for one in plan.containers if one.version == v) for v in VERSIONS}
    return {
        version: f"{_KEYWORDS[version]} {side} {{ {', '.join(map(str, addresses))} }} "
        for version, addresses in found.items()
        if addresses
    }


def _strangers(version: int, side: str, lists: Mapping[str, str], *more: NetworkList) -> str:
    """Return the matches of packets whose ``side`` (saddr or daddr) is neither a friend nor allowed.

    Addresses on the lists ``more`` do not match either.
    """
    which = dict.fromkeys((NetworkList.ALLOW, NetworkList.FRIENDS, *more))
    names = (lists[f"{one}{version}"] for one in which)
    return " ".join(f"{_KEYWORDS[version]} {side} != @{name}" for name in names)


def _copied(version: int, side: str, lists: Mapping[str, str]) -> tuple[str, str]:
    """Return the matches of packets of observed friends and of strangers; a packet fits one of them."""
    observed = f"{_KEYWORDS[version]} {side} @{lists[f'{NetworkList.OBSERVED}{version}']}"
    return observed, _strangers(version, side, lists, NetworkList.OBSERVED)


def _base_chains(
    plan: FirewallPlan, lists: Mapping[str, str], *, inner: bool, fragments: Fragments
) -> Iterator[RulesetChain]:
    """Yield the chains with a hook (such as prerouting), and the chains that copy packets to the wire."""
    rejecting = plan.action in _REJECTS
    come = _interface_match(plan, "iifname")
    go, allow = _interface_match(plan, "oifname"), {v: lists[f"allow{v}"] for v in VERSIONS}
    entering = tuple(f"{come}{_KEYWORDS[v]} saddr != @{allow[v]} jump from{v}" for v in VERSIONS)
    leaving = tuple(f"{go}{_KEYWORDS[v]} daddr != @{allow[v]} jump to{v}" for v in VERSIONS)
    prerouting = (*(() if rejecting else entering), *_rules_for_strangers(plan, come, lists, fragments))
    output = (*(f"{test} accept" for test in _REJECT_REPLIES.get(plan.action, ())), *leaving)
    if plan.log_group is not None:
        log = f"log group {plan.log_group}"
        yield RulesetChain("requests", (*_over_copies(plan), _copy(plan, REQUEST_RATE)))
        yield RulesetChain("answers", tuple(f"{begins} {log}" for begins in _beginnings(inner=inner)))
        known = (
            f"{key} daddr != @{lists[f'observed{v}']} {key} daddr @{lists[f'{which}{v}']} goto answers"
            for v, key in _KEYWORDS.items()
            for which in (NetworkList.ALLOW, NetworkList.FRIENDS)
        )
        yield RulesetChain("segments", (*known, log))
        datagrams = f"meta l4proto udp @th,64,88 {_DATAGRAMS}"
        streams = _port_tests(Ports((), plan.sip_ports.tcp), "sport")
        prerouting += tuple(
            f'iifname != "lo" {test} {whose} jump requests'
            for version in VERSIONS
            for test in _port_tests(plan.sip_ports.conversations, "dport")
            for whose in _copied(version, "saddr", lists)
        )
        others = tuple(
            f"{test} @th,64,64 {_STATUS_LINE} @th,64,88 != {_DATAGRAMS} {whose} {log}"
            for version in VERSIONS
            for test in _port_tests(Ports(plan.sip_ports.conversations.udp, ()), "sport")
            for whose in _copied(version, "daddr", lists)
        )
        prerouting += (f"{datagrams} {_TO_BE_ROUTED} {log}",)
        prerouting += tuple(f"{_TO_BE_ROUTED} {other}" for other in others)
        prerouting += tuple(f"{test} {_TO_BE_ROUTED} jump segments" for test in streams)
        looped = (f'oifname "lo" {test} jump answers' for test in streams)
        output = (
            *_exports(plan),
            f"{datagrams} {log}",
            *(f'oifname != "lo" {other}' for other in others),
            *looped,
            *(f'oifname != "lo" {test} jump segments' for test in streams),
            *output,
        )
    if not plan.interfaces:
        prerouting += leaving
    prerouting += tuple(_last_rules(plan, lists, _from_containers(plan), inner=inner))
    leave = dict.fromkeys(VERSIONS, f'{go}oifname != "lo" ')
    output += tuple(_last_rules(plan, lists, leave, inner=inner))
    yield RulesetChain("prerouting", prerouting, "prerouting", _RAW)
    yield RulesetChain("output", output, "output", _RAW)
    inner_rules = (*(entering if rejecting else ()), *_fetched_rules(plan, come, lists))
    yield from _inner_chain("input", (*inner_rules, *_fence_rules(plan, come, lists)))
    fence = _fence_rules(plan, come, lists, _containers(plan, "daddr"))
    routed = leaving if plan.interfaces else ()
    yield from _inner_chain("forward", (*inner_rules, *fence, *routed))


def _inner_chain(hook: str, rules: tuple[str, ...]) -> Iterator[RulesetChain]:
    """Yield the chain at ``hook``, behind connection tracking, if there are ``rules``."""
    if rules:
        yield RulesetChain(hook, rules, hook, _BEFORE_FILTER)


def _exports(plan: FirewallPlan) -> Iterator[str]:
    """Yield the rules that copy Asterisk's decrypted messages of TLS and WSS, each message once."""
    hep = plan.hep
    if not (hep.targets and hep.streams):
        return
    targets, streams = (f"{{ {', '.join(map(str, ports))} }}" for ports in (hep.targets, hep.streams))
    source, target = (f"@th,{8 * (_UDP_HEADER + at)},16" for at in (HEP_SOURCE_PORT, HEP_TARGET_PORT))
    stream = f"udp dport {targets} @th,{8 * (_UDP_HEADER + HEP_PROTOCOL)},8 {HEP_TCP}"
    log = f'log prefix "{HEP_PREFIX}" group {plan.log_group} snaplen {hep.size}'
    yield f"{stream} {source} {streams} {log}"
    yield f"{stream} {source} != {streams} {target} {streams} {log}"


def _beginnings(*, inner: bool) -> Iterator[str]:
    """Yield the matches of the segments that begin with an answer; ``inner``: they use ``@ih`` (TCP data)."""
    for header, base, begin in _data(inner=inner):
        first, second = f"@{base},{begin},8", f"@{base},{begin + 8},8"
        yield f"{header}@{base},{begin},88 {_ANSWERS}"
        yield f"{header}{first} 0x81 {second} 126 @{base},{begin + 32},88 {_ANSWERS}"
        yield f"{header}{first} 0x81 {second} < 126 @{base},{begin + 16},88 {_ANSWERS}"


def _rules_for_strangers(
    plan: FirewallPlan, come: str, lists: Mapping[str, str], fragments: Fragments
) -> Iterator[str]:
    """Yield the rules that drop or limit packets of strangers; the arguments are as in the functions below.

    ``fragments``: what happens to fragments.
    """
    if fragments is Fragments.DROPPED:
        yield from _fragment_rules(plan, come, lists)
    yield from _limiter_rules(plan, come, lists)
    yield from _asking_rules(plan, come)


def _fragment_rules(plan: FirewallPlan, come: str, lists: Mapping[str, str]) -> Iterator[str]:
    """Yield the rules that drop the first fragments of strangers to the SIP ports; others have no ports.

    The arguments are as in :func:`_limiter_rules`.
    """
    containers = _containers(plan, "daddr")
    for version, fragment in _FRAGMENTS.items():
        strangers = _strangers(version, "saddr", lists, NetworkList.UNSHIELDED)
        targets = [f"{_TO_THIS_HOST} ", *([containers[version]] if version in containers else [])]
        for test in _port_tests(plan.sip_ports, "dport"):
            for target in targets:
                yield f'{come}iifname != "lo" {fragment} {test} {target}{strangers} jump fragments'


def _limiter_rules(plan: FirewallPlan, come: str, lists: Mapping[str, str]) -> Iterator[str]:
    """Yield the rules that send packets to the limiter; none if the limiter is off.

    These are the packets to SIP ports of this host, except over loopback, from friends (unshielded ones too)
    and from allowed networks. ``come`` is the match for the input interfaces, "" for all. ``lists`` has the
    names of the list sets by list and IP version (``allow4``).
    """
    if plan.limit.mode is LimitMode.OFF:
        return
    for version in VERSIONS:
        strangers = _strangers(version, "saddr", lists, NetworkList.UNSHIELDED)
        for test in _port_tests(plan.sip_ports, "dport"):
            yield f'{come}iifname != "lo" {test} fib daddr type local {strangers} jump limit{version}'


def _interface_match(plan: FirewallPlan, key: str) -> str:
    """Return the match for the interfaces of ``plan``, "" if it names none; ``key`` is iifname or oifname."""
    if not plan.interfaces:
        return ""
    for name in plan.interfaces:
        if not name or any(c in '"{}\\' or not c.isprintable() or c.isspace() for c in name):
            raise FirewallError(f"{name!r} is not a valid interface name")
    names = ", ".join(f'"{name}"' for name in dict.fromkeys((*plan.interfaces, "lo")))
    return f"{key} {{ {names} }} "
