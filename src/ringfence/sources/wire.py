"""The wire as a source: SIP answers that leave this host, and strangers' requests, as the kernel copies them.

The firewall's log rules (``firewall/stages.py``) copy answers to NFLOG group ``GROUP``: all answers by UDP to
strangers, and of other answers those with the status 401, 403, 404 or 407. Answers of this host are copied
even if a ban drops them. All copied answers are called challenges here. No text of a sender can suppress this
source: it reports packets as the kernel saw them. A host has one wire for all its Asterisks.

The same group carries the packets of strangers to the SIP ports, by UDP, plain TCP and WebSocket. Their log
rule marks each copy with the prefix ``request`` (``dropped``, if a ban drops it). A packet with such a prefix
is parsed as requests only, because the stranger wrote it. A packet without it is parsed as answers only,
because this host sent or forwarded it.

A feature may have the kernel copy other packets of this host, with a prefix of its own: messages of TLS and
WSS that Asterisk exports. They count only if the sending socket belongs to Asterisk's user, and a parser of
the feature reads them (:attr:`WireSource.readers`).

The socket is read in the event loop, at most ``TURN`` datagrams or ``TURN_BYTES`` at a time, so that a flood
of challenges never delays the manager interface. Unread packets wait in the kernel, in at most 32 MB of its
memory. If packets are lost, the socket reports ENOBUFS, or a sequence number is missing. Each loss is a
*gap*: soon after a gap, a missing challenge proves nothing. The beginning and the end of a session are gaps
too, because packets before and after it are not read.

An answer of this host itself counts only if Asterisk or a configured SIP proxy sent it: a stranger can make
other programs (coturn, rtpengine) send packets with any content. The kernel names the user of the packet's
socket. The reader compares this user, and not the rules: the rules then stay the same when Asterisk starts
under another user, and an unknown user differs from a wrong one. While it is unknown which user is
Asterisk's, no answer of this host counts, and each is a gap. If Asterisk has closed a TCP connection, what is
left of it has no user any more, and belongs to the connection that was Asterisk's before.

Answers that are forwarded, as those of bridged containers, may be written by other hosts, but only from the
link to which their address belongs (the log rule checks that). They count only if they come from a network of
``containers`` and from an address of Asterisk: a stranger can make other containers send any packet.
These networks change. A new network is a gap too, because its earlier answers were not counted. While it is
unknown which address is Asterisk's, no answer of a container counts, and each is a gap.

The destination of a request is not checked. The rule copies the request before destination NAT, so
the address of a target container is still unknown then. The check is not needed either: the request's nonces
prove its source address, because this host sent each nonce to one address only.

The kernel copies every TCP segment to strangers, because an answer may stand anywhere in the stream, and may
be transmitted again (this happens even without packet loss). ``parse/stream.py`` puts them together, and
``parse/request_stream.py`` the segments of strangers. Of TLS, ``parse/tls_records.py`` counts the records.
This module stores nothing else.

Measured on two busy cores (kernel 6.18) with replies of Asterisk 22, of 450 bytes: 13 to 17 µs of CPU each, 8
of them for parsing the text. At 6 600 a second (a brute force at full speed), 20 000 and 40 000 a second none
was lost. Of 150 000 packets at 86 000 a second, two thirds were read and the rest was a gap.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from math import inf
from operator import attrgetter
from typing import Protocol

import structlog
from attrs import define

from ringfence.clock import Backoff
from ringfence.gathering import patient
from ringfence.netlink.connection import NETLINK_NETFILTER, open_listener
from ringfence.netlink.nflog import GROUP, Acknowledged, Logged, bind_request, missing, read_datagram
from ringfence.parse.challenge import continues, is_segment, parse_answers, parse_cut
from ringfence.parse.packet import source_of
from ringfence.parse.request_stream import RequestStreams
from ringfence.parse.requests import parse_requests
from ringfence.parse.stream import Streams
from ringfence.parse.tls_records import TlsStreams, parse_exchange
from ringfence.sources.state import Condition, EndError, State, SupervisedSource
from ringfence.values.event import Transport
from ringfence.values.network import Address, Network
from ringfence.values.packet import Challenge, CopiedRequest, Exchange

REQUEST = b"request"
"""The NFLOG prefix by which the kernel marks copies of packets that strangers sent."""
DROPPED = b"dropped"
"""The NFLOG prefix of copies of strangers' packets that a ban drops."""

MOST_TURNS = 16
"""The maximum number of reads (of ``TURN`` messages each) in one :meth:`WireSource.drain`."""

