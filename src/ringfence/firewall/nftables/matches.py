"""The rules of the stages (``firewall/stages.py``) in the notation of nft, and the matches they consist of.

``@ih`` is the data after the TCP header, with any options (kernel 5.16, nft 1.0.1). If the kernel or ``nft``
refuses it, only segments with headers of 20 and of 32 bytes (with timestamps) are compared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from itertools import product

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.firewall import network_lists, stages
from ringfence.firewall.contract import BanAction, FirewallPlan
from ringfence.firewall.limits import NEAR_LENGTHS, Key
from ringfence.firewall.ports import PROTOCOLS, Ports
from ringfence.firewall.stages import Do, Hook, Is, Side
from ringfence.values.ban import Scope
from ringfence.values.network import VERSIONS, Network

KEYWORDS = {4: "ip", 6: "ip6"}
FAMILIES = {4: "ipv4", 6: "ipv6"}
SCOPES = {Scope.FULL: "ban", Scope.SIP: "asterisk", Scope.SIP_UDP: "sip", Scope.SIP_TCP: "tcp"}
HEADERS = (5, 8)  # TCP data offsets, in words of 32 bits
FRAGMENT_TESTS = {4: "ip frag-off & 0x3fff != 0", 6: "exthdr frag exists"}
TO_THIS_HOST = "fib daddr type local"
STATUS_LINE = f"0x{b'SIP/2.0 '.hex()}"
_SIP = f"0x{b'SIP/'.hex()}"
_REJECTIONS = {
    BanAction.PORT_UNREACHABLE: ("icmp type destination-unreachable", "icmpv6 type destination-unreachable"),
    BanAction.ADMIN_PROHIBITED: ("icmp type destination-unreachable", "icmpv6 type destination-unreachable"),
    BanAction.TCP_RESET: ("tcp flags & rst == rst",),
}
_FIXED = {
    Is.UDP: "meta l4proto udp",
    Is.TCP: "meta l4proto tcp",
    Is.TO_HOST: TO_THIS_HOST,
    Is.ELSEWHERE: "fib daddr type != local",
    Is.ROUTED: "fib saddr . iif oif != 0 fib daddr type unicast",
    Is.SYN: "tcp flags & syn == syn",
    Is.SYN_ACK: "tcp flags & (syn | ack) == syn | ack",
    Is.NEW: "ct state new,untracked",
    Is.NO_REPLY: "ct state new,established,untracked",
    Is.REPLY: "ct direction reply",
}
_UDP_HEADER = 8  # bytes
_MOST_COMPARED = 16  # bytes in one comparison
LOG = 'limit rate 5/second burst 5 packets log prefix "ringfence: "'
"""The nft statements that log a few of the dropped packets."""


@frozen
class Matches:
    """Writes the rules of a plan in nft's notation.

    ``lists`` has the names of the list sets by list and IP version (``allow4``). ``inner``: the rules use
    ``@ih``, the data after the TCP header.
    """

    plan: FirewallPlan
    lists: Mapping[str, str]
    inner: bool

    def name_of(self, hook: Hook) -> str:
        """Return the name of the chain at ``hook``.

        It differs if the plan rejects packets, so that a plan that drops them before deletes the chain. A
        packet on its way, which the old rules let pass there, meets the old rules here too.
        """
        rejects = self.plan.action is not BanAction.DROP
        return f"{hook}_reject" if rejects and hook in (Hook.INPUT, Hook.FORWARD) else hook.value

    def at(self, steps: Sequence[stages.Stage], hook: Hook) -> dict[str, tuple[str, ...]]:
        """Return the rules at ``hook`` by chain, each chain after those to which it jumps; {} without rules.

        The last chain is that of the hook. It tells the IP versions apart, and the chain of a version makes
        the test of a run (:func:`stages.runs`).

        No verdict map tells them apart. A packet that is on its way while the rules are replaced would find
        nothing in a map of the old rules, and a banned sender could get through.
        """
        found: dict[str, tuple[str, ...]] = {}
        jumps = []
        for version, family in FAMILIES.items():
            chain = f"{self.name_of(hook)}{version}"
            rules = stages.rules_at(steps, hook, self.plan, version)
            if self._write(chain, rules, version, found):
                jumps.append(f"meta nfproto {family} goto {chain}")
        return found | ({self.name_of(hook): tuple(jumps)} if jumps else {})

    def _write(
        self,
        name: str,
        rules: Sequence[stages.SidedRule],
        version: int,
        chains: dict[str, tuple[str, ...]],
    ) -> bool:
        """Add the chain ``name`` with ``rules``, and those to which it jumps; return whether it has rules."""
        texts: list[str] = []
        for number, (test, run) in enumerate(stages.runs(rules)):
            inner = f"{name}_{number}"
            if isinstance(test, Side):
                texts += self._by_port(inner, run, version, chains)
            elif test is None:
                texts += [text for side, rule in run for text in self._texts(rule, side, version)]
            elif self._write(inner, run, version, chains):
                texts += [f"{match} jump {inner}" for match in self._simple(test, Side.TO, version)]
        if texts:
            chains[name] = tuple(texts)
        return bool(texts)

    def _by_port(
        self,
        name: str,
        run: Sequence[stages.SidedRule],
        version: int,
        chains: dict[str, tuple[str, ...]],
    ) -> Iterator[str]:
        """Yield a rule for each protocol that tells the ports of a run apart; add the chains behind them.

        Their names begin with ``name``.
        """
        for protocol in PROTOCOLS:
            of = [(side, rule, numbers) for side, rule in run if (numbers := _numbers(rule, protocol))]
            every = tuple(sorted({number for *_, numbers in of for number in numbers}))
            texts = [
                text if numbers == every else f"{_port_test(protocol, side, numbers)} {text}"
                for side, rule, numbers in of
                for text in self._texts(rule, side, version, rule.ports)
            ]
            if texts:
                chains[f"{name}_{protocol}"] = tuple(texts)
                yield f"{_port_test(protocol, run[0][0], every)} jump {name}_{protocol}"

    def chains(self, steps: Iterable[stages.Stage]) -> Mapping[str, list[str]]:
        """Return the rules of each chain of ``steps``, by name; a chain follows those to which it jumps."""
        return {
            f"{chain.name}{version}": [
                text for rule in chain.rules for text in self._texts(rule, stage.side, version)
            ]
            for version in VERSIONS
            for stage in steps
            for chain in stage.chains
        }

    def _texts(
        self, rule: stages.PacketRule, side: Side, version: int, known: stages.Test | None = None
    ) -> Iterator[str]:
        """Yield the texts of a rule whose packets all match ``known``."""
        for tests in self._tests([test for test in rule.tests if test is not known], side, version):
            for act in self._acts(rule, side, version):
                yield f"{tests} {act}".lstrip()

    def _tests(self, tests: Sequence[stages.Test], side: Side, version: int) -> Iterator[str]:
        """Yield each combination of one match of each of ``tests``, in nft's notation."""
        yield from map(" ".join, product(*(self._matches(test, side, version) for test in tests)))

    def _acts(self, rule: stages.PacketRule, side: Side, version: int) -> Iterator[str]:
        """Yield what ``rule`` does with a packet, as statements of nft; each becomes a rule of its own."""
        match rule.act:
            case stages.Jump(name, shared=shared):
                yield f"jump {name}{'' if shared else version}"
            case stages.Drop(name, rejects=rejects):
                yield f"{'goto' if rejects else 'jump'} {name}"
            case stages.Copy(prefix, size, group):
                marked = f'prefix "{prefix}" ' if prefix else ""
                yield f"log {marked}group {group or self.plan.log_group}{f' snaplen {size}' if size else ''}"
            case stages.Remember(table):
                flow = table.key is Key.FLOW
                do, counter = "update" if table.renews or flow else "add", "" if flow else " counter"
                yield f"{do} @{table.name}{version} {{ {counted(version, side, table.key)}{counter} }}"
            case stages.Goto(chain):
                yield f"goto {chain.name}{version}"
            case stages.Shorten(size):
                yield f"tcp option maxseg size set {size}"
            case stages.Meter() as meter:
                yield from _meter(meter, side, version)
            case stages.Count(counter, drops):
                yield f'counter name "{counter}"'
                yield from ([LOG] if drops and self.plan.log else [])
                yield from (["drop"] if drops else [])
            case stages.LookUp(scope):
                yield f"jump {side}{version}_{SCOPES[scope]}"
            case _:
                yield {Do.ACCEPT: "accept", Do.RETURN: "return"}[rule.act]

    def _matches(self, test: stages.Test, side: Side, version: int) -> Sequence[str]:
        """Return the matches of ``test`` in nft's notation; each needs a rule of its own."""
        match test:
            case Is():
                return self._simple(test, side, version)
            case Ports():
                return [_port_test(one, side, test.of(one)) for one in PROTOCOLS if test.of(one)]
            case stages.AnyOf(tests):
                return [one for part in tests for one in self._matches(part, side, version)]
            case stages.On() | stages.NotOn() | stages.Containers() | stages.Has():
                return [self._of_address(test, side, version)]
            case _:
                return [*self._contents(test, version)]

    def _simple(self, test: Is, side: Side, version: int) -> Sequence[str]:
        if test is Is.REJECTION:
            return _REJECTIONS[self.plan.action]
        if test is Is.EMPTY:
            return [*_without_data(version)]
        if test is Is.CLIENT_FRAME:
            mask, value = stages.CLIENT_FRAME
            found = data(inner=self.inner)
            return [
                f"{header}@{base},{begin},16 & {mask:#06x} == {value:#06x}" for header, base, begin in found
            ]
        name = "iifname" if side is Side.FROM else "oifname"
        looped = {
            Is.OUTER: f'{name} != "lo"',
            Is.LOOPED: f'{name} "lo"',
            Is.FRAGMENT: FRAGMENT_TESTS[version],
            Is.ONE_FRAME: "ip length <= 1500" if version == VERSIONS[0] else "ip6 length <= 1460",
        }
        return [_interfaces(self.plan, name) if test is Is.NAMED else {**_FIXED, **looped}[test]]

    def _of_address(
        self, test: stages.On | stages.NotOn | stages.Containers | stages.Has, side: Side, version: int
    ) -> str:
        address = _address(side, version)
        match test:
            case stages.On(which):
                return f"{address} @{self.lists[f'{which}{version}']}"
            case stages.NotOn(which):
                names = (self.lists[f"{one}{version}"] for one in network_lists.every() if one in which)
                return " ".join(f"{address} != @{name}" for name in names)
            case stages.Has(table, known):
                return f"{counted(version, side, table.key)} {'' if known else '!= '}@{table.name}{version}"
            case stages.Containers(hosts):
                way, routed = ("daddr", "") if side is Side.FROM else ("saddr", f" {_FIXED[Is.ROUTED]}")
                return f"{KEYWORDS[version]} {way} {{ {', '.join(map(str, hosts))} }}{routed}"

    def _contents(
        self,
        test: stages.Datagram | stages.Segment | stages.Bytes | stages.Begins | stages.ClientHello,
        version: int,
    ) -> Iterator[str]:
        match test:
            case stages.Datagram(texts, others):
                # The first comparison needs no look-up, and most packets of media end there.
                first = f"@th,64,64 {STATUS_LINE} @th,64,88 !=" if others else f"@th,64,32 {_SIP} @th,64,88"
                yield f"{first} {text_set(texts)}"
            case stages.Segment(texts, framed):
                yield from (beginnings if framed else _starts)(texts, inner=self.inner)
            case stages.ClientHello(size):
                for header, base, begin in data(inner=self.inner):
                    short = f"{KEYWORDS[version]} length <= {size} {header}"
                    yield f"{short}@{base},{begin},16 0x1603 @{base},{begin + 40},8 0x01"
            case stages.Begins(text):
                yield f"@th,64,{8 * len(text)} 0x{text.hex()}"
            case stages.Bytes(at, size, values, among):
                found = str(values[0]) if size == 1 else f"{{ {', '.join(map(str, values))} }}"
                yield f"@th,{8 * (_UDP_HEADER + at)},{8 * size} {'' if among else '!= '}{found}"


