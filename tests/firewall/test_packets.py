"""The effect of every kernel backend on real packets, through a virtual cable, for both IP versions."""

import socket
import time
from contextlib import suppress
from ipaddress import ip_network
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from tests.support.cable import CABLES, WAIT, Cable, all_received, received
from tests.support.lists import write_list
from tests.support.netns import run
from tests.support.packets import (
    CHANGES,
    MANY,
    OTHER,
    SIP,
    ban,
    changing,
    connection,
    container_ends,
    datagram,
    ends,
    flood,
    plan,
    seen,
    sent,
    source_of,
)

from ringfence.features.fleet.network_list import LIST as DECIDED
from ringfence.features.limiter.stage import FLOODS, TCP_FLOODS, Limit
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Add, Backend, BanAction, FirewallPlan, Remembered, Remove
from ringfence.firewall.ipset.matches import byte_limit
from ringfence.firewall.limits import GUESS, LimitMode
from ringfence.firewall.network_lists import PASSING, NetworkList
from ringfence.firewall.ports import Ports
from ringfence.values.ban import Scope

if TYPE_CHECKING:
    from ringfence.values.network import Network

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


EACH_CABLE = (CABLES["IPv4"], CABLES["IPv6"])


@pytest.mark.parametrize("of", ["IPv4 prefix", "IPv6 /64"])
def test_allowed_addresses_are_never_dropped(backend: Backend, far: str, of: str) -> None:
    """An allowed address passes both ways despite every ban and list, and is not counted as dropped."""
    cable = CABLES[of]
    prefix, address = ip_network(cable.network), ip_network(cable.banned)
    ways: list[tuple[list[tuple[Network, Scope]], list[Network]]] = [
        ([(address, Scope.FULL)], []),
        ([(prefix, Scope.FULL), (prefix, Scope.SIP_UDP)], []),
        ([], [prefix]),
    ]
    for bans, denied in ways:
        backend.apply([Add(network, 60, scope) for network, scope in bans])
        write_list(backend, network_lists.DENY, denied)
        assert datagram(cable, far, SIP) == (False, "EPERM"), (bans, denied)
        counted = sum(element.packets for element in backend.list())

        write_list(backend, network_lists.ALLOW, [address])
        assert datagram(cable, far, SIP) == (True, True), (bans, denied)
        assert connection(cable, far, SIP) is True, (bans, denied)
        assert sum(element.packets for element in backend.list()) == counted

        write_list(backend, network_lists.ALLOW, [])
        assert datagram(cable, far, SIP) == (False, "EPERM"), (bans, denied)
        backend.apply([Remove(network, scope) for network, scope in bans])


def reaches(cable: Cable, far: str, scope: Scope) -> bool:
    """Whether the far end reaches a SIP port and gets an answer, by a transport of ``scope``."""
    if scope is Scope.SIP_TCP:
        return connection(cable, far, SIP) is True
    return datagram(cable, far, SIP) == (True, True)


PLANS = [FirewallPlan(), FirewallPlan(action=BanAction.PORT_UNREACHABLE), FirewallPlan(every_port=False)]


@pytest.mark.parametrize("wanted", PLANS)
def test_a_ban_of_a_64_exempts_the_friends_in_it(backend: Backend, far: str, wanted: FirewallPlan) -> None:
    """A friend's packets pass a ban of its /64 or of a part of it, uncounted; its neighbour's do not."""
    friend = CABLES["IPv6 /64"]
    neighbour = evolve(friend, banned="fd00:19::7:8")
    run("ip", "-n", far, "address", "add", f"{neighbour.banned}/30", "dev", "far0", "nodad")
    while not reaches(neighbour, far, Scope.FULL):  # until neighbour discovery is done
        time.sleep(0.05)
    plan(backend, wanted)
    write_list(backend, network_lists.FRIENDS, [ip_network(friend.banned)])
    for banned, passes in (
        ("fd00:19::/64", True),
        ("fd00:19::7:0/112", True),
        ("fd00:19::/63", False),
        ("fd00:19::7:7/128", False),
    ):
        for scope in Scope:
            change = Add(ip_network(banned), 60, scope)
            assert backend.apply([change])[0].error is None
            assert reaches(friend, far, scope) is passes, change
            [element] = backend.list()
            assert (element.packets == 0) is passes, change
            if passes:
                assert not reaches(neighbour, far, scope), change
                assert backend.open().adopted == 1
                assert reaches(friend, far, scope), change
                write_list(backend, network_lists.FRIENDS, [])
                assert not reaches(friend, far, scope), change
                write_list(backend, network_lists.FRIENDS, [ip_network(friend.banned)])
            backend.apply([Remove(ip_network(banned), scope)])


