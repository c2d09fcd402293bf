"""The chains of the ration of questions (``limits.AskingRation``), in the notation of iptables-save.

    ringfence-asked:  leave out packets that ask nothing; send those of new flows to ringfence-flow, and the
                      others to ringfence-questions
    ringfence-web:    the same for the connections of WebSocket on ports of web pages
    ringfence-flow:   drop what begins too many flows, and remember the other flows
    ringfence-questions: drop datagrams and bytes over the ration

The chains call each other with goto (``-g``). So in the mode observe, a packet over the ration returns from
all of them at once, and is counted once.

The match hashlimit counts datagrams and flows. Its limit of bytes has a budget for each second, which must be
at least a frame, or no full frame would ever pass. That suits the neighbours of a stranger, who have eight
times its ration. A stranger has less than a frame in a second. So its bytes are counted in units of ``UNIT``:
one rule compares each unit of a packet, with the same table. A packet passes if the table has a unit for
every rule. One that does not pass has used up the units before.

A full hashlimit table drops packets. So packets skip the ration if all strangers together send too many, or
begin too many flows. They are counted (``Counters.asked_full``). If a set is full, the packets of strangers
without room in it pass the tests that need it.

A sender of IPv6 may put an extension header before that of UDP or TCP, and u32 would compare its bytes. So a
test that lets a packet pass demands that no extension header is there.
"""

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.ipset.matches import (
    DATAGRAM,
    HEADER,
    IPV6_HEADER,
    STREAM,
    IptablesRule,
    begins,
    over_all,
    over_each,
    port_matches,
    without_data,
)
from ringfence.firewall.ipset.sets import FLOWS, WEBSOCKETS
from ringfence.firewall.limits import FLOW_SECONDS, FRAME, MOST_HELLO, NEAR, WEBSOCKET_SECONDS, LimitMode

ASKED, WEB, FLOW, QUESTIONS = CHAINS = (
    "ringfence-asked",
    "ringfence-web",
    "ringfence-flow",
    "ringfence-questions",
)
OVER_ASKING = "over the ration of questions"
ASKING_FULL = "without room in the ration of questions"

_IPV4 = 4
_UDP, _TCP = 17, 6
UNIT = 160  # bytes
_CHUNK = 16  # bytes: hashlimit's unit
_MOST = 65_535  # bytes of a packet
# The first two bytes of a frame that a client sends (RFC 6455): text, binary or a continuation, and the mask
# bit. No request of HTTP and no record of TLS begins so.
_FRAMES = "&0x7c80=0x80"


