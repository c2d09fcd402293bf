"""Missing features of a kernel or of nft, simulated by a wrapper of the real nft."""

from pathlib import Path

import pytest
from attrs import evolve
from tests.support.netns import run

from ringfence.features.limiter.stage import Limit
from ringfence.firewall.contract import FirewallPlan, Requirement
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.firewall.nftables.installation import (
    LIMITS_FIX,
    LOG_FIX,
    find_nft,
    rule_requirements,
    variants,
)

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

FULL = FirewallPlan(log_group=7, added=(Limit(LimitMode.ENFORCE),))
BANS, LOG, LIMITS = "sets and rules of nftables", "the log rules for the wire", "the limits"


def refusing(folder: Path, text: str) -> str:
    """Return a wrapper of nft with which the kernel refuses every rule that contains ``text``."""
    wrapper = folder / "nft"
    wrapper.write_text(f"#!/bin/sh\nsed 's/{text}/unknown-to-all/' | {find_nft()} \"$@\"\n", "ascii")
    wrapper.chmod(0o755)
    return str(wrapper)


def test_this_kernel_lacks_nothing() -> None:
    """Each requirement of the plan is named, none is missing, and the kernel is unchanged."""
    *found, fragments = rule_requirements(find_nft(), FULL)
    assert found == [Requirement(BANS), Requirement(LOG), Requirement(LIMITS)]
    assert rule_requirements(find_nft(), FirewallPlan()) == [Requirement(BANS), fragments]
    assert fragments.problem is None
    assert run("nft", "list", "ruleset") == ""


def test_an_existing_table_makes_no_difference() -> None:
    """An existing table with another plan makes no difference, and stays as it is."""
    backend = NftablesBackend(FirewallPlan(maxelem=1000))
    backend.open()
    before = run("nft", "list", "ruleset")

    assert all(requirement.problem is None for requirement in rule_requirements(find_nft(), FULL))
    assert run("nft", "list", "ruleset") == before
    backend.close()


def test_a_kernel_before_5_7_is_named(tmp_path: Path) -> None:
    """Without counters in sets no ban is possible: the problem names the required versions."""
    [requirement] = rule_requirements(refusing(tmp_path, "counter; size"), FULL)

    assert (requirement.name, requirement.optional) == (BANS, False)
    assert requirement.problem is not None
    assert requirement.problem.startswith("refused: ")
    assert "Linux 5.7" in requirement.problem


@pytest.mark.parametrize(
    ("text", "name", "fix"), [("log group", LOG, LOG_FIX), ("limit rate over", LIMITS, LIMITS_FIX)]
)
def test_an_optional_requirement_is_named_with_its_fix(
    tmp_path: Path, text: str, name: str, fix: str
) -> None:
    """Log rules and limiter are optional: bans work without them."""
    requirements = rule_requirements(refusing(tmp_path, text), FULL)

    [missing] = [requirement for requirement in requirements if requirement.problem is not None]
    assert (missing.name, missing.optional) == (name, True)
    assert missing.problem is not None
    assert missing.problem.endswith(fix)


def test_a_kernel_before_5_16_is_a_note(tmp_path: Path) -> None:
    """Without ``@ih`` the log rules exist, and the note states what they miss."""
    requirements = {
        requirement.name: requirement for requirement in rule_requirements(refusing(tmp_path, "@ih"), FULL)
    }

    assert requirements[LOG].problem is None
    assert "`@ih` (Linux 5.16" in requirements[LOG].note


def test_a_kernel_without_connection_tracking_drops_all_packets_of_feeds() -> None:
    """After all variants that track connections come those that do not."""
    plans = [plan for plan, *_ in variants(evolve(FULL, new_only=True))]

    assert [plan.new_only for plan in plans] == [True] * (len(plans) // 2) + [False] * (len(plans) // 2)
    assert plans[len(plans) // 2 :] == [plan for plan, *_ in variants(FULL)]


def test_variants_have_fewer_and_fewer_features() -> None:
    """The first variant is the whole plan; the last has neither log rules nor limiter."""
    plans = [plan for plan, *_ in variants(FULL)]

    assert plans[0] == FULL
    assert plans[-1] == FirewallPlan(sender_rate=0)
