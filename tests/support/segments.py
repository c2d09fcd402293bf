"""TCP segments with any source address: what a sender can do without a completed handshake."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.cable import far_end
from tests.support.netns import inside, run

HERE = "198.18.0.1"
FORGED = "198.18.7.7"

SYN, RST, ACK = 2, 4, 16
COOKIE_REQUEST = b"\x22\x02\x01\x01"  # TCP Fast Open (RFC 7413), and two no-operation bytes


def segment(
    source: tuple[str, int], port: int, flags: int, number: int, ack: int = 0, **more: bytes
) -> bytes:
    """Return an IPv4 packet with a segment to ``port`` of HERE; ``more`` is ``data`` and ``options``."""
    options, data = more.get("options", b""), more.get("data", b"")
    words = struct.pack("!HHIIBBHHH", source[1], port, number, ack, 80 + 4 * len(options), flags, 65535, 0, 0)
    ends = socket.inet_aton(source[0]) + socket.inet_aton(HERE)
    body = (
        words[:16] + struct.pack("!H", _checksum(ends, words + options + data)) + words[18:] + options + data
    )
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, socket.IPPROTO_TCP, 0)
    return head + ends + body


def _checksum(ends: bytes, body: bytes) -> int:
    summed = ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(body)) + body + b"\0" * (len(body) % 2)
    total: int = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


class Remote:
    """The far end of a cable, which connects to HERE and sends segments from forged addresses."""

    def __init__(self, far: str, raw: socket.socket) -> None:
        self._far = far
        self._raw = raw

    def connect(self, port: int) -> socket.socket:
        """Connect to a port of HERE."""
        with inside(self._far):
            return socket.create_connection((HERE, port), timeout=5)

    def send(
        self, source: tuple[str, int], port: int, flags: int, number: int, ack: int = 0, **more: bytes
    ) -> None:
        """Send a segment from any source."""
        self._raw.sendto(segment(source, port, flags, number, ack, **more), (HERE, 0))


@contextmanager
def remote() -> Iterator[Remote]:
    """Yield the far end of a cable; packets to FORGED arrive nowhere."""
    with far_end() as far:
        run(
            "ip",
            "neighbour",
            "add",
            FORGED,
            "lladdr",
            "02:00:00:00:00:07",
            "dev",
            "near0",
            "nud",
            "permanent",
        )
        with inside(far):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw:
            yield Remote(far, raw)
