"""What features add to the rules: filters, which count or drop packets of strangers, and their tables."""

import enum
import math
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Self

from attrs import evolve, frozen

from ringfence import street

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ringfence.firewall.contract import FirewallPlan
    from ringfence.firewall.ports import Ports
    from ringfence.firewall.stages import Stage

GUESS = 300
"""Bytes. No guess is shorter, with its headers."""
MOST_LIMITED = 1_000_000
"""The number of addresses for which the limiter has room, and the ration, and the limit of the copies."""
FLOOD_SECONDS = 10
"""Seconds that the limiter remembers an address, and a flood set a source over the limit."""
NEAR_LENGTHS = {4: 24, 6: 48}
"""The prefix length of a stranger's *neighbours*, by IP version: they share a ration of questions too."""
NEAR = 8
"""How many times the ration of questions of one stranger all its neighbours have together."""
GUESTS = 8
"""How many times the ration of questions a stranger has if the PBX takes calls from strangers."""
SEGMENT = 640
"""Bytes: the maximum segment that strangers are asked for, if the ration of questions drops packets.

When TCP sends again what was dropped, it fills segments. In longer ones the fifth and the sixth guess would
arrive together, before any ban. So there is room for one guess of usual length (some 500 bytes, and 30 more
by TLS), and not for two. Every host must be able to send 536 bytes (RFC 9293).
"""
FLOW_SECONDS = 30
"""Seconds that the ration of questions remembers a flow after its last packet."""
WEBSOCKET_SECONDS = 86_400
"""The same for a connection that Asterisk has upgraded to WebSocket."""
MOST_SECONDS = 60
"""The longest time that the ration of questions remembers a stranger without questions."""
MOST_HELLO = 3_000
"""The length of the longest ClientHello that is free, as a packet: two frames, which the kernel may merge."""
MOST_WEBSOCKETS = 65_536
"""The number of such connections that are remembered."""

_REFUSAL = 400  # bytes of a refusal in a TCP segment, with a share of the headers
FRAME = 1_600  # bytes: an Ethernet frame, rounded up
_ASKED = 350  # bytes: a guess with its headers, rounded up
_HANDSHAKE = 400  # bytes that a client sends in a TLS handshake after its first segment, rounded up


class LimitMode(enum.StrEnum):
    """The mode of the limiter, of the two rations and of the fence: off, only count packets, or drop them."""

    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"


class Until(enum.Enum):
    """What a filter waits for: until then it only counts packets."""

    FRIENDS = "the friends (known phones and trunks) are known"
    LISTS = "the kernel has all networks of the lists"


class Addition:
    """What a feature adds to the rules. ``name`` is its name in the status and in the log.

    ``copies``: its rules copy packets to an NFLOG group of its own.
    """

    name: ClassVar[str]
    copies: ClassVar[bool] = False

    def stages(self, plan: "FirewallPlan") -> "Iterable[Stage]":
        """Return its stages in the rules of ``plan``, also those that are off."""
        raise NotImplementedError


@frozen
class Filter(Addition):
    """An addition that counts or drops packets, by its mode.

    ``waits`` is what it waits for. If it is ``optional``, it is left out if the kernel cannot do it.
    """

    waits: ClassVar[frozenset[Until]] = frozenset()
    optional: ClassVar[bool] = False
    mode: LimitMode = LimitMode.OFF

    def observing(self, until: Until) -> Self:
        """Return what it is before ``until``: one that waits for this drops nothing."""
        waits = self.mode is LimitMode.ENFORCE and until in self.waits
        return evolve(self, mode=LimitMode.OBSERVE) if waits else self


class Key(enum.Enum):
    """What a table of the kernel counts by. It is the remote address of a packet, or a part of it."""

    SENDER = "an address, of IPv6 a /64"
    ADDRESS = "an address"


@frozen
class Table:
    """A table of the kernel: the addresses that sent or got something lately, each for ``seconds``.

    It has ``room`` for so many of an IP version. ``what`` names them in the status, if that shows them.
    ``renews``: each packet begins the time of its address again, and the count of its packets goes on.
    """

    name: str
    seconds: int = FLOOD_SECONDS
    room: int = MOST_LIMITED
    what: str = ""
    key: Key = Key.SENDER
    renews: bool = False


@cache
def additions() -> tuple[Addition, ...]:
    """Return what the installed features add to the rules, as it is while it is off."""
    return tuple(one for module in street.modules("stage") for one in module.ADDITIONS)


