"""The stage of the fence: packets of senders that are not inside are counted or dropped.

Inside are the allow list, friends, and the lists ``ADMITTED`` and ``INSIDE``. A stranger's own flow from
before the fence ends too, or it could guess there for ever. Answers to what this host began pass. This host
may route the packets of another PBX, so of those that it forwards only packets to containers count. Nobody
gets an answer from the fence, whatever the action of the firewall is.
"""

from collections.abc import Iterator

from attrs import frozen

from ringfence.features.fence.network_list import LIST as INSIDE
from ringfence.firewall import network_lists
from ringfence.firewall.contract import MOST_LISTED, FirewallPlan
from ringfence.firewall.limits import Filter, LimitMode, Table, Until
from ringfence.firewall.network_lists import PASSING
from ringfence.firewall.stages import Chain, Count, Do, Hook, Is, NotOn, PacketRule, Remember, Side, Stage

FENCED = "fenced"
"""The name of the counter of packets from outside the fence."""
OUTSIDERS = Table("fenced", 3_600, MOST_LISTED, "outside the fence")
"""The senders outside the fence, each for an hour."""


@frozen
class FenceFilter(Filter):
    """The fence as a filter of the firewall, in one mode.

    It waits for the friends and the lists (``waits``): without them, all senders would be outside.
    """

    name = "fence"
    waits = frozenset(Until)

    def stages(self, plan: FirewallPlan) -> Iterator[Stage]:
        """Yield the stage (group of firewall rules) of the fence in ``plan``."""
        outside = NotOn((network_lists.ALLOW, *PASSING, INSIDE))
        fenced = Chain(
            "fence",
            (
                PacketRule((Is.REPLY,), Do.RETURN),
                PacketRule((), Remember(OUTSIDERS)),
                PacketRule((), Count(FENCED, drops=self.mode is LimitMode.ENFORCE)),
            ),
        )
        tests = Is.NAMED, Is.OUTER, Is.TO_ASTERISK, plan.sip_ports, Is.NO_REPLY, outside
        what, hooks = "drops what strangers send, unless they are inside", (Hook.INPUT, Hook.FORWARD)
        rules, on = (PacketRule(tests, fenced.jump),), self.mode is not LimitMode.OFF
        yield Stage(self.name, what, Side.FROM, hooks, rules, on=on, chains=(fenced,))


ADDITIONS = (FenceFilter(),)
