"""The wanted iptables rules: a pure function of the plan, in the notation of iptables-save.

``firewall/stages.py`` has the rules of the first four chains, and ``stage_rules.py`` writes them. Here are
the chains to which they jump.

    raw PREROUTING     -> ringfence-pre
    raw OUTPUT         -> ringfence-out
    filter INPUT       -> ringfence-in      } only if they have rules
    filter FORWARD     -> ringfence-fwd     }

    raw     ringfence-limit:   send packets over the limit to ringfence-over
            ringfence-over:    add the source to the flood set, drop the packet in mode enforce
            ringfence-segment: copy TCP segments to strangers; others go to ringfence-answer
            ringfence-answer:  copy TCP segments that begin with an answer
            ringfence-ration:  count the refusals to each stranger; drop those over the ration
            ringfence-bytes:   the same for the bytes of SIP over TCP and TLS
            ringfence-asked and others: the ration of questions (``asking.py``)
            ringfence-seen:    copy requests of strangers, a limited number a second
            ringfence-narrow:  for a narrow ban (of SIP over UDP only): copy the packet, and drop it
            ringfence-whole:   no packet reaches it: its match ``socket`` makes the kernel reassemble packets
                               before raw (``contract.FRAGMENTS``)
    filter  ringfence-reject:  reject the packet
            ringfence-fence:   add the source to the fenced set, drop the packet in mode enforce
    both    ringfence-drop:    log a few packets a second, drop all; only if a log is configured

The limiter is the match hashlimit, which counts each source separately. It limits UDP by packets, and TCP by
packets and by bytes.
hashlimit's byte limit has a budget for each second. Its burst is a number of additional budgets, the refills.
A packet that is larger than the budget costs only one budget. Therefore a separate rule treats such packets
as over the limit. Such a packet was combined from smaller ones on arrival, and TCP sends its contents again
in smaller ones. A hashlimit table keeps the limits with which it was made, as long as a rule names it.
Therefore its name contains the limits.

If a hashlimit table is full, the match itself drops the packets of every source that is not in it, and no
rule counts them. Only a sender with forged addresses can fill a table: it needs a million addresses within
ten seconds, and the table then takes 120 MB. In mode enforce, the number of packets dropped in this way is
computed: they entered the limiter, and were neither over nor within the limit (``Counters.limiter_full``).
Mode observe must drop no packet. So in this mode the limiter inspects only a limited number of packets a
second from all sources together, too few to fill the table. The other packets pass, and
``Counters.limiter_full`` counts them too.

The ration (``limits.Ration``) is a hashlimit too, by the address of the receiver: one for the refusals by
UDP, one for the bytes by TCP. It leaves out segments without data, and those that begin a TLS handshake or an
answer to a stranger that Asterisk serves (``stages.py`` has the reasons). hashlimit refills the
whole byte budget each second, and a packet larger than the budget costs only the budget, so such packets are
over the ration. Its table must not become full, because a full table would drop the packets to every new
stranger. So packets skip the ration if the SIP ports send too many a second to all strangers together. They
are counted (``Counters.ration_full``).

The copies of a source are limited by a hashlimit too (``_over_copies``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from attrs import evolve

from ringfence.firewall.contract import (
    DROPPED_PREFIX,
    DROPPED_RATE,
    FRAGMENTS,
    FROM_BANNED,
    FROM_DENIED,
    OUTSIDE_SECONDS,
    REFUSALS,
    REQUEST_PREFIX,
    REQUEST_RATE,
    SENDER_SECONDS,
    SERVED,
    TO_BANNED,
    TO_DENIED,
    BanAction,
    FirewallPlan,
    Fragments,
)
from ringfence.firewall.ipset import asking
from ringfence.firewall.ipset.matches import (
    IPV6_HEADER,
    REJECTIONS,
    STREAM,
    IptablesRule,
    begins,
    not_on,
    over_all,
    over_each,
    port_matches,
    status_line_tests,
    without_data,
)
from ringfence.firewall.ipset.sets import FENCED, FLOOD, list_set_name
from ringfence.firewall.ipset.stage_rules import DROP_CHAIN, NARROW_CHAIN, REJECT_CHAIN, StageRules
from ringfence.firewall.limits import FLOOD_SECONDS, GUESS, Limit, LimitMode, Ration
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.stages import Hook, stages

HOOKS: Mapping[str, Mapping[str, str]] = {
    "raw": {"PREROUTING": "ringfence-pre", "OUTPUT": "ringfence-out"},
    "filter": {"INPUT": "ringfence-in", "FORWARD": "ringfence-fwd"},
}
MADE = "ringfence-made"
_LIMIT, _OVER, _RATION, _BYTES = "ringfence-limit", "ringfence-over", "ringfence-ration", "ringfence-bytes"
_FENCE, _WHOLE, _DROPPING = "ringfence-fence", "ringfence-whole", (DROP_CHAIN, MADE)
_SEEN, _SEGMENT, _ANSWER = "ringfence-seen", "ringfence-segment", "ringfence-answer"
_COPYING = _SEEN, NARROW_CHAIN, _SEGMENT, _ANSWER
_LIMITING = _LIMIT, _OVER, _RATION, _BYTES
# Every chain of ours that may be in a table, of this release or another.
CHAINS: Mapping[str, Sequence[str]] = {
    "raw": (
        *HOOKS["raw"].values(),
        _LIMIT,
        _OVER,
        _RATION,
        _BYTES,
        *asking.CHAINS,
        *_COPYING,
        _WHOLE,
        *_DROPPING,
    ),
    "filter": (*HOOKS["filter"].values(), REJECT_CHAIN, _FENCE, *_DROPPING),
}

REPORTED = (FROM_BANNED, TO_BANNED, FROM_DENIED, TO_DENIED, FRAGMENTS)
# Kinds of rules at the limiter. The number of packets without room in the limiter is computed from these
# three.
OVER_LIMIT = "over the limit"
WITHIN_LIMIT = "within the limit"
OVER_RATION = "over the ration"
RATION_FULL = "without room in the ration"
OUTSIDE = "from outside the fence"

_IPV4 = 4
_KIBI = 1024
_FRAME = 2  # kilobytes: an Ethernet frame, rounded up
# Packets in a second of all strangers together, up to which the limit of the copies looks at the source.
_MOST_COPIES = 200_000
_LOG = '-m limit --limit 5/sec --limit-burst 10 -j LOG --log-prefix "ringfence: "'

# By table, by chain, in order.
Rules = Mapping[str, Mapping[str, Sequence[IptablesRule]]]


def wanted_rules(
    plan: FirewallPlan,
    version: int,
    *,
    wire: bool = True,
    limiter: bool = True,
    fragments: Fragments = Fragments.PASSED,
) -> Rules:
    """Return the wanted rules of each chain of ours for IP ``version``.

    If ``wire`` is false, the log rules and the copies of requests are left out, although the plan contains
    them. If ``limiter`` is false, the rules of the limiter and of the ration are left out, and the limit of
    the copies of each source. ``fragments``: what happens to fragments of strangers.
    """
    plan = plan if limiter else plan.without_limits()
    plan = plan if wire else evolve(plan, log_group=None)
    steps, written = stages(plan, fragments), StageRules(plan, version)
    copies, target = plan.log_group is not None, written.target
    raw: dict[str, Sequence[IptablesRule]] = {
        HOOKS["raw"]["PREROUTING"]: written.at(steps, Hook.ARRIVING),
        HOOKS["raw"]["OUTPUT"]: written.at(steps, Hook.LEAVING),
        **({_WHOLE: [IptablesRule("-m socket")]} if fragments is Fragments.REASSEMBLED else {}),
        **(_stream_chains(plan, version) if copies else {}),
        **asking.Asking(plan, version, target).chains(),
    }
    if plan.limit.mode is not LimitMode.OFF:
        raw[_LIMIT] = _limit(plan.limit, version)
        raw[_OVER] = _over(plan, version)
    if plan.ration.mode is not LimitMode.OFF:
        raw |= _ration_chains(plan, version, target)
    if copies and (plan.sip_ports.udp or plan.sip_ports.tcp):
        raw[_SEEN] = [*_over_copies(plan, version), _copy(plan, REQUEST_RATE)]
        if not written.rejects:
            raw[NARROW_CHAIN] = [_copy(plan, DROPPED_RATE, DROPPED_PREFIX), IptablesRule(f"-j {target}")]
    into = {HOOKS["filter"][hook.upper()]: written.at(steps, hook) for hook in (Hook.INPUT, Hook.FORWARD)}
    inner: dict[str, Sequence[IptablesRule]] = {chain: rules for chain, rules in into.items() if rules}
    if written.rejects:
        inner[REJECT_CHAIN] = _reject(plan, version)
    if plan.fence is not LimitMode.OFF:
        inner[_FENCE] = _fence(plan, version, target)
    drops = f"-j {DROP_CHAIN}"
    for chains in (raw, inner):
        if plan.log and any(rule.text.endswith(drops) for rules in chains.values() for rule in rules):
            chains[DROP_CHAIN] = [IptablesRule(_LOG), IptablesRule("-j DROP")]
    return {"raw": raw, "filter": inner} if inner else {"raw": raw}


def named_sets(rules: Rules) -> dict[str, int]:
    """Return how often the rules name each set.

    The kernel counts at least as many references to the set while all these rules are installed.
    """
    counts: dict[str, int] = {}
    for chains in rules.values():
        for rule in (rule for chain in chains.values() for rule in chain):
            words = rule.text.split()
            for word, name in pairwise(words):
                if word in ("--match-set", "--add-set"):
                    counts[name] = counts.get(name, 0) + 1
    return counts


def _copy(plan: FirewallPlan, rate: int, prefix: str = REQUEST_PREFIX) -> IptablesRule:
    """Return the rule that copies a request to the wire.

    Each IP version has its own rules, and therefore half of the ``rate`` (packets a second).
    """
    limit = f"-m limit --limit {rate // 2}/sec --limit-burst {rate // 2}"
    return IptablesRule(f"{limit} -j NFLOG --nflog-prefix {prefix} --nflog-group {plan.log_group}")


def _over_copies(plan: FirewallPlan, version: int) -> list[IptablesRule]:
    """Return the rule that copies no requests of a source over its limit; none if there is no such limit.

    A full hashlimit table would drop packets. So beyond ``_MOST_COPIES`` packets of all sources in a second
    the rule does not look at the source. An entry stays at most a second longer than ``SENDER_SECONDS``. So
    the table becomes at most 80 % full, even if each packet has a new address.
    """
    if not plan.limits_copies:
        return []
    rate = plan.sender_rate
    few = f"--hashlimit-upto {_MOST_COPIES}/sec --hashlimit-burst {_MOST_COPIES}"
    over = over_each(version, f"copies-{rate}", f"{rate}/sec", f"{rate}", SENDER_SECONDS)
    return [IptablesRule(f"-m hashlimit {few} --hashlimit-name ringfence-copies-all {over}-j RETURN")]


def _stream_chains(plan: FirewallPlan, version: int) -> dict[str, Sequence[IptablesRule]]:
    """Return the chains that copy TCP segments from the SIP ports: all those to strangers, and answers."""
    if not plan.sip_ports.tcp:
        return {}
    log = f"-j NFLOG --nflog-group {plan.log_group}"
    tests = (f'-m u32 --u32 "{test}"' for test in status_line_tests(version, REFUSALS))
    known = (list_set_name(one, version) for one in (NetworkList.ALLOW, NetworkList.FRIENDS))
    answers = (f"-m set --match-set {name} dst -g {_ANSWER}" for name in known)
    strangers = not_on(version, "dst", NetworkList.OBSERVED)
    return {
        _ANSWER: [IptablesRule(f"-p tcp {test} {log}") for test in tests],
        _SEGMENT: [*(IptablesRule(f"{strangers}{goto}") for goto in answers), IptablesRule(log)],
    }


def _limit(limit: Limit, version: int) -> list[IptablesRule]:
    name, packets, seconds = (
        f"{limit.rate}-{limit.burst}",
        (f"{limit.rate}/sec", f"{limit.burst}"),
        _expiry(limit),
    )
    udp, tcp = (over_each(version, f"{protocol}-{name}", *packets, seconds) for protocol in ("udp", "tcp"))
    second, refills = byte_budget(limit)
    octets = over_each(version, f"bytes-{name}", f"{second}kb/s", f"{second * refills}kb", seconds)
    return [
        *([IptablesRule(_total_limit("all", limit))] if limit.mode is LimitMode.OBSERVE else []),
        IptablesRule(f"-p udp {udp}-g {_OVER}", OVER_LIMIT),
        IptablesRule(f"-p tcp {tcp}-g {_OVER}", OVER_LIMIT),
        IptablesRule(
            f"-p tcp -m length --length {min(second * _KIBI + 1, 65_535)}:65535 -g {_OVER}", OVER_LIMIT
        ),
        IptablesRule(f"-p tcp {octets}-g {_OVER}", OVER_LIMIT),
        IptablesRule("-j RETURN", WITHIN_LIMIT),
    ]


def byte_budget(limit: Limit) -> tuple[int, int]:
    """Return the limit for the bytes of a source: kilobytes a second, and a number of refills.

    A source may send this budget each second. After a pause it may also send the refills, at least one. Each
    refill is as large as the budget of one second, because hashlimit has no smaller unit. The budget and its
    refills are together at most ``limit.burst`` guesses of 300 bytes. But the budget is at least one Ethernet
    frame: otherwise no full frame would ever pass, and TCP would repeat it without end.
    """
    whole = limit.burst * GUESS // _KIBI
    second = max(limit.rate * GUESS // _KIBI, _FRAME)
    refills = max(min(limit.burst // max(limit.rate, 1), whole // second) - 1, 1)
    return max(min(second, whole // (refills + 1)), _FRAME), refills


def _ration_chains(plan: FirewallPlan, version: int, target: str) -> dict[str, Sequence[IptablesRule]]:
    """Return the chains of the ration; ``target`` is the target that drops a packet."""
    ration, seconds = plan.ration, _expiry(plan.ration)
    drop = f"-j {target if ration.mode is LimitMode.ENFORCE else 'RETURN'}"
    total = IptablesRule(_total_limit("ration-all", ration), RATION_FULL)
    budget, name = -(-ration.bytes_a_second // _KIBI), f"{ration.rate}-{ration.burst}"
    most, packets = budget * _KIBI, (f"{ration.rate}/sec", f"{ration.burst}")
    over = over_each(version, f"ration-{name}", *packets, seconds, mode="dstip")
    over_bytes = over_each(version, f"ration-bytes-{name}", f"{budget}kb/s", "", seconds, mode="dstip")
    return {
        _RATION: [total, IptablesRule(f"{over}{drop}", OVER_RATION)],
        _BYTES: [
            *(IptablesRule(f"-p tcp {test} -j RETURN") for test in _unrationed_segments(plan, version)),
            total,
            IptablesRule(f"-m length --length {min(most + 1, 65_535)}:65535 {drop}", OVER_RATION),
            IptablesRule(f"{over_bytes}{drop}", OVER_RATION),
        ],
    }


def _unrationed_segments(plan: FirewallPlan, version: int) -> Iterator[str]:
    """Yield the matches of TCP segments that the ration leaves out.

    They have no data, or begin a TLS handshake or, in a frame, an answer to a call (``contract.SERVED``).
    """
    yield from without_data(version)
    begin = 0 if version == _IPV4 else IPV6_HEADER
    for ports in port_matches("tcp", plan.sip_ports.tls, "dst"):
        handshake = f"{STREAM[version]}{begin:#x}>>0x10=0x1603"
        yield f'{ports.removeprefix("-p tcp ")}-m u32 --u32 "{handshake}"'
    for ports in port_matches("tcp", plan.sip_ports.streams, "dst"):
        for served in SERVED:
            test = begins(STREAM[version], begin, served)
            yield f'{ports.removeprefix("-p tcp ")}-m length --length 0:1500 -m u32 --u32 "{test}"'


def _total_limit(name: str, limit: Limit | Ration) -> str:
    """Build the rule by which a packet skips a limit if all addresses together would fill its table.

    The limiter needs the rule only in the mode observe, which must drop no packet.
    """
    return f"{over_all(f'{name}-{limit.rate}-{limit.burst}', _expiry(limit))}-j RETURN"


def _expiry(limit: Limit | Ration) -> int:
    """Return the seconds after which a limit forgets an address; by then its burst is available again."""
    return max(FLOOD_SECONDS, -(-limit.burst // max(limit.rate, 1)))


def _over(plan: FirewallPlan, version: int) -> list[IptablesRule]:
    # The first rule counts a packet of a source that is already in the set. The second adds new sources only,
    # because adding an element again would set its counter to one.
    rules = [
        IptablesRule(f"-p {protocol} {rule}")
        for protocol, flood in (("udp", FLOOD[version, False]), ("tcp", FLOOD[version, True]))
        for rule in (
            f"-m set --match-set {flood} src",
            f"-j SET --add-set {flood} src --timeout {FLOOD_SECONDS}",
        )
    ]
    if plan.limit.mode is LimitMode.ENFORCE:
        rules += [*([IptablesRule(_LOG)] if plan.log else []), IptablesRule("-j DROP")]
    return rules


def _fence(plan: FirewallPlan, version: int, target: str) -> list[IptablesRule]:
    # The first rule spares the answers to what this host began. A rule with a direction matches no untracked
    # packet. The next two rules count a source as those of the limiter do (``_over``).
    name = FENCED[version]
    return [
        IptablesRule("-m conntrack --ctdir REPLY -j RETURN"),
        IptablesRule(f"-m set --match-set {name} src"),
        IptablesRule(f"-j SET --add-set {name} src --timeout {OUTSIDE_SECONDS}"),
        IptablesRule(f"-j {target if plan.fence is LimitMode.ENFORCE else 'RETURN'}", OUTSIDE),
    ]


def _reject(plan: FirewallPlan, version: int) -> list[IptablesRule]:
    rules = [IptablesRule(_LOG)] if plan.log else []
    how = REJECTIONS[version, plan.action][0]
    if plan.action is BanAction.TCP_RESET:
        return [*rules, IptablesRule(f"-p tcp -j REJECT --reject-with {how}"), IptablesRule("-j DROP")]
    return [*rules, IptablesRule(f"-j REJECT --reject-with {how}")]


def counted_rules(rules: Rules) -> Iterable[tuple[str, str, int, str]]:
    """Yield the table, chain, position and kind of each rule that has a kind (``IptablesRule.kind``)."""
    return (
        (table, chain, position, rule.kind)
        for table, chains in rules.items()
        for chain, ordered in chains.items()
        for position, rule in enumerate(ordered)
        if rule.kind
    )
