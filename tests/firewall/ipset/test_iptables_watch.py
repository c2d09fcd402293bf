"""The check of iptables rules after each kind of change, with either flavour and without a process."""

from collections.abc import Iterator

import pytest
from tests.support.flavours import FLAVOURS, command, tools_of
from tests.support.netns import run

from ringfence.firewall.contract import BanAction, FirewallPlan
from ringfence.firewall.ipset.installation import Family
from ringfence.firewall.ipset.sets import create_set, set_specs
from ringfence.firewall.nftables import messages as nft_messages
from ringfence.netlink.connection import NetlinkConnection, NetlinkLostError

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]
# With an action that puts rules into both tables.
PLAN = FirewallPlan(action=BanAction.PORT_UNREACHABLE)


@pytest.fixture
def kernel(netns: None) -> Iterator[NetlinkConnection]:
    """Yield a connection in a namespace that has all sets."""
    with NetlinkConnection() as made:
        for spec in [*set_specs(4), *set_specs(6)]:
            made.request(create_set(spec, 1024))
        yield made


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
def test_every_damage_is_found_by_the_next_check(
    kernel: NetlinkConnection, flavour: str, version: int
) -> None:
    """A rule that is gone, changed or behind another is damage until it is repaired."""
    family = Family(version, tools_of(flavour, version), kernel)
    family.install(PLAN)
    assert family.check() is None
    for damage in DAMAGE:
        run(command(flavour, version), *damage.split())
        damaged = family.check()
        assert damaged is not None, damage
        assert f"IPv{version}" in damaged
        assert family.check() == damaged
        family.install(PLAN)
        assert family.check() is None


@pytest.mark.parametrize("version", [4, 6])
def test_a_replaced_rule_is_damage_and_a_foreign_one_is_not(kernel: NetlinkConnection, version: int) -> None:
    """A replaced rule of ours is damage; rules behind ours and in other tables are not."""
    family, tool = Family(version, tools_of("nft", version), kernel), command("nft", version)
    family.install(PLAN)
    run(tool, "-t", "raw", "-A", "PREROUTING", "-j", "ACCEPT")
    run("nft", "add", "table", "inet", "theirs")
    assert family.check() is None

    run(tool, "-t", "raw", "-R", "ringfence-out", "1", "-j", "ACCEPT")
    assert family.check() == f"rules of chain ringfence-out in table raw of IPv{version} were changed"


def test_a_check_that_fails_is_repeated(kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel does not answer while the rules are compared, the next check compares them."""

    def lose(*_args: object) -> None:
        raise NetlinkLostError("the kernel did not answer")

    family = Family(4, tools_of("nft", 4), kernel)
    family.install(PLAN)
    assert family.check() is None
    run(command("nft", 4), "-t", "raw", "-F", "PREROUTING")
    with monkeypatch.context() as patch:
        patch.setattr(nft_messages, "rules_of", lose)
        with pytest.raises(NetlinkLostError):
            family.check()
    assert family.check() is not None


def test_a_flushed_ruleset_is_damage(kernel: NetlinkConnection) -> None:
    """After `nft flush ruleset` the damage names the first of our chains."""
    family = Family(4, tools_of("nft", 4), kernel)
    family.install(FirewallPlan())
    run("nft", "flush", "ruleset")
    damaged = family.check()
    assert damaged is not None
    assert damaged.endswith("were removed")
