"""What the rules of iptables are to be: a pure function of the plan, written as iptables-save writes them.

    raw PREROUTING     -> ringfence-pre:    drop what comes from a banned address, and what is routed to one;
                                            then the limiter, then the log rule for the wire
    raw OUTPUT         -> ringfence-out:    drop what this host itself sends to one; then the log rule
                          ringfence-limit:  what is over the limit goes to ringfence-over
                          ringfence-over:   put its source on the flood set, drop it where that is asked for
                          ringfence-drop:   log a few a second, drop; only where a log is asked for
    filter INPUT       -> ringfence-in      } only for a verdict that raw cannot have (reject), and, where
    filter FORWARD     -> ringfence-fwd     } interfaces are named, for what is routed out through them

raw is before connection tracking, so an established flow is cut too, and a container behind DNAT is covered.
The way out matters as much as the way in: guesses that already wait in Asterisk's socket are still
checked, but their answers never leave (2 000 guesses sent ahead of the ban: 180 to 1 126 were answered with
the way in closed alone, 3 to 849 with both).

A drop is "not allowed, and banned", in that order: an element's counter then counts only what was dropped.
There is no rule that accepts or returns for those who are allowed: their packets are to meet what follows.

Reject cannot stand in raw. Then the way in is closed in filter, and the way out stays closed in raw, but for
the very ICMP error or RST with which the kernel rejects. (Who is on the same link of IPv6 sees silence soon:
his neighbour's question for the hardware address is dropped too.) PREROUTING does not know the interface a
packet will leave by; so where interfaces are named what is routed to a banned address is dropped in FORWARD.
(The log rule has then seen it already. A banned address's challenge proves nothing in any case.)

The limiter is hashlimit, per source: UDP by packets, TCP by packets and by bytes, since one segment carries
many guesses (a guess of SIP has never under 300 bytes). In bytes, hashlimit's burst is a number of
refills of one second's worth, and no packet costs more than that: larger ones, which the network card put
together, are over the limit by themselves; TCP sends them again, smaller. A table of hashlimit lives as long
as a rule names it, with the numbers it was made with: so the numbers are in its name.

A full table of hashlimit drops whoever is not in it, and in no rule's counter: the kernel's match does that.
Only forged senders can fill it: a million within ten seconds, in 120 MB for each table. Enforcing, such
packets are those that came to the limiter and were neither over nor passed: ``Usage.limiter_full``. Observing
must drop nobody, so there no more packets a second are looked at, of all together, than could fill the table;
the others pass, and are counted as those that there was no room for.

The log rule: what is a SIP 401 or 407 over UDP goes to an NFLOG group (``sources/wire.py`` reads it; to
a group that nobody reads the kernel sends nothing). ``-p udp`` and u32 read the first twelve bytes of the
datagram, "SIP/2.0 401" or "SIP/2.0 407". In PREROUTING stand the answers of bridged containers, and among
them whatever the world sends: there a packet counts only where it is to be routed on (not a provider's 401 to
this host) and came by the way that leads back to its sender (not a stranger's under a container's address).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from attrs import frozen

from ringfence.firewall.contract import PROBE_PORT, Limit, LimitMode, Plan, Roll, Verdict
from ringfence.firewall.ipset_sets import FLOOD, FLOOD_SECONDS, bans_name, roll_name
from ringfence.model import Scope

HOOKS: Mapping[str, Mapping[str, str]] = {
    "raw": {"PREROUTING": "ringfence-pre", "OUTPUT": "ringfence-out"},
    "filter": {"INPUT": "ringfence-in", "FORWARD": "ringfence-fwd"},
}
MADE = "ringfence-made"
_LIMIT, _OVER, _DROP, _REJECT = "ringfence-limit", "ringfence-over", "ringfence-drop", "ringfence-reject"
# Every chain of ours that may be in a table, of this release or another.
CHAINS: Mapping[str, Sequence[str]] = {
    "raw": ("ringfence-pre", "ringfence-out", _LIMIT, _OVER, _DROP, MADE),
    "filter": ("ringfence-in", "ringfence-fwd", _REJECT, _DROP, MADE),
}

FROM_BANNED = "from banned addresses"
TO_BANNED = "to banned addresses"
FROM_DENIED = "from denied networks"
TO_DENIED = "to denied networks"
TOLD = (FROM_BANNED, TO_BANNED, FROM_DENIED, TO_DENIED)
# Not for people: from these three follows what the limiter had no room for.
AT_LIMITER = "seen by the limiter"
OVER_LIMIT = "over the limit"
WITHIN_LIMIT = "within the limit"

_IPV4 = 4
# multiport takes no more.
_PORTS_A_RULE = 15
_GUESS = 300  # bytes
_KILO = 1024
_FRAME = 2  # kilobytes
_BUCKETS = 65_536
_SOURCES = 1_000_000
_EXPIRY = 10  # seconds
# Packets a second that the tools print as they are written.
_PRINTABLE = (50_000, 25_000, 20_000, 10_000, 5_000, 2_000, 1_000, 500, 200, 100, 50, 20, 10, 5, 2, 1)
_LOG = '-m limit --limit 5/sec --limit-burst 10 -j LOG --log-prefix "ringfence: "'
_RST = "-p tcp -m tcp ! --tcp-flags RST RST "
# The kernel's word for a verdict, and how its own error is told from what else goes out.
_REJECTIONS: Mapping[tuple[int, Verdict], tuple[str, tuple[str, str]]] = {
    (4, Verdict.PORT_UNREACHABLE): (
        "icmp-port-unreachable",
        ("! -p icmp ", "-p icmp -m icmp ! --icmp-type 3/3 "),
    ),
    (4, Verdict.ADMIN_PROHIBITED): (
        "icmp-admin-prohibited",
        ("! -p icmp ", "-p icmp -m icmp ! --icmp-type 3/13 "),
    ),
    (6, Verdict.PORT_UNREACHABLE): (
        "icmp6-port-unreachable",
        ("! -p ipv6-icmp ", "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/4 "),
    ),
    (6, Verdict.ADMIN_PROHIBITED): (
        "icmp6-adm-prohibited",
        ("! -p ipv6-icmp ", "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/1 "),
    ),
    (4, Verdict.TCP_RESET): ("tcp-reset", ("! -p tcp ", _RST)),
    (6, Verdict.TCP_RESET): ("tcp-reset", ("! -p tcp ", _RST)),
}
# As iptables-save writes u32's tests: of the datagram at its offset 8 behind the IP header.
_CHALLENGES = {
    4: "{0}@0x8=0x5349502f&&{0}@0xc=0x322e3020&&{0}@0xf=0x20343031,0x20343037".format("0x0>>0x16&0x3c"),
    6: "0x30=0x5349502f&&0x34=0x322e3020&&0x37=0x20343031,0x20343037",
}
_PASSING = {"ringfence-pre": "-m rpfilter -m addrtype --dst-type UNICAST ", "ringfence-out": ""}


@frozen
class Rule:
    """One rule: what stands behind ``-A CHAIN``, and what its counter counts ("" for what nobody asks)."""

    text: str
    kind: str = ""


# By table, by chain, in order.
Rules = Mapping[str, Mapping[str, Sequence[Rule]]]


def wanted_rules(plan: Plan, version: int, *, wire: bool = True, limiter: bool = True) -> Rules:
    """Give what is to stand in each chain of ours for IP ``version``.

    ``wire`` and ``limiter`` false leave these out although the plan asks for them.
    """
    kept = _Plan(plan, version)
    pre = [*kept.raw_in(), *(kept.to_limiter() if limiter else ())]
    out = [*kept.raw_out()]
    if wire and plan.log_group is not None:
        pre.append(_challenge(version, "ringfence-pre", plan.log_group))
        out.append(_challenge(version, "ringfence-out", plan.log_group))
    raw: dict[str, Sequence[Rule]] = {"ringfence-pre": pre, "ringfence-out": out}
    if limiter and plan.limit.mode is not LimitMode.OFF:
        raw[_LIMIT] = _limit(plan.limit, version)
        raw[_OVER] = _over(plan, version)
    into = {"ringfence-in": kept.filter_in(), "ringfence-fwd": [*kept.filter_in(), *kept.filter_forward()]}
    inner: dict[str, Sequence[Rule]] = {chain: rules for chain, rules in into.items() if rules}
    if kept.rejects:
        inner[_REJECT] = _reject(plan, version)
    for chains in (raw, inner):
        if plan.log and any(rule.text.endswith(f"-j {_DROP}") for rules in chains.values() for rule in rules):
            chains[_DROP] = [Rule(_LOG), Rule("-j DROP")]
    return {"raw": raw, "filter": inner} if inner else {"raw": raw}


def named_sets(rules: Rules) -> dict[str, int]:
    """Count how often each set is named: as many references the kernel counts at least while they stand."""
    counts: dict[str, int] = {}
    for chains in rules.values():
        for rule in (rule for chain in chains.values() for rule in chain):
            words = rule.text.split()
            for word, name in pairwise(words):
                if word in ("--match-set", "--add-set"):
                    counts[name] = counts.get(name, 0) + 1
    return counts


@frozen
class _Plan:
    """A plan for one IP version."""

    plan: Plan
    version: int

    @property
    def rejects(self) -> bool:
        return self.plan.verdict is not Verdict.DROP

    def raw_in(self) -> list[Rule]:
        coming = [] if self.rejects else self._refused("src", "-i", self._target)
        # What will leave by which interface is not known yet here.
        return coming if self.plan.interfaces else coming + self._refused("dst", "", self._target)

    def raw_out(self) -> list[Rule]:
        return self._refused("dst", "-o", self._target, spared=self.rejects)

    def filter_in(self) -> list[Rule]:
        return self._refused("src", "-i", _REJECT) if self.rejects else []

    def filter_forward(self) -> list[Rule]:
        return self._refused("dst", "-o", self._target) if self.plan.interfaces else []

    @property
    def _target(self) -> str:
        return _DROP if self.plan.log else "DROP"

    def _refused(self, side: str, option: str, target: str, *, spared: bool = False) -> list[Rule]:
        """Give the rules for one side; ``spared`` lets the kernel's own rejection out."""
        version, allow = self.version, roll_name(Roll.ALLOW, self.version)
        full = self._full(side, spared=spared)
        coming = side == "src"
        rows = (
            (bans_name(version, Scope.FULL), full, FROM_BANNED if coming else TO_BANNED),
            (
                bans_name(version, Scope.SIP_UDP),
                _ported("udp", self.plan.sip_ports.udp, side),
                FROM_BANNED if coming else TO_BANNED,
            ),
            (roll_name(Roll.DENY, version), full, FROM_DENIED if coming else TO_DENIED),
        )
        return [
            Rule(
                f"{way}{what}-m set ! --match-set {allow} {side} "
                f"-m set --match-set {name} {side} -j {target}",
                kind,
            )
            for name, whats, kind in rows
            for what in whats
            for way in self._ways(option)
        ]

    def _full(self, side: str, *, spared: bool) -> list[str]:
        """Give what a full ban is about, one match a rule."""
        plan = self.plan
        if plan.every_port:
            return list(_REJECTIONS[self.version, plan.verdict][1]) if spared else [""]
        tcp = _ported("tcp", plan.sip_ports.tcp, side)
        if spared and plan.verdict is Verdict.TCP_RESET:
            tcp = [match.replace("-p tcp ", _RST, 1) for match in tcp]
        return [*_ported("udp", (*plan.sip_ports.udp, PROBE_PORT), side), *tcp]

    def _ways(self, option: str) -> list[str]:
        if not option or not self.plan.interfaces:
            return [""]
        return [f"{option} {name} " for name in self.plan.interfaces]

    def to_limiter(self) -> list[Rule]:
        plan = self.plan
        if plan.limit.mode is LimitMode.OFF:
            return []
        strangers = "".join(
            f"-m set ! --match-set {roll_name(roll, self.version)} src "
            for roll in (Roll.FRIENDS, Roll.ALLOW)
        )
        return [
            Rule(f"{way}{what}{strangers}-j {_LIMIT}", AT_LIMITER)
            for protocol, ports in (("udp", plan.sip_ports.udp), ("tcp", plan.sip_ports.tcp))
            for what in _ported(protocol, ports, "src")
            for way in (self._ways("-i") if plan.interfaces else ["! -i lo "])
        ]


