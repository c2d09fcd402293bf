"""What every backend of the kernel does to real packets, through a cable, for both IP versions."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_network
from itertools import combinations

import pytest
from tests.support.cable import CABLES, WAIT, Cable
from tests.support.flavours import FLAVOURS, finder
from tests.support.netns import inside
from tests.support.packets import (
    CHANGES,
    MANY,
    OTHER,
    SIP,
    ban,
    behind,
    changing,
    connection,
    datagram,
    drained_after,
    ends,
    flood,
    met_far_end,
    plan,
    seen,
    sent,
    source_of,
)

from ringfence.firewall import iptables_rules
from ringfence.firewall.contract import Add, Backend, Flooder, Limit, LimitMode, Plan, Ports, Roll, Verdict
from ringfence.firewall.ipset import IpsetBackend
from ringfence.firewall.nftables import NftablesBackend
from ringfence.model import Scope

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


@pytest.fixture(params=[*FLAVOURS, "nftables"])
def backend(request: pytest.FixtureRequest, netns: None) -> Iterator[Backend]:
    """Each backend, ipset with each flavour of iptables, opened."""
    made: Backend = (
        NftablesBackend() if request.param == "nftables" else IpsetBackend(find_tools=finder(request.param))
    )
    made.open()
    yield made
    made.close()


@pytest.fixture
def far(backend: Backend) -> Iterator[str]:
    """The namespace at the other end of the cable."""
    with met_far_end() as name:
        yield name


@pytest.fixture(params=["IPv4", "IPv6"])
def cable(request: pytest.FixtureRequest) -> Cable:
    """The cable of each IP version."""
    return CABLES[request.param]


@pytest.mark.parametrize("wider", ["ban", "prefix", "roll"])
@pytest.mark.parametrize("of", ["IPv4 prefix", "IPv6 /64"])
def test_who_is_allowed_is_never_dropped(backend: Backend, far: str, of: str, wider: str) -> None:
    """An allowed address passes both ways whatever else says no, at once, and is not counted as dropped."""
    cable = CABLES[of]
    prefix, address = ip_network(cable.network), ip_network(cable.banned)
    if wider == "ban":
        backend.apply([Add(address, 60.0)])
    elif wider == "prefix":
        backend.apply([Add(prefix, 60.0), Add(prefix, 60.0, Scope.SIP_UDP)])
    else:
        backend.fill(Roll.DENY, [prefix])
    assert datagram(cable, far, SIP) == (False, "EPERM")
    counted = sum(element.packets for element in backend.list())

    backend.fill(Roll.ALLOW, [address])
    assert datagram(cable, far, SIP) == (True, True)
    assert connection(cable, far, SIP) is True
    assert sum(element.packets for element in backend.list()) == counted

    backend.fill(Roll.ALLOW, [])
    assert datagram(cable, far, SIP) == (False, "EPERM")


def test_who_is_denied_is_dropped(backend: Backend, far: str, cable: Cable) -> None:
    """A network on the deny roll is kept out like a banned one, without an end, and counted apart."""
    backend.fill(Roll.DENY, [ip_network(cable.network), ip_network("203.0.113.0/24")])

    assert datagram(cable, far, OTHER) == (False, "EPERM")
    assert connection(cable, far, SIP) is False
    met = {use.name: use.packets for use in backend.usage().rules}
    assert met["from denied networks"] >= 2
    assert met["to denied networks"] == 1
    assert met["from banned addresses"] == 0
    assert list(backend.list()) == []


def test_a_ban_of_sip_over_udp_leaves_the_rest(backend: Backend, far: str, cable: Cable) -> None:
    """A ban for what can be forged drops UDP to and from the SIP ports; TCP and other ports pass."""
    ban(backend, cable, Scope.SIP_UDP)

    assert datagram(cable, far, SIP) == (False, "EPERM")
    assert datagram(cable, far, OTHER) == (True, True)
    assert connection(cable, far, SIP) is True
    [element] = backend.list()
    assert (element.scope, element.packets) == (Scope.SIP_UDP, 2)


def test_bans_may_be_for_the_sip_ports_only(backend: Backend, far: str, cable: Cable) -> None:
    """With `every_port` false a full ban drops UDP and TCP of the SIP ports and nothing else."""
    plan(backend, Plan(every_port=False, sip_ports=Ports(udp=(SIP,), tcp=(5061,))))
    ban(backend, cable)

    assert datagram(cable, far, SIP) == (False, "EPERM")
    assert datagram(cable, far, OTHER) == (True, True)
    assert connection(cable, far, 5061) is False
    assert connection(cable, far, OTHER) is True
    plan(backend, Plan())
    assert connection(cable, far, OTHER) is False


def test_only_named_interfaces_drop(backend: Backend, far: str, cable: Cable) -> None:
    """What comes and goes by another interface than those that are named passes."""
    ban(backend, cable)
    for names, passes in (
        (("near9",), (True, True)),
        (("near9", "near0"), (False, "EPERM")),
        ((), (False, "EPERM")),
    ):
        plan(backend, Plan(interfaces=names))
        assert datagram(cable, far, SIP) == passes


def test_what_is_routed_is_dropped_by_the_interface_it_leaves_by(backend: Backend, far: str) -> None:
    """A container's answer to a banned address is dropped where it would leave by a named interface."""
    cable = CABLES["IPv4"]
    ban(backend, cable)
    with behind(far) as container, ExitStack() as stack:
        with inside(container):
            inner = stack.enter_context(socket.socket(cable.family, socket.SOCK_DGRAM))
        inner.bind(("10.9.9.2", SIP))
        with inside(far):
            there = stack.enter_context(socket.socket(cable.family, socket.SOCK_DGRAM))
        there.bind((cable.banned, 0))
        for end in (inner, there):
            end.settimeout(WAIT)
        for names, passes in ((("near1",), True), (("near0",), False), ((), False)):
            plan(backend, Plan(interfaces=names))
            assert sent(inner, there) is passes

        plan(backend, Plan(verdict=Verdict.PORT_UNREACHABLE))
        there.connect(("10.9.9.2", SIP))
        there.send(b"hello")
        with pytest.raises(ConnectionRefusedError):
            there.recv(100)
        with pytest.raises(TimeoutError):
            inner.recv(100)


