"""Decoder of one AMI connection: bytes → security events and replies.

An empty line ends a packet (:class:`PacketSplitter`). The *head* of a security event is the headers before
its account, and the *tail* is the three headers after it (SessionID, LocalAddress, RemoteAddress). A sender's
text may hold CR LF and even an empty line, but only within the account. So an event may come in fragments:

- A packet may have the head of a security event but not its tail. Then the packets that follow belong to it,
  up to the tail that Asterisk always writes. These fragments are the sender's text, whatever they look like.
- Under Service SIP the account (256 bytes) has room for a whole forged tail (97 bytes). Then the packet looks
  complete, and the true tail comes as a packet without a head. Such an event is held until the next security
  event begins or 50 ms have passed. Later packets are held with it, because a reply that comes before the
  true tail is forged by the sender. If a packet with a tail comes in that time, it is joined to the event.

AMI over HTTP (``webenabled``, off by default) accepts a user name of any length from anyone, and whole
packets fit into it. :class:`HttpCheck` recognizes such packets. Over the AMI port, a value cannot hold CR LF.

Replies to ringfence's own actions carry a ``token`` that no SIP sender can know, so they are trusted at any
position. A few events about phones, of the class ``system``, are returned although no action requested them.
Between the head and the tail of a security event, such an event may be forged, so it counts as a fragment.
``AuthDetail`` holds passwords, so it is never parsed.

256 bytes of account hold at most 21 empty lines (12 bytes each, percent-encoded), so 64 fragments are more
than can occur. A packet that is too long is skipped and counted. No input raises an exception.
"""

from typing import TypeAlias

from attrs import astuple, define, frozen

from ringfence.parse.ami_http import AmiItem, Banner, HttpCheck, ManagerEvent, Reply
from ringfence.parse.line_result import text_of
from ringfence.parse.roster import parse_roster_event
from ringfence.parse.security import (
    EOL,
    begins_manager_event,
    has_tail,
    parse_endpoint,
    parse_strict,
    parse_tampered,
    starts_security_event,
)
from ringfence.values.event import EventKind, SecurityEvent, Service, SourceId
from ringfence.values.network import Address

# -- the packets of one AMI connection. A packet ends with an empty line, and only with one
#
# The end is CR LF CR LF (``main/manager.c:astman_append``). The first line is a banner, with one line end.
# A SIP datagram has at most 64 KiB and appears about once in a packet, so 256 KiB holds any real packet. A
# longer one is skipped to the next empty line. Each byte is searched once.


END = b"\r\n\r\n"
MAX_PACKET = 256 * 1024
MAX_BANNER = 128
MOST_HEAD = 1024
"""The number of bytes that are kept from the start of an AMI packet that is too long.

They show what event the packet is: Asterisk itself writes the headers before the account, and these are
always shorter.
"""


@frozen
class SkippedBytes:
    """A skipped part of an AMI packet that is too long to keep. ``size`` is the number of skipped bytes.

    ``head`` has the packet's first bytes if this is the first part; otherwise ``head`` is empty.
    """

    size: int
    head: bytes = b""


Piece: TypeAlias = Banner | bytes | SkippedBytes


class PacketSplitter:
    """Splits the bytes of one AMI connection into the banner and packets, as the bytes come."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._skipping = False
        self._greeted = False

    def receive(self, data: bytes) -> list[Piece]:
        """Return the AMI packets that ``data`` completes, in order, without the empty line after each."""
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
        """Append a Banner for the first line to ``pieces``; return the position of the first packet.

        If the line is still incomplete, append nothing and return 0. If it is too long for a banner, the
        Banner has no version, and the first packet begins at 0.
        """
        end = self._buffer.find(EOL, 0, MAX_BANNER + len(EOL))
        if end < 0 and len(self._buffer) < MAX_BANNER + len(EOL):
            return 0
        other, _, version = bytes(self._buffer[: max(end, 0)]).partition(b"Asterisk Call Manager/")
        self._greeted = True
        pieces.append(Banner("" if other else version.decode("ascii", "replace").strip()))
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
        """Discard the incomplete packet if it is longer than a real packet, or its beginning was discarded.

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


PRIVILEGE = b"\r\nPrivilege: security,"
SYSTEM = b"\r\nPrivilege: system,all\r\n"
UNREQUESTED = tuple(
    b"Event: %s%s" % (name, SYSTEM) for name in (b"ContactStatus", b"PeerStatus", b"FullyBooted", b"Reload")
)
"""The first lines of AMI's events about phones and reloads that Asterisk sends unasked."""
AUTH_DETAIL = b"Event: AuthDetail\r\n"
MAX_FRAGMENTS = 64
MAX_LOCAL = 64
"""The maximum number of Asterisk's own addresses that are remembered."""
_LOCAL = b"\r\nLocalAddress: "
HOLD = 0.05  # seconds to wait for the true tail of an event


