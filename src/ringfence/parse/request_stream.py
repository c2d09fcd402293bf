r"""SIP requests in the TCP segments of strangers: bare, or each in a frame of a WebSocket.

The stranger wrote the segments, and Asterisk may read them in another way than this module: segments that
have a wrong checksum, or come twice with different bytes. So only the plain way is read, from the SYN on. A
SYN begins a connection once this host has answered it: the kernel ignores a SYN within a connection. A
segment that comes too early waits for those before it: the network loses some, and so does the kernel, if its
sender asks too much. A segment that comes again must have the same bytes. Each message has a head in which
every line ends with CR LF, and exactly one Content-Length, which is not folded. Other lines may be folded
(RFC 3261 §7.3.1): PJSIP and chan_sip find no Content-Length in a line that begins with a blank. Within a
WebSocket (RFC 7118 §5), each message is in a masked frame, or in several fragments (RFC 6455 §5.4). Asterisk
joins all data frames up to one with FIN, whatever their types (``res_http_websocket.c``), and so does this
module. What follows a request for a WebSocket is read as frames once this host has answered 101: otherwise it
is text for Asterisk. A message has at most ``MOST_MESSAGE`` bytes, because PJSIP discards what it cannot
hold, and goes on in the middle. Whatever else a connection carries makes it *unread* to its end, and
:meth:`RequestStreams.read` reports it once. ``detect`` then finds its guesses by the answers
(``conversation.py``), or by the number of bytes (``unexplained.py``).

    SYN, seq 0                     ->  nothing
    this host's SYN-ACK, ack 1     ->  a connection begins
    "REGISTER …", seq 1            ->  a request
    "REGISTER …", seq 1 again      ->  nothing
    "OPTIONS …", seq 1             ->  unread: which of the two Asterisk got is unknown

What this host has acknowledged shows two things (:meth:`RequestStreams.acknowledge`): whether its kernel has
got segments of which no copy came, and how much an unread connection carries. Only this host's own numbers
count there: copied segments may never reach Asterisk, for instance those with a wrong checksum.

Each segment also names the room that its sender has for answers: its receive window. If that is less than
``LEAST_ROOM``, answers stay in Asterisk's socket (:meth:`RequestStreams.room`).

The request of HTTP for a WebSocket is returned like a message if a browser names the web page that opens it.

Every step takes linear time. Bounds: ``MOST_STREAMS`` connections, and as many SYNs, ``MOST_MESSAGE`` bytes
of a message, ``MOST_TOGETHER`` messages of a segment, ``MOST_EARLY`` early segments with ``MOST_EARLY_BYTES``
bytes, and ``MOST_BYTES`` bytes of all incomplete messages and early segments. Connections of which this host
has acknowledged nothing are forgotten first, because anyone can forge them, and then the least recently used
ones. Of each connection the bytes that this host has not acknowledged yet are kept to compare, ``KEPT`` bytes
at most: the kernel ignores acknowledged bytes that come again. A connection of which this module did not see
the beginning, or that it has forgotten, is unread.
"""

import re
from collections import OrderedDict

from attrs import Factory, define

from ringfence.parse.packet import SEQUENCES, ends_of

MOST_STREAMS = 4_096
MOST_BYTES = 8 << 20
MOST_MESSAGE = 4_000
"""The greatest length of a message that PJSIP reads in every version (``PJSIP_MAX_PKT_LEN``)."""

MOST_TOGETHER = 128
"""The maximum number of messages that one segment completes: no phone sends as many at once."""
MOST_EARLY = 64
MOST_EARLY_BYTES = 32_768
"""The maximum size in bytes of one connection's TCP segments that wait for the segments before them."""
KEPT = 2_048
"""The maximum number of bytes that are kept to compare them with a segment that comes again."""
MOST_NEWLY = 8 << 20
"""The most bytes that one segment of this host can newly acknowledge: more than a receive window."""
MOST_ALIKE = 64
"""The maximum number of SYNs with one number that are kept, from one port of a stranger to several here."""
MOST_BEGINS = 64
"""The maximum number of answered SYNs of a connection without data that are kept."""
LEAST_ROOM = 1_024
"""The least receive window, in bytes, with room for answers: a refusal has 500, and two must fit."""

