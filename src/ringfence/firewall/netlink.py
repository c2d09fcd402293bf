"""The nfnetlink conversation: one request out, its answers in, bounded in time, errors by type.

Why a plain socket and not pyroute2's. Measured with pyroute2 0.9.7, one element an exchange:

    this conversation                              5 µs (200 000 on one socket)
    ``AsyncIPSet.add`` within a running loop     167 µs
    ``IPSet.add`` without a loop                 194 µs (200 000 on one socket: none lost)

A guess arrives every 300 µs, so a ban is carried out at once, within the running event loop. There pyroute2's
synchronous classes raise RuntimeError (they run a loop of their own). The raw socket within its asynchronous
ones is as quick as ours, but once bound it is non-blocking and the event loop reads the answers away from it.

A request is repeated once on a fresh socket when its answers are lost (ENOBUFS, a dead socket), so every
request has to be one that may be repeated; one that times out is not. Sequence numbers are a counter
of 32 bits that wraps: nothing is allocated, nothing has to be freed.

``transact`` is for the batches of nftables, of which all happens or nothing: each message is answered by
itself, and with ``extended`` an error says where in its message the kernel stopped (NETLINK_EXT_ACK). The
kernel works a batch off within ``send``, so all answers are there when it returns. ``stream`` is for dumps of
any length.
"""

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

from attrs import frozen

from ringfence.errors import FirewallError, FirewallPermissionError, FirewallUnsupportedError

_NETLINK_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")
_ERROR = struct.Struct("=i")
_MAX_ERRNO = 4096
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
# An error repeats the whole request, and one attribute alone may be 64 kB.
_RECEIVE = 1 << 18
_SEQUENCE = struct.Struct("=I")
_TIMEVAL = struct.Struct("@ll")
_SOL_NETLINK = 270  # <linux/socket.h>; Python has no names for these
_CAP_ACK, _EXT_ACK = 10, 11
_SO_SNDBUFFORCE = 32
_NLM_F_ACK = 0x004
_NLM_F_DUMP_INTR = 0x010
_NLM_F_ACK_TLVS = 0x200
_ATTRIBUTE = struct.Struct("=HH")
_MESSAGE, _OFFSET = 1, 2  # NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS


Answer = TypeVar("Answer")


class NetlinkError(FirewallError):
    """The kernel refused a request.

    ``code`` is the positive error number, errno's or the subsystem's own. ``request`` is the request as the
    kernel repeats it, which may differ from what was sent (ipset writes in it which element it refused).
    """

    def __init__(self, code: int, request: bytes) -> None:
        meaning = os.strerror(code) if code < _MAX_ERRNO else f"error {code} of the subsystem"
        super().__init__(f"the kernel refused: {meaning}")
        self.code = code
        self.request = request


class NetlinkLostError(FirewallError):
    """No answer came, or it was lost: whether the request was carried out is not known."""


class NetlinkInterruptedError(FirewallError):
    """Somebody changed something while it was listed: it may lack something, or have something twice."""


@frozen
class Refusal:
    """One message of a batch that the kernel refused.

    ``place`` is the message's in the batch, from 0. ``offset`` is where in the message the kernel stopped,
    None where it does not say; ``said`` is what it says in words.
    """

    place: int
    code: int
    offset: int | None = None
    said: str = ""


