"""Requests to the kernel over nfnetlink, the part of netlink for firewalls and the packet log.

Each request has a time limit, and each failure an exception class. A plain socket is used instead of
pyroute2, because it is faster. Measured with pyroute2 0.9.7, one element per request:

    this module                                    5 µs (200 000 on one socket)
    ``AsyncIPSet.add`` within a running loop     167 µs
    ``IPSet.add`` without a loop                 194 µs (200 000 on one socket: none lost)

A fast attacker sends a guess every 300 µs. Therefore a ban is carried out at once, within the running event
loop, where pyroute2's synchronous classes raise RuntimeError.

A request is repeated once on a new socket if its answers are lost (ENOBUFS), or if the socket fails. A
request that is not safe to repeat, such as SWAP of ipset, passes ``repeat=False``. A request that times out
is not repeated. Sequence numbers are a counter of 32 bits that wraps.

``transact`` is for the batches of nftables, which the kernel carries out completely or not at all. The kernel
carries a batch out within ``send``, so all answers are there when ``send`` returns. With ``extended`` an
error contains the position in the message at which the kernel stopped (NETLINK_EXT_ACK). A batch is never
repeated once it was sent. If its answers are lost, the caller must find out what was carried out.

``stream`` is for dumps of any length.
"""

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from attrs import frozen

from ringfence.errors import FirewallError, FirewallPermissionError, FirewallUnsupportedError

# -- netlink messages as bytes: framing, attributes, and nfnetlink requests; no socket, no clock
#
# Everything parsed here came from the kernel. It is checked nevertheless: a length that exceeds its buffer
# raises :class:`NetlinkMessageError`. Integers in attributes are big-endian, in headers native.


NETLINK_NETFILTER = 12
SOL_NETLINK = 270
"""The socket level of netlink options (``linux/socket.h``). Python has no name for it."""
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
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300
NLM_F_NONREC = 0x100  # in a deletion: only if the object is empty

NESTED = 0x8000
BIG_ENDIAN = 0x4000
TYPE_MASK = 0x3FFF

FRAME = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
HEADER = struct.Struct("=IHHIIBBH")  # nlmsghdr and nfgenmsg
ATTRIBUTE = struct.Struct("=HH")
RESULT = struct.Struct("=i")
_LONGEST_INTEGER = 8  # bytes

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
    position, size, head, unpack = 0, len(buffer), ATTRIBUTE.size, ATTRIBUTE.unpack_from
    while position < size:
        if size - position < head:
            raise NetlinkMessageError("a netlink message ends within the header of an attribute")
        length, kind = unpack(buffer, position)
        if not head <= length <= size - position:
            raise NetlinkMessageError(
                f"a netlink attribute has the length {length}, which exceeds its message"
            )
        yield kind & TYPE_MASK, buffer[position + head : position + length]
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
    """Return the big-endian integer in the attribute of type ``kind``; 0 if it is missing.

    Raise NetlinkMessageError if it is longer than any integer of the kernel.
    """
    value = found.get(kind, b"")
    if len(value) > _LONGEST_INTEGER:
        raise NetlinkMessageError(f"a netlink attribute has an integer of {len(value)} bytes")
    return int.from_bytes(value, "big")


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
    """Return the value of the attribute of type ``kind``; raise NetlinkMessageError if it is missing."""
    try:
        return found[kind]
    except KeyError:
        raise NetlinkMessageError(f"a netlink message lacks attribute {kind}") from None


def attribute(kind: int, payload: bytes) -> bytes:
    """Build a netlink attribute of type ``kind`` with its value, padded to four bytes."""
    length = ATTRIBUTE.size + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length % 4)


def number(kind: int, value: int) -> bytes:
    """Build a netlink attribute with a big-endian integer of 32 bits and the flag for this byte order."""
    return attribute(kind | BIG_ENDIAN, value.to_bytes(4, "big"))


def text(kind: int, value: str) -> bytes:
    """Build a netlink attribute of type ``kind`` with a text, which ends with a NUL."""
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


_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_*


@cache
def _edge(kind: int, subsystem: int) -> bytes:
    """Return the message that begins or ends a batch for a subsystem of nfnetlink."""
    return message(kind, 0, 0, resource=subsystem)


