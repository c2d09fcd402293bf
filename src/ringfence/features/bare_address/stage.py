"""The stage of this feature: which requests the kernel copies to it.

Of strangers these are all datagrams. Of friends, which send far more, and by TCP these are only the packets
that begin with one of the methods that count. A friend is never banned for them, so nothing is lost if its
request begins otherwise.
"""

from collections.abc import Iterator

from attrs import frozen

from ringfence.firewall import network_lists
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import Addition
from ringfence.firewall.ports import Ports
from ringfence.firewall.stages import (
    STRANGERS,
    Begins,
    Chain,
    Copy,
    Hook,
    Is,
    NotOn,
    On,
    PacketRule,
    Segment,
    Side,
    Stage,
)

GROUP = 21_065
"""The NFLOG group of the copies."""
SIZE = 4_096
"""The maximum number of bytes of a packet that the kernel copies; a longer header is not read."""
_METHODS = (b"REGISTER ", b"INVITE ", b"OPTIONS ", b"SUBSCRIBE ")


@frozen
class Asking(Addition):
    """Rules that copy the requests of strangers and friends, if it is ``on``."""

    name = "bare_address"
    on: bool = False

    @property
    def copies(self) -> bool:
        """Whether its rules copy packets to a group of their own: they do nothing else."""
        return self.on

    def stages(self, plan: FirewallPlan) -> Iterator[Stage]:
        """Yield the stage (group of firewall rules) that copies requests."""
        copy = Copy(self.name, SIZE, GROUP)
        datagrams, streams = Ports(plan.sip_ports.conversations.udp, ()), Ports((), plan.sip_ports.streams)
        arriving = Is.NAMED, Is.OUTER, Is.TO_ASTERISK
        friends = Chain("bare_asked", tuple(PacketRule((Begins(text),), copy) for text in _METHODS))
        rules = (
            PacketRule((datagrams, *arriving, STRANGERS), copy),
            PacketRule((datagrams, *arriving, On(network_lists.FRIENDS)), friends.jump),
            PacketRule((streams, *arriving, NotOn((network_lists.ALLOW,)), Segment(_METHODS)), copy),
        )
        what = "copies the requests whose domain the rule bare_address looks at"
        where = Side.FROM, (Hook.ARRIVING,)
        yield Stage("bare address", what, *where, rules, on=self.on, chains=(friends,))


ADDITIONS = (Asking(),)