TURN = 256
TURN_BYTES = 1 << 20
"""The maximum number of bytes of netlink messages that are read before other parts of the daemon run."""

TOGETHER = 8
"""The number of copied SIP answers and requests that are passed on together, although more may wait.

A datagram takes some 35 µs. So an attacker that guesses as fast as the datagrams are read would otherwise
have 9 ms before the first of its guesses counts: some 35 answers more (measured on Asterisk 22).
"""

_BUFFER = 16 << 20  # bytes of the socket's receive buffer; the kernel doubles the number
_MOST_KNOWN = 4096  # addresses of which it is cached whether they are in a container's network
_DATAGRAM = 1 << 17  # bytes; the kernel makes no longer datagram (one packet, or one buffer of messages)

WireItem = Challenge | CopiedRequest | Exchange


class CopyReader(Protocol):
    """A parser of the packets that the rules of a feature copy."""

    def read(self, packet: bytes, now: float, lost: float) -> Sequence[WireItem] | None:
        """Return what a packet that was copied at ``now`` shows; None if it cannot be parsed.

        ``lost`` is when a packet was lost last. Both are monotonic seconds.
        """


class WireSink:
    """Handles the contents of packets that the kernel copied. This class does nothing; a subclass does."""

    def on_challenges(self, seen: Sequence[WireItem], now: float) -> None:
        """Handle the contents of copied packets, in their order; they arrived at ``now`` (monotonic)."""

    def on_gap(self, now: float) -> None:
        """Handle a loss of copied packets at ``now`` (monotonic), before later packets are passed on."""


class WireHost:
    """What the reader of copied packets must know about this host. By default, all answers count."""

    def on_exchange(self) -> None:
        """Handle that a stranger gets an answer by TLS."""

    def is_asterisks(self, user: int) -> bool | None:  # noqa: ARG002 - for a host that knows
        """Whether the user with this number runs Asterisk or a SIP proxy; None if that is unknown."""
        return True

    def is_container(self, address: Address) -> bool | None:  # noqa: ARG002 - for a host that knows
        """Whether a container's address is Asterisk's; None if that is unknown."""
        return True

    def has_pages(self, port: int) -> bool:  # noqa: ARG002 - for a host that knows
        """Whether strangers may read web pages at a port by TLS."""
        return True


@define
class WireCounts:
    """Numbers of the packets that the kernel copied, since the start.

    - ``challenges``: answers of this host or its containers.
    - ``requests``: requests of strangers.
    - ``exchanges``: answers to strangers by TLS.
    - ``gaps``: how often packets were lost.
    - ``lost``: lost packets, as far as sequence numbers show them.
    - ``unreadable``: messages of the packet log that could not be parsed.
    - ``passing``: packets of other hosts, which do not count.
    - ``foreign``: packets of other programs on this host and of other containers, which do not count.
    - ``unowned``: packets of this host that do not count because it is unknown which user is Asterisk's.
    - ``unnamed``: packets of containers that do not count because it is unknown which address is Asterisk's.
    - ``unread``: TCP connections of strangers of which not all requests could be read.
    - ``exported``: messages of TLS and WSS that Asterisk exports.
    """

    challenges: int = 0
    requests: int = 0
    exchanges: int = 0
    gaps: int = 0
    lost: int = 0
    unreadable: int = 0
    passing: int = 0
    foreign: int = 0
    unowned: int = 0
    unnamed: int = 0
    unread: int = 0
    exported: int = 0


