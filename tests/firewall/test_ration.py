"""The ration: how many refusals leave the SIP ports to a stranger, by each backend, with real packets."""

import socket
import time
from contextlib import ExitStack
from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from tests.support.cable import CABLES, Cable, all_received
from tests.support.lists import write_list
from tests.support.netns import inside
from tests.support.nflog import copies
from tests.support.packets import (
    OTHER,
    SIP,
    ban,
    behind,
    container_ends,
    ends,
    is_ration,
    plan,
    read,
    stream,
)

from ringfence.features.ration.stage import Ration
from ringfence.firewall import network_lists
from ringfence.firewall.contract import SERVED, Backend, FirewallPlan
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.ports import Ports

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

TLS, HTTP = 5061, 8088
# One refusal a second after the first four: slow enough that a test sees only the first four.
RATION = Ration(LimitMode.ENFORCE, burst=4, rate=1)
PLAN = FirewallPlan(sip_ports=Ports(udp=(SIP,), tcp=(SIP, TLS, HTTP)), added=(RATION,))
WITH_CONTAINER = evolve(PLAN, containers=frozenset({ip_address("10.9.9.2"), ip_address("fd00:9::2")}))
# Bytes: the ration of a stranger by TCP is 2 000, rounded up to kilobytes with ipset. 500 come back each
# second, and a busy machine may take three seconds.
BUDGET = 2_048 + 3 * 512
REFUSALS = [b"SIP/2.0 %d Whatever\r\n\r\n" % status for status in (401, 403, 407)]
REFUSAL = REFUSALS[0]
OTHERS = [b"SIP/2.0 %d Whatever\r\n\r\n" % status for status in (100, 180, 200, 404, 481, 503)]
MANY = 50


def arrived(here: socket.socket, there: socket.socket, payloads: list[bytes]) -> int:
    """Send datagrams from ``here``; return how many reach ``there``. A dropped one may fail with EPERM."""
    for payload in payloads:
        try:
            here.sendto(payload, there.getsockname())
        except PermissionError:
            continue
    return len(all_received(there))


def test_a_port_is_plain_or_tls() -> None:
    """The number after a UDP port is TLS, and so is 5061 if the configuration names it for both protocols."""
    kinds = [
        (ports.streams, ports.tls, ports.web)
        for ports in (
            Ports((5060,), (5038, 5060, 5061, 8089)),
            Ports((5060, 5061), (5060, 5061)),
            Ports((5060, 5070), (5060, 5061, 5070, 5071)),
            Ports((5070, 5071), (5070, 5071, 5072)),
        )
    ]
    assert kinds == [
        ((5060,), (5061,), (5038, 8089)),
        ((5060,), (5061,), ()),
        ((5060, 5070), (5061, 5071), ()),
        ((5070, 5071), (5072,), ()),
    ]


def test_a_stranger_gets_the_ration_and_no_more(backend: Backend, far: str, cable: Cable) -> None:
    """Of many refusals at once four leave the SIP port; the counter has the others."""
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, REFUSALS * MANY) == 4
    counters = backend.counters()
    assert (counters.of("rationed"), counters.of("ration_full")) == (3 * MANY - 4, 0)


def test_the_ration_refills_slowly(backend: Backend, far: str, cable: Cable) -> None:
    """After a pause new refusals pass, and never more than the burst."""
    plan(backend, PLAN.adding(Ration(LimitMode.ENFORCE, burst=2, rate=5)))
    with ends(cable, far, SIP) as (here, there):
        for pause in (0.0, 1.0):
            time.sleep(pause)
            begun = time.monotonic()
            assert is_ration(arrived(here, there, [REFUSAL] * MANY), 2, 5, begun)


def test_other_answers_and_other_ports_have_no_ration(backend: Backend, far: str, cable: Cable) -> None:
    """Answers that refuse no password, and datagrams from other ports, all pass."""
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL] * 9) == 4
        assert arrived(here, there, OTHERS * 3) == 3 * len(OTHERS)
    with ends(cable, far, OTHER) as (here, there):
        assert arrived(here, there, [REFUSAL] * 9) == 9


def test_ports_of_both_ends_share_one_ration(backend: Backend, far: str, cable: Cable) -> None:
    """A stranger that asks several SIP ports from several ports of its own gets no more."""
    plan(backend, evolve(PLAN, sip_ports=Ports(udp=(SIP, OTHER), tcp=())))
    begun, total = time.monotonic(), 0
    for port in (SIP, OTHER) * 3:
        with ends(cable, far, port) as (here, there):
            total += arrived(here, there, [REFUSAL] * MANY)
    assert is_ration(total, 4, RATION.rate, begun)


def test_refusals_longer_than_a_frame_are_rationed(backend: Backend, far: str, cable: Cable) -> None:
    """It makes no difference that a long Via or Call-ID makes the answer longer than a frame."""
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL.ljust(4_000)] * 20) == 4


