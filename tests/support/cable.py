"""A cable between this namespace and a neighbour namespace, and sockets at both ends.

The addresses are of 198.18.0.0/15 (reserved for benchmarks by RFC 2544) and fd00::/8. No route leads out.
"""

import itertools
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from attrs import frozen
from tests.support.daemon import until
from tests.support.netns import inside, neighbour, run

WAIT = 20.0
"""How long a test waits for a packet that must arrive (seconds)."""
_LOST = 0.5
"""Seconds after which a mark is lost: the address is not complete yet."""
_MARK, _marks = b"the mark", itertools.count()
_LONGEST = 65_535


@frozen
class Cable:
    """The addresses of one family: one at this end, and at the far end one banned and one not."""

    family: socket.AddressFamily
    here: str
    banned: str
    other: str
    network: str

    def pair(
        self, far: str, there: str, kind: int = socket.SOCK_DGRAM
    ) -> tuple[socket.socket, socket.socket]:
        """Return a socket here and one at ``there`` in the far namespace, both with a timeout of ``WAIT``."""
        with inside(far):
            remote = socket.socket(self.family, kind)
            remote.bind((there, 0))
        local = socket.socket(self.family, kind)
        local.bind((self.here, 0))
        for end in (local, remote):
            end.settimeout(WAIT)
        return local, remote


CABLES = {
    "IPv4": Cable(socket.AF_INET, "198.18.0.1", "198.18.0.2", "198.18.0.3", "198.18.0.2/32"),
    "IPv4 prefix": Cable(socket.AF_INET, "198.18.0.1", "198.19.7.7", "198.18.0.3", "198.19.7.0/24"),
    "IPv6": Cable(socket.AF_INET6, "fd00:18::1", "fd00:18::2", "fd00:18::3", "fd00:18::2/128"),
    "IPv6 /64": Cable(socket.AF_INET6, "fd00:18::1", "fd00:19::7:7", "fd00:18::3", "fd00:19::/64"),
}


_NEAR_LINK, _FAR_LINK = "02:00:00:00:00:01", "02:00:00:00:00:02"
_NEAR = ("198.18.0.1/15", "fd00:18::1/30")
_FAR = (
    "198.18.0.2/15",
    "198.18.0.3/15",
    "198.19.7.7/15",
    "fd00:18::2/30",
    "fd00:18::3/30",
    "fd00:19::7:7/30",
)


@contextmanager
def far_end() -> Iterator[str]:
    """Yield the name of a neighbour namespace at the end of a cable, with all addresses of CABLES."""
    with neighbour() as name:
        lay_cable(name)
        yield name


def lay_cable(far: str) -> None:
    """Lay a cable to a neighbour namespace; both ends know each other's link addresses.

    The kernel could not look up the link address of a banned IPv6 neighbour. The cable carries packets when
    this returns: the kernel sets both ends up later than `ip` reports, and drops packets until then.
    """
    peer = f"peer name far0 address {_FAR_LINK} netns {far}"
    run(
        *("ip", "-batch", "-"),
        text=f"link add near0 address {_NEAR_LINK} type veth {peer}\n"
        + _end("near0", _NEAR, _FAR, _FAR_LINK),
    )
    run("ip", "-n", far, "-batch", "-", text=_end("far0", _FAR, _NEAR, _NEAR_LINK))
    for cable in CABLES.values():
        until(partial(_carries, cable, far), f"packets of {cable.banned}")


def _carries(cable: Cable, far: str) -> bool:
    """Whether a datagram arrives at either end."""
    here, there = cable.pair(far, cable.banned)
    with here, there:
        return [arrives(there, here), arrives(here, there)] == [True, True]


def remove_cable() -> None:
    """Remove the cable from this namespace, at once at both ends."""
    run("ip", "link", "delete", "near0")


def _end(device: str, own: Iterable[str], others: Iterable[str], link: str) -> str:
    """Return the commands of `ip` for one end of a cable."""
    lines = [f"link set {device} up"]
    lines += [f"address add {one} dev {device}{' nodad' * (':' in one)}" for one in own]
    known = [one.partition("/")[0] for one in others]
    lines += [f"neighbour replace {one} lladdr {link} dev {device} nud permanent" for one in known]
    return "\n".join(lines) + "\n"


def arrives(sender: socket.socket, receiver: socket.socket) -> bool | str:
    """Whether a datagram arrives; ``EPERM`` if the kernel refuses to send it."""
    try:
        sender.sendto(b"hello", receiver.getsockname())
    except PermissionError:
        return "EPERM"
    return received(receiver) == b"hello"


def received(end: socket.socket) -> bytes | None:
    """Return the next datagram of a socket that is not connected, or None if a rule has dropped it."""
    return next(iter(all_received(end)), None)


def all_received(end: socket.socket) -> list[bytes]:
    """Return every datagram that was sent to a socket, which is not connected, and that no rule has dropped.

    The socket sends itself a mark from each core. The kernel carries packets of one core in order, those
    between namespaces too. So on the busiest machine nothing that was sent before comes behind the marks,
    and no test waits for what never comes.
    """
    patience, found, cores = end.gettimeout(), list[bytes](), os.sched_getaffinity(0)
    end.settimeout(_LOST)
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})
            until(partial(_marked, end, b"%s %d" % (_MARK, next(_marks)), found), "the mark")
    finally:
        os.sched_setaffinity(0, cores)
    end.settimeout(patience)
    return found


def _marked(end: socket.socket, mark: bytes, found: list[bytes]) -> bool:
    """Send a mark; whether it comes. Add the datagrams before it to those found."""
    end.sendto(mark, end.getsockname())
    with suppress(TimeoutError):
        while (came := end.recv(_LONGEST)) != mark:
            if not came.startswith(_MARK):
                found.append(came)
        return True
    return False
