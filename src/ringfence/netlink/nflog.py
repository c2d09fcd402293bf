"""Messages of the kernel's packet log (nfnetlink_log, NFLOG): the bind request and the logged packets.

A group is a number of 16 bits. Firewall rules send packets to it, and one socket reads from it. When the
socket closes, the kernel frees the group. The kernel numbers the packets of each group, from 0 when a socket
binds it.

The kernel delivers each packet at once. It could also hold packets back, and deliver several together
(NFULA_CFG_QTHRESH). But only their number, a full buffer or a timer ends that, and never a reader. So
ringfence would read some answers after the event of a guess that came later. Then a nonce would prove an
address although Asterisk had sent it to another one too, and a forged guess could ban that address.

The older request PF_BIND is not used here. It would send the packets of the administrator's own LOG rules to
the packet log, for the whole host. It is not needed, because since kernel 3.17 a rule names its logger
itself.
"""

import struct
from collections.abc import Iterator
from socket import AF_UNSPEC

from attrs import frozen

from ringfence.netlink.connection import (
    HEADER,
    NLM_F_ACK,
    NLMSG_ERROR,
    Frame,
    NetlinkMessageError,
    attribute,
    attributes,
    frames,
    message,
    result_of,
)
from ringfence.values import fast

GROUP = 21_063
"""The NFLOG group to which the firewall's rules copy packets, and from which ringfence reads them.

The number is "RG" in ASCII, because other programs hardly use that.
"""

WHOLE = 65_531  # bytes: the most of a packet that the kernel copies (NFULNL_COPY_RANGE_MAX)
_NUMBER = struct.Struct(">I")

_PACKET, _CONFIG = 0x400, 0x401  # subsystem 4, NFULNL_MSG_PACKET and NFULNL_MSG_CONFIG
_PACKET_HEADER, _PAYLOAD, _PREFIX, _UID, _SEQUENCE = 1, 9, 10, 11, 12  # NFULA_PACKET_HDR and so on
_LOCAL_OUT = 3  # NF_INET_LOCAL_OUT
_SEQUENCES = 1 << 32


@frozen
class Acknowledged:
    """The kernel's answer to a request: ``code`` is an error number, or 0 for success."""

    code: int


@fast.frozen
class Logged:
    """One packet of the log.

    ``sequence`` is its number, None if the group does not number its packets. ``payload`` is the packet from
    its IP header on. ``own``: this host itself sent the packet. Any other packet arrives or passes through,
    and anyone may have written it. ``prefix`` is the text that the log rule adds to the packet. ``user`` is
    the user id of the program that made the packet's socket. It is None without such a socket: the packet
    passes through, or its program has closed the connection, and the kernel sends what is left.
    """

    sequence: int | None
    payload: bytes
    own: bool
    prefix: bytes = b""
    user: int | None = None


def bind_request(group: int) -> bytes:
    """Build the request that binds a group: the kernel delivers whole packets, one by one, with numbers."""
    return message(
        _CONFIG,
        NLM_F_ACK,
        AF_UNSPEC,
        attribute(1, struct.pack("=B", 1)),  # NFULA_CFG_CMD: NFULNL_CFG_CMD_BIND
        attribute(2, struct.pack(">IBB", WHOLE, 2, 0)),  # NFULA_CFG_MODE: range, NFULNL_COPY_PACKET
        attribute(4, _NUMBER.pack(1)),  # NFULA_CFG_TIMEOUT: hundredths of a second
        attribute(5, _NUMBER.pack(1)),  # NFULA_CFG_QTHRESH: a message for each packet
        attribute(6, struct.pack(">H", 1)),  # NFULA_CFG_FLAGS: NFULNL_CFG_F_SEQ
        resource=group,
    )


def read_datagram(received: bytes) -> Iterator[Acknowledged | Logged | None]:
    """Parse one datagram of the kernel, message by message.

    Yield None for an invalid message. Messages of other types are skipped.
    """
    try:
        for frame in frames(received):
            if frame.kind == _PACKET:
                yield _logged(received, frame)
            elif frame.kind == NLMSG_ERROR and (code := result_of(received, frame)) is not None:
                yield Acknowledged(code)
    except NetlinkMessageError:
        yield None


def _logged(received: bytes, frame: Frame) -> Logged | None:
    try:
        found = dict(attributes(received[frame.start + HEADER.size : frame.end]))
    except NetlinkMessageError:
        return None
    payload = found.get(_PAYLOAD)
    if payload is None:
        return None
    header, prefix = found.get(_PACKET_HEADER, b""), found.get(_PREFIX, b"")
    # Bytes of the header: protocol (2), hook (1), padding (1).
    own = len(header) == _NUMBER.size and header[2] == _LOCAL_OUT
    number, uid = found.get(_SEQUENCE, b""), found.get(_UID, b"")
    sequence = int.from_bytes(number, "big") if len(number) == _NUMBER.size else None
    user = int.from_bytes(uid, "big") if len(uid) == _NUMBER.size else None
    return Logged(sequence, payload, own, prefix.partition(b"\0")[0], user)


def missing(last: int | None, number: int) -> int:
    """Return how many packets of a group were lost between the packets ``last`` and ``number``.

    ``last`` is the number of the latest packet before; None if no packet has arrived yet. Numbers begin with
    0 and wrap at 32 bits.
    """
    return (number - (-1 if last is None else last) - 1) % _SEQUENCES
