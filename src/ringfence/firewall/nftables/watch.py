"""Kernel notifications about changes that other programs make to nftables.

A socket joins a netlink group of the kernel. The kernel sends this group a notification of each change in a
transaction, and then one of the transaction itself (NEWGEN). It packs as many notifications as possible into
a datagram; NEWGEN has a datagram of its own.

A filter on the socket accepts every NEWGEN, and the datagrams whose first notification concerns table
``inet ringfence``. So a transaction of another table costs one small datagram, whatever its size. The filter
rejects every notification of transactions from some netlink ports (:meth:`ChangeMonitor.ignore`). These are
the ports of ringfence itself, which changes thousands of elements.

The kernel sends no notification if a program only reads, if an element expires, or if a packet adds an
element to a set.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.firewall.nftables.messages import INET, MessageType
from ringfence.firewall.nftables.ruleset import TABLE
from ringfence.firewall.nftables.state import read_generation
from ringfence.netlink.connection import NETLINK_NETFILTER, SOL_NETLINK, NetlinkConnection, frames
from ringfence.netlink.listener import ADD_MEMBERSHIP, DROP_MEMBERSHIP, open_listener

_SO_ATTACH_FILTER = 26
_GROUP = 7  # NFNLGRP_NFTABLES
_RECEIVE = 1 << 14
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
        # If the buffer is small, notifications may be lost. Then all rules are compared.
        self._socket = open_listener(NETLINK_NETFILTER, _BUFFER)
        self._ignored = frozenset[int]()
        try:
            _attach(self._socket, ())
            self.resume()
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there is a notification."""
        return self._socket.fileno()

    def ignore(self, ports: Iterable[int]) -> None:
        """Ignore transactions from these netlink ports."""
        ignored = frozenset(ports)
        if ignored != self._ignored:
            _attach(self._socket, ignored)
            self._ignored = ignored

    def pause(self) -> None:
        """Stop receiving notifications: without a listener, large changes cost the kernel far less time."""
        self._socket.setsockopt(SOL_NETLINK, DROP_MEMBERSHIP, _GROUP)

    def resume(self) -> None:
        """Receive notifications (again): join the kernel's multicast group."""
        self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, _GROUP)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    def drain(self) -> Notifications:
        """Read the notifications that have arrived, without waiting for others, and return their summary.

        If the kernel refuses, notifications count as lost.
        """
        ports, touched, lost = set[int](), set[int](), False
        while True:
            try:
                datagram = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return Notifications(frozenset(ports), lost, frozenset(touched))
            except OSError as error:
                lost = True
                if error.errno != errno.ENOBUFS:
                    return Notifications(frozenset(ports), lost, frozenset(touched))
                continue
            frame = next(frames(datagram), None)
            if frame is not None:
                (ports if frame.kind == MessageType.NEWGEN else touched).add(frame.port)


def _attach(connection: socket.socket, ignored: Iterable[int]) -> None:
    """Attach the packet filter that the module's docstring describes.

    ``ignored`` are the netlink ports to ignore. The filter reads all values as big-endian, although the
    kernel writes them in the host's byte order. So the constants are converted here.
    """
    newgen = int.from_bytes(struct.pack("=H", MessageType.NEWGEN), "big")
    name = f"{TABLE}\0".encode()
    # The first attribute of every notification about a change (type 1) is the name of the changed table.
    first = struct.pack("=HH", 4 + len(name), 1) + name
    tests = [(_LOAD_BYTE, _FAMILY_AT, INET)]
    for at in range(0, len(first), 4):
        part = first[at : at + 4]
        load = {4: _LOAD_WORD, 2: _LOAD_HALF, 1: _LOAD_BYTE}[len(part)]
        tests.append((load, _ATTRIBUTES_AT + at, int.from_bytes(part, "big")))
    lines: list[tuple[int, int, int, int]] = [(_LOAD_WORD, 0, 0, _PORT_AT)]
    for one in ignored:
        port = int.from_bytes(struct.pack("=I", one), "big")
        lines += [(_JUMP_EQUAL, 0, 1, port), (_RETURN, 0, 0, 0)]
    lines += [(_LOAD_HALF, 0, 0, _KIND_AT), (_JUMP_EQUAL, 0, 1, newgen), (_RETURN, 0, 0, _WHOLE)]
    for load, at, wanted in tests:
        lines += [(load, 0, 0, at), (_JUMP_EQUAL, 1, 0, wanted), (_RETURN, 0, 0, 0)]
    lines.append((_RETURN, 0, 0, _WHOLE))
    program = b"".join(_INSTRUCTION.pack(*line) for line in lines)
    held = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(held))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)


