"""Floods: seconds over the limit that ban, by UDP and by TCP."""

from ipaddress import ip_address, ip_network
from math import inf

import pytest
from tests.support.evidence import RULE, Bench

from ringfence.values.attempt import Proof
from ringfence.values.ban import Scope
from ringfence.values.event import EventKind, Service, Transport
from ringfence.values.network import NetworkSet


def test_a_flood_of_ten_seconds_is_a_ban_of_the_sip_ports(bench: Bench) -> None:
    """Each second over the kernel's limit is an attempt with a claimed address, and ten of them ban."""
    flooder, other = ip_network("192.0.2.7"), ip_network("2001:db8:7::/64")
    for second in range(9):
        bench.flood([flooder, other], at=bench.now + second)
    assert bench.banned == []
    bench.flood([flooder], at=bench.now + 9)

    [decision] = bench.banned
    assert (decision.subject, decision.rule.name, decision.scope) == (flooder, "flood", Scope.SIP_UDP)
    assert len(decision.attempts) == 10
    assert {(attempt.proof, attempt.event, attempt.service) for attempt in decision.attempts} == {
        (Proof.CLAIMED, EventKind.LIMITED, Service.KERNEL)
    }
    bench.flood([other], at=bench.now + 9)
    assert [found.subject for found in bench.banned] == [flooder, other]


def test_a_flood_by_tcp_is_ten_seconds_of_a_sender_with_a_connection(bench: Bench) -> None:
    """A TCP flood bans from the SIP ports by TCP; forgeable seconds by UDP do not count for it."""
    sender, address = ip_network("192.0.2.7"), ip_address("192.0.2.7")
    for known in (None, False):
        bench.connected[address] = known
        for second in range(20):
            bench.flood([sender], at=bench.now + second, tcp=True)
    bench.connected[address] = True
    for second in range(9):
        bench.flood([sender, sender], at=bench.now + 20 + second, tcp=True)
        bench.flood([sender], at=bench.now + 20 + second)
    assert bench.banned == []
    bench.flood([sender], at=bench.now + 29, tcp=True)

    [decision] = bench.banned
    assert (decision.subject, decision.rule.name, decision.scope) == (sender, "flood", Scope.SIP_TCP)
    assert (decision.seconds, len(decision.attempts)) == (600.0, 10)
    assert {attempt.transport for attempt in decision.attempts} == {Transport.TCP}


@pytest.mark.parametrize("why", ["never", Scope.FULL, Scope.SIP, Scope.SIP_TCP, "rule"])
def test_a_flood_by_tcp_bans_no_exempt_address(bench: Bench, why: str) -> None:
    """A TCP flood bans no address that is exempt or already banned, and none if the rule is off."""
    bench.connected[ip_address("192.0.2.7")] = True
    if why == "never":
        bench.detector.exempt = NetworkSet([ip_network("192.0.2.0/24")])
    elif isinstance(why, Scope):
        bench.detector.bans.assume(ip_network("192.0.2.7"), why, inf)
    else:
        bench.detector.configure((RULE,))
    for second in range(20):
        bench.flood([ip_network("192.0.2.7")], at=bench.now + second, tcp=True)

    assert bench.banned == []


def test_a_burst_now_and_then_is_no_flood(bench: Bench) -> None:
    """Single seconds over the limit, spread over an hour, are a busy trunk and ban no address."""
    for minute in range(60):
        bench.flood([ip_network("192.0.2.7")], at=bench.now + 60.0 * minute)

    assert bench.banned == []


def test_an_exempt_address_may_flood(bench: Bench) -> None:
    """The limiter drops packets of an exempt address, but no ban follows."""
    bench.detector.exempt = NetworkSet([ip_network("192.0.2.0/24")])
    for second in range(20):
        bench.flood([ip_network("192.0.2.7")], at=bench.now + second)

    assert bench.banned == []
