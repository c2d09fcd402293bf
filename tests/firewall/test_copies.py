"""Rules of a feature that copy packets to an NFLOG group of its own, beside that of the wire."""

from collections.abc import Iterator
from typing import ClassVar

import pytest
from attrs import frozen

from ringfence.firewall.contract import FirewallPlan, Fragments
from ringfence.firewall.ipset.iptables_rules import wanted_rules
from ringfence.firewall.limits import Addition
from ringfence.firewall.nftables.installation import variants
from ringfence.firewall.nftables.ruleset import default_ban_sets, ruleset, ruleset_text
from ringfence.firewall.ports import Ports
from ringfence.firewall.stages import Copy, Hook, PacketRule, Side, Stage

WIRE, OWN = 21063, 21064


@frozen
class Media(Addition):
    """Rules that copy the packets of one port."""

    name: ClassVar[str] = "media"

    @property
    def copies(self) -> bool:
        """Its rules copy packets."""
        return True

    def stages(self, plan: FirewallPlan) -> Iterator[Stage]:
        """Yield the stage that copies the packets."""
        rules = (PacketRule((Ports((10_000,), ()),), Copy("media", group=OWN)),)
        yield Stage(self.name, "copies packets", Side.FROM, (Hook.ARRIVING,), rules)


def groups(plan: FirewallPlan) -> tuple[set[int], set[int]]:
    """Return the groups to which the rules of nftables and of iptables copy packets."""
    nft = ruleset_text(ruleset(plan, default_ban_sets()))
    chains = wanted_rules(plan, 4, fragments=Fragments.REASSEMBLED)["raw"].values()
    iptables = " ".join(rule.text for rules in chains for rule in rules)
    both = {WIRE, OWN}
    return {one for one in both if f"group {one}" in nft}, {one for one in both if str(one) in iptables}


@pytest.mark.parametrize("wire", [WIRE, None])
def test_a_feature_may_copy_to_its_own_group(wire: int | None) -> None:
    """Both backends copy to it, with the wire and without it. A kernel that refuses gets neither."""
    plan = FirewallPlan(log_group=wire).adding(Media())
    wanted = {OWN, wire} - {None}

    assert groups(plan) == (wanted, wanted)
    assert groups(plan.without_copies()) == (set(), set())
    assert any(groups(one) == (set(), set()) for one, *_ in variants(plan))
