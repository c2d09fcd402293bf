"""The packets of one AMI connection. A packet ends with an empty line, and only with one.

The end is CR LF CR LF (``main/manager.c:astman_append``). The first line is a banner, with one line end. A
SIP datagram has at most 64 KiB and appears about once in a packet, so 256 KiB holds any real packet. A longer
one is skipped to the next empty line. Each byte is searched once.
"""

from typing import TypeAlias

from attrs import frozen

from ringfence.parse.ami_items import EOL, Banner

END = b"\r\n\r\n"
MAX_PACKET = 256 * 1024
MAX_BANNER = 128
MOST_HEAD = 1024
"""The number of bytes that are kept from the start of a packet that is too long.

They show which event the packet begins: the headers before the account, which Asterisk itself writes, are
always shorter.
"""


@frozen
class SkippedBytes:
    """A skipped part of a packet that is too long to keep. ``size`` is the number of skipped bytes.

    ``head`` has the packet's first bytes if this is its first part; otherwise it is empty.
    """

    size: int
    head: bytes = b""


Piece: TypeAlias = Banner | bytes | SkippedBytes


class PacketSplitter:
    """Splits the bytes of one connection: feed it bytes as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._skipping = False
        self._greeted = False

    def feed(self, data: bytes) -> list[Piece]:
        """Return the packets that ``data`` completes, without the empty lines after them, in order."""
        self._buffer += data
        pieces: list[Piece] = []
        start = 0 if self._greeted else self._greet(pieces)
        if self._greeted:
            start = self._split(start, pieces)
        del self._buffer[:start]
        self._searched = max(0, self._searched - start)
        self._bound(pieces)
        return pieces

    def _greet(self, pieces: list[Piece]) -> int:
        """Append a Banner for the first line to ``pieces``; return where the first packet begins.

        If the line is still incomplete, append nothing and return 0. If it is too long for a banner, the
        Banner has no version, and the first packet begins at 0.
        """
        end = self._buffer.find(EOL, 0, MAX_BANNER + len(EOL))
        if end < 0 and len(self._buffer) < MAX_BANNER + len(EOL):
            return 0
        line = bytes(self._buffer[: max(end, 0)])
        prefix = b"Asterisk Call Manager/"
        known = line.startswith(prefix)
        self._greeted = True
        pieces.append(Banner(line.removeprefix(prefix).decode("ascii", "replace").strip() if known else ""))
        return end + len(EOL) if end >= 0 else 0

    def _split(self, start: int, pieces: list[Piece]) -> int:
        """Append complete packets from ``start`` on to ``pieces``; return where the incomplete one begins."""
        self._searched = max(self._searched, start)
        while (end := self._buffer.find(END, self._searched)) >= 0:
            if self._skipping:
                pieces.append(SkippedBytes(end - start))
                self._skipping = False
            elif end - start > MAX_PACKET:
                pieces.append(SkippedBytes(end - start, self._head(start)))
            else:
                pieces.append(bytes(self._buffer[start:end]))
            start = self._searched = end + len(END)
        # The end of a packet may be split between two reads, so the next search starts a few bytes earlier.
        self._searched = max(start, len(self._buffer) - len(END) + 1)
        return start

    def _bound(self, pieces: list[Piece]) -> None:
        """Skip the incomplete packet if it is longer than a real packet, or is being skipped already.

        Its last few bytes are kept, because the end of the packet (CR LF CR LF) may begin in them. All others
        are discarded, and ``pieces`` gets a SkippedBytes.
        """
        # A packet that is just short enough, and after it all but the last byte of END, must stay.
        if len(self._buffer) < len(END) + (0 if self._skipping else MAX_PACKET):
            return
        excess = len(self._buffer) - len(END) + 1
        pieces.append(SkippedBytes(excess, b"" if self._skipping else self._head(0)))
        self._skipping = True
        del self._buffer[:excess]
        self._searched = 0

    def _head(self, start: int) -> bytes:
        return bytes(self._buffer[start : start + MOST_HEAD])
