"""What x_tables can be asked without a process: a legacy table's size, and which extensions there are.

iptables-legacy sends no notification and has no netlink. But ``getsockopt`` on any socket of the IP
version tells how many rules a table has and how many bytes they take (``IPT_SO_GET_INFO``, CAP_NET_ADMIN). It
takes the table's name in the buffer that it answers in, which Python's own getsockopt cannot give: hence
ctypes. One rule put in another's place, with neither number changed, is not seen this way.

Matches and targets are asked for by nfnetlink where the kernel has nft_compat, else by the same getsockopt.
"""

import ctypes
import errno
import os
import socket
import struct

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.firewall.netlink import Conversation, NetlinkError
from ringfence.firewall.nfnetlink import NLM_F_ACK, message, number, text

# IPT_SO_GET_INFO and IP6T_SO_GET_INFO; of the revisions the two IP versions have numbers of their own.
_GET_INFO = 64
_REVISION = {4: (66, 67), 6: (68, 69)}
_LEVELS = {4: socket.SOL_IP, 6: socket.IPPROTO_IPV6}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_INFO = struct.Struct("=32sI20s20sII")
_EXTENSION = struct.Struct("=29sB")
_COMPAT_GET = 11 << 8
_libc = ctypes.CDLL(None, use_errno=True)


@frozen
class Size:
    """How much is in a table: its rules (and chains, which count as one or two) and their bytes."""

    entries: int
    size: int


def table_size(version: int, table: str) -> Size | None:
    """Give the size of a table of iptables-legacy; None where the kernel has no such table."""
    try:
        answer = _ask(version, _GET_INFO, _INFO.pack(table.encode(), 0, b"", b"", 0, 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOPROTOOPT):
            return None
        raise FirewallError(f"table {table} of IPv{version} cannot be asked for: {error}") from error
    *_, entries, size = _INFO.unpack(answer)
    return Size(entries, size)


def has_extension(kernel: Conversation, version: int, name: str, *, target: bool = False) -> bool:
    """Say whether the kernel has a match or target of that name. Where it does not tell, it has."""
    request = message(
        _COMPAT_GET,
        NLM_F_ACK,
        _FAMILIES[version],
        text(1, name),
        number(2, 0),
        number(3, int(target)),
    )
    try:
        kernel.request(request)
    except NetlinkError as error:
        if error.code != errno.EINVAL:  # no such subsystem: a kernel without nft_compat
            return error.code != errno.ENOENT
    else:
        return True
    try:
        _ask(version, _REVISION[version][target], _EXTENSION.pack(name.encode(), 0))
    except OSError as error:
        return error.errno != errno.ENOENT
    return True


def _ask(version: int, option: int, question: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(question, len(question))
    length = ctypes.c_uint32(len(question))
    with socket.socket(_FAMILIES[version], socket.SOCK_DGRAM) as any_socket:
        code = _libc.getsockopt(any_socket.fileno(), _LEVELS[version], option, buffer, ctypes.byref(length))
    if code != 0:
        number_ = ctypes.get_errno()
        raise OSError(number_, os.strerror(number_))
    return buffer.raw