def test_a_friend_does_not_pass_a_ban_of_an_ipv4_network(backend: Backend, far: str) -> None:
    """For IPv4 a ban of a /24 covers the friends in it."""
    cable = CABLES["IPv4 prefix"]
    write_list(backend, network_lists.FRIENDS, [ip_network(cable.banned)])
    ban(backend, cable)

    assert datagram(cable, far, SIP) == (False, "EPERM")


MADE = [network_lists.EXTERNAL, DECIDED]
DROPPED = network_lists.DENY, *MADE


@pytest.mark.parametrize("made", MADE)
def test_friends_pass_lists_of_machines(backend: Backend, far: str, cable: Cable, made: NetworkList) -> None:
    """Machine-made lists drop strangers and no friend; a ban and the manual deny list drop friends too."""
    address, around = ip_network(cable.banned), ip_network(cable.network)
    for wanted in (evolve(one, dropped=DROPPED) for one in PLANS):
        plan(backend, wanted)
        write_list(backend, made, [around])
        before = dropped_as_denied(backend)
        assert not reaches(cable, far, Scope.SIP_UDP), wanted
        assert not reaches(cable, far, Scope.SIP_TCP), wanted
        assert dropped_as_denied(backend) > before

        write_list(backend, network_lists.FRIENDS, [address])
        assert reaches(cable, far, Scope.SIP_UDP), wanted
        assert reaches(cable, far, Scope.SIP_TCP), wanted
        assert not backend.open().repaired
        assert reaches(cable, far, Scope.SIP_UDP), wanted

        write_list(backend, network_lists.DENY, [around])
        assert not reaches(cable, far, Scope.SIP_UDP), wanted
        write_list(backend, network_lists.DENY, [])
        backend.apply([Add(address, 60)])
        assert not reaches(cable, far, Scope.SIP_UDP), wanted
        write_list(backend, network_lists.ALLOW, [address])
        assert reaches(cable, far, Scope.SIP_UDP), wanted
        backend.apply([Remove(address)])
        for which in (network_lists.ALLOW, network_lists.FRIENDS):
            write_list(backend, which, [])


@pytest.mark.parametrize("made", MADE)
def test_feeds_drop_only_what_is_new(backend: Backend, far: str, cable: Cable, made: NetworkList) -> None:
    """With ``new_only``, a stranger's new flows are dropped; known flows and answers pass."""
    address, around = ip_network(cable.banned), ip_network(cable.network)
    for wanted in (evolve(one, new_only=True, dropped=DROPPED) for one in PLANS):
        write_list(backend, made, [])
        plan(backend, wanted)
        with ends(cable, far, SIP) as (here, there):
            assert (sent(there, here), sent(here, there)) == (True, True), wanted
            write_list(backend, made, [around])
            assert (sent(there, here), sent(here, there)) == (True, True), wanted
        before = dropped_as_denied(backend)
        with ends(cable, far, SIP) as (here, there):
            assert sent(there, here) is False, wanted
            assert (sent(here, there), sent(there, here)) == (True, True), wanted
        assert connection(cable, far, SIP) is not True, wanted
        assert dropped_as_denied(backend) > before
        assert not backend.open().repaired

        for which in (*PASSING, network_lists.ALLOW):
            write_list(backend, which, [address])
            assert reaches(cable, far, Scope.SIP_UDP), wanted
            assert reaches(cable, far, Scope.SIP_TCP), wanted
            write_list(backend, which, [])
    plan(backend, FirewallPlan(dropped=DROPPED))
    assert not reaches(cable, far, Scope.SIP_UDP)
    assert not backend.open().repaired