@frozen
class Asking:
    """The ration of questions of one IP version; ``target`` is the target that drops a packet."""

    plan: FirewallPlan
    version: int
    target: str

    def chains(self) -> Mapping[str, Sequence[IptablesRule]]:
        """Return the chains of the ration; none if it is off."""
        if self.plan.asking.mode is LimitMode.OFF:
            return {}
        return {
            WEB: [*self._web()],
            ASKED: [*self._asked()],
            FLOW: [*self._flow()],
            QUESTIONS: [*self._questions()],
        }

    def _web(self) -> Iterator[IptablesRule]:
        begin = 0 if self.version == _IPV4 else IPV6_HEADER
        sockets = WEBSOCKETS[self.version]
        remember = f"-j SET --add-set {sockets} src,src --exist --timeout {WEBSOCKET_SECONDS}"
        known = f"-m set --match-set {sockets} src,src"
        yield IptablesRule(
            f'-p tcp -m u32 --u32 "{STREAM[self.version]}{begin:#x}>>0x10{_FRAMES}" {remember}'
        )
        yield IptablesRule(f"{known} {remember}")
        yield IptablesRule(f"{known} -g {ASKED}")

    def _asked(self) -> Iterator[IptablesRule]:
        flows, asking = FLOWS[self.version], self.plan.asking
        for test in self._unasked():
            yield IptablesRule(f"{test} -j RETURN")
        everything = over_all(f"asked-all-{asking.rate}-{asking.burst}", asking.seconds)
        yield IptablesRule(f"{everything}-j RETURN", ASKING_FULL)
        yield IptablesRule(f"-m set ! --match-set {flows} src,src -g {FLOW}")
        yield IptablesRule(f"-j SET --add-set {flows} src,src --exist --timeout {FLOW_SECONDS}")
        yield IptablesRule(f"-g {QUESTIONS}")

    def _unasked(self) -> Iterator[str]:
        """Yield the matches of packets that ask nothing: answers, ACKs, and segments without data."""
        way, header = (HEADER, 0) if self.version == _IPV4 else ("", IPV6_HEADER)
        for text in (b"SIP/2.0 ", b"ACK "):
            yield f'-p udp -m u32 --u32 "{self._plain(_UDP)}{begins(way, header + DATAGRAM, text)}"'
        yield from (f"-p tcp {test}" for test in without_data(self.version, self._plain(_TCP)))

    def _flow(self) -> Iterator[IptablesRule]:
        rate = self.plan.asking.flows_a_second
        everything = over_all(f"asked-all-flows-{rate}", FLOW_SECONDS)
        yield IptablesRule(f"{everything}-g {QUESTIONS}", ASKING_FULL)
        yield from self._over("", f"flows-{rate}", f"{rate}/sec", f"{rate}")
        yield from self._over("", f"flows-near-{rate}", f"{rate * NEAR}/sec", f"{rate * NEAR}", near=True)
        yield IptablesRule(f"-j SET --add-set {FLOWS[self.version]} src,src --timeout {FLOW_SECONDS}")
        begin = 0 if self.version == _IPV4 else IPV6_HEADER
        stream = STREAM[self.version]
        hello = f"{stream}{begin:#x}>>0x10=0x1603&&{stream}{begin + 2:#x}&0xff=0x1"
        for packets in self._sealed():
            test = f'-m length --length 0:{MOST_HELLO} -m u32 --u32 "{self._plain(_TCP)}{hello}"'
            yield IptablesRule(f"{packets}{test} -j RETURN")
        yield IptablesRule(f"-g {QUESTIONS}")

    def _questions(self) -> Iterator[IptablesRule]:
        asking = self.plan.asking
        rate, burst = asking.rate, asking.burst
        each = f"each-{asking.flow_rate}-{burst}", f"{asking.flow_rate}/sec", f"{burst}"
        yield from self._over("-p udp ", *each, mode="srcip,srcport")
        yield from self._over("-p udp ", f"udp-{rate}-{burst}", f"{rate}/sec", f"{burst}")
        near = f"{rate * NEAR}/sec", f"{burst * NEAR}"
        yield from self._over("-p udp ", f"udp-near-{rate}-{burst}", *near, near=True)
        yield IptablesRule("-p udp -j RETURN")
        # A larger packet was combined on arrival: TCP sends its contents again in smaller ones.
        yield IptablesRule(f"-m length --length {FRAME + 1}:{_MOST} {self._dropping}", OVER_ASKING)
        sealed = self._sealed_ports()
        clear = [port for port in self.plan.sip_ports.tcp if port not in sealed]
        for packets in self._sealed():
            yield from self._bytes(packets, "sealed", asking.sealed_bytes_at_once)
        for packets in port_matches("tcp", clear, "src"):
            yield from self._bytes(packets, "clear", asking.bytes_at_once)

    def _bytes(self, packets: str, name: str, at_once: int) -> Iterator[IptablesRule]:
        """Yield the rules for bytes: one for each unit of a stranger's packet, and one for its neighbours."""
        asking = self.plan.asking
        limits = f"{asking.rate}-{asking.burst}"
        rate, burst = max(asking.bytes_a_second // UNIT, 1), at_once // UNIT
        for shortest in (0, *range(UNIT + UNIT // 2, FRAME + 1, UNIT)):
            length = f"-m length --length {shortest}:{FRAME} " if shortest else ""
            yield from self._over(f"{packets}{length}", f"{name}-{limits}", f"{rate}/sec", f"{burst}")
        near = byte_limit(at_once * NEAR, asking.bytes_a_second * NEAR)
        yield from self._over(packets, f"{name}-near-{limits}", *_in_bytes(*near), near=True)

    def _over(
        self, packets: str, name: str, above: str, burst: str, *, near: bool = False, mode: str = "srcip"
    ) -> Iterator[IptablesRule]:
        """Yield the rule for packets over a limit of a stranger, or of its neighbours (``near``).

        ``burst`` is "" if the limit has none. ``mode`` is what hashlimit counts by.
        """
        seconds = self.plan.asking.seconds
        over = over_each(self.version, f"asked-{name}", above, burst, seconds, mode=mode, near=near)
        yield IptablesRule(f"{packets}{over}{self._dropping}", OVER_ASKING)

    @property
    def _dropping(self) -> str:
        return f"-j {self.target if self.plan.asking.mode is LimitMode.ENFORCE else 'RETURN'}"

    def _plain(self, protocol: int) -> str:
        """Return u32's test for a packet whose IP header is followed by ``protocol``."""
        return "" if self.version == _IPV4 else f"0x4>>0x8&0xff={protocol:#x}&&"

    def _sealed_ports(self) -> tuple[int, ...]:
        return self.plan.asking.sealed(self.plan.sip_ports)

    def _sealed(self) -> list[str]:
        return port_matches("tcp", self._sealed_ports(), "src")


def byte_limit(at_once: int, a_second: int) -> tuple[int, int]:
    """Return hashlimit's limit for bytes: the budget of a second, and the number of refills.

    A sender may use the budget each second, and once also the refills, which return after some silent
    seconds. The budget is at least a frame.
    """
    refills = max(at_once // max(a_second, FRAME) - 1, 0)
    return max(a_second, at_once // (refills + 1), FRAME), refills


def _in_bytes(budget: int, refills: int) -> tuple[str, str]:
    """Return a limit for bytes and its burst as iptables reads them; the burst is "" without refills."""
    rounded = -(-budget // _CHUNK) * _CHUNK
    return f"{rounded}b/s", f"{rounded * refills}b" if refills else ""
