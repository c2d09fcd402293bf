"""The rules of the stages (``firewall/stages.py``) in the notation of iptables-save.

The tests of a rule stand in a fixed order (``_ADDRESS`` and the next names). Where nftables has a set of
interfaces or addresses, iptables has a rule for each.

A drop rule for bans first looks an address up without counting the packet. Most packets end there. Then it
matches "not on the allow list", and looks up again, so the counter of a ban counts dropped packets only. For
a ban that exempts friends (``sets.py``), it also matches "not a friend" in between. For a list, the lists
that pass it are matched last, because most packets come from other networks. A rule without a counter of its
own drops the packets of the probe first (``contract.PROBE_NETWORKS``).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from operator import itemgetter

from attrs import evolve, frozen

from ringfence.firewall import network_lists, stages
from ringfence.firewall.contract import (
    FROM_BANNED,
    FROM_DENIED,
    PROBE_NETWORKS,
    TO_BANNED,
    TO_DENIED,
    BanAction,
    FirewallPlan,
)
from ringfence.firewall.ipset import matches
from ringfence.firewall.ipset.matches import IptablesRule
from ringfence.firewall.ipset.sets import (
    ban_set_name,
    friends_exempt_values,
    list_set_name,
    table_set_name,
)
from ringfence.firewall.limits import FRAME, Addition, Key
from ringfence.firewall.network_lists import PASSING
from ringfence.firewall.ports import PROTOCOLS, Ports
from ringfence.firewall.stages import Hook, Is, NotOn, On, Side
from ringfence.values.ban import Scope

DROP_CHAIN, REJECT_CHAIN, NARROW_CHAIN = "ringfence-drop", "ringfence-reject", "ringfence-narrow"
_IPV4 = 4
_UDP, _TCP = 17, 6
_UNIT = 160  # bytes
_MOST = 65_535  # bytes of a packet


_ADDRESS, _INTERFACE, _PORTS, _CONTENT, _OTHER_CONTENT, _WAY, _LIST = range(7)
"""The kinds of matches, in their order in a rule. ``_OTHER_CONTENT`` is what a packet must not contain."""
_Match = tuple[int, str]
_Test = stages.Test | tuple[_Match, ...]  # matches are a test too, of which one must match


@frozen
class _Rule:
    """A rule: the side of the remote address, the tests, the target with its options, and what it counts."""

    side: Side
    tests: Sequence[_Test]
    end: str
    kind: str = ""


_FIXED = {
    Is.UDP: (_PORTS, "-p udp "),
    Is.TCP: (_PORTS, "-p tcp "),
    Is.TO_HOST: (_WAY, matches.TO_THIS_HOST),
    Is.ELSEWHERE: (_WAY, matches.ELSEWHERE),
    Is.SYN: (_PORTS, "-p tcp -m tcp --tcp-flags SYN SYN "),
    Is.ONE_FRAME: (_CONTENT, "-m length --length 0:1500 "),
    Is.SYN_ACK: (_CONTENT, "-m tcp --tcp-flags SYN,ACK SYN,ACK "),
    Is.NEW: (_CONTENT, "-m conntrack --ctstate NEW,UNTRACKED "),
    Is.NO_REPLY: (_CONTENT, "-m conntrack --ctstate NEW,ESTABLISHED,UNTRACKED "),
    Is.REPLY: (_CONTENT, "-m conntrack --ctdir REPLY "),
}
_FRAGMENTS = {4: '-m u32 --u32 "0x4&0x3fff=0x1:0x3fff" ', 6: "-m ipv6header --header ipv6-frag --soft "}
# Matches and targets: iptables itself has udp, tcp, DROP and RETURN. The names of chains are not in capitals.
_EXTENSION = re.compile(r"-m (?!udp|tcp)(\w+)|-j (?!DROP|RETURN)([A-Z]+)")
_REMOTE = {Side.FROM: "src", Side.TO: "dst"}


@frozen
class StageRules:
    """Writes the iptables rules of a plan for one IP version, in the notation of iptables-save."""

    plan: FirewallPlan
    version: int

    @property
    def target(self) -> str:
        """The name of the iptables target that drops a packet: ours, which logs it first, or DROP."""
        return DROP_CHAIN if self.plan.log else "DROP"

    @property
    def rejects(self) -> bool:
        """Whether packets from banned addresses are rejected."""
        return self.plan.action is not BanAction.DROP

    def at(self, steps: Iterable[stages.Stage], hook: Hook, chain: str) -> dict[str, list[IptablesRule]]:
        """Return the rules of ``chain``, which is that of ``hook``, and of the chains to which it jumps.

        A run of rules that share a test (:func:`stages.runs`) has a chain of its own, unless it is one rule.
        """
        return self._written(chain, stages.rules_at(steps, hook, self.plan, self.version), hook)

    def _written(
        self, chain: str, rules: Sequence[stages.SidedRule], hook: Hook
    ) -> dict[str, list[IptablesRule]]:
        found: dict[str, list[IptablesRule]] = {chain: []}
        for number, (test, run) in enumerate(stages.runs(rules)):
            name = f"{chain}-{number}"
            if isinstance(test, Is):
                inner = self._written(name, run, hook)
                if inner[name]:
                    found |= inner
                    found[chain] += self._combined(_Rule(Side.TO, (test,), f"-j {name}"))
                continue
            every = [one for side, rule in run for one in self._rules(rule, side, hook)]
            if test is None:
                found[chain] += [text for rule in every for text in self._combined(rule)]
                continue
            for protocol in PROTOCOLS:
                ports, part = _of_protocol(every, protocol)
                texts = [text for rule in part for text in self._combined(rule)]
                if len(texts) > 1:
                    narrow = f"{name}-{protocol}"
                    known = (_known(rule, ports) for rule in part)
                    found[narrow] = [text for rule in known for text in self._combined(rule)]
                    texts = [*self._combined(_Rule(test, (ports,), f"-j {narrow}"))]
                found[chain] += texts
        return found

    def chains(self, stage: stages.Stage) -> dict[str, list[IptablesRule]]:
        """Return the rules of each chain of ``stage``, by the chain's name.

        No rule counts the packets that a full hashlimit table drops. So their number is computed
        (``installation.Family.counters``): the packets that entered the chain (a kind that begins with "+"),
        less those that left it, and so were over or within the limits (a kind that begins with "-").
        """
        found = {
            chain.iptables: [
                text
                for rule in chain.rules
                for one in self._plain_rules(rule, stage.side)
                for text in self._combined(one)
            ]
            for chain in stage.chains
            if not isinstance(chain.only_act, stages.Count)  # the act stands where others would jump to it
        }
        for chain in stage.chains:
            if chain.refuses:
                rules = [*found[chain.iptables], IptablesRule("-j RETURN")]
                found[chain.iptables] = [evolve(rule, kind=f"-{chain.refuses}") for rule in rules]
        return found

    def extensions(self, added: Addition) -> tuple[str, ...]:
        """Return the names of iptables extensions that the stages of ``added`` need; targets in capitals."""
        steps = [stage for stage in added.stages(self.plan) if stage.on]
        rules = [rule for hook in Hook for part in self.at(steps, hook, "").values() for rule in part]
        rules += [rule for stage in steps for chain in self.chains(stage).values() for rule in chain]
        found = (match or target for rule in rules for match, target in _EXTENSION.findall(rule.text))
        return tuple(dict.fromkeys(found))

    def _rules(self, rule: stages.PacketRule, side: Side, hook: Hook) -> Iterator[_Rule]:
        if isinstance(rule.act, stages.LookUp):
            before = [test for test in rule.tests if not isinstance(test, NotOn)]  # who is spared comes later
            yield from self._look_ups(
                rule.act.scope, before, side, spares=self.rejects and hook is Hook.LEAVING
            )
        elif rule.act is not stages.Do.ACCEPT:  # the look-ups leave out what is accepted
            yield from self._plain_rules(rule, side)

    def _plain_rules(self, rule: stages.PacketRule, side: Side) -> Iterator[_Rule]:
        for end, kind in self._acts(rule.act, side):
            yield _Rule(side, rule.tests, end, kind)

    def _combined(self, rule: _Rule) -> Iterator[IptablesRule]:
        """Yield a rule for each combination of one match of each test; all have the end of ``rule``."""
        tests = rule.tests
        if Is.NAMED in tests:  # nobody names the loopback interface
            tests = [test for test in tests if test is not Is.OUTER]
        ordered = sorted(tests, key=lambda test: test is Is.NAMED)
        for combined in product(*(self._matches(test, rule.side) for test in ordered)):
            text = "".join(text for _, text in sorted(combined, key=itemgetter(0)))
            yield IptablesRule((text.replace('" -m u32 --u32 "', "&&") + rule.end).rstrip(), rule.kind)

    def _look_ups(
        self, scope: Scope, before: Sequence[_Test], side: Side, *, spares: bool
    ) -> Iterator[_Rule]:
        """Yield the rules that drop packets of banned and denied networks, with the tests ``before``.

        ``spares``: they spare our own rejections.
        """
        plan, coming = self.plan, side is Side.FROM
        banned, denied = (FROM_BANNED, FROM_DENIED) if coming else (TO_BANNED, TO_DENIED)
        drop = f"-j {REJECT_CHAIN if coming and self.rejects else self.target}"
        copies = coming and plan.log_group is not None and not self.rejects
        end = f"-j {NARROW_CHAIN}" if copies and scope is Scope.SIP_UDP else drop
        allowed = network_lists.ALLOW
        for tests in self._without_rejections(before) if spares else [before]:
            if scope is Scope.FULL:
                probed = _ADDRESS, f"{'-s' if coming else '-d'} {PROBE_NETWORKS[self.version]} "
                yield _Rule(
                    side, [*tests, (probed,), (_in_set(ban_set_name(self.version, scope), side),)], drop
                )
            for exempt in friends_exempt_values(self.version):
                spared = NotOn((allowed, *[network_lists.FRIENDS] * exempt))
                name = ban_set_name(self.version, scope, friends_exempt=exempt)
                found = (_in_set(name, side, counts=False),), spared, (_in_set(name, side),)
                yield _Rule(side, [*tests, *found], end, banned)
            for which, dropped in plan.dropped_lists.items():
                if dropped is scope and not (which.by_machine and plan.new_only):
                    passing = NotOn((allowed, *PASSING) if which.by_machine else (allowed,))
                    yield _Rule(side, [*tests, On(which), passing], drop, denied)

    def _without_rejections(self, tests: Sequence[_Test]) -> Iterator[Sequence[_Test]]:
        """Yield ``tests`` with further ones, which no rejection of ours matches."""
        ports = stages.ports_of(tests)
        if ports is None:
            parts = matches.REJECTIONS[self.version, self.plan.action][1]
            yield [*tests, tuple((_PORTS, packets) for packets in parts)]
        elif self.plan.action is BanAction.TCP_RESET:
            others = [test for test in tests if test is not ports]
            yield [*others, Ports(ports.udp, ())]
            yield [*others, Ports((), ports.tcp), ((_CONTENT, matches.NO_RST),)]
        else:
            yield tests

    def _acts(self, act: stages.Act, side: Side) -> Iterator[tuple[str, str]]:
        """Yield the ends of the rules for ``act`` (target, options), each with the name of its counter."""
        match act:
            case stages.Jump(iptables=chain, kind=kind):
                yield f"-j {chain}", kind
            case stages.Drop(kind=kind, rejects=rejects):
                yield f"-j {REJECT_CHAIN if rejects and self.rejects else self.target}", kind
            case stages.Copy(prefix, size, group):
                marked = f"--nflog-prefix {prefix} " if prefix else ""
                most = f" --nflog-size {size}" if size else ""
                yield f"-j NFLOG {marked}--nflog-group {group or self.plan.log_group}{most}", ""
            case stages.Goto(chain):
                yield self._go(chain)
            case stages.Remember(table) if table.key is Key.FLOW:
                flow, name = f"{_REMOTE[side]},{_REMOTE[side]}", table_set_name(table, self.version)
                yield f"-j SET --add-set {name} {flow} --exist --timeout {table.seconds}", ""
            case stages.Remember(table):
                # The first rule counts a packet of a sender that is in the set already. The second adds new
                # ones only, because adding an element again would set its counter to one.
                name, address = table_set_name(table, self.version), _REMOTE[side]
                yield f"-m set --match-set {name} {address}", ""
                yield f"-j SET --add-set {name} {address} --timeout {table.seconds}", ""
            case stages.Meter():
                yield from self._meter(act, side)
            case stages.Count(counter, drops):
                yield f"-j {self.target if drops else 'RETURN'}", counter
            case stages.Shorten(size):
                yield f"-j TCPMSS --set-mss {size}", ""
            case _:
                yield "-j RETURN", ""

    def _go(self, chain: stages.Chain) -> tuple[str, str]:
        """Return the end of a rule that continues in ``chain``, and the name by which its packets count."""
        match chain.only_act:
            case stages.Count() as act:
                [end] = self._acts(act, Side.FROM)
                return end
            case _:
                return f"-g {chain.iptables}", ""

    def _meter(self, meter: stages.Meter, side: Side) -> Iterator[tuple[str, str]]:
        """Yield the ends of the rules of ``meter``, a limit of each address, and the names of their counters.

        The match hashlimit counts each address in a table. A full table drops the packets of every address
        that is not in it. A table keeps the limits with which it was made, as long as a rule names it.
        Therefore its name contains the limits, and the seconds.

        The limit of bytes has a budget for each second, which must be at least a frame, or no full frame
        would ever pass. A packet that is larger than the budget costs only the budget. Therefore a separate
        rule treats such packets as over the limit. Such a packet was combined from smaller ones on arrival,
        and TCP sends its contents again in smaller ones. A rate of less than a frame is counted in units of
        ``_UNIT``: one rule compares each unit of a packet, with the same table. A packet passes if the table
        has a unit for every rule. One that does not pass has used up the units before.
        """
        name, (end, kind) = f"{meter.table.name}-{meter.rate}-{meter.burst}", self._go(meter.over)
        if crowd := meter.crowd:
            skip = self._go(crowd.to)[0] if crowd.to else "-j RETURN"
            yield f"{matches.over_all(f'all-{name}', crowd.seconds)}{skip}", crowd.counter
        near, flow = meter.table.key is Key.NEAR, ",srcport" if meter.table.key is Key.FLOW else ""
        mode, lengths = f"{_REMOTE[side]}ip{flow}", [""]
        above, burst, most = f"{meter.rate}/sec", f"{meter.burst}", 0
        if meter.in_bytes and meter.rate < FRAME <= meter.burst:
            above, burst, most = f"{max(meter.rate // _UNIT, 1)}/sec", f"{meter.burst // _UNIT}", FRAME
            starts = range(_UNIT + _UNIT // 2, FRAME + 1, _UNIT)
            lengths += [f"-m length --length {shortest}:{FRAME} " for shortest in starts]
        elif meter.in_bytes:
            most, refills = matches.byte_limit(meter.burst, meter.rate)
            above, burst = matches.in_bytes(most, refills)
        if most:
            yield f"-m length --length {min(most + 1, _MOST)}:{_MOST} {end}", kind
        each = matches.over_each(self.version, name, above, burst, meter.seconds, mode, near=near)
        for length in lengths:
            yield f"{length}{each}{end}", kind

    def _matches(self, test: _Test, side: Side) -> Sequence[_Match]:
        """Return the matches of ``test`` in iptables' notation; each needs a rule of its own."""
        match test:
            case tuple():
                return test
            case Is():
                return self._simple(test, side)
            case stages.AnyOf(tests):
                return [one for part in tests for one in self._matches(part, side)]
            case Ports(udp, tcp):
                protocols = ("udp", udp), ("tcp", tcp)
                found = (matches.port_matches(one, ports, _REMOTE[side]) for one, ports in protocols)
                return [(_PORTS, packets) for part in found for packets in part]
            case stages.Containers() | On() | NotOn() | stages.Has():
                return self._of_address(test, side)
            case _:
                return [*self._contents(test)]

    def _plain(self, protocol: int) -> str:
        """Return u32's test for a packet whose IP header is followed by ``protocol``.

        A sender of IPv6 may put an extension header before that of UDP or TCP, and u32 would compare its
        bytes. So a test that lets a packet of a stranger pass demands that no extension header is there.
        """
        return "" if self.version == _IPV4 else f"0x4>>0x8&0xff={protocol:#x}&&"

    def _simple(self, test: Is, side: Side) -> Sequence[_Match]:
        option = "-i" if side is Side.FROM else "-o"
        if test is Is.EMPTY:
            plain = self._plain(_TCP) if side is Side.FROM else ""
            return [(_PORTS, text) for text in matches.without_data(self.version, plain)]
        if test is Is.NAMED:
            return [(_INTERFACE, f"{option} {name} ") for name in self.plan.interfaces]
        found = {
            **_FIXED,
            Is.OUTER: (_INTERFACE, f"! {option} lo "),
            Is.LOOPED: (_INTERFACE, f"{option} lo "),
            Is.ROUTED: (_WAY, matches.FORWARDED[self.version]),
            Is.FRAGMENT: (_CONTENT, _FRAGMENTS[self.version]),
            Is.CLIENT_FRAME: (_PORTS, self._client_frame),
        }
        return [found[test]]

    @property
    def _client_frame(self) -> str:
        """The match of the first two bytes of a frame that a client sends (RFC 6455).

        The tests are those of ``stages.CLIENT_FRAME``.
        """
        begin, (mask, value) = 0 if self.version == _IPV4 else matches.IPV6_HEADER, stages.CLIENT_FRAME
        return f'-p tcp -m u32 --u32 "{matches.STREAM[self.version]}{begin:#x}>>0x10&{mask:#x}={value:#x}" '

    def _of_address(self, test: stages.Containers | On | NotOn | stages.Has, side: Side) -> Sequence[_Match]:
        match test:
            case stages.Has(table, known):
                flow, name = f"{_REMOTE[side]},{_REMOTE[side]}", table_set_name(table, self.version)
                return [(_LIST, f"-m set {'' if known else '! '}--match-set {name} {flow} ")]
            case stages.Containers(hosts):
                way, more = ("-d", "") if side is Side.FROM else ("-s", matches.FORWARDED[self.version])
                return [(_ADDRESS, f"{way} {one}/{one.max_prefixlen} {more}") for one in hosts]
            case On(which):
                return [_in_set(list_set_name(which, self.version), side)]
            case NotOn(which):
                return [(_LIST, matches.not_on(self.version, _REMOTE[side], *which))]

    def _contents(
        self, test: stages.Datagram | stages.Segment | stages.Bytes | stages.Begins | stages.ClientHello
    ) -> Iterator[_Match]:
        """Yield the matches of iptables (module u32) for packets with the contents that ``test`` names."""
        way, begin = (matches.HEADER, 0) if self.version == _IPV4 else ("", matches.IPV6_HEADER)
        datagram, stream = begin + matches.DATAGRAM, matches.STREAM[self.version]
        match test:
            case stages.Datagram(texts, others):
                u32 = matches.status_line(way, datagram, texts)
                other = f'-m u32 --u32 "{matches.status_line(way, datagram)}" -m u32 ! --u32 "{u32}" '
                yield _CONTENT, other if others else f'-m u32 --u32 "{u32}" '
            case stages.Segment(texts, framed):
                starts = [matches.begins(stream, begin, text) for text in texts]
                for u32 in matches.status_line_tests(self.version, texts) if framed else starts:
                    yield _CONTENT, f'-m u32 --u32 "{u32}" '
            case stages.Begins(text):
                u32 = f"{self._plain(_UDP)}{matches.begins(way, datagram, text)}"
                yield _PORTS, f'-p udp -m u32 --u32 "{u32}" '
            case stages.ClientHello(size):
                hello = f"{stream}{begin:#x}>>0x10=0x1603&&{stream}{begin + 2:#x}&0xff=0x1"
                yield _CONTENT, f'-m length --length 0:{size} -m u32 --u32 "{self._plain(_TCP)}{hello}" '
            case stages.Bytes(at, size, values, among):
                # u32 compares the last bytes of the four that it reads.
                word = f"{way}{datagram + at + size - 4:#x}&{(1 << 8 * size) - 1:#x}"
                slot = _CONTENT if among else _OTHER_CONTENT
                yield slot, f'-m u32 {"" if among else "! "}--u32 "{word}={",".join(map(hex, values))}" '