def dropped_as_denied(backend: Backend) -> int:
    """Return the number of dropped packets from denied networks."""
    return {one.name: one.packets for one in backend.counters().rules}["from denied networks"]


def test_denied_networks_are_dropped(backend: Backend, far: str) -> None:
    """A denied network is dropped like a banned one, without a timeout, and has its own counters."""
    denied = [ip_network(cable.network) for cable in EACH_CABLE]
    write_list(backend, network_lists.DENY, [*denied, ip_network("203.0.113.0/24")])

    for number, cable in enumerate(EACH_CABLE, 1):
        assert datagram(cable, far, OTHER) == (False, "EPERM")
        assert connection(cable, far, SIP) is False
        packets = {one.name: one.packets for one in backend.counters().rules}
        assert packets["from denied networks"] >= 2 * number
        assert packets["to denied networks"] == number
        assert packets["from banned addresses"] == 0
    assert list(backend.list()) == []


def test_a_ban_of_all_of_sip_leaves_the_rest(backend: Backend, far: str) -> None:
    """A ban of scope SIP drops UDP and TCP from and to the SIP ports, for each action; other ports pass."""
    for action in BanAction:
        plan(backend, FirewallPlan(action=action, sip_ports=Ports(udp=(SIP,), tcp=(SIP,))))
        for cable in EACH_CABLE:
            ban(backend, cable, Scope.SIP)

            assert datagram(cable, far, SIP)[0] is not True, action
            assert connection(cable, far, SIP) is not True, action
            assert datagram(cable, far, OTHER) == (True, True), action
            assert connection(cable, far, OTHER) is True, action
            [element] = backend.list()
            assert (element.scope, element.packets >= 3) == (Scope.SIP, True), action
            backend.apply([Remove(ip_network(cable.network), Scope.SIP)])
            assert connection(cable, far, SIP) is True, action


def test_a_ban_of_sip_over_tcp_leaves_the_rest(backend: Backend, far: str, cable: Cable) -> None:
    """A ban of scope SIP_TCP drops TCP from and to the SIP ports, open connections too; the rest passes."""
    with ends(cable, far, SIP, socket.SOCK_STREAM) as (here, there):
        here.listen()
        there.connect(here.getsockname())
        with here.accept()[0] as accepted:
            accepted.settimeout(WAIT)
            there.sendall(b"before")
            assert accepted.recv(100) == b"before"
            ban(backend, cable, Scope.SIP_TCP)
            there.sendall(b"after")
            accepted.settimeout(0.05)
            with pytest.raises(TimeoutError):
                accepted.recv(100)
            with suppress(PermissionError):  # if the kernel reports it
                accepted.sendall(b"answer")
            there.settimeout(0.05)
            with pytest.raises(TimeoutError):
                there.recv(100)
    assert connection(cable, far, SIP) is False
    assert connection(cable, far, OTHER) is True
    assert datagram(cable, far, SIP) == (True, True)
    [element] = backend.list()
    assert (element.scope, element.packets > 0) == (Scope.SIP_TCP, True)
    plan(backend, FirewallPlan(action=BanAction.TCP_RESET))
    assert connection(cable, far, SIP) == "ECONNREFUSED"
    plan(backend, FirewallPlan(every_port=False))
    assert connection(cable, far, SIP) is False


