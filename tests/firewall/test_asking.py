"""The ration of questions: what a stranger may send to the SIP ports, with real packets."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from tests.firewall.test_contract import successor
from tests.support.cable import CABLES, Cable, all_received
from tests.support.lists import write_list
from tests.support.netns import inside, run
from tests.support.nflog import copies
from tests.support.packets import (
    OTHER,
    SIP,
    at_once,
    ban,
    behind,
    container_ends,
    ends,
    is_ration,
    plan,
    read,
    stream,
)

from ringfence.features.limiter.stage import Limit
from ringfence.features.ration.stage import NEAR, SEGMENT, AskingRation
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Backend, FirewallPlan
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.ports import Ports

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

TLS, HTTP, HTTPS, IAX2 = 5061, 8088, 8089, 4569
# One datagram a second after the first five: slow enough that a test sees only the first five.
ASKING = AskingRation(LimitMode.ENFORCE, burst=5, rate=1)
PORTS = Ports(udp=(IAX2, SIP), tcp=(SIP, TLS, HTTP, HTTPS))
PLAN = FirewallPlan(sip_ports=PORTS, wss=(HTTPS,), added=(ASKING,))
WITH_CONTAINER = evolve(PLAN, containers=frozenset({ip_address("10.9.9.2"), ip_address("fd00:9::2")}))
GUESS = b"REGISTER sip:198.18.0.1 SIP/2.0\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01".ljust(517, b"h")
FRAME = b"\x81\xfe\x01\x90".ljust(400, b"f")
MANY = 50
FREEBIND = 15  # IP_FREEBIND of linux/in.h
PER_SECOND = ASKING.bytes_a_second
SECONDS = 3  # a busy machine may take so long, while the ration refills


def arrived(there: socket.socket, here: socket.socket, payloads: Sequence[bytes]) -> int:
    """Send datagrams from the far end; return how many reach ``here``."""
    for payload in payloads:
        there.sendto(payload, here.getsockname())
    return len(all_received(here))


@contextmanager
def strangers(cable: Cable, far: str, addresses: Sequence[str]) -> Iterator[list[socket.socket]]:
    """Yield UDP sockets at addresses of the far end, of IPv4 also in 198.18.40.0/23."""
    run("ip", "-n", far, "route", "replace", "local", "198.18.40.0/23", "dev", "lo")
    with ExitStack() as stack:
        found = []
        for address in addresses:
            with inside(far):
                one = stack.enter_context(socket.socket(cable.family, socket.SOCK_DGRAM))
            one.setsockopt(socket.IPPROTO_IP, FREEBIND, 1)  # for IPv6
            one.bind((address, 0))
            found.append(one)
        yield found


# -- datagrams


def test_a_stranger_asks_five_times_at_once_and_no_more(backend: Backend, far: str, cable: Cable) -> None:
    """Of many datagrams at once five reach the SIP port; the counter has the others."""
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(there, here, [GUESS] * MANY) == 5
    counters = backend.counters()
    assert (counters.of("asked"), counters.of("asked_full")) == (MANY - 5, 0)


def test_the_ration_refills_slowly(backend: Backend, far: str, cable: Cable) -> None:
    """After a pause more datagrams pass, and never more than at once."""
    plan(backend, PLAN.adding(evolve(ASKING, burst=2, rate=5)))
    with ends(cable, far, SIP) as (here, there):
        for pause in (0.0, 1.0):
            time.sleep(pause)
            begun = time.monotonic()
            assert is_ration(arrived(there, here, [GUESS] * MANY), 2, 5, begun)


def test_a_stranger_begins_one_flow_at_once(backend: Backend, far: str, cable: Cable) -> None:
    """Of many ports of one address one gets through, and its next requests do."""
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, _), strangers(cable, far, [cable.banned] * MANY) as phones:
        begun = time.monotonic()
        for phone in phones:
            phone.sendto(GUESS, here.getsockname())
        assert is_ration(len(all_received(here)), 1, ASKING.rate, begun)
        assert is_ration(arrived(phones[0], here, [GUESS] * 9), 4, ASKING.rate, begun)
        assert is_ration(arrived(phones[1], here, [GUESS] * 9), 0, ASKING.rate, begun)


def test_one_flow_leaves_room_for_the_next_one(backend: Backend, far: str, cable: Cable) -> None:
    """A phone with a wrong password that asks without end leaves half of the ration to others."""
    plan(backend, PLAN.adding(evolve(ASKING, rate=4)))
    with ends(cable, far, SIP) as (here, _), strangers(cable, far, [cable.banned] * 2) as (wrong, right):
        assert arrived(wrong, here, [GUESS] * MANY) >= 5
        for _ in range(10):
            time.sleep(0.15)
            arrived(wrong, here, [GUESS] * MANY)
        assert arrived(right, here, [GUESS] * 2) == 2


def test_a_ration_that_observes_only_counts(backend: Backend, far: str, cable: Cable) -> None:
    """In the mode observe every packet passes, and each one over the ration is counted once."""
    plan(backend, PLAN.adding(evolve(ASKING, mode=LimitMode.OBSERVE)))
    with ends(cable, far, SIP) as (here, _), strangers(cable, far, [cable.banned] * 2) as (first, second):
        assert arrived(first, here, [GUESS] * MANY) == MANY
        assert arrived(second, here, [GUESS] * MANY) == MANY
    assert backend.counters().of("asked") == 2 * MANY - 5


def test_the_addresses_of_a_64_share_one_ration(backend: Backend, far: str) -> None:
    """Two addresses of one /64 together begin one flow and send five datagrams."""
    cable = CABLES["IPv6"]
    plan(backend, PLAN)
    with (
        ends(cable, far, SIP) as (here, _),
        strangers(cable, far, [cable.banned, cable.other]) as (first, second),
    ):
        begun = time.monotonic()
        assert is_ration(arrived(first, here, [GUESS] * MANY), 5, ASKING.rate, begun)
        assert is_ration(arrived(second, here, [GUESS] * MANY), 0, ASKING.rate, begun)


@pytest.mark.parametrize(
    ("name", "pattern"), [("IPv4", "198.18.40.{}"), ("IPv6", "fd00:18:0:{:x}::1")], ids=["/24", "/48"]
)
def test_neighbours_share_a_larger_ration(backend: Backend, far: str, name: str, pattern: str) -> None:
    """Of many addresses of a /24, or /64s of a /48, as many get through at once as its multiple permits."""
    cable = CABLES[name]
    plan(backend, PLAN)
    addresses = [pattern.format(number) for number in range(1, MANY + 1)]
    with ends(cable, far, SIP) as (here, _), strangers(cable, far, addresses) as phones:
        for phone in phones:
            phone.sendto(GUESS, here.getsockname())
        assert NEAR <= len(all_received(here)) <= NEAR * 2
        total = sum(arrived(phone, here, [GUESS] * 9) for phone in phones[: 2 * NEAR])
        assert 3 * NEAR <= total <= (5 + SECONDS) * NEAR


def test_other_networks_have_their_own_ration(backend: Backend, far: str) -> None:
    """Many strangers of one /24 take nothing from those of another."""
    cable = CABLES["IPv4"]
    plan(backend, PLAN)
    crowd = [f"198.18.40.{number}" for number in range(1, MANY + 1)]
    with ends(cable, far, SIP) as (here, _), strangers(cable, far, [*crowd, "198.18.41.1"]) as phones:
        for phone in phones[:-1]:
            phone.sendto(GUESS, here.getsockname())
        assert len(all_received(here)) < MANY
        assert arrived(phones[-1], here, [GUESS] * 9) == 5


def test_a_rule_that_counts_many_attempts_has_a_ration(backend: Backend, far: str, cable: Cable) -> None:
    """The kernel takes a large ration, and counts by it."""
    plan(backend, PLAN.adding(evolve(ASKING, burst=200)))
    with ends(cable, far, SIP) as (here, there):
        assert arrived(there, here, [GUESS] * 250) == 200


def test_new_rules_keep_what_was_asked(backend: Backend, far: str, cable: Cable) -> None:
    """A reload of the configuration renews no ration."""
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(there, here, [GUESS] * MANY) == 5
        plan(backend, PLAN.adding(Limit(LimitMode.ENFORCE, 500, 500)))
        assert arrived(there, here, [GUESS] * MANY) <= SECONDS


def test_new_numbers_reach_who_goes_on_asking(backend: Backend, far: str, cable: Cable) -> None:
    """A reload that raises or lowers the ration counts at once, also for a sender that never pauses."""
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(there, here, [GUESS] * MANY) == 5
        plan(backend, evolve(PLAN, added=(evolve(ASKING, burst=40),)))
        assert arrived(there, here, [GUESS] * MANY) >= 40
        plan(backend, PLAN)
        assert arrived(there, here, [GUESS] * MANY) <= 5 + SECONDS


def test_new_numbers_hold_at_once_after_a_restart(backend: Backend, far: str, cable: Cable) -> None:
    """A sender that never pauses gets another ration after a restart, and no new one if it is the same."""
    larger = evolve(PLAN, added=(evolve(ASKING, burst=40),))
    plan(backend, PLAN)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(there, here, [GUESS] * MANY) == 5
        backend.close()
        for wanted, least, most in ((larger, 40, MANY), (PLAN, 5, 5 + SECONDS), (PLAN, 0, SECONDS)):
            with closing(successor(backend)) as restarted:
                plan(restarted, wanted)
                assert least <= arrived(there, here, [GUESS] * MANY) <= most


def test_the_ration_may_be_limited_to_interfaces(backend: Backend, far: str, cable: Cable) -> None:
    """With interfaces named, packets that come by other interfaces have no ration."""
    for interfaces, expected in ((("other0",), MANY), (("near0",), 5)):
        plan(backend, evolve(PLAN, interfaces=interfaces))
        with ends(cable, far, SIP) as (here, there):
            assert arrived(there, here, [GUESS] * MANY) == expected


def test_the_wire_sees_only_what_passes(backend: Backend, far: str, cable: Cable) -> None:
    """Packets that Asterisk never sees are not copied either."""
    plan(backend, evolve(PLAN, log_group=7))
    with copies(7) as until, ends(cable, far, SIP) as (here, there):
        assert arrived(there, here, [GUESS] * MANY) == 5
        assert arrived(there, here, [b"ACK the last"]) == 1
        assert len(until(b"ACK the last")) == 5


def test_a_banned_address_uses_up_no_ration(backend: Backend, far: str, cable: Cable) -> None:
    """Packets of a banned address are drops of the ban, and not of the ration."""
    plan(backend, PLAN)
    ban(backend, cable)
    with ends(cable, far, SIP) as (here, there):
        assert arrived(there, here, [GUESS] * MANY) == 0
    assert backend.counters().of("asked") == 0


@pytest.mark.parametrize(("wanted", "expected"), [(WITH_CONTAINER, 5), (PLAN, MANY)], ids=["ours", "other"])
def test_questions_to_a_container_are_rationed(
    backend: Backend, far: str, wanted: FirewallPlan, expected: int
) -> None:
    """Datagrams to Asterisk's container have the ration; another PBX behind this host has none."""
    plan(backend, wanted)
    with container_ends(far) as (inner, remote):
        assert arrived(remote, inner, [GUESS] * MANY) == expected