# -- notices at once the changes that other programs make to nftables
#
# The kernel reports every transaction with the netlink port of its author, and whether it changed our table
# (:class:`ChangeMonitor`). A transaction can change several tables, and ringfence does not read every
# change. So after any transaction of another program our rules are *suspect*: they are read and compared.
# The elements of our sets count as changed only if a change of our table was seen, or if notifications were
# lost.
#
# During a large transaction of its own, ringfence does not listen, because the kernel would write 8 kB for
# each element to a listener. The kernel numbers every transaction (the generation). So the number shows
# afterwards whether another program made a transaction meanwhile.


class ForeignChanges:
    """Records that other programs changed nftables.

    ``connections`` are those over which ringfence itself makes transactions; these are not recorded.
    """

    def __init__(self, connections: Sequence[NetlinkConnection]) -> None:
        self.commits = 0
        """The number of transactions that ringfence has made. Each caller that makes one adds 1."""
        self.epoch = 0
        """A number that increases when another program changed, or may have changed, our table."""
        self._connections = connections
        self._monitor: ChangeMonitor | None = None
        self._pauses = 0
        self._deferred = False
        self._commits_before = 0
        self._suspect = False
        self._changed = False
        self._assumed = False

    @property
    def suspect(self) -> bool:
        """Whether the rules may differ from those that were written last."""
        return self._suspect

    def mark_suspect(self) -> None:
        """Record that the rules may differ from those that were written last."""
        self._suspect = True

    def confirm_rules(self) -> None:
        """Record that the rules are those that were written last."""
        self._suspect = False

    def listen(self) -> None:
        """Start listening for changes.

        If the kernel refuses, :meth:`read` marks the rules as suspect each time.
        """
        if self._monitor is None:
            with suppress(OSError):
                self._monitor = ChangeMonitor()

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when there is a notification; None if nothing listens."""
        return self._monitor.fileno() if self._monitor is not None else None

    def read(self, *own: int) -> None:
        """Read the waiting notifications, and record what they report.

        ``own`` are the netlink ports of processes that ringfence started. Changes from these ports are not
        recorded. Nothing is read while such a process may run (:meth:`deferred`).
        """
        if self._deferred:
            return
        if self._monitor is None:
            self._suspect = True
            self.epoch += 1
            return
        notified = self._monitor.drain()
        ours = {one.port for one in self._connections if one.port is not None}
        self._monitor.ignore(ours)
        ours.update(own)
        if notified.lost or notified.touched - ours:
            self._suspect = self._changed = True
            self.epoch += 1
        elif notified.ports - ours:  # another program changed nftables, but probably not our table
            self._suspect = True

    def take_changed(self, *, counted: bool) -> bool:
        """Return whether another program has changed our table since the last call.

        ``counted``: the kernel counts the elements of sets. If another program made a transaction while
        ringfence did not listen, this transaction may have changed our table. Without ``counted``, the answer
        is then True. With ``counted``, it is not, because the caller compares the numbers of elements.
        """
        changed = self._changed or (self._assumed and not counted)
        self._changed = self._assumed = False
        return changed

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Leave the notifications unread while a process of ringfence runs, whose port is not known yet."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @contextmanager
    def unmonitored(self) -> Iterator[None]:
        """Stop listening while the caller changes many elements.

        The caller adds its transactions to ``commits``. If the kernel has counted more, another program may
        have changed our table, and this is recorded. The kernel does not count a transaction that changes
        nothing. Uses may overlap: the last one to end compares. While a process of ringfence runs
        (:meth:`deferred`), it keeps listening, because ``commits`` does not count that process's transaction
        yet.
        """
        if self._monitor is None or self._deferred:
            yield
            return
        if not self._pauses:
            self._commits_before = self._foreign_commits()
            self._monitor.pause()
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses and self._monitor is not None:
                self._monitor.resume()
                self._compare_commits()

    def _compare_commits(self) -> None:
        try:
            foreign = self._foreign_commits() > self._commits_before
        except FirewallError:  # it is unknown, so it may have happened
            foreign = True
        if foreign:
            self._suspect = self._assumed = True
            self.epoch += 1

    def _foreign_commits(self) -> int:
        """Return a number that increases with each transaction of another program."""
        return read_generation(self._connections[0]) - self.commits

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
