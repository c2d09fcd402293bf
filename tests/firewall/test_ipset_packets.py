"""The ipset backend's rules with real packets through a cable, for both flavours and IP versions."""

import errno
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_network
from itertools import combinations

import pytest
from tests.support.cable import CABLES, WAIT, Cable, far_end
from tests.support.flavours import FLAVOURS, finder, tools_of
from tests.support.netns import inside, neighbour, run

from ringfence.firewall import iptables, iptables_rules
from ringfence.firewall.contract import Add, Flooder, Limit, LimitMode, Plan, Ports, Roll, Verdict
from ringfence.firewall.ipset import IpsetBackend
from ringfence.model import Network, Scope

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]
SIP, OTHER = 5060, 7060
MANY = 2000
PREVIOUS = """\
*raw
:ringfence-pre - [0:0]
:ringfence-out - [0:0]
-A ringfence-pre -m set --match-set ringfence{0} src -j DROP
-A ringfence-pre -m set --match-set ringfence{0} dst -j DROP
-I PREROUTING 1 -j ringfence-pre
-A ringfence-out -m set --match-set ringfence{0} dst -j DROP
-I OUTPUT 1 -j ringfence-out
COMMIT
"""


@pytest.fixture(params=FLAVOURS)
def backend(request: pytest.FixtureRequest, netns: None) -> Iterator[IpsetBackend]:
    """The backend with each flavour, opened."""
    made = IpsetBackend(find_tools=finder(request.param))
    made.open()
    yield made
    made.close()


@pytest.fixture
def far(backend: IpsetBackend) -> Iterator[str]:
    """The namespace at the other end of the cable."""
    with far_end() as name:
        # Who is banned on the same link of IPv6 is not even asked for his hardware address any more.
        for known in CABLES.values():
            while datagram(known, name, OTHER) != (True, True):
                time.sleep(0.05)
        yield name


@pytest.fixture(params=["IPv4", "IPv6"])
def cable(request: pytest.FixtureRequest) -> Cable:
    """The cable of each IP version."""
    return CABLES[request.param]


def plan(backend: IpsetBackend, wanted: Plan) -> None:
    """Put a plan in place, which must stand whole."""
    backend.plan = wanted
    opened = backend.open()
    assert (opened.wire, opened.limiter, opened.healed) == (None, None, False)


def ban(backend: IpsetBackend, cable: Cable, scope: Scope = Scope.FULL) -> None:
    """Ban the far end's address."""
    assert backend.apply([Add(ip_network(cable.network), 60.0, scope)])[0].error is None


