"""The static ruleset of table ``inet ringfence``, as text for ``nft -f -``: a pure function of the plan.

One transaction puts it in, heals it, and replaces it by that of another plan: ``flush table`` takes the rules
away and leaves the sets with all that they hold, and packets meet the old rules until they meet the new.

    prerouting (raw)  from4, from6: what comes from the banned; to4, to6: what is routed to them;
                      the limiter; the log rule for the wire
    output (raw)      to4, to6, the log rule

raw is before connection tracking, so an established flow is cut too, and a container behind DNAT is covered.
The order is the contract's. Whom ``allow4`` and ``allow6`` name never comes to the drops, and is not accepted
either: what is said to them still reaches the log rule, and the administrator's own rules.

* **Prefixes.** A ban is an element of a hash set for its length (``ip saddr & 255.255.255.0 @ban4_24``):
  interval sets refuse overlaps, and to list 100 000 of them takes the kernel 4 s in place of 0.4. Each length
  costs every packet a lookup, so only those that people use are there from the start; any other comes with
  its rules when it is first banned. ``size`` counts for each length by itself.
* **Scopes.** ``sip4_32`` and its like hold the bans of what a forged datagram can ask for: they meet UDP
  from and to the SIP ports alone. With ``every_port`` false a full ban, and the list of those who are denied,
  meet the SIP ports only, and ``PROBE_PORT``, by which it is tried whether bans work.
* **Interfaces** limit what is dropped. The loopback interface is among them always: nothing that is banned
  lives there, and it is where bans are tried. Prerouting does not know by which interface a packet will
  leave: where interfaces are named what is routed to the banned is dropped in forward.
* **Verdicts.** A reject cannot stand in raw on every kernel, so it stands before the administrator's filter
  (input and forward), and raw lets the banned in as far as that. The ICMP or RST that it makes passes by our
  own drop on the way out, and so does an RST or an ICMP error of this host itself: neither answers a guess.
  Behind DNAT the ports are then those of the container.
* **The limiter** looks at what is for this host (a container's own calls are none of its business), from
  sources that are no friends. It counts packets, and for TCP also bytes, of which the rate and the burst
  are 300 a packet: one TCP segment may carry many guesses, and with GRO one packet of 64 kB more than a
  hundred, while no guess is shorter than 300 bytes. Its tables hold a million sources for ten seconds. When
  one is full new sources pass unlimited, and are counted (``no_room``): forged sources can bring that about.
* **The log rule** reads the first bytes of a datagram, "SIP/2.0 401" or "SIP/2.0 407". In prerouting stand
  the answers of bridged containers, and among them whatever the world sends: there a packet counts only where
  it is to be routed on (not a provider's 401 to this host) and came by the way that leads back to its sender
  (not a stranger's under a container's address). It is never limited to interfaces.

Counters have names, so that they outlive the rules. Nothing from outside comes into the text but the names of
interfaces, which may hold no quote (a name that does is refused).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from ipaddress import IPv4Network, IPv6Network

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.firewall.contract import PROBE_PORT, LimitMode, Plan, Ports, Verdict
from ringfence.model import Scope

TABLE = "ringfence"
MARK = "ringfence "
VERSIONS = (4, 6)
BITS: Mapping[int, int] = {4: 32, 6: 128}
# What people ban: addresses and /64s, and what registries hand out and whois prints.
USUAL: Mapping[int, tuple[int, ...]] = {4: (32, 24, 16, 8), 6: (128, 64, 56, 48, 32)}
COUNTERS: Mapping[str, str] = {
    "from_banned": "from banned addresses",
    "to_banned": "to banned addresses",
    "from_denied": "from denied networks",
    "to_denied": "to denied networks",
    "over_limit": "over the limit",
    "no_room": "without room in the limiter",
}
RATE_SIZE = 1_000_000
# Who is over the limit is read every second, between two bans: 4 096 take some 30 ms of CPU, 65 536 took 600.
# Whoever finds no room is limited all the same, and is told of once others have stopped.
FLOOD_SIZE = 4_096
LIMIT_SECONDS = 10
GUESS = 300  # bytes: no guess is shorter, with its headers
_SCOPES = {Scope.FULL: "ban", Scope.SIP_UDP: "sip"}
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_WORDS = {4: "ip", 6: "ip6"}
_REJECTS = {
    Verdict.PORT_UNREACHABLE: ("reject with icmpx port-unreachable",),
    Verdict.ADMIN_PROHIBITED: ("reject with icmpx admin-prohibited",),
    Verdict.TCP_RESET: ("meta l4proto tcp reject with tcp reset", "drop"),
}
_PASSING = {
    Verdict.PORT_UNREACHABLE: ("icmp type destination-unreachable", "icmpv6 type destination-unreachable"),
    Verdict.ADMIN_PROHIBITED: ("icmp type destination-unreachable", "icmpv6 type destination-unreachable"),
    Verdict.TCP_RESET: ("tcp flags & rst == rst",),
}
_CHALLENGE = "meta l4proto udp @th,64,88 { 0x5349502f322e3020343031, 0x5349502f322e3020343037 }"
_TO_BE_ROUTED = "fib saddr . iif oif != 0 fib daddr type unicast"
_RAW, _BEFORE_FILTER = -300, -10
_LOG = 'limit rate 5/second burst 5 packets log prefix "ringfence: "'


@frozen
class BanSet:
    """What a set of bans is for: a scope, an IP version, a prefix length."""

    scope: Scope
    version: int
    length: int

    @property
    def name(self) -> str:
        """The set's name in the table, such as ``ban4_24``."""
        return f"{_SCOPES[self.scope]}{self.version}_{self.length}"

    @classmethod
    def read(cls, name: str) -> "BanSet | None":
        """Read a set's name; None where it is not that of a set of bans."""
        return _by_name().get(name)


