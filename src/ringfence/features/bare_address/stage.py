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
    On,
    PacketRule,
    Segment,
    Side,
    Stage,
)

GROUP, FRIENDS_GROUP = 21_065, 21_066
"""The NFLOG groups of the copies: of strangers' requests, which are read at once, and of friends'."""
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
        stranger, friend = (Copy(self.name, SIZE, group) for group in (GROUP, FRIENDS_GROUP))
        datagrams, streams = Ports(plan.sip_ports.conversations.udp, ()), Ports((), plan.sip_ports.streams)
        arriving, known = (Is.NAMED, Is.OUTER, Is.TO_ASTERISK), On(network_lists.FRIENDS)
        friends = Chain("bare_asked", tuple(PacketRule((Begins(text),), friend) for text in _METHODS))
        rules = (
            PacketRule((datagrams, *arriving, STRANGERS), stranger),
            PacketRule((datagrams, *arriving, known), friends.jump),
            PacketRule((streams, *arriving, STRANGERS, Segment(_METHODS)), stranger),
            PacketRule((streams, *arriving, known, Segment(_METHODS)), friend),
        )
        what = "copies the requests whose domain the rule bare_address looks at"
        where = Side.FROM, (Hook.ARRIVING,)
        yield Stage("bare address", what, *where, rules, on=self.on, chains=(friends,))


ADDITIONS = (Asking(),)
