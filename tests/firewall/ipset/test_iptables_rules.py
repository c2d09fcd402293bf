"""The rules of each plan, as iptables-save prints them. test_ipset_packets.py tests real packets."""

import itertools
import re

import pytest

from ringfence.firewall.contract import (
    FROM_BANNED,
    FROM_DENIED,
    PROBE_NETWORKS,
    PROBE_PORT,
    TO_BANNED,
    TO_DENIED,
    BanAction,
    FirewallPlan,
    Limit,
    LimitMode,
    Ports,
)
from ringfence.firewall.ipset.iptables_rules import (
    AT_LIMITER,
    CHAINS,
    OVER_LIMIT,
    WITHIN_LIMIT,
    byte_budget,
    counted_rules,
    named_sets,
    wanted_rules,
)

ENFORCE = Limit(LimitMode.ENFORCE)
PLANS = [
    FirewallPlan(
        log_group=group, every_port=every, interfaces=names, action=action, log=log, limit=Limit(mode)
    )
    for group, every, names, action, log, mode in itertools.product(
        (None, 7), (True, False), ((), ("eth0", "eth1")), BanAction, (True, False), LimitMode
    )
]


def texts(plan: FirewallPlan, version: int = 4) -> dict[str, list[str]]:
    """Return each chain's rules, of all tables, without those for the packets of the probe."""
    probe = PROBE_NETWORKS[version]
    return {
        f"{table} {name}": [rule.text for rule in rules if probe not in rule.text]
        for table, chains in wanted_rules(plan, version).items()
        for name, rules in chains.items()
    }


def test_the_default_rules() -> None:
    """By default banned, denied and fetched addresses are dropped, both ways; phones pass fetched ones."""
    udp = "-p udp -m multiport --{}ports 4569,5060 "
    tcp = "-p tcp -m multiport --{}ports 5038,5060,5061,8089 "
    drop = "-m set ! --match-set ringfence-allow4 {1} -m set --match-set {0} {1} -j DROP"
    sets = {
        "ringfence4": [""],
        "ringfence-sip4": [udp, tcp],
        "ringfence-udp4": [udp],
        "ringfence-tcp4": [tcp],
        "ringfence-deny4": [""],
    }
    banned = [(name, match) for name, matches in sets.items() for match in matches]
    coming = [match.format("d") + drop.format(name, "src") for name, match in banned]
    going = [match.format("s") + drop.format(name, "dst") for name, match in banned]
    passing = "".join(
        f"-m set ! --match-set ringfence-{one}4 {{1}} "
        for one in ("allow", "friends", "unshielded", "admitted")
    )
    fetched = f"-m set --match-set ringfence-fetched4 {{1}} {passing}-j DROP"
    coming.append(fetched.format("", "src"))
    going.append(fetched.format("", "dst"))

    assert texts(FirewallPlan()) == {"raw ringfence-pre": [*coming, *going], "raw ringfence-out": going}


def test_decided_networks_are_dropped_at_the_sip_ports() -> None:
    """Decisions of other hosts drop SIP alone: new flows in filter, or all packets without tracking."""
    tests = (
        "-p udp -m multiport --dports 4569,5060 ",
        "-p tcp -m multiport --dports 5038,5060,5061,8089 ",
    )
    for new_only, chain in ((True, "filter ringfence-in"), (False, "raw ringfence-pre")):
        plan = FirewallPlan(new_only=new_only, decisions=True)
        found = [rule for rule in texts(plan)[chain] if "--match-set ringfence-decided4 src" in rule]
        new = "-m conntrack --ctstate NEW,UNTRACKED " * new_only
        assert [rule.partition("-m set")[0] for rule in found] == [f"{test}{new}" for test in tests]
        assert all(" ! --match-set ringfence-admitted4 src " in rule for rule in found)
    assert not [rule for rules in texts(FirewallPlan()).values() for rule in rules if "decided" in rule]


def test_friends_are_checked_before_bans_that_exempt_them() -> None:
    """For IPv6 each scope has a second set, whose rule first checks for friends; IPv4 has none."""
    for name in ("ringfence-64-6", "ringfence-udp-64-6"):
        naming = [rule for rule in texts(FirewallPlan(), 6)["raw ringfence-pre"] if f" {name} src" in rule]
        assert len(naming) == 1
        assert naming[0].endswith(
            "-m set ! --match-set ringfence-allow6 src -m set ! --match-set ringfence-friends6 src "
            f"-m set --match-set {name} src -j DROP"
        )
    assert not [rule for rules in texts(FirewallPlan(), 4).values() for rule in rules if "-64-" in rule]


