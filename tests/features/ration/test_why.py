"""The rations of an address, as ``why`` shows them."""

from tests.explain.world import ban, friend, known, running

from ringfence.explain.as_json import document
from ringfence.features.ration.stage import AskingRation, Ration
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import LimitMode


def test_the_ration_of_a_stranger() -> None:
    """A stranger, even one that was a friend, has the ration of the kernel's rules; others have none."""
    rules = FirewallPlan(added=(Ration(LimitMode.ENFORCE, burst=4, rate=2),))
    told = [
        document(known(plan=rules, **more))["ration"]
        for more in ({}, {"former": (friend(),)}, {"friends": (friend(),)}, {"running": (running(ban()),)})
    ]
    assert told == [{"mode": "enforce", "burst": 4, "rate": 2}] * 2 + [None] * 2
    assert document(known())["ration"] is None


def test_what_a_stranger_may_ask() -> None:
    """A stranger has the ration of questions of the kernel's rules; a friend and a banned one have none."""
    rules = FirewallPlan(added=(AskingRation(LimitMode.OBSERVE, burst=5, rate=2),))
    told = [
        document(known(plan=rules, **more))["asking"]
        for more in ({}, {"friends": (friend(),)}, {"running": (running(ban()),)})
    ]
    assert told == [{"mode": "observe", "burst": 5, "rate": 2}, None, None]
    assert document(known())["asking"] is None
