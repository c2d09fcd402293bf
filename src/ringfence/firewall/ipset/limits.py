"""The chains that limit what one stranger sends or gets, in the notation of iptables-save.

    raw     ringfence-ration:  count the refusals to each stranger; drop those over the ration
            ringfence-bytes:   the same for the bytes of SIP over TCP and TLS
            ringfence-asked:   leave out packets that ask nothing; send those of new flows to ringfence-flow,
                               and the others to ringfence-questions
            ringfence-web:     the same for the connections of WebSocket on ports of web pages
            ringfence-flow:    drop what begins too many flows, and remember the other flows
            ringfence-questions: drop datagrams and bytes over the ration of questions

The ration (``limits.Ration``) is a hashlimit too, by the address of the receiver: one for the refusals by
UDP, one for the bytes by TCP. It leaves out segments without data, and those that begin a TLS handshake or an
answer to a stranger that Asterisk serves (``stages.py`` has the reasons). hashlimit refills the
whole byte budget each second, and a packet larger than the budget costs only the budget, so such packets are
over the ration. Its table must not become full, because a full table would drop the packets to every new
stranger. So packets skip the ration if the SIP ports send too many a second to all strangers together. They
are counted (``ration_full``).

The chains of the ration of questions (``limits.AskingRation``) call each other with goto (``-g``). So in the
mode observe, a packet over the ration returns from all of them at once, and is counted once.

The match hashlimit counts datagrams and flows. Its limit of bytes has a budget for each second, which must be
at least a frame, or no full frame would ever pass. That suits the neighbours of a stranger, who have eight
times its ration. A stranger has less than a frame in a second. So its bytes are counted in units of ``UNIT``:
one rule compares each unit of a packet, with the same table. A packet passes if the table has a unit for
every rule. One that does not pass has used up the units before.

A full hashlimit table drops packets. So packets skip the ration if all strangers together send too many, or
begin too many flows. They are counted (``asked_full``). If a set is full, the packets of strangers
without room in it pass the tests that need it.

A sender of IPv6 may put an extension header before that of UDP or TCP, and u32 would compare its bytes. So a
test that lets a packet pass demands that no extension header is there.
"""

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from ringfence.firewall.contract import SENDER_SECONDS, SERVED, FirewallPlan
from ringfence.firewall.ipset.matches import (
    DATAGRAM,
    HEADER,
    IPV6_HEADER,
    MOST,
    STREAM,
    IptablesRule,
    begins,
    byte_limit,
    in_bytes,
    over_all,
    over_each,
    port_matches,
    without_data,
)
from ringfence.firewall.ipset.sets import FLOWS, WEBSOCKETS
from ringfence.firewall.limits import (
    FLOOD_SECONDS,
    FLOW_SECONDS,
    FRAME,
    MOST_HELLO,
    NEAR,
    WEBSOCKET_SECONDS,
    LimitMode,
    Ration,
)

_RATION, _BYTES = "ringfence-ration", "ringfence-bytes"
_ASKED, _WEB, _FLOW, _QUESTIONS = "ringfence-asked", "ringfence-web", "ringfence-flow", "ringfence-questions"
CHAINS: Mapping[str, Sequence[str]] = {
    "raw": (_RATION, _BYTES, _ASKED, _WEB, _FLOW, _QUESTIONS),
}
"""The chains that may be in each table."""

OVER_RATION, RATION_FULL = "rationed", "ration_full"
OVER_ASKING, ASKING_FULL = "asked", "asked_full"
COUNTERS = OVER_RATION, RATION_FULL, OVER_ASKING, ASKING_FULL
"""Kinds of rules, by which their packets are counted."""

UNIT = 160  # bytes
_KIBI = 1024
_FRAME = 2  # kilobytes: an Ethernet frame, rounded up
_MOST_COPIES = 200_000
"""Packets in a second of all strangers together, up to which the limit of the copies looks at the source."""
# The first two bytes of a frame that a client sends (RFC 6455): text, binary or a continuation, and the mask
# bit. No request of HTTP and no record of TLS begins so.
_FRAMES = "&0x7c80=0x80"
_IPV4 = 4
_UDP, _TCP = 17, 6


def chains(plan: FirewallPlan, version: int, target: str) -> dict[str, Sequence[IptablesRule]]:
    """Return the chains of table raw for IP ``version``; ``target`` is the target that drops a packet."""
    found: dict[str, Sequence[IptablesRule]] = {}
    if plan.ration.mode is not LimitMode.OFF:
        found |= _ration_chains(plan, version, target)
    if plan.asking.mode is not LimitMode.OFF:
        found |= _Asking(plan, version, target).chains()
    return found


def over_copies(plan: FirewallPlan, version: int) -> list[IptablesRule]:
    """Return the rule that copies no requests of a source over its limit; none if there is no such limit.

    A full hashlimit table would drop packets. So beyond ``_MOST_COPIES`` packets of all sources in a second
    the rule does not look at the source. An entry stays at most a second longer than ``SENDER_SECONDS``. So
    the table becomes at most 80 % full, even if each packet has a new address.
    """
    if not plan.limits_copies:
        return []
    rate = plan.sender_rate
    few = f"--hashlimit-upto {_MOST_COPIES}/sec --hashlimit-burst {_MOST_COPIES}"
    over = over_each(version, f"copies-{rate}", f"{rate}/sec", f"{rate}", SENDER_SECONDS)
    return [IptablesRule(f"-m hashlimit {few} --hashlimit-name ringfence-copies-all {over}-j RETURN")]


