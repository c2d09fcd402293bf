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

``nflog.py`` reads the group, and has the limits. Soon after a *gap*, a loss of packets, a missing challenge
proves nothing.

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
be transmitted again (this happens even without packet loss). ``parse/answer_stream.py`` puts them together,
and ``parse/request_stream.py`` the segments of strangers. Of TLS, ``parse/tls_records.py`` counts the
records. This module stores nothing else.

Measured on two busy cores (kernel 6.18) with replies of Asterisk 22, of 450 bytes: 13 to 17 µs of CPU each, 8
of them for parsing the text. At 6 600 a second (a brute force at full speed), 20 000 and 40 000 a second none
was lost. Of 150 000 packets at 86 000 a second, two thirds were read and the rest was a gap.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from typing import Protocol

from attrs import define

from ringfence.clock import Backoff
from ringfence.netlink.nflog import GROUP, Logged
from ringfence.parse.answer_stream import AnswerStreams
from ringfence.parse.answers import continues, parse_answers, parse_cut
from ringfence.parse.packet import segment_in, source_of
from ringfence.parse.request_stream import RequestStreams
from ringfence.parse.requests import parse_requests
from ringfence.parse.tls_records import TlsStreams, parse_exchange
from ringfence.sources.nflog import BUFFER, NflogCounts, NflogSource
from ringfence.values.event import WIRE, Transport
from ringfence.values.network import Address, Network, format_network
from ringfence.values.packet import CopiedAnswer, CopiedRequest, Exchange

REQUEST = b"request"
"""The NFLOG prefix by which the kernel marks copies of packets that strangers sent."""
DROPPED = b"dropped"
"""The NFLOG prefix of copies of strangers' packets that a ban drops."""

TOGETHER = 8
"""The number of copied SIP answers and requests that are passed on together, although more may wait.

A datagram takes some 35 µs. So an attacker that guesses as fast as the datagrams are read would otherwise
have 9 ms before the first of its guesses counts: some 35 answers more (measured on Asterisk 22).
"""

_MOST_KNOWN = 4096  # addresses of which it is cached whether they are in a container's network

WireItem = CopiedAnswer | CopiedRequest | Exchange


class CopyReader(Protocol):
    """A parser of the packets that the rules of a feature copy."""

    def read(self, packet: bytes, now: float, lost: float) -> Sequence[WireItem] | None:
        """Return what a packet that was copied at ``now`` shows; None if it cannot be parsed.

        ``lost`` is when a packet was lost last. Both are monotonic seconds.
        """