# -- streams


@pytest.mark.parametrize(("port", "at_once"), [(SIP, 1_600), (TLS, 2_000), (HTTPS, 2_000)])
def test_a_stranger_sends_few_bytes_at_once(
    backend: Backend, far: str, cable: Cable, port: int, at_once: int
) -> None:
    """Of many requests, one after the other, some bytes reach the SIP port, whatever they begin with."""
    plan(backend, PLAN)
    with stream(cable, far, port) as (here, there):
        for _ in range(MANY):
            there.sendall(b"x" * 400)
            time.sleep(0.001)
        assert 800 <= len(read(here, 400 * MANY)) <= at_once + SECONDS * PER_SECOND
    assert backend.counters().of("asked") > 0


def test_many_guesses_in_one_segment_are_over_the_ration(backend: Backend, far: str, cable: Cable) -> None:
    """Data that is sent at once arrives in single segments, as TCP sends it again."""
    plan(backend, PLAN.adding(evolve(ASKING, rate=2)))
    with stream(cable, far, SIP) as (here, there):
        there.sendall(b"x" * 40_000)
        # The probe for a lost tail uses up the ration; the first segment passes when it has come back.
        assert 500 <= len(read(here, 500)) <= 3_000


def longest_segment(cable: Cable, far: str, port: int) -> int:
    """Return how many bytes a connection from the far end sends in one segment."""
    with stream(cable, far, port) as (_, there):
        return there.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)