def _ration_chains(plan: FirewallPlan, version: int, target: str) -> dict[str, Sequence[IptablesRule]]:
    """Return the chains of the ration; ``target`` is the target that drops a packet."""
    ration, seconds = plan.ration, _expiry(plan.ration)
    drop = f"-j {target if ration.mode is LimitMode.ENFORCE else 'RETURN'}"
    total = IptablesRule(_total_limit("ration-all", ration), RATION_FULL)
    budget, name = -(-ration.bytes_a_second // _KIBI), f"{ration.rate}-{ration.burst}"
    most, packets = budget * _KIBI, (f"{ration.rate}/sec", f"{ration.burst}")
    over = over_each(version, f"ration-{name}", *packets, seconds, mode="dstip")
    over_bytes = over_each(version, f"ration-bytes-{name}", f"{budget}kb/s", "", seconds, mode="dstip")
    return {
        _RATION: [total, IptablesRule(f"{over}{drop}", OVER_RATION)],
        _BYTES: [
            *(IptablesRule(f"-p tcp {test} -j RETURN") for test in _unrationed_segments(plan, version)),
            total,
            IptablesRule(f"-m length --length {min(most + 1, MOST)}:{MOST} {drop}", OVER_RATION),
            IptablesRule(f"{over_bytes}{drop}", OVER_RATION),
        ],
    }


def _unrationed_segments(plan: FirewallPlan, version: int) -> Iterator[str]:
    """Yield the matches of TCP segments that the ration leaves out.

    They have no data, or begin a TLS handshake or, in a frame, an answer to a call (``contract.SERVED``).
    """
    yield from without_data(version)
    begin = 0 if version == _IPV4 else IPV6_HEADER
    for ports in port_matches("tcp", plan.sip_ports.tls, "dst"):
        handshake = f"{STREAM[version]}{begin:#x}>>0x10=0x1603"
        yield f'{ports.removeprefix("-p tcp ")}-m u32 --u32 "{handshake}"'
    for ports in port_matches("tcp", plan.sip_ports.streams, "dst"):
        for served in SERVED:
            test = begins(STREAM[version], begin, served)
            yield f'{ports.removeprefix("-p tcp ")}-m length --length 0:1500 -m u32 --u32 "{test}"'


def _total_limit(name: str, limit: Ration) -> str:
    """Build the rule by which a packet skips a limit if all addresses together would fill its table."""
    return f"{over_all(f'{name}-{limit.rate}-{limit.burst}', _expiry(limit))}-j RETURN"


def _expiry(limit: Ration) -> int:
    """Return the seconds after which a limit forgets an address; by then its burst is available again."""
    return max(FLOOD_SECONDS, -(-limit.burst // max(limit.rate, 1)))


@frozen
class _Asking:
    """The ration of questions of one IP version; ``target`` is the target that drops a packet."""

    plan: FirewallPlan
    version: int
    target: str

    def chains(self) -> Mapping[str, Sequence[IptablesRule]]:
        """Return the chains of the ration."""
        return {
            _WEB: [*self._web()],
            _ASKED: [*self._asked()],
            _FLOW: [*self._flow()],
            _QUESTIONS: [*self._questions()],
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
        yield IptablesRule(f"{known} -g {_ASKED}")

    def _asked(self) -> Iterator[IptablesRule]:
        flows, asking = FLOWS[self.version], self.plan.asking
        for test in self._unasked():
            yield IptablesRule(f"{test} -j RETURN")
        everything = over_all(f"asked-all-{asking.rate}-{asking.burst}", asking.seconds)
        yield IptablesRule(f"{everything}-j RETURN", ASKING_FULL)
        yield IptablesRule(f"-m set ! --match-set {flows} src,src -g {_FLOW}")
        yield IptablesRule(f"-j SET --add-set {flows} src,src --exist --timeout {FLOW_SECONDS}")
        yield IptablesRule(f"-g {_QUESTIONS}")

    def _unasked(self) -> Iterator[str]:
        """Yield the matches of packets that ask nothing: answers, ACKs, and segments without data."""
        way, header = (HEADER, 0) if self.version == _IPV4 else ("", IPV6_HEADER)
        for text in (b"SIP/2.0 ", b"ACK "):
            yield f'-p udp -m u32 --u32 "{self._plain(_UDP)}{begins(way, header + DATAGRAM, text)}"'
        yield from (f"-p tcp {test}" for test in without_data(self.version, self._plain(_TCP)))

    def _flow(self) -> Iterator[IptablesRule]:
        rate = self.plan.asking.flows_a_second
        everything = over_all(f"asked-all-flows-{rate}", FLOW_SECONDS)
        yield IptablesRule(f"{everything}-g {_QUESTIONS}", ASKING_FULL)
        yield from self._over("", f"flows-{rate}", f"{rate}/sec", f"{rate}")
        yield from self._over("", f"flows-near-{rate}", f"{rate * NEAR}/sec", f"{rate * NEAR}", near=True)
        yield IptablesRule(f"-j SET --add-set {FLOWS[self.version]} src,src --timeout {FLOW_SECONDS}")
        begin = 0 if self.version == _IPV4 else IPV6_HEADER
        stream = STREAM[self.version]
        hello = f"{stream}{begin:#x}>>0x10=0x1603&&{stream}{begin + 2:#x}&0xff=0x1"
        for packets in self._sealed():
            test = f'-m length --length 0:{MOST_HELLO} -m u32 --u32 "{self._plain(_TCP)}{hello}"'
            yield IptablesRule(f"{packets}{test} -j RETURN")
        yield IptablesRule(f"-g {_QUESTIONS}")

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
        yield IptablesRule(f"-m length --length {FRAME + 1}:{MOST} {self._dropping}", OVER_ASKING)
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
        yield from self._over(packets, f"{name}-near-{limits}", *in_bytes(*near), near=True)

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
