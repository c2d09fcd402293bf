"""The text of the ruleset, a function of the plan; other tests check its effects."""

import subprocess

import pytest
from attrs import evolve

from ringfence.errors import FirewallError
from ringfence.firewall.contract import (
    PROBE_PORT,
    AskingRation,
    BanAction,
    FirewallPlan,
    Limit,
    LimitMode,
    Ports,
)
from ringfence.firewall.nftables.ruleset import (
    DEFAULT_LENGTHS,
    BanSet,
    RulesetChain,
    default_ban_sets,
    ruleset,
    ruleset_text,
)
from ringfence.model import Scope

GROUP = 21_063
ANSWERS = "{ 0x5349502f322e3020343031, 0x5349502f322e3020343033, 0x5349502f322e3020343037 }"
DATAGRAMS = f"{ANSWERS[:-2]}, 0x5349502f322e3020343034 }}"
EVERYTHING = FirewallPlan(
    log_group=GROUP,
    every_port=False,
    interfaces=("eth0", "eth1"),
    log=True,
    limit=Limit(LimitMode.ENFORCE, 50, 200),
)
PLANS = [
    FirewallPlan(),
    EVERYTHING,
    *(evolve(EVERYTHING, action=action) for action in BanAction),
    FirewallPlan(limit=Limit(LimitMode.OBSERVE, 50, 20)),
    FirewallPlan(sip_ports=Ports((), ()), limit=Limit(LimitMode.ENFORCE)),
    FirewallPlan(sip_ports=Ports((), ()), every_port=False),
    FirewallPlan(new_only=True, decisions=True),
    FirewallPlan(decisions=True),
    FirewallPlan(sip_ports=Ports((5060,), ()), limit=Limit(LimitMode.OBSERVE, 1, 1)),
    evolve(EVERYTHING, asking=AskingRation(LimitMode.ENFORCE, wss=(8089,))),
    FirewallPlan(sip_ports=Ports((), ()), asking=AskingRation(LimitMode.OBSERVE, 300, 7)),
]