@pytest.mark.parametrize("port", [SIP, TLS, HTTP, HTTPS])
def test_strangers_send_short_segments(backend: Backend, far: str, cable: Cable, port: int) -> None:
    """A segment that TCP sends again holds no two guesses of usual length; friends send whole frames."""
    plan(backend, PLAN)
    assert 536 <= longest_segment(cable, far, port) <= SEGMENT
    assert longest_segment(cable, far, OTHER) > 2 * SEGMENT
    write_list(backend, network_lists.FRIENDS, [ip_network(cable.banned)])
    assert longest_segment(cable, far, port) > 2 * SEGMENT


def test_a_ration_that_observes_leaves_segments_alone(backend: Backend, far: str, cable: Cable) -> None:
    """Only a ration that drops packets asks for short segments."""
    plan(backend, PLAN.adding(evolve(ASKING, mode=LimitMode.OBSERVE)))
    assert longest_segment(cable, far, SIP) > 2 * SEGMENT


def test_a_large_call_arrives_in_short_segments(backend: Backend, far: str, cable: Cable) -> None:
    """A call with three kilobytes gets through whole, a little at a time."""
    plan(backend, PLAN.adding(evolve(ASKING, rate=2)))
    call = b"INVITE sip:1@198.18.0.1 SIP/2.0\r\n".ljust(3_000, b"v")
    with stream(cable, far, SIP) as (here, there):
        there.sendall(call)
        assert read(here, len(call), 20.0, 20.0) == call


