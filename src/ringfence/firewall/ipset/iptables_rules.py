"""The wanted iptables rules: a pure function of the plan, in the notation of iptables-save.

``firewall/stages.py`` has the rules of the first four chains, and ``stage_rules.py`` writes them. Here are
the chains to which they jump.

    raw PREROUTING     -> ringfence-pre
    raw OUTPUT         -> ringfence-out
    filter INPUT       -> ringfence-in      } only if they have rules
    filter FORWARD     -> ringfence-fwd     }

    raw     ringfence-segment: copy TCP segments to strangers; others go to ringfence-answer
            ringfence-answer:  copy TCP segments that begin with an answer
            ringfence-seen:    copy requests of strangers, a limited number a second
            ringfence-narrow:  for a narrow ban (of SIP over UDP only): copy the packet, and drop it
            ringfence-whole:   no packet reaches it: its match ``socket`` makes the kernel reassemble packets
                               before raw (``contract.FRAGMENTS``)
    filter  ringfence-reject:  reject the packet
    both    ringfence-drop:    log a few packets a second, drop all; only if a log is configured

"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from ringfence.firewall import network_lists
from ringfence.firewall.contract import (
    DROPPED_PREFIX,
    DROPPED_RATE,
    FRAGMENTS,
    FROM_BANNED,
    FROM_DENIED,
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
from ringfence.firewall.ipset.matches import REJECTIONS, IptablesRule, not_on, over_each, status_line_tests
from ringfence.firewall.ipset.sets import list_set_name
from ringfence.firewall.ipset.stage_rules import DROP_CHAIN, NARROW_CHAIN, REJECT_CHAIN, StageRules
from ringfence.firewall.stages import Hook, Stage, stages

HOOKS: Mapping[str, Mapping[str, str]] = {
    "raw": {"PREROUTING": "ringfence-pre", "OUTPUT": "ringfence-out"},
    "filter": {"INPUT": "ringfence-in", "FORWARD": "ringfence-fwd"},
}
MADE = "ringfence-made"
PREFIX = "ringfence-"
"""The beginning of the name of each of ringfence's chains, also of other releases and absent features."""


def _table_of(stage: Stage) -> str:
    return "raw" if {Hook.ARRIVING, Hook.LEAVING} & {*stage.hooks} else "filter"


_WHOLE = "ringfence-whole"
_SEEN, _SEGMENT, _ANSWER = "ringfence-seen", "ringfence-segment", "ringfence-answer"

REPORTED = (FROM_BANNED, TO_BANNED, FROM_DENIED, TO_DENIED, FRAGMENTS)
_MOST_COPIES = 200_000
"""The packets a second, of all strangers, above which the limit of the copies of each source is left out."""
_LOG = '-m limit --limit 5/sec --limit-burst 10 -j LOG --log-prefix "ringfence: "'

# By table, by chain, in order.
Rules = Mapping[str, Mapping[str, Sequence[IptablesRule]]]