@frozen
class Ration:
    """The settings of the ration: how many refusals leave the SIP ports to one stranger.

    A *refusal* is a SIP answer 401, 403 or 407. A *stranger* is an address that is neither a friend nor on
    the allow list; for IPv6 it is a /64. After a pause, ``burst`` refusals to a stranger pass at once, and
    then ``rate`` a second. So a guesser gets ``burst`` answers, however fast it guesses and Asterisk answers:
    the kernel counts, and waits for no daemon.

    By TCP and TLS the kernel counts bytes, whatever stands in them (``bytes_a_second``): one segment may hold
    many refusals, and begin in the middle of one. A segment that is dropped is sent again by TCP, so
    nothing breaks. The port of HTTP serves web pages too, so there only segments count that begin with a
    refusal in a WebSocket frame.
    """

    mode: LimitMode = LimitMode.OFF
    burst: int = 4
    rate: int = 2

    @property
    def bytes_a_second(self) -> int:
        """How many bytes pass to one stranger in a second by TCP, with the headers of the packets.

        A challenge and ``burst`` refusals need so many: the shortest refusal of Asterisk has some 350 bytes.
        A whole frame must fit, because TCP would repeat a larger segment for ever. They are the same in each
        second, because most guessers are banned in the first one, and calls of strangers must not wait long.
        """
        return max((self.burst + 1) * _REFUSAL, FRAME)


@frozen
class AskingRation:
    """The settings of the ration of questions: what one stranger may send to the SIP ports.

    A guesser needs no answer: the Contact of a guess may show that the guess was right. So the kernel counts
    what Asterisk would check. A *stranger* is what it is for the ration. Its *neighbours* are its /24, or by
    IPv6 its /48. All together they have ``NEAR`` times its ration, so that many addresses gain little.

    By UDP, after a pause, ``burst`` datagrams pass at once, and then ``rate`` a second. Answers (``SIP/2.0``)
    and ``ACK`` requests are free: neither can carry a guess that Asterisk checks. IAX2 has no such ration.

    By TCP, TLS, WS and WSS, ``bytes_at_once`` pass, and then ``bytes_a_second``, with the headers of the
    packets. SYNs and segments without data are free. On the ports of TLS, and on those of ``wss``,
    ``sealed_bytes_at_once`` pass at once; the first segment of a flow is free there if it begins a
    ClientHello and is short, because nothing behind that can be encrypted. On the other ``Ports.web``, only
    the bytes of connections count that were upgraded to WebSocket: Asterisk answered 101, or a segment begins
    with a frame of a client. In ``wss`` are the ports of WebSocket over TLS that serve no pages. If packets
    are dropped, the SYN-ACKs of all TCP ports ask strangers for segments of ``SEGMENT`` bytes at most.

    A *flow* is an address with its port, in any of these transports. A stranger begins one flow at once, and
    then ``flows_a_second``; its neighbours begin ``NEAR`` times as many. What counts of another flow is
    dropped. Without this, the first requests of fifty new phones behind one address would use up the ration,
    and none could answer its challenge. With it, one of them registers and makes the address a friend, and
    the others get in when they send again. Nor does one flow get more than ``flow_rate`` datagrams a second:
    if the first phone has a wrong password, the next one finds room.
    """

    mode: LimitMode = LimitMode.OFF
    burst: int = 5
    rate: int = 2
    wss: tuple[int, ...] = ()

    @property
    def bytes_at_once(self) -> int:
        """How many bytes of one stranger pass at once in clear: ``burst`` guesses, but at least a frame.

        A whole frame must fit, because TCP would repeat a larger segment for ever. Two requests of a phone
        have some 1 500 bytes.
        """
        return max(self.burst * GUESS, FRAME)

    @property
    def sealed_bytes_at_once(self) -> int:
        """The same by TLS, where a handshake comes first."""
        return self.bytes_at_once + _HANDSHAKE

    @property
    def bytes_a_second(self) -> int:
        """How many more bytes of one stranger pass in a second."""
        return self.rate * _ASKED

    @property
    def flow_rate(self) -> int:
        """How many datagrams of one flow pass in a second, after ``burst`` at once."""
        return max(self.rate // 2, 1)

    @property
    def flows_a_second(self) -> int:
        """How many flows one stranger begins in a second: one for each two datagrams, as a phone does."""
        return max(self.rate // 2, 1)

    def sealed(self, ports: "Ports") -> tuple[int, ...]:
        """Return those of ``ports`` that speak TLS and serve no pages: all bytes to them count."""
        return tuple(port for port in ports.tcp if port in {*ports.tls, *self.wss})

    def pages(self, ports: "Ports") -> tuple[int, ...]:
        """Return those of ``ports`` that serve web pages: only the bytes of a WebSocket count."""
        sealed = self.sealed(ports)
        return tuple(port for port in ports.web if port not in sealed)

    @property
    def seconds(self) -> int:
        """How many seconds a stranger is remembered; by then it has its whole ration again, if it is usual.

        At most ``MOST_SECONDS``: the tables must have room for all strangers of that time.
        """
        most = max(self.burst / self.rate, self.sealed_bytes_at_once / self.bytes_a_second)
        return min(max(FLOOD_SECONDS, math.ceil(most)), MOST_SECONDS)