def _ported(protocol: str, ports: Sequence[int], side: str) -> list[str]:
    """Match a protocol's ports of this host: the destination of what comes, the source of what goes."""
    option = "--dports" if side == "src" else "--sports"
    parts = [ports[at : at + _PORTS_A_RULE] for at in range(0, len(ports), _PORTS_A_RULE)]
    return [f"-p {protocol} -m multiport {option} {','.join(map(str, part))} " for part in parts]


def _challenge(version: int, chain: str, group: int) -> Rule:
    return Rule(
        f'-p udp -m u32 --u32 "{_CHALLENGES[version]}" {_PASSING[chain]}-j NFLOG --nflog-group {group}'
    )


def _limit(limit: Limit, version: int) -> list[Rule]:
    packets = f"{limit.rate}/sec", f"{limit.burst}"
    second, refills = byte_budget(limit)
    octets = f"{second}kb/s", f"{second * refills}kb"
    return [
        *([Rule(_glance(limit))] if limit.mode is LimitMode.OBSERVE else []),
        Rule(f"-p udp {_hashlimit('udp', limit, version, *packets)}-g {_OVER}", OVER_LIMIT),
        Rule(f"-p tcp {_hashlimit('tcp', limit, version, *packets)}-g {_OVER}", OVER_LIMIT),
        Rule(f"-p tcp -m length --length {min(second * _KILO + 1, 65_535)}:65535 -g {_OVER}", OVER_LIMIT),
        Rule(f"-p tcp {_hashlimit('bytes', limit, version, *octets)}-g {_OVER}", OVER_LIMIT),
        Rule("-j RETURN", WITHIN_LIMIT),
    ]


