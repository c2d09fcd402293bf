"""The ruleset's text: a function of the plan, which nft takes; what it does is tried elsewhere."""

import subprocess

import pytest
from attrs import evolve

from ringfence.errors import FirewallError
from ringfence.firewall.contract import PROBE_PORT, Limit, LimitMode, Plan, Ports, Verdict
from ringfence.firewall.nft_rules import USUAL, BanSet, Chain, ruleset, text_of, usual_sets
from ringfence.model import Scope

GROUP = 21_063
CHALLENGE = "meta l4proto udp @th,64,88 { 0x5349502f322e3020343031, 0x5349502f322e3020343037 }"
EVERYTHING = Plan(
    log_group=GROUP,
    every_port=False,
    interfaces=("eth0", "eth1"),
    log=True,
    limit=Limit(LimitMode.ENFORCE, 50, 200),
)
PLANS = [
    Plan(),
    EVERYTHING,
    *(evolve(EVERYTHING, verdict=verdict) for verdict in Verdict),
    Plan(limit=Limit(LimitMode.OBSERVE, 50, 20)),
    Plan(sip_ports=Ports((), ()), limit=Limit(LimitMode.ENFORCE)),
    Plan(sip_ports=Ports((), ()), every_port=False),
    Plan(sip_ports=Ports((5060,), ()), limit=Limit(LimitMode.OBSERVE, 1, 1)),
]