@cache
def _by_name() -> Mapping[str, BanSet]:
    """Give every set of bans that there may be, by its name: names are read every second."""
    every = (
        BanSet(scope, version, length)
        for scope in Scope
        for version, bits in BITS.items()
        for length in range(1, bits + 1)
    )
    return {one.name: one for one in every}


@frozen
class Chain:
    """One chain's rules; ``hook`` and ``priority`` are None where packets come to it by other chains."""

    name: str
    rules: tuple[str, ...]
    hook: str | None = None
    priority: int | None = None


@frozen
class Ruleset:
    """The ruleset of one plan: its sets, its chains, and the mark that its first rule bears."""

    sets: Mapping[str, str]
    chains: tuple[Chain, ...]
    mark: str


def usual_sets() -> frozenset[BanSet]:
    """Give the sets of bans that are there from the start."""
    return frozenset(
        BanSet(scope, version, length) for scope in Scope for version in VERSIONS for length in USUAL[version]
    )


def ruleset(plan: Plan, bans: Iterable[BanSet]) -> Ruleset:
    """Build the ruleset of ``plan`` with these sets of bans."""
    ordered = sorted(bans, key=lambda one: (one.scope.value, one.version, -one.length))
    sets = {one.name: _ban_set(one, plan.maxelem) for one in ordered} | _fixed_sets(plan)
    chains = tuple(_chains(plan, ordered))
    mark = hashlib.sha256(repr((sorted(sets.items()), chains)).encode()).hexdigest()[:16]
    return Ruleset(sets, chains, f"{MARK}{mark}")


