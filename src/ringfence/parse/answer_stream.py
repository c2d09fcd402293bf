r"""SIP answers in the TCP segments that this host sends: bare, or each in a frame of a WebSocket.

The kernel copies segments, and an answer may begin and end anywhere in them. A sender decides where: it
closes its receive window, makes Asterisk fill it with other answers, and opens it again. So the segments of
each connection are put together, and messages are split as SIP (RFC 3261 §18.3) and WebSocket (RFC 6455 §5.2)
split them. A server's frame is not masked. A frame holds one message (RFC 7118 §5).

This host's own kernel sends the segments, and the log rules see them in the order of sending. The copies may
have holes (the packet log lost some, or the connection is older than the reader), and the segments of a
container may arrive in another order. After a hole, the reader searches for the next status line. There, the
text of another sender that Asterisk forwards (MESSAGE) may look like an answer. So only the destination of an
answer is certain, not its contents. A retransmitted segment is left out, also if it is cut differently.

A sender may read a status line, and close its connection before the rest of the answer leaves. Therefore
:meth:`AnswerStreams.cut` returns the answers that have begun, without their end. Call it when no more copies
wait.

Every step takes linear time. Bounds: ``MOST_STREAMS`` connections, of which the least recently used are
forgotten first, ``MOST_PENDING`` bytes of an incomplete message, and ``MOST_BYTES`` bytes of all of them.
As many bytes again hold incomplete answers of forgotten connections until :meth:`AnswerStreams.cut`.
"""

import re
from collections import OrderedDict, deque

from attrs import Factory, define

from ringfence.parse.packet import SEQUENCES

MOST_STREAMS = 4_096
MOST_BYTES = 4 << 20
MOST_PENDING = 1 << 17
MOST_HOLES = 8
"""The number of latest holes (missing bytes) of a TCP connection that a late segment can still fill."""

_EOL = b"\r\n"
# An answer in text whose beginning is unknown. No sender's text in a header can match, because LF never comes
# back from Asterisk (``answers.py``).
_ANSWER = re.compile(rb"SIP/2\.0 40[137] [^\r\n]{0,64}+\r\n(?:via|v)[ \t]{0,8}+:", re.IGNORECASE)
_LONGEST = 96  # bytes; at least the length of a match of _ANSWER
_REFUSAL = re.compile(rb"SIP/2\.0 40[137] ")
_ANSWER_LINE = re.compile(rb"SIP/2\.0 [1-6][0-9][0-9] ")
_BEGUN = re.compile(rb"SIP/2\.0 4(?:0(?:[137](?: .*+)?)?)?", re.DOTALL)
_FIRST_LINE = re.compile(rb"SIP/2\.0 |HTTP/1\.|[A-Z]{3,16}+ [^\r\n]++(?<= SIP/2\.0)\r\n")
# chan_sip writes the full name, PJSIP either name.
_LENGTH = re.compile(rb"\r\n(?:content-length|l)[ \t]*+:[ \t]*+([0-9]{1,6}+)[ \t]*+(?=\r\n)", re.IGNORECASE)
_ANY_LENGTH = re.compile(rb"\r\n(?:content-length|l)[ \t]*+:", re.IGNORECASE)
# The first bytes of connections of other protocols: records of TLS, and the manager interface.
_OTHERS = (b"\x14\x03", b"\x15\x03", b"\x16\x03", b"\x17\x03", b"Asterisk Call Manager")
_TEXT, _BINARY, _PONG, _CONTROL = 0x81, 0x82, 0x8A, 0x88
_LONG, _LONGEST_FORM = 126, 127
_SHORTEST_FRAME = 2
_HALF = SEQUENCES // 2


@define
class _Stream:
    """The state of reading Asterisk's answers on one TCP connection.

    ``next`` is the sequence number of the next byte. ``synced``: the next byte belongs to a known message.
    ``pending`` is an incomplete message. Its first ``scanned`` bytes contain no end of a head. ``given``:
    this message was returned as cut. ``received``: data came. ``skip`` bytes of a body follow. ``other``: the
    connection does not carry clear SIP. ``holes`` are the parts that are missing, as pairs of sequence
    numbers. ``whole``: the connection was read from its SYN on, and nothing is missing.
    """

    next: int
    synced: bool
    pending: bytes = b""
    scanned: int = 0
    given: bool = False
    received: bool = False
    skip: int = 0
    other: bool = False
    holes: list[tuple[int, int]] = Factory(list)
    whole: bool = False


