"""Reads the packets that the kernel copies to a group of its packet log (NFLOG).

The socket is read in the event loop, at most ``TURN`` datagrams or ``TURN_BYTES`` at a time, so that a flood
of packets never delays the manager interface. Unread packets wait in the kernel, in at most twice the size
of the buffer. If packets are lost, the socket reports ENOBUFS, or a sequence number is missing. Each loss is
a *gap*. The beginning and the end of a session are gaps too, because packets before and after it are not
read.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Mapping
from contextlib import nullcontext
from itertools import chain
from math import inf

import structlog
from attrs import define

from ringfence.clock import Backoff
from ringfence.gathering import more_waits, patient
from ringfence.netlink.connection import NETLINK_NETFILTER
from ringfence.netlink.listener import open_listener
from ringfence.netlink.nflog import Acknowledged, Logged, bind_request, missing, read_datagram
from ringfence.sources.state import Condition, EndError, State, SupervisedSource

MOST_TURNS = 16
"""The maximum number of reads (of ``TURN`` datagrams each) in one :meth:`NflogSource.drain`."""

TURN = 256
"""The maximum number of datagrams that are read before other parts of the daemon run: a turn."""
TURN_BYTES = 1 << 20
"""The number of bytes after which no further datagram is read in a turn."""

MOST_BEFORE = 1_000
"""The maximum number of datagrams that are read before the kernel's answer to the request for the group."""

BUFFER = 16 << 20
"""Bytes of the socket's receive buffer, unless a source asks for others. The kernel doubles the number."""
_DATAGRAM = 1 << 17  # bytes; the kernel makes no longer datagram (one packet, or one buffer of messages)


@define
class NflogCounts:
    """Numbers of a group, since the start.

    - ``gaps``: how often packets were lost.
    - ``lost``: lost packets, as far as sequence numbers show them.
    - ``unreadable``: messages of the packet log that could not be parsed.
    """

    gaps: int = 0
    lost: int = 0
    unreadable: int = 0