def text_of(rules: Ruleset, *, stale: Iterable[str] = ()) -> str:
    """Write ``rules`` for ``nft -f -``; the chains ``stale`` are taken away before."""
    lines = [f"add table inet {TABLE}", f"flush table inet {TABLE}"]
    lines += [f"delete chain inet {TABLE} {name}" for name in stale]
    lines.append(f"table inet {TABLE} {{")
    lines += [f"  counter {name} {{ }}" for name in COUNTERS]
    lines += [f"  set {name} {{ {body} }}" for name, body in rules.sets.items()]
    for place, chain in enumerate(rules.chains):
        lines.append(f"  chain {chain.name} {{")
        if chain.hook is not None:
            lines.append(f"    type filter hook {chain.hook} priority {chain.priority}; policy accept;")
        marks = [
            f' comment "{rules.mark}"' if not (place or number) else "" for number in range(len(chain.rules))
        ]
        lines += [f"    {rule}{mark}" for rule, mark in zip(chain.rules, marks, strict=True)]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _ban_set(one: BanSet, size: int) -> str:
    return f"type {_TYPES[one.version]}; flags timeout; counter; size {size};"


def _fixed_sets(plan: Plan) -> dict[str, str]:
    """Give the sets beside those of bans, as they are declared."""
    sets = {}
    for version in VERSIONS:
        for roll in ("allow", "deny", "friends"):
            sets[f"{roll}{version}"] = f"type {_TYPES[version]}; flags interval;"
        if plan.limit.mode is not LimitMode.OFF:
            body = f"type {_TYPES[version]}; flags dynamic,timeout; timeout {LIMIT_SECONDS}s; size"
            sets[f"rate{version}"] = sets[f"bytes{version}"] = f"{body} {RATE_SIZE};"
            sets[f"flood{version}"] = f"{body} {FLOOD_SIZE};"
    return sets


def _chains(plan: Plan, bans: list[BanSet]) -> Iterator[Chain]:
    """Give the chains, each behind those that it names."""
    log = (_LOG,) if plan.log else ()
    verdict = _REJECTS.get(plan.verdict, ("drop",))
    for side, last in (("from", verdict), ("to", ("drop",))):
        for why in ("banned", "denied"):
            yield Chain(f"{side}_{why}", (f'counter name "{side}_{why}"', *log, *last))
        for version in VERSIONS:
            yield from _looking(plan, side, version, [one for one in bans if one.version == version])
    if plan.limit.mode is not LimitMode.OFF:
        for version in VERSIONS:
            yield from _limiting(plan, version, log)
    yield from _bases(plan)


def _looking(plan: Plan, side: str, version: int, bans: list[BanSet]) -> Iterator[Chain]:
    """Give the chains that look a packet's address up."""
    word = _WORDS[version]
    address = f"{word} {'saddr' if side == 'from' else 'daddr'}"
    found: dict[Scope, list[str]] = {scope: [] for scope in Scope}
    for one in bans:
        found[one.scope].append(f"{_masked(address, one)} @{one.name} goto {side}_banned")
    found[Scope.FULL].append(f"{address} @deny{version} goto {side}_denied")
    for scope, rules in found.items():
        yield Chain(f"{side}{version}_{_SCOPES[scope]}", tuple(rules))
    ports, port = plan.sip_ports, "dport" if side == "from" else "sport"
    if plan.every_port:
        full: list[str] = [""]
    else:
        trying = Ports(tuple(sorted({*ports.udp, PROBE_PORT})), ports.tcp)
        full = [f"{test} " for test in _port_tests(trying, port)]
    sip = [f"{test} " for test in _port_tests(Ports(ports.udp, ()), port)]
    yield Chain(
        f"{side}{version}",
        (
            *(f"{test}jump {side}{version}_ban" for test in full),
            *(f"{test}jump {side}{version}_sip" for test in sip),
        ),
    )


def _masked(address: str, one: BanSet) -> str:
    bits = BITS[one.version]
    if one.length == bits:
        return address
    network = IPv4Network if bits == BITS[4] else IPv6Network
    return f"{address} & {network((0, one.length)).netmask}"


