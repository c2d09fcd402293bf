"""What a real Asterisk truly answered: its export (HEP) of PJSIP's messages, and the datagrams that leave it.

Both are taken where the messages leave Asterisk, before anything can change them, and neither uses code of
ringfence. Each request of a run contains its mark in several places, and Asterisk repeats some of them in its
answer.
"""

import re
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from attrs import define, field, frozen
from tests.support import netns
from tests.support.network import PBX_IPV4
from tests.support.open_pbx import EXPORT_TO
from tests.support.sip_wire import status_of

MARK = "zz{}zz"
_MARK = re.compile(rb"zz([0-9]{1,9})zz")
_STALE = re.compile(rb"stale *= *\"?true", re.IGNORECASE)
_SOURCE, _PAYLOAD = 3, 15
"""The types of the chunks of HEP that have the sender's IPv4 address and the message."""
_BUFFER = 64 * 2**20
_OUTGOING = 4
_TIMESTAMP = 35
"""The option SO_TIMESTAMPNS, and the type of what it adds to each packet: seconds and nanoseconds."""
_ETH_P_ALL = 3
"""All protocols: a packet socket for one protocol does not receive what leaves."""
_IPV4 = 0x0800
UDP, TCP = 17, 6
_LONGEST = 65_535
_TIME = struct.Struct("@ll")
_NOTES = socket.CMSG_SPACE(_TIME.size)


def marks_of(message: bytes) -> set[int]:
    """Return the marks in the head of a message."""
    return {int(mark) for mark in _MARK.findall(message.partition(b"\r\n\r\n")[0])}


@frozen
class Answer:
    """A final answer to a request: its status, and whether it says that the nonce of the request was old."""

    status: int
    stale: bool

    @classmethod
    def read(cls, message: bytes) -> "Answer | None":
        """Return the final answer that a message is; None if it is none."""
        status = status_of(message)
        head = message.partition(b"\r\n\r\n")[0]
        return cls(status, bool(_STALE.search(head))) if status >= 200 else None

    def refuses(self, checked: frozenset[int]) -> bool:
        """Whether this refuses a password; ``checked`` are the statuses that follow a check of one."""
        return self.status in checked and not self.stale


@define
class Truth:
    """The final answers that Asterisk has sent so far, by the mark of the request.

    ``unknown`` is the number of those without a mark, or with several; a repeated one counts again.
    ``exported`` is the number of messages in Asterisk's export, with a mark or without.
    """

    _export: socket.socket
    _packets: socket.socket
    answers: dict[int, set[Answer]] = field(factory=dict)
    unknown: int = 0
    exported: int = 0

    def read(self) -> None:
        """Read what Asterisk has sent since the last call."""
        for message in _exported(self._export):
            self.exported += 1
            self.add(message)
        for packet in passed(self._packets):
            if packet.leaves and packet.protocol == UDP:
                self.add(packet.data[8:])

    def add(self, message: bytes) -> None:
        """Add a message, if it is a final answer to a request."""
        answer = Answer.read(message)
        if answer is None:
            return
        marks = marks_of(message)
        if len(marks) == 1:
            self.answers.setdefault(marks.pop(), set()).add(answer)
        else:
            self.unknown += 1


@contextmanager
def watched(namespace: str) -> Iterator[Truth]:
    """Watch what the Asterisk in a namespace sends, until the block ends."""
    with netns.inside(namespace):
        export = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with export, captured(namespace) as packets:
        export.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
        export.settimeout(0.0)
        export.bind(EXPORT_TO)
        yield Truth(export, packets)


def _exported(export: socket.socket) -> Iterator[bytes]:
    """Yield the messages of Asterisk's export that Asterisk itself sent; it exports received ones too."""
    own = socket.inet_aton(PBX_IPV4)
    with suppress(BlockingIOError):
        while True:
            packet, at, chunks = export.recv(_LONGEST), 6, dict[int, bytes]()
            while at + 6 <= len(packet):
                _, kind, size = struct.unpack_from("!HHH", packet, at)
                chunks[kind] = packet[at + 6 : at + size]
                at += max(size, 6)
            if chunks.get(_SOURCE) == own:
                yield chunks.get(_PAYLOAD, b"")


@frozen
class Packet:
    """An IPv4 packet: whether it leaves the namespace, its protocol, and the data behind its header.

    ``time`` is when the kernel saw it (seconds since the epoch).
    """

    leaves: bool
    source: str
    target: str
    protocol: int
    data: bytes
    time: float


@contextmanager
def captured(namespace: str) -> Iterator[socket.socket]:
    """Yield a socket that keeps all packets of a namespace, until the block ends."""
    with netns.inside(namespace):
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    with packets:
        packets.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
        packets.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
        packets.settimeout(0.0)
        yield packets


def passed(packets: socket.socket) -> Iterator[Packet]:
    """Yield the IPv4 packets that a socket has kept; of a fragmented one, only its first fragment."""
    with suppress(BlockingIOError):
        while True:
            packet, notes, _, (_, kind, direction, *_) = packets.recvmsg(_LONGEST, _NOTES)
            if kind != _IPV4 or int.from_bytes(packet[6:8]) & 0x1FFF:
                continue
            source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
            data = packet[4 * (packet[0] & 15) :]
            yield Packet(direction == _OUTGOING, source, target, packet[9], data, _time(notes))


def _time(notes: Iterable[tuple[int, int, bytes]]) -> float:
    """Return the time among what the kernel noted of a packet."""
    seconds, nanoseconds = next(_TIME.unpack(data) for _, kind, data in notes if kind == _TIMESTAMP)
    return float(seconds) + float(nanoseconds) / 1e9