def test_a_ration_that_observes_only_counts(backend: Backend, far: str, cable: Cable) -> None:
    """In the mode observe every refusal passes, and those over the ration are counted."""
    plan(backend, PLAN.adding(evolve(RATION, mode=LimitMode.OBSERVE)))
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL] * MANY) == MANY
    assert backend.counters().of("rationed") == MANY - 4


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
        assert len(all_received(first)) + len(all_received(second)) == 4


def test_forwarded_refusals_in_fragments_are_rationed(backend: Backend, far: str) -> None:
    """The first fragment of a container's long refusal is dropped, so the rest of it is useless."""
    plan(backend, WITH_CONTAINER)
    with container_ends(far) as (inner, remote):
        assert arrived(inner, remote, [REFUSAL.ljust(4_000)] * 20) == 4


def test_refusals_of_other_pbxs_have_no_ration(backend: Backend, far: str) -> None:
    """A second PBX behind this host sends what it wants: ringfence does not know its phones."""
    plan(backend, evolve(PLAN, containers=frozenset({ip_address("10.9.9.3"), ip_address("fd00:9::3")})))
    with container_ends(far) as (inner, remote):
        assert arrived(inner, remote, [REFUSAL] * MANY) == MANY


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
    assert backend.counters().of("rationed") == 0


def test_the_ration_may_be_limited_to_interfaces(backend: Backend, far: str, cable: Cable) -> None:
    """With interfaces named, refusals through other interfaces have no ration."""
    for interfaces, expected in ((("other0",), MANY), (("near0",), 4)):
        plan(backend, evolve(PLAN, interfaces=interfaces))
        with ends(cable, far, SIP) as (here, there):
            assert arrived(here, there, [REFUSAL] * MANY) == expected


def test_a_rule_that_counts_many_attempts_has_a_ration(backend: Backend, far: str, cable: Cable) -> None:
    """The kernel takes a ration of more bytes than a packet can have, and counts by it."""
    plan(backend, PLAN.adding(Ration(LimitMode.ENFORCE, burst=200, rate=1)))
    with ends(cable, far, SIP) as (here, there):
        assert arrived(here, there, [REFUSAL] * 250) == 200


@pytest.mark.parametrize("port", [SIP, TLS])
def test_a_stranger_gets_few_bytes_at_once_by_tcp(
    backend: Backend, far: str, cable: Cable, port: int
) -> None:
    """Of many answers, one after the other, some bytes leave the SIP port, whatever they begin with."""
    plan(backend, PLAN)
    answer = b"SIP/2.0 481 Whatever\r\n\r\n".ljust(400)
    with stream(cable, far, port) as (here, there):
        for _ in range(MANY):
            here.sendall(answer)
            time.sleep(0.001)
        assert 400 <= len(read(there, MANY * len(answer))) <= BUDGET
    assert backend.counters().of("rationed") > 0


def test_many_answers_in_one_segment_are_over_the_ration(backend: Backend, far: str, cable: Cable) -> None:
    """Data that is sent at once leaves in pieces of a frame at most, as TCP sends it again."""
    plan(backend, PLAN)
    with stream(cable, far, SIP) as (here, there):
        here.sendall(b"x" * 40_000)
        assert len(read(there, 40_000)) <= BUDGET


def test_connections_share_the_ration(backend: Backend, far: str, cable: Cable) -> None:
    """A stranger that opens many connections gets no more bytes, but may open them."""
    plan(backend, PLAN)
    total = 0
    with ends(cable, far, SIP, socket.SOCK_STREAM) as (listener, _):
        listener.listen(MANY)
        for _ in range(MANY):
            with inside(far), socket.socket(cable.family, socket.SOCK_STREAM) as there:
                there.bind((cable.banned, 0))
                there.settimeout(5.0)
                there.connect(listener.getsockname())
                here, _ = listener.accept()
                with here:
                    here.sendall(b"x" * 300)
                    total += len(read(there, 300, 0.01, 0.01))
    assert 600 <= total <= 2 * BUDGET  # it refills while the test runs


def test_a_containers_answers_by_tcp_are_rationed(backend: Backend, far: str) -> None:
    """Answers by TCP of Asterisk's container to a stranger have the same ration."""
    plan(backend, WITH_CONTAINER)
    with behind(far) as container, ExitStack() as stack:
        with inside(container):
            listener = stack.enter_context(socket.create_server(("10.9.9.2", SIP)))
        with inside(far):
            there = stack.enter_context(socket.create_connection(("10.9.9.2", SIP), 5.0))
        here = stack.enter_context(listener.accept()[0])
        here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(MANY):
            here.sendall(b"x" * 400)
            time.sleep(0.001)
        assert 400 <= len(read(there, 400 * MANY, 0.2)) <= BUDGET