def test_a_stranger_may_open_many_connections(backend: Backend, far: str, cable: Cable) -> None:
    """Each of many connections is accepted, and one of them sends."""
    plan(backend, PLAN)
    with ends(cable, far, SIP, socket.SOCK_STREAM) as (listener, _), ExitStack() as stack:
        listener.listen(MANY)
        accepted = []
        for _ in range(MANY):
            with inside(far):
                there = stack.enter_context(socket.socket(cable.family, socket.SOCK_STREAM))
            at_once(there)
            there.bind((cable.banned, 0))
            there.settimeout(5.0)
            there.connect(listener.getsockname())
            accepted.append(stack.enter_context(listener.accept()[0]))
            there.sendall(b"x" * 300)
        time.sleep(0.05)
        assert 1 <= sum(bool(read(one, 1, first=0.001)) for one in accepted) <= SECONDS


def test_what_was_dropped_arrives_when_the_sender_is_a_friend(
    backend: Backend, far: str, cable: Cable
) -> None:
    """TCP sends dropped segments again: nothing is missing afterwards."""
    plan(backend, PLAN)
    with stream(cable, far, SIP) as (here, there):
        for _ in range(MANY):
            there.sendall(b"x" * 400)
            time.sleep(0.001)
        first = read(here, 400 * MANY)
        assert len(first) < 10_000
        write_list(backend, network_lists.FRIENDS, [ip_network(cable.banned)])
        assert len(first + read(here, 400 * MANY - len(first), 5.0)) == 400 * MANY


def test_the_first_segment_of_a_tls_handshake_is_free(backend: Backend, far: str, cable: Cable) -> None:
    """Bytes behind a ClientHello are counted as without it; so is a second ClientHello in a connection."""
    plan(backend, PLAN)
    requests = b"x" * 900
    with stream(cable, far, TLS) as (here, there):
        for part in (HELLO, requests, requests):
            there.sendall(part)
            assert read(here, len(part)) == part
    assert backend.counters().of("asked") == 0
    with stream(cable, far, TLS) as (here, there):
        time.sleep(1.5)  # another flow begins
        for _ in range(MANY):
            there.sendall(HELLO)
            time.sleep(0.001)
        assert len(read(here, MANY * len(HELLO))) <= 2_000 + len(HELLO) + SECONDS * PER_SECOND


