"""Packets from the far end of a cable and back, and what becomes of them; plans that change under traffic."""

import errno
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network

from tests.support.cable import CABLES, WAIT, Cable, far_end
from tests.support.netns import inside, neighbour, run

from ringfence.firewall.contract import Add, Backend, Limit, LimitMode, Plan, Ports, Verdict
from ringfence.model import Network, Scope

SIP, OTHER = 5060, 7060
MANY = 2000


@contextmanager
def met_far_end() -> Iterator[str]:
    """Give the namespace at the other end of a cable; each end has met the other."""
    with far_end() as name:
        # Who is banned on the same link of IPv6 is not even asked for his hardware address any more.
        for known in CABLES.values():
            while datagram(known, name, OTHER) != (True, True):
                time.sleep(0.05)
        yield name


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


def drained_after(here: socket.socket) -> int:
    """Give how many datagrams wait once all have come."""
    time.sleep(0.05)
    here.settimeout(0)
    return drained(here)


def source_of(cable: Cable) -> Network:
    """Give the network by which the far end is limited."""
    return ip_network(cable.banned) if cable.family == socket.AF_INET else ip_network("fd00:18::/64")


def plan(backend: Backend, wanted: Plan) -> None:
    """Put a plan in place, which must stand whole."""
    backend.plan = wanted
    opened = backend.open()
    assert (opened.wire, opened.limiter, opened.healed) == (None, None, False)


def ban(backend: Backend, cable: Cable, scope: Scope = Scope.FULL) -> None:
    """Ban the far end's address."""
    assert backend.apply([Add(ip_network(cable.network), 60.0, scope)])[0].error is None


def changing(backend: Backend, plans: Sequence[Plan], here: socket.socket, there: socket.socket) -> int:
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
