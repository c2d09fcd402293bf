"""Other services of this host at ports of the fence: those that speak SSH, and their present connections.

Both come from the kernel's list of sockets of this network namespace. Nothing here needs a right. The
functions may block for seconds, so call them in a thread.

Only a program of root counts as SSH, because an SSH server that lets an administrator in is one. Otherwise
any user of this host could open a port of the fence: they would listen there at another address.
"""

import math
import select
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple, TypeAlias

from ringfence.host.listening import listening_sockets
from ringfence.netlink.sock_diag import ESTABLISHED, address_of, port_of, sockets
from ringfence.values.network import Address

BANNER_SECONDS = 2.0
"""Seconds to wait for a banner, which an SSH server sends first (RFC 4253 section 4.2)."""
MOST_ASKED = 16
"""The maximum number of listening sockets that are asked at once."""
MOST_CONNECTIONS = 4_096
"""The maximum number of present connections that are read."""
_BANNER = b"SSH-"
_MOST_BEFORE = 4_096  # bytes that a server may send before its banner
_ROOT = 0
_IPV4 = 4  # bytes of an address

_Place: TypeAlias = tuple[bytes, int]
"""An address (bytes in network byte order) and a port at which a program of this host listens."""


class Connection(NamedTuple):
    """A present TCP connection: the address that it comes from, and the port of this host."""

    address: Address
    port: int


class SshPorts:
    """Finds out which TCP ports of this host speak SSH, by asking where a program listens."""

    def __init__(self) -> None:
        self._asked: dict[_Place, tuple[set[int], bool]] = {}
        """The inodes of the sockets, and whether they speak SSH."""

    def among(self, ports: Collection[int], *, again: bool = False) -> frozenset[int]:
        """Return those of the TCP ``ports`` at which a program of root speaks SSH.

        A program is asked once, and with ``again`` once more, unless it spoke SSH. One that ends the
        connection is asked again each time: an SSH server does so while it has too many clients.
        Raise OSError if the kernel has no list of its sockets.
        """
        present: dict[_Place, set[int]] = {}
        for row in listening_sockets(socket.IPPROTO_TCP):
            if row.uid == _ROOT and (port := port_of(row.local_port)) in ports:
                present.setdefault((row.local, port), set()).add(row.inode)
        known = {
            where: self._asked[where]
            for where, inodes in present.items()
            if where in self._asked
            and inodes == self._asked[where][0]
            and (self._asked[where][1] or not again)
        }
        answers = _answers([one for one in present if one not in known][:MOST_ASKED])
        known |= {where: (present[where], speaks) for where, speaks in answers.items()}
        self._asked = known
        return frozenset(port for (_, port), (_, speaks) in known.items() if speaks)


def connections_to(ports: Collection[int]) -> frozenset[Connection]:
    """Return the present connections to the TCP ``ports``, without those of this host to itself."""
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):  # a kernel without the modules for this list
            for one in _established(family, ports):
                found.add(one)
                if len(found) >= MOST_CONNECTIONS:
                    return frozenset(found)
    return frozenset(found)


def _established(family: socket.AddressFamily, ports: Collection[int]) -> Iterator[Connection]:
    for one in sockets(family, socket.IPPROTO_TCP, 1 << ESTABLISHED):
        if (port := port_of(one.local_port)) in ports:
            address = address_of(one.remote)
            if not address.is_loopback and one.remote != one.local:
                yield Connection(address, port)


def _answers(places: Iterable[_Place]) -> dict[_Place, bool]:
    """Return whether the server at each of these places sends the banner of SSH to a client.

    Those that refuse or end the connection before that are left out. Other lines may precede the banner.
    """
    found = {}
    with ExitStack() as stack:
        asked: dict[int, tuple[socket.socket, _Place]] = {}
        answering = select.poll()
        for place in places:
            family = socket.AF_INET if len(place[0]) == _IPV4 else socket.AF_INET6
            client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            with suppress(OSError):
                with suppress(BlockingIOError):
                    client.connect(_target(place))
                answering.register(client, select.POLLIN)
                asked[client.fileno()] = client, place
        texts = dict.fromkeys(asked, b"\n")
        until = time.monotonic() + BANNER_SECONDS
        while asked and (left := until - time.monotonic()) > 0.0:
            for number, _ in answering.poll(math.ceil(left * 1_000)):
                client, place = asked[number]
                text = b""
                with suppress(OSError):
                    text = client.recv(_MOST_BEFORE)
                texts[number] += text
                if b"\n" + _BANNER in texts[number]:
                    found[place] = True
                elif len(texts[number]) > _MOST_BEFORE:
                    found[place] = False
                elif text:
                    continue
                answering.unregister(number)
                del asked[number]
        for client, place in asked.values():  # these wait until the client speaks, or do not speak SSH
            with suppress(OSError):
                client.getpeername()
                found[place] = False
    return found


def _target(place: _Place) -> tuple[str, int]:
    """Return the address and port to connect to. A server at every address is asked by loopback."""
    address, port = address_of(place[0]), place[1]
    loopback = "127.0.0.1" if len(place[0]) == _IPV4 else "::1"
    return loopback if address.is_unspecified else str(address), port