def wanted_rules(
    plan: FirewallPlan,
    version: int,
    *,
    wire: bool = True,
    limits: bool = True,
    fragments: Fragments = Fragments.PASSED,
) -> Rules:
    """Return the wanted rules of each chain of ours for IP ``version``.

    If ``wire`` is false, the log rules and the copies of requests are left out, although the plan contains
    them. If ``limits`` is false, what is optional is left out, and the limit of the copies of each source.
    ``fragments``: what happens to fragments of strangers.
    """
    plan = plan if limits else plan.without_limits()
    plan = plan if wire else plan.without_copies()
    steps, written = stages(plan, fragments), StageRules(plan, version)
    copies, target = plan.log_group is not None, written.target
    raw: dict[str, Sequence[IptablesRule]] = {
        **written.at(steps, Hook.ARRIVING, HOOKS["raw"]["PREROUTING"]),
        **written.at(steps, Hook.LEAVING, HOOKS["raw"]["OUTPUT"]),
        **({_WHOLE: [IptablesRule("-m socket")]} if fragments is Fragments.REASSEMBLED else {}),
        **(_stream_chains(plan, version) if copies else {}),
    }
    if copies and (plan.sip_ports.udp or plan.sip_ports.tcp):
        raw[_SEEN] = [*_over_copies(plan, version), _copy(plan, REQUEST_RATE)]
        if not written.rejects:
            raw[NARROW_CHAIN] = [_copy(plan, DROPPED_RATE, DROPPED_PREFIX), IptablesRule(f"-j {target}")]
    inner: dict[str, Sequence[IptablesRule]] = {}
    for hook in (Hook.INPUT, Hook.FORWARD):
        into = written.at(steps, hook, HOOKS["filter"][hook.upper()])
        inner |= {chain: rules for chain, rules in into.items() if rules}
    if written.rejects:
        inner[REJECT_CHAIN] = _reject(plan, version)
    for stage in steps:
        (raw if _table_of(stage) == "raw" else inner).update(written.chains(stage))
    drops = f"-j {DROP_CHAIN}"
    for chains in (raw, inner):
        if plan.log and any(rule.text.endswith(drops) for rules in chains.values() for rule in rules):
            chains[DROP_CHAIN] = [IptablesRule(_LOG), IptablesRule("-j DROP")]
    return {"raw": raw, "filter": inner} if inner else {"raw": raw}


def named_sets(rules: Rules) -> dict[str, int]:
    """Return how often ``rules`` name each set, by the set's name.

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


def _over_copies(plan: FirewallPlan, version: int) -> list[IptablesRule]:
    """Return the rule by which requests of a source over its limit are not copied; [] without a limit.

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


def _copy(plan: FirewallPlan, rate: int, prefix: str = REQUEST_PREFIX) -> IptablesRule:
    """Return the rule that copies a request to the NFLOG group.

    Each IP version has its own rules, and therefore half of the ``rate`` (packets a second).
    """
    limit = f"-m limit --limit {rate // 2}/sec --limit-burst {rate // 2}"
    return IptablesRule(f"{limit} -j NFLOG --nflog-prefix {prefix} --nflog-group {plan.log_group}")


def _stream_chains(plan: FirewallPlan, version: int) -> dict[str, Sequence[IptablesRule]]:
    """Return the chains that copy TCP segments from the SIP ports: all those to strangers, and answers."""
    if not plan.sip_ports.tcp:
        return {}
    log = f"-j NFLOG --nflog-group {plan.log_group}"
    tests = (f'-m u32 --u32 "{test}"' for test in status_line_tests(version, REFUSALS))
    known = (list_set_name(one, version) for one in (network_lists.ALLOW, network_lists.FRIENDS))
    answers = (f"-m set --match-set {name} dst -g {_ANSWER}" for name in known)
    strangers = not_on(version, "dst", network_lists.OBSERVED)
    return {
        _ANSWER: [IptablesRule(f"-p tcp {test} {log}") for test in tests],
        _SEGMENT: [*(IptablesRule(f"{strangers}{goto}") for goto in answers), IptablesRule(log)],
    }


def _reject(plan: FirewallPlan, version: int) -> list[IptablesRule]:
    rules = [IptablesRule(_LOG)] if plan.log else []
    how = REJECTIONS[version, plan.action][0]
    if plan.action is BanAction.TCP_RESET:
        return [*rules, IptablesRule(f"-p tcp -j REJECT --reject-with {how}"), IptablesRule("-j DROP")]
    return [*rules, IptablesRule(f"-j REJECT --reject-with {how}")]


def counted_rules(rules: Rules) -> Iterable[tuple[str, str, int, str]]:
    """Yield table, chain, position and counter's name of each rule whose packets ringfence counts."""
    return (
        (table, chain, position, rule.kind)
        for table, chains in rules.items()
        for chain, ordered in chains.items()
        for position, rule in enumerate(ordered)
        if rule.kind
    )