@contextmanager
def ends(
    cable: Cable, far: str, port: int, kind: int = socket.SOCK_DGRAM, there: str = ""
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a socket here at ``port``, and one at the far end's address, any port."""
    with ExitStack() as stack:
        here = stack.enter_context(socket.socket(cable.family, kind))
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        here.bind((cable.here, port))
        with inside(far):
            remote = stack.enter_context(socket.socket(cable.family, kind))
        remote.bind((there or cable.banned, 0))
        for end in (here, remote):
            end.settimeout(WAIT)
        yield here, remote


def datagram(cable: Cable, far: str, port: int) -> tuple[bool | str, bool | str]:
    """Say what becomes of a datagram from the far end to a port here, and of one the other way."""
    with ends(cable, far, port) as (here, there):
        return sent(there, here), sent(here, there)


def sent(sender: socket.socket, receiver: socket.socket) -> bool | str:
    """Send one datagram: whether it arrives, or the error."""
    try:
        sender.sendto(b"hello", receiver.getsockname())
        return receiver.recv(100) == b"hello"
    except TimeoutError:
        return False
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def connection(cable: Cable, far: str, port: int, patience: float = WAIT) -> bool | str:
    """Say whether the far end can connect to a port here, or the error."""
    with ends(cable, far, port, socket.SOCK_STREAM) as (here, there):
        here.listen()
        there.settimeout(patience)
        try:
            there.connect(here.getsockname())
        except TimeoutError:
            return False
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return True


@pytest.mark.parametrize("wider", ["ban", "prefix", "roll"])
@pytest.mark.parametrize("of", ["IPv4 prefix", "IPv6 /64"])
def test_who_is_allowed_is_never_dropped(backend: IpsetBackend, far: str, of: str, wider: str) -> None:
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


def test_who_is_denied_is_dropped(backend: IpsetBackend, far: str, cable: Cable) -> None:
    """A network on the deny roll is kept out like a banned one, without an end, and counted apart."""
    backend.fill(Roll.DENY, [ip_network(cable.network), ip_network("203.0.113.0/24")])

    assert datagram(cable, far, OTHER) == (False, "EPERM")
    assert connection(cable, far, SIP) is False
    met = {use.name: use.packets for use in backend.usage().rules}
    assert met["from denied networks"] >= 2
    assert met["to denied networks"] == 1
    assert met["from banned addresses"] == 0
    assert list(backend.list()) == []


def test_a_ban_of_sip_over_udp_leaves_the_rest(backend: IpsetBackend, far: str, cable: Cable) -> None:
    """A ban for what can be forged drops UDP to and from the SIP ports; TCP and other ports pass."""
    ban(backend, cable, Scope.SIP_UDP)

    assert datagram(cable, far, SIP) == (False, "EPERM")
    assert datagram(cable, far, OTHER) == (True, True)
    assert connection(cable, far, SIP) is True
    [element] = backend.list()
    assert (element.scope, element.packets) == (Scope.SIP_UDP, 2)


def test_bans_may_be_for_the_sip_ports_only(backend: IpsetBackend, far: str, cable: Cable) -> None:
    """With `every_port` false a full ban drops UDP and TCP of the SIP ports and nothing else."""
    plan(backend, Plan(every_port=False, sip_ports=Ports(udp=(SIP,), tcp=(5061,))))
    ban(backend, cable)

    assert datagram(cable, far, SIP) == (False, "EPERM")
    assert datagram(cable, far, OTHER) == (True, True)
    assert connection(cable, far, 5061) is False
    assert connection(cable, far, OTHER) is True
    plan(backend, Plan())
    assert connection(cable, far, OTHER) is False


def test_only_named_interfaces_drop(backend: IpsetBackend, far: str, cable: Cable) -> None:
    """What comes and goes by another interface than those that are named passes."""
    ban(backend, cable)
    for names, passes in (
        (("near9",), (True, True)),
        (("near9", "near0"), (False, "EPERM")),
        ((), (False, "EPERM")),
    ):
        plan(backend, Plan(interfaces=names))
        assert datagram(cable, far, SIP) == passes


@contextmanager
def behind(far: str) -> Iterator[str]:
    """Give a container behind this host, 10.9.9.2, that the far end knows the way to."""
    run("sysctl", "-q", "net.ipv4.ip_forward=1")
    with neighbour() as container:
        run("ip", "link", "add", "near1", "type", "veth", "peer", "name", "far1", "netns", container)
        run("ip", "link", "set", "near1", "up")
        run("ip", "-n", container, "link", "set", "far1", "up")
        run("ip", "address", "add", "10.9.9.1/24", "dev", "near1")
        run("ip", "-n", container, "address", "add", "10.9.9.2/24", "dev", "far1")
        run("ip", "-n", container, "route", "add", "default", "via", "10.9.9.1")
        run("ip", "-n", far, "route", "add", "10.9.9.0/24", "via", "198.18.0.1")
        yield container


def test_what_is_routed_is_dropped_by_the_interface_it_leaves_by(backend: IpsetBackend, far: str) -> None:
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
    backend: IpsetBackend,
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


def seen(sender: socket.socket) -> bool | str:
    """Say what a connected sender is told of a datagram."""
    try:
        sender.send(b"hello")
        sender.recv(100)
    except TimeoutError:
        return False
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return True


def flood(here: socket.socket, there: socket.socket, count: int, pause: float = 0.0) -> tuple[int, float]:
    """Send datagrams as fast as they go; give how many arrive, and the seconds it took."""
    here.settimeout(0)
    target, arrived, begun = here.getsockname(), 0, time.monotonic()
    for number in range(count):
        there.sendto(b"x" * 400, target)
        if pause:
            time.sleep(pause)
        if number % 50 == 49:
            arrived += drained(here)
    took = time.monotonic() - begun
    time.sleep(0.05)
    return arrived + drained(here), took


def drained(here: socket.socket) -> int:
    """Give how many datagrams wait."""
    count = 0
    try:
        while True:
            here.recv(1000)
            count += 1
    except BlockingIOError:
        return count


def source_of(cable: Cable) -> Network:
    """Give the network by which the far end is limited."""
    return ip_network(cable.banned) if cable.family == socket.AF_INET else ip_network("fd00:18::/64")


def test_a_burst_of_a_stranger_ends(backend: IpsetBackend, far: str, cable: Cable) -> None:
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


def test_to_observe_is_to_count_and_no_more(backend: IpsetBackend, far: str, cable: Cable) -> None:
    """Observing, all arrive, and what would be dropped is counted and its source told."""
    plan(backend, Plan(limit=Limit(LimitMode.OBSERVE)))
    with ends(cable, far, SIP) as (here, there):
        arrived, took = flood(here, there, MANY)
    assert arrived == MANY
    usage = backend.usage()
    assert MANY - 200 - 50 * took - 1 <= usage.limiter_drops <= MANY - 200
    assert usage.limiter_full == 0
    assert [flooder.network for flooder in backend.flooding()] == [source_of(cable)]


def test_below_the_rate_nothing_is_dropped(backend: IpsetBackend, far: str, cable: Cable) -> None:
    """Forty a second with next to no burst all arrive at a limit of fifty."""
    plan(backend, Plan(limit=Limit(LimitMode.ENFORCE, rate=50, burst=3)))
    with ends(cable, far, SIP) as (here, there):
        assert flood(here, there, 40, pause=0.025)[0] == 40
    assert backend.usage().limiter_drops == 0


def test_one_stream_carries_no_more_than_the_burst(backend: IpsetBackend, far: str, cable: Cable) -> None:
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


def test_a_full_limiter_drops_strangers_and_says_so(
    backend: IpsetBackend, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the table has no room for a source its packets are dropped, and counted as such."""
    monkeypatch.setattr(iptables_rules, "_BUCKETS", 4)
    monkeypatch.setattr(iptables_rules, "_SOURCES", 4)
    plan(backend, Plan(limit=Limit(LimitMode.ENFORCE)))
    cable = CABLES["IPv4"]
    arrived = 0
    for last in range(20):
        there = f"198.18.7.{last}"
        run("ip", "-n", far, "address", "add", f"{there}/15", "dev", "far0")
        with ends(cable, far, SIP, there=there) as (here, remote):
            arrived += flood(here, remote, 10)[0]

    usage = backend.usage()
    assert arrived == 40
    assert (usage.limiter_drops, usage.limiter_full) == (0, 160)
    assert backend.flooding() == []


def test_what_is_dropped_may_be_logged(backend: IpsetBackend, far: str, cable: Cable) -> None:
    """With a log asked for the bans drop as without it, and the log's rules are met by what is dropped."""
    plan(backend, Plan(log=True))
    ban(backend, cable)
    assert datagram(cable, far, SIP) == (False, "EPERM")
    flavour = "legacy" if tools_of("legacy", 4) == backend._rules[4].tools else "nft"
    version = 4 if cable.family == socket.AF_INET else 6
    saved = iptables.save(tools_of(flavour, version), table="raw", counters=True)
    [logged] = [line for line in saved.splitlines() if '--log-prefix "ringfence: "' in line]
    assert iptables.counted(logged)[0] == 2


def changing(backend: IpsetBackend, plans: Sequence[Plan], here: socket.socket, there: socket.socket) -> int:
    """Put one plan after the other in place while the far end sends; give how much it sent."""
    done, count = threading.Event(), 0
    target = here.getsockname()

    def send() -> None:
        nonlocal count
        while not done.is_set():
            try:
                there.sendto(b"x", target)
            except OSError:  # the kernel's rejection of an earlier one
                continue
            count += 1

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for wanted in plans:
            plan(backend, wanted)
    finally:
        done.set()
        sender.join()
    return count


CHANGES = [
    Plan(),
    Plan(verdict=Verdict.PORT_UNREACHABLE),
    Plan(verdict=Verdict.TCP_RESET, interfaces=("near0",), log=True, log_group=7),
    Plan(interfaces=("near0", "near1")),
    Plan(limit=Limit(LimitMode.ENFORCE), every_port=False, sip_ports=Ports(udp=(SIP,), tcp=())),
]


def test_no_change_of_the_plan_has_an_unprotected_moment(
    backend: IpsetBackend, far: str, cable: Cable
) -> None:
    """While the plan changes from each to each other, not one packet of a banned address gets through."""
    ban(backend, cable)
    plans = [one for first, second in combinations(CHANGES, 2) for one in (first, second, first)]
    with ends(cable, far, SIP) as (here, there):
        assert changing(backend, plans, here, there) > 1000
        assert drained_after(here) == 0


def drained_after(here: socket.socket) -> int:
    """Give how many datagrams wait once all have come."""
    time.sleep(0.05)
    here.settimeout(0)
    return drained(here)


def test_the_previous_release_is_taken_over_under_traffic(
    backend: IpsetBackend, far: str, cable: Cable
) -> None:
    """Rules and bans of the release before are adopted and replaced, and nothing gets through meanwhile."""
    backend.flush()
    version, family = (4, "inet") if cable.family == socket.AF_INET else (6, "inet6")
    tools = backend._find_tools(version)
    run("ipset", "create", f"ringfence{version}", "hash:net", "family", family, "timeout", "0", "counters")
    run("ipset", "add", f"ringfence{version}", cable.network, "timeout", "60")
    run(tools.restore, "--noflush", text=PREVIOUS.format(version))
    with ends(cable, far, SIP) as (here, there):
        assert changing(backend, CHANGES[:1], here, there) > 0
        assert drained_after(here) == 0
    assert [element.network for element in backend.list()] == [ip_network(cable.network)]