class AnswerStreams:
    """Reads SIP answers from this host's TCP segments.

    The key of a connection is its addresses and ports, packed, this host's first.
    """

    def __init__(self, most: int = MOST_STREAMS, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._streams: OrderedDict[bytes, _Stream] = OrderedDict()
        self._bytes = 0
        self._begun: dict[bytes, None] = {}  # connections with an incomplete message that was not given
        # Incomplete answers of forgotten connections, and before holes.
        self._lost: deque[tuple[bytes, bytes]] = deque()
        self._lost_bytes = 0

    def __contains__(self, connection: bytes) -> bool:
        """Whether data of ``connection`` (packed addresses and ports) was read; a SYN is not enough."""
        stream = self._streams.get(connection)
        return stream is not None and stream.received

    @property
    def pending(self) -> int:
        """The number of bytes of all incomplete messages."""
        return self._bytes

    def begin(self, connection: bytes, sequence: int) -> None:
        """Record that a new connection (packed addresses and ports) begins: ``sequence`` is its SYN's."""
        stream = self._streams.get(connection)
        first = (sequence + 1) % SEQUENCES
        if stream is not None and stream.next == first and not stream.pending:
            return  # the SYN was sent again
        self._forget(connection)
        self._add(connection, _Stream(first, synced=True, whole=True))

    def read(self, connection: bytes, sequence: int, data: bytes) -> list[bytes]:
        """Return the heads of Asterisk's answers that an outgoing segment completes.

        Of a connection that was not read from its SYN on, or has a hole, return only the refusals (401, 403,
        407). ``connection`` is the segment's packed addresses and ports, and ``sequence`` the number of its
        first byte.
        """
        if not data:
            return []
        stream = self._streams.get(connection)
        if stream is None:
            stream = self._add(connection, _Stream(sequence, synced=False))
        else:
            self._streams.move_to_end(connection)
        ahead = (sequence - stream.next) % SEQUENCES
        if ahead >= _HALF:  # it begins before the next byte
            old = SEQUENCES - ahead
            late = self._late(stream, sequence, data[:old])
            if old >= len(data):
                return late
            return [*late, *self._extend(connection, stream, data[old:])]
        if ahead:
            self._open_hole(connection, stream, sequence)
        return self._extend(connection, stream, data)

    def cut(self) -> list[tuple[bytes, bytes]]:
        """Return connection (packed addresses and ports) and bytes of each incomplete refusal, only once."""
        found = [*self._lost]
        self._lost.clear()
        self._lost_bytes = 0
        for connection in self._begun:
            stream = self._streams[connection]
            stream.given = True
            found.append((connection, stream.pending))
        self._begun.clear()
        return found

    def _extend(self, connection: bytes, stream: _Stream, data: bytes) -> list[bytes]:
        """Read the next bytes of a connection; return the heads of the answers that they complete."""
        if not stream.received and stream.synced:  # the first bytes of the connection
            stream.other = data.startswith(_OTHERS)
        stream.received = True
        stream.next = (stream.next + len(data)) % SEQUENCES
        # The numbers repeat. A hole further back cannot be distinguished from one ahead.
        stream.holes = [hole for hole in stream.holes if (stream.next - hole[0]) % SEQUENCES < _HALF]
        if stream.other:
            return []
        before = len(stream.pending)
        found = _consume(stream, data)
        if len(stream.pending) > MOST_PENDING:
            self._give_up(connection, stream)
        self._bytes += len(stream.pending) - before
        if stream.synced and not stream.given and _BEGUN.fullmatch(stream.pending):
            self._begun[connection] = None
        else:
            self._begun.pop(connection, None)
        while self._bytes > self._most_bytes:
            self._forget(next(iter(self._streams)))
        return found

    def _open_hole(self, connection: bytes, stream: _Stream, sequence: int) -> None:
        """Continue reading at ``sequence``, and remember which bytes before it are missing."""
        before = len(stream.pending)
        self._give_up(connection, stream)
        self._bytes -= before
        stream.skip, stream.whole = 0, False
        stream.holes = [*stream.holes, (stream.next, sequence)][-MOST_HOLES:]
        stream.next = sequence

    def _give_up(self, connection: bytes, stream: _Stream) -> None:
        """Keep an incomplete answer for :meth:`cut`, and search for the next status line."""
        if stream.synced and not stream.given and _BEGUN.fullmatch(stream.pending):
            self._lost.append((connection, stream.pending))
            self._lost_bytes += len(stream.pending)
            while self._lost_bytes > self._most_bytes:  # a flood keeps the reader from calling cut()
                self._lost_bytes -= len(self._lost.popleft()[1])
        self._begun.pop(connection, None)
        stream.pending, stream.scanned, stream.given, stream.synced = b"", 0, False, False

    def _late(self, stream: _Stream, sequence: int, data: bytes) -> list[bytes]:
        """Return the SIP answers, complete or not, in those bytes of a late segment that were missing.

        ``sequence`` is the number of its first byte. The bytes are missing no longer.
        """
        found: list[bytes] = []
        left: list[tuple[int, int]] = []
        end = (sequence + len(data)) % SEQUENCES
        for hole in stream.holes:
            first, last = _later(hole[0], sequence), _earlier(hole[1], end)
            size = (last - first) % SEQUENCES
            if not 0 < size < _HALF:
                left.append(hole)
                continue
            left += [part for part in ((hole[0], first), (last, hole[1])) if part[0] != part[1]]
            start = (first - sequence) % SEQUENCES
            alone = _Stream(first, synced=False)
            found += _consume(alone, data[start : start + size])
            if alone.synced and _REFUSAL.match(alone.pending):
                found.append(alone.pending)
        stream.holes = left[-MOST_HOLES:]
        return found

    def _add(self, connection: bytes, stream: _Stream) -> _Stream:
        self._streams[connection] = stream
        if len(self._streams) > self._most:
            self._forget(next(iter(self._streams)))
        return stream

    def _forget(self, connection: bytes) -> None:
        stream = self._streams.pop(connection, None)
        if stream is not None:
            self._bytes -= len(stream.pending)
            self._give_up(connection, stream)


def _later(one: int, other: int) -> int:
    """Return the later of two sequence numbers, which are less than half of all numbers apart."""
    return one if (one - other) % SEQUENCES < _HALF else other


def _earlier(one: int, other: int) -> int:
    return other if (one - other) % SEQUENCES < _HALF else one


def _consume(stream: _Stream, data: bytes) -> list[bytes]:
    """Return the heads of the answers that ``data`` completes; keep the incomplete message in ``stream``."""
    found: list[bytes] = []
    buffer = stream.pending + data
    at = min(stream.skip, len(buffer))
    stream.skip -= at
    scanned, stream.scanned = stream.scanned, 0
    while at < len(buffer):
        if not stream.synced:
            if at == 0 and buffer.startswith(b"SIP/2.0 "):
                stream.synced = True  # a segment usually begins with an answer
                continue
            match = _ANSWER.search(buffer, at)
            if match is None:
                at = max(at, len(buffer) - _LONGEST)
                break
            at, stream.synced = match.start(), True
        step = _frame(buffer, at) if buffer[at] >= _TEXT else _text(buffer, at, scanned)
        if step is None:  # incomplete
            stream.scanned = len(buffer) - at
            break
        start, end, stream.synced = step
        stream.whole = stream.whole and stream.synced
        # Only in a whole connection it is certain that an answer begins here, and no text of a sender.
        wanted = _ANSWER_LINE if stream.whole else _REFUSAL
        if wanted.match(buffer, start) and not stream.given:
            head = buffer.find(_EOL + _EOL, start, end)
            found.append(buffer[start : end if head < 0 else head + 2 * len(_EOL)])
        stream.given, scanned = False, 0
        stream.skip = max(0, end - len(buffer))
        at = end
    stream.pending = buffer[at:]
    return found


def _frame(buffer: bytes, at: int) -> tuple[int, int, bool] | None:
    """Return where the content of a WebSocket frame begins and ends, and whether a message follows it.

    Return None for an incomplete frame.
    """
    if len(buffer) - at < _SHORTEST_FRAME:
        return None
    kind, length = buffer[at], buffer[at + 1]
    size = {_LONG: 2, _LONGEST_FORM: 8}.get(length, 0)
    start = at + _SHORTEST_FRAME + size
    if length > _LONGEST_FORM or not (kind in (_TEXT, _BINARY) or _CONTROL <= kind <= _PONG):
        return at, at + 1, False  # no frame of a server
    if len(buffer) < start:
        return None
    if size:
        length = int.from_bytes(buffer[start - size : start])
    if length > MOST_PENDING:
        return at, at + 1, False
    return None if len(buffer) < start + length else (start, start + length, True)


def _text(buffer: bytes, at: int, scanned: int) -> tuple[int, int, bool] | None:
    """Return where a SIP message begins and ends, and whether the next byte begins another one.

    The message's body may end beyond the buffer. Return None if its head is incomplete. The first ``scanned``
    bytes contain no end of a head.
    """
    if buffer[at] in _EOL:  # a keep-alive between messages (RFC 5626 §3.5.1)
        return at, at + 1, True
    head = buffer.find(_EOL + _EOL, max(at, at + scanned - 3))
    if head < 0:
        return None
    after = head + 2 * len(_EOL)
    if _FIRST_LINE.match(buffer, at) is None:
        return at, at + 1, False
    if buffer.startswith(b"HTTP/1.", at):
        return at, after, True  # the answer that opens a WebSocket has no body
    length = _LENGTH.search(buffer, at, head + len(_EOL))
    if length is None or len(_ANY_LENGTH.findall(buffer, at, head + len(_EOL))) > 1:
        return at, after, False
    return at, after + int(length[1]), True
