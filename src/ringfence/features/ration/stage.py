"""The stages of the rations: what leaves the SIP ports to one stranger, and what it sends to them.

* **The ration of questions** stands before the copies, so that the wire sees what Asterisk sees. A connection
  is a WebSocket if Asterisk answered 101. That answer may stand behind another one in its segment, if the
  sender delays both. So all segments count too from the first one that begins with a client's frame. These
  connections have a table of their own: a stranger that fills it by forged segments hides no answer.
* **The ration** is last, so that the wire sees the refusals that it drops, and a banned address uses up none
  of it. Of TCP it leaves out segments that begin a TLS handshake (16 03): a certificate is as long as ten
  refusals, and nobody chooses the bytes of an encrypted answer. Nor does it count segments of a frame at most
  that begin as the answers to a call (``contract.SERVED``): Asterisk serves that stranger (a guest, a carrier
  without a password), and its calls must not wait.

If a table is full, packets of new strangers pass, and are counted. That of the ration fills only if the SIP
ports refuse 100 000 strangers a second.

The chains of the ration of questions go to the next one and never return. So a packet over the ration is
counted once, even if it passes in the mode observe.
"""

import math
from collections.abc import Iterator

from attrs import frozen

from ringfence.firewall.contract import REFUSALS, SERVED, FirewallPlan
from ringfence.firewall.limits import (
    FRAME,
    GUESS,
    USUAL_SECONDS,
    Filter,
    Key,
    LimitMode,
    Table,
    Until,
)
from ringfence.firewall.ports import Ports
from ringfence.firewall.stages import (
    STRANGERS,
    Begins,
    Chain,
    ClientHello,
    Count,
    Crowd,
    Datagram,
    Do,
    Goto,
    Has,
    Hook,
    Is,
    Meter,
    PacketRule,
    Position,
    Remember,
    Segment,
    Shorten,
    Side,
    Stage,
)

NEAR = 8
"""The factor by which all neighbours (/24, /48) of a stranger together may send more than one stranger."""
SEGMENT = 640
"""The maximum size in bytes of TCP segments that strangers are asked for, if the limit on requests drops.

When TCP sends again what was dropped, it fills segments. In longer ones the fifth and the sixth guess would
arrive together, before any ban. So there is room for one guess of usual length (some 500 bytes, and 30 more
by TLS), and not for two. Every host must be able to send 536 bytes (RFC 9293).
"""
MOST_SECONDS = 60
"""Maximum seconds for which the limit on requests remembers a stranger that sends none."""
MOST_HELLO = 3_000
"""The maximum size in bytes of a packet with a ClientHello that is free: two frames, perhaps merged."""
FLOWS = Table("asked_flows", 30, key=Key.FLOW)
"""The table of flows (address and port) that strangers began, each until 30 s after its last packet."""
WEBSOCKETS = Table("asked_websocket", 86_400, 65_536, key=Key.FLOW)
"""The table of strangers' connections that Asterisk has upgraded to WebSocket."""
FRAMED = Table("asked_framed", WEBSOCKETS.seconds, WEBSOCKETS.room, key=Key.FLOW)
"""The table of strangers' other connections on which a segment began as a WebSocket client's frame."""

RATIONED, RATION_FULL, ASKED, ASKED_FULL = "rationed", "ration_full", "asked", "asked_full"
"""The names of counters, for both rations: of packets over the limit, and of strangers without room."""

_REFUSAL = 400  # bytes of a refusal in a TCP segment, with a share of the headers
_ASKED = 350  # bytes: a guess with its headers, rounded up
_HANDSHAKE = 400  # bytes that a client sends in a TLS handshake after its first segment, rounded up
_OURS = Is.FROM_ASTERISK, Is.NAMED, Is.OUTER
_SENT = Side.TO, (Hook.ARRIVING, Hook.LEAVING)
_WITHOUT_DATA = PacketRule((Is.SYN,), Do.RETURN), PacketRule((Is.EMPTY,), Do.RETURN)


