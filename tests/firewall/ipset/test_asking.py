"""The ration of questions by iptables: what only this backend does.

tests/firewall/test_asking.py tests what every backend does.
"""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.support.cable import CABLES, all_received
from tests.support.netns import inside
from tests.support.packets import SIP, ends, opened, plan

from ringfence.features.ration.stage import AskingRation
from ringfence.firewall.contract import Backend, FirewallPlan
from ringfence.firewall.ipset.matches import byte_limit
from ringfence.firewall.limits import FRAME, LimitMode
from ringfence.firewall.ports import Ports

ASKING = AskingRation(LimitMode.ENFORCE)
PLAN = FirewallPlan(
    sip_ports=Ports(udp=(4569, SIP), tcp=(SIP, 5061, 8088, 8089)), wss=(8089,), added=(ASKING,)
)


@pytest.fixture(params=["nft", pytest.param("legacy", marks=pytest.mark.long)])
def backend(request: pytest.FixtureRequest, netns: None) -> Iterator[Backend]:
    """Yield the backend with each flavour of iptables, opened with the plan."""
    with opened(request.param) as made:
        plan(made, PLAN)
        yield made


@pytest.mark.parametrize(
    ("at_once", "a_second", "budget", "refills"),
    [
        (1_600, 700, FRAME, 0),
        (2_000, 700, 2_000, 0),
        (6_000, 700, 2_048, 1),
        (1_600, 3_500, FRAME, 0),
        (8 * 1_600, 8 * 700, 6_144, 1),
        (300, 100, FRAME, 0),
    ],
)
def test_a_limit_of_bytes_has_a_budget_and_refills(
    at_once: int, a_second: int, budget: int, refills: int
) -> None:
    """A budget is at least a frame; with its refills it is no more than passes at once."""
    assert byte_limit(at_once, a_second) == (budget, refills)
    assert budget * (refills + 1) <= max(at_once, FRAME)


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_average_of_bytes_is_kept(backend: Backend, far: str) -> None:
    """A stranger that goes on gets no more in six seconds than a frame, and the ration of each second."""
    plan(backend, PLAN.adding(AskingRation(LimitMode.ENFORCE, burst=1, rate=1)))
    cable = CABLES["IPv4"]
    with ends(cable, far, SIP, socket.SOCK_STREAM) as (listener, there):
        listener.listen()
        there.connect(listener.getsockname())
        here, _ = listener.accept()
        with here:
            there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            begun, came = time.monotonic(), 0
            here.settimeout(0.1)
            there.settimeout(0)
            while time.monotonic() - begun < 6.0:
                with suppress(BlockingIOError):
                    there.send(b"x" * 300)
                with suppress(TimeoutError):
                    came += len(here.recv(65_536))
            took = time.monotonic() - begun
    assert FRAME - 300 <= came <= FRAME + (2 + took) * 350


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_an_extension_header_makes_no_datagram_free(backend: Backend, far: str) -> None:
    """A sender that writes an ACK into an option of IPv6 asks as every other does."""
    cable = CABLES["IPv6"]
    # Sixteen bytes: UDP follows; an option that no receiver knows (RFC 4727) holds the text.
    option = bytes([17, 1, 0x1E, 12]) + b"....ACK ...."
    with ends(cable, far, SIP) as (here, _), inside(far):
        head = struct.pack("!HHHH", 40_000, SIP, 16, 0)
        body = option + _summed(cable.banned, cable.here, head + b"REGISTER")
        addresses = b"".join(socket.inet_pton(socket.AF_INET6, one) for one in (cable.banned, cable.here))
        packet = struct.pack("!IHBB", 6 << 28, len(body), 60, 64) + addresses + body
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for _ in range(20):
                raw.sendto(packet, (cable.here, 0))
        assert len(all_received(here)) == ASKING.burst


def _summed(source: str, target: str, datagram: bytes) -> bytes:
    """Return a UDP datagram of IPv6 with its checksum."""
    pseudo = b"".join(socket.inet_pton(socket.AF_INET6, a) for a in (source, target))
    pseudo += struct.pack("!IHBB", len(datagram), 0, 0, 17)
    total = sum(struct.unpack(f"!{len(pseudo + datagram) // 2}H", pseudo + datagram))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return datagram[:6] + struct.pack("!H", ~total & 0xFFFF) + datagram[8:]