@pytest.mark.parametrize("every_port", [True, False])
@pytest.mark.parametrize(
    ("verdict", "udp", "tcp"),
    [
        (Verdict.DROP, {False}, {False}),
        (Verdict.PORT_UNREACHABLE, {"ECONNREFUSED"}, {"ECONNREFUSED"}),
        (Verdict.ADMIN_PROHIBITED, {"EHOSTUNREACH", "EACCES"}, {"EHOSTUNREACH", "EACCES"}),
        (Verdict.TCP_RESET, {False}, {"ECONNREFUSED"}),
    ],
)
def test_the_verdict_is_what_the_sender_sees(
    backend: Backend,
    far: str,
    cable: Cable,
    verdict: Verdict,
    udp: set[bool | str],
    tcp: set[bool | str],
    *,
    every_port: bool,
) -> None:
    """Silence, an ICMP error or a reset: the kernel's own word gets out, and an answer never does."""
    plan(backend, Plan(verdict=verdict, every_port=every_port))
    ban(backend, cable)

    with ends(cable, far, SIP) as (here, there):
        there.connect(here.getsockname())
        assert seen(there) in udp
        with pytest.raises(TimeoutError):
            here.recv(100)
        with pytest.raises(PermissionError):
            here.sendto(b"answer", there.getsockname())
    # An ICMPv6 error that comes while connect() still sends is not heard; that of the next SYN is.
    assert connection(cable, far, SIP, patience=WAIT if tcp == {False} else 10.0) in tcp
    plan(backend, Plan())
    assert connection(cable, far, SIP) is False


def test_a_burst_of_a_stranger_ends(backend: Backend, far: str, cable: Cable) -> None:
    """Of 2 000 at once the burst arrives, the rest is counted and its source told; a friend's all arrive."""
    plan(backend, Plan(limit=Limit(LimitMode.ENFORCE)))
    with ends(cable, far, SIP) as (here, there):
        arrived, took = flood(here, there, MANY)
        assert 200 <= arrived <= 200 + 50 * took + 1
        usage = backend.usage()
        assert (usage.limiter_drops, usage.limiter_full) == (MANY - arrived, 0)
        assert backend.flooding() == [Flooder(source_of(cable), MANY - arrived)]

        for roll in (Roll.FRIENDS, Roll.ALLOW):
            backend.fill(roll, [ip_network(cable.network)])
            assert flood(here, there, MANY)[0] == MANY
            backend.fill(roll, [])
    with ends(cable, far, OTHER) as (here, there):
        assert flood(here, there, MANY)[0] == MANY


def test_to_observe_is_to_count_and_no_more(backend: Backend, far: str, cable: Cable) -> None:
    """Observing, all arrive, and what would be dropped is counted and its source told."""
    plan(backend, Plan(limit=Limit(LimitMode.OBSERVE)))
    with ends(cable, far, SIP) as (here, there):
        arrived, took = flood(here, there, MANY)
    assert arrived == MANY
    usage = backend.usage()
    assert MANY - 200 - 50 * took - 1 <= usage.limiter_drops <= MANY - 200
    assert usage.limiter_full == 0
    assert [flooder.network for flooder in backend.flooding()] == [source_of(cable)]


def test_below_the_rate_nothing_is_dropped(backend: Backend, far: str, cable: Cable) -> None:
    """Forty a second with next to no burst all arrive at a limit of fifty."""
    plan(backend, Plan(limit=Limit(LimitMode.ENFORCE, rate=50, burst=3)))
    with ends(cable, far, SIP) as (here, there):
        assert flood(here, there, 40, pause=0.025)[0] == 40
    assert backend.usage().limiter_drops == 0


def test_one_stream_carries_no_more_than_the_burst(backend: Backend, far: str, cable: Cable) -> None:
    """Of 2 000 guesses in one TCP stream no more arrive at once than the burst, however packed."""
    limit = Limit(LimitMode.ENFORCE)
    plan(backend, Plan(limit=limit))
    with ends(cable, far, SIP, socket.SOCK_STREAM) as (here, there):
        here.listen()
        there.connect(here.getsockname())
        accepted, _ = here.accept()
        with accepted:
            accepted.settimeout(WAIT)
            begun, octets = time.monotonic(), 0
            there.settimeout(0)
            waiting = memoryview(b"g" * 300 * MANY)
            while time.monotonic() < begun + 1.0:
                with suppress(BlockingIOError):
                    waiting = waiting[there.send(waiting) :]
                with suppress(TimeoutError):
                    octets += len(accepted.recv(1 << 20))
            took = time.monotonic() - begun
    second, refills = iptables_rules.byte_budget(limit)
    assert 2000 < octets <= 1024 * second * (1 + refills + took)
    assert backend.usage().limiter_drops > 0


def test_no_change_of_the_plan_has_an_unprotected_moment(backend: Backend, far: str, cable: Cable) -> None:
    """While the plan changes from each to each other, not one packet of a banned address gets through."""
    ban(backend, cable)
    plans = [one for first, second in combinations(CHANGES, 2) for one in (first, second, first)]
    with ends(cable, far, SIP) as (here, there):
        assert changing(backend, plans, here, there) > 1000
        assert drained_after(here) == 0
