"""What the rules are for each plan, as iptables-save prints them. Real packets: test_ipset_packets.py."""

import itertools

import pytest

from ringfence.firewall.contract import PROBE_PORT, Limit, LimitMode, Plan, Ports, Verdict
from ringfence.firewall.iptables_rules import (
    AT_LIMITER,
    CHAINS,
    FROM_BANNED,
    FROM_DENIED,
    OVER_LIMIT,
    TO_DENIED,
    WITHIN_LIMIT,
    byte_budget,
    kinds_of,
    named_sets,
    wanted_rules,
)

ENFORCE = Limit(LimitMode.ENFORCE)
PLANS = [
    Plan(log_group=group, every_port=every, interfaces=names, verdict=verdict, log=log, limit=Limit(mode))
    for group, every, names, verdict, log, mode in itertools.product(
        (None, 7), (True, False), ((), ("eth0", "eth1")), Verdict, (True, False), LimitMode
    )
]


def texts(plan: Plan, version: int = 4) -> dict[str, list[str]]:
    """Give each chain's rules, of all tables."""
    return {
        f"{table} {name}": [rule.text for rule in rules]
        for table, chains in wanted_rules(plan, version).items()
        for name, rules in chains.items()
    }


def test_the_rules_without_any_wish() -> None:
    """Not allowed and banned is dropped, both ways, and routed ones on their way in; then those denied."""
    udp = "-p udp -m multiport --{}ports 4569,5060 "
    drop = "-m set ! --match-set ringfence-allow4 {1} -m set --match-set {0} {1} -j DROP"
    banned = ["ringfence4", "ringfence-udp4", "ringfence-deny4"]
    coming = [drop.format(name, "src") for name in banned]
    going = [drop.format(name, "dst") for name in banned]
    coming[1] = udp.format("d") + coming[1]
    going[1] = udp.format("s") + going[1]

    assert texts(Plan()) == {"raw ringfence-pre": [*coming, *going], "raw ringfence-out": going}


@pytest.mark.parametrize("version", [4, 6])
def test_no_plan_has_a_rule_that_lets_everything_by(version: int) -> None:
    """Every end of a rule is a drop, a log, a count, one of our chains, or the limiter's way back."""
    for plan in PLANS:
        for chain, rules in texts(plan, version).items():
            for rule in rules:
                target = rule.rsplit("-j ", 1)[-1] if "-j " in rule else rule.rsplit("-g ", 1)[-1]
                assert target.split()[0] in {
                    *("DROP", "REJECT", "LOG", "NFLOG", "SET", "-m"),
                    *("ringfence-drop", "ringfence-reject", "ringfence-limit", "ringfence-over", "RETURN"),
                }
                if "RETURN" in rule:
                    assert chain == "raw ringfence-limit"
                    assert rule is rules[-1] or "--hashlimit-name ringfence-all-" in rule


@pytest.mark.parametrize("version", [4, 6])
def test_every_chain_that_is_jumped_to_is_there_and_known(version: int) -> None:
    """Chains that rules jump to are made, are used, and are among those that are removed."""
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


def test_the_order_is_bans_then_the_denied_then_the_limiter_then_the_wire() -> None:
    """The limiter stands behind every drop, and the log rule behind the limiter."""
    rules = wanted_rules(Plan(log_group=7, limit=ENFORCE), 4)["raw"]["ringfence-pre"]
    kinds = [rule.kind for rule in rules]

    assert kinds[:3] == [FROM_BANNED, FROM_BANNED, FROM_DENIED]
    assert kinds[5:] == [TO_DENIED, AT_LIMITER, AT_LIMITER, ""]
    assert "-j NFLOG" in rules[-1].text


def test_a_ban_of_the_sip_ports_leaves_the_others() -> None:
    """With `every_port` false all that drops names ports of this host, and the probe's with them."""
    rules = texts(Plan(every_port=False))

    assert [rule.split(" -m set")[0] for rule in rules["raw ringfence-out"]] == [
        f"-p udp -m multiport --sports 4569,5060,{PROBE_PORT}",
        "-p tcp -m multiport --sports 5038,5060,5061,8089",
        "-p udp -m multiport --sports 4569,5060",
        f"-p udp -m multiport --sports 4569,5060,{PROBE_PORT}",
        "-p tcp -m multiport --sports 5038,5060,5061,8089",
    ]
    assert all("--dports" in rule for rule in rules["raw ringfence-pre"] if " src " in rule)


