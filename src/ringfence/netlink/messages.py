"""Builders of nfnetlink messages and their attributes."""

import socket
import struct

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300
NLM_F_NONREC = 0x100  # in a deletion: only if nothing is in it

NESTED = 0x8000
BIG_ENDIAN = 0x4000
TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHIIBBH")  # nlmsghdr and nfgenmsg
ATTRIBUTE = struct.Struct("=HH")


def attribute(kind: int, payload: bytes) -> bytes:
    """Build one attribute, padded to four bytes."""
    length = ATTRIBUTE.size + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length % 4)


def number(kind: int, value: int) -> bytes:
    """Build an attribute of 32 bits, big-endian and marked as such."""
    return attribute(kind | BIG_ENDIAN, value.to_bytes(4, "big"))


def text(kind: int, value: str) -> bytes:
    """Build a text attribute."""
    return attribute(kind, value.encode() + b"\0")


def message(kind: int, flags: int, family: int, *attributes: bytes, resource: int = 0) -> bytes:
    """Build a request with the sequence number 0, which the connection replaces."""
    body = b"".join(attributes)
    flags |= NLM_F_REQUEST
    head = HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0, family, 0, socket.htons(resource))
    return head + body