class Conversation:
    """A socket to the kernel's nfnetlink, opened when first used and again when it fails.

    ``timeout`` is how long one request may take, in seconds (more than 0). ``extended``: errors say where and
    why, and do not repeat the request. Not for several threads at once.
    """

    def __init__(self, timeout: float = 2.0, *, extended: bool = False) -> None:
        self._timeout = timeout
        self._extended = extended
        self._socket: socket.socket | None = None
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back. Idempotent; a later request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def port(self) -> int | None:
        """The socket's netlink port, by which others see whose a change is; None while there is no socket."""
        return self._socket.getsockname()[0] if self._socket is not None else None

    def request(self, *messages: bytes) -> list[bytes]:
        """Send one request (NLM_F_ACK or NLM_F_DUMP set) and give its answers, without the final ack.

        Several messages are one batch: the last that asks for an ack ends it, or the first that fails.

        Raises NetlinkError for what the kernel refused, FirewallPermissionError without CAP_NET_ADMIN,
        FirewallUnsupportedError without nfnetlink, NetlinkLostError where nothing is known.
        """
        return self._twice(self._exchange, messages)

    def transact(self, messages: Sequence[bytes]) -> list[Refusal]:
        """Send one batch (begin, messages, end) and give what was refused: nothing has happened then.

        Each message with NLM_F_ACK is answered by itself, so several may be refused at once. Raises as
        ``request`` does for what concerns the batch as a whole.
        """
        return self._twice(self._transact, messages)

    def stream(self, message: bytes) -> Iterator[bytes]:
        """Send one dump (NLM_F_DUMP) and give its answers as they come, however many.

        Whoever does not take all of them closes the conversation. Raises as ``request`` does, and
        NetlinkInterruptedError behind the last answer where the dump is not of one state.
        """
        interrupted = False
        try:
            connection = self._connected()
            sequence = self._next()
            connection.send(b"".join((message[:8], _SEQUENCE.pack(sequence), message[12:])))
            done = False
            while not done:
                answers: list[bytes] = []
                done = _take(connection.recv(_RECEIVE), sequence, answers)
                interrupted = interrupted or any(_flags(answer) & _NLM_F_DUMP_INTR for answer in answers)
                yield from answers
        except OSError as error:
            self.close()
            raise NetlinkLostError(f"the kernel broke a list off: {error}") from error
        if interrupted:
            raise NetlinkInterruptedError("the firewall was changed while it was listed")

    def _twice(
        self, exchange: Callable[[Sequence[bytes]], list[Answer]], messages: Sequence[bytes]
    ) -> list[Answer]:
        try:
            return exchange(messages)
        except TimeoutError as error:
            self.close()
            raise NetlinkLostError(f"the kernel did not answer within {self._timeout:g} s") from error
        except OSError:
            self.close()
        try:
            return exchange(messages)
        except OSError as error:
            self.close()
            raise NetlinkLostError(f"netlink failed twice: {error}") from error

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = _connect(self._timeout)
            if self._extended:
                for option in (_CAP_ACK, _EXT_ACK):
                    self._socket.setsockopt(_SOL_NETLINK, option, 1)
        return self._socket

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return self._sequence

    def _transact(self, messages: Sequence[bytes]) -> list[Refusal]:
        connection = self._connected()
        places: dict[int, int] = {}
        parts: list[bytes] = []
        for place, message in enumerate(messages):
            number = self._next()
            places[number] = place
            parts += (message[:8], _SEQUENCE.pack(number), message[12:])
        waited = {number for number, place in places.items() if _flags(messages[place]) & _NLM_F_ACK}
        sent = b"".join(parts)
        _make_room(connection, len(sent))
        deadline = time.monotonic() + self._timeout
        refusals: list[Refusal] = []
        try:
            connection.send(sent)
            while waited:
                for number, refusal in _answers(connection.recv(_RECEIVE), places):
                    waited.discard(number)
                    if refusal is not None:
                        refusals.append(refusal)
                    if places[number] == 0 or (refusal is not None and refusal.code == errno.EPERM):
                        _raise_for(_ERROR.pack(-refusal.code if refusal else 0))
                if time.monotonic() > deadline:
                    raise TimeoutError
        except BlockingIOError as error:
            raise TimeoutError from error
        return refusals

    def _exchange(self, messages: Sequence[bytes]) -> list[bytes]:
        connection = self._connected()
        self._next()
        sequence = _SEQUENCE.pack(self._sequence)
        deadline = time.monotonic() + self._timeout
        answers: list[bytes] = []
        try:
            connection.send(b"".join([part for m in messages for part in (m[:8], sequence, m[12:])]))
            while not _take(connection.recv(_RECEIVE), self._sequence, answers):
                if time.monotonic() > deadline:
                    raise TimeoutError
        except BlockingIOError as error:  # what SO_RCVTIMEO and SO_SNDTIMEO end with
            raise TimeoutError from error
        return answers


