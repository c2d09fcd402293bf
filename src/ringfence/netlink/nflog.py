"""Messages of the kernel's packet log (nfnetlink_log, NFLOG): the bind request and the logged packets.

A group is a number of 16 bits. Rules send packets to it, and one socket reads from it. When the socket
closes, the kernel frees the group. Sequence numbers belong to the group and begin with its binding.

PF_BIND is not used here. Since kernel 3.17 a rule names its logger itself. PF_BIND would make the packet log
the destination of the administrator's own LOG rules, for the whole host.
"""

import struct
from collections.abc import Iterator

from attrs import frozen

WHOLE = 65_531  # the kernel's largest copy range: an attribute of 64 kB
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_BODY = _HEADER.size + 4  # nfgenmsg: family, version, and 16 bits of group, big-endian
_ERROR = struct.Struct("=i")
_NUMBER = struct.Struct(">I")

_REQUEST, _ACK = 0x001, 0x004
_NLMSG_ERROR = 2
_PACKET, _CONFIG = 0x400, 0x401  # subsystem 4, NFULNL_MSG_PACKET and NFULNL_MSG_CONFIG
_TYPE_MASK = 0x3FFF
_PACKET_HEADER, _PAYLOAD, _PREFIX, _SEQUENCE = 1, 9, 10, 12  # NFULA_PACKET_HDR and so on
_LOCAL_OUT = 3  # NF_INET_LOCAL_OUT
_SEQUENCES = 1 << 32


@frozen
class Acknowledged:
    """The kernel's answer to a request: an error number, or 0."""

    code: int


@frozen
class Logged:
    """One packet of the log. ``sequence`` is its number, None if the group does not number its packets.

    ``own``: this host itself sent the packet. Any other packet arrives or passes through, and anyone may have
    written it. ``prefix`` is the text that the log rule adds to the packet.
    """

    sequence: int | None
    payload: bytes
    own: bool
    prefix: bytes = b""


def bind_request(group: int) -> bytes:
    """Build the request that binds a group: whole packets, delivered one by one, numbered."""
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
    """Parse one datagram of the kernel, message by message; yield None for an invalid message."""
    position = 0
    while position < len(received):
        if len(received) - position < _HEADER.size:
            yield None
            return
        length, kind, _flags, _number, _port = _HEADER.unpack_from(received, position)
        if not _HEADER.size <= length <= len(received) - position:
            yield None
            return
        if kind == _PACKET:
            yield _logged(received, position + _BODY, position + length)
        elif kind == _NLMSG_ERROR and length >= _HEADER.size + _ERROR.size:
            yield Acknowledged(-_ERROR.unpack_from(received, position + _HEADER.size)[0])
        position += (length + 3) & ~3


def _logged(received: bytes, position: int, end: int) -> Logged | None:
    sequence = payload = None
    own, prefix = False, b""
    while position + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(received, position)
        if not _ATTRIBUTE.size <= length <= end - position:
            return None
        value = position + _ATTRIBUTE.size
        if kind & _TYPE_MASK == _PAYLOAD:
            payload = received[value : position + length]
        elif kind & _TYPE_MASK == _SEQUENCE and length == _ATTRIBUTE.size + _NUMBER.size:
            (sequence,) = _NUMBER.unpack_from(received, value)
        elif kind & _TYPE_MASK == _PACKET_HEADER and length == _ATTRIBUTE.size + 4:
            own = received[value + 2] == _LOCAL_OUT  # protocol (16 bits), hook, padding
        elif kind & _TYPE_MASK == _PREFIX:
            prefix = received[value : position + length].partition(b"\0")[0]
        position += (length + 3) & ~3
    return None if payload is None else Logged(sequence, payload, own, prefix)


def missing(last: int | None, number: int) -> int:
    """Return how many packets were lost between two numbers of a group, which wrap at 32 bits.

    The first number of a binding is 0. If the first packet has another number, packets were lost before it.
    """
    return (number - (-1 if last is None else last) - 1) % _SEQUENCES
