"""The memory backend's own behaviour: its clock and its contents. test_contract.py tests the rest."""

from ipaddress import ip_network

from tests.support.clock import SetClock
from tests.support.lists import write_list

from ringfence.features.limiter.stage import FLOODS, Limit
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Add, Counters, Element, FirewallPlan, Health, Opened
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.memory import MemoryBackend
from ringfence.values.ban import Scope
from ringfence.values.network import Network


def test_bans_end_by_the_clock() -> None:
    """A ban is listed with its remaining time, and is gone when that is over."""
    now = 100.0
    backend = MemoryBackend(clock=SetClock(mono=lambda: now))
    backend.apply([Add(ip_network("192.0.2.1"), 60), Add(ip_network("2001:db8::/64"), 10)])

    now = 105.0
    assert list(backend.list()) == [
        Element(ip_network("192.0.2.1"), 55.0, 0, 0),
        Element(ip_network("2001:db8::/64"), 5.0, 0, 0),
    ]

    now = 110.0
    assert list(backend.list()) == [Element(ip_network("192.0.2.1"), 50.0, 0, 0)]
    assert backend.open() == Opened(families={4: None, 6: None}, adopted=1)


def test_a_limiter_is_reported_as_missing() -> None:
    """A configured limiter is reported as missing; there are no flooders, and bans are counted."""
    backend = MemoryBackend(FirewallPlan(added=(Limit(LimitMode.ENFORCE),)))
    assert backend.open() == Opened({4: None, 6: None}, limits="a dry run puts no rule into the kernel")
    backend.apply([Add(ip_network("192.0.2.1"), 60), Add(ip_network("192.0.2.1"), 60, Scope.SIP_UDP)])

    assert backend.counters() == Counters(sets={"bans": 2})
    assert backend.health() == Health(elements=2)
    assert list(backend.remembered(FLOODS)) == []


def test_lists_are_kept_until_they_are_flushed() -> None:
    """Each list holds the networks that it received last, and a flush empties it."""
    backend = MemoryBackend()
    first, second = ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")
    write_list(backend, network_lists.ALLOW, [first, second])
    write_list(backend, network_lists.ALLOW, [second, second])
    write_list(backend, network_lists.DENY, [first])

    empty = dict.fromkeys(network_lists.every(), frozenset[Network]())
    assert backend.lists == {**empty, network_lists.ALLOW: {second}, network_lists.DENY: {first}}
    backend.flush()
    assert backend.lists == dict.fromkeys(network_lists.every(), frozenset())
