"""Who has a TCP connection to this host now, as the kernel lists them (sock_diag, else ``/proc/net/tcp``).

A line of the log may name an address that its sender made up, but not one whose handshake this host has
completed, on just that port, while the line is written. But everybody knows the ports of a trunk, a web
server or whomever else this host connects to: only connections *to* this host count, at a port that it
listens on. Only the daemon's own network namespace is seen: of a PBX in a container this knows nothing, and
says no.

The list is read at most every ``FRESH`` seconds, since it is read while guesses come in. For it the kernel
walks its table of all connections, as large as the host's memory allows: with 23 GB that takes 0.8 ms by
sock_diag, and 7 ms by ``/proc/net/tcp`` and ``tcp6``, the time of twenty guesses. A thousand connections are
1 ms more.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from ringfence.host.sockets import LISTENING, address_of, port_of, sockets
from ringfence.model import Address, Endpoint

FRESH = 0.05
"""How old the list may be (seconds): who guesses over one connection keeps it longer."""

_Row = tuple[int, int, Callable[[], tuple[Address, int]]]
"""A connection's state, its local port, and what gives its remote end."""

_LISTS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_UNMADE = (2, 3, 12)  # SYN_SENT, SYN_RECV, NEW_SYN_RECV (include/net/tcp_states.h)
_LOCAL, _REMOTE, _STATE = 1, 2, 3  # columns
_WORD = 8  # hexadecimal digits of 32 bits, which stand in this machine's byte order
_STATES = 0x1FFF & ~sum(1 << state for state in _UNMADE)


class Connections:
    """The remote ends of the TCP connections to this host. ``error`` says why they cannot be read, if so.

    ``lists`` are read where the kernel is not to be asked.
    """

    def __init__(
        self, lists: tuple[Path, ...] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.error = ""
        self._lists = lists
        self._clock = clock
        self._read_at = -FRESH
        self._remotes: frozenset[tuple[Address, int]] = frozenset()

    def has(self, remote: Endpoint) -> bool:
        """Say whether ``remote`` is connected with this host, by its address and port."""
        now = self._clock()
        if now - self._read_at >= FRESH:
            self._read_at = now
            self._remotes = self._read()
        return (remote.address, remote.port) in self._remotes

    def _read(self) -> frozenset[tuple[Address, int]]:
        self.error = ""
        if self._lists is None:
            try:
                return _accepted([*_asked(socket.AF_INET), *_asked(socket.AF_INET6)])
            except OSError:  # a kernel without sock_diag
                self._lists = _LISTS
        return _accepted(self._listed(self._lists))

    def _listed(self, lists: Iterable[Path]) -> Iterator[_Row]:
        """Read the kernel's lists."""
        for path in lists:
            try:
                lines = path.read_bytes().split(b"\n")
            except FileNotFoundError:  # without IPv6 there is no tcp6
                continue
            except OSError as error:
                self.error = f"{path}: {error.strerror}"
                continue
            for line in lines[1:]:
                columns = line.split(None, _STATE + 1)
                if len(columns) > _STATE:
                    port = int(columns[_LOCAL].rpartition(b":")[2], 16)
                    yield int(columns[_STATE], 16), port, partial(_endpoint, columns[_REMOTE])


def _accepted(rows: Iterable[_Row]) -> frozenset[tuple[Address, int]]:
    """Give the remote ends of those connections that were made to a port that is listened on."""
    made = [row for row in rows if row[0] not in _UNMADE]
    listening = {port for state, port, _ in made if state == LISTENING}
    return frozenset(remote() for state, port, remote in made if state != LISTENING and port in listening)


def _asked(family: socket.AddressFamily) -> Iterator[_Row]:
    """Ask the kernel for the connections of a version. Raises OSError."""
    width = 4 if family == socket.AF_INET else 16
    for state, local, remote, _, packed, *_ in sockets(family, socket.IPPROTO_TCP, _STATES):
        yield state, port_of(local), partial(_end, packed[:width], remote)


def _endpoint(text: bytes) -> tuple[Address, int]:
    """Read ``0100007F:1F90``."""
    words, _, port = text.decode("ascii").partition(":")
    packed = b"".join(bytes.fromhex(words[at : at + _WORD])[::-1] for at in range(0, len(words), _WORD))
    return address_of(packed), int(port, 16)


def _end(packed: bytes, port: bytes) -> tuple[Address, int]:
    return address_of(packed), port_of(port)
