"""The stages of the fence: other services belong to no other stage."""

from pathlib import Path

from ringfence.config import loader
from ringfence.features.fence.stage import FenceFilter
from ringfence.firewall.limits import LimitMode, Until
from ringfence.firewall.ports import Ports
from ringfence.firewall.stages import Stage, stages

ALL = """
[firewall]
limit.mode = "enforce"
ration.mode = "enforce"
ration.asking = "enforce"
[fence]
mode = "observe"
also = ["443/tcp", "69/udp"]
"""


def test_nothing_else_knows_the_ports_of_other_services(tmp_path: Path) -> None:
    """With all limits and copies on, the ports are only in the fence's own stage: nothing else meets them."""
    path = tmp_path / "ringfence.toml"
    path.write_text(ALL, "utf-8")
    plan = loader.load(path, {}, secrets=False).plan(None)
    assert plan.log_group is not None
    assert set(plan.modes.values()) == {LimitMode.ENFORCE, LimitMode.OBSERVE}
    knowing = [
        stage.name for stage in stages(plan) if any(443 in one.tcp or 69 in one.udp for one in _ports(stage))
    ]
    assert knowing == ["fence of other services"]


def test_the_fence_stands_while_rosters_are_missing() -> None:
    """Who could take AMI down would open it otherwise. Former friends are inside for a month."""
    fence = FenceFilter(LimitMode.ENFORCE)
    modes = {until: fence.observing(until).mode for until in Until}
    waits = dict.fromkeys((Until.FRIENDS, Until.LISTS), LimitMode.OBSERVE)
    assert modes == waits | {Until.ROSTERS: LimitMode.ENFORCE}


def _ports(stage: Stage) -> list[Ports]:
    rules = [*stage.rules, *(rule for chain in stage.chains for rule in chain.rules)]
    return [ports for rule in rules if (ports := rule.ports) is not None]
