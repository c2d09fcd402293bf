"""Packets that the kernel copies to the wire, by each backend and for both IP versions."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_network

import pytest
from attrs import evolve
from tests.support.cable import CABLES, WAIT, Cable, all_received
from tests.support.lists import write_list
from tests.support.netns import inside, run
from tests.support.nflog import Copied, copies
from tests.support.packets import OTHER, SIP, ban, behind, ends, opened, plan, stream

from ringfence.features.limiter.stage import Limit
from ringfence.firewall import network_lists
from ringfence.firewall.contract import (
    DROPPED_PREFIX,
    DROPPED_RATE,
    Backend,
    FirewallPlan,
    Remove,
)
from ringfence.firewall.ipset import iptables_rules
from ringfence.firewall.limits import LimitMode, Table
from ringfence.firewall.nftables import installation as nft_installation
from ringfence.firewall.nftables import installation as nft_requirements
from ringfence.firewall.nftables import ruleset
from ringfence.firewall.ports import Ports
from ringfence.values.ban import Scope

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]
GROUP = 7
LAST = b"SIP/2.0 401 the last"
PLAN = FirewallPlan(log_group=GROUP, sip_ports=Ports(udp=(SIP,), tcp=(5038, SIP, *range(6001, 6031))))
LONG = pytest.mark.long
OLD = "nftables without @ih"


@pytest.fixture(params=["nft", pytest.param("legacy", marks=LONG), "nftables", pytest.param(OLD, marks=LONG)])
def backend(
    request: pytest.FixtureRequest, netns: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backend]:
    """Yield each backend, opened; ipset with each flavour of iptables, nftables as on an old kernel too."""
    if request.param.endswith("@ih"):
        first, *others = nft_requirements.variants(PLAN)
        assert first[1]
        monkeypatch.setattr(nft_installation, "variants", lambda plan: [(plan, *others[0][1:])])
    with opened(request.param.split()[0]) as made:
        yield made


def answer(status: int) -> bytes:
    """Return an answer of that status, longer than a short WebSocket frame."""
    return b"SIP/2.0 %d Whatever\r\nCall-ID: " % status + b"c" * 200 + b"\r\n\r\n"


def frame(payload: bytes, first: int = 0x81, mask: int = 0) -> bytes:
    """Return a WebSocket frame of up to 65 535 bytes; by default a text frame of a server."""
    if len(payload) < 126:
        return bytes([first, len(payload) | mask]) + payload
    return bytes([first, 126 | mask]) + struct.pack(">H", len(payload)) + payload


CUT = b"SIP/2.0 40"
COPIED = [answer(status) for status in (401, 403, 407)]
DATAGRAMS = [*COPIED, answer(404)]  # copied over UDP alone
IGNORED = [
    *(answer(status) for status in (100, 200, 202, 400, 402, 405, 408, 503)),
    b"x" + answer(401),
    b"SIP/2.1" + answer(401)[7:],
    CUT,
    b"REGISTER sip:a SIP/2.0 401",
    b"\x81",
]
SHORT = b"SIP/2.0 403 Forbidden\r\n\r\n"
FRAMED = [*map(frame, [*COPIED, SHORT, b"SIP/2.0 401" + b"x" * 114])]
UNFRAMED = [
    *map(frame, (answer(200), answer(404), b"x" + SHORT, b"SIP/2.0 200 OK")),
    *(frame(payload, first) for payload in (COPIED[0], SHORT) for first in (0x01, 0x82, 0x80, 0xC1)),
    *(frame(payload, mask=0x80) for payload in (COPIED[0], SHORT)),
    b"\x81\x7f" + struct.pack(">Q", len(COPIED[0])) + COPIED[0],
    b"\x81\x7f" + COPIED[0],
]


def segments(sender: socket.socket, receiver: socket.socket, payloads: list[bytes]) -> None:
    """Send each payload in its own segment."""
    for payload in payloads:
        sender.sendall(payload)
        left = len(payload)
        while left:
            left -= len(receiver.recv(left))


def end_of(cable: Cable, far: str, until: Callable[[bytes], list[Copied]]) -> list[bytes]:
    """Send a challenge that ends the reading, and return the payloads that were copied before it.

    Empty segments and requests are left out.
    """
    with ends(cable, far, OTHER) as (here, there):
        here.sendto(LAST, there.getsockname())
        found = until(LAST)
    return [payload for prefix, payload in found if payload and not prefix]


def request(number: int) -> bytes:
    """Return a request with that number."""
    return b"REGISTER sip:a SIP/2.0\r\nCall-ID: %d\r\n\r\n" % number


EVERY = ["nft", pytest.param("legacy", marks=LONG), "nftables", OLD]
each_backend = pytest.mark.parametrize("backend", EVERY, indirect=True)


@each_backend
def test_datagrams_that_begin_with_a_refusal_are_copied(backend: Backend, far: str, cable: Cable) -> None:
    """Outgoing UDP datagrams with a 401, 403, 404 or 407 are copied, from any port and to anybody."""
    plan(backend, PLAN)
    write_list(backend, network_lists.ALLOW, [ip_network(cable.banned)])
    with copies(GROUP) as until, ends(cable, far, SIP) as (here, there):
        for payload in [*DATAGRAMS, *IGNORED, *FRAMED, *UNFRAMED]:
            here.sendto(payload, there.getsockname())
        for payload in DATAGRAMS:
            there.sendto(payload, here.getsockname())  # a provider's answer is not this host's
        assert end_of(cable, far, until) == DATAGRAMS


@each_backend
def test_segments_from_the_sip_ports_are_copied(backend: Backend, far: str, cable: Cable) -> None:
    """Every segment to a stranger is copied, also the SYN, and every segment of a stranger, as a request.

    To friends and allowed networks, only a 401, 403 or 407 is copied, bare or in a WebSocket text frame. What
    they send is not copied.
    """
    plan(backend, PLAN)
    sent = [*DATAGRAMS, *IGNORED, *FRAMED, *UNFRAMED, b"a", b"bc", b"def", b"x" * 20_000]
    for which in (None, network_lists.ALLOW, network_lists.FRIENDS):
        if which is not None:
            write_list(backend, which, [ip_network(cable.banned)])
        for port, timestamps in ((SIP, 0), (6030, 1)):
            run("sysctl", "-q", f"net.ipv4.tcp_timestamps={timestamps}")
            with copies(GROUP) as until, stream(cable, far, port) as (here, there):
                segments(here, there, sent)
                segments(there, here, COPIED)
                with ends(cable, far, OTHER) as (own, other):
                    own.sendto(LAST, other.getsockname())
                    seen = until(LAST)
            asked = b"".join(payload for prefix, payload in seen if prefix)
            assert asked == (b"".join(COPIED) if which is None else b""), (which, port)
            found = [payload for prefix, payload in seen if not prefix]
            if which is not None:
                assert found == [*COPIED, *FRAMED], (which, port)
            else:
                assert found[0] == b"", port
                assert b"".join(found) == b"".join(sent), port
        if which is not None:
            write_list(backend, which, [])


def test_segments_to_this_host_itself_are_not_all_copied(backend: Backend, far: str) -> None:
    """Over the loopback interface, as from AMI to this daemon, only answers are copied."""
    plan(backend, PLAN)
    cable = CABLES["IPv4"]
    with copies(GROUP) as until, socket.create_server(("127.0.0.1", SIP)) as listening:
        with socket.create_connection(listening.getsockname()) as there, listening.accept()[0] as here:
            segments(here, there, [b"Asterisk Call Manager", COPIED[0], b"x" + COPIED[0]])
        assert end_of(cable, far, until) == [COPIED[0]]


def test_segments_of_other_ports_are_not_copied(backend: Backend, far: str, cable: Cable) -> None:
    """A refusal by TCP from another port than the SIP ports is not copied."""
    plan(backend, PLAN)
    with copies(GROUP) as until, stream(cable, far, OTHER) as (here, there):
        segments(here, there, [*COPIED, *FRAMED])
        assert end_of(cable, far, until) == []


def test_without_a_group_nothing_is_copied(backend: Backend, far: str, cable: Cable) -> None:
    """Without a log group in the plan no packet is copied."""
    plan(backend, PLAN)
    plan(backend, FirewallPlan())
    with copies(GROUP) as until, ends(cable, far, SIP) as (here, there):
        here.sendto(COPIED[0], there.getsockname())
        plan(backend, PLAN)
        assert end_of(cable, far, until) == []


@each_backend
def test_a_header_of_any_length_is_followed(
    backend: Backend, far: str, request: pytest.FixtureRequest
) -> None:
    """The payload is found behind TCP options of any length; without @ih for two header lengths only.

    This concerns friends. To strangers every segment is copied.
    """
    plan(backend, PLAN)
    cable = CABLES["IPv4"]
    write_list(backend, network_lists.FRIENDS, [ip_network(cable.banned)])
    lengths = [5, 8] if "@ih" in request.node.name else [*range(5, 16)]
    with copies(GROUP) as until, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        for words in range(5, 16):
            header = struct.pack(">HHIIBBHHH", SIP, 40_000, 1, 1, words << 4, 0x18, 1000, 0, 0)
            options = b"\1" * (4 * words - len(header))
            raw.sendto(header + options + b"%s %d" % (COPIED[0], words), (cable.banned, 0))
        assert end_of(cable, far, until) == [b"%s %d" % (COPIED[0], words) for words in lengths]


def test_answers_to_this_host_are_not_copied(backend: Backend, far: str, cable: Cable) -> None:
    """A provider's refusal to this host, from its SIP port by UDP or TCP, is not copied."""
    plan(backend, PLAN)
    with copies(GROUP) as until, ExitStack() as stack:
        with inside(far):
            there, listening = (
                stack.enter_context(socket.socket(cable.family, kind))
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
            )
        here = stack.enter_context(socket.socket(cable.family, socket.SOCK_DGRAM))
        here.bind((cable.here, SIP))
        here.settimeout(WAIT)
        there.bind((cable.banned, SIP))
        for payload in COPIED:
            assert there.sendto(payload, here.getsockname()) == len(here.recv(1000))
        # The end of a connection of another test may still wait at this port.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((cable.banned, SIP))
        listening.listen()
        calling = stack.enter_context(socket.create_connection(listening.getsockname()[:2]))
        accepted = stack.enter_context(listening.accept()[0])
        segments(accepted, calling, COPIED)
        assert end_of(cable, far, until) == []


