"""Closed TCP connections, as the kernel reports them (NETLINK_SOCK_DIAG, the destroy groups of TCP).

The kernel sends one message when it frees a TCP socket. Observed on kernel 6.18, at the accepting end:

===============================================  =======================================================
what happens                                     what the kernel reports, and when
===============================================  =======================================================
this host closes first                           one message, when the socket becomes a TIME_WAIT entry
the remote end closes first                      one message, at the last ACK
the remote end resets the connection             one message, but only when the program here closes its
                                                 descriptor; until then the list of sockets lacks it too
this host resets (SO_LINGER of 0 s)              one message without remote address and port
a TIME_WAIT entry ends                           nothing
a SYN without a completed handshake, also with   nothing: the kernel has a request and no socket
SYN cookies: the request expires, is reset, or
gets ACKs with a wrong number
a SYN with data or cookie request, while TCP     one message: the kernel makes a socket at the SYN
Fast Open demands no cookie
===============================================  =======================================================

Because of the last row, it must be checked whether the handshake was completed. ``tcpi_delivered`` (Linux
4.18) counts the packets that the remote end has acknowledged; the SYN-ACK is the first of them. It is 0
if only a SYN came, whose source anyone can forge. It is 1 or more after every completed handshake, also
with SYN cookies.

The kernel sends from a work queue, so a message may arrive some microseconds after the socket is gone
from the list of sockets. Sockets of other network namespaces, such as those of containers, are not
reported. Kernel 6.18 lets any user join the groups, so CAP_NET_ADMIN is only needed for the large receive
buffer.
"""

import errno
import os
import socket
import struct
from typing import NamedTuple

from ringfence.errors import HostError
from ringfence.netlink.connection import NetlinkMessageError, frames
from ringfence.netlink.listener import open_listener
from ringfence.netlink.sock_diag import (
    ATTRIBUTES,
    BY_FAMILY,
    NETLINK_SOCK_DIAG,
    delivered_packets,
    received_bytes,
    tcp_info,
    unmapped,
)

MOST_AT_ONCE = 256
"""The maximum number of kernel messages that one call reads, so that many do not block the event loop."""

_GROUPS = (1, 3)  # SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY (linux/sock_diag.h)
_BUFFER = 8 << 20  # the kernel doubles it
_DATAGRAM = 4096  # bytes; a message of the kernel has 380 (Linux 6.18)
_MESSAGE = struct.Struct("=16xB3x2s2s16s16s")  # inet_diag_msg: family; ports and addresses, high byte first
_NO_PORT = b"\0\0"
_IPV4 = 4


class Closed(NamedTuple):
    """A closed TCP connection. ``remote`` is the remote address, followed by two bytes of the remote port.

    Ports are in network byte order. ``received`` is the number of bytes from the remote end; None if the
    kernel does not report it.
    """

    local_port: bytes
    remote: bytes
    received: int | None = None


class ClosedSockets:
    """Reads the kernel's reports of closed TCP connections in this network namespace.

    No method waits. An event loop can wait for the descriptor that :meth:`fileno` returns.
    """

    def __init__(self, buffer: int = _BUFFER) -> None:
        self._buffer = buffer
        self._kernel: socket.socket | None = None

    def open(self) -> None:
        """Open the netlink socket, and join the kernel's groups that report closed connections.

        Raise HostError, with the fix, if the kernel refuses.
        """
        try:
            self._kernel = open_listener(NETLINK_SOCK_DIAG, self._buffer, _GROUPS)
        except OSError as error:
            raise _refused(error) from error

    def close(self) -> None:
        """Close the socket."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def fileno(self) -> int:
        """Return the descriptor of the socket; -1 if it is closed."""
        return self._kernel.fileno() if self._kernel is not None else -1

    def read(self) -> tuple[list[Closed], bool, bool]:
        """Return newly closed connections, whether reports of some were lost, and whether more may wait."""
        came: list[Closed] = []
        lost = False
        if self._kernel is None:
            return came, lost, False
        for _ in range(MOST_AT_ONCE):
            try:
                datagram = self._kernel.recv(_DATAGRAM)
            except BlockingIOError:
                return came, lost, False
            except OSError as error:
                # ENOBUFS means that reports were lost. No other error is expected here, but it counts as a
                # loss too.
                lost = True
                if error.errno != errno.ENOBUFS:
                    return came, lost, False
                continue
            closed = _parse(datagram)
            if closed is None:
                lost = True
            elif closed.remote:
                came.append(closed)
        return came, lost, True


def _parse(datagram: bytes) -> Closed | None:
    """Return the closed connection that a netlink message of the kernel reports.

    Return None if the message is invalid or lacks the count of delivered packets. The caller then counts the
    report as lost. Return ``_NONE``, which the caller ignores, if the remote address is unknown or the
    handshake was not completed.
    """
    try:
        frame = next(frames(datagram), None)
        if frame is None or frame.kind != BY_FAMILY or frame.end < ATTRIBUTES:
            return None
        family, local, port, _, address = _MESSAGE.unpack_from(datagram)
        if port == _NO_PORT:  # the socket was listening, never connected, or reset by this host
            return _NONE
        info = tcp_info(datagram, frame)
    except NetlinkMessageError:
        return None
    delivered = delivered_packets(info)
    if not delivered:
        return None if delivered is None else _NONE
    packed = address[:_IPV4] if family == socket.AF_INET else unmapped(address)
    return Closed(local, packed + port, received_bytes(info))


_NONE = Closed(b"", b"")


def _refused(error: OSError) -> HostError:
    if error.errno == errno.EAFNOSUPPORT:
        fix = "the unit's RestrictAddressFamilies= needs AF_NETLINK, as in the unit that is shipped"
    elif error.errno in (errno.EPERM, errno.EACCES):
        fix = "grant CAP_NET_ADMIN, as the unit does"
    else:
        fix = "`modprobe inet_diag tcp_diag` (in a container: on its host), then restart ringfence"
    why = os.strerror(error.errno) if error.errno else str(error)
    return HostError(f"cannot follow closed TCP connections (NETLINK_SOCK_DIAG): {why}; fix: {fix}")