def chains_of(plan: Plan) -> dict[str, Chain]:
    """Give a plan's chains by their names."""
    return {chain.name: chain for chain in ruleset(plan, usual_sets()).chains}


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("plan", PLANS)
def test_nft_takes_every_plan(plan: Plan) -> None:
    """The platform's nft takes the text of each plan, over any other's, with prefix lengths of all kinds."""
    other = {BanSet(scope, 4, 20) for scope in Scope} | {BanSet(scope, 6, 29) for scope in Scope}
    for one in (Plan(), plan, plan):
        rules = ruleset(one, usual_sets() | other)
        done = subprocess.run(
            ["nft", "-f", "-"], input=text_of(rules), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_what_comes_from_and_goes_to_the_banned_is_dropped() -> None:
    """By default: both ways in prerouting and the way out in output, each set once, and nothing is logged."""
    chains = chains_of(Plan())

    assert chains["prerouting"].rules == (
        "ip saddr != @allow4 jump from4",
        "ip6 saddr != @allow6 jump from6",
        "ip daddr != @allow4 jump to4",
        "ip6 daddr != @allow6 jump to6",
    )
    assert chains["output"].rules == ("ip daddr != @allow4 jump to4", "ip6 daddr != @allow6 jump to6")
    assert (chains["prerouting"].priority, chains["output"].priority) == (-300, -300)
    assert chains["from4"].rules == ("jump from4_ban", "udp dport { 4569, 5060 } jump from4_sip")
    assert chains["to6"].rules == ("jump to6_ban", "udp sport { 4569, 5060 } jump to6_sip")
    assert chains["from4_ban"].rules == (
        "ip saddr @ban4_32 goto from_banned",
        "ip saddr & 255.255.255.0 @ban4_24 goto from_banned",
        "ip saddr & 255.255.0.0 @ban4_16 goto from_banned",
        "ip saddr & 255.0.0.0 @ban4_8 goto from_banned",
        "ip saddr @deny4 goto from_denied",
    )
    assert "ip6 daddr & ffff:ffff:ffff:ffff:: @sip6_64 goto to_banned" in chains["to6_sip"].rules
    for name in ("from_banned", "to_banned", "from_denied", "to_denied"):
        assert chains[name].rules == (f'counter name "{name}"', "drop")


def test_only_the_ports_of_sip() -> None:
    """Where a ban does not cover every port it meets the SIP ports, and the one by which bans are tried."""
    chains = chains_of(Plan(every_port=False, sip_ports=Ports((5060,), (5061, 8089))))

    assert chains["from4"].rules == (
        f"udp dport {{ 5060, {PROBE_PORT} }} jump from4_ban",
        "tcp dport { 5061, 8089 } jump from4_ban",
        "udp dport { 5060 } jump from4_sip",
    )
    assert chains["to6"].rules[0] == f"udp sport {{ 5060, {PROBE_PORT} }} jump to6_ban"


def test_the_log_rule_stands_behind_the_drops_on_every_interface() -> None:
    """In prerouting only what is to be routed and came the right way; no interface and no list limits it."""
    for plan in (Plan(log_group=GROUP), EVERYTHING, evolve(EVERYTHING, verdict=Verdict.TCP_RESET)):
        chains = chains_of(plan)
        passing = "fib saddr . iif oif != 0 fib daddr type unicast"
        assert chains["prerouting"].rules[-1] == f"{passing} {CHALLENGE} log group {GROUP}"
        assert chains["output"].rules[-1] == f"{CHALLENGE} log group {GROUP}"
        assert not any(
            rule.endswith("accept")
            for name in ("prerouting", "input", "forward")
            if name in chains
            for rule in chains[name].rules
        )


def test_interfaces_limit_what_is_dropped() -> None:
    """Those of the plan, and lo, where bans are tried; what is routed is dropped where its way is known."""
    chains = chains_of(Plan(interfaces=("eth0", "ens18")))

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
def test_no_text_comes_in_by_an_interface(name: str) -> None:
    """What is no name of an interface is refused, and not written into the rules."""
    with pytest.raises(FirewallError, match="no name of an interface"):
        ruleset(Plan(interfaces=(name,)), usual_sets())


@pytest.mark.parametrize(
    ("verdict", "last", "passing"),
    [
        (
            Verdict.PORT_UNREACHABLE,
            ("reject with icmpx port-unreachable",),
            ["icmp type destination-unreachable accept", "icmpv6 type destination-unreachable accept"],
        ),
        (
            Verdict.ADMIN_PROHIBITED,
            ("reject with icmpx admin-prohibited",),
            ["icmp type destination-unreachable accept", "icmpv6 type destination-unreachable accept"],
        ),
        (
            Verdict.TCP_RESET,
            ("meta l4proto tcp reject with tcp reset", "drop"),
            ["tcp flags & rst == rst accept"],
        ),
    ],
)
def test_a_rejection_stands_before_the_filter(
    verdict: Verdict, last: tuple[str, ...], passing: list[str]
) -> None:
    """Input and forward reject, raw drops only what goes to the banned, and the rejection itself passes."""
    chains = chains_of(Plan(verdict=verdict))

    assert chains["from_banned"].rules[1:] == last
    assert chains["to_banned"].rules[1:] == ("drop",)
    assert not any("jump from" in rule for rule in chains["prerouting"].rules)
    for hook in ("input", "forward"):
        assert (chains[hook].hook, chains[hook].priority) == (hook, -10)
        assert chains[hook].rules == ("ip saddr != @allow4 jump from4", "ip6 saddr != @allow6 jump from6")
    assert list(chains["output"].rules[: len(passing)]) == passing


def test_what_is_dropped_is_logged_where_asked() -> None:
    """With the prefix, a few lines a second, before each drop, and not where the limiter only observes."""
    log = 'limit rate 5/second burst 5 packets log prefix "ringfence: "'
    limited = Plan(log=True, limit=Limit(LimitMode.ENFORCE))
    for name in ("from_banned", "to_banned", "from_denied", "to_denied", "over4", "over6"):
        rules = chains_of(limited)[name].rules
        assert rules[rules.index("drop") - 1] == log
    observing = chains_of(evolve(limited, limit=Limit(LimitMode.OBSERVE)))["over4"].rules
    assert observing == ('counter name "over_limit"', "update @flood4 { ip saddr counter }")


def test_the_limiter_counts_packets_and_bytes_of_strangers() -> None:
    """What is for this host's SIP ports, from nobody on a list, not on lo: packets, and for TCP bytes too."""
    chains = chains_of(Plan(limit=Limit(LimitMode.ENFORCE, 50, 200), sip_ports=Ports((5060,), (5061,))))

    assert chains["prerouting"].rules[4] == (
        'iifname != "lo" udp dport { 5060 } fib daddr type local '
        "ip saddr != @allow4 ip saddr != @friends4 jump limit4"
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
def test_a_set_is_known_by_its_name(scope: Scope, version: int, length: int) -> None:
    """What a set of bans is for is read back from its name."""
    one = BanSet(scope, version, length)
    assert BanSet.read(one.name) == one


@pytest.mark.parametrize(
    "name", ["", "ban4", "ban4_", "ban4_0", "ban4_33", "ban5_8", "ban4_08", "__set0", "allow4"]
)
def test_other_sets_are_none_of_bans(name: str) -> None:
    """Names that no set of bans has are read as None."""
    assert BanSet.read(name) is None


def test_the_mark_tells_plans_apart() -> None:
    """The same plan has the same mark, and any other plan or set another."""
    marks = [ruleset(plan, usual_sets()).mark for plan in PLANS]
    assert len(set(marks)) == len({repr(plan) for plan in PLANS})
    assert ruleset(Plan(), usual_sets()) == ruleset(Plan(), usual_sets())
    assert ruleset(Plan(), usual_sets() | {BanSet(Scope.FULL, 4, 20)}).mark not in marks


def test_usual_lengths_stand_from_the_start() -> None:
    """Every usual length has its set, for each scope."""
    assert len(usual_sets()) == 2 * sum(map(len, USUAL.values()))