_MAX_ERRNO = 4096
# The most bytes that recv() returns. An error repeats the whole request, and one attribute may have 64 kB.
_RECEIVE = 1 << 18
_SEQUENCE = struct.Struct("=I")
_FLAGS = struct.Struct("=HI")  # nlmsg_flags and nlmsg_seq
_TIMEVAL = struct.Struct("@ll")
_CAP_ACK, _EXT_ACK = 10, 11
_SO_SNDBUFFORCE = 32
_TIMED_OUT = (TimeoutError, BlockingIOError)  # also if the time of SO_RCVTIMEO or SO_SNDTIMEO is over
_DUMPS = 10  # how often a dump is requested at most, if something changes during each
_RESERVED = 32  # bytes of the send buffer that the kernel keeps free (netlink_sendmsg)
_MESSAGE, _OFFSET = 1, 2  # NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS

_T = TypeVar("_T")


class NetlinkError(FirewallError):
    """A request that the kernel refused.

    ``code`` is the error number: below 4096 a number of ``errno``, else one of netfilter's own. ``request``
    is the request as the kernel repeats it. It may differ from the request that was sent: ipset writes into
    it which element it refused.
    """

    def __init__(self, code: int, request: bytes) -> None:
        meaning = os.strerror(code) if code < _MAX_ERRNO else f"error {code} of the netfilter subsystem"
        super().__init__(f"the kernel refused: {meaning}")
        self.code = code
        self.request = request


class NetlinkLostError(FirewallError):
    """A missing or lost answer: it is unknown whether the kernel carried out the request."""


class NetlinkTooLongError(FirewallError):
    """A batch larger than the kernel accepts from this process; nothing was sent. Try smaller batches."""


class NetlinkInterruptedError(FirewallError):
    """A list that was changed while the kernel wrote it. Entries may be missing or appear twice.

    ``answers`` are those that arrived.
    """

    def __init__(self, answers: list[bytes]) -> None:
        super().__init__("the firewall was changed while it was listed")
        self.answers = answers


@frozen
class Refusal:
    """One message of a batch that the kernel refused.

    ``index`` is the position of the message in the batch, from 0. ``code`` is the error number. ``offset`` is
    the position in the message at which the kernel stopped, None if the kernel does not report it.
    ``message`` is the kernel's text.
    """

    index: int
    code: int
    offset: int | None = None
    message: str = ""