def _port_tests(ports: Ports, port: str) -> list[str]:
    """Give the tests for a packet from or to one of ``ports``: a packet passes one of them at most."""
    return [
        f"{protocol} {port} {{ {', '.join(map(str, numbers))} }}"
        for protocol, numbers in (("udp", ports.udp), ("tcp", ports.tcp))
        if numbers
    ]


def _limiting(plan: Plan, version: int, log: tuple[str, ...]) -> Iterator[Chain]:
    limit, source = plan.limit, f"{_WORDS[version]} saddr"
    if version == 6:  # noqa: PLR2004 - IPv6, where a source is a /64
        source += " & ffff:ffff:ffff:ffff::"
    dropping = (*log, "drop") if limit.mode is LimitMode.ENFORCE else ()
    yield Chain(
        f"over{version}",
        ('counter name "over_limit"', f"update @flood{version} {{ {source} counter }}", *dropping),
    )
    # The kernel's bucket of bytes holds rate and burst together, that of packets the burst alone.
    packets = f"limit rate over {limit.rate}/second burst {limit.burst} packets"
    more = max(limit.burst - limit.rate, 0) * GUESS
    octets = f"limit rate over {limit.rate * GUESS} bytes/second burst {more} bytes"
    over = f"goto over{version}"
    yield Chain(
        f"limit{version}",
        (
            f"update @rate{version} {{ {source} {packets} }} {over}",
            f"meta l4proto tcp update @bytes{version} {{ {source} {octets} }} {over}",
            f'{source} != @rate{version} counter name "no_room"',
        ),
    )


def _bases(plan: Plan) -> Iterator[Chain]:
    """Give the chains that packets come to by themselves."""
    rejecting = plan.verdict in _REJECTS
    come = _on(plan, "iifname")
    entering = tuple(f"{come}{_WORDS[v]} saddr != @allow{v} jump from{v}" for v in VERSIONS)
    leaving = tuple(f"{_on(plan, 'oifname')}{_WORDS[v]} daddr != @allow{v} jump to{v}" for v in VERSIONS)
    prerouting = () if rejecting else entering
    if not plan.interfaces:
        prerouting += leaving
    prerouting += tuple(_to_the_limiter(plan, come))
    output = (*(f"{test} accept" for test in _PASSING.get(plan.verdict, ())), *leaving)
    if plan.log_group is not None:
        wire = f"{_CHALLENGE} log group {plan.log_group}"
        prerouting, output = (*prerouting, f"{_TO_BE_ROUTED} {wire}"), (*output, wire)
    yield Chain("prerouting", prerouting, "prerouting", _RAW)
    yield Chain("output", output, "output", _RAW)
    if rejecting:
        yield Chain("input", entering, "input", _BEFORE_FILTER)
    forward = (*(entering if rejecting else ()), *(leaving if plan.interfaces else ()))
    if forward:
        yield Chain("forward", forward, "forward", _BEFORE_FILTER)


def _to_the_limiter(plan: Plan, come: str) -> Iterator[str]:
    """Give the rules that have strangers' packets to the SIP ports of this host counted."""
    if plan.limit.mode is LimitMode.OFF:
        return
    for version in VERSIONS:
        word = _WORDS[version]
        strangers = f"{word} saddr != @allow{version} {word} saddr != @friends{version}"
        for test in _port_tests(plan.sip_ports, "dport"):
            yield f'{come}iifname != "lo" {test} fib daddr type local {strangers} jump limit{version}'


def _on(plan: Plan, key: str) -> str:
    """Give the test for the interfaces of ``plan``."""
    if not plan.interfaces:
        return ""
    for name in plan.interfaces:
        if not name or any(c in '"{}\\' or not c.isprintable() or c.isspace() for c in name):
            raise FirewallError(f"{name!r} is no name of an interface")
    names = ", ".join(f'"{name}"' for name in dict.fromkeys((*plan.interfaces, "lo")))
    return f"{key} {{ {names} }} "
