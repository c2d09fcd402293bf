"""Kernel notifications about changes that other programs make to nftables.

A socket joins a netlink group of the kernel. The kernel sends this group a notification of each change in a
transaction, and then one of the transaction itself (NEWGEN). It packs as many notifications as possible into
a datagram; NEWGEN has a datagram of its own.

A filter on the socket accepts every NEWGEN, and the datagrams whose first notification concerns table
``inet ringfence``. So a transaction of another table costs one small datagram, whatever its size. The filter
rejects every notification of transactions from one netlink port (:meth:`ChangeMonitor.ignore`). This is the
port of ringfence itself, which changes thousands of elements.

The kernel sends no notification if a program only reads, if an element expires, or if a packet adds an
element to a set.
"""

import ctypes
import errno
import socket
import struct
from contextlib import suppress

from attrs import frozen

from ringfence.firewall.nftables.messages import INET, MessageType
from ringfence.firewall.nftables.ruleset import TABLE
from ringfence.netlink.messages import NETLINK_NETFILTER, frames

# <linux/netlink.h>; Python has no names for these
_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2
_SO_ATTACH_FILTER = 26
_GROUP = 7  # NFNLGRP_NFTABLES
_RECEIVE = 1 << 14
_SO_RCVBUFFORCE = 33  # <asm/socket.h>; Python has no name for it
# The default of 212,992 bytes has no room for the notifications about our own ruleset with every option.
_BUFFER = 1 << 20
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_WHOLE = 0xFFFFFFFF
_KIND_AT, _PORT_AT, _FAMILY_AT, _ATTRIBUTES_AT = 4, 12, 16, 20


@frozen
class Notifications:
    """A summary of the notifications since the last reading.

    A netlink port stands for the program that changed something. ``ports`` are those of programs that changed
    any table, ``touched`` those of programs that changed our table. Of each datagram only the first change is
    read, so ``touched`` may lack a program that changed several tables. ``lost``: the socket had no room for
    all notifications.
    """

    ports: frozenset[int]
    lost: bool = False
    touched: frozenset[int] = frozenset()


class ChangeMonitor:
    """A socket that receives the kernel's notifications of changed rules, until it is closed."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        self._ignored: int | None = None
        try:
            with suppress(OSError):  # a small buffer loses notifications; then all rules are compared
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            _attach(self._socket, None)
            self._socket.bind((0, 0))
            self.resume()
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there is a notification."""
        return self._socket.fileno()

    def ignore(self, port: int | None) -> None:
        """Ignore transactions from the netlink port ``port``; None: ignore none."""
        if port != self._ignored:
            _attach(self._socket, port)
            self._ignored = port

    def pause(self) -> None:
        """Leave the group: without a listener, large changes cost the kernel far less time."""
        self._socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, _GROUP)

    def resume(self) -> None:
        """Join the group of the kernel that receives the notifications."""
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    def drain(self) -> Notifications:
        """Read the notifications that have arrived, without waiting for others, and return their summary."""
        ports, touched, lost = set[int](), set[int](), False
        while True:
            try:
                datagram = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return Notifications(frozenset(ports), lost, frozenset(touched))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            frame = next(frames(datagram), None)
            if frame is not None:
                (ports if frame.kind == MessageType.NEWGEN.kind else touched).add(frame.port)


def _attach(connection: socket.socket, ignored: int | None) -> None:
    """Attach the packet filter that the module's docstring describes.

    ``ignored`` is the netlink port to ignore; None if no port is ignored. The filter reads all values as
    big-endian, although the kernel writes them in the host's byte order. So the constants are converted here.
    """
    newgen = int.from_bytes(struct.pack("=H", MessageType.NEWGEN.kind), "big")
    name = f"{TABLE}\0".encode()
    # The first attribute of every notification about a change (type 1) is the name of the changed table.
    first = struct.pack("=HH", 4 + len(name), 1) + name
    tests = [(_LOAD_BYTE, _FAMILY_AT, INET)]
    for at in range(0, len(first), 4):
        part = first[at : at + 4]
        load = {4: _LOAD_WORD, 2: _LOAD_HALF, 1: _LOAD_BYTE}[len(part)]
        tests.append((load, _ATTRIBUTES_AT + at, int.from_bytes(part, "big")))
    lines: list[tuple[int, int, int, int]] = []
    if ignored is not None:
        port = int.from_bytes(struct.pack("=I", ignored), "big")
        lines += [(_LOAD_WORD, 0, 0, _PORT_AT), (_JUMP_EQUAL, 0, 1, port), (_RETURN, 0, 0, 0)]
    lines += [(_LOAD_HALF, 0, 0, _KIND_AT), (_JUMP_EQUAL, 0, 1, newgen), (_RETURN, 0, 0, _WHOLE)]
    for load, at, wanted in tests:
        lines += [(load, 0, 0, at), (_JUMP_EQUAL, 1, 0, wanted), (_RETURN, 0, 0, 0)]
    lines.append((_RETURN, 0, 0, _WHOLE))
    program = b"".join(_INSTRUCTION.pack(*line) for line in lines)
    held = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(held))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