class NetlinkConnection:
    """A socket to the kernel's nfnetlink, opened at the first request and again after a failure.

    ``timeout`` (seconds, more than 0) limits a request as a whole; in ``stream``, the wait for each answer.
    ``extended``: errors contain a position and a text, and do not repeat the request. Not thread-safe.
    """

    def __init__(self, timeout: float = 2.0, *, extended: bool = False) -> None:
        self._timeout = timeout
        self._extended = extended
        self._socket: socket.socket | None = None
        self._sequence = 0
        self.port: int | None = None
        """The socket's netlink port, which identifies our changes in the kernel's messages.

        It is None without a socket. Another thread may read it.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. Idempotent; a later request opens another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = self.port = None

    def request(self, message: bytes, *, repeat: bool = True) -> list[bytes]:
        """Send one request, with NLM_F_ACK or NLM_F_DUMP, and return its answers without the final ack.

        If something changes during a dump, the dump is requested again; after some tries
        NetlinkInterruptedError is raised. Without ``repeat``, the request is sent only once: use this if a
        second one would undo or change the effect of the first.

        Raises NetlinkError if the kernel refuses the request, FirewallPermissionError without CAP_NET_ADMIN,
        FirewallUnsupportedError without nfnetlink, and NetlinkLostError if the result is unknown.
        """
        answers: list[bytes] = []
        for _ in range(_DUMPS):
            answers, interrupted = self._with_retry(partial(self._exchange, message), repeat=repeat)
            if not interrupted:
                return answers
        raise NetlinkInterruptedError(answers)

    def transact(self, *messages: bytes) -> list[Refusal]:
        """Send messages as one batch, and return a refusal for each message that was refused.

        If the kernel refused any, nothing was changed. Several messages may be refused at once. Errors that
        concern the whole batch are raised as by ``request``. After NetlinkLostError the batch may have been
        carried out; after NetlinkTooLongError it was not.

        Only the last message asks for an acknowledgement, whatever the flags of the others are. Each answer
        takes 768 bytes of the receive buffer, which often has room for only 277 answers (more end with
        ENOBUFS). The kernel reports a refused message in any case.
        """
        indexes: dict[int, int] = {}
        awaited = 0
        parts: list[bytes] = []
        subsystem = FRAME.unpack_from(messages[0])[1] >> 8
        for index, message in enumerate((_edge(_BEGIN, subsystem), *messages, _edge(_END, subsystem)), -1):
            number = self._next()
            indexes[number] = index
            flags = FRAME.unpack_from(message)[2] & ~NLM_F_ACK
            if index == len(messages) - 1:
                awaited, flags = number, flags | NLM_F_ACK
            parts += (message[:6], _FLAGS.pack(flags, number), message[12:])
        connection = self._with_retry(partial(self._send_batch, b"".join(parts)))
        try:
            return self._refusals(connection, indexes, awaited)
        except OSError as error:
            raise self._lost(error, "the kernel's answer to a batch was lost") from error

    def _send_batch(self, batch: bytes) -> socket.socket:
        """Send a batch, and return the socket. If this raises, the kernel has done nothing."""
        connection = self._connected()
        _make_room(connection, len(batch))
        connection.send(batch)
        return connection

    def stream(self, message: bytes) -> Iterator[bytes]:
        """Request one dump (NLM_F_DUMP), and yield its answers as they arrive; there may be any number.

        If a caller stops before the last answer, it must close the connection. Raises as ``request`` does,
        and NetlinkInterruptedError after the last answer if something changed during the dump. Unlike
        ``request``, it never sends the request again.
        """
        received, interrupted = list[bytes](), False
        try:
            connection = self._connected()
            sequence = self._next()
            connection.send(b"".join((message[:8], _SEQUENCE.pack(sequence), message[12:])))
            done = False
            while not done:
                answers: list[bytes] = []
                done, marked = _collect_answers(connection.recv(_RECEIVE), sequence, answers)
                interrupted |= marked
                received += answers
                yield from answers
        except OSError as error:
            raise self._lost(error, "the kernel's list broke off") from error
        if interrupted:
            raise NetlinkInterruptedError(received)

    def _with_retry(self, action: Callable[[], _T], *, repeat: bool = True) -> _T:
        """Return the result of ``action``. If the socket fails, repeat the action once on a new socket.

        A timeout is not repeated. Raise NetlinkLostError after a timeout or a second failure; without
        ``repeat`` after the first one.
        """
        try:
            return action()
        except _TIMED_OUT as error:
            raise self._lost(error, "") from error
        except OSError as error:
            if not repeat:
                raise self._lost(error, "the kernel's answer was lost") from error
            self.close()
        try:
            return action()
        except OSError as error:
            raise self._lost(error, "netlink failed twice") from error

    def _lost(self, error: OSError, what: str) -> NetlinkLostError:
        """Close the socket after ``error``; return the exception for the caller. ``what`` begins its text."""
        self.close()
        if isinstance(error, _TIMED_OUT):
            return NetlinkLostError(f"the kernel did not answer within {self._timeout:g} s")
        return NetlinkLostError(f"{what}: {error}")

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = _connect(self._timeout)
            self.port = self._socket.getsockname()[0]
            if self._extended:
                for option in (_CAP_ACK, _EXT_ACK):
                    self._socket.setsockopt(SOL_NETLINK, option, 1)
        return self._socket

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return self._sequence

    def _refusals(self, connection: socket.socket, indexes: Mapping[int, int], awaited: int) -> list[Refusal]:
        """Read the answers to a batch until the message with the number ``awaited`` is answered.

        Return the refusals. ``indexes`` maps the sequence number of a message to its position in the batch.
        Raise TimeoutError, or another OSError if the socket fails.
        """
        deadline = time.monotonic() + self._timeout
        refusals: list[Refusal] = []
        answered = False
        while not answered:
            for number, refusal in _answers(connection.recv(_RECEIVE), indexes):
                answered |= number == awaited
                if refusal is not None:
                    refusals.append(refusal)
                if indexes[number] < 0 or (refusal is not None and refusal.code == errno.EPERM):
                    _raise_for(refusal.code if refusal is not None else 0)
            if time.monotonic() > deadline:
                raise TimeoutError
        return refusals

    def _exchange(self, message: bytes) -> tuple[list[bytes], bool]:
        """Send a request once; return the answers, and whether the listed data changed meanwhile.

        Raise NetlinkError if the kernel refuses it, TimeoutError if no answer comes in time.
        """
        connection = self._connected()
        self._next()
        sequence = _SEQUENCE.pack(self._sequence)
        deadline = time.monotonic() + self._timeout
        answers: list[bytes] = []
        done = interrupted = False
        connection.send(b"".join((message[:8], sequence, message[12:])))
        while not done:
            done, marked = _collect_answers(connection.recv(_RECEIVE), self._sequence, answers)
            interrupted |= marked
            if not done and time.monotonic() > deadline:
                raise TimeoutError
        return answers, interrupted


def _connect(timeout: float) -> socket.socket:
    try:
        connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            raise
        raise FirewallUnsupportedError(
            "this kernel has no nfnetlink (CONFIG_NETFILTER_NETLINK), or the unit's RestrictAddressFamilies= "
            "lacks AF_NETLINK: bans need it"
        ) from error
    # The time limits are socket options, because settimeout() costs one poll() per message.
    interval = _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1_000_000))
    try:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, interval)
        connection.bind((0, 0))
    except OSError:
        connection.close()
        raise
    return connection


def _make_room(connection: socket.socket, size: int) -> None:
    """Enlarge the send buffer for a batch of ``size`` bytes, or raise NetlinkTooLongError.

    The buffer must have 32 bytes more than the batch, else sending fails with EMSGSIZE (netlink_sendmsg). A
    process with CAP_NET_ADMIN in the initial user namespace can set any size (SO_SNDBUFFORCE). Any other
    process, such as root in a container, gets at most twice ``net.core.wmem_max``: the kernel doubles the
    requested size.
    """
    if size + _RESERVED <= connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF):
        return
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size + _RESERVED)
    except PermissionError:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size + _RESERVED)
    room = connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    if size + _RESERVED > room:
        raise NetlinkTooLongError(
            f"the kernel accepts batches of {room - _RESERVED} bytes from this process, not of {size}; "
            "fix: raise sysctl net.core.wmem_max"
        )


def _frames(datagram: bytes) -> Iterator[Frame]:
    """Split a datagram into messages.

    Raise NetlinkLostError at an invalid message, because the result of the request is then unknown.
    """
    try:
        yield from frames(datagram)
    except NetlinkMessageError as error:
        raise NetlinkLostError(str(error)) from error


def _answers(datagram: bytes, indexes: Mapping[int, int]) -> Iterator[tuple[int, Refusal | None]]:
    """Yield the sequence number of each answer to a batch, and its refusal; None if it reports success.

    ``indexes`` maps the sequence number of a message to its position in the batch.
    """
    for frame in _frames(datagram):
        if frame.kind == NLMSG_ERROR and frame.sequence in indexes:
            code = result_of(datagram, frame)
            if code is not None:
                refusal = _refusal(indexes[frame.sequence], code, datagram, frame) if code else None
                yield frame.sequence, refusal


def _refusal(index: int, code: int, datagram: bytes, frame: Frame) -> Refusal:
    """Parse a refusal, with the kernel's position and text if it has them.

    ``index`` is the position of the refused message in its batch, and ``code`` the error number. The error
    message is the ``frame`` of ``datagram``.

    An error message repeats the header of the request. Position and text are attributes after that header.
    """
    if not frame.flags & NLM_F_ACK_TLVS:
        return Refusal(index, code)
    begin = frame.start + 2 * FRAME.size + RESULT.size
    try:
        found = dict(attributes(memoryview(datagram)[begin : frame.end]))
    except NetlinkMessageError:
        return Refusal(index, code)  # without position and text, whose attributes are invalid
    offset = int.from_bytes(found[_OFFSET], sys.byteorder) if _OFFSET in found else None
    return Refusal(index, code, offset, decoded(found.get(_MESSAGE, b"")))


def _collect_answers(datagram: bytes, sequence: int, answers: list[bytes]) -> tuple[bool, bool]:
    """Append the answers in one datagram to ``answers``. Skip answers to earlier, abandoned requests.

    Return two flags: whether the request is finished, and whether something changed during the dump. After
    such a change, the kernel sets NLM_F_DUMP_INTR in at least one message, perhaps only in the last one.
    Raise NetlinkError if the kernel refused the request, FirewallPermissionError without CAP_NET_ADMIN.
    """
    interrupted = False
    for frame in _frames(datagram):
        if frame.sequence != sequence:
            continue
        if frame.kind != NLMSG_ERROR and frame.flags & NLM_F_DUMP_INTR:
            interrupted = True
        if frame.kind in (NLMSG_ERROR, NLMSG_DONE):
            repeated = datagram[frame.start + FRAME.size + RESULT.size : frame.end]
            _raise_for(result_of(datagram, frame) or 0, repeated)
            return True, interrupted
        answers.append(datagram[frame.start : frame.end])
    return False, interrupted


def _raise_for(code: int, request: bytes = b"") -> None:
    if code == errno.EPERM:
        lacking = "CAP_NET_ADMIN"
        raise FirewallPermissionError(f"access to the kernel's firewall needs {lacking}", lacking)
    if code:
        raise NetlinkError(code, request)