def _meter(meter: stages.Meter, side: Side, version: int) -> Iterator[str]:
    table = meter.table
    key, name = counted(version, side, table.key), f"@{table.name}{version}"
    time = f" timeout {meter.seconds}s" if meter.seconds != table.seconds else ""
    limit = (over_bytes if meter.in_bytes else over)(meter.rate, meter.burst)
    yield f"update {name} {{ {key}{time} {limit} }} goto {meter.over.name}{version}"
    if meter.full:
        yield f'{key} != {name} counter name "{meter.full}"'


def _address(side: Side, version: int) -> str:
    return f"{KEYWORDS[version]} {'saddr' if side is Side.FROM else 'daddr'}"


def counted(version: int, side: Side, key: Key = Key.SENDER) -> str:
    """Return nft's expression for the key by which packets are counted, such as the source address."""
    address = _address(side, version)
    if key is Key.FLOW:
        return f"{address} . th {'sport' if side is Side.FROM else 'dport'}"
    if key is Key.NEAR:
        return f"{address} & {network_of(version, NEAR_LENGTHS[version]).netmask}"
    whole = version == VERSIONS[0] or key is Key.ADDRESS
    return address if whole else f"{address} & ffff:ffff:ffff:ffff::"


def over(rate: int, burst: int) -> str:
    """Return nft's limit that matches packets over ``rate`` a second, after ``burst`` at once."""
    return f"limit rate over {rate}/second burst {burst} packets"