def chains_of(plan: FirewallPlan) -> dict[str, RulesetChain]:
    """Return a plan's chains by name."""
    return {chain.name: chain for chain in ruleset(plan, default_ban_sets()).chains}


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("plan", PLANS)
def test_nft_accepts_every_plan(plan: FirewallPlan) -> None:
    """The program accepts the text of each plan after any other, with all kinds of prefix lengths."""
    other = {BanSet(scope, 4, 20) for scope in Scope} | {BanSet(scope, 6, 29) for scope in Scope}
    for one in (FirewallPlan(), plan, plan):
        rules = ruleset(one, default_ban_sets() | other)
        done = subprocess.run(
            ["nft", "-f", "-"], input=ruleset_text(rules), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_packets_from_and_to_banned_addresses_are_dropped() -> None:
    """By default prerouting drops both ways and output the way out; nothing is logged."""
    chains = chains_of(FirewallPlan())

    assert chains["prerouting"].rules == (
        "ip saddr != @allow4 jump from4",
        "ip6 saddr != @allow6 jump from6",
        "ip daddr != @allow4 jump to4",
        "ip6 daddr != @allow6 jump to6",
    )
    assert chains["output"].rules == ("ip daddr != @allow4 jump to4", "ip6 daddr != @allow6 jump to6")
    assert (chains["prerouting"].priority, chains["output"].priority) == (-300, -300)
    tcp = "{ 5038, 5060, 5061, 8089 }"
    assert chains["from4"].rules == (
        "jump from4_ban",
        "udp dport { 4569, 5060 } jump from4_asterisk",
        f"tcp dport {tcp} jump from4_asterisk",
        "udp dport { 4569, 5060 } jump from4_sip",
        f"tcp dport {tcp} jump from4_tcp",
    )
    assert chains["to6"].rules == (
        "jump to6_ban",
        "udp sport { 4569, 5060 } jump to6_asterisk",
        f"tcp sport {tcp} jump to6_asterisk",
        "udp sport { 4569, 5060 } jump to6_sip",
        f"tcp sport {tcp} jump to6_tcp",
    )
    assert "ip daddr @asterisk4_32 goto to_banned" in chains["to4_asterisk"].rules
    assert "ip daddr @tcp4_32 goto to_banned" in chains["to4_tcp"].rules
    passing = "ip saddr != @friends4 ip saddr != @unshielded4 ip saddr != @admitted4"
    assert chains["from4_ban"].rules == (
        "ip saddr @ban4_32 goto from_banned",
        "ip saddr & 255.255.255.0 @ban4_24 goto from_banned",
        "ip saddr & 255.255.0.0 @ban4_16 goto from_banned",
        "ip saddr & 255.0.0.0 @ban4_8 goto from_banned",
        "ip saddr @deny4 goto from_denied",
        f"ip saddr @fetched4 {passing} goto from_denied",
    )
    assert (
        "ip6 daddr != @friends6 ip6 daddr & ffff:ffff:ffff:ffff:: @sip6_64 goto to_banned"
        in chains["to6_sip"].rules
    )
    assert "ip6 daddr & ffff:ffff:ffff:: @sip6_48 goto to_banned" in chains["to6_sip"].rules
    for name in ("from_banned", "to_banned", "from_denied", "to_denied"):
        side = "saddr" if name.startswith("from") else "daddr"
        assert chains[name].rules == (
            f'ip {side} != 127.82.70.0/24 counter name "{name}"',
            f'ip6 {side} != 2001:db8:5246::/112 counter name "{name}"',
            "drop",
        )


def test_decided_networks_are_dropped_at_the_sip_ports() -> None:
    """Decisions of other hosts drop SIP alone: new flows behind tracking, or all packets without it."""
    known = ("friends4", "unshielded4", "admitted4")
    passing = " ".join(f"ip saddr != @{name}" for name in known)
    every = chains_of(FirewallPlan(decisions=True))
    assert every["from4_asterisk"].rules[-1] == f"ip saddr @decided4 {passing} goto from_denied"
    tests = ("udp dport { 4569, 5060 }", "tcp dport { 5038, 5060, 5061, 8089 }")
    new = chains_of(FirewallPlan(decisions=True, new_only=True))
    for test in tests:
        rule = (
            f"{test} ct state new,untracked ip saddr @decided4 ip saddr != @allow4 {passing} goto from_denied"
        )
        assert rule in new["input"].rules
    for chains in (chains_of(FirewallPlan()), chains_of(FirewallPlan(new_only=True))):
        assert not [rule for chain in chains.values() for rule in chain.rules if "decided" in rule]


def test_only_the_sip_ports() -> None:
    """Without ``every_port`` a ban applies to the SIP ports and the port of the probe."""
    chains = chains_of(FirewallPlan(every_port=False, sip_ports=Ports((5060,), (5061, 8089))))

    assert chains["from4"].rules == (
        f"udp dport {{ 5060, {PROBE_PORT} }} jump from4_ban",
        "tcp dport { 5061, 8089 } jump from4_ban",
        "udp dport { 5060 } jump from4_asterisk",
        "tcp dport { 5061, 8089 } jump from4_asterisk",
        "udp dport { 5060 } jump from4_sip",
        "tcp dport { 5061, 8089 } jump from4_tcp",
    )
    assert chains["to6"].rules[0] == f"udp sport {{ 5060, {PROBE_PORT} }} jump to6_ban"


def test_the_log_rules_precede_the_drops_by_receiver() -> None:
    """In prerouting the log rules match only forwarded packets; no interface or list limits them."""
    stream = "tcp sport { 5038, 5060, 5061, 8089 }"
    datagrams = f"meta l4proto udp @th,64,88 {DATAGRAMS}"
    log = f"log group {GROUP}"
    passing = "fib saddr . iif oif != 0 fib daddr type unicast"
    for plan in (FirewallPlan(log_group=GROUP), EVERYTHING, evolve(EVERYTHING, action=BanAction.TCP_RESET)):
        chains = chains_of(plan)
        rules = chains["prerouting"].rules
        end = len(rules) if plan.interfaces else len(rules) - 2
        copied = [
            match
            for v, n in (("ip", 4), ("ip6", 6))
            for match in (
                f"{v} daddr @observed{n}",
                f"{v} daddr != @allow{n} {v} daddr != @friends{n} {v} daddr != @observed{n}",
            )
        ]
        others = [
            f"udp sport {{ 5060 }} @th,64,64 0x5349502f322e3020 @th,64,88 != {DATAGRAMS} {whose} {log}"
            for whose in copied
        ]
        assert rules[end - 6 : end] == (
            f"{datagrams} {passing} {log}",
            *(f"{passing} {other}" for other in others),
            f"{stream} {passing} jump segments",
        )
        assert chains["output"].rules[:7] == (
            f"{datagrams} {log}",
            *(f'oifname != "lo" {other}' for other in others),
            f'oifname "lo" {stream} jump answers',
            f'oifname != "lo" {stream} jump segments',
        )
        assert chains["segments"].rules == (
            "ip daddr != @observed4 ip daddr @allow4 goto answers",
            "ip daddr != @observed4 ip daddr @friends4 goto answers",
            "ip6 daddr != @observed6 ip6 daddr @allow6 goto answers",
            "ip6 daddr != @observed6 ip6 daddr @friends6 goto answers",
            log,
        )
        assert chains["answers"].rules == (
            f"@ih,0,88 {ANSWERS} {log}",
            f"@ih,0,8 0x81 @ih,8,8 126 @ih,32,88 {ANSWERS} {log}",
            f"@ih,0,8 0x81 @ih,8,8 < 126 @ih,16,88 {ANSWERS} {log}",
        )
        assert not any(
            rule.endswith("accept")
            for name in ("prerouting", "input", "forward")
            if name in chains
            for rule in chains[name].rules
        )


def test_without_inner_headers_two_lengths_are_inspected() -> None:
    """Without @ih the log rules inspect TCP headers of 20 and 32 bytes; without TCP ports only UDP."""
    old = {
        chain.name: chain
        for chain in ruleset(FirewallPlan(log_group=GROUP), default_ban_sets(), inner=False).chains
    }
    assert list(old["answers"].rules) == [
        f"tcp doff 5 @th,160,88 {ANSWERS} log group {GROUP}",
        f"tcp doff 5 @th,160,8 0x81 @th,168,8 126 @th,192,88 {ANSWERS} log group {GROUP}",
        f"tcp doff 5 @th,160,8 0x81 @th,168,8 < 126 @th,176,88 {ANSWERS} log group {GROUP}",
        f"tcp doff 8 @th,256,88 {ANSWERS} log group {GROUP}",
        f"tcp doff 8 @th,256,8 0x81 @th,264,8 126 @th,288,88 {ANSWERS} log group {GROUP}",
        f"tcp doff 8 @th,256,8 0x81 @th,264,8 < 126 @th,272,88 {ANSWERS} log group {GROUP}",
    ]
    assert not any("@ih" in rule for chain in old.values() for rule in chain.rules)
    without = chains_of(FirewallPlan(log_group=GROUP, sip_ports=Ports((5060,), ())))["output"].rules
    assert [rule.split()[0] for rule in without if "log group" in rule] == ["meta", *["oifname"] * 4]


def test_interfaces_limit_the_drops() -> None:
    """Interfaces of the plan and lo limit the drops; routed packets are dropped in forward."""
    chains = chains_of(FirewallPlan(interfaces=("eth0", "ens18")))

    names = '{ "eth0", "ens18", "lo" }'
    assert chains["prerouting"].rules == (
        f"iifname {names} ip saddr != @allow4 jump from4",
        f"iifname {names} ip6 saddr != @allow6 jump from6",
    )
    leaving = (
        f"oifname {names} ip daddr != @allow4 jump to4",
        f"oifname {names} ip6 daddr != @allow6 jump to6",
    )
    assert chains["output"].rules == chains["forward"].rules == leaving


@pytest.mark.parametrize("name", ["", 'a"b', "a b", "a{", "a\nb", "a\\"])
def test_an_invalid_interface_name_is_refused(name: str) -> None:
    """An invalid interface name is refused, and never written into the rules."""
    with pytest.raises(FirewallError, match="not a valid interface name"):
        ruleset(FirewallPlan(interfaces=(name,)), default_ban_sets())


@pytest.mark.parametrize(
    ("action", "last", "passing"),
    [
        (
            BanAction.PORT_UNREACHABLE,
            ("reject with icmpx port-unreachable",),
            ["icmp type destination-unreachable accept", "icmpv6 type destination-unreachable accept"],
        ),
        (
            BanAction.ADMIN_PROHIBITED,
            ("reject with icmpx admin-prohibited",),
            ["icmp type destination-unreachable accept", "icmpv6 type destination-unreachable accept"],
        ),
        (
            BanAction.TCP_RESET,
            ("meta l4proto tcp reject with tcp reset", "drop"),
            ["tcp flags & rst == rst accept"],
        ),
    ],
)
def test_a_rejection_stands_before_the_filter(
    action: BanAction, last: tuple[str, ...], passing: list[str]
) -> None:
    """Input and forward reject, raw drops only packets to banned addresses, and rejections pass."""
    chains = chains_of(FirewallPlan(action=action))

    assert chains["from_banned"].rules[2:] == last
    assert chains["to_banned"].rules[2:] == ("drop",)
    assert not any("jump from" in rule for rule in chains["prerouting"].rules)
    for hook in ("input", "forward"):
        assert (chains[hook].hook, chains[hook].priority) == (hook, -10)
        assert chains[hook].rules == ("ip saddr != @allow4 jump from4", "ip6 saddr != @allow6 jump from6")
    assert list(chains["output"].rules[: len(passing)]) == passing


def test_drops_are_logged_if_configured() -> None:
    """With a log each drop has a log rule before it, except if the limiter only observes."""
    log = 'limit rate 5/second burst 5 packets log prefix "ringfence: "'
    limited = FirewallPlan(log=True, limit=Limit(LimitMode.ENFORCE))
    for name in ("from_banned", "to_banned", "from_denied", "to_denied", "over4", "over6"):
        rules = chains_of(limited)[name].rules
        assert rules[rules.index("drop") - 1] == log
    observing = chains_of(evolve(limited, limit=Limit(LimitMode.OBSERVE)))["over4"].rules
    assert observing == (
        'counter name "over_limit"',
        "meta l4proto udp update @flood4 { ip saddr counter }",
        "meta l4proto tcp update @flood_tcp4 { ip saddr counter }",
    )
    over = chains_of(FirewallPlan(limit=Limit(LimitMode.OBSERVE)))["over6"].rules
    assert "meta l4proto udp update @flood6 { ip6 saddr & ffff:ffff:ffff:ffff:: counter }" in over
    assert "meta l4proto tcp update @flood_tcp6 { ip6 saddr counter }" in over


def test_the_limiter_counts_packets_and_bytes_of_strangers() -> None:
    """The limiter counts packets (and bytes of TCP) to the SIP ports from unlisted sources, except on lo."""
    chains = chains_of(
        FirewallPlan(limit=Limit(LimitMode.ENFORCE, 50, 200), sip_ports=Ports((5060,), (5061,)))
    )

    assert chains["prerouting"].rules[2] == (
        'iifname != "lo" udp dport { 5060 } fib daddr type local '
        "ip saddr != @allow4 ip saddr != @friends4 ip saddr != @unshielded4 jump limit4"
    )
    source, octets = "ip6 saddr & ffff:ffff:ffff:ffff::", "15000 bytes/second burst 45000 bytes"
    assert chains["limit6"].rules == (
        f"update @rate6 {{ {source} limit rate over 50/second burst 200 packets }} goto over6",
        f"meta l4proto tcp update @bytes6 {{ {source} limit rate over {octets} }} goto over6",
        f'{source} != @rate6 counter name "no_room"',
    )
    assert chains["over4"].rules[-1] == "drop"


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize(("version", "length"), [(4, 1), (4, 32), (6, 128), (6, 7)])
def test_the_name_of_a_ban_set_is_parsed(scope: Scope, version: int, length: int) -> None:
    """The name of a set of bans is parsed into its properties."""
    one = BanSet(scope, version, length)
    assert BanSet.parse(one.name) == one


@pytest.mark.parametrize(
    "name", ["", "ban4", "ban4_", "ban4_0", "ban4_33", "ban5_8", "ban4_08", "__set0", "allow4"]
)
def test_other_names_are_not_ban_sets(name: str) -> None:
    """Other names are parsed as None."""
    assert BanSet.parse(name) is None


def test_the_mark_distinguishes_plans() -> None:
    """The same plan has the same mark, and any other plan or set another."""
    marks = [ruleset(plan, default_ban_sets()).mark for plan in PLANS]
    assert len(set(marks)) == len({repr(plan) for plan in PLANS})
    assert ruleset(FirewallPlan(), default_ban_sets()) == ruleset(FirewallPlan(), default_ban_sets())
    assert ruleset(FirewallPlan(), default_ban_sets() | {BanSet(Scope.FULL, 4, 20)}).mark not in marks


def test_default_lengths_exist_from_the_start() -> None:
    """Every default prefix length has its set, for each scope."""
    assert len(default_ban_sets()) == len(Scope) * sum(map(len, DEFAULT_LENGTHS.values()))
