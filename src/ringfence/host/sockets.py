"""The sockets of this network namespace, as the kernel lists them (NETLINK_SOCK_DIAG): by TCP, by UDP.

Anybody may ask, without a capability. The kernel's answer is read row by row; nothing is made of a row that
nobody looks at, since the list of connections is read while guesses come in.
"""

import socket
import struct
from collections.abc import Iterator
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
_DATAGRAM = 1 << 16
_IPV4 = 4
_MAPPED = b"\0" * 10 + b"\xff\xff"


class Socket(NamedTuple):
    """A row of the list: ports and addresses as on the wire, of an IPv4 address the first four bytes."""

    state: int
    local_port: bytes
    remote_port: bytes
    local: bytes
    remote: bytes
    uid: int
    inode: int


def sockets(family: socket.AddressFamily, protocol: int, states: int) -> Iterator[Socket]:
    """Ask the kernel for the sockets of an IP version and a protocol, in these states (a bit each).

    Raises OSError, also where the kernel has no list of this protocol.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        request = _REQUEST.pack(family, protocol, 0, states)
        kernel.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _DUMP, 0, 0) + request)
        while True:
            received = kernel.recv(_DATAGRAM)
            place = 0
            while place < len(received):
                length, kind, *_ = _HEADER.unpack_from(received, place)
                if kind in (_ERROR, _DONE):
                    # An error of the dump itself comes with its end: a protocol that is not loaded.
                    [error] = _RESULT.unpack_from(received, place + _HEADER.size)
                    if error:
                        raise OSError(-error, "sock_diag")
                    return
                yield Socket._make(_SOCKET.unpack_from(received, place))
                place += (length + 3) & ~3


def port_of(packed: bytes) -> int:
    """Read a port as it stands in a row."""
    return int.from_bytes(packed, "big")


def address_of(packed: bytes) -> Address:
    """Read an address; an IPv4 address in IPv6 clothes is the IPv4 that the packets carry."""
    if len(packed) == len(_MAPPED) + _IPV4 and packed.startswith(_MAPPED):
        packed = packed[len(_MAPPED) :]
    return IPv4Address(packed) if len(packed) == _IPV4 else IPv6Address(packed)
