"""The stage of the fence: packets of senders that are not inside are counted or dropped.

Inside are the allow list, friends, and the lists ``ADMITTED`` and ``INSIDE``. A stranger's own flow from
before the fence ends too, or it could guess there for ever. Answers to what this host began pass. This host
may route the packets of another PBX, so of those that it forwards only packets to containers count. Nobody
gets an answer from the fence, whatever the action of the firewall is.

A second stage does the same at the ports of other services that ``also`` names, such as a web interface. It
has counters of its own. No other stage knows these ports: nothing limits, rations or copies their packets.
"""

from collections.abc import Iterator

from attrs import frozen

from ringfence.features.fence.network_list import LIST as INSIDE
from ringfence.firewall import network_lists
from ringfence.firewall.contract import MOST_LISTED, FirewallPlan
from ringfence.firewall.limits import Filter, LimitMode, Table, Until
from ringfence.firewall.network_lists import PASSING
from ringfence.firewall.ports import Ports
from ringfence.firewall.stages import Chain, Count, Do, Hook, Is, NotOn, PacketRule, Remember, Side, Stage

FENCED = "fenced"
"""The name of the counter of packets from outside the fence."""
OUTSIDERS = Table("fenced", 3_600, MOST_LISTED, "outside the fence")
"""The senders outside the fence, each for an hour."""
ALSO_FENCED = "fenced_also"
"""The name of the counter of packets from outside the fence to ports of other services."""
ALSO_OUTSIDERS = Table("fenced_also", 3_600, MOST_LISTED, "outside the fence, at other services")
"""The senders outside the fence at ports of other services, each for an hour."""
_NONE = Ports((), ())


@frozen
class FenceFilter(Filter):
    """The fence as a filter of the firewall, in one mode.

    It waits for the friends and the lists (``waits``): without them, all senders would be outside. ``also``
    are ports of other services. Packets to those that are ``closed`` are dropped if the fence enforces, and
    packets to the others are only counted.
    """

    name = "fence"
    waits = frozenset({Until.FRIENDS, Until.LISTS})
    also: Ports = _NONE
    closed: Ports = _NONE

    def stages(self, plan: FirewallPlan) -> Iterator[Stage]:
        """Yield the stages (groups of firewall rules) of the fence in ``plan``."""
        on = self.mode is not LimitMode.OFF
        drops = self.mode is LimitMode.ENFORCE
        what = "drops what strangers send, unless they are inside"
        yield _stage(
            self.name, what, plan.sip_ports, _chain("fence", OUTSIDERS, _count(FENCED, drops=drops)), on=on
        )
        closed = (
            (_count(ALSO_FENCED, drops=True, ports=self.closed),) if drops and self.closed != _NONE else ()
        )
        counts = (*closed, _count(ALSO_FENCED, drops=False))
        what = "drops what strangers send to the ports of `also` in [fence], unless they are inside"
        chain = _chain("fence_also", ALSO_OUTSIDERS, *counts)
        yield _stage("fence of other services", what, self.also, chain, on=on and self.also != _NONE)


def _stage(name: str, what: str, ports: Ports, chain: Chain, *, on: bool) -> Stage:
    """Return the stage about the packets to ``ports`` from outside, which continue in ``chain``."""
    outside = NotOn((network_lists.ALLOW, *PASSING, INSIDE))
    tests = Is.NAMED, Is.OUTER, Is.TO_ASTERISK, ports, Is.NO_REPLY, outside
    hooks = Hook.INPUT, Hook.FORWARD
    return Stage(name, what, Side.FROM, hooks, (PacketRule(tests, chain.jump),), on=on, chains=(chain,))


def _chain(name: str, table: Table, *counts: PacketRule) -> Chain:
    """Return the chain that remembers the senders of packets, unless these are answers, and counts them."""
    return Chain(name, (PacketRule((Is.REPLY,), Do.RETURN), PacketRule((), Remember(table)), *counts))


def _count(counter: str, *, drops: bool, ports: Ports | None = None) -> PacketRule:
    return PacketRule((ports,) if ports else (), Count(counter, drops=drops))


ADDITIONS = (FenceFilter(),)
