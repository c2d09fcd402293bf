"""Datagrams with Asterisk's decrypted messages that the kernel copies, by each backend."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from attrs import evolve, frozen
from tests.support.cable import CABLES, WAIT, Cable
from tests.support.nflog import Copied, copies
from tests.support.packets import SIP, ends, plan

from ringfence.features.hep.stage import PREFIX, Export
from ringfence.firewall.contract import Backend, FirewallPlan
from ringfence.firewall.ports import Ports

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]
GROUP = 7
LAST = b"SIP/2.0 401 the last"
TARGET, ELSEWHERE = 9060, 9061
STREAMS = (5061, 8089)
SIZE = 200  # bytes that are copied of a packet
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}
PLAN = FirewallPlan(
    log_group=GROUP,
    sip_ports=Ports(udp=(SIP,), tcp=(SIP, *STREAMS)),
    added=(Export((TARGET, 9070), STREAMS, SIZE),),
)
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def exported(source: int, target: int, payload: bytes, protocol: int = 6) -> bytes:
    """Return the datagram of a message between these ports, as Asterisk writes it."""
    parts = [
        (1, b"\x02"),
        (2, bytes([protocol])),
        (7, struct.pack(">H", source)),
        (8, struct.pack(">H", target)),
        (9, bytes(4)),
        (10, bytes(4)),
        (11, b"\x01"),
        (12, bytes(4)),
        (3, bytes([198, 18, 0, 1])),
        (4, bytes([198, 18, 0, 2])),
        (17, b"call-1"),
        (15, payload),
    ]
    chunks = b"".join(struct.pack(">HHH", 0, kind, 6 + len(data)) + data for kind, data in parts)
    return b"HEP3" + struct.pack(">H", 6 + len(chunks)) + chunks


@frozen
class Exporter:
    """A socket that sends as Asterisk does, and sockets that listen at two ports of its receiver."""

    sender: socket.socket
    receivers: dict[int, socket.socket]

    def send(self, data: bytes, port: int = TARGET) -> None:
        """Send a datagram, which must arrive as it was sent."""
        receiver = self.receivers[port]
        self.sender.sendto(data, receiver.getsockname())
        assert receiver.recv(1 << 16) == data


@contextmanager
def exporter(family: socket.AddressFamily) -> Iterator[Exporter]:
    """Yield an exporter over the loopback interface."""
    with ExitStack() as stack:
        sender, *receivers = (stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(3))
        for receiver, port in zip(receivers, (TARGET, ELSEWHERE), strict=True):
            receiver.bind((LOOPBACK[family], port))
            receiver.settimeout(WAIT)
        yield Exporter(sender, dict(zip((TARGET, ELSEWHERE), receivers, strict=True)))


def copied(cable: Cable, far: str, sent: list[tuple[bytes, int]]) -> list[Copied]:
    """Send datagrams to the ports of a receiver, and return the copies."""
    with copies(GROUP) as until, exporter(cable.family) as export:
        for data, port in sent:
            export.send(data, port)
        with ends(cable, far, SIP) as (here, there):
            here.sendto(LAST, there.getsockname())
            return until(LAST)


def expected(cable: Cable, sent: list[bytes]) -> list[Copied]:
    """Return the copies of these datagrams, each once."""
    return [(PREFIX, data[: SIZE - HEADERS[cable.family]]) for data in sent]


def test_exported_messages_of_tls_and_wss_are_copied(backend: Backend, far: str, cable: Cable) -> None:
    """A message from or to a TLS or WSS port is copied once with its prefix, also within this host."""
    plan(backend, PLAN)
    sent = [
        exported(source, target, b"payload")
        for port in STREAMS
        for source, target in ((port, 40_000), (40_000, port), STREAMS)
    ]
    assert copied(cable, far, [(data, TARGET) for data in sent]) == expected(cable, sent)


def test_other_exported_messages_are_not_copied(backend: Backend, far: str, cable: Cable) -> None:
    """Not copied: messages by UDP or other protocols, of other SIP ports, and to another port."""
    plan(backend, PLAN)
    both = [(STREAMS[0], 40_000), (40_000, STREAMS[1])]
    others = [exported(*ports, b"payload", protocol) for ports in both for protocol in (17, 0, 7, 255)]
    others += [exported(*ports, b"payload") for ports in ((SIP, 40_000), (40_000, SIP), (5062, 8088))]
    sent = [(data, TARGET) for data in [*others, b"HEP3", b"", b"x" * 25, b"x" * 300]]
    sent += [(exported(*ports, b"payload"), ELSEWHERE) for ports in both]
    assert copied(cable, far, sent) == []


def test_the_copy_of_an_exported_message_is_cut(backend: Backend, far: str, cable: Cable) -> None:
    """Of a long message the beginning of the packet is copied, and the message itself arrives whole."""
    plan(backend, PLAN)
    sent = [exported(STREAMS[0], 40_000, b"x" * size) for size in (80, 1_000, 60_000)]
    found = copied(cable, far, [(data, TARGET) for data in sent])
    assert found == expected(cable, sent)
    assert {len(data) for _, data in found} == {SIZE - HEADERS[cable.family]}


def test_an_export_to_another_host_is_copied(backend: Backend, far: str, cable: Cable) -> None:
    """A message that Asterisk sends to another host is copied too; one that comes from there is not."""
    plan(backend, PLAN)
    data = exported(STREAMS[0], 40_000, b"payload")
    with copies(GROUP) as until, ends(cable, far, TARGET) as (here, there), ExitStack() as stack:
        sender = stack.enter_context(socket.socket(cable.family, socket.SOCK_DGRAM))
        sender.sendto(data, (cable.banned, TARGET))
        there.sendto(data, here.getsockname())
        assert here.recv(1_000) == data
        here.sendto(LAST, there.getsockname())
        assert until(LAST) == expected(cable, [data])


@pytest.mark.parametrize("hep", [Export(), Export((TARGET,)), Export((), STREAMS)])
def test_without_an_export_nothing_is_copied(backend: Backend, far: str, hep: Export) -> None:
    """Without a target or without TLS and WSS ports no exported message is copied."""
    cable = CABLES["IPv4"]
    plan(backend, PLAN)
    plan(backend, evolve(PLAN, added=(hep,)))
    assert copied(cable, far, [(exported(STREAMS[0], 40_000, b"payload"), TARGET)]) == []
