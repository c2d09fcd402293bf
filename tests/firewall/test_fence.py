"""The fence: what strangers begin at the SIP ports is dropped or counted, through a virtual cable."""

from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from tests.support.cable import CABLES, Cable
from tests.support.lists import write_list
from tests.support.packets import (
    OTHER,
    SIP,
    connection,
    container_ends,
    datagram,
    ends,
    plan,
    sent,
    source_of,
    stream,
)

from ringfence.features.fence.stage import ALSO_OUTSIDERS, OUTSIDERS, FenceFilter
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Backend, BanAction, FirewallPlan, Remembered
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.ports import Ports

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

PLAN = FirewallPlan(added=(FenceFilter(LimitMode.ENFORCE),))
PLANS = (
    PLAN,
    evolve(PLAN, action=BanAction.PORT_UNREACHABLE, new_only=True, log=True),
    evolve(PLAN, interfaces=("near0",)),
)


@pytest.mark.parametrize("wanted", PLANS)
def test_strangers_get_no_answer(backend: Backend, far: str, cable: Cable, wanted: FirewallPlan) -> None:
    """Packets of a stranger to the SIP ports are dropped and counted; other ports answer."""
    plan(backend, wanted)
    with ends(cable, far, SIP) as (here, there):
        assert sent(there, here) is False
    assert connection(cable, far, SIP) is False
    assert datagram(cable, far, OTHER) == (True, True)

    counters = backend.counters()
    assert counters.of("fenced") >= 2
    assert list(backend.remembered(OUTSIDERS)) == [Remembered(source_of(cable), counters.of("fenced"))]
    assert not backend.open().repaired


def test_a_flow_of_a_stranger_ends(backend: Backend, far: str, cable: Cable) -> None:
    """A flow that a stranger began before the fence ends; one that this host began goes on."""
    plan(backend, FirewallPlan(added=(FenceFilter(LimitMode.OBSERVE),)))
    with ends(cable, far, SIP) as (here, there):
        assert (sent(there, here), sent(here, there)) == (True, True)
        plan(backend, PLAN)
        assert sent(there, here) is False
    with ends(cable, far, SIP) as (here, there):
        assert (sent(here, there), sent(there, here)) == (True, True)
        plan(backend, FirewallPlan(added=(FenceFilter(LimitMode.OBSERVE),)))
        plan(backend, PLAN)
        assert (sent(there, here), sent(here, there)) == (True, True)


def test_observe_counts_and_drops_nothing(backend: Backend, far: str, cable: Cable) -> None:
    """In mode observe each packet from outside is counted, with its source, and arrives, also in a flow."""
    plan(backend, FirewallPlan(added=(FenceFilter(LimitMode.OBSERVE),)))
    with ends(cable, far, SIP) as (here, there):
        assert sent(there, here) is True
        assert sent(here, there) is True
        assert sent(there, here) is True
    assert backend.counters().of("fenced") == 2
    assert list(backend.remembered(OUTSIDERS)) == [Remembered(source_of(cable), 2)]


def test_the_fence_is_before_containers_too(backend: Backend, far: str) -> None:
    """Packets to Asterisk's container are fenced; those that pass to another host are not."""
    container = evolve(PLAN, containers=frozenset({ip_address("10.9.9.2")}))
    with container_ends(far) as (inner, remote):
        plan(backend, container)
        assert sent(remote, inner) is False
        write_list(backend, network_lists.FRIENDS, [ip_network(CABLES["IPv4"].banned)])
        assert sent(remote, inner) is True
        write_list(backend, network_lists.FRIENDS, [])
        plan(backend, PLAN)
        with ends(CABLES["IPv4"], far, OTHER) as (_, other):
            other.sendto(b"hello", inner.getsockname())
            assert inner.recv(100) == b"hello"


WEB, TFTP, OPEN = 443, 69, 8443


@pytest.mark.parametrize("mode", [LimitMode.ENFORCE, LimitMode.OBSERVE])
def test_other_services_are_closed(backend: Backend, far: str, cable: Cable, mode: LimitMode) -> None:
    """Strangers do not reach closed ports of other services, and friends do; observe only counts."""
    also, drops = Ports((TFTP,), (WEB, OPEN)), mode is LimitMode.ENFORCE
    wanted = evolve(PLAN, added=(FenceFilter(mode, also, Ports((TFTP,), (WEB,))),))
    plan(backend, wanted)
    assert connection(cable, far, WEB) is not drops
    assert datagram(cable, far, TFTP) == (not drops, True)
    assert connection(cable, far, OPEN) is True
    assert datagram(cable, far, WEB) == (True, True)  # by UDP it is another port

    counters = backend.counters()
    assert counters.of("fenced_also") >= 3
    assert counters.of("fenced") == 0
    assert list(backend.remembered(ALSO_OUTSIDERS)) == [
        Remembered(source_of(cable), counters.of("fenced_also"))
    ]
    write_list(backend, network_lists.FRIENDS, [ip_network(cable.network)])
    assert connection(cable, far, WEB) is True
    assert datagram(cable, far, TFTP) == (True, True)
    assert not backend.open().repaired


def test_a_connection_to_another_service_ends(backend: Backend, far: str, cable: Cable) -> None:
    """A stranger's connection from before the fence stops, and goes on when the fence only counts."""
    web = Ports((), (WEB,))
    plan(backend, evolve(PLAN, added=(FenceFilter(LimitMode.OBSERVE, web),)))
    with stream(cable, far, WEB) as (here, there):
        plan(backend, evolve(PLAN, added=(FenceFilter(LimitMode.ENFORCE, web, web),)))
        there.send(b"x")
        here.settimeout(0.5)
        with pytest.raises(TimeoutError):
            here.recv(1)
        plan(backend, evolve(PLAN, added=(FenceFilter(LimitMode.ENFORCE, web),)))
        here.settimeout(20.0)
        assert here.recv(1) == b"x"
