"""The TCP and UDP sockets of this network namespace, as the kernel lists them (NETLINK_SOCK_DIAG).

No capability is needed. The list is read while guesses arrive, so parsing must be fast. Therefore addresses
and ports stay bytes. The number of received bytes is parsed only when the caller asks for it.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ringfence.netlink.connection import (
    FRAME,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Frame,
    attributes,
    frames,
    result_of,
)
from ringfence.values.network import Address

ESTABLISHED, CLOSED, LISTENING = 1, 7, 10
"""States of a socket (``include/net/tcp_states.h``). A UDP socket that is not connected is ``CLOSED``."""

NETLINK_SOCK_DIAG = 4
BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
# inet_diag_req_v2: family, protocol, extensions, states, both ports. Zeros match any addresses and ports.
_REQUEST = struct.Struct("=BBBxI2s2s44x")
# nlmsghdr, then inet_diag_msg: state; ports and addresses in network byte order; owner and inode. An IPv4
# address is the first four bytes of the room of an IPv6 address.
_SOCKETS = {
    socket.AF_INET: struct.Struct("=17xB2x2s2s4s12x4s12x24xII"),
    socket.AF_INET6: struct.Struct("=17xB2x2s2s16s16s24xII"),
}
_TRIES = 3
_DATAGRAM = 1 << 16
ATTRIBUTES = 88
"""The offset of a message's attributes: nlmsghdr and inet_diag_msg have 16 and 72 bytes."""
_INFO = 2  # INET_DIAG_INFO: a struct tcp_info
_RECEIVED = 128  # offset of tcpi_bytes_received in tcp_info
_DELIVERED = 192  # offset of tcpi_delivered in tcp_info
_BYTES, _PACKETS = struct.Struct("=Q"), struct.Struct("=I")
_IPV4 = 4
_PORT = 2  # bytes
_ANY_PORTS = b"\0\0", b"\0\0"
_MAPPED = b"\0" * 10 + b"\xff\xff"


class Socket(NamedTuple):
    """A socket of the list.

    Ports and addresses are bytes in network byte order. ``uid`` is the user that owns the socket, and
    ``inode`` its number in ``/proc/PID/fd``. ``received`` is a function: it returns how many bytes the socket
    has received by TCP, or None if that is unknown.
    """

    state: int
    local_port: bytes
    remote_port: bytes
    local: bytes
    remote: bytes
    uid: int
    inode: int
    received: Callable[[], int | None]


def sockets(
    family: socket.AddressFamily,
    protocol: int,
    states: int,
    *,
    info: bool = False,
    ports: tuple[bytes, bytes] = _ANY_PORTS,
) -> Iterator[Socket]:
    """Yield the kernel's sockets of an IP version and a protocol; ``states`` has a bit for each wanted state.

    With ``info``, ``Socket.received`` returns a number for TCP; otherwise it returns None. ``ports`` are the
    local and the remote port of the wanted sockets, in network byte order; zero is any. If sockets change
    while the kernel sends the list, the list is requested again. The third list is used in any case. Raise
    OSError if the list cannot be read, for example because the kernel has none for this protocol.
    """
    rows: list[tuple[bytes, Frame]] = []
    extensions = 1 << (_INFO - 1) if info else 0
    for _ in range(_TRIES):
        rows.clear()
        if not _listed(_REQUEST.pack(family, protocol, extensions, states, *ports), rows):
            break
    unpack = _SOCKETS[family].unpack_from
    for datagram, frame in rows:
        count = partial(_received, datagram, frame)
        yield Socket(*(*unpack(datagram, frame.start), count))


def _listed(request: bytes, rows: list[tuple[bytes, Frame]]) -> bool:
    """Request the list once. For each socket, append its datagram and the frame of its message to ``rows``.

    Return whether sockets changed while the kernel sent the list (NLM_F_DUMP_INTR). Raise OSError if the
    kernel refuses.
    """
    marked = False
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(
            FRAME.pack(FRAME.size + len(request), BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0) + request
        )
        while True:
            datagram = kernel.recv(_DATAGRAM)
            for frame in frames(datagram):
                marked |= frame.kind != NLMSG_ERROR and bool(frame.flags & NLM_F_DUMP_INTR)
                if frame.kind in (NLMSG_ERROR, NLMSG_DONE):
                    # The message that ends a dump may contain an error, for example if the kernel module of
                    # the protocol is not loaded.
                    if error := result_of(datagram, frame):
                        raise OSError(error, "sock_diag")
                    return marked
                rows.append((datagram, frame))


def tcp_info(datagram: bytes, frame: Frame) -> memoryview:
    """Return the ``struct tcp_info`` in the message of a TCP socket; empty if the message has none."""
    found = memoryview(datagram)[frame.start + ATTRIBUTES : frame.end]
    return next((value for kind, value in attributes(found) if kind == _INFO), found[:0])


def received_bytes(info: memoryview) -> int | None:
    """Return the number of bytes that a TCP socket received; None if unknown (before Linux 4.1)."""
    return int(_BYTES.unpack_from(info, _RECEIVED)[0]) if len(info) >= _RECEIVED + _BYTES.size else None


def delivered_packets(info: memoryview) -> int | None:
    """Return how many packets the remote party has acknowledged; None if unknown (before Linux 4.18)."""
    return int(_PACKETS.unpack_from(info, _DELIVERED)[0]) if len(info) >= _DELIVERED + _PACKETS.size else None


def _received(datagram: bytes, frame: Frame) -> int | None:
    return received_bytes(tcp_info(datagram, frame))


def port_of(packed: bytes) -> int:
    """Return a port of a :class:`Socket` as a number."""
    return int.from_bytes(packed, "big")


def unmapped(packed: bytes) -> bytes:
    """Return the four bytes of an IPv4-mapped IPv6 address; return any other packed address unchanged."""
    if len(packed) == len(_MAPPED) + _IPV4 and packed.startswith(_MAPPED):
        return packed[len(_MAPPED) :]
    return packed


def address_of(packed: bytes) -> Address:
    """Parse a packed address; an IPv4-mapped IPv6 address is returned as IPv4."""
    packed = unmapped(packed)
    return IPv4Address(packed) if len(packed) == _IPV4 else IPv6Address(packed)


def peer_user(own: tuple[Address, int], peer: tuple[Address, int]) -> int | None:
    """Return the user of the program at the other end of a TCP connection within this network namespace.

    ``own`` and ``peer`` are the addresses and ports of this end and of the other one. The user is that of the
    process that accepted the connection. Return None if the user is unknown: the other end is elsewhere, no
    process has accepted the connection yet, the other end was closed, or the kernel cannot list its sockets.
    """
    addresses = peer[0].packed, own[0].packed
    ports = peer[1].to_bytes(_PORT, "big"), own[1].to_bytes(_PORT, "big")
    for family in _SOCKETS:
        with suppress(OSError):
            # The kernel leaves out other ports: a stranger may have thousands of connections.
            for row in sockets(family, socket.IPPROTO_TCP, 1 << ESTABLISHED, ports=ports):
                if (unmapped(row.local), unmapped(row.remote)) == addresses:
                    # A socket that no process holds has no inode, and the kernel names root as its user.
                    return row.uid if row.inode else None
    return None