_HALF = SEQUENCES // 2
_EOL = b"\r\n"
_END = _EOL + _EOL
_KEEP_ALIVE = re.compile(rb"[\r\n]++")
_FIRST_LINE = re.compile(rb"(?:[A-Za-z]{2,32}+ [^\r\n]*+(?<= SIP/2\.0)|SIP/2\.0 [^\r\n]*+)\r\n")
PAGE = re.compile(rb"GET [^\r\n]++(?<= HTTP/1\.1)\r\n")
"""The first line of a request for a web page or a WebSocket. Other requests by GET are SIP for PJSIP."""
_TO_WEBSOCKET = re.compile(rb"\r\nupgrade[ \t]*+:[ \t]*+websocket[ \t]*+\r\n(?![ \t])", re.IGNORECASE)
_ORIGIN = re.compile(rb"\r\norigin[ \t]*+:", re.IGNORECASE)
_ENCODED = re.compile(rb"\r\ntransfer-encoding", re.IGNORECASE)
_ANY_LENGTH = re.compile(rb"\r\n(?:content-length|l[ \t:])", re.IGNORECASE)
_LENGTH = re.compile(
    rb"\r\n(?:content-length|l)[ \t]*+:[ \t]*+([0-9]{1,6}+)[ \t]*+(?=\r\n(?![ \t]))", re.IGNORECASE
)
_HTTP = b"HTTP/"
_CLEAR = (b"SIP/2.0 ", _HTTP)
_SWITCHED = b"HTTP/1.1 101"
_FINAL = 0x80  # FIN, in the first byte of a frame
_DATA = (0, 1, 2)  # the types of frames with data: continuation, text, binary
_CONTROL = (0x88, 0x89, 0x8A)  # with FIN, because they are never fragmented
_MASKED, _MASK = 0x80, 4
_LONG, _LONGEST_FORM = 126, 127
_SHORTEST_FRAME = 2


class _UnreadError(Exception):
    """A TCP connection carries something that cannot be read with certainty as SIP."""


@define
class _Stream:
    """The state of reading the requests of one TCP connection.

    ``next`` is the sequence number of the next byte. ``pending`` is an incomplete message or frame, ``skip``
    the bytes of a body that follow. ``fragments`` is the content of the frames before it, if they belong to
    the same message. ``read`` are the last bytes that were read, and ``settled`` whether this host has
    acknowledged all bytes before them. ``early`` are the segments that wait, by their numbers. ``scale``:
    windows are multiplied with two to this power. ``room``: the last window was not too small. ``unread``:
    nothing of this connection is read, and ``reported`` whether that was reported. ``acknowledged`` is the
    latest number that this host has acknowledged, None if it is unknown. ``uncounted`` is the number of
    the first byte that it had acknowledged before reading failed, and that could not be read; None if all
    such bytes are counted. ``begins`` are the numbers of the first byte that this host has answered, the
    last one first: if many connections wait, Linux answers each SYN (by a SYN cookie), and the stranger
    chooses one of them. ``asks``: the last message asks for a WebSocket. ``clear``: this host answered in
    clear text. ``key`` is the connection in packets of this host, if these have another address
    (destination NAT).
    """

    next: int
    pending: bytes = b""
    fragments: bytes = b""
    skip: int = 0
    websocket: bool = False
    read: bytes = b""
    settled: bool = False
    early: dict[int, bytes] = Factory(dict)
    scale: int = 0
    room: bool = True
    unread: bool = False
    reported: bool = False
    acknowledged: int | None = None
    uncounted: int | None = None
    begins: tuple[int, ...] = ()
    asks: bool = False
    clear: bool = False
    key: bytes = b""

    @property
    def held(self) -> int:
        """The number of bytes of the incomplete message, and of segments that wait for earlier ones."""
        return len(self.pending) + len(self.fragments) + sum(map(len, self.early.values()))

    @property
    def first(self) -> int:
        """The sequence number of the first byte of the incomplete message."""
        return (self.next - len(self.pending) - len(self.fragments)) % SEQUENCES

    @property
    def is_fresh(self) -> bool:
        """Whether no data of this connection was read yet."""
        return self.next in self.begins and not self.early

    def new_part(self, sequence: int, data: bytes) -> bytes | None:
        """Return the bytes of a segment that are new; None if others were read in their place.

        ``sequence`` is the number of the first byte of ``data``.
        """
        old = (self.next - sequence) % SEQUENCES
        start = len(self.read) - old
        if start < 0 and not self.settled:
            return None
        again = data[max(0, -start) : old]
        start = max(0, start)
        if self.read[start : start + len(again)] != again:
            return None
        return data[old:]

    def keep(self, new: bytes) -> None:
        """Keep bytes that were read, to compare them with a segment that comes again."""
        read = self.read + new
        self.read = read[-KEPT:]
        self.settled = self.settled and len(read) <= KEPT

    def settle(self, number: int) -> None:
        """Forget the bytes before ``number``, which this host has acknowledged."""
        left = (self.next - number) % SEQUENCES
        if left <= len(self.read):
            self.read, self.settled = self.read[len(self.read) - left :], True


