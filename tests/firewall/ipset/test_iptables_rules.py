"""Properties of the rules of every plan. tests/firewall/test_rulesets.py compares whole rulesets."""

import itertools
import re

import pytest
from attrs import evolve
from tests.support.rulesets import FOLDERS

from ringfence.features.limiter.stage import Limit
from ringfence.features.ration.stage import AskingRation
from ringfence.firewall.contract import (
    FROM_BANNED,
    FROM_DENIED,
    TO_BANNED,
    TO_DENIED,
    BanAction,
    FirewallPlan,
)
from ringfence.firewall.ipset.iptables_rules import PREFIX, counted_rules, named_sets, wanted_rules
from ringfence.firewall.ipset.matches import IptablesRule, byte_limit
from ringfence.firewall.limits import LimitMode

ENFORCE = Limit(LimitMode.ENFORCE)
HOOKED = {"ringfence-pre", "ringfence-out", "ringfence-in", "ringfence-fwd"}
OTHERS = {"DROP", "REJECT", "LOG", "NFLOG", "SET", "TCPMSS", "RETURN"}
PLANS = [
    evolve(pinned.plan, interfaces=names, action=action, log=log)
    for pinned in FOLDERS.values()
    for names, action, log in itertools.product(((), ("eth0", "eth1")), BanAction, (True, False))
]


@pytest.mark.parametrize("version", [4, 6])
def test_every_target_exists_and_accepts_no_packet(version: int) -> None:
    """Every chain that rules jump to is made, and is among those that are removed; no target accepts."""
    for plan in PLANS:
        for chains in wanted_rules(plan, version).values():
            targets = {
                (name, word)
                for name, rules in chains.items()
                for rule in rules
                for before, word in itertools.pairwise(rule.text.split())
                if before in ("-j", "-g")
            }
            own = {word for _, word in targets if word.startswith(PREFIX)}
            assert own <= {*chains}
            assert all(name.startswith(PREFIX) for name in chains)
            assert {word for _, word in targets} - own <= OTHERS
            # A return from the first chains would skip the drops behind it.
            assert not {(name, "RETURN") for name in HOOKED} & targets


@pytest.mark.parametrize("version", [4, 6])
def test_each_limit_has_a_table_of_its_own(version: int) -> None:
    """No two limits share a name: the second would have the table of the first, and so its rate."""
    for plan in PLANS:
        texts = (rule.text for rules in wanted_rules(plan, version)["raw"].values() for rule in rules)
        found = {limit for text in texts for limit in re.findall("-m hashlimit (.*?) (?=-[mjg] )", text)}
        names = [limit.split("--hashlimit-name ")[1].split()[0] for limit in found]
        assert sorted(names) == sorted({*names})


def test_a_table_of_other_numbers_has_another_name() -> None:
    """The kernel keeps a table's numbers while a rule names it: other numbers need another name."""
    names = {
        rule.text.split("--hashlimit-name ")[1].split()[0]
        for limit in (Limit(LimitMode.OBSERVE), ENFORCE, Limit(LimitMode.ENFORCE, rate=20, burst=80))
        for rule in wanted_rules(FirewallPlan(added=(limit,)), 4)["raw"]["ringfence-limit"]
        if "hashlimit" in rule.text
    }
    assert len(names) == 5  # one of them for observing only


def test_no_table_has_two_times() -> None:
    """Rations that remember a stranger for different times share no table, also not of the same limit."""
    limits = {
        limit
        for burst in (5, 60)
        for rules in wanted_rules(FirewallPlan(added=(AskingRation(ENFORCE.mode, burst, 1),)), 4)[
            "raw"
        ].values()
        for rule in rules
        for limit in re.findall("-m hashlimit (.*?) (?=-[mjg] )", rule.text)
    }
    names = [limit.split("--hashlimit-name ")[1].split()[0] for limit in limits]
    assert sorted(names) == sorted({*names})


def test_mode_observe_inspects_no_more_than_its_tables_hold() -> None:
    """In mode observe packets beyond the tables' capacity pass first, without inspection.

    The count of these packets is kept until its burst has returned, so a pause brings no second burst.
    """
    for rate, burst, most, at_once in ((50, 200, 50_000, 350_000), (1, 200, 2_000, 498_000)):
        limit = Limit(LimitMode.OBSERVE, rate=rate, burst=burst)
        first = wanted_rules(FirewallPlan(added=(limit,)), 4)["raw"]["ringfence-limit"][0]
        assert first.text.startswith(
            f"-m hashlimit --hashlimit-above {most}/sec --hashlimit-burst {at_once} "
        )
        assert (first.text.endswith("-j RETURN"), first.kind) == (True, "limiter_full")
        expiry = int(first.text.split("--hashlimit-htable-expire ")[1].split()[0])
        assert expiry >= 1000 * at_once / most
        assert at_once + most * (max(burst // rate, 10) + 1) <= 1_000_000 * 9 // 10


@pytest.mark.parametrize("rate", [1, 2, 10, 50, 60, 500, 5000])
@pytest.mark.parametrize("burst", [5, 60, 200, 1000, 20_000])
def test_bytes_allow_no_more_than_the_burst(rate: int, burst: int) -> None:
    """At most a burst of the smallest guesses may arrive at once, and at least a frame."""
    second, refills = byte_limit(burst * 300, rate * 300)

    assert second > 1500
    assert second * (refills + 1) <= max(burst * 300, 1600)


def test_references_are_counted() -> None:
    """Each rule that names a set is one reference, at least as many as the kernel will count."""
    rules = [
        IptablesRule("-m set ! --match-set one src -m set --match-set two src -j DROP"),
        IptablesRule("-j SET --add-set two src --timeout 10"),
    ]
    assert named_sets({"raw": {"first": rules[:1]}, "filter": {"second": rules}}) == {"one": 2, "two": 3}


def test_counted_rules_are_found_by_position() -> None:
    """Each rule with a kind is returned with its table, chain and position."""
    found = list(counted_rules(wanted_rules(FirewallPlan(log_group=7, added=(ENFORCE,)), 4)))

    assert found[0] == ("raw", "ringfence-pre", 1, FROM_BANNED)
    kinds = {name: [kind for _, chain, _, kind in found if chain == name] for _, name, _, _ in found}
    assert kinds["ringfence-pre"] == [FROM_BANNED, FROM_DENIED, FROM_DENIED]
    for chain in ("ringfence-pre-1-udp", "ringfence-pre-1-tcp"):
        assert kinds[chain] == [FROM_BANNED, FROM_BANNED, "+limiter_full"]
    assert kinds["ringfence-pre-2"] == [TO_BANNED, TO_DENIED, TO_DENIED]
    for chain in ("ringfence-pre-2-3-udp", "ringfence-pre-2-3-tcp"):
        assert kinds[chain] == [TO_BANNED, TO_BANNED]
    assert [(position, kind) for _, chain, position, kind in found if chain == "ringfence-limit"] == [
        (position, "-limiter_full") for position in range(4)
    ]
