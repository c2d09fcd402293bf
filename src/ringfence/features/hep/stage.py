"""The stage of Asterisk's export (HEP): which of its datagrams the kernel copies to the wire."""

from collections.abc import Iterator

from attrs import evolve, frozen

from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import Addition
from ringfence.firewall.ports import Ports
from ringfence.firewall.stages import Bytes, Copy, Hook, PacketRule, Side, Stage

PREFIX = "hep"
"""The prefix that marks a copied packet (NFLOG) as a message that Asterisk exports."""
SIZE = 8_192
"""The maximum number of bytes of an exported packet that the kernel copies to ringfence."""
_PROTOCOL, _SOURCE_PORT, _TARGET_PORT = 19, 26, 34
"""The offsets (bytes) in Asterisk's datagram of the protocol (6: TCP, TLS, WS, WSS) and of the ports.

Asterisk always writes its chunks in the same order (``res/res_hep.c:hep_queue_cb``).
"""


@frozen
class Export(Addition):
    """Rules that copy exported messages by TLS and WSS once, also over loopback.

    ``targets`` are the UDP ports to which Asterisk exports them, and ``streams`` its ports of TLS and WSS.
    Without both, the stage is off. ``size``: the bytes that are copied of each packet.
    """

    name = "export"
    targets: tuple[int, ...] = ()
    streams: tuple[int, ...] = ()
    size: int = SIZE

    def stages(self, plan: FirewallPlan) -> Iterator[Stage]:  # noqa: ARG002 - no other part matters
        """Yield the stage (group of firewall rules) that copies the exported messages."""
        source, target = (Bytes(at, 2, self.streams) for at in (_SOURCE_PORT, _TARGET_PORT))
        rules = tuple(
            PacketRule((Ports(self.targets, ()), Bytes(_PROTOCOL, 1, (6,)), *ports), Copy(PREFIX, self.size))
            for ports in ((source,), (evolve(source, among=False), target))
        )
        what = "copies the decrypted messages that Asterisk exports to the wire"
        on = bool(self.targets and self.streams)
        yield Stage(self.name, what, Side.FROM, (Hook.LEAVING,), rules, on=on)


ADDITIONS = (Export(),)
