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
)

from ringfence.features.fence.stage import OUTSIDERS, FenceFilter
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Backend, BanAction, FirewallPlan, Remembered
from ringfence.firewall.limits import LimitMode

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