def test_dropped_packets_may_be_logged(backend: Backend, far: str, cable: Cable) -> None:
    """With a log the bans drop as without it, and count each packet once.

    A packet that an earlier test has caused may count too.
    """
    plan(backend, FirewallPlan(log=True))
    ban(backend, cable)
    assert [datagram(cable, far, SIP) for _ in range(5)] == [(False, "EPERM")] * 5
    packets = {one.name: one.packets for one in backend.counters().rules}
    for rule in ("from banned addresses", "to banned addresses"):
        assert 5 <= packets[rule] < 10


def test_only_named_interfaces_drop(backend: Backend, far: str) -> None:
    """Packets of interfaces that are not named pass."""
    for cable in EACH_CABLE:
        ban(backend, cable)
    for names, passes in (
        (("near9",), (True, True)),
        (("near9", "near0"), (False, "EPERM")),
        ((), (False, "EPERM")),
    ):
        plan(backend, FirewallPlan(interfaces=names))
        for cable in EACH_CABLE:
            assert datagram(cable, far, SIP) == passes, names


def test_routed_packets_are_dropped_by_their_output_interface(backend: Backend, far: str) -> None:
    """A container's answer to a banned address is dropped if it leaves by a named interface."""
    ban(backend, CABLES["IPv4"])
    with container_ends(far) as (inner, there):
        for names, passes in ((("near1",), True), (("near0",), False), ((), False)):
            plan(backend, FirewallPlan(interfaces=names))
            assert sent(inner, there) is passes

        plan(backend, FirewallPlan(action=BanAction.PORT_UNREACHABLE))
        there.connect(("10.9.9.2", SIP))
        there.send(b"hello")
        with pytest.raises(ConnectionRefusedError):
            there.recv(100)
        assert received(inner) is None


SEEN: list[tuple[BanAction, set[bool | str], set[bool | str]]] = [
    (BanAction.DROP, {False}, {False}),
    (BanAction.PORT_UNREACHABLE, {"ECONNREFUSED"}, {"ECONNREFUSED"}),
    (BanAction.ADMIN_PROHIBITED, {"EHOSTUNREACH", "EACCES"}, {"EHOSTUNREACH", "EACCES"}),
    (BanAction.TCP_RESET, {False}, {"ECONNREFUSED"}),
]
"""The effects of each action that the sender may see, by UDP and by TCP."""