def test_answers_of_a_container_are_copied(backend: Backend, far: str) -> None:
    """The answers of a container behind this host are copied, by UDP and by TCP."""
    plan(backend, PLAN)
    cable = CABLES["IPv4"]
    with copies(GROUP) as until, behind(far) as container, ExitStack() as stack:
        with inside(container):
            inner = stack.enter_context(socket.socket(cable.family, socket.SOCK_DGRAM))
            listening = stack.enter_context(socket.create_server(("10.9.9.2", SIP)))
        inner.bind(("10.9.9.2", SIP))
        with inside(far):
            there = stack.enter_context(socket.socket(cable.family, socket.SOCK_DGRAM))
            calling = stack.enter_context(socket.create_connection(listening.getsockname()))
        there.bind((cable.banned, 0))
        there.settimeout(WAIT)
        accepted = stack.enter_context(listening.accept()[0])
        for payload in [*COPIED, *IGNORED]:
            assert inner.sendto(payload, there.getsockname()) == len(there.recv(1000))
        sent = [*FRAMED, *UNFRAMED, *COPIED]
        segments(accepted, calling, sent)
        found = end_of(cable, far, until)
        found = [payload for payload in found if payload != CUT]  # ipset copies it, nftables does not
        datagrams = [*COPIED, *IGNORED[:8]]
        assert found[: len(datagrams)] == datagrams
        assert b"".join(found[len(datagrams) :]) == b"".join(sent)