def test_what_was_dropped_by_tcp_arrives_at_a_friend(backend: Backend, far: str, cable: Cable) -> None:
    """TCP sends dropped segments again: when the stranger has become a friend, nothing is missing."""
    plan(backend, PLAN)
    with stream(cable, far, SIP) as (here, there):
        here.sendall(b"x" * 40_000)
        first = read(there, 40_000)
        assert len(first) <= BUDGET
        write_list(backend, network_lists.FRIENDS, [ip_network(cable.banned)])
        assert len(first + read(there, 40_000 - len(first), 5.0)) == 40_000


def test_a_tls_handshake_has_no_ration(backend: Backend, far: str, cable: Cable) -> None:
    """A certificate of many kilobytes arrives at once from the TLS port; on the plain port it does not."""
    plan(backend, PLAN)
    handshake = b"\x16\x03\x03\x10\x00".ljust(4_096, b"x")
    with stream(cable, far, TLS) as (here, there):
        here.sendall(handshake)
        assert read(there, len(handshake)) == handshake
    with stream(cable, far, SIP) as (here, there):
        here.sendall(handshake)
        assert len(read(there, len(handshake))) <= BUDGET


@pytest.mark.parametrize("begin", SERVED)
def test_a_stranger_that_is_served_has_no_ration(
    backend: Backend, far: str, cable: Cable, begin: bytes
) -> None:
    """Answers to a guest's or a carrier's calls pass by TCP, each in a segment; more in one do not."""
    plan(backend, PLAN)
    answer = begin.ljust(400)
    with stream(cable, far, SIP) as (here, there):
        for _ in range(MANY):
            here.sendall(answer)
            assert read(there, len(answer)) == answer
    with stream(cable, far, SIP) as (here, there):
        begun = time.monotonic()
        here.sendall(answer * 100)
        # The first frame is free, because it begins with such an answer.
        passed = len(read(there, 100 * len(answer)))
        assert passed <= 1_500 + BUDGET + 2_048 * (time.monotonic() - begun)
    with stream(cable, far, TLS) as (here, there):
        for _ in range(MANY):
            here.sendall(answer)
            time.sleep(0.001)
        assert len(read(there, MANY * len(answer))) <= BUDGET


@pytest.mark.parametrize("begin", [b"SIP/2.0 200 OK\r\nFrom: ", b"SIP/2.0 200 OK", b"\x16\x03\x03"])
def test_a_segment_that_begins_within_a_header_is_rationed(
    backend: Backend, far: str, cable: Cable, begin: bytes
) -> None:
    """A sender writes the beginning of another answer into a header, and makes a segment begin there."""
    plan(backend, PLAN)
    with stream(cable, far, SIP) as (here, there):
        for _ in range(MANY):
            here.sendall(begin.ljust(400))
            time.sleep(0.001)
        assert 400 <= len(read(there, MANY * 400)) <= BUDGET


def test_ports_of_web_pages_have_no_ration(backend: Backend, far: str, cable: Cable) -> None:
    """The port of HTTP, and a TCP port that is not Asterisk's, send as fast as they like."""
    plan(backend, PLAN)
    for port in (HTTP, OTHER):
        with stream(cable, far, port) as (here, there):
            here.sendall(b"x" * 40_000)
            assert len(read(there, 40_000)) == 40_000
    assert backend.counters().of("rationed") == 0


def test_refusals_in_frames_from_a_web_port_are_rationed(backend: Backend, far: str, cable: Cable) -> None:
    """Of the refusals by WebSocket four leave the port of HTTP; other frames and pages all pass."""
    plan(backend, PLAN)
    frames = [b"\x81\x7e\x01\x40" + REFUSAL.ljust(320), b"\x81\x40" + REFUSAL.ljust(64)]
    with stream(cable, far, HTTP) as (here, there):
        for number in range(4):
            here.sendall(frames[number % 2])
            time.sleep(0.01)
        here.sendall(frames[0])
        came = read(there, 10_000)
        assert came.count(REFUSAL) == 4
    assert backend.counters().of("rationed") > 0
    with stream(cable, far, HTTP) as (here, there):
        for _ in range(MANY):
            here.sendall(b"\x81\x40" + OTHERS[0].ljust(64))
            time.sleep(0.001)
        assert read(there, 66 * MANY).count(OTHERS[0]) == MANY


def test_a_ration_of_bytes_that_observes_only_counts(backend: Backend, far: str, cable: Cable) -> None:
    """In the mode observe every segment passes, and those over the ration are counted."""
    plan(backend, PLAN.adding(evolve(RATION, mode=LimitMode.OBSERVE)))
    with stream(cable, far, SIP) as (here, there):
        here.sendall(b"x" * 40_000)
        assert len(read(there, 40_000)) == 40_000
    assert backend.counters().of("rationed") > 0
