"""The names of sets, and the mark of a ruleset. tests/firewall/test_rulesets.py compares whole rulesets."""

import pytest
from tests.support.rulesets import FOLDERS

from ringfence.errors import FirewallError
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.nftables.ruleset import DEFAULT_LENGTHS, BanSet, default_ban_sets, ruleset
from ringfence.values.ban import Scope


@pytest.mark.parametrize("name", ["", 'a"b', "a b", "a{", "a\nb", "a\\"])
def test_an_invalid_interface_name_is_refused(name: str) -> None:
    """An invalid interface name is refused, and never written into the rules."""
    with pytest.raises(FirewallError, match="not a valid interface name"):
        ruleset(FirewallPlan(interfaces=(name,)), default_ban_sets())


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
    """The same plan has the same mark, and any other plan another; a set that a ban adds changes none."""
    plans = [pinned.plan for pinned in FOLDERS.values()]
    marks = [ruleset(plan, default_ban_sets()).mark for plan in plans]
    assert len({*marks}) == len(plans)
    assert marks == [ruleset(plan, default_ban_sets()).mark for plan in plans]
    assert ruleset(plans[0], default_ban_sets() | {BanSet(Scope.FULL, 4, 20)}).mark == marks[0]


def test_default_lengths_exist_from_the_start() -> None:
    """Every default prefix length has its set, for each scope."""
    assert len(default_ban_sets()) == len(Scope) * sum(map(len, DEFAULT_LENGTHS.values()))