def _connect(timeout: float) -> socket.socket:
    try:
        connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            raise
        raise FirewallUnsupportedError(
            "this kernel has no nfnetlink (CONFIG_NETFILTER_NETLINK), or the unit's RestrictAddressFamilies= "
            "lacks AF_NETLINK: bans need it"
        ) from error
    # By socket option and not by settimeout(), which costs a poll() a message.
    interval = _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1_000_000))
    try:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, interval)
        connection.bind((0, 0))
    except OSError:
        connection.close()
        raise
    return connection


def _flags(message: bytes) -> int:
    flags: int = _HEADER.unpack_from(message)[2]
    return flags


def _make_room(connection: socket.socket, size: int) -> None:
    """Have the socket take a message of ``size`` at once, which the kernel refuses else (EMSGSIZE)."""
    if size * 2 > connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF):
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size * 2)


def _messages(received: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Cut a datagram into messages: each with its kind and its sequence number."""
    position = 0
    while position + _HEADER.size <= len(received):
        length, kind, _flags, number, _port = _HEADER.unpack_from(received, position)
        if not _HEADER.size <= length <= len(received) - position:
            raise NetlinkLostError(f"a netlink message gives its length as {length}, outside its datagram")
        yield kind, number, received[position : position + length]
        position += (length + 3) & ~3


def _answers(received: bytes, places: Mapping[int, int]) -> Iterator[tuple[int, Refusal | None]]:
    """Read the answers to the messages of a batch, whose places ``places`` knows by their numbers."""
    for kind, number, message in _messages(received):
        if kind == _NLMSG_ERROR and number in places and len(message) >= _HEADER.size + _ERROR.size:
            code = -_ERROR.unpack_from(message, _HEADER.size)[0]
            yield number, _refusal(places[number], code, message) if code else None


def _refusal(place: int, code: int, message: bytes) -> Refusal:
    """Read what stands behind the head of the request that an error repeats: where, and why."""
    offset, said = None, ""
    position = 2 * _HEADER.size + _ERROR.size
    if _flags(message) & _NLM_F_ACK_TLVS:
        while position + _ATTRIBUTE.size <= len(message):
            length, kind = _ATTRIBUTE.unpack_from(message, position)
            if not _ATTRIBUTE.size <= length <= len(message) - position:
                break
            value = message[position + _ATTRIBUTE.size : position + length]
            if kind == _OFFSET:
                offset = int.from_bytes(value, sys.byteorder)
            elif kind == _MESSAGE:
                said = value.rstrip(b"\0").decode("ascii", "backslashreplace")
            position += (length + 3) & ~3
    return Refusal(place, code, offset, said)


def _take(received: bytes, sequence: int, answers: list[bytes]) -> bool:
    """Sort one datagram's messages into ``answers``; True when the request is finished.

    Answers to earlier requests (of a dump that was broken off) are passed over.
    """
    for kind, number, message in _messages(received):
        if number != sequence:
            continue
        if kind in (_NLMSG_ERROR, _NLMSG_DONE):
            _raise_for(message[_HEADER.size :])
            return True
        answers.append(message)
    return False


def _raise_for(payload: bytes) -> None:
    code = -_ERROR.unpack_from(payload)[0] if len(payload) >= _ERROR.size else 0
    if code == errno.EPERM:
        raise FirewallPermissionError(
            "the kernel's firewall may not be asked without CAP_NET_ADMIN; the systemd unit grants it "
            "(AmbientCapabilities=), by hand: run as root"
        )
    if code:
        raise NetlinkError(code, payload[_ERROR.size :])