@frozen
class Ration(Filter):
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

    name = "ration"
    optional = True
    limits_answers = True
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

    def stages(self, plan: FirewallPlan) -> Iterator[Stage]:
        """Yield the stage (group of firewall rules) of the limit on refusals in ``plan``."""
        ports, over = plan.sip_ports, Chain("rationed", (_count(RATIONED, self),))
        seconds, octets = max(USUAL_SECONDS, -(-self.burst // self.rate)), self.bytes_a_second
        crowd = Crowd(RATION_FULL, seconds)
        answers, stream = Table("ration", what="rationed"), Table("ration_bytes", what="rationed")
        refused = Meter(answers, self.rate, self.burst, over, seconds, full=RATION_FULL, crowd=crowd)
        sent = Meter(stream, octets, octets, over, seconds, in_bytes=True, full=RATION_FULL, crowd=crowd)
        refusals = Chain("ration", (PacketRule((), refused),))
        streams = Chain(
            "ration_stream",
            (
                *_WITHOUT_DATA,
                PacketRule((Ports((), ports.tls), Segment((b"\x16\x03",))), Do.RETURN),
                PacketRule((Ports((), ports.streams), Is.ONE_FRAME, Segment(SERVED)), Do.RETURN),
                PacketRule((), sent),
            ),
        )
        udp, web = Ports(ports.udp, ()), Ports((), ports.web)
        streaming = Ports((), ports.streams + ports.tls)
        rules = (
            PacketRule((*_OURS, udp, Datagram(REFUSALS), STRANGERS), refusals.jump),
            PacketRule((*_OURS, streaming, STRANGERS), streams.jump),
            PacketRule((*_OURS, web, Segment(REFUSALS, framed=True), STRANGERS), refusals.jump),
        )
        what, on = "drops refusals to a stranger that gets too many", self.mode is not LimitMode.OFF
        yield Stage(self.name, what, *_SENT, rules, on=on, chains=(over, refusals, streams))


@frozen
class AskingRation(Filter):
    """The settings of the ration of questions: what one stranger may send to the SIP ports.

    A guesser needs no answer: the Contact of a guess may show that the guess was right. So the kernel counts
    what Asterisk would check. A *stranger* is an address (for IPv6 a /64) that is neither a friend nor on the
    allow list. Its *neighbours* are its /24, or by IPv6 its /48. All together they have 8 times (``NEAR``)
    its ration, so that many addresses gain little.

    By UDP, after a pause, ``burst`` datagrams pass at once, and then ``rate`` a second. Answers (``SIP/2.0``)
    and ``ACK`` requests are free: neither can carry a guess that Asterisk checks. IAX2 has no such ration.

    By TCP, TLS, WS and WSS, ``bytes_at_once`` pass, and then ``bytes_a_second``, with the headers of the
    packets. SYNs and segments without data are free. On the ports of TLS, and on those of ``wss``,
    ``sealed_bytes_at_once`` pass at once; the first segment of a flow is free there if it begins a
    ClientHello and is short, because nothing behind that can be encrypted. On the other ``Ports.web``, only
    the bytes of connections count that were upgraded to WebSocket: Asterisk answered 101, or a segment began
    with a frame of a client. In ``wss`` are the ports of WebSocket over TLS that serve no pages. If packets
    are dropped, the SYN-ACKs of all TCP ports ask strangers for segments of ``SEGMENT`` bytes at most.

    A *flow* is an address with its port, in any of these transports. A stranger begins one flow at once, and
    then ``flows_a_second``; its neighbours begin ``NEAR`` times as many. What counts of another flow is
    dropped. Without this, the first requests of fifty new phones behind one address would use up the ration,
    and none could answer its challenge. With it, one of them registers and makes the address a friend, and
    the others get in when they send again. Nor does one flow get more than ``flow_rate`` datagrams a second:
    if the first phone has a wrong password, the next one finds room.
    """

    name = "asking"
    waits = frozenset({Until.FRIENDS, Until.ROSTERS})
    optional = True
    limits_answers = True
    burst: int = 5
    rate: int = 2

    @property
    def bytes_at_once(self) -> int:
        """How many bytes of one stranger pass at once in clear: ``burst`` guesses, but at least a frame.

        A whole frame must fit, because TCP would repeat a larger segment for ever. Two requests of a phone
        have some 1 500 bytes.
        """
        return max(self.burst * GUESS, FRAME)

    @property
    def sealed_bytes_at_once(self) -> int:
        """How many bytes of one stranger pass at once by TLS: also those of the handshake."""
        return self.bytes_at_once + _HANDSHAKE

    @property
    def bytes_a_second(self) -> int:
        """How many bytes of one stranger pass in a second, once it has used up those that pass at once."""
        return self.rate * _ASKED

    @property
    def flow_rate(self) -> int:
        """How many datagrams of one flow pass in a second, after ``burst`` at once."""
        return max(self.rate // 2, 1)

    @property
    def flows_a_second(self) -> int:
        """How many flows one stranger begins in a second: one for each two datagrams, as a phone does."""
        return max(self.rate // 2, 1)

    @property
    def seconds(self) -> int:
        """Seconds for which the kernel remembers a stranger; by then it may usually send ``burst`` again.

        At most ``MOST_SECONDS``: the tables must have room for all strangers of that time.
        """
        most = max(self.burst / self.rate, self.sealed_bytes_at_once / self.bytes_a_second)
        return min(max(USUAL_SECONDS, math.ceil(most)), MOST_SECONDS)

    def stages(self, plan: FirewallPlan) -> Iterator[Stage]:
        """Yield the stages (groups of firewall rules) of the limit on a stranger's requests in ``plan``."""
        ports, on = plan.sip_ports, self.mode is not LimitMode.OFF
        sealed = tuple(port for port in ports.tcp if port in {*ports.tls, *plan.wss})
        pages = Ports((), tuple(port for port in ports.web if port not in sealed))
        over = Chain("asked", (_count(ASKED, self),))
        made = [over]
        counted: list[tuple[Ports, Chain]] = []
        for what, where in (
            ("", Ports(ports.conversations.udp, ())),
            ("_clear", Ports((), ports.streams)),
            ("_sealed", Ports((), sealed)),
        ):
            made += self._chains(over, what)
            counted.append((where, made[-1]))
        clear = counted[1][1]
        web = (
            PacketRule((Has(WEBSOCKETS),), Remember(WEBSOCKETS)),
            PacketRule((Has(WEBSOCKETS),), Goto(clear)),
            PacketRule((Is.CLIENT_FRAME,), Remember(FRAMED)),
            PacketRule((Has(FRAMED),), Goto(clear)),
            PacketRule((Is.CLIENT_FRAME,), Goto(clear)),  # the table may be full
        )
        counted.append((pages, Chain("asking_web", web)))
        rules = tuple(
            PacketRule((where, Is.NAMED, Is.OUTER, Is.TO_ASTERISK, STRANGERS), chain.jump)
            for where, chain in counted
        )
        name, what = "ration of questions", "drops what a stranger asks too fast"
        arriving, before = (Side.FROM, (Hook.ARRIVING,)), Position.BEFORE_COPIES
        chains = (*made, counted[-1][1])
        yield Stage(name, what, *arriving, rules, on=on, chains=chains, position=before)
        what = "asks strangers for short segments, if the ration of questions drops packets"
        short = PacketRule((Ports((), ports.tcp), *_OURS, Is.SYN_ACK, STRANGERS), Shorten(SEGMENT))
        yield Stage("short segments", what, *_SENT, (short,), on=self.mode is LimitMode.ENFORCE)
        what = "remembers the connections that Asterisk upgrades to WebSocket, for the ration of questions"
        kept = PacketRule((pages, *_OURS, Segment((b"HTTP/1.1 101",)), STRANGERS), Remember(WEBSOCKETS))
        yield Stage("upgrades", what, *_SENT, (kept,), on=on)

    def _chains(self, over: Chain, what: str) -> Iterator[Chain]:
        """Yield three chains that limit what strangers send: all of it, new flows, and the one to begin with.

        ``what`` is "" for UDP, ``_clear`` for TCP, ``_sealed`` for TLS. A packet over a limit goes to
        ``over``.
        """
        udp, tests = not what, [] if what else [(Begins(b"SIP/2.0 "),), (Begins(b"ACK "),)]
        each = Meter(
            Table("asked_each", key=Key.FLOW),
            self.flow_rate,
            self.burst,
            over,
            self.seconds,
            crowd=Crowd(ASKED_FULL, self.seconds),
        )
        limits = {
            "": (self.rate, self.burst),
            "_clear": (self.bytes_a_second, self.bytes_at_once),
            "_sealed": (self.bytes_a_second, self.sealed_bytes_at_once),
        }
        crowd = None if udp else Crowd(ASKED_FULL, self.seconds)
        meters = [*([each] if udp else []), *self._meters(over, what, *limits[what], crowd)]
        more = Chain(f"asking_more{what}", tuple(PacketRule((), meter) for meter in meters))
        # Beyond that, the table of flows would fill. So packets of new flows go on.
        flows = Crowd(ASKED_FULL, FLOWS.seconds, more)
        begun = self._meters(over, "_begun", self.flows_a_second, 1, flows)
        hello = [PacketRule((ClientHello(MOST_HELLO),), Do.RETURN)] if what == "_sealed" else []
        new = Chain(
            f"asking_new{what}",
            (
                *(PacketRule((), meter) for meter in begun),
                PacketRule((), Remember(FLOWS)),
                *hello,
                PacketRule((), Goto(more)),
            ),
        )
        free = [PacketRule(test, Do.RETURN) for test in tests] if udp else _WITHOUT_DATA
        known = (
            PacketRule((Has(FLOWS, known=False),), Goto(new)),
            PacketRule((), Remember(FLOWS)),
            PacketRule((), Goto(more)),
        )
        yield from (more, new, Chain(f"asking{what}", (*free, *known)))

    def _meters(self, over: Chain, what: str, rate: int, burst: int, crowd: Crowd | None) -> Iterator[Meter]:
        """Yield two meters: of one stranger, and of all its neighbours (/24, /48) with eight times as much.

        ``what`` is the kind of traffic: "" (UDP), ``_clear``, ``_sealed`` (bytes by TLS), ``_begun`` (flows).
        ``rate`` is the limit for each second, ``burst`` what passes at once. What is over goes to ``over``.
        """
        in_bytes = what in ("_clear", "_sealed")
        for near, key, times, skips in (("", Key.SENDER, 1, crowd), ("_near", Key.NEAR, NEAR, None)):
            shown = "asking" if what != "_begun" and not near else ""
            table = Table(f"asked{near}{what}", what=shown, key=key)
            yield Meter(
                table,
                rate * times,
                burst * times,
                over,
                self.seconds,
                in_bytes=in_bytes,
                full=ASKED_FULL,
                crowd=skips,
            )


def _count(counter: str, one: Filter) -> PacketRule:
    """Return the rule that counts packets over a limit by ``counter``, and drops them if ``one`` drops."""
    return PacketRule((), Count(counter, drops=one.mode is LimitMode.ENFORCE))


ADDITIONS = AskingRation(), Ration()
