"""What stands in our table: read, compared, and named where somebody changed it."""

from collections.abc import Iterator

import pytest
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.firewall.contract import Limit, LimitMode, Plan, Verdict
from ringfence.firewall.netlink import Conversation
from ringfence.firewall.nft_rules import Ruleset, ruleset, text_of, usual_sets
from ringfence.firewall.nft_state import State, difference, read_sets, read_state, require_ours

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

PLAN = Plan(log_group=7, limit=Limit(LimitMode.OBSERVE))
RULES = ruleset(PLAN, usual_sets())


@pytest.fixture
def kernel(netns: None) -> Iterator[Conversation]:
    """A conversation with this test's kernel."""
    with Conversation(extended=True) as made:
        yield made


def install(kernel: Conversation, rules: Ruleset = RULES) -> State:
    """Put rules in place as the backend does, and give what stands then."""
    before = read_state(kernel)
    run("nft", "-f", "-", text=text_of(rules, stale=before.stale(rules) if before else ()))
    state = read_state(kernel)
    assert state is not None
    return state


def test_nothing_stands_where_there_is_no_table(kernel: Conversation) -> None:
    """Without a table of ours there is no state, and no set."""
    run("nft", "add", "table", "inet", "theirs")
    assert (read_state(kernel), read_sets(kernel)) == (None, [])


def test_what_was_installed_stands(kernel: Conversation) -> None:
    """Right after the installation the rules hold; what others have beside is not seen, nor elements."""
    run("nft", "add table inet theirs; add chain inet theirs c; add rule inet theirs c counter")
    state = install(kernel)
    assert state.holds(RULES)
    assert state.bans == usual_sets()
    assert state.stale(RULES) == ()
    require_ours(state)

    run("nft", "add element inet ringfence ban4_32 { 192.0.2.1 timeout 60s }; delete table inet theirs")
    assert difference(state, read_state(kernel)) is None


def test_two_installations_have_one_shape(kernel: Conversation) -> None:
    """The same rules again are another state of the same shape; those of another plan have another."""
    first, second = install(kernel), install(kernel)
    assert first != second
    assert first.shape == second.shape
    other = ruleset(Plan(verdict=Verdict.TCP_RESET), usual_sets())
    third = install(kernel, other)
    assert third.shape != first.shape
    assert (third.holds(other), third.holds(RULES)) == (True, False)
    assert set(third.stale(RULES)) == {"input", "forward"}
    assert install(kernel).shape == first.shape


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("delete table inet ringfence", "table inet ringfence is gone"),
        ("add table inet ringfence { flags dormant; }", "table inet ringfence is dormant"),
        ("flush chain inet ringfence to_banned", "a rule of chain to_banned of"),
        ("add rule inet ringfence from4 accept", "the rules of chain from4 of table inet ringfence were"),
        ("insert rule inet ringfence output accept", "the rules of chain output of"),
        ("add chain inet ringfence mine", "somebody put chain mine into table inet ringfence"),
        ("add set inet ringfence m { type mark; }", "somebody put set m into table inet ringfence"),
        (
            "add chain inet ringfence output { policy drop; }",
            "chain output of table inet ringfence is another",
        ),
        ("flush table inet ringfence; delete chain inet ringfence from4_sip", "chain from4_sip of"),
        ("flush table inet ringfence; delete set inet ringfence ban6_48", "set ban6_48 of"),
    ],
)
def test_what_was_changed_is_named(kernel: Conversation, damage: str, named: str) -> None:
    """Whatever is missing, added, replaced or asleep is named, and putting the rules in again mends it."""
    state = install(kernel)
    run("nft", damage)
    now = read_state(kernel)

    assert named in (difference(state, now) or "")
    assert now is None or not now.holds(RULES) or now.shape != state.shape
    mended = install(kernel)
    assert mended.holds(RULES)
    extra = {"m"} & {head.name for head in mended.sets}
    assert mended.shape == state.shape or extra


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ("ban4_32 { type ipv4_addr; }", "has the flags 0x0 and not 0x10"),
        ("ban4_24 { type ipv6_addr; flags timeout; }", "does not hold addresses of IPv4"),
        ("allow6 { type ipv6_addr; flags timeout; }", "has the flags 0x10 and not 0x4"),
        ("rate4 { type ipv4_addr; flags timeout; }", "has the flags 0x10 and not 0x30"),
    ],
)
def test_a_set_of_our_name_that_is_none_of_ours_is_told(
    kernel: Conversation, declared: str, why: str
) -> None:
    """A set with one of our names and another nature is an error with the mend."""
    run("nft", f"add table inet ringfence; add set inet ringfence {declared}")
    state = read_state(kernel)
    assert state is not None
    with pytest.raises(FirewallError, match=f"{why}; mend: `ringfence off`"):
        require_ours(state)