def test_more_ports_than_a_rule_takes() -> None:
    """Ports beyond fifteen go into another rule, and none into no rule."""
    rules = texts(Plan(sip_ports=Ports(udp=tuple(range(5000, 5031)), tcp=()), limit=ENFORCE))
    of_udp = [rule.split()[5].split(",") for rule in rules["raw ringfence-out"] if rule.startswith("-p udp")]

    assert [len(ports) for ports in of_udp] == [15, 15, 1]
    assert not [rule for rule in rules["raw ringfence-pre"] if rule.startswith("-p tcp")]


def test_interfaces_are_on_what_drops_and_not_on_the_wire() -> None:
    """Each drop is for each interface; what is routed out through one is dropped where that is known."""
    rules = texts(Plan(interfaces=("eth0", "eth1"), log_group=7, limit=ENFORCE))

    for rule in [*rules["raw ringfence-pre"], *rules["raw ringfence-out"]]:
        assert rule.startswith(("-i eth", "-o eth")) == ("NFLOG" not in rule)
    assert not [rule for rule in rules["raw ringfence-pre"] if " dst -j DROP" in rule]
    assert [rule.split()[:2] for rule in rules["filter ringfence-fwd"]] == [
        ["-o", "eth0"],
        ["-o", "eth1"],
    ] * 3
    assert "filter ringfence-in" not in rules


@pytest.mark.parametrize(
    ("version", "verdict", "end", "own"),
    [
        (4, Verdict.PORT_UNREACHABLE, "icmp-port-unreachable", "-p icmp -m icmp ! --icmp-type 3/3"),
        (4, Verdict.ADMIN_PROHIBITED, "icmp-admin-prohibited", "-p icmp -m icmp ! --icmp-type 3/13"),
        (6, Verdict.PORT_UNREACHABLE, "icmp6-port-unreachable", "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/4"),
        (6, Verdict.ADMIN_PROHIBITED, "icmp6-adm-prohibited", "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/1"),
        (4, Verdict.TCP_RESET, "tcp-reset", "-p tcp -m tcp ! --tcp-flags RST RST"),
    ],
)
def test_a_rejection_stands_in_filter_and_gets_out(
    version: int, verdict: Verdict, end: str, own: str
) -> None:
    """No drop of what comes stands in raw, and of what goes the kernel's own rejection is spared."""
    rules = texts(Plan(verdict=verdict), version)

    assert not [rule for rule in rules["raw ringfence-pre"] if " src " in rule]
    assert rules["filter ringfence-in"] == rules["filter ringfence-fwd"]
    assert {rule.rsplit(" ", 1)[1] for rule in rules["filter ringfence-in"]} == {"ringfence-reject"}
    assert rules["filter ringfence-reject"][0].endswith(f"-j REJECT --reject-with {end}")
    assert len(rules["filter ringfence-reject"]) == 1 + (verdict is Verdict.TCP_RESET)
    protocol = own.split()[1]
    assert [rule.split(" -m set")[0] for rule in rules["raw ringfence-out"]] == [
        f"! -p {protocol}",
        own,
        "-p udp -m multiport --sports 4569,5060",
        f"! -p {protocol}",
        own,
    ]


def test_a_log_stands_before_the_drop() -> None:
    """Where a log is asked for every drop logs, a few a second; where it is not, none does."""
    for verdict in Verdict:
        logged = texts(Plan(log=True, verdict=verdict, limit=ENFORCE))
        for rules in logged.values():
            ends = [rule for rule in rules if rule.endswith("-j DROP") or "REJECT" in rule]
            if ends:
                assert "--limit 5/sec" in rules[rules.index(ends[0]) - 1]
                assert '-j LOG --log-prefix "ringfence: "' in rules[rules.index(ends[0]) - 1]
        assert not [r for rules in texts(Plan(verdict=verdict)).values() for r in rules if "LOG" in r]


