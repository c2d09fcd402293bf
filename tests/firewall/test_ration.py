"""The ration: how many refusals leave the SIP ports to a stranger, by each backend, with real packets."""

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from attrs import evolve
from tests.support.cable import CABLES, Cable
from tests.support.flavours import FLAVOURS
from tests.support.nflog import copies
from tests.support.packets import OTHER, SIP, ban, container_ends, drained_after, ends, opened, plan

from ringfence.firewall.contract import Backend, FirewallPlan, LimitMode, NetworkList, Ports, Ration
from ringfence.model import Network

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

# One refusal a second after the first four: slow enough that a test sees only the first four.
PLAN = FirewallPlan(sip_ports=Ports(udp=(SIP,), tcp=()), ration=Ration(LimitMode.ENFORCE, burst=4, rate=1))
REFUSALS = [b"SIP/2.0 %d Whatever\r\n\r\n" % status for status in (401, 403, 407)]
REFUSAL = REFUSALS[0]
OTHERS = [b"SIP/2.0 %d Whatever\r\n\r\n" % status for status in (100, 180, 200, 404, 481, 503)]
MANY = 50


@pytest.fixture(params=[*FLAVOURS, "nftables"])
def backend(request: pytest.FixtureRequest, netns: None) -> Iterator[Backend]:
    """Yield each backend, opened; ipset with each flavour of iptables."""
    with opened(request.param) as made:
        yield made


def arrived(here: socket.socket, there: socket.socket, payloads: list[bytes]) -> int:
    """Send datagrams from ``here``; return how many reach ``there``. A dropped one may fail with EPERM."""
    for payload in payloads:
        try:
            here.sendto(payload, there.getsockname())
        except PermissionError:
            continue
    return drained_after(there)


def replace_list(backend: Backend, which: NetworkList, *networks: Network) -> None:
    """Replace the contents of a list in the kernel."""
    for _ in backend.replace_list_in_steps(which, networks):
        pass


def test_a_stranger_gets_the_ration_and_no_more(backend: Backend, far: str, cable: Cable) -> None:
    """Of many refusals at once four leave the SIP port; the counter has the others."""
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, REFUSALS * MANY) == 4
    counters = backend.counters()
    assert (counters.rationed, counters.ration_full) == (3 * MANY - 4, 0)


def test_the_ration_refills_slowly(backend: Backend, far: str, cable: Cable) -> None:
    """After a pause new refusals pass, and never more than the burst."""
    plan(backend, evolve(PLAN, ration=Ration(LimitMode.ENFORCE, burst=2, rate=5)))
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL] * MANY) == 2
        time.sleep(1.0)
        assert arrived(here, there, [REFUSAL] * MANY) == 2


def test_other_answers_and_other_ports_have_no_ration(backend: Backend, far: str, cable: Cable) -> None:
    """Answers that refuse no password, and datagrams from other ports, all pass."""
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL] * 9) == 4
        assert arrived(here, there, OTHERS * 3) == 3 * len(OTHERS)
    with ends(cable, far, OTHER) as (here, there):
        assert arrived(here, there, [REFUSAL] * 9) == 9


@pytest.mark.parametrize("which", [NetworkList.FRIENDS, NetworkList.ALLOW])
def test_friends_and_allowed_networks_have_no_ration(
    backend: Backend, far: str, cable: Cable, which: NetworkList
) -> None:
    """Refusals to a friend or to an allowed network all pass, also at once after it was put on the list."""
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL] * MANY) == 4
        replace_list(backend, which, ip_network(cable.banned))
        assert arrived(here, there, [REFUSAL] * MANY) == MANY
        replace_list(backend, which)
        assert arrived(here, there, [REFUSAL] * MANY) <= 4


def test_a_ration_that_observes_only_counts(backend: Backend, far: str, cable: Cable) -> None:
    """In the mode observe every refusal passes, and those over the ration are counted."""
    plan(backend, evolve(PLAN, ration=evolve(PLAN.ration, mode=LimitMode.OBSERVE)))
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL] * MANY) == MANY
    assert backend.counters().rationed == MANY - 4


def test_no_ration_is_in_place_without_the_setting(backend: Backend, far: str, cable: Cable) -> None:
    """With the mode off every refusal passes, and nothing is counted."""
    plan(backend, evolve(PLAN, ration=Ration()))
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL] * MANY) == MANY
    assert backend.counters().rationed == 0


def test_the_addresses_of_a_64_share_one_ration(backend: Backend, far: str) -> None:
    """Two addresses of one /64 together get the ration of one stranger."""
    cable = CABLES["IPv6"]
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, first), ends(cable, far, OTHER, there="fd00:18::3") as (_, second):
        for number in range(MANY):
            target = (first, second)[number % 2].getsockname()
            try:
                here.sendto(REFUSAL, target)
            except PermissionError:
                continue
        assert drained_after(first) + drained_after(second) == 4


def test_forwarded_refusals_are_rationed(backend: Backend, far: str) -> None:
    """A container's refusals to a stranger are rationed as those of this host."""
    plan(backend, PLAN)
    with container_ends(far) as (inner, remote):
        assert arrived(inner, remote, [REFUSAL] * MANY) == 4


def test_the_wire_sees_refusals_that_the_ration_drops(backend: Backend, far: str, cable: Cable) -> None:
    """The kernel copies every refusal, before the ration drops it."""
    plan(backend, evolve(PLAN, log_group=7))
    with copies(7) as until, ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL] * 20) == 4
        assert arrived(here, there, [b"SIP/2.0 404 the last"]) == 1
        assert len(until(b"SIP/2.0 404 the last")) == 20


def test_a_banned_address_uses_up_no_ration(backend: Backend, far: str, cable: Cable) -> None:
    """Refusals to a banned address are drops of the ban, and not of the ration."""
    plan(backend, PLAN)
    ban(backend, cable)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL] * MANY) == 0
    assert backend.counters().rationed == 0


def test_the_ration_may_be_limited_to_interfaces(backend: Backend, far: str, cable: Cable) -> None:
    """With interfaces named, refusals through other interfaces have no ration."""
    for interfaces, expected in ((("other0",), MANY), (("near0",), 4)):
        plan(backend, evolve(PLAN, interfaces=interfaces))
        with ends(cable, far, SIP) as (here, there):
            assert arrived(here, there, [REFUSAL] * MANY) == expected