class NflogSource(SupervisedSource):
    """A source that reads one group of NFLOG. A session is one binding of a socket.

    A subclass handles the packets. ``name`` is the source's name in the status and in alarms.
    ``buffer`` is the size of the socket's receive buffer in bytes, which the kernel doubles. With ``gathers``
    false, packets are read at once also under load (``gathering.py``).
    """

    counts: NflogCounts

    def __init__(
        self,
        name: str,
        group: int,
        backoff: Backoff | None = None,
        buffer: int = BUFFER,
        *,
        gathers: bool = True,
    ) -> None:
        super().__init__(structlog.get_logger().bind(source=name), backoff)
        self.id = name
        self.counts = NflogCounts()
        self.last_sign: float | None = None
        """The monotonic time at which a packet was read last; None before the first packet."""
        self._group = group
        self._buffer = buffer
        self._gathers = gathers
        self._space = memoryview(bytearray(_DATAGRAM))
        self._last: int | None = None
        self._lost = -inf
        self._bound: tuple[socket.socket, asyncio.Future[None]] | None = None

    def on_packet(self, message: Logged, now: float) -> None:
        """Handle a packet that was read at ``now`` (monotonic seconds)."""
        raise NotImplementedError

    def on_turn(self, now: float, *, more: bool) -> None:
        """Handle the end of a turn (one reading of the socket) at ``now`` (monotonic).

        ``more``: other packets may wait.
        """

    def on_gap(self, now: float) -> None:
        """Handle a loss of packets at ``now`` (monotonic), before later packets are read."""
        self._lost = now

    @property
    def numbers(self) -> Mapping[str, object]:
        """The source's numbers, as the status shows them."""
        counts = self.counts
        return {
            "events": 0,
            "tampered": 0,
            "garbled": counts.unreadable,
            "dropped_bytes": 0,
            "lost": counts.lost,
        }

    def drain(self) -> bool:
        """Read the packets that have arrived, so that they count before the next events of other sources.

        Return False if ``MOST_TURNS`` reads were too few for all of them.
        """
        return any(self._bound is None or not self._readable(*self._bound) for _ in range(MOST_TURNS))

    async def _session(self) -> None:
        """Read copied packets from one NFLOG socket until that fails; raise EndError with the reason."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        with _open(self._buffer) as connection:
            _bind(connection, self._group)
            self._last = None
            self.on_gap(loop.time())
            loop.add_reader(connection, self._readable, connection, ended)
            self._bound = connection, ended
            try:
                with patient(connection.fileno()) if self._gathers else nullcontext():
                    self._set_condition(Condition(State.LISTENING, f"NFLOG group {self._group}"))
                    await ended
            finally:
                loop.remove_reader(connection)
                self._bound = None
                self.on_gap(loop.time())

    def _readable(self, connection: socket.socket, ended: asyncio.Future[None]) -> bool:
        """Read up to ``TURN`` datagrams, but none after ``TURN_BYTES`` bytes; return whether more may wait.

        Each copied packet goes to :meth:`on_packet`. An error is set in ``ended``, and so ends the session.
        """
        try:
            more = self._read_turn(connection)
        except Exception as error:  # noqa: BLE001 - raised again where the binding is awaited
            if not ended.done():
                ended.set_exception(error)
            return False
        if more:
            more_waits()
        return more

    def _read_turn(self, connection: socket.socket) -> bool:
        read, more = 0, True
        now = time.monotonic()
        try:
            for _ in range(TURN):
                try:
                    size = connection.recv_into(self._space)
                except BlockingIOError:
                    more = False
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise EndError(State.LOST, f"netlink: {error.strerror}") from error
                    self._record_loss(0, now)
                    continue
                now = time.monotonic()  # no packet may seem older than the reports of other sources about it
                for message in read_datagram(bytes(self._space[:size])):
                    if isinstance(message, Logged):
                        self._check_sequence(message.sequence, now)
                        self.on_packet(message, now)
                    elif message is None:
                        self.counts.unreadable += 1
                read += size
                if read >= TURN_BYTES:
                    break
            if read:
                self.last_sign = now
        finally:
            self.on_turn(now, more=more)  # also if it fails: what was read belongs to this turn
        return more

    def _check_sequence(self, number: int | None, now: float) -> None:
        if number is not None:
            lacking = missing(self._last, number)
            self._last = number
            if lacking:
                self._record_loss(lacking, now)

    def _record_loss(self, number: int, now: float) -> None:
        """Record at ``now`` (monotonic) a loss of ``number`` copied packets; 0 if the number is unknown."""
        self.counts.gaps += 1
        self.counts.lost += number
        self.on_gap(now)


_NO_NFLOG = (
    "this kernel has no packet log; fix: `modprobe nfnetlink_log xt_NFLOG` "
    "(CONFIG_NETFILTER_NETLINK_LOG; in a container: on its host)"
)


def _open(buffer: int) -> socket.socket:
    """Open the NFLOG socket, with a receive buffer of ``buffer`` bytes, which the kernel doubles.

    Raise EndError, with the fix, if the kernel refuses.
    """
    try:
        return open_listener(NETLINK_NETFILTER, buffer)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            detail = "the unit's RestrictAddressFamilies= lacks AF_NETLINK; fix: use the unit as shipped"
            raise EndError(State.DENIED, detail) from error
        if error.errno == errno.EPROTONOSUPPORT:
            raise EndError(State.ABSENT, _NO_NFLOG) from error
        raise EndError(State.LOST, f"netlink: {error.strerror}") from error


def _bind(connection: socket.socket, group: int) -> None:
    """Bind the socket to an NFLOG group; raise EndError if the kernel refuses.

    Packets may arrive before the kernel's answer. They are ignored.
    """
    try:
        connection.send(bind_request(group))
        answers = chain.from_iterable(read_datagram(connection.recv(_DATAGRAM)) for _ in range(MOST_BEFORE))
        code = next((answer.code for answer in answers if isinstance(answer, Acknowledged)), errno.EPROTO)
    except OSError as error:
        raise EndError(State.LOST, f"netlink: {error.strerror}") from error
    if code in (errno.EPERM, errno.EBUSY):
        detail = (
            f"NFLOG group {group} may not be read: CAP_NET_ADMIN is lacking (the systemd unit grants it, by "
            "hand: run as root), or another program reads it (see /proc/net/netfilter/nfnetlink_log)"
        )
        raise EndError(State.DENIED, detail)
    if code in (errno.EINVAL, errno.EOPNOTSUPP):
        raise EndError(State.ABSENT, _NO_NFLOG)
    if code:
        raise EndError(State.LOST, f"NFLOG group {group}: {errno.errorcode.get(code, code)}")