class WireSink:
    """Handles the contents of packets that the kernel copied. This class does nothing; a subclass does."""

    def on_packets(self, seen: Sequence[WireItem], now: float) -> None:
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
class WireCounts(NflogCounts):
    """Numbers of the packets that the kernel copied, since the start, besides those of each group.

    - ``challenges``: answers of this host or its containers.
    - ``requests``: requests of strangers.
    - ``exchanges``: answers to strangers by TLS.
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
    passing: int = 0
    foreign: int = 0
    unowned: int = 0
    unnamed: int = 0
    unread: int = 0
    exported: int = 0


class WireSource(NflogSource):
    """Reads the SIP packets that the kernel copies over NFLOG.

    ``sink`` gets what they show, ``host`` decides which answers count. ``containers`` are the networks
    whose forwarded answers count; :meth:`set_containers` changes them.
    """

    counts: WireCounts

    def __init__(
        self,
        sink: WireSink,
        host: WireHost | None = None,
        backoff: Backoff | None = None,
        *,
        containers: Sequence[Network] = (),
        group: int = GROUP,
        buffer: int = BUFFER,
    ) -> None:
        super().__init__(WIRE, group, backoff, buffer)
        self.counts = WireCounts()
        self._sink = sink
        self._host = host or WireHost()
        self.containers = tuple(containers)
        self._is_bridged = lru_cache(maxsize=_MOST_KNOWN)(partial(_is_in, self.containers))
        self._seen: list[WireItem] = []  # what is not passed on yet
        self._streams = AnswerStreams()
        self._requests = RequestStreams()
        self._tls = TlsStreams()
        self.readers: dict[bytes, CopyReader] = {}
        """The parsers of the packets that the rules of features copy, by their NFLOG prefix."""

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
            self.on_gap(time.monotonic())

    @property
    def numbers(self) -> Mapping[str, object]:
        """The numbers of copied packets, and the networks of containers, as the status shows them."""
        counts = self.counts
        return {
            **super().numbers,
            "events": counts.challenges,
            "passing": counts.passing,
            "foreign": counts.foreign,
            "unnamed": counts.unnamed,
            "unread": counts.unread,
            "exchanges": counts.exchanges,
            "exported": counts.exported,
            "containers": [format_network(network) for network in self.containers],
        }

    def on_packet(self, message: Logged, now: float) -> None:
        """Parse a copied packet by its NFLOG prefix, and collect what the packet shows.

        The sink gets what is collected once it has ``TOGETHER`` (8) items. ``now`` is in monotonic seconds.
        """
        if message.prefix in (REQUEST, DROPPED):
            self._add_request(message)
        elif message.prefix:
            self._add_copy(message, now)
        else:
            self._add_answers(message, now)
        if len(self._seen) >= TOGETHER:
            self._pass_on(now)

    def on_turn(self, now: float, *, more: bool) -> None:
        """Pass to the sink what is collected, although it may be less than ``TOGETHER`` items.

        Without ``more`` no packet waits. Then an answer whose rest may not come is parsed as it is.
        """
        if not more:
            self._add_challenges(parse_cut(self._streams))
        if self._seen:
            self._pass_on(now)

    def _pass_on(self, now: float) -> None:
        seen, self._seen = self._seen, []
        self._sink.on_packets(seen, now)

    def on_gap(self, now: float) -> None:
        """Record, and report to the sink, that copied packets were lost at ``now`` (monotonic seconds)."""
        super().on_gap(now)
        self._sink.on_gap(now)

    def _add_request(self, message: Logged) -> None:
        requests = parse_requests(message.payload, self._requests, dropped=message.prefix == DROPPED)
        if requests is None:
            self.counts.unreadable += 1
            return
        unread = sum(one.unread and one.transport is Transport.TCP for one in requests)
        self.counts.unread += unread
        self.counts.requests += sum(bool(one.digest) for one in requests)
        self._seen += requests

    def _add_copy(self, message: Logged, now: float) -> None:
        """Collect what a packet shows that a feature has the kernel copy, if Asterisk sent it.

        Count the packet as exported, or as unreadable.
        """
        reader = self.readers.get(message.prefix)
        if reader is None or not self._is_own(message, now):
            return
        found = reader.read(message.payload, now, self._lost)
        if found is None:
            self.counts.unreadable += 1
            return
        self.counts.exported += 1
        self._seen += found

    def _add_answers(self, message: Logged, now: float) -> None:
        if not (self._is_own(message, now) if message.own else self._is_containers(message, now)):
            return
        answers = parse_answers(message.payload, self._streams)
        datagram = bool(answers) and answers[0].transport is Transport.UDP
        if not datagram and segment_in(message.payload) is not None:
            self._add_exchange(message.payload)
        elif not answers:
            self.counts.unreadable += 1
        self._add_challenges(answers)

    def _add_exchange(self, segment: bytes) -> None:
        """Collect, and count, what a TCP segment (an IP packet) shows of an unreadable stream."""
        for one in parse_exchange(segment, self._tls, self._requests, self._host.has_pages):
            if isinstance(one, CopiedRequest):
                self.counts.unread += 1
            else:
                self.counts.exchanges += one.number
                self._host.on_exchange()
            self._seen.append(one)

    def _add_challenges(self, challenges: Sequence[CopiedAnswer]) -> None:
        self.counts.challenges += len(challenges)
        self._seen += challenges

    def _is_own(self, message: Logged, now: float) -> bool:
        """Whether Asterisk or a SIP proxy sent a packet of this host; if not, count the packet as ignored."""
        if message.user is None:
            known: bool | None = continues(message.payload, self._streams)
        else:
            known = self._host.is_asterisks(message.user)
        if known is None:
            self.counts.unowned += 1
            self.on_gap(now)
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
            self.on_gap(now)
        elif not known:
            self.counts.foreign += 1
        return bool(known)


def _is_in(networks: Sequence[Network], address: Address) -> bool:
    return any(address in network for network in networks)