def byte_budget(limit: Limit) -> tuple[int, int]:
    """Give a second's worth in kilobytes, and how often it is refilled at once, at least one time each.

    Together, with what is there from the beginning, they are no more than the burst: the kernel has no other
    way to say it than in whole seconds. A second's worth is never less than an Ethernet frame, which TCP
    would send again and again.
    """
    whole = limit.burst * _GUESS // _KILO
    second = max(limit.rate * _GUESS // _KILO, _FRAME)
    refills = max(min(limit.burst // max(limit.rate, 1), whole // second) - 1, 1)
    return max(min(second, whole // (refills + 1)), _FRAME), refills


def _glance(limit: Limit) -> str:
    """Let pass what is more than could fill the tables, as one bucket for all: of some 0.6 of their size."""
    most = _SOURCES * 6 // 10 // (_expiry(limit) + 1)
    rate = next((rate for rate in _PRINTABLE if rate <= most), 1)
    name = f"ringfence-all-{limit.rate}-{limit.burst}"
    above = f"--hashlimit-above {rate}/sec --hashlimit-burst {rate}"
    return f"-m hashlimit {above} --hashlimit-name {name} -j RETURN"


def _expiry(limit: Limit) -> int:
    """Give the seconds until a source is forgotten: not before its burst has grown again."""
    return max(_EXPIRY, -(-limit.burst // max(limit.rate, 1)))


def _hashlimit(name: str, limit: Limit, version: int, above: str, burst: str) -> str:
    mask = "" if version == _IPV4 else "--hashlimit-srcmask 64 "
    return (
        f"-m hashlimit --hashlimit-above {above} --hashlimit-burst {burst} --hashlimit-mode srcip "
        f"--hashlimit-name ringfence-{name}-{limit.rate}-{limit.burst} --hashlimit-htable-size {_BUCKETS} "
        f"--hashlimit-htable-max {_SOURCES} --hashlimit-htable-expire {_expiry(limit) * 1000} {mask}"
    )


def _over(plan: Plan, version: int) -> list[Rule]:
    # To add it again would set its counter to one each time, so that is not asked for.
    flood = FLOOD[version]
    rules = [
        Rule(f"-m set --match-set {flood} src"),
        Rule(f"-j SET --add-set {flood} src --timeout {FLOOD_SECONDS}"),
    ]
    if plan.limit.mode is LimitMode.ENFORCE:
        rules += [*([Rule(_LOG)] if plan.log else []), Rule("-j DROP")]
    return rules


def _reject(plan: Plan, version: int) -> list[Rule]:
    rules = [Rule(_LOG)] if plan.log else []
    how = _REJECTIONS[version, plan.verdict][0]
    if plan.verdict is Verdict.TCP_RESET:
        return [*rules, Rule(f"-p tcp -j REJECT --reject-with {how}"), Rule("-j DROP")]
    return [*rules, Rule(f"-j REJECT --reject-with {how}")]


def kinds_of(rules: Rules) -> Iterable[tuple[str, str, int, str]]:
    """Give each rule's table, chain, place and kind, for those that have one."""
    return (
        (table, chain, place, rule.kind)
        for table, chains in rules.items()
        for chain, ordered in chains.items()
        for place, rule in enumerate(ordered)
        if rule.kind
    )