@define
class AmiCounts:
    """Numbers of what one decoder of AMI has read.

    ``tampered``: security events that break Asterisk's grammar and could be parsed nevertheless. ``garbled``:
    packets that were dropped because they could not be parsed (including unknown security events).
    ``dropped_bytes``: bytes of packets that were too long to keep. ``other``: events of classes other than
    ``security``.
    """

    events: int = 0
    tampered: int = 0
    garbled: int = 0
    dropped_bytes: int = 0
    other: int = 0

    def plus(self, more: "AmiCounts") -> "AmiCounts":
        """Return new counters, the sums of these and ``more``."""
        return AmiCounts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(more), strict=True)))


_Items: TypeAlias = list[AmiItem | ManagerEvent]


class AmiDecoder:
    """The decoder of one AMI connection: bytes as they come in, events and replies out.

    All times are monotonic, in seconds.

    The argument ``token`` begins the ActionID of each of ringfence's actions; "" if no action is sent. The
    attribute ``http`` decides when to ask whether Asterisk serves AMI over HTTP, and stores the answer.
    ``local_addresses`` are Asterisk's own addresses, in its network, as its events name them. Only events in
    which no sender can write them count: those of PJSIP, and successful logins of managers. ``recorded``: the
    connection is a recording (:class:`HttpCheck`).
    """

    def __init__(self, source: SourceId, token: str = "", *, recorded: bool = False) -> None:
        self.counts = AmiCounts()
        self.http = HttpCheck(token, recorded=recorded)
        self.local_addresses = set[Address]()
        self._local_texts: set[bytes] = set()
        # Whether a client of AMI over HTTP may have written the next packet: true from an event of service
        # AMI up to the next reply to a question of ``http``.
        self._perhaps_written = False
        self._until: float | None = None
        self._source = source
        self._ours = b"\r\nActionID: " + token.encode() if token else b""
        self._packets = PacketSplitter()
        self._fragments: list[bytes] = []
        # An event whose true tail may still come (see the module's head), and the packets that came after it.
        self._held: list[bytes] = []

    def receive(self, data: bytes, now: float) -> list[AmiItem]:
        """Return the events, replies and banner that ``data``, read at ``now`` (monotonic), completes."""
        items: _Items = []
        for piece in self._packets.receive(data):
            if isinstance(piece, bytes):
                self._packet(piece, now, items)
            elif isinstance(piece, SkippedBytes):
                self._skip(piece, items)
            else:
                items.append(piece)
        # A ManagerEvent makes the check active, so without the check there is none among the items.
        return self.http.pass_on(items, len(data), now) if self.http.active else items  # type: ignore[return-value]

    def tick(self, now: float) -> list[AmiItem]:
        """Return items that were held back as possibly forged, and are due at ``now`` (monotonic seconds)."""
        items: _Items = []
        if self._until is not None and now >= self._until:
            self._release(items)
        return [*self.http.pass_on(items, 0, now), *self.http.expire(now)]

    @property
    def deadline(self) -> float | None:
        """The monotonic time at which :meth:`tick` may have items to return; None if no item is held."""
        if self.http.deadline is None or self._until is None:
            return self._until if self.http.deadline is None else self.http.deadline
        return min(self._until, self.http.deadline)

    def _skip(self, skipped: SkippedBytes, items: _Items) -> None:
        """Count skipped bytes of a packet that is too long.

        A sender's newlines may have split a security event into several packets. At the first bytes of this
        packet, drop such an unfinished event, because the packet may contain its tail. If the packet begins
        an event of service AMI, add a ManagerEvent to ``items``.
        """
        self.counts.dropped_bytes += skipped.size
        if skipped.head:
            if begins_manager_event(skipped.head):
                self._mark_manager_event(items)
            self._drop_fragments()

    def _mark_manager_event(self, items: _Items) -> None:
        """Add a ManagerEvent to ``items``: a client of AMI over HTTP may have written what follows."""
        items.append(ManagerEvent())
        self.http.active = self._perhaps_written = True

    def _drop_fragments(self) -> None:
        """Count one unreadable packet. If there is an unfinished security event, drop its fragments."""
        self.counts.dropped_bytes += _size_of(self._fragments)
        self.counts.garbled += 1
        self._fragments.clear()

    def _packet(self, packet: bytes, now: float, items: _Items) -> None:
        if self._fragments:
            if not self._is_reply(packet, items):
                self._fragment(packet, now, items)
            return
        # If the sender's text ends in an empty line, the next packet begins with the CR LF after that text.
        packet = packet.removeprefix(EOL)
        event = parse_strict(packet, self._source)
        if event is None:
            self._other_packet(packet, now, items)
            return
        if self._held:
            self._release(items)
        # A success names a user of manager.conf, so it contains no text of a sender.
        manager = event.service is Service.AMI and event.kind is not EventKind.SUCCESSFUL_AUTH
        if manager:
            self._mark_manager_event(items)
        if manager or event.service is Service.SIP:
            self._hold([packet], now)
            return
        self.counts.events += 1
        begin = packet.find(_LOCAL) + len(_LOCAL)
        local = packet[begin : packet.find(EOL, begin)]
        if local.rpartition(b"/")[0] not in self._local_texts:  # nearly always known
            self._record_local(local)
        items.append(event)

    def _other_packet(self, packet: bytes, now: float, items: _Items) -> None:
        """Handle a packet that is no complete security event."""
        if starts_security_event(packet):
            if self._held:
                self._release(items)
            if begins_manager_event(packet):
                self._mark_manager_event(items)
            self._fragment(packet, now, items)
        elif self._is_reply(packet, items):
            pass
        elif self._held:
            self._follow(packet, now, items)
        else:
            self._add_or_count(packet, items)

    def _record_local(self, text: bytes) -> None:
        """Record the local address at which Asterisk received the request that an event is about.

        Loopback does not count, nor does 0.0.0.0: the manager interface names what its socket is bound to.
        """
        if self._perhaps_written or len(self._local_texts) >= MAX_LOCAL:
            return
        self._local_texts.add(text.rpartition(b"/")[0])
        endpoint = parse_endpoint(text)
        if endpoint is not None and not (endpoint.address.is_loopback or endpoint.address.is_unspecified):
            self.local_addresses.add(endpoint.address)

    def _fragment(self, packet: bytes, now: float, items: _Items) -> None:
        """Add a packet to the unfinished security event; join its fragments if the packet has its end.

        An event of PJSIP is then complete (it goes into ``items``). Any other is held. Too many or too large
        fragments are dropped.
        """
        self._fragments.append(packet)
        # A fragment may begin with the tail itself, right after the empty line that split the packet.
        if has_tail(EOL + packet):
            whole = END.join(self._fragments)
            self._fragments.clear()
            event = parse_tampered(whole, self._source)
            # A tail without a valid address is the sender's text. Under other services than PJSIP, a sender
            # can forge a whole tail. In both cases the true tail may still come.
            if event is None or event.service is not Service.PJSIP:
                self._hold([whole], now)
            else:
                self._add(event, items)
        elif len(self._fragments) >= MAX_FRAGMENTS or _size_of(self._fragments) > MAX_PACKET:
            self._drop_fragments()

    def _hold(self, packets: list[bytes], now: float) -> None:
        self._held = packets
        self._until = now + HOLD

    def _follow(self, packet: bytes, now: float, items: _Items) -> None:
        """Keep a packet that follows a held event; if the packet has a security event's end, join the two."""
        self._held.append(packet)
        if len(self._held) > MAX_FRAGMENTS or _size_of(self._held) > MAX_PACKET:
            self._release(items)
        elif has_tail(EOL + packet):
            self._hold([END.join(self._held)], now)

    def _release(self, items: _Items) -> None:
        """Add the held event to ``items``, and handle the packets that came after it."""
        (packet, *followers), self._held, self._until = self._held, [], None
        self._add(parse_strict(packet, self._source) or parse_tampered(packet, self._source), items)
        for follower in followers:
            self._add_or_count(follower, items)

    def _add(self, event: SecurityEvent | None, items: _Items) -> None:
        """Count an event and add it to ``items``; None stands for bytes that could not be parsed."""
        if event is None:
            self.counts.garbled += 1
            return
        self.counts.events += 1
        self.counts.tampered += event.tampered
        items.append(event)

    def _is_reply(self, packet: bytes, items: _Items) -> bool:
        """Whether ``packet`` is a reply to an action of ringfence; if so, add it to ``items``."""
        if not self._ours or self._ours not in packet:
            return False
        if packet.startswith(b"Response: "):
            reply = Reply(text_of(packet))
            if self.http.is_answer(reply):
                self._end_text(items)
            items.append(reply)
        else:
            self._add_event(packet, items)
        return True

    def _end_text(self, items: _Items) -> None:
        """Finish the events before Asterisk's reply to our question whether it offers AMI over HTTP.

        Events that were held are added to ``items``. An unfinished event is dropped, because the text that an
        HTTP client wrote never continues after such a reply.
        """
        if self._held:
            self._release(items)
        if self._fragments:
            self._drop_fragments()
        self.http.active = True
        self._perhaps_written = False

    def _add_event(self, packet: bytes, items: _Items) -> None:
        """Add the event in ``packet`` to ``items`` if it is about phones or trunks and has no password."""
        self.counts.other += 1
        item = None if packet.startswith(AUTH_DETAIL) else parse_roster_event(packet)
        if item is not None:
            items.append(item)

    def _add_or_count(self, packet: bytes, items: _Items) -> None:
        """Add a reply, or an event about phones, to ``items``; count any other packet."""
        if packet.startswith(b"Response: "):
            items.append(Reply(text_of(packet)))
        elif packet.startswith(b"Event: ") and not packet.startswith(PRIVILEGE, packet.find(EOL)):
            if packet.startswith(UNREQUESTED):
                self._add_event(packet, items)
            else:
                self.counts.other += 1
        else:
            self.counts.garbled += 1


def _size_of(packets: list[bytes]) -> int:
    return sum(map(len, packets))
