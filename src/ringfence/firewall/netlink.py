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
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

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


class Conversation:
    """A socket to the kernel's nfnetlink, opened when first used and again when it fails.

    ``timeout`` is how long one request may take, in seconds (more than 0). Not for several threads at once.
    """

    def __init__(self, timeout: float = 2.0) -> None:
        self._timeout = timeout
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

    def request(self, *messages: bytes) -> list[bytes]:
        """Send one request (NLM_F_ACK or NLM_F_DUMP set) and give its answers, without the final ack.

        Several messages are one batch: the last that asks for an ack ends it, or the first that fails.

        Raises NetlinkError for what the kernel refused, FirewallPermissionError without CAP_NET_ADMIN,
        FirewallUnsupportedError without nfnetlink, NetlinkLostError where nothing is known.
        """
        try:
            return self._exchange(messages)
        except TimeoutError as error:
            self.close()
            raise NetlinkLostError(f"the kernel did not answer within {self._timeout:g} s") from error
        except OSError:
            self.close()
        try:
            return self._exchange(messages)
        except OSError as error:
            self.close()
            raise NetlinkLostError(f"netlink failed twice: {error}") from error

    def _exchange(self, messages: Sequence[bytes]) -> list[bytes]:
        if self._socket is None:
            self._socket = _connect(self._timeout)
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        sequence = _SEQUENCE.pack(self._sequence)
        deadline = time.monotonic() + self._timeout
        answers: list[bytes] = []
        try:
            self._socket.send(b"".join([part for m in messages for part in (m[:8], sequence, m[12:])]))
            while not _take(self._socket.recv(_RECEIVE), self._sequence, answers):
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


def _take(received: bytes, sequence: int, answers: list[bytes]) -> bool:
    """Sort one datagram's messages into ``answers``; True when the request is finished.

    Answers to earlier requests (of a dump that was broken off) are passed over.
    """
    position = 0
    while position + _HEADER.size <= len(received):
        length, kind, _flags, number, _port = _HEADER.unpack_from(received, position)
        if not _HEADER.size <= length <= len(received) - position:
            raise NetlinkLostError(f"a netlink message gives its length as {length}, outside its datagram")
        message = received[position : position + length]
        position += (length + 3) & ~3
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