def test_a_long_segment_that_begins_like_a_handshake_is_counted(
    backend: Backend, far: str, cable: Cable
) -> None:
    """In an old session a record may look like a ClientHello, and the kernel may merge guesses with it."""
    plan(backend, PLAN.adding(evolve(ASKING, rate=2)))
    with stream(cable, far, TLS) as (here, there):
        there.sendall(HELLO.ljust(20_000, b"x"))
        assert 500 <= len(read(here, 500)) <= 3_000


def test_pages_have_no_ration(backend: Backend, far: str, cable: Cable) -> None:
    """Requests for pages, what they upload, and TLS at a port that serves pages pass as fast as they come."""
    plan(backend, evolve(PLAN, wss=()))
    for port in (HTTP, HTTPS, OTHER):
        for begin in (b"GET / HTTP/1.1\r\n", b"\x17\x03\x03\x10\x00", b"Action: Login\r\n"):
            with stream(cable, far, port) as (here, there):
                for _ in range(MANY):
                    there.sendall(begin.ljust(400, b"p"))
                assert len(read(here, 400 * MANY)) == 400 * MANY
    assert backend.counters().of("asked") == 0


def test_frames_of_a_websocket_are_rationed(backend: Backend, far: str, cable: Cable) -> None:
    """Segments that begin with a client's frame are counted, also if no answer showed the WebSocket."""
    plan(backend, PLAN)
    with stream(cable, far, HTTP) as (here, there):
        for _ in range(MANY):
            there.sendall(FRAME)
            time.sleep(0.001)
        assert 800 <= len(read(here, MANY * len(FRAME))) <= 1_600 + SECONDS * PER_SECOND


@pytest.mark.parametrize("begin", [FRAME + FRAME[:100], b"\x89\x80mask"], ids=["text", "ping"])
def test_everything_behind_a_frame_is_rationed(
    backend: Backend, far: str, cable: Cable, begin: bytes
) -> None:
    """After a segment that begins with a client's frame, those count that begin in the middle of one."""
    plan(backend, PLAN)
    rest = FRAME[100:] + FRAME[:100]
    with stream(cable, far, HTTP) as (here, there):
        there.sendall(begin)
        assert read(here, len(begin)) == begin
        for _ in range(MANY):
            there.sendall(rest)
            time.sleep(0.001)
        assert 400 <= len(read(here, MANY * len(rest))) <= 1_600 + SECONDS * PER_SECOND


def test_everything_on_a_websocket_is_rationed(backend: Backend, far: str, cable: Cable) -> None:
    """After Asterisk's answer 101 all bytes of the connection count, whatever they begin with."""
    plan(backend, PLAN)
    with stream(cable, far, HTTP) as (here, there):
        there.sendall(b"GET /ws HTTP/1.1\r\n\r\n".ljust(900))
        assert len(read(here, 900)) == 900
        here.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        assert read(there, 9)
        for _ in range(MANY):
            there.sendall(b"GET /".ljust(400))
            time.sleep(0.001)
        assert 800 <= len(read(here, MANY * 400)) <= 1_600 + SECONDS * PER_SECOND
    with stream(cable, far, HTTP) as (here, there):
        here.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        assert read(there, 9)
        there.sendall(b"GET /".ljust(20_000))
        assert len(read(here, 20_000)) == 20_000


def test_a_containers_streams_are_rationed(backend: Backend, far: str) -> None:
    """A stranger's data to Asterisk's container by TCP and by WebSocket has the same ration."""
    plan(backend, WITH_CONTAINER)
    with behind(far) as container:
        for port in (SIP, HTTP):
            with ExitStack() as stack:
                with inside(container):
                    listener = stack.enter_context(socket.create_server(("10.9.9.2", port)))
                with inside(far):
                    there = stack.enter_context(socket.create_connection(("10.9.9.2", port), 5.0))
                assert there.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= SEGMENT
                at_once(there)
                here = stack.enter_context(listener.accept()[0])
                here.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                assert read(there, 9)
                for _ in range(MANY):
                    there.sendall(b"x" * 400)
                    time.sleep(0.001)
                assert len(read(here, 400 * MANY)) <= 1_600 + SECONDS * PER_SECOND
    assert backend.counters().of("asked") > 0
