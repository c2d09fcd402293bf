"""The kernel's packet log (nfnetlink_log, NFLOG) as bytes: one request, and the packets that then come.

A group is a number of 16 bits to which rules send packets and from which one socket reads; when the socket
closes the kernel frees the group. Sequence numbers belong to the group and begin with its binding.

There is no PF_BIND here. Since kernel 3.17 a rule names its logger itself, and PF_BIND would make the packet
log the destination of the administrator's own LOG rules, for the whole host.

The shape of messages is that of ``firewall/nfnetlink.py``, which this room may not know; ten lines, no more.
"""

import struct
from collections.abc import Iterator

from attrs import frozen

WHOLE = 65_531  # the kernel's greatest copy range: an attribute of 64 kB
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_BODY = _HEADER.size + 4  # nfgenmsg: family, version, and 16 bits of group, big-endian
_ERROR = struct.Struct("=i")
_NUMBER = struct.Struct(">I")

_REQUEST, _ACK = 0x001, 0x004
_NLMSG_ERROR = 2
_PACKET, _CONFIG = 0x400, 0x401  # subsystem 4, NFULNL_MSG_PACKET and NFULNL_MSG_CONFIG
_TYPE_MASK = 0x3FFF
_PACKET_HEADER, _PAYLOAD, _SEQUENCE = 1, 9, 12  # NFULA_PACKET_HDR, NFULA_PAYLOAD, NFULA_SEQ
_LOCAL_OUT = 3  # NF_INET_LOCAL_OUT
_SEQUENCES = 1 << 32


@frozen
class Acknowledged:
    """The kernel's answer to a request: an error number, or 0."""

    code: int


@frozen
class Logged:
    """One packet of the log, and its number; None where the group gives none.

    ``own`` is whether this host itself sent it; else it passes through, and anybody may have written it.
    """

    sequence: int | None
    payload: bytes
    own: bool


def bind_request(group: int) -> bytes:
    """Build the request for a group: whole packets, each at once, numbered."""
    attributes = (
        (1, struct.pack("=B", 1)),  # NFULA_CFG_CMD: NFULNL_CFG_CMD_BIND
        (2, struct.pack(">IBB", WHOLE, 2, 0)),  # NFULA_CFG_MODE: range, NFULNL_COPY_PACKET
        (4, _NUMBER.pack(1)),  # NFULA_CFG_TIMEOUT: hundredths of a second
        (5, _NUMBER.pack(1)),  # NFULA_CFG_QTHRESH: a message for each packet
        (6, struct.pack(">H", 1)),  # NFULA_CFG_FLAGS: NFULNL_CFG_F_SEQ
    )
    body = b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)
        for kind, value in attributes
    )
    header = _HEADER.pack(_BODY + len(body), _CONFIG, _REQUEST | _ACK, 0, 0)
    return header + b"\0\0" + group.to_bytes(2, "big") + body


def read_datagram(received: bytes) -> Iterator[Acknowledged | Logged | None]:
    """Give what a datagram of the kernel's holds, message by message; None for one that cannot be read."""
    place = 0
    while place < len(received):
        if len(received) - place < _HEADER.size:
            yield None
            return
        length, kind, _flags, _number, _port = _HEADER.unpack_from(received, place)
        if not _HEADER.size <= length <= len(received) - place:
            yield None
            return
        if kind == _PACKET:
            yield _logged(received, place + _BODY, place + length)
        elif kind == _NLMSG_ERROR and length >= _HEADER.size + _ERROR.size:
            yield Acknowledged(-_ERROR.unpack_from(received, place + _HEADER.size)[0])
        place += (length + 3) & ~3


def _logged(received: bytes, place: int, end: int) -> Logged | None:
    sequence = payload = None
    own = False
    while place + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(received, place)
        if not _ATTRIBUTE.size <= length <= end - place:
            return None
        value = place + _ATTRIBUTE.size
        if kind & _TYPE_MASK == _PAYLOAD:
            payload = received[value : place + length]
        elif kind & _TYPE_MASK == _SEQUENCE and length == _ATTRIBUTE.size + _NUMBER.size:
            (sequence,) = _NUMBER.unpack_from(received, value)
        elif kind & _TYPE_MASK == _PACKET_HEADER and length == _ATTRIBUTE.size + 4:
            own = received[value + 2] == _LOCAL_OUT  # protocol (16 bits), hook, padding
        place += (length + 3) & ~3
    return None if payload is None else Logged(sequence, payload, own)


def missing(last: int | None, number: int) -> int:
    """Say how many packets are lacking between two numbers of a group, which wrap at 32 bits.

    The first number of a binding is 0: what comes first with another shows what was lost before it.
    """
    return (number - (-1 if last is None else last) - 1) % _SEQUENCES