@pytest.mark.parametrize("version", [4, 6])
def test_no_plan_has_a_rule_that_accepts(version: int) -> None:
    """Every rule ends in a drop, a log, a count, one of our chains, or the limiter's return."""
    for plan in PLANS:
        for chain, rules in texts(plan, version).items():
            for rule in rules:
                target = rule.rsplit("-j ", 1)[-1] if "-j " in rule else rule.rsplit("-g ", 1)[-1]
                if target == rule:  # no target: it only counts
                    assert "-m set --match-set ringfence-flood" in rule
                    continue
                assert target.split()[0] in {
                    *("DROP", "REJECT", "LOG", "NFLOG", "SET"),
                    *("ringfence-drop", "ringfence-reject", "ringfence-limit", "ringfence-over", "RETURN"),
                    *("ringfence-seen", "ringfence-narrow", "ringfence-segment", "ringfence-answer"),
                }
                if "RETURN" in rule:
                    assert chain in {"raw ringfence-limit", "raw ringfence-seen"}
                    assert rule is rules[-1] or re.search("--hashlimit-name ringfence-(all|copies)-", rule)


@pytest.mark.parametrize("version", [4, 6])
def test_every_target_chain_exists_and_is_known(version: int) -> None:
    """Every chain that rules jump to is made, used, and among those that are removed."""
    for plan in PLANS:
        for table, chains in wanted_rules(plan, version).items():
            targets = {
                word
                for rules in chains.values()
                for rule in rules
                for before, word in itertools.pairwise(rule.text.split())
                if before in ("-j", "-g") and word.startswith("ringfence-")
            }
            hooked = {"ringfence-pre", "ringfence-out", "ringfence-in", "ringfence-fwd"}
            assert targets == set(chains) - hooked
            assert set(chains) <= set(CHAINS[table])


def test_the_order_is_from_banned_limiter_wire_to_banned() -> None:
    """The drops by sender come first, then the limiter, then the log rules, then the drops by receiver."""
    rules = wanted_rules(FirewallPlan(log_group=7, limit=ENFORCE), 4)["raw"]["ringfence-pre"]
    kinds = [rule.kind for rule in rules]

    assert kinds[:10] == ["", *[FROM_BANNED] * 5, *[FROM_DENIED] * 2, AT_LIMITER, AT_LIMITER]
    assert kinds[10:] == [*[""] * 9, *[TO_BANNED] * 5, *[TO_DENIED] * 2]
    for observed, others in (rules[10:12], rules[12:14]):
        assert observed.text.endswith("-m set --match-set ringfence-observed4 src -j ringfence-seen")
        assert others.text.endswith("-m set ! --match-set ringfence-observed4 src -j ringfence-seen")
    assert "-j NFLOG" in rules[14].text
    assert rules[15].text.endswith("-j ringfence-segment")
    assert all("-j NFLOG" in rule.text for rule in rules[16:18])


def test_a_ban_of_the_sip_ports_names_ports() -> None:
    """With ``every_port`` false all drops name ports of this host, and the probe's port."""
    rules = texts(FirewallPlan(every_port=False))

    assert [rule.split(" -m set")[0] for rule in rules["raw ringfence-out"]] == [
        f"-p udp -m multiport --sports 4569,5060,{PROBE_PORT}",
        "-p tcp -m multiport --sports 5038,5060,5061,8089",
        *("-p udp -m multiport --sports 4569,5060", "-p tcp -m multiport --sports 5038,5060,5061,8089") * 2,
        *(
            f"-p udp -m multiport --sports 4569,5060,{PROBE_PORT}",
            "-p tcp -m multiport --sports 5038,5060,5061,8089",
        )
        * 2,
    ]
    assert all("--dports" in rule for rule in rules["raw ringfence-pre"] if " src " in rule)


def test_many_ports_take_several_rules() -> None:
    """Ports beyond fifteen are in another rule; without ports there is no rule."""
    rules = texts(FirewallPlan(sip_ports=Ports(udp=tuple(range(5000, 5031)), tcp=()), limit=ENFORCE))
    of_udp = [rule.split()[5].split(",") for rule in rules["raw ringfence-out"] if rule.startswith("-p udp")]

    assert [len(ports) for ports in of_udp] == [15, 15, 1] * 2  # of two scopes
    assert not [rule for rule in rules["raw ringfence-pre"] if rule.startswith("-p tcp")]


