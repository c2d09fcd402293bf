"""A cable between this namespace and a neighbour namespace, and sockets at both ends.

The addresses are of 198.18.0.0/15 (reserved for benchmarks by RFC 2544) and fd00::/8. No route leads out.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen
from tests.support.netns import inside, neighbour, run

WAIT = 0.2


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


@contextmanager
def far_end() -> Iterator[str]:
    """Yield the name of a neighbour namespace at the end of a cable, with all addresses of CABLES."""
    with neighbour() as name:
        run("ip", "link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", name)
        run("ip", "link", "set", "near0", "up")
        run("ip", "-n", name, "link", "set", "far0", "up")
        for address in ("198.18.0.1/15", "fd00:18::1/30"):
            run("ip", "address", "add", address, "dev", "near0", *(["nodad"] * (":" in address)))
        for address in ("198.18.0.2/15", "198.18.0.3/15", "198.19.7.7/15"):
            run("ip", "-n", name, "address", "add", address, "dev", "far0")
        for address in ("fd00:18::2/30", "fd00:18::3/30", "fd00:19::7:7/30"):
            run("ip", "-n", name, "address", "add", address, "dev", "far0", "nodad")
        yield name


def arrives(sender: socket.socket, receiver: socket.socket) -> bool | str:
    """Whether a datagram arrives; ``EPERM`` if the kernel refuses to send it."""
    try:
        sender.sendto(b"hello", receiver.getsockname())
        return receiver.recv(100) == b"hello"
    except TimeoutError:
        return False
    except PermissionError:
        return "EPERM"