class WireSource(SupervisedSource):
    """Reads the SIP packets that the kernel copies over NFLOG. A session is one binding of a socket.

    ``sink`` gets what they show, and ``host`` decides which answers count. ``containers`` are the networks
    whose forwarded answers count; :meth:`set_containers` changes them. ``buffer`` is the size of the socket's
    receive buffer in bytes, which the kernel doubles.
    """

    def __init__(
        self,
        sink: WireSink,
        host: WireHost | None = None,
        backoff: Backoff | None = None,
        *,
        containers: Sequence[Network] = (),
        group: int = GROUP,
        buffer: int = _BUFFER,
    ) -> None:
        super().__init__(structlog.get_logger().bind(source="wire"), backoff)
        self.counts = WireCounts()
        self.last_sign: float | None = None
        """The monotonic time at which a packet was read last; None before the first packet."""
        self._sink = sink
        self._host = host or WireHost()
        self.containers = tuple(containers)
        self._is_bridged = lru_cache(maxsize=_MOST_KNOWN)(partial(_is_in, self.containers))
        self._group = group
        self._buffer = buffer
        self._space = memoryview(bytearray(_DATAGRAM))
        self._last: int | None = None
        self._streams = Streams()
        self._requests = RequestStreams()
        self._tls = TlsStreams()
        self.readers: dict[bytes, CopyReader] = {}
        """The parsers of the packets that the rules of features copy, by their NFLOG prefix."""
        self._lost = -inf
        self._bound: tuple[socket.socket, asyncio.Future[None]] | None = None

    def drain(self) -> None:
        """Read the packets that have arrived, so that they count before the next events of other sources."""
        for _ in range(MOST_TURNS):
            if self._bound is None or not self._readable(*self._bound):
                return

    def set_containers(self, networks: Iterable[Network]) -> None:
        """Set the networks of this host's containers, whose forwarded SIP answers count.

        A new network counts as a loss of packets, because its earlier answers did not count.
        """
        containers = tuple(sorted(networks, key=attrgetter("version", "network_address", "prefixlen")))
        new = set(containers) - set(self.containers)
        if containers != self.containers:
            self.containers = containers
            self._is_bridged = lru_cache(maxsize=_MOST_KNOWN)(partial(_is_in, containers))
        if new:
            self._on_gap(time.monotonic())

    async def _session(self) -> None:
        """Read copied packets from one NFLOG socket until that fails; raise EndError with the reason."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        with _open(self._buffer) as connection:
            _bind(connection, self._group)
            self._last = None
            self._on_gap(loop.time())
            loop.add_reader(connection, self._readable, connection, ended)
            self._bound = connection, ended
            try:
                with patient(connection.fileno()):
                    self._set_condition(Condition(State.LISTENING, f"NFLOG group {self._group}"))
                    await ended
            finally:
                loop.remove_reader(connection)
                self._bound = None
                self._on_gap(loop.time())

    def _readable(self, connection: socket.socket, ended: asyncio.Future[None]) -> bool:
        """Read and pass on copied packets up to ``TURN`` and ``TURN_BYTES``; return whether more may wait.

        An error is set in ``ended``, and so ends the session.
        """
        try:
            return self._read_turn(connection)
        except Exception as error:  # noqa: BLE001 - raised again where the binding is awaited
            if not ended.done():
                ended.set_exception(error)
            return False

    def _read_turn(self, connection: socket.socket) -> bool:
        seen: list[WireItem] = []
        read, more = 0, True
        now = time.monotonic()
        for _ in range(TURN):
            try:
                size = connection.recv_into(self._space)
            except BlockingIOError:
                more = False
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise EndError(State.LOST, f"netlink: {error.strerror}") from error
                self._record_loss(0, now)
                continue
            self._handle(bytes(self._space[:size]), seen, now)
            if len(seen) >= TOGETHER:
                self._sink.on_challenges(seen, now)
                seen = []
            read += size
            if read >= TURN_BYTES:
                break
        if not more:
            self._add_challenges(parse_cut(self._streams), seen)
        if read:
            self.last_sign = now
        if seen:
            self._sink.on_challenges(seen, now)
        return more

    def _handle(self, datagram: bytes, seen: list[WireItem], now: float) -> None:
        for message in read_datagram(datagram):
            if isinstance(message, Logged):
                self._check_sequence(message.sequence, now)
                if message.prefix in (REQUEST, DROPPED):
                    self._add_request(message, seen)
                elif message.prefix:
                    self._add_copy(message, seen, now)
                else:
                    self._add_answers(message, seen, now)
            elif message is None:
                self.counts.unreadable += 1

    def _add_request(self, message: Logged, seen: list[WireItem]) -> None:
        requests = parse_requests(message.payload, self._requests, dropped=message.prefix == DROPPED)
        if requests is None:
            self.counts.unreadable += 1
            return
        unread = sum(one.unread and one.transport is Transport.TCP for one in requests)
        self.counts.unread += unread
        self.counts.requests += sum(bool(one.digest) for one in requests)
        seen += requests

    def _add_copy(self, message: Logged, seen: list[WireItem], now: float) -> None:
        """Add to ``seen`` what a packet shows that a feature has the kernel copy, if Asterisk sent it."""
        reader = self.readers.get(message.prefix)
        if reader is None or not self._is_own(message, now):
            return
        found = reader.read(message.payload, now, self._lost)
        if found is None:
            self.counts.unreadable += 1
            return
        self.counts.exported += 1
        seen += found

    def _add_answers(self, message: Logged, seen: list[WireItem], now: float) -> None:
        if not (self._is_own(message, now) if message.own else self._is_containers(message, now)):
            return
        answers = parse_answers(message.payload, self._streams)
        datagram = bool(answers) and answers[0].transport is Transport.UDP
        if not datagram and is_segment(message.payload):
            self._add_exchange(message.payload, seen)
        elif not answers:
            self.counts.unreadable += 1
        self._add_challenges(answers, seen)

    def _add_exchange(self, segment: bytes, seen: list[WireItem]) -> None:
        """Add to ``seen`` what a TCP segment shows of a stream that cannot be read, such as TLS."""
        for one in parse_exchange(segment, self._tls, self._requests, self._host.has_pages):
            if isinstance(one, CopiedRequest):
                self.counts.unread += 1
            else:
                self.counts.exchanges += one.number
                self._host.on_exchange()
            seen.append(one)

    def _add_challenges(self, challenges: Sequence[Challenge], seen: list[WireItem]) -> None:
        self.counts.challenges += len(challenges)
        seen += challenges

    def _is_own(self, message: Logged, now: float) -> bool:
        """Whether Asterisk or a SIP proxy sent a packet of this host; if not, count the packet as ignored."""
        if message.user is None:
            known: bool | None = continues(message.payload, self._streams)
        else:
            known = self._host.is_asterisks(message.user)
        if known is None:
            self.counts.unowned += 1
            self._on_gap(now)
        elif not known:
            self.counts.foreign += 1
        return bool(known)

    def _is_containers(self, message: Logged, now: float) -> bool:
        """Whether Asterisk's container sent a packet that this host forwarded; else count it as ignored."""
        source = source_of(message.payload)
        if source is None or not self._is_bridged(source):
            self.counts.passing += 1
            return False
        known = self._host.is_container(source)
        if known is None:
            self.counts.unnamed += 1
            self._on_gap(now)
        elif not known:
            self.counts.foreign += 1
        return bool(known)

    def _check_sequence(self, number: int | None, now: float) -> None:
        if number is not None:
            lacking = missing(self._last, number)
            self._last = number
            if lacking:
                self._record_loss(lacking, now)

    def _on_gap(self, now: float) -> None:
        self._lost = now
        self._sink.on_gap(now)

    def _record_loss(self, number: int, now: float) -> None:
        """Record at ``now`` a loss of ``number`` copied packets; 0 if the number is unknown."""
        self.counts.gaps += 1
        self.counts.lost += number
        self._on_gap(now)