def over_bytes(rate: int, burst: int) -> str:
    """Return nft's limit that matches packets over ``rate`` bytes a second, after ``burst`` bytes at once.

    The kernel adds the rate to the burst of a byte limit, but not to that of a packet limit. So the rate is
    subtracted from the burst here.
    """
    return f"limit rate over {rate} bytes/second burst {max(burst - rate, 0)} bytes"


def _interfaces(plan: FirewallPlan, key: str) -> str:
    """Return nft's match of loopback and the interfaces in ``plan``; ``key`` is iifname or oifname.

    Raise FirewallError if a name in the plan cannot be that of an interface.
    """
    for name in plan.interfaces:
        if not name or any(c in '"{}\\' or not c.isprintable() or c.isspace() for c in name):
            raise FirewallError(f"{name!r} is not a valid interface name")
    names = ", ".join(f'"{name}"' for name in dict.fromkeys((*plan.interfaces, "lo")))
    return f"{key} {{ {names} }}"


def _numbers(rule: stages.PacketRule, protocol: str) -> tuple[int, ...]:
    return rule.ports.of(protocol) if rule.ports else ()


def _port_test(protocol: str, side: Side, numbers: Iterable[int]) -> str:
    way = "dport" if side is Side.FROM else "sport"
    return f"{protocol} {way} {{ {', '.join(map(str, numbers))} }}"


