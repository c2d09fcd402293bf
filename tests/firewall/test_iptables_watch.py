"""What a look sees of each kind of change, with either flavour and no process."""

from collections.abc import Iterator

import pytest
from tests.support.flavours import FLAVOURS, command, tools_of
from tests.support.netns import run

from ringfence.firewall.contract import Plan, Verdict
from ringfence.firewall.ipset_sets import creation, kinds
from ringfence.firewall.iptables_family import Family
from ringfence.firewall.netlink import Conversation

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]
# With a verdict that puts rules into both tables.
PLAN = Plan(verdict=Verdict.PORT_UNREACHABLE)


@pytest.fixture
def kernel(netns: None) -> Iterator[Conversation]:
    """A conversation in a namespace that has all sets."""
    with Conversation() as conversation:
        for kind in [*kinds(4), *kinds(6)]:
            conversation.request(creation(kind, 1024))
        yield conversation


DAMAGE = [
    "-t raw -F",
    "-t raw -F ringfence-out",
    "-t raw -D ringfence-out 1",
    "-t raw -D PREROUTING -j ringfence-pre",
    "-t raw -I PREROUTING 1 -j ACCEPT",
    "-t raw -I ringfence-pre 1 -j ACCEPT",
    "-t filter -F INPUT",
    "-t filter -I FORWARD 1 -j ACCEPT",
]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_damage_is_seen_at_the_next_look(kernel: Conversation, flavour: str, version: int) -> None:
    """A rule that is gone, changed, or stands before ours is trouble until it is mended; then nothing is."""
    family = Family(version, tools_of(flavour, version), kernel)
    family.put(PLAN)
    assert family.look() == (None, False)
    for damage in DAMAGE:
        run(command(flavour, version), *damage.split())
        trouble, changed = family.look()
        assert trouble is not None, damage
        assert f"IPv{version}" in trouble
        assert changed
        assert family.look() == (trouble, False)
        family.put(PLAN)
        assert family.look() == (None, False)


@pytest.mark.parametrize("version", [4, 6])
def test_with_nftables_a_replaced_rule_is_seen_and_a_strangers_is_no_trouble(
    kernel: Conversation, version: int
) -> None:
    """A rule that takes the place of ours is seen; rules behind ours and other tables are only a change."""
    family, tool = Family(version, tools_of("nft", version), kernel), command("nft", version)
    family.put(PLAN)
    run(tool, "-t", "raw", "-A", "PREROUTING", "-j", "ACCEPT")
    assert family.look() == (None, True)
    run("nft", "add", "table", "inet", "theirs")
    assert family.look() == (None, True)
    assert family.look() == (None, False)

    run(tool, "-t", "raw", "-R", "ringfence-out", "1", "-j", "ACCEPT")
    assert family.look() == (f"rules of chain ringfence-out in table raw of IPv{version} were changed", True)


def test_the_whole_ruleset_gone_is_seen(kernel: Conversation) -> None:
    """`nft flush ruleset` is trouble, named by the first of our chains."""
    family = Family(4, tools_of("nft", 4), kernel)
    family.put(Plan())
    run("nft", "flush", "ruleset")
    trouble, changed = family.look()
    assert trouble is not None
    assert trouble.endswith("were removed")
    assert changed
