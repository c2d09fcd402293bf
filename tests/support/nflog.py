"""A reader of one NFLOG group: which packets the kernel copied, with which prefix."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ringfence.netlink.connection import NETLINK_NETFILTER
from ringfence.netlink.listener import open_listener
from ringfence.netlink.nflog import bind_request

_HEADER, _BODY, _PACKET = 16, 20, 0x400
_PAYLOAD, _PREFIX = 9, 10
_PATIENCE = 10.0

Copied = tuple[str, bytes]
"""The prefix of a copy, and the payload of its TCP segment or UDP datagram."""


@contextmanager
def copies(group: int) -> Iterator[Callable[[bytes], list[Copied]]]:
    """Read a group; yield a function that returns all copies up to one with the given payload, exclusive."""
    with open_listener(NETLINK_NETFILTER, 16 << 20) as reader:
        reader.settimeout(_PATIENCE)
        reader.send(bind_request(group))

        def until(last: bytes) -> list[Copied]:
            found: list[Copied] = []
            while True:
                for copy in _read(reader.recv(1 << 17)):
                    if copy[1] == last:
                        return found
                    found.append(copy)

        yield until


def _read(received: bytes) -> Iterator[Copied]:
    while received:
        length, kind = struct.unpack_from("=IH", received)
        if kind == _PACKET:
            parts = dict(_attributes(received[_BODY:length]))
            yield parts.get(_PREFIX, b"").rstrip(b"\0").decode(), _payload(parts[_PAYLOAD])
        received = received[(length + 3) & ~3 :]


def _attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        length, kind = struct.unpack_from("=HH", body)
        yield kind & 0x3FFF, body[4:length]
        body = body[(length + 3) & ~3 :]


def _payload(packet: bytes) -> bytes:
    ipv4 = packet[0] >> 4 == 4
    protocol, transport = (packet[9], packet[(packet[0] & 15) * 4 :]) if ipv4 else (packet[6], packet[40:])
    return transport[8:] if protocol == socket.IPPROTO_UDP else transport[(transport[12] >> 4) * 4 :]
