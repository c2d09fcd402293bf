"""Netlink messages as bytes: framing, attributes, and nfnetlink requests; no socket, no clock.

Everything parsed here came from the kernel. It is checked nevertheless: a length that exceeds its buffer
raises :class:`NetlinkMessageError`. Integers in attributes are big-endian, in headers native.
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

from ringfence.errors import FirewallError

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
"""Of ``linux/socket.h``. Python has no name for it, nor for the next ones."""
ADD_MEMBERSHIP, DROP_MEMBERSHIP = 1, 2
FAMILIES: Mapping[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
"""The address family of each IP version."""

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_EXCL = 0x200
NLM_F_ACK_TLVS = 0x200  # in an answer: attributes follow (in a request, this bit is NLM_F_EXCL)
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300
NLM_F_NONREC = 0x100  # in a deletion: only if the object is empty

NESTED = 0x8000
BIG_ENDIAN = 0x4000
TYPE_MASK = 0x3FFF

FRAME = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
HEADER = struct.Struct("=IHHIIBBH")  # nlmsghdr and nfgenmsg
ATTRIBUTE = struct.Struct("=HH")
RESULT = struct.Struct("=i")

_Buffer = TypeVar("_Buffer", bytes, memoryview)


class NetlinkMessageError(FirewallError):
    """Bytes from the kernel that are not a valid netlink message."""


class Frame(NamedTuple):
    """The header of one message, and where the message begins and ends in its datagram."""

    kind: int
    flags: int
    sequence: int
    port: int
    start: int
    end: int


def frames(datagram: bytes) -> Iterator[Frame]:
    """Split a datagram into messages; raise NetlinkMessageError if the length of one is invalid."""
    position, size = 0, len(datagram)
    while position < size:
        if size - position < FRAME.size:
            raise NetlinkMessageError("a netlink datagram ends within the header of a message")
        length, kind, flags, sequence, port = FRAME.unpack_from(datagram, position)
        if not FRAME.size <= length <= size - position:
            raise NetlinkMessageError(
                f"a netlink message has the length {length}, which exceeds its datagram"
            )
        yield Frame(kind, flags, sequence, port, position, position + length)
        position += (length + 3) & ~3


def result_of(datagram: bytes, frame: Frame) -> int | None:
    """Return the error number in a message of type NLMSG_ERROR or NLMSG_DONE; 0 means success.

    None if the message is too short for an error number.
    """
    if frame.end - frame.start < FRAME.size + RESULT.size:
        return None
    [code] = RESULT.unpack_from(datagram, frame.start + FRAME.size)
    return -int(code)


def attributes(buffer: _Buffer) -> Iterator[tuple[int, _Buffer]]:
    """Yield the type (without its flags) and the value of each attribute in ``buffer``.

    Raise NetlinkMessageError if an attribute does not end within the buffer.
    """
    position, size = 0, len(buffer)
    while position < size:
        if size - position < ATTRIBUTE.size:
            raise NetlinkMessageError("a netlink message ends within the header of an attribute")
        length, kind = ATTRIBUTE.unpack_from(buffer, position)
        if not ATTRIBUTE.size <= length <= size - position:
            raise NetlinkMessageError(
                f"a netlink attribute has the length {length}, which exceeds its message"
            )
        yield kind & TYPE_MASK, buffer[position + ATTRIBUTE.size : position + length]
        position += (length + 3) & ~3


def parse(answer: bytes, kind: int) -> dict[int, memoryview]:
    """Return the attributes of an nfnetlink message of type ``kind``, by attribute type.

    Raise NetlinkMessageError if the message is invalid or has another type.
    """
    return dict(attributes(memoryview(attributes_of(answer, kind))))


def attributes_of(answer: bytes, kind: int) -> bytes:
    """Return the bytes of an nfnetlink message after its header: its attributes, not parsed.

    Raise NetlinkMessageError if the message is not of type ``kind``.
    """
    if len(answer) < HEADER.size:
        raise NetlinkMessageError(f"a netlink message of only {len(answer)} bytes")
    length, found = HEADER.unpack_from(answer)[:2]
    if not HEADER.size <= length <= len(answer) or found != kind:
        raise NetlinkMessageError(
            f"a netlink message of type {found:#x} and length {length} instead of type {kind:#x}"
        )
    return answer[HEADER.size : length]


def integer(found: Mapping[int, memoryview], kind: int) -> int:
    """Return the value of an attribute with a big-endian integer, 0 if it is missing."""
    return int.from_bytes(found.get(kind, b""), "big")


def string(found: Mapping[int, memoryview], kind: int) -> str:
    """Return the value of a text attribute; raise NetlinkMessageError if it is missing."""
    return decoded(required(found, kind))


def decoded(value: bytes | memoryview) -> str:
    """Return the value of a text attribute as text."""
    return bytes(value).rstrip(b"\0").decode("ascii", "backslashreplace")


def nested(found: Mapping[int, memoryview], kind: int) -> dict[int, memoryview]:
    """Return the attributes within an attribute, by type; an empty dict if it is missing."""
    return dict(attributes(found[kind])) if kind in found else {}


def required(found: Mapping[int, memoryview], kind: int) -> memoryview:
    """Return the value of an attribute; raise NetlinkMessageError if it is missing."""
    try:
        return found[kind]
    except KeyError:
        raise NetlinkMessageError(f"a netlink message lacks attribute {kind}") from None


def attribute(kind: int, payload: bytes) -> bytes:
    """Build one attribute, padded to four bytes."""
    length = ATTRIBUTE.size + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length % 4)


def number(kind: int, value: int) -> bytes:
    """Build an attribute with a big-endian integer of 32 bits, and with the flag for this byte order."""
    return attribute(kind | BIG_ENDIAN, value.to_bytes(4, "big"))


def text(kind: int, value: str) -> bytes:
    """Build a text attribute."""
    return attribute(kind, value.encode() + b"\0")


def message(kind: int, flags: int, family: int, *parts: bytes, resource: int = 0) -> bytes:
    """Build a request with the sequence number 0, which the connection replaces.

    ``kind`` and ``flags`` go into its netlink header. ``family`` (an address family) and ``resource`` (such
    as a group of NFLOG) go into its nfnetlink header. ``parts`` are its attributes.
    """
    body = b"".join(parts)
    flags |= NLM_F_REQUEST
    head = HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0, family, 0, socket.htons(resource))
    return head + body