class RequestStreams:
    """Reads SIP requests from strangers' TCP segments.

    The key of a connection is its addresses and ports, packed, the stranger's first.
    """

    def __init__(self, most: int = MOST_STREAMS, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._streams: OrderedDict[bytes, _Stream] = OrderedDict()
        # By the stranger's address and port, and the number of the first byte: the scale of each connection.
        self._offers: OrderedDict[tuple[bytes, int], dict[bytes, int]] = OrderedDict()
        self._copied: dict[bytes, bytes] = {}  # the connection in the stranger's packets, by ``_Stream.key``
        # The connections of which this host has acknowledged no byte, the oldest first.
        self._unproven: dict[bytes, None] = {}
        # The connections with incomplete messages or early segments, the least recently used first.
        self._holding: OrderedDict[bytes, None] = OrderedDict()
        self._bytes = 0
        self._forgot = False  # whether any connection was forgotten to make room

    @property
    def pending(self) -> int:
        """The number of bytes of all incomplete messages and waiting segments."""
        return self._bytes

    def offer(self, connection: bytes, sequence: int, scale: int = 0) -> None:
        """Record a SYN with this sequence number, which begins a connection if this host answers it.

        ``connection`` is its packed addresses and ports, the stranger's first. ``scale``: later segments name
        their window divided by two to this power. The kernel keeps the scale of the first SYN.
        """
        stream, first = self._streams.get(connection), (sequence + 1) % SEQUENCES
        name = _sender_in(connection), first
        offered = self._offers.pop(name, {})
        scale = min(scale, offered.pop(connection, scale))
        if stream is not None and first in stream.begins:
            scale = min(scale, stream.scale)
        self._offers[name] = dict([*offered.items(), (connection, scale)][-MOST_ALIKE:])
        if len(self._offers) > self._most:
            self._offers.popitem(last=False)

    def begin(self, key: bytes, first: int) -> None:
        """Begin to read a connection, because this host answers its SYN.

        ``key`` is the connection in the SYN-ACK: packed addresses and ports, the stranger's first. With
        destination NAT, it has another address of this side than the SYN. ``first`` is the number of the
        first byte, which the SYN-ACK acknowledges. If no SYN with this number was copied, an earlier
        connection with the same ports ends, and the new one is unread.
        """
        offered = self._offers.pop((_sender_in(key), first), {})
        connection = key if key in offered else self._copied.get(key, key)
        if connection not in offered and len(offered) == 1 and key not in self._streams:
            [connection] = offered  # of destination NAT
        known = self._streams.get(connection)
        if connection not in offered and (known is None or first in known.begins):
            return  # of a friend, whose SYN is not copied; or sent again
        begins = (first, *known.begins)[:MOST_BEGINS] if known is not None and known.is_fresh else (first,)
        stream = _Stream(first, unread=connection not in offered, acknowledged=first, begins=begins)
        stream.scale = offered.get(connection, 0)
        self._forget(connection)
        if key != connection:
            stream.key, self._copied[key] = key, connection
        self._add(connection, stream)

    def answer(self, key: bytes, data: bytes) -> bool:
        """Record the data of a segment of this host; return whether reading fails from now on.

        ``key`` is as for :meth:`begin`. HTTP in the wrong place shows that Asterisk reads the connection in
        another way.
        """
        connection = self._copied.get(key, key)
        stream = self._streams.get(connection)
        if stream is None:
            return False
        answered, stream.clear = stream.clear, stream.clear or data.startswith(_CLEAR)
        if stream.unread or stream.websocket:
            return False
        # The kernel sends any part of an earlier answer again, with a text of the stranger at its begin.
        if stream.asks and not answered and data.startswith(_SWITCHED):
            stream.asks, stream.websocket = False, True
            return False
        if misread := stream.asks or data.startswith(_HTTP):
            self._give_up(connection, stream, stream.first)
        return misread

    def is_clear(self, key: bytes) -> bool:
        """Whether this host has answered in clear text: no TLS follows. ``key`` is as for :meth:`begin`."""
        stream = self._streams.get(self._copied.get(key, key))
        return stream is not None and stream.clear

    def has_begun(self, key: bytes) -> bool:
        """Whether the beginning of a connection was copied, or may be forgotten.

        ``key`` is as for :meth:`begin`.
        """
        stream = self._streams.get(self._copied.get(key, key))
        return self._forgot or (stream is not None and bool(stream.begins))

    def room(self, connection: bytes, window: int) -> tuple[bool, bool]:
        """Record a segment's receive window; return whether an answer has room, and whether that changed.

        ``window`` is that field of the TCP header, ``connection`` the packed addresses and ports, the
        stranger's first. A connection that is not read counts as having room.
        """
        stream = self._streams.get(connection)
        if stream is None or stream.unread:
            return True, False
        before, stream.room = stream.room, window << stream.scale >= LEAST_ROOM
        return stream.room, stream.room != before

    def read(self, connection: bytes, sequence: int, data: bytes) -> list[bytes] | None:
        """Return the heads of the SIP messages that a segment completes; None if reading fails from now on.

        ``connection`` is its packed addresses and ports, the stranger's first, and ``sequence`` the number of
        the first byte of ``data``. If reading has failed before, return [].
        """
        stream = self._known(connection)
        self._streams.move_to_end(connection)
        if stream.unread:
            reported, stream.reported = stream.reported, True
            return [] if reported else None
        if stream.is_fresh and sequence in stream.begins:
            stream.next = stream.acknowledged = sequence
        before, first = stream.held, stream.first
        try:
            found = _extend(stream, sequence, data)
        except _UnreadError:
            self._bytes += stream.held - before
            self._give_up(connection, stream, first)
            return None
        held = stream.held
        self._bytes += held - before
        self._holding.pop(connection, None)
        if held:
            self._holding[connection] = None
        while self._bytes > self._most_bytes:
            self._forgot = True
            self._forget(next(iter(self._holding)))
        return found

    def lose(self, connection: bytes) -> None:
        """Stop reading ``connection`` (packed addresses and ports), because a part of it is missing."""
        stream = self._known(connection)
        self._give_up(connection, stream, stream.first)

    def acknowledge(self, key: bytes, number: int) -> tuple[int | None, bool]:
        """Record the acknowledgement number in a segment of this host.

        ``key`` is as for :meth:`begin`. Return the number of newly acknowledged bytes that were not read;
        None while the connection is read. Return also whether reading fails from now on, because this host
        has got bytes of which the kernel delivered no copy.
        """
        connection = self._copied.get(key, key)
        stream = self._streams.get(connection)
        if stream is None:
            return None, False
        # A FIN takes a number, but is no byte.
        lost = not stream.unread and 1 < (number - stream.next) % SEQUENCES < _HALF
        if lost:
            self._give_up(connection, stream, stream.first)
        before, stream.acknowledged = stream.acknowledged, number
        if before is not None and before != number:
            self._unproven.pop(connection, None)
        if not stream.unread:
            stream.settle(number)
            return None, False
        since, stream.uncounted = before if stream.uncounted is None else stream.uncounted, None
        counted = [since] if since is not None and since not in stream.begins else stream.begins
        newly = [(number - one) % SEQUENCES for one in counted]
        return max((one for one in newly if one <= MOST_NEWLY), default=0), lost

    def _give_up(self, connection: bytes, stream: _Stream, first: int) -> None:
        """Stop reading a connection, from the byte with the sequence number ``first`` on."""
        held = stream.acknowledged is not None and (stream.acknowledged - first) % SEQUENCES < _HALF
        if held and not stream.unread:
            stream.uncounted = first
        self._bytes -= stream.held
        self._holding.pop(connection, None)
        stream.pending, stream.fragments, stream.read = b"", b"", b""
        stream.unread = stream.reported = True
        stream.early.clear()

    def _known(self, connection: bytes) -> _Stream:
        """Return the state of ``connection``, which is unread if it is new."""
        if connection not in self._streams:
            self._add(connection, _Stream(0, unread=True))
        return self._streams[connection]

    def _add(self, connection: bytes, stream: _Stream) -> None:
        self._streams[connection] = stream
        self._unproven[connection] = None
        if len(self._streams) > self._most:
            self._forget_one()

    def _forget_one(self) -> None:
        """Forget the oldest connection that may be forged, before the latest one; if there is none, any."""
        self._forgot = True
        self._forget(next(iter(self._unproven if len(self._unproven) > 1 else self._streams)))

    def _forget(self, connection: bytes) -> None:
        stream = self._streams.pop(connection, None)
        if stream is not None:
            self._bytes -= stream.held
            self._unproven.pop(connection, None)
            self._holding.pop(connection, None)
            if self._copied.get(stream.key) == connection:
                del self._copied[stream.key]


def _sender_in(connection: bytes) -> bytes:
    """Return the stranger's packed address and port; they are the first ends in ``connection``."""
    address, _, port, _ = ends_of(connection)
    return address + port


def heads_in(text: bytes) -> list[bytes]:
    """Return the head of each SIP message in ``text``, in order; [] if ``text`` is anything else.

    The last message may be incomplete; then its head is returned if the head is whole.
    """
    try:
        return _consume(_Stream(0), text)
    except _UnreadError:
        return []


def _extend(stream: _Stream, sequence: int, data: bytes) -> list[bytes]:
    """Read a TCP segment, and waiting ones that follow it; return the heads of complete SIP messages.

    ``sequence`` is the number of the first byte of ``data``.

    Raise _UnreadError if it is unknown which bytes Asterisk gets.
    """
    if 0 < (sequence - stream.next) % SEQUENCES < _HALF:
        if stream.early.setdefault(sequence, data) != data or len(stream.early) > MOST_EARLY:
            raise _UnreadError
        if sum(map(len, stream.early.values())) > MOST_EARLY_BYTES:
            raise _UnreadError
        return []
    found: list[bytes] = []
    while True:
        new = stream.new_part(sequence, data)
        if new is None:
            raise _UnreadError
        stream.next = (stream.next + len(new)) % SEQUENCES
        stream.keep(new)
        found += _consume(stream, new)
        if len(found) > MOST_TOGETHER:
            raise _UnreadError
        follows = (one for one in stream.early if not 0 < (one - stream.next) % SEQUENCES < _HALF)
        waiting = next(follows, None)
        if waiting is None:
            return found
        sequence, data = waiting, stream.early.pop(waiting)


def _consume(stream: _Stream, data: bytes) -> list[bytes]:
    """Return the heads of the SIP messages that ``data`` completes; keep an incomplete one in ``stream``.

    If this raises an error, ``stream.pending`` is as before.
    """
    found: list[bytes] = []
    buffer = stream.pending + data
    at = min(stream.skip, len(buffer))
    stream.skip -= at
    while at < len(buffer):
        step = _frame(buffer, at, stream, found) if stream.websocket else _text(buffer, at, stream, found)
        if step is None:  # incomplete
            break
        at = step
        if at > len(buffer):
            stream.skip, at = at - len(buffer), len(buffer)
    if len(buffer) - at > MOST_MESSAGE:
        raise _UnreadError
    stream.pending = buffer[at:]
    return found


def _text(buffer: bytes, at: int, stream: _Stream, found: list[bytes]) -> int | None:
    """Return where the SIP message at ``at`` ends, maybe beyond the buffer; None if its head is incomplete.

    Append its head to ``found``. The text may also be a keep-alive, or a request for a WebSocket, whose head
    is appended only if it has an Origin. Raise _UnreadError for any other text.
    """
    if stream.asks:
        raise _UnreadError
    keep_alive = _KEEP_ALIVE.match(buffer, at)  # between messages (RFC 5626 §3.5.1)
    if keep_alive is not None:
        return keep_alive.end()
    end = buffer.find(_END, at)
    if end < 0:
        return None
    end += len(_END)
    head = buffer[at:end]
    if PAGE.match(head) and _TO_WEBSOCKET.search(head):
        if not _is_plain(head):
            raise _UnreadError
        stream.asks = True
        if _ENCODED.search(head) or _named_length(head):
            raise _UnreadError  # Asterisk skips a body
        if _ORIGIN.search(head):
            found.append(head)
        return end
    length = _body_length(head)
    if length is None or len(head) + length > MOST_MESSAGE:
        raise _UnreadError
    found.append(head)
    return end + length


def _body_length(head: bytes) -> int | None:
    """Return the length of a SIP message's body in bytes, None if its head names none.

    Raise _UnreadError for a head that can be read in several ways.
    """
    if _FIRST_LINE.match(head) is None or not _is_plain(head):
        raise _UnreadError
    return _named_length(head)


def _is_plain(head: bytes) -> bool:
    """Whether no reader could end a line of ``head`` elsewhere: it has no NUL, bare LF or folded first line.

    ``head`` ends with its only empty line. No line begins with CR. A bare CR within a line is plain: PJSIP
    and chan_sip find the end of a head and its Content-Length by LF alone (``pjsip_find_msg``,
    ``read_raw_content_length``).
    """
    return (
        head[0] not in b"\r\n \t"
        and b"\0" not in head
        and head.count(b"\n") == head.count(_EOL)
        and head.find(_EOL + b"\r") == len(head) - len(_END)
    )


def _named_length(head: bytes) -> int | None:
    """Return the Content-Length in a head, None if there is none.

    Raise _UnreadError if it can be read in several ways.
    """
    length = _LENGTH.search(head)
    if len(_ANY_LENGTH.findall(head)) != (length is not None):
        raise _UnreadError
    return int(length[1]) if length is not None else None


def _frame(buffer: bytes, at: int, stream: _Stream, found: list[bytes]) -> int | None:
    """Return where the WebSocket frame at ``at`` ends, None if incomplete; add its SIP head to ``found``.

    Raise _UnreadError for a frame that no client of SIP sends.
    """
    if len(buffer) - at < _SHORTEST_FRAME:
        return None
    kind, length = buffer[at], buffer[at + 1]
    is_data = kind & ~_FINAL in _DATA
    if not (is_data or kind in _CONTROL) or not length & _MASKED:
        raise _UnreadError
    length &= ~_MASKED
    size = {_LONG: 2, _LONGEST_FORM: 8}.get(length, 0)
    start = at + _SHORTEST_FRAME + size + _MASK
    if len(buffer) < start:
        return None
    if size:
        length = int.from_bytes(buffer[start - size - _MASK : start - _MASK])
    if len(stream.fragments) + length > MOST_MESSAGE:
        raise _UnreadError
    end = start + length
    if len(buffer) < end:
        return None
    if is_data:
        message = stream.fragments + _unmasked(buffer[start:end], buffer[start - _MASK : start])
        stream.fragments = b"" if kind & _FINAL else message
        if kind & _FINAL and message.strip(_EOL):
            found.append(_only_head(message))
    return end


def _unmasked(data: bytes, mask: bytes) -> bytes:
    """Return the content of a masked WebSocket frame (RFC 6455 §5.3)."""
    key = (mask * (len(data) // _MASK + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(len(data))


def _only_head(message: bytes) -> bytes:
    """Return the head of the one SIP message in a WebSocket frame; raise _UnreadError for other contents."""
    end = message.find(_END)
    head = message[: end + len(_END)]
    if end < 0 or (_body_length(head) or 0) != len(message) - len(head):
        raise _UnreadError
    return head