def test_the_limiter_is_for_strangers_at_the_sip_ports() -> None:
    """Neither the loopback, nor friends, nor who is allowed; IPv6 by /64; only enforcing drops."""
    rules = texts(Plan(limit=ENFORCE), 6)
    first, second = rules["raw ringfence-pre"][-2:]

    assert first == (
        "! -i lo -p udp -m multiport --dports 4569,5060 -m set ! --match-set ringfence-friends6 src "
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
    observed = texts(Plan(limit=Limit(LimitMode.OBSERVE)), 6)
    assert observed["raw ringfence-over"] == rules["raw ringfence-over"][:-1]
    assert wanted_rules(Plan(limit=ENFORCE), 6, limiter=False) == wanted_rules(Plan(), 6)


def test_a_table_of_other_numbers_has_another_name() -> None:
    """The kernel keeps a table's numbers as long as a rule names it: other numbers, another name."""
    names = {
        rule.split("--hashlimit-name ")[1].split()[0]
        for limit in (Limit(LimitMode.OBSERVE), ENFORCE, Limit(LimitMode.ENFORCE, rate=20, burst=80))
        for rule in texts(Plan(limit=limit))["raw ringfence-limit"]
        if "hashlimit" in rule
    }
    assert len(names) == 7  # one of them for observing only


def test_observing_looks_at_no_more_than_its_tables_hold() -> None:
    """Before all else what is too much to be remembered passes, without having been looked at."""
    for rate, burst, most in ((50, 200, 50_000), (1, 200, 2_000), (1, 1_000_000, 1)):
        limit = Limit(LimitMode.OBSERVE, rate=rate, burst=burst)
        first = wanted_rules(Plan(limit=limit), 4)["raw"]["ringfence-limit"][0]
        assert first.text.startswith(f"-m hashlimit --hashlimit-above {most}/sec --hashlimit-burst {most} ")
        assert (first.text.endswith("-j RETURN"), first.kind) == (True, "")
        assert most * (max(burst // rate, 10) + 2) < 1_000_100


def test_a_slow_limit_remembers_until_its_burst_has_grown_again() -> None:
    """A source may not have a new burst sooner by being forgotten than by waiting."""
    [first, *_] = texts(Plan(limit=Limit(LimitMode.ENFORCE, rate=2, burst=200)))["raw ringfence-limit"]
    assert "--hashlimit-htable-expire 100000 " in first


@pytest.mark.parametrize("rate", [1, 2, 10, 50, 60, 500, 5000])
@pytest.mark.parametrize("burst", [5, 60, 200, 1000, 20_000])
def test_bytes_allow_no_more_than_the_burst(rate: int, burst: int) -> None:
    """What may come at once is no more than a burst of the smallest guesses, and no less than a frame."""
    second, refills = byte_budget(Limit(LimitMode.ENFORCE, rate=rate, burst=burst))

    assert second * 1024 > 1500
    assert refills >= 1
    assert second * 1024 * (refills + 1) <= max(burst * 300, 4096)


def test_references_are_counted() -> None:
    """Each naming of a set is one reference, at least as many as the kernel will count."""
    rules = wanted_rules(Plan(limit=ENFORCE), 4)

    assert named_sets(rules) == {
        "ringfence4": 3,
        "ringfence-udp4": 3,
        "ringfence-deny4": 3,
        "ringfence-allow4": 11,
        "ringfence-friends4": 2,
        "ringfence-flood4": 2,
    }


def test_what_counts_is_found_by_its_place() -> None:
    """Each rule that counts something is told with where it stands."""
    found = list(kinds_of(wanted_rules(Plan(limit=ENFORCE), 4)))

    assert ("raw", "ringfence-pre", 0, FROM_BANNED) in found
    assert [(place, kind) for _, chain, place, kind in found if chain == "ringfence-limit"] == [
        *((place, OVER_LIMIT) for place in range(4)),
        (4, WITHIN_LIMIT),
    ]
