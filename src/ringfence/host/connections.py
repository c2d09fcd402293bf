"""Who has a TCP connection to this host now, as the kernel lists them (``/proc/net/tcp`` and ``tcp6``).

A line of the log may name an address that its sender made up, but not one whose handshake this host has
completed, on just that port, while the line is written. But everybody knows the ports of a trunk, a web
server or whomever else this host connects to: only connections *to* this host count, at a port that it
listens on. Only the daemon's own network namespace is seen: of a PBX in a container this knows nothing, and
says no.

The list is read at most every ``FRESH`` seconds, a line a connection: some 1 ms for a thousand.
"""

import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from ringfence.model import Address, Endpoint

FRESH = 0.05
"""How old the list may be (seconds): who guesses over one connection keeps it longer."""

_LISTS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN = b"0A"
_UNMADE = (b"02", b"03", b"0C")  # SYN_SENT, SYN_RECV, NEW_SYN_RECV (include/net/tcp_states.h)
_LOCAL, _REMOTE, _STATE = 1, 2, 3  # columns
_WORD = 8  # hexadecimal digits of 32 bits, which stand in this machine's byte order
_MAPPED = b"\0" * 10 + b"\xff\xff"


class Connections:
    """The remote ends of the TCP connections to this host. ``error`` says why they cannot be read, if so."""

    def __init__(self, lists: tuple[Path, ...] = _LISTS, clock: Callable[[], float] = time.monotonic) -> None:
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
        found = []
        listening = set()
        self.error = ""
        for path in self._lists:
            try:
                lines = path.read_bytes().split(b"\n")
            except FileNotFoundError:  # without IPv6 there is no tcp6
                continue
            except OSError as error:
                self.error = f"{path}: {error.strerror}"
                continue
            for line in lines[1:]:
                columns = line.split(None, _STATE + 1)
                if len(columns) <= _STATE or columns[_STATE] in _UNMADE:
                    continue
                port = columns[_LOCAL].rpartition(b":")[2]
                if columns[_STATE] == _LISTEN:
                    listening.add(port)
                else:
                    found.append((port, columns[_REMOTE]))
        return frozenset(_endpoint(remote) for port, remote in found if port in listening)


def _endpoint(text: bytes) -> tuple[Address, int]:
    """Read ``0100007F:1F90``; an IPv4 address in IPv6 clothes is the IPv4 that the packets carry."""
    words, _, port = text.decode("ascii").partition(":")
    packed = b"".join(bytes.fromhex(words[at : at + _WORD])[::-1] for at in range(0, len(words), _WORD))
    if len(packed) == len(_MAPPED) + 4 and packed.startswith(_MAPPED):
        packed = packed[len(_MAPPED) :]
    address = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)  # noqa: PLR2004 - bytes of IPv4
    return address, int(port, 16)
