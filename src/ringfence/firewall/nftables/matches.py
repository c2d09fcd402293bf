"""The rules of the stages (``firewall/stages.py``) in the notation of nft, and the matches they consist of.

``@ih`` is the data after the TCP header, with any options (kernel 5.16, nft 1.0.1). If the kernel or ``nft``
refuses it, only segments with headers of 20 and of 32 bytes (with timestamps) are compared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from itertools import groupby, product

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.firewall import stages
from ringfence.firewall.contract import BanAction, FirewallPlan
from ringfence.firewall.limits import SEGMENT
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.ports import Ports
from ringfence.firewall.stages import Do, Hook, Is, Side
from ringfence.values.network import Network

KEYWORDS = {4: "ip", 6: "ip6"}
FAMILIES = {4: "ipv4", 6: "ipv6"}
HEADERS = (5, 8)  # TCP data offsets, in words of 32 bits
FRAGMENT_TESTS = {4: "ip frag-off & 0x3fff != 0", 6: "exthdr frag exists"}
TO_THIS_HOST = "fib daddr type local"
STATUS_LINE = f"0x{b'SIP/2.0 '.hex()}"
_REJECTIONS = {
    BanAction.PORT_UNREACHABLE: ("icmp type destination-unreachable", "icmpv6 type destination-unreachable"),
    BanAction.ADMIN_PROHIBITED: ("icmp type destination-unreachable", "icmpv6 type destination-unreachable"),
    BanAction.TCP_RESET: ("tcp flags & rst == rst",),
}
_FIXED = {
    Is.UDP: "meta l4proto udp",
    Is.TO_HOST: TO_THIS_HOST,
    Is.ROUTED: "fib saddr . iif oif != 0 fib daddr type unicast",
    Is.SYN_ACK: "tcp flags & (syn | ack) == syn | ack",
    Is.NEW: "ct state new,untracked",
    Is.NO_REPLY: "ct state new,established,untracked",
}
_UDP_HEADER = 8  # bytes

_Rule = tuple[Ports | None, Side, str]
"""A rule: the ports of this host to or from which it applies, the side of the remote address, its text."""


@frozen
class Matches:
    """The notation of a plan's rules.

    ``lists`` has the names of the list sets by list and IP version (``allow4``). ``inner``: the rules use
    ``@ih``.
    """

    plan: FirewallPlan
    lists: Mapping[str, str]
    inner: bool

    def chains(self, steps: Sequence[stages.Stage], hook: Hook) -> dict[str, tuple[str, ...]]:
        """Return the rules at ``hook`` by chain, each chain after those to which it jumps; {} without rules.

        The last chain is that of the hook. It tells the IP versions apart. The chain of a version tells the
        ports apart, so that a packet of media meets only the rules for all ports.

        No verdict map tells them apart. A packet that is on its way while the rules are replaced would find
        nothing in a map of the old rules, and a banned sender could get through.
        """
        found: dict[str, tuple[str, ...]] = {}
        jumps = []
        for version, family in FAMILIES.items():
            chain, rules = f"{hook}{version}", []
            runs = groupby(self._rules(steps, hook, version), key=_side_of_ports)
            for number, (side, run) in enumerate(runs):
                if side is None:
                    rules += [rule for _, _, rule in run]
                else:
                    rules += _by_port(f"{chain}_{number}", side, run, found)
            if rules:
                found[chain] = tuple(rules)
                jumps.append(f"meta nfproto {family} jump {chain}")
        return found | ({hook.value: tuple(jumps)} if jumps else {})

    def _rules(self, steps: Iterable[stages.Stage], hook: Hook, version: int) -> Iterator[_Rule]:
        for stage in steps:
            for rule in stage.rules_at(hook, self.plan, version):
                ports = next((test for test in rule.tests if isinstance(test, Ports)), None)
                tests = [test for test in rule.tests if not isinstance(test, Ports)]
                acts = [(ports, self._act(rule, stage.side, version))]
                if rule.act is Do.LOOK_UP:
                    acts = [
                        (of, f"jump {stage.side}{version}_{one}") for one, of in self.plan.covered.items()
                    ]
                for of, act in acts:
                    for text in self._tests(tests, stage.side, version):
                        yield of, stage.side, f"{text} {act}".lstrip()

    def _tests(self, tests: Sequence[stages.PortlessTest], side: Side, version: int) -> Iterator[str]:
        """Yield each combination of the matches of ``tests``."""
        yield from map(" ".join, product(*(self._matches(test, side, version) for test in tests)))

    def _act(self, rule: stages.PacketRule, side: Side, version: int) -> str:
        match rule.act:
            case stages.Jump(name, shared=shared):
                return f"jump {name}{'' if shared else version}"
            case stages.Drop(name, rejects=rejects):
                return f"{'goto' if rejects else 'jump'} {name}"
            case stages.Copy(prefix, size):
                marked = f'prefix "{prefix}" ' if prefix else ""
                return f"log {marked}group {self.plan.log_group}{f' snaplen {size}' if size else ''}"
            case _:
                return {
                    Do.LOOK_UP: "",  # a rule for each scope
                    Do.SHORTEN: f"tcp option maxseg size set {SEGMENT}",
                    Do.KEEP: f"update @asked_websocket{version} {{ {_address(side, version)} . tcp dport }}",
                    Do.ACCEPT: "accept",
                }[rule.act]

    def _matches(self, test: stages.PortlessTest, side: Side, version: int) -> Sequence[str]:
        """Return the matches of a test: one rule for each."""
        match test:
            case Is():
                return self._simple(test, side, version)
            case stages.AnyOf(tests):
                return [one for part in tests for one in self._matches(part, side, version)]
            case stages.On() | stages.NotOn() | stages.Containers():
                return [self._of_address(test, side, version)]
            case _:
                return [*self._contents(test)]

    def _simple(self, test: Is, side: Side, version: int) -> Sequence[str]:
        if test is Is.REJECTION:
            return _REJECTIONS[self.plan.action]
        name = "iifname" if side is Side.FROM else "oifname"
        looped = {
            Is.OUTER: f'{name} != "lo"',
            Is.LOOPED: f'{name} "lo"',
            Is.FRAGMENT: FRAGMENT_TESTS[version],
        }
        return [_interfaces(self.plan, name) if test is Is.NAMED else {**_FIXED, **looped}[test]]

    def _of_address(
        self, test: stages.On | stages.NotOn | stages.Containers, side: Side, version: int
    ) -> str:
        address = _address(side, version)
        match test:
            case stages.On(which):
                return f"{address} @{self.lists[f'{which}{version}']}"
            case stages.NotOn(which):
                names = (self.lists[f"{one}{version}"] for one in NetworkList if one in which)
                return " ".join(f"{address} != @{name}" for name in names)
            case stages.Containers(hosts):
                way, routed = ("daddr", "") if side is Side.FROM else ("saddr", f" {_FIXED[Is.ROUTED]}")
                return f"{KEYWORDS[version]} {way} {{ {', '.join(map(str, hosts))} }}{routed}"

    def _contents(self, test: stages.Datagram | stages.Segment | stages.Bytes) -> Iterator[str]:
        match test:
            case stages.Datagram(texts, others):
                other = f"{STATUS_LINE} @th,64,88 != " if others else ""
                yield f"@th,64,{64 if others else 88} {other}{text_set(texts)}"
            case stages.Segment(texts, framed):
                yield from (beginnings if framed else _starts)(texts, inner=self.inner)
            case stages.Bytes(at, size, values, among):
                found = str(values[0]) if size == 1 else f"{{ {', '.join(map(str, values))} }}"
                yield f"@th,{8 * (_UDP_HEADER + at)},{8 * size} {'' if among else '!= '}{found}"


def _side_of_ports(rule: _Rule) -> Side | None:
    """Return the side of a rule for some ports; None if the rule is for all ports."""
    ports, side, _ = rule
    return None if ports is None else side


def _by_port(
    name: str, side: Side, rules: Iterable[_Rule], chains: dict[str, tuple[str, ...]]
) -> Iterator[str]:
    """Yield a rule for each protocol that tells its ports apart; add the chains to which it jumps.

    Their names begin with ``name``.
    """
    way, found = "dport" if side is Side.FROM else "sport", [*rules]
    for protocol in ("udp", "tcp"):
        of = [(numbers, text) for ports, _, text in found if (numbers := _numbers(ports, protocol))]
        every = tuple(sorted({port for numbers, _ in of for port in numbers}))
        texts = (
            text if numbers == every else f"{_port_test(protocol, way, numbers)} {text}"
            for numbers, text in of
        )
        if of:
            chains[f"{name}_{protocol}"] = tuple(dict.fromkeys(texts))
            yield f"{_port_test(protocol, way, every)} jump {name}_{protocol}"


def _numbers(ports: Ports | None, protocol: str) -> tuple[int, ...]:
    """Return the numbers of those ``ports`` that are of a protocol ("udp" or "tcp")."""
    ports = ports or Ports((), ())
    return ports.udp if protocol == "udp" else ports.tcp


def _port_test(protocol: str, way: str, numbers: Iterable[int]) -> str:
    return f"{protocol} {way} {{ {', '.join(map(str, numbers))} }}"


def _address(side: Side, version: int) -> str:
    return f"{KEYWORDS[version]} {'saddr' if side is Side.FROM else 'daddr'}"


def _interfaces(plan: FirewallPlan, key: str) -> str:
    """Return the match for the interfaces that ``plan`` names; ``key`` is iifname or oifname."""
    for name in plan.interfaces:
        if not name or any(c in '"{}\\' or not c.isprintable() or c.isspace() for c in name):
            raise FirewallError(f"{name!r} is not a valid interface name")
    names = ", ".join(f'"{name}"' for name in dict.fromkeys((*plan.interfaces, "lo")))
    return f"{key} {{ {names} }}"


def port_tests(ports: Ports, port: str) -> list[str]:
    """Return the matches for packets from (``port``: "sport") or to ("dport") ``ports``, one per protocol."""
    return [
        f"{protocol} {port} {{ {', '.join(map(str, numbers))} }}"
        for protocol, numbers in (("udp", ports.udp), ("tcp", ports.tcp))
        if numbers
    ]


def text_set(texts: Sequence[bytes]) -> str:
    """Return the texts as a set of values."""
    return f"{{ {', '.join(f'0x{text.hex()}' for text in texts)} }}"


def data(*, inner: bool) -> Iterator[tuple[str, str, int]]:
    """Yield where the data of a TCP segment begins: a match of its header, the base, and the offset in bits.

    ``inner``: it is the base ``@ih``.
    """
    if inner:
        yield "", "ih", 0
    else:
        yield from ((f"tcp doff {words} ", "th", 32 * words) for words in HEADERS)


def beginnings(texts: Sequence[bytes], *, inner: bool) -> Iterator[str]:
    """Yield the matches of segments that begin with one of ``texts``, bare or in a WebSocket text frame.

    Such a frame begins with 0x81, then a length below 126, or 126 and a length of 16 bits; a server does not
    mask (RFC 6455).
    """
    answers, bits = text_set(texts), 8 * len(texts[0])
    for header, base, begin in data(inner=inner):
        first, second = f"@{base},{begin},8", f"@{base},{begin + 8},8"
        yield f"{header}@{base},{begin},{bits} {answers}"
        yield f"{header}{first} 0x81 {second} 126 @{base},{begin + 32},{bits} {answers}"
        yield f"{header}{first} 0x81 {second} < 126 @{base},{begin + 16},{bits} {answers}"


def _starts(texts: Sequence[bytes], *, inner: bool) -> Iterator[str]:
    """Yield the matches of segments that begin with one of ``texts``, all of one length."""
    for text in texts:
        for header, base, begin in data(inner=inner):
            yield f"{header}@{base},{begin},{8 * len(text)} 0x{text.hex()}"


def network_of(version: int, length: int) -> Network:
    """Return the network 0.0.0.0 or :: with a prefix of this length: its mask is used."""
    return (IPv4Network if version == 4 else IPv6Network)((0, length))  # noqa: PLR2004 - IPv4
