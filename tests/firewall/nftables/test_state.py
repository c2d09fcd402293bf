"""The state of our table: read, compared, and foreign changes named."""

from collections.abc import Iterator

import pytest
from attrs import evolve
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.features.fence.stage import FenceFilter
from ringfence.features.limiter.stage import Limit
from ringfence.features.ration.stage import AskingRation, Ration
from ringfence.firewall.contract import BanAction, FirewallPlan
from ringfence.firewall.limits import Filter, LimitMode
from ringfence.firewall.nftables.ruleset import Ruleset, default_ban_sets, ruleset, ruleset_text
from ringfence.firewall.nftables.state import (
    TableState,
    changed_limits,
    difference,
    read_sets,
    read_state,
    require_own_sets,
)
from ringfence.netlink.connection import NetlinkConnection

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

PLAN = FirewallPlan(log_group=7, added=(Limit(LimitMode.OBSERVE),))
RULES = ruleset(PLAN, default_ban_sets())


@pytest.fixture
def kernel(netns: None) -> Iterator[NetlinkConnection]:
    """Yield a connection to this test's kernel."""
    with NetlinkConnection(extended=True) as made:
        yield made


def install(kernel: NetlinkConnection, rules: Ruleset = RULES) -> TableState:
    """Write rules as the backend does, and return the resulting state."""
    before = read_state(kernel)
    run("nft", "-f", "-", text=ruleset_text(rules, stale=before.stale_chains(rules) if before else ()))
    state = read_state(kernel)
    assert state is not None
    return state


def test_a_missing_table_has_no_state(kernel: NetlinkConnection) -> None:
    """Without our table there is no state, and no set."""
    run("nft", "add", "table", "inet", "theirs")
    assert (read_state(kernel), read_sets(kernel)) == (None, [])


def test_an_installation_matches_its_rules(kernel: NetlinkConnection) -> None:
    """After the installation the state matches the rules; foreign tables and elements are not part of it."""
    run("nft", "add table inet theirs; add chain inet theirs c; add rule inet theirs c counter")
    state = install(kernel)
    assert state.matches(RULES)
    assert state.bans == default_ban_sets()
    assert state.stale_chains(RULES) == ()
    require_own_sets(state)

    run("nft", "add element inet ringfence ban4_32 { 192.0.2.1 timeout 60s }; delete table inet theirs")
    assert difference(state, read_state(kernel)) is None


def test_two_installations_have_one_shape(kernel: NetlinkConnection) -> None:
    """Two installations of the same rules differ but have one shape; another plan has another shape."""
    first, second = install(kernel), install(kernel)
    assert first != second
    assert first.shape == second.shape
    other = ruleset(FirewallPlan(action=BanAction.TCP_RESET), default_ban_sets())
    third = install(kernel, other)
    assert third.shape != first.shape
    assert (third.matches(other), third.matches(RULES)) == (True, False)
    stale = set(third.stale_chains(RULES))
    assert stale > {"input_reject", "forward_reject"}
    assert stale == {chain.name for chain in other.chains} - {chain.name for chain in RULES.chains}
    assert install(kernel).shape == first.shape


@pytest.mark.parametrize(
    ("added", "changed"),
    [
        ((Limit(LimitMode.ENFORCE), Ration(LimitMode.OBSERVE)), set()),
        ((Limit(LimitMode.ENFORCE, 7, 30), Ration(LimitMode.ENFORCE)), {"rate", "bytes"}),
        ((Limit(LimitMode.ENFORCE), Ration(LimitMode.ENFORCE, 9)), {"ration", "ration_bytes"}),
        ((Limit(LimitMode.ENFORCE), Ration(LimitMode.ENFORCE), AskingRation(LimitMode.ENFORCE)), set()),
        ((Limit(LimitMode.ENFORCE),), set()),
    ],
)
def test_tables_with_changed_limits_are_named(
    kernel: NetlinkConnection, added: tuple[Filter, ...], changed: set[str]
) -> None:
    """Tables that existed with other limits are named; new and deleted ones, and other modes, are not."""
    plan = FirewallPlan(log_group=7, added=(Limit(LimitMode.ENFORCE), Ration(LimitMode.ENFORCE)))
    before = install(kernel, ruleset(plan, default_ban_sets()))
    now = install(kernel, ruleset(evolve(plan, added=added), default_ban_sets()))
    assert {*changed_limits(before, now)} == {f"{name}{version}" for name in changed for version in (4, 6)}


def test_what_rejects_is_deleted_by_a_plan_that_drops() -> None:
    """No chain of input and forward has the same name in both: a packet on its way meets the old rules."""
    fence = FenceFilter(LimitMode.OBSERVE)
    reject, drop = (
        {chain.name for chain in ruleset(FirewallPlan(action=one, added=(fence,)), default_ban_sets()).chains}
        for one in (BanAction.PORT_UNREACHABLE, BanAction.DROP)
    )
    assert {one for one in reject & drop if one.startswith(("input", "forward"))} == set()
    assert {one for one in drop if one.startswith("input")}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("delete table inet ringfence", "table inet ringfence is gone"),
        ("add table inet ringfence { flags dormant; }", "table inet ringfence is dormant"),
        ("flush chain inet ringfence to_banned", "a rule of chain to_banned of"),
        (
            "add rule inet ringfence from4_ban accept",
            "the rules of chain from4_ban of table inet ringfence were",
        ),
        ("insert rule inet ringfence output accept", "the rules of chain output of"),
        ("add chain inet ringfence mine", "another program added chain mine to table inet ringfence"),
        ("add set inet ringfence m { type mark; }", "another program added set m to table inet ringfence"),
        (
            "add chain inet ringfence output { policy drop; }",
            "chain output of table inet ringfence was replaced",
        ),
        ("flush table inet ringfence; delete chain inet ringfence from4_sip", "chain from4_sip of"),
        ("flush table inet ringfence; delete set inet ringfence ban6_48", "set ban6_48 of"),
    ],
)
def test_a_change_is_named(kernel: NetlinkConnection, damage: str, named: str) -> None:
    """A missing, added, replaced or dormant object is named, and writing the rules again repairs it."""
    state = install(kernel)
    run("nft", damage)
    now = read_state(kernel)

    assert named in (difference(state, now) or "")
    assert now is None or not now.matches(RULES) or now.shape != state.shape
    repaired = install(kernel)
    assert repaired.matches(RULES)
    extra = {"m"} & {head.name for head in repaired.sets}
    assert repaired.shape == state.shape or extra


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ("ban4_32 { type ipv4_addr; }", "has the flags 0x0 and not 0x10"),
        ("ban4_24 { type ipv6_addr; flags timeout; }", "does not hold addresses of IPv4"),
        ("allow6 { type ipv6_addr; flags timeout; }", "has the flags 0x10 and not 0x4"),
        ("rate4 { type ipv4_addr; flags timeout; }", "has the flags 0x10 and not 0x30"),
    ],
)
def test_a_set_of_our_name_and_another_type_is_an_error(
    kernel: NetlinkConnection, declared: str, why: str
) -> None:
    """A set with one of our names and another type is an error with the fix."""
    run("nft", f"add table inet ringfence; add set inet ringfence {declared}")
    state = read_state(kernel)
    assert state is not None
    with pytest.raises(FirewallError, match=f"{why}; fix: `ringfence off`"):
        require_own_sets(state)