def test_interfaces_limit_the_drops_and_not_the_wire() -> None:
    """Each drop names each interface; routed packets are dropped where the output interface is known."""
    rules = texts(FirewallPlan(interfaces=("eth0", "eth1"), log_group=7, limit=ENFORCE))

    for rule in [*rules["raw ringfence-pre"], *rules["raw ringfence-out"]]:
        wire = (
            rule.split()[-1] in ("ringfence-seen", "ringfence-segment", "ringfence-answer") or "NFLOG" in rule
        )
        assert rule.startswith(("-i eth", "-o eth")) is not wire
    assert not [rule for rule in rules["raw ringfence-pre"] if " dst -j DROP" in rule]
    assert [rule.split()[:2] for rule in rules["filter ringfence-fwd"]] == [
        ["-o", "eth0"],
        ["-o", "eth1"],
    ] * 7
    assert "filter ringfence-in" not in rules


@pytest.mark.parametrize(
    ("version", "action", "end", "own"),
    [
        (4, BanAction.PORT_UNREACHABLE, "icmp-port-unreachable", "-p icmp -m icmp ! --icmp-type 3/3"),
        (4, BanAction.ADMIN_PROHIBITED, "icmp-admin-prohibited", "-p icmp -m icmp ! --icmp-type 3/13"),
        (
            6,
            BanAction.PORT_UNREACHABLE,
            "icmp6-port-unreachable",
            "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/4",
        ),
        (6, BanAction.ADMIN_PROHIBITED, "icmp6-adm-prohibited", "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/1"),
        (4, BanAction.TCP_RESET, "tcp-reset", "-p tcp -m tcp ! --tcp-flags RST RST"),
    ],
)
def test_a_rejection_stands_in_filter_and_passes_raw(
    version: int, action: BanAction, end: str, own: str
) -> None:
    """Table raw drops no incoming packets, and does not drop the kernel's own rejection on the way out."""
    rules = texts(FirewallPlan(action=action), version)

    assert not [rule for rule in rules["raw ringfence-pre"] if " src " in rule]
    assert rules["filter ringfence-in"] == rules["filter ringfence-fwd"]
    assert {rule.rsplit(" ", 1)[1] for rule in rules["filter ringfence-in"]} == {"ringfence-reject"}
    assert rules["filter ringfence-reject"][0].endswith(f"-j REJECT --reject-with {end}")
    assert len(rules["filter ringfence-reject"]) == 1 + (action is BanAction.TCP_RESET)
    protocol = own.split()[1]
    sets = 1 if version == 4 else 2  # of bans for each scope
    udp = "-p udp -m multiport --sports 4569,5060"
    tcp = f"{own} -m " if action is BanAction.TCP_RESET else "-p tcp -m "
    tcp += "multiport --sports 5038,5060,5061,8089"
    assert [rule.split(" -m set")[0] for rule in rules["raw ringfence-out"]] == [
        f"! -p {protocol}",
        own,
        *([f"! -p {protocol}", own] if version == 6 else []),
        *[udp, tcp] * sets,
        *[udp] * sets,
        *[tcp] * sets,
        *[f"! -p {protocol}", own] * 2,
    ]


def test_a_log_stands_before_the_drop() -> None:
    """With a log every drop logs, a few a second; without one none does."""
    for action in BanAction:
        logged = texts(FirewallPlan(log=True, action=action, limit=ENFORCE))
        for rules in logged.values():
            ends = [rule for rule in rules if rule.endswith("-j DROP") or "REJECT" in rule]
            if ends:
                assert "--limit 5/sec" in rules[rules.index(ends[0]) - 1]
                assert '-j LOG --log-prefix "ringfence: "' in rules[rules.index(ends[0]) - 1]
        assert not [r for rules in texts(FirewallPlan(action=action)).values() for r in rules if "LOG" in r]


