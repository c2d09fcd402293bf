"""Queries the kernel about iptables without a process: the size of a legacy table, and the extensions.

iptables-legacy sends no notification and has no netlink interface. But ``getsockopt`` on any socket of the IP
version returns the number of rules in a table and their bytes (``IPT_SO_GET_INFO``, CAP_NET_ADMIN). It reads
the table's name from the buffer for its answer. Python's own getsockopt cannot pass such a buffer, so ctypes
calls the C function. If another program replaces a rule and neither number changes, this is not noticed.

Matches and targets are queried by nfnetlink if the kernel has nft_compat, else by ``getsockopt`` too.
"""

import ctypes
import errno
import os
import socket
import struct

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.netlink.connection import NetlinkConnection, NetlinkError
from ringfence.netlink.messages import FAMILIES, NLM_F_ACK, message, number, text

# The socket option IPT_SO_GET_INFO; IP6T_SO_GET_INFO has the same number. The options that query a match or a
# target (``_REVISION``) have other numbers for IPv6 than for IPv4.
_GET_INFO = 64
_REVISION = {4: (66, 67), 6: (68, 69)}
_LEVELS = {4: socket.SOL_IP, 6: socket.IPPROTO_IPV6}
_INFO = struct.Struct("=32sI20s20sII")
_EXTENSION = struct.Struct("=29sB")
_COMPAT_GET = 11 << 8
_libc = ctypes.CDLL(None, use_errno=True)


@frozen
class Size:
    """The size of a table: its number of entries (rules, and one or two for each chain) and their bytes."""

    entries: int
    size: int


def table_size(version: int, table: str) -> Size | None:
    """Return the size of a table of iptables-legacy; None if the kernel has no such table."""
    try:
        answer = _query(version, _GET_INFO, _INFO.pack(table.encode(), 0, b"", b"", 0, 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOPROTOOPT):
            return None
        raise FirewallError(f"table {table} of IPv{version} cannot be queried: {error}") from error
    *_, entries, size = _INFO.unpack(answer)
    return Size(entries, size)


def has_extension(kernel: NetlinkConnection, version: int, name: str, *, target: bool = False) -> bool:
    """Whether the kernel has a match or target of that name; True if it cannot be queried."""
    request = message(
        _COMPAT_GET,
        NLM_F_ACK,
        FAMILIES[version],
        text(1, name),
        number(2, 0),
        number(3, int(target)),
    )
    try:
        kernel.request(request)
    except NetlinkError as error:
        if error.code != errno.EINVAL:  # EINVAL: the kernel has no nft_compat, so it cannot answer
            return error.code != errno.ENOENT
    else:
        return True
    try:
        _query(version, _REVISION[version][target], _EXTENSION.pack(name.encode(), 0))
    except OSError as error:
        return error.errno != errno.ENOENT
    return True


def _query(version: int, option: int, query: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(query, len(query))
    length = ctypes.c_uint32(len(query))
    with socket.socket(FAMILIES[version], socket.SOCK_DGRAM) as any_socket:
        code = _libc.getsockopt(any_socket.fileno(), _LEVELS[version], option, buffer, ctypes.byref(length))
    if code != 0:
        number_ = ctypes.get_errno()
        raise OSError(number_, os.strerror(number_))
    return buffer.raw
