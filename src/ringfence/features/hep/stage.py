"""The stage of Asterisk's export (HEP): which of its datagrams the kernel copies to the wire."""

from attrs import evolve

from ringfence.firewall.ports import Ports
from ringfence.firewall.stages import Bytes, Copy, Hook, PacketRule, Side, Stage

PREFIX = "hep"
"""The text by which the reader of the NFLOG group recognizes a message that Asterisk exports."""
SIZE = 8_192
"""The bytes that are copied of each packet."""
_PROTOCOL, _SOURCE_PORT, _TARGET_PORT = 19, 26, 34
"""Where Asterisk's datagram has the protocol (one byte: 6 for TCP, TLS, WS and WSS) and the ports.

Asterisk always writes its chunks in the same order (``res/res_hep.c:hep_queue_cb``).
"""


def stage(targets: tuple[int, ...] = (), streams: tuple[int, ...] = (), size: int = SIZE) -> Stage:
    """Return the stage that copies the exported messages of TLS and WSS, each once, also over loopback.

    ``targets`` are the UDP ports to which Asterisk exports them, and ``streams`` its ports of TLS and WSS.
    Without both, the stage is off. ``size``: the bytes that are copied of each packet.
    """
    source, target = (Bytes(at, 2, streams) for at in (_SOURCE_PORT, _TARGET_PORT))
    rules = tuple(
        PacketRule((Ports(targets, ()), Bytes(_PROTOCOL, 1, (6,)), *ports), Copy(PREFIX, size))
        for ports in ((source,), (evolve(source, among=False), target))
    )
    what = "copies the decrypted messages that Asterisk exports to the wire"
    return Stage("export", what, Side.FROM, (Hook.LEAVING,), rules, on=bool(targets and streams))
