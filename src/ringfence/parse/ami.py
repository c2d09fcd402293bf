"""The bytes of one AMI connection → security events and replies.

Strategy: a packet ends with an empty line, and only with one: CR LF CR LF (``main/manager.c:astman_append``).
The sender's text may hold CR LF and even an empty line, inside the account of a security event and nowhere
else, so a packet may come in fragments:

- A packet with a security event's head but without its tail takes the packets that follow, until the tail
  that Asterisk always writes has come. Whatever those fragments look like, they are the sender's text.
- Under Service SIP the account has room for a whole forged tail (97 bytes of 256), so that the packet looks
  complete and the true tail comes as a packet without a head. Such an event is held back until the next
  security event begins or 50 ms have passed, and what follows it with it: an answer that comes before the
  leftover is the sender's invention. A leftover with a tail that comes meanwhile is joined to the event.

What no reader can undo: AMI over HTTP (``webenabled``, off by default) takes a user name of any length from
anybody, and whole packets fit into it. The manager's user must not be sent failed logins then; its
``eventfilter`` can leave them out by their head, which is Asterisk's own.

Answers to questions of ours carry a ``token`` that no sender of SIP can know, so they are believed wherever
they stand. Of those that nobody asked for, the few that tell of phones are given out; they are of the class
``system``, and an event of that class within a security event is one of its fragments, as above. The one
that holds passwords, ``AuthDetail``, is dropped as soon as its first line is known.

Limits and their reasons: a SIP datagram has at most 64 KiB and appears about once in a packet, so 256 KiB
holds any real one; what is longer is skipped to the next empty line and counted. 256 bytes of account hold
at most 21 empty lines (12 bytes each, percent-encoded), so 64 fragments are more than can be. Nothing here
raises for bytes, and each byte is searched once.
"""

from attrs import astuple, define, frozen

from ringfence.model import SecurityEvent, Service, SourceId
from ringfence.parse.roster import Item, item_of
from ringfence.parse.security import has_tail, read_strict, read_tampered, starts_security_event

END = b"\r\n\r\n"
EOL = b"\r\n"
PRIVILEGE = b"\r\nPrivilege: security,"
SYSTEM = b"\r\nPrivilege: system,all\r\n"
TOLD = tuple(b"Event: %s%s" % (name, SYSTEM) for name in (b"ContactStatus", b"PeerStatus", b"FullyBooted"))
"""How the events begin that are given out though nobody asked for them."""
AUTH_DETAIL = b"Event: AuthDetail\r\n"
MAX_PACKET = 256 * 1024
MAX_BANNER = 128
MAX_FRAGMENTS = 64
HOLD = 0.05  # seconds


@frozen
class Banner:
    """The first line: ``version`` is the AMI's, such as ``11.0.0`` on Asterisk 22. Empty: not an AMI."""

    version: str


@frozen
class Reply:
    """An answer to an action, as text with CR LF between its headers."""

    text: str


Heard = Banner | Reply | Item | SecurityEvent


@define
class AmiCounts:
    """What a decoder has met so far.

    ``tampered``: security events outside Asterisk's grammar that were read all the same. ``garbled``: packets
    that were dropped because nothing could be made of them (also security events of a form that Asterisk does
    not have). ``dropped_bytes``: bytes of packets too long to keep. ``other``: events of other classes.
    """

    events: int = 0
    tampered: int = 0
    garbled: int = 0
    dropped_bytes: int = 0
    other: int = 0

    def plus(self, more: "AmiCounts") -> "AmiCounts":
        """Give the sum of both."""
        return AmiCounts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(more), strict=True)))