def test_the_limiter_applies_to_strangers_at_the_sip_ports() -> None:
    """The limiter ignores loopback, friends and allowed networks; IPv6 by /64; only enforce drops."""
    rules = texts(FirewallPlan(limit=ENFORCE), 6)
    first, second = [rule for rule in rules["raw ringfence-pre"] if rule.endswith("-j ringfence-limit")]

    assert first == (
        "! -i lo -p udp -m multiport --dports 4569,5060 -m addrtype --dst-type LOCAL "
        "-m set ! --match-set ringfence-friends6 src "
        "-m set ! --match-set ringfence-unshielded6 src "
        "-m set ! --match-set ringfence-allow6 src -j ringfence-limit"
    )
    assert "-p tcp -m multiport --dports 5038,5060,5061,8089" in second
    packets = rules["raw ringfence-limit"][0]
    assert "--hashlimit-above 50/sec --hashlimit-burst 200 --hashlimit-mode srcip" in packets
    assert packets.endswith(
        "--hashlimit-htable-max 1000000 --hashlimit-htable-expire 10000 --hashlimit-srcmask 64 "
        "-g ringfence-over"
    )
    assert rules["raw ringfence-over"][-1] == "-j DROP"
    observed = texts(FirewallPlan(limit=Limit(LimitMode.OBSERVE)), 6)
    assert observed["raw ringfence-over"] == rules["raw ringfence-over"][:-1]
    assert wanted_rules(FirewallPlan(limit=ENFORCE), 6, limiter=False) == wanted_rules(FirewallPlan(), 6)


def test_a_table_of_other_numbers_has_another_name() -> None:
    """The kernel keeps a table's numbers while a rule names it: other numbers need another name."""
    names = {
        rule.split("--hashlimit-name ")[1].split()[0]
        for limit in (Limit(LimitMode.OBSERVE), ENFORCE, Limit(LimitMode.ENFORCE, rate=20, burst=80))
        for rule in texts(FirewallPlan(limit=limit))["raw ringfence-limit"]
        if "hashlimit" in rule
    }
    assert len(names) == 7  # one of them for observing only


def test_mode_observe_inspects_no_more_than_its_tables_hold() -> None:
    """In mode observe packets beyond the tables' capacity pass first, without inspection."""
    for rate, burst, most in ((50, 200, 50_000), (1, 200, 2_000), (1, 1_000_000, 1)):
        limit = Limit(LimitMode.OBSERVE, rate=rate, burst=burst)
        first = wanted_rules(FirewallPlan(limit=limit), 4)["raw"]["ringfence-limit"][0]
        assert first.text.startswith(f"-m hashlimit --hashlimit-above {most}/sec --hashlimit-burst {most} ")
        assert (first.text.endswith("-j RETURN"), first.kind) == (True, "")
        assert most * (max(burst // rate, 10) + 2) < 1_000_100


def test_a_source_is_kept_until_its_burst_is_available_again() -> None:
    """A source gets no new burst sooner by being forgotten than by waiting."""
    [first, *_] = texts(FirewallPlan(limit=Limit(LimitMode.ENFORCE, rate=2, burst=200)))[
        "raw ringfence-limit"
    ]
    assert "--hashlimit-htable-expire 100000 " in first


@pytest.mark.parametrize("rate", [1, 2, 10, 50, 60, 500, 5000])
@pytest.mark.parametrize("burst", [5, 60, 200, 1000, 20_000])
def test_bytes_allow_no_more_than_the_burst(rate: int, burst: int) -> None:
    """At most a burst of the smallest guesses may arrive at once, and at least a frame."""
    second, refills = byte_budget(Limit(LimitMode.ENFORCE, rate=rate, burst=burst))

    assert second * 1024 > 1500
    assert refills >= 1
    assert second * 1024 * (refills + 1) <= max(burst * 300, 4096)


def test_references_are_counted() -> None:
    """Each rule that names a set is one reference, at least as many as the kernel will count."""
    rules = wanted_rules(FirewallPlan(limit=ENFORCE), 4)

    assert named_sets(rules) == {
        "ringfence4": 6,
        "ringfence-sip4": 6,
        "ringfence-udp4": 3,
        "ringfence-tcp4": 3,
        "ringfence-deny4": 3,
        "ringfence-fetched4": 3,
        "ringfence-allow4": 23,
        "ringfence-friends4": 5,
        "ringfence-unshielded4": 5,
        "ringfence-admitted4": 3,
        "ringfence-flood4": 2,
        "ringfence-flood-tcp-4": 2,
    }


def test_counted_rules_are_found_by_position() -> None:
    """Each rule with a kind is returned with its table, chain and position."""
    found = list(counted_rules(wanted_rules(FirewallPlan(limit=ENFORCE), 4)))

    assert ("raw", "ringfence-pre", 1, FROM_BANNED) in found
    assert [(position, kind) for _, chain, position, kind in found if chain == "ringfence-limit"] == [
        *((position, OVER_LIMIT) for position in range(4)),
        (4, WITHIN_LIMIT),
    ]
