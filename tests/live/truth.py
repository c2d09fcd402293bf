"""What a real Asterisk truly answered: its export (HEP) of PJSIP's messages, and the datagrams that leave it.

Both have the messages as Asterisk sent them, whatever they pass through on their way, and share no code with
ringfence. Each request of a run contains its mark in several places, and Asterisk repeats some of them in its
answer. An answer without any mark is counted as unknown.
"""

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from attrs import define, field, frozen
from tests.support import netns
from tests.support.lab import Lab
from tests.support.open_pbx import EXPORT_TO
from tests.support.sip_wire import status_of

MARK = "zz{}zz"
_MARK = re.compile(rb"zz([0-9]{1,9})zz")
_STALE = re.compile(rb"stale *= *\"?true", re.IGNORECASE)
_PAYLOAD = 15
"""The type of the chunk of HEP that has the message."""
_BUFFER = 64 * 2**20
_OUTGOING = 4
_IPV4, _UDP = 0x0800, 17
_LONGEST = 65_535


@frozen
class Answer:
    """A final answer to a request: its status, and whether it says that the nonce of the request was old."""

    status: int
    stale: bool


@define
class Truth:
    """The final answers that Asterisk has sent so far, by the mark of the request, and those without one."""

    _export: socket.socket
    _packets: socket.socket
    answers: dict[int, set[Answer]] = field(factory=dict)
    unknown: set[bytes] = field(factory=set)

    def read(self) -> None:
        """Read what Asterisk has sent since the last call."""
        for message in (*_exported(self._export), *_sent(self._packets)):
            self.add(message)

    def add(self, message: bytes) -> None:
        """Add a message, if it is a final answer to a request."""
        status = status_of(message)
        if status < 200:
            return
        head = message.partition(b"\r\n\r\n")[0]
        marks = {int(mark) for mark in _MARK.findall(head)}
        if len(marks) != 1:
            self.unknown.add(head)
            return
        self.answers.setdefault(marks.pop(), set()).add(Answer(status, bool(_STALE.search(head))))


@contextmanager
def watched(lab: Lab) -> Iterator[Truth]:
    """Watch what Asterisk sends, until the block ends."""
    with netns.inside(lab.network.pbx):
        export = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_IPV4))
    with export, packets:
        for one in (export, packets):
            one.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
            one.settimeout(0.0)
        export.bind(EXPORT_TO)
        yield Truth(export, packets)


def _exported(export: socket.socket) -> Iterator[bytes]:
    """Yield the messages of Asterisk's export."""
    with suppress(BlockingIOError):
        while True:
            packet, at = export.recv(_LONGEST), 6
            while at + 6 <= len(packet):
                _, kind, size = struct.unpack_from("!HHH", packet, at)
                if kind == _PAYLOAD:
                    yield packet[at + 6 : at + size]
                at += max(size, 6)


def _sent(packets: socket.socket) -> Iterator[bytes]:
    """Yield the datagrams that have left; of one in fragments, the first one."""
    with suppress(BlockingIOError):
        while True:
            packet, sender = packets.recvfrom(_LONGEST)
            length = 4 * (packet[0] & 15) if packet else 0
            first = len(packet) > length + 8 and not int.from_bytes(packet[6:8]) & 0x1FFF
            if sender[2] == _OUTGOING and first and packet[9] == _UDP:
                yield packet[length + 8 :]