class AmiDecoder:
    """One connection's decoder: feed it bytes as they come, with the monotonic time in seconds.

    ``deadline`` is when :meth:`tick` has something to give out, or None. ``token`` begins the ActionID of our
    questions.
    """

    def __init__(self, source: SourceId, token: str = "") -> None:
        self.counts = AmiCounts()
        self.deadline: float | None = None
        self._source = source
        self._ours = b"\r\nActionID: " + token.encode() if token else b""
        self._buffer = bytearray()
        self._searched = 0
        self._skipping = False
        self._greeted = False
        self._fragments: list[bytes] = []
        self._fragments_size = 0
        # An event of Service SIP, and what has come since.
        self._held: list[bytes] = []
        self._held_size = 0

    def feed(self, data: bytes, now: float) -> list[Heard]:
        """Take what the connection brought and give what it completes, in order."""
        self._buffer += data
        heard: list[Heard] = []
        start = 0 if self._greeted else self._greet(heard)
        if self._greeted:
            start = self._split(start, now, heard)
        del self._buffer[:start]
        self._searched = max(0, self._searched - start)
        self._bound()
        return heard

    def tick(self, now: float) -> list[Heard]:
        """Give out what was held back long enough."""
        heard: list[Heard] = []
        if self.deadline is not None and now >= self.deadline:
            self._release(heard)
        return heard

    def _greet(self, heard: list[Heard]) -> int:
        end = self._buffer.find(EOL, 0, MAX_BANNER + len(EOL))
        if end < 0 and len(self._buffer) < MAX_BANNER + len(EOL):
            return 0
        line = bytes(self._buffer[: max(end, 0)])
        prefix = b"Asterisk Call Manager/"
        known = line.startswith(prefix)
        self._greeted = True
        heard.append(Banner(line.removeprefix(prefix).decode("ascii", "replace").strip() if known else ""))
        return end + len(EOL) if end >= 0 else 0

    def _split(self, start: int, now: float, heard: list[Heard]) -> int:
        """Take every finished packet from ``start`` on; give where the unfinished one begins."""
        self._searched = max(self._searched, start)
        while (end := self._buffer.find(END, self._searched)) >= 0:
            if self._skipping:
                self.counts.dropped_bytes += end - start
                self._skipping = False
            elif end - start > MAX_PACKET:
                self._drop_long(end - start)
            else:
                self._packet(bytes(self._buffer[start:end]), now, heard)
            start = self._searched = end + len(END)
        # An end may be cut between two reads: its last byte alone can be missing.
        self._searched = max(start, len(self._buffer) - len(END) + 1)
        return start

    def _bound(self) -> None:
        """Keep no more of an unfinished packet than a real one can be."""
        # A packet of the greatest length may still lack the last byte of its end.
        if len(self._buffer) < len(END) + (0 if self._skipping else MAX_PACKET):
            return
        excess = len(self._buffer) - len(END) + 1
        if self._skipping:
            self.counts.dropped_bytes += excess
        else:
            self._drop_long(excess)
            self._skipping = True
        del self._buffer[:excess]
        self._searched = 0

    def _drop_long(self, size: int) -> None:
        self.counts.dropped_bytes += size + self._fragments_size
        self.counts.garbled += 1
        self._fragments.clear()
        self._fragments_size = 0

    def _packet(self, packet: bytes, now: float, heard: list[Heard]) -> None:
        if self._fragments:
            if not self._answer(packet, heard):
                self._fragment(packet, now, heard)
            return
        packet = packet.removeprefix(EOL)  # what is left of an empty line where text ended in CR LF
        event = read_strict(packet, self._source)
        if event is not None:
            self._release(heard)
            if event.service is Service.SIP:
                self._hold([packet], now)
            else:
                self.counts.events += 1
                heard.append(event)
        elif starts_security_event(packet):
            self._release(heard)
            self._fragment(packet, now, heard)
        elif self._answer(packet, heard):
            pass
        elif self._held:
            self._follow(packet, now, heard)
        else:
            self._other(packet, heard)

    def _fragment(self, packet: bytes, now: float, heard: list[Heard]) -> None:
        """Add to a security event whose tail has not come, and give it out once it has."""
        self._fragments.append(packet)
        self._fragments_size += len(packet)
        # A fragment may begin with the tail itself, right after the empty line that cut it off.
        if has_tail(EOL + packet):
            whole = END.join(self._fragments)
            self._fragments.clear()
            self._fragments_size = 0
            event = read_tampered(whole, self._source)
            # A tail that names no address may be the sender's too: then the true one is yet to come.
            if event is None or event.service is Service.SIP:
                self._hold([whole], now)
            else:
                self._tampered(event, heard)
        elif len(self._fragments) >= MAX_FRAGMENTS or self._fragments_size > MAX_PACKET:
            self._drop_long(0)

    def _hold(self, packets: list[bytes], now: float) -> None:
        self._held = packets
        self._held_size = sum(map(len, packets))
        self.deadline = now + HOLD

    def _follow(self, packet: bytes, now: float, heard: list[Heard]) -> None:
        """Keep what came after a held event, and make them one once a tail shows that they are."""
        self._held.append(packet)
        self._held_size += len(packet)
        if len(self._held) > MAX_FRAGMENTS or self._held_size > MAX_PACKET:
            self._release(heard)
        elif has_tail(EOL + packet):
            self._hold([END.join(self._held)], now)

    def _release(self, heard: list[Heard]) -> None:
        if not self._held:
            return
        (packet, *followers), self._held, self.deadline = self._held, [], None
        event = read_strict(packet, self._source)
        if event is not None:
            self.counts.events += 1
            heard.append(event)
        else:
            self._tampered(read_tampered(packet, self._source), heard)
        for follower in followers:
            self._other(follower, heard)

    def _tampered(self, event: SecurityEvent | None, heard: list[Heard]) -> None:
        if event is None:
            self.counts.garbled += 1
            return
        self.counts.events += 1
        self.counts.tampered += 1
        heard.append(event)

    def _answer(self, packet: bytes, heard: list[Heard]) -> bool:
        """Give out what answers a question of ours, and say whether ``packet`` does."""
        if not self._ours or self._ours not in packet:
            return False
        if packet.startswith(b"Response: "):
            self._other(packet, heard)
        else:
            self._tell(packet, heard)
        return True

    def _tell(self, packet: bytes, heard: list[Heard]) -> None:
        """Give out an event by its headers, unless it holds a password."""
        self.counts.other += 1
        item = None if packet.startswith(AUTH_DETAIL) else item_of(packet)
        if item is not None:
            heard.append(item)

    def _other(self, packet: bytes, heard: list[Heard]) -> None:
        if packet.startswith(b"Response: "):
            heard.append(Reply(packet.decode("utf-8", "backslashreplace")))
        elif packet.startswith(b"Event: ") and not packet.startswith(PRIVILEGE, packet.find(EOL)):
            if packet.startswith(TOLD):
                self._tell(packet, heard)
            else:
                self.counts.other += 1
        else:
            self.counts.garbled += 1