def _is_in(networks: Sequence[Network], address: Address) -> bool:
    return any(address in network for network in networks)


_NO_NFLOG = (
    "this kernel has no packet log; fix: `modprobe nfnetlink_log xt_NFLOG` "
    "(CONFIG_NETFILTER_NETLINK_LOG; in a container: on its host)"
)


def _open(buffer: int) -> socket.socket:
    """Open the NFLOG socket, with a receive buffer of ``buffer`` bytes, which the kernel doubles."""
    try:
        return open_listener(NETLINK_NETFILTER, buffer)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            detail = "the unit's RestrictAddressFamilies= lacks AF_NETLINK; fix: use the unit as shipped"
            raise EndError(State.DENIED, detail) from error
        if error.errno == errno.EPROTONOSUPPORT:
            raise EndError(State.ABSENT, _NO_NFLOG) from error
        raise EndError(State.LOST, f"netlink: {error.strerror}") from error


def _bind(connection: socket.socket, group: int) -> None:
    """Bind the socket to an NFLOG group; raise EndError if the kernel refuses."""
    try:
        connection.send(bind_request(group))
        answers = list(read_datagram(connection.recv(_DATAGRAM)))
    except OSError as error:
        raise EndError(State.LOST, f"netlink: {error.strerror}") from error
    code = next((answer.code for answer in answers if isinstance(answer, Acknowledged)), errno.EPROTO)
    if code in (errno.EPERM, errno.EBUSY):
        detail = (
            f"NFLOG group {group} may not be read: CAP_NET_ADMIN is lacking (the systemd unit grants it, by "
            "hand: run as root), or another program reads it (see /proc/net/netfilter/nfnetlink_log)"
        )
        raise EndError(State.DENIED, detail)
    if code in (errno.EINVAL, errno.EOPNOTSUPP):
        raise EndError(State.ABSENT, _NO_NFLOG)
    if code:
        raise EndError(State.LOST, f"NFLOG group {group}: {errno.errorcode.get(code, code)}")
