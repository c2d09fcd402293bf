"""The TCP and UDP sockets of this network namespace, as the kernel lists them (NETLINK_SOCK_DIAG).

No capability is needed. The kernel's answer is parsed row by row. Values are computed only for the rows that
the caller reads, because the list is read while guesses arrive.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ringfence.model import Address

CLOSED, LISTENING = 7, 10
"""States of a socket (``include/net/tcp_states.h``). A UDP socket that is not connected is ``CLOSED``."""

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states, any ends
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_BY_FAMILY, _ERROR, _DONE = 20, 2, 3
# nlmsghdr, then inet_diag_msg: state; ports and addresses, as on the wire; owner and inode.
_SOCKET = struct.Struct("=17xB2x2s2s16s16s24xII")
_RESULT = struct.Struct("=i")
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_TRIES = 3
_DATAGRAM = 1 << 16
ATTRIBUTES = 88
"""The offset of a message's attributes: nlmsghdr and inet_diag_msg have 16 and 72 bytes."""
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_INFO = 2  # INET_DIAG_INFO: a struct tcp_info
_RECEIVED = 4 + 128  # tcpi_bytes_received, after the head of its attribute
_BYTES = struct.Struct("=Q")
_IPV4 = 4
_MAPPED = b"\0" * 10 + b"\xff\xff"


class Socket(NamedTuple):
    """A row of the list. Ports and addresses are as on the wire; IPv4 uses the first four bytes."""

    state: int
    local_port: bytes
    remote_port: bytes
    local: bytes
    remote: bytes
    uid: int
    inode: int
    received: Callable[[], int | None]  # bytes received by TCP, None if unknown


def sockets(
    family: socket.AddressFamily, protocol: int, states: int, *, info: bool = False
) -> Iterator[Socket]:
    """Yield the kernel's sockets of an IP version and a protocol, in these states (one bit each).

    A list that the kernel marks as changed meanwhile (NLM_F_DUMP_INTR) is requested again, a few times. The
    number of received bytes is known only with ``info``. Raises OSError, also if the kernel has no list for
    this protocol.
    """
    rows: list[tuple[bytes, int, int]] = []
    extensions = 1 << (_INFO - 1) if info else 0
    for _ in range(_TRIES):
        rows.clear()
        if not _listed(_REQUEST.pack(family, protocol, extensions, states), rows):
            break
    for received, position, end in rows:
        count = partial(received_bytes, received, position + ATTRIBUTES, end)
        yield Socket(*(*_SOCKET.unpack_from(received, position), count))


def _listed(request: bytes, rows: list[tuple[bytes, int, int]]) -> bool:
    """Request the list once and append each row's position to ``rows``; return whether it is marked."""
    marked = False
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _DUMP, 0, 0) + request)
        while True:
            received = kernel.recv(_DATAGRAM)
            position = 0
            while position < len(received):
                length, kind, flags, *_ = _HEADER.unpack_from(received, position)
                marked |= kind != _ERROR and bool(flags & _INTERRUPTED)
                if kind in (_ERROR, _DONE):
                    # The end of a dump may carry an error: the module of the protocol is not loaded.
                    [error] = _RESULT.unpack_from(received, position + _HEADER.size)
                    if error:
                        raise OSError(-error, "sock_diag")
                    return marked
                rows.append((received, position, position + length))
                position += (length + 3) & ~3


def received_bytes(message: bytes | bytearray, at: int, end: int) -> int | None:
    """Return the number of bytes that a TCP socket received, from the attributes between ``at`` and ``end``.

    None if the kernel does not report it (before Linux 4.1).
    """
    while at + _ATTRIBUTE.size <= end:
        size, kind = _ATTRIBUTE.unpack_from(message, at)
        if kind == _INFO and size >= _RECEIVED + _BYTES.size and at + size <= end:
            [received] = _BYTES.unpack_from(message, at + _RECEIVED)
            return int(received)
        at += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return None


def port_of(packed: bytes) -> int:
    """Parse a port of a row."""
    return int.from_bytes(packed, "big")


def unmapped(packed: bytes) -> bytes:
    """Return the IPv4 address of an IPv4-mapped IPv6 address, and any other address unchanged."""
    if len(packed) == len(_MAPPED) + _IPV4 and packed.startswith(_MAPPED):
        return packed[len(_MAPPED) :]
    return packed


def address_of(packed: bytes) -> Address:
    """Return the address; an IPv4-mapped address is returned as IPv4."""
    packed = unmapped(packed)
    return IPv4Address(packed) if len(packed) == _IPV4 else IPv6Address(packed)