def text_set(texts: Sequence[bytes]) -> str:
    """Return ``texts`` as a set of hexadecimal values, in nft's notation."""
    return f"{{ {', '.join(f'0x{text.hex()}' for text in texts)} }}"


def data(*, inner: bool) -> Iterator[tuple[str, str, int]]:
    """Yield where a TCP segment's data begins: a match of its header, nft's base, and the offset in bits.

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
    """Yield the matches, in nft's notation, of TCP segments whose data begins with one of ``texts``."""
    for text in texts:
        parts = [(at, text[at : at + _MOST_COMPARED]) for at in range(0, len(text), _MOST_COMPARED)]
        for header, base, begin in data(inner=inner):
            found = (f"@{base},{begin + 8 * at},{8 * len(part)} 0x{part.hex()}" for at, part in parts)
            yield f"{header}{' '.join(found)}"


def _without_data(version: int) -> Iterator[str]:
    """Yield the matches of TCP segments without data, for both usual lengths of TCP's header."""
    for words in HEADERS:
        ipv4 = version == VERSIONS[0]
        length = f"ip length {20 + 4 * words}" if ipv4 else f"ip6 length {4 * words}"
        yield f"tcp doff {words} {length}"


def network_of(version: int, length: int) -> Network:
    """Return the network 0.0.0.0 or :: with a prefix of this length: its mask is used."""
    return (IPv4Network if version == 4 else IPv6Network)((0, length))  # noqa: PLR2004 - IPv4