def _in_set(name: str, side: Side, *, counts: bool = True) -> _Match:
    """Return the match of packets in a set; ``counts``: the set counts them."""
    return _LIST, f"-m set --match-set {name} {_REMOTE[side]} {'' if counts else '! --update-counters '}"


def _of_protocol(rules: Sequence[_Rule], protocol: str) -> tuple[Ports, list[_Rule]]:
    """Return the ports of a protocol that ``rules`` compare, and the parts of the rules for these."""
    found, every = [], set[int]()
    for rule in rules:
        ports = stages.ports_of(rule.tests)
        if ports is not None and (numbers := ports.of(protocol)):
            part = _only(protocol, numbers)
            found.append(evolve(rule, tests=[part if test is ports else test for test in rule.tests]))
            every.update(numbers)
    return _only(protocol, tuple(sorted(every))), found


def _only(protocol: str, numbers: tuple[int, ...]) -> Ports:
    return Ports(**{**dict.fromkeys(PROTOCOLS, ()), protocol: numbers})


def _known(rule: _Rule, ports: Ports) -> _Rule:
    """Return ``rule`` for packets of ``ports``: if it has the same, it compares only their protocol."""
    same: list[_Test] = [((_PORTS, f"-p {one} "),) for one in PROTOCOLS if ports.of(one)]
    tests = [part for test in rule.tests for part in (same if test == ports else [test])]
    return evolve(rule, tests=tests)
