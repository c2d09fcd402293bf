"""The kernel's word that somebody has changed nftables: one notification for each transaction.

Whoever joins the group is told of every element too, and drowns in his own: a filter on the socket lets only
NEWGEN pass, one to a transaction, whatever its size. It names the netlink port that the change came from, by
which one's own are told from those of others. Reading, an element that ends and what packets add to sets
are no changes.
"""

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Iterator

from attrs import frozen

from ringfence.firewall.nft_messages import Message, generation_of

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = (
    270,
    1,
    2,
)  # <linux/netlink.h>; Python has no names for these
_SO_ATTACH_FILTER = 26
_GROUP = 7  # NFNLGRP_NFTABLES
_RECEIVE = 1 << 14
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_HALF, _JUMP_EQUAL, _RETURN = 0x28, 0x15, 0x06
_KIND_AT = 4  # nlmsg_type


@frozen
class Told:
    """What was told since the last look: the ports that changes came from.

    ``lost``: there was more than the socket had room for.
    """

    ports: frozenset[int]
    lost: bool = False


class Watch:
    """A socket in the group of those who are told, from the moment that it is made until it is closed."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
        )
        try:
            _attach(self._socket)
            self._socket.bind((0, 0))
            self.resume()
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Give what becomes readable when there is a change."""
        return self._socket.fileno()

    def pause(self) -> None:
        """Be told nothing for a while: what comes in is far cheaper for the kernel where nobody listens."""
        self._socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, _GROUP)

    def resume(self) -> None:
        """Be told again."""
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)

    def close(self) -> None:
        """Leave the group. Idempotent."""
        self._socket.close()

    def drain(self) -> Told:
        """Take what was told, without waiting."""
        ports, lost = set[int](), False
        while True:
            try:
                datagram = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return Told(frozenset(ports), lost)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            ports.update(_ports(datagram))


def _ports(datagram: bytes) -> Iterator[int]:
    position = 0
    while position + 4 <= len(datagram):
        length = int.from_bytes(datagram[position : position + 4], sys.byteorder)
        generation = generation_of(datagram[position : position + max(length, 0)])
        if generation is not None:
            yield generation.port
        position += max((length + 3) & ~3, 4)


def _attach(connection: socket.socket) -> None:
    """Have the kernel pass NEWGEN only. The filter reads big-endian what stands there in the host's order."""
    wanted = int.from_bytes(struct.pack("=H", Message.NEWGEN.kind), "big")
    program = b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in (
            (_LOAD_HALF, 0, 0, _KIND_AT),
            (_JUMP_EQUAL, 0, 1, wanted),
            (_RETURN, 0, 0, 0xFFFFFFFF),
            (_RETURN, 0, 0, 0),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(held))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