def test_all_answers_to_strangers_are_copied(backend: Backend, far: str, cable: Cable) -> None:
    """Each answer of a SIP port to a stranger is copied once; to a friend only a refusal, and no request."""
    plan(backend, PLAN)
    write_list(backend, network_lists.FRIENDS, [ip_network(cable.other)])
    answers = [b"SIP/2.0 %d X\r\n" % status for status in (100, 200, 401, 404, 486)]
    with copies(GROUP) as until, ExitStack() as stack:
        sip, there = stack.enter_context(ends(cable, far, SIP))
        _, friend = stack.enter_context(ends(cable, far, 6001, there=cable.other))
        other, _ = stack.enter_context(ends(cable, far, 6002))
        for answer in answers:
            sip.sendto(answer, there.getsockname())
            sip.sendto(answer, friend.getsockname())
        other.sendto(answers[1], there.getsockname())
        sip.sendto(request(1), there.getsockname())
        sip.sendto(LAST, there.getsockname())
        copied = [payload for _, payload in until(LAST)]
    assert sorted(copied) == sorted([*answers, answers[2], answers[3]])


def test_copied_requests_are_limited_by_rate(
    backend: Backend, far: str, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many requests at once the rate of one second is copied, and all of them arrive."""
    with monkeypatch.context() as slow:
        for module in (ruleset, iptables_rules):
            slow.setattr(module, "REQUEST_RATE", 100)
        plan(backend, PLAN)
    with copies(GROUP) as until, ends(cable, far, SIP) as (here, there):
        began = time.monotonic()
        for number in range(1000):
            there.sendto(request(number), here.getsockname())
            assert here.recv(100) == request(number)
        took = time.monotonic() - began
        here.sendto(LAST, there.getsockname())
        copied = [payload for _, payload in until(LAST)]
    assert copied[:40] == [request(number) for number in range(40)]
    assert len(copied) <= 100 * (1 + took) + 1


@each_backend
def test_copied_requests_of_one_sender_are_limited(backend: Backend, far: str, cable: Cable) -> None:
    """One sender's requests are copied up to its limit; those of another, and answers, are still copied.

    The two senders share an IPv6 /64, and therefore its limit.
    """
    plan(backend, evolve(PLAN, sender_rate=50))
    with copies(GROUP) as until, ExitStack() as stack:
        sip, flooder = stack.enter_context(ends(cable, far, SIP))
        _, other = stack.enter_context(ends(cable, far, 6001, there=cable.other))
        began = time.monotonic()
        for number in range(1000):
            flooder.sendto(request(number), sip.getsockname())
            assert sip.recv(100) == request(number)
        took = time.monotonic() - began
        for number in range(2000, 2040):
            other.sendto(request(number), sip.getsockname())
            assert sip.recv(100) == request(number)
        sip.sendto(COPIED[0], flooder.getsockname())
        sip.sendto(LAST, flooder.getsockname())
        copied = [payload for _, payload in until(LAST)]
    assert copied[:20] == [request(number) for number in range(20)]
    others = [request(number) for number in range(2000, 2040)]
    assert copied[-1] == COPIED[0]
    if cable.family == socket.AF_INET:
        assert copied[-41:-1] == others
        copied = copied[:-40]
    assert len(copied) - 1 <= 50 * (2 + took) + 1


def test_a_full_table_of_the_copies_loses_no_request(
    backend: Backend, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the table of the limit has no room for a sender, or may become full, its requests are copied."""
    cable = CABLES["IPv4"]
    with monkeypatch.context() as small:
        small.setattr(ruleset, "_COPIED", Table("copied", 2, 1))
        small.setattr(iptables_rules, "_MOST_COPIES", 1)
        plan(backend, evolve(PLAN, sender_rate=5))
    with copies(GROUP) as until, ExitStack() as stack:
        sip, first = stack.enter_context(ends(cable, far, SIP))
        _, second = stack.enter_context(ends(cable, far, 6001, there=cable.other))
        for number, sender in enumerate([first, *[second] * 30]):
            sender.sendto(request(number), sip.getsockname())
            assert sip.recv(100) == request(number)
        sip.sendto(LAST, first.getsockname())
        copied = [payload for _, payload in until(LAST)]
    assert copied == [request(number) for number in range(31)]


def test_requests_that_a_narrow_ban_drops_are_copied(backend: Backend, far: str, cable: Cable) -> None:
    """A ban from the SIP ports by UDP copies what it drops, within a limit."""
    plan(backend, PLAN)
    ban(backend, cable, Scope.SIP_UDP)
    with copies(GROUP) as until, ends(cable, far, SIP) as (here, there):
        began = time.monotonic()
        for number in range(3_000):
            there.sendto(request(number), here.getsockname())
        took = time.monotonic() - began
        assert all_received(here) == []
        backend.apply([Remove(ip_network(cable.network), Scope.SIP_UDP)])
        here.sendto(LAST, there.getsockname())
        copied = until(LAST)
    assert copied[:40] == [(DROPPED_PREFIX, request(number)) for number in range(40)]
    assert len(copied) <= DROPPED_RATE * (1 + took) + 1


def test_requests_that_are_dropped_are_not_copied(backend: Backend, far: str, cable: Cable) -> None:
    """A request that a full ban or the limiter drops is not copied."""
    plan(backend, PLAN.adding(Limit(LimitMode.ENFORCE, rate=1, burst=3)))
    for banned in (True, False):
        with copies(GROUP) as until, ends(cable, far, SIP) as (here, there):
            if banned:
                ban(backend, cable, Scope.FULL)
            for number in range(20):
                there.sendto(request(number), here.getsockname())
            arrived = len(all_received(here))
            backend.apply([Remove(ip_network(cable.network), Scope.FULL)])
            here.sendto(LAST, there.getsockname())
            assert len(until(LAST)) == arrived
        assert arrived == 0 if banned else 3 <= arrived < 20