@pytest.mark.parametrize("every_port", [True, False])
def test_the_sender_sees_the_configured_action(backend: Backend, far: str, *, every_port: bool) -> None:
    """The sender sees silence, an ICMP error or a reset of the kernel, and never an answer."""
    run("sysctl", "-q", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    for cable in EACH_CABLE:
        ban(backend, cable)
    for action, udp, tcp in SEEN:
        plan(backend, FirewallPlan(action=action, every_port=every_port))
        for cable in EACH_CABLE:
            with ends(cable, far, SIP) as (here, there):
                there.connect(here.getsockname())
                assert seen(there, here) in udp, action
                with pytest.raises(PermissionError):
                    here.sendto(b"answer", there.getsockname())
            # connect() ignores an ICMPv6 error that comes while it still sends; the next SYN's error counts.
            patience = 0.0 if tcp == {False} else 10.0
            assert connection(cable, far, SIP, patience=patience) in tcp, action
    plan(backend, FirewallPlan())
    for cable in EACH_CABLE:
        assert connection(cable, far, SIP) is False


def test_a_burst_of_a_stranger_ends(backend: Backend, far: str, cable: Cable) -> None:
    """Of 2 000 packets the burst arrives; the rest is counted with its source. A friend's all arrive."""
    plan(backend, FirewallPlan(added=(Limit(LimitMode.ENFORCE),)))
    with ends(cable, far, SIP) as (here, there):
        arrived, took = flood(here, there, MANY)
        assert 200 <= arrived <= 200 + 50 * took + 1
        counters = backend.counters()
        assert (counters.of("limiter_drops"), counters.of("limiter_full")) == (MANY - arrived, 0)
        assert backend.remembered(FLOODS) == [Remembered(source_of(cable), MANY - arrived)]

        for which in (network_lists.FRIENDS, network_lists.UNSHIELDED, network_lists.ALLOW):
            write_list(backend, which, [ip_network(cable.network)])
            assert flood(here, there, MANY)[0] == MANY
            write_list(backend, which, [])
    with ends(cable, far, OTHER) as (here, there):
        assert flood(here, there, MANY)[0] == MANY


def test_what_a_container_sends_is_not_limited(backend: Backend, far: str) -> None:
    """The limiter is for packets to this host: those of a bridged container to a SIP port elsewhere pass."""
    plan(backend, FirewallPlan(added=(Limit(LimitMode.ENFORCE, rate=1, burst=3),)))
    with container_ends(far, SIP) as (inner, provider):
        assert flood(provider, inner, 100)[0] == 100
    assert backend.counters().of("limiter_drops") == 0


def test_mode_observe_only_counts(backend: Backend, far: str, cable: Cable) -> None:
    """In mode observe all arrive, and packets over the limit are counted with their source."""
    plan(backend, FirewallPlan(added=(Limit(LimitMode.OBSERVE),)))
    with ends(cable, far, SIP) as (here, there):
        arrived, took = flood(here, there, MANY)
    assert arrived == MANY
    counters = backend.counters()
    assert MANY - 200 - 50 * took - 1 <= counters.of("limiter_drops") <= MANY - 200
    assert counters.of("limiter_full") == 0
    assert [flooder.network for flooder in backend.remembered(FLOODS)] == [source_of(cable)]


def test_below_the_rate_nothing_is_dropped(backend: Backend, far: str, cable: Cable) -> None:
    """Forty packets a second with a small burst all arrive at a limit of fifty."""
    plan(backend, FirewallPlan(added=(Limit(LimitMode.ENFORCE, rate=50, burst=3),)))
    with ends(cable, far, SIP) as (here, there):
        assert flood(here, there, 40, pause=0.025)[0] == 40
    assert backend.counters().of("limiter_drops") == 0


def test_one_stream_carries_no_more_than_the_burst(backend: Backend, far: str, cable: Cable) -> None:
    """Of 2 000 guesses in one TCP stream at most the burst arrives at once, for any segment size."""
    limit = Limit(LimitMode.ENFORCE)
    plan(backend, FirewallPlan(added=(limit,)))
    with ends(cable, far, SIP, socket.SOCK_STREAM) as (here, there):
        here.listen()
        there.connect(here.getsockname())
        accepted, _ = here.accept()
        with accepted:
            accepted.settimeout(0.1)
            begun, octets = time.monotonic(), 0
            there.settimeout(0)
            waiting = memoryview(b"g" * 300 * MANY)
            while time.monotonic() < begun + 1.0:
                with suppress(BlockingIOError):
                    waiting = waiting[there.send(waiting) :]
                with suppress(TimeoutError):
                    octets += len(accepted.recv(1 << 20))
            took = time.monotonic() - begun
    second, refills = byte_limit(limit.burst * GUESS, limit.rate * GUESS)
    assert 2000 < octets <= second * (1 + refills + took)
    assert backend.counters().of("limiter_drops") > 0
    [flooder] = backend.remembered(TCP_FLOODS)
    assert flooder.network == ip_network(cable.banned)
    assert flooder.packets > 0


@pytest.mark.parametrize("cable", ["IPv4", pytest.param("IPv6", marks=pytest.mark.long)], indirect=True)
def test_no_change_of_the_plan_has_an_unprotected_moment(backend: Backend, far: str, cable: Cable) -> None:
    """While each plan replaces each other, no packet of a banned address passes."""
    ban(backend, cable)
    plans = [one for first, second in combinations(CHANGES, 2) for one in (first, second, first)]
    with ends(cable, far, SIP) as (here, there):
        assert changing(backend, plans, here, there) > 1000
        assert all_received(here) == []
