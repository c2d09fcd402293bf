"""``[firewall.limit]``: the settings of the limiter, and its rules."""

from typing import TYPE_CHECKING

from attrs import frozen

from ringfence.config.converters import Burst, Rate
from ringfence.features.limiter.stage import Limit
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import LimitMode

if TYPE_CHECKING:
    from ringfence.config.schema import Settings


@frozen
class LimitSettings:
    """``[firewall.limit]``: the limit for the packets a second that one address may send to the SIP ports.

    ``rate`` is this limit. ``burst`` is the number of packets that it may send in addition, all at once.
    """

    mode: LimitMode = LimitMode.ENFORCE
    rate: Rate = Rate(50)
    burst: Burst = Burst(200)


TABLE = LimitSettings


def with_rules(plan: FirewallPlan, settings: "Settings") -> FirewallPlan:
    """Return ``plan``, the wanted firewall rules, with the configured limit on packets of each source."""
    mine = settings.firewall.of(LimitSettings)
    return plan.adding(Limit(mine.mode, mine.rate, mine.burst))
