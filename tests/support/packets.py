"""Packets between both ends of a cable, whether they arrive, and plans that change under traffic."""

import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_network

from tests.support.cable import CABLES, WAIT, Cable, all_received, received
from tests.support.daemon import PATIENCE
from tests.support.flavours import finder
from tests.support.netns import inside, neighbour, run, wait_until_up

from ringfence.features.limiter.stage import Limit
from ringfence.firewall.contract import Add, Backend, BanAction, FirewallPlan
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.firewall.ports import Ports
from ringfence.values.ban import Scope
from ringfence.values.network import Network

SIP, OTHER = 5060, 7060
MANY = 2000


@contextmanager
def opened(name: str) -> Iterator[Backend]:
    """Open the backend nftables, or ipset with the flavour ``name`` of iptables."""
    made: Backend = NftablesBackend() if name == "nftables" else IpsetBackend(find_tools=finder(name))
    made.open()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def ends(
    cable: Cable, far: str, port: int, kind: int = socket.SOCK_DGRAM, there: str = ""
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield a socket here at ``port``, and one at the far end's address with any port."""
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


@contextmanager
def stream(cable: Cable, far: str, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield both ends of a TCP connection from the far end to ``port`` here, the local end first."""
    with ends(cable, far, port, socket.SOCK_STREAM) as (listener, there):
        listener.listen()
        there.connect(listener.getsockname())
        with listener.accept()[0] as here:
            here.settimeout(WAIT)
            for end in (here, there):
                at_once(end)
            yield here, there


def at_once(end: socket.socket) -> None:
    """Make a connection send each piece at once, and send nothing again after its end."""
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read(end: socket.socket, least: int, patience: float = 0.5, first: float = 10.0) -> bytes:
    """Return what arrives until ``least`` bytes are there, or nothing more comes for ``patience`` seconds.

    It waits ``first`` seconds for the first bytes: a busy kernel may merge all segments to one that is over
    the ration, and TCP sends them again after some time.
    """
    data = b""
    end.settimeout(first)
    while len(data) < least:
        try:
            piece = end.recv(65_536)
        except TimeoutError:
            break
        if not piece:
            break
        data += piece
        end.settimeout(patience)
    return data


def datagram(cable: Cable, far: str, port: int) -> tuple[bool | str, bool | str]:
    """Return the result of :func:`sent` from the far end to a port here, and in the other direction."""
    with ends(cable, far, port) as (here, there):
        return sent(there, here), sent(here, there)


def is_ration(came: int, burst: int, rate: float, begun: float) -> bool:
    """Whether ``burst`` packets came since ``begun`` (monotonic), and at most ``rate`` a second more."""
    return burst <= came <= burst + rate * (time.monotonic() - begun)


def sent(sender: socket.socket, receiver: socket.socket) -> bool | str:
    """Send one datagram; return whether it arrives, or the name of the error."""
    try:
        sender.sendto(b"hello", receiver.getsockname())
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return received(receiver) == b"hello"


def connection(cable: Cable, far: str, port: int, patience: float = 0.0) -> bool | str:
    """Return whether the far end can connect to a port here, or the name of the error.

    The first packet, and the answer to it, come before the second mark or within ``patience`` seconds.
    """
    with ends(cable, far, port, socket.SOCK_STREAM) as (here, there), ends(cable, far, 0) as both:
        here.listen()
        there.setblocking(False)  # noqa: FBT003 - the name says it
        with suppress(BlockingIOError):
            there.connect(here.getsockname())
        for end in both:
            all_received(end)
        if not select.select([], [there], [], patience)[1]:
            return False
        error = there.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.errorcode[error] if error else True


# Both ends know the other's link address, so no packet waits for it.
_NEAR, _FAR = "02:00:00:00:00:01", "02:00:00:00:00:02"


@contextmanager
def behind(far: str) -> Iterator[str]:
    """Yield a container behind this host, 10.9.9.2, to which the far end has a route."""
    run("sysctl", "-q", "net.ipv4.ip_forward=1")
    with neighbour() as container:
        run(
            *("ip", "-batch", "-"),
            text=f"link add near1 address {_NEAR} type veth peer name far1 address {_FAR} netns {container}\n"
            "link set near1 up\naddress add 10.9.9.1/24 dev near1\n"
            f"neighbour replace 10.9.9.2 lladdr {_FAR} dev near1\n",
        )
        run(
            *("ip", "-n", container, "-batch", "-"),
            text="link set far1 up\naddress add 10.9.9.2/24 dev far1\nroute add default via 10.9.9.1\n"
            f"neighbour replace 10.9.9.1 lladdr {_NEAR} dev far1\n",
        )
        run("ip", "-n", far, "route", "add", "10.9.9.0/24", "via", "198.18.0.1")
        wait_until_up("near1")
        wait_until_up("far1", "-n", container)
        yield container


@contextmanager
def container_ends(far: str, port: int = 0) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield UDP sockets of a container behind this host (SIP port) and of the banned address (``port``)."""
    cable = CABLES["IPv4"]
    with behind(far) as container, ExitStack() as stack:
        with inside(container):
            inner = stack.enter_context(socket.socket(cable.family, socket.SOCK_DGRAM))
        inner.bind(("10.9.9.2", SIP))
        with inside(far):
            remote = stack.enter_context(socket.socket(cable.family, socket.SOCK_DGRAM))
        remote.bind((cable.banned, port))
        for end in (inner, remote):
            end.settimeout(WAIT)
        yield inner, remote


def seen(sender: socket.socket, receiver: socket.socket) -> bool | str:
    """Send a datagram, which must not arrive, from a connected socket to a receiver.

    Return whether an answer comes, or the name of the error.
    """
    try:
        sender.send(b"hello")
        for _ in range(2):  # the second marks come behind the kernel's answer
            assert received(receiver) is None
        sender.settimeout(0)
        sender.recv(100)
    except BlockingIOError:
        return False
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return True


def flood(here: socket.socket, there: socket.socket, count: int, pause: float = 0.0) -> tuple[int, float]:
    """Send datagrams as fast as possible; return how many arrive, and how many seconds it took."""
    there.settimeout(PATIENCE)  # on a busy machine a full queue may wait for a link address
    target, arrived, begun = here.getsockname(), 0, time.monotonic()
    for number in range(1, count + 1):
        there.sendto(b"x" * 400, target)
        if pause:
            time.sleep(pause)
        if number % 50 == 0:
            arrived += len(all_received(here))
    return arrived + len(all_received(here)), time.monotonic() - begun


def source_of(cable: Cable) -> Network:
    """Return the network that the limiter counts for the far end."""
    return ip_network(cable.banned) if cable.family == socket.AF_INET else ip_network("fd00:18::/64")


def plan(backend: Backend, wanted: FirewallPlan) -> None:
    """Apply a plan, which must succeed completely."""
    backend.plan = wanted
    opened = backend.open()
    assert (opened.wire, opened.limits, opened.repaired) == (None, None, False)


def ban(backend: Backend, cable: Cable, scope: Scope = Scope.FULL) -> None:
    """Ban the far end's address."""
    assert backend.apply([Add(ip_network(cable.network), 60, scope)])[0].error is None


def changing(
    backend: Backend, plans: Sequence[FirewallPlan], here: socket.socket, there: socket.socket
) -> int:
    """Apply the plans in order while the far end sends; return the number of datagrams that it sent."""
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
    FirewallPlan(),
    FirewallPlan(action=BanAction.PORT_UNREACHABLE),
    FirewallPlan(action=BanAction.TCP_RESET, interfaces=("near0",), log=True, log_group=7),
    FirewallPlan(interfaces=("near0", "near1")),
    FirewallPlan(every_port=False, sip_ports=Ports(udp=(SIP,), tcp=()), added=(Limit(LimitMode.ENFORCE),)),
]
