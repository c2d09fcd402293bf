"""The chains of nftables that limit what one stranger sends or gets, and the sets in which they count.

The rules of the stages (``firewall/stages.py``) jump to these chains. Each set holds the addresses that sent
or got something lately, or their flows.

* **Full tables.** The tables of the limiter and of the rations hold a million sources. If one is full (forged
  sources can fill it), packets of new sources pass without a limit, and are counted (``limiter_full``,
  ``ration_full``, ``asked_full``). That of the ration fills only if the SIP ports refuse 100 000 strangers a
  second.
* **The ration of questions.** ``asked_begun4`` lets few flows of a stranger begin, ``asked4`` counts their
  datagrams, and ``asked_clear4`` and ``asked_sealed4`` their bytes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from ringfence.firewall.contract import SENDER_SECONDS, SERVED, FirewallPlan
from ringfence.firewall.limits import (
    FLOOD_SECONDS,
    FLOW_SECONDS,
    MOST_HELLO,
    MOST_LIMITED,
    MOST_WEBSOCKETS,
    NEAR,
    NEAR_LENGTHS,
    WEBSOCKET_SECONDS,
    AskingRation,
    LimitMode,
)
from ringfence.firewall.nftables.matches import (
    HEADERS,
    KEYWORDS,
    STATUS_LINE,
    counted,
    data,
    network_of,
    over,
    over_bytes,
    port_tests,
)
from ringfence.firewall.ports import Ports
from ringfence.firewall.stages import Side
from ringfence.values.network import VERSIONS

_Chain = tuple[str, tuple[str, ...]]  # its name, and its rules

_MOST_COMPARED = 16  # bytes in one comparison
_ASKED = ("_begun", "", "_clear", "_sealed")  # what the ration of questions counts, in names of sets
_UNASKED = (f"@th,64,64 {STATUS_LINE} return", f"@th,64,32 0x{b'ACK '.hex()} return")
_CLIENT_FRAME = "& 0x7080 == 0x0080"  # the first two bytes: no reserved bit, and a mask


def sets(plan: FirewallPlan) -> Iterator[tuple[Sequence[str], str, int, int]]:
    """Yield the names of sets without the IP version, with what follows the address in their type.

    The last two are for how many seconds the sets remember an address, and how many they have room for.
    """
    asked, flow = [f"asked{near}{what}" for near in ("", "_near") for what in _ASKED], " . inet_service"
    if plan.ration.mode is not LimitMode.OFF:
        yield ("ration", "ration_bytes"), "", FLOOD_SECONDS, MOST_LIMITED
    if plan.asking.mode is not LimitMode.OFF:
        yield asked, "", FLOOD_SECONDS, MOST_LIMITED
        yield ("asked_flows",), flow, FLOW_SECONDS, MOST_LIMITED
        yield ("asked_each",), flow, FLOOD_SECONDS, MOST_LIMITED
        yield ("asked_websocket",), flow, WEBSOCKET_SECONDS, MOST_WEBSOCKETS
    if plan.limits_copies:
        yield ("copied",), "", SENDER_SECONDS, MOST_LIMITED


def chains(plan: FirewallPlan, log: tuple[str, ...], *, inner: bool) -> dict[str, tuple[str, ...]]:
    """Return the rules of the chains by name, each chain after those to which it jumps.

    ``log`` has the statements that log a packet before it is dropped. ``inner``: the rules use ``@ih``.
    """
    found: dict[str, tuple[str, ...]] = {}
    for version in VERSIONS:
        if plan.asking.mode is not LimitMode.OFF:
            found |= _questions(plan, version, log, inner=inner)
        if plan.ration.mode is not LimitMode.OFF:
            found |= _ration(plan, version, log)
    return found


def _questions(plan: FirewallPlan, version: int, log: tuple[str, ...], *, inner: bool) -> Iterator[_Chain]:
    """Yield the chains of the ration of questions. ``inner``: the rules use ``@ih``.

    A chain goes to the next one and never returns. So a packet over the ration is counted once, even if it
    passes in the mode observe.
    """
    dropping = (*log, "drop") if plan.asking.mode is LimitMode.ENFORCE else ()
    yield f"asked{version}", ('counter name "asked"', *dropping)
    for what in _limits_of(plan.asking):
        yield from _asking_steps(plan.asking, version, what, inner=inner)
    flow, clear = f"{KEYWORDS[version]} saddr . tcp sport", f"goto asking_clear{version}"
    frames = (f"{begin}@{base},{at},16 {_CLIENT_FRAME} {clear}" for begin, base, at in data(inner=inner))
    keep = f"update @asked_websocket{version} {{ {flow} }}"
    yield f"asking_web{version}", (f"{flow} @asked_websocket{version} {keep} {clear}", *frames)


def _asking_steps(asking: AskingRation, version: int, what: str, *, inner: bool) -> Iterator[_Chain]:
    """Yield the chains that count ``what`` strangers send: in all, in a first packet, and in any packet."""
    protocol = "tcp" if what else "udp"
    flow, flows = f"{KEYWORDS[version]} saddr . {protocol} sport", f"@asked_flows{version}"
    keep, last = f"update {flows} {{ {flow} }}", f"goto asking_more{what}{version}"
    empty = ("tcp flags & syn == syn return", *(f"{test} return" for test in _without_data(version)))
    short = f"ip{'' if version == VERSIONS[0] else '6'} length <= {MOST_HELLO}"
    hello = tuple(
        f"{short} {begin}@{base},{at},16 0x1603 @{base},{at + 40},8 0x01 return"
        for begin, base, at in data(inner=inner)
    )
    limits = _limits_of(asking)
    begun = _asked(asking, version, "_begun", lambda times: over(times * asking.flows_a_second, times))
    one = f"{flow} timeout {asking.seconds}s {over(asking.flow_rate, asking.burst)}"
    each = () if what else (f"update @asked_each{version} {{ {one} }} goto asked{version}",)
    more = (*each, *_asked(asking, version, what, limits[what]))
    yield f"asking_more{what}{version}", more
    first = (*begun, keep, *(hello if what == "_sealed" else ()), last)
    yield f"asking_first{what}{version}", first
    new = f"{flow} != {flows} goto asking_first{what}{version}"
    yield f"asking{what}{version}", (*(empty if what else _UNASKED), new, keep, last)


def _limits_of(asking: AskingRation) -> Mapping[str, Callable[[int], str]]:
    """Return the limits of datagrams (""), of bytes in clear and of bytes by TLS, for a multiple of each."""
    rate = asking.bytes_a_second
    return {
        "": lambda times: over(times * asking.rate, times * asking.burst),
        "_clear": lambda times: over_bytes(times * rate, times * asking.bytes_at_once),
        "_sealed": lambda times: over_bytes(times * rate, times * asking.sealed_bytes_at_once),
    }


def _asked(asking: AskingRation, version: int, what: str, limit: Callable[[int], str]) -> tuple[str, ...]:
    """Return the rules that limit ``what`` a stranger sends, and then what its neighbours do.

    ``what`` is one of ``_ASKED``. ``limit`` returns the match of what is over so many times the ration.
    """
    rules: list[str] = []
    near = f"{KEYWORDS[version]} saddr & {network_of(version, NEAR_LENGTHS[version]).netmask}"
    for name, source, times in (("", counted(version, Side.FROM), 1), ("_near", near, NEAR)):
        strangers = f"@asked{name}{what}{version}"
        rules += [
            f"update {strangers} {{ {source} timeout {asking.seconds}s {limit(times)} }} goto asked{version}",
            f'{source} != {strangers} counter name "asked_full"',
        ]
    return tuple(rules)


def _ration(plan: FirewallPlan, version: int, log: tuple[str, ...]) -> Iterator[_Chain]:
    ration, target = plan.ration, counted(version, Side.TO)
    dropping = (*log, "drop") if ration.mode is LimitMode.ENFORCE else ()
    yield f"rationed{version}", ('counter name "rationed"', *dropping)
    limit = over(ration.rate, ration.burst)
    yield (
        f"ration{version}",
        (
            f"update @ration{version} {{ {target} {limit} }} goto rationed{version}",
            f'{target} != @ration{version} counter name "ration_full"',
        ),
    )
    octets = over_bytes(ration.bytes_a_second, ration.bytes_a_second)
    yield (
        f"ration_stream{version}",
        (
            "tcp flags & syn == syn return",
            *(f"{test} return" for test in _without_data(version)),
            *(
                f"{test} tcp doff {words} @th,{32 * words},16 0x1603 return"
                for test in port_tests(Ports((), plan.sip_ports.tls), "sport")
                for words in HEADERS
            ),
            *(
                f"{test} {_within_a_frame(version)} tcp doff {words} {_begins(words, served)} return"
                for test in port_tests(Ports((), plan.sip_ports.streams), "sport")
                for words in HEADERS
                for served in SERVED
            ),
            f"update @ration_bytes{version} {{ {target} {octets} }} goto rationed{version}",
            f'{target} != @ration_bytes{version} counter name "ration_full"',
        ),
    )


def _begins(words: int, text: bytes) -> str:
    """Return the match of TCP data that begins with ``text``, behind a header of ``words`` 32-bit words."""
    parts = ((at, text[at : at + _MOST_COMPARED]) for at in range(0, len(text), _MOST_COMPARED))
    return " ".join(f"@th,{32 * words + 8 * at},{8 * len(part)} 0x{part.hex()}" for at, part in parts)


def _within_a_frame(version: int) -> str:
    """Return the match of packets that fit into an Ethernet frame."""
    return "ip length <= 1500" if version == 4 else "ip6 length <= 1460"  # noqa: PLR2004 - IPv4


def _without_data(version: int) -> Iterator[str]:
    """Yield the matches of TCP segments without data, for both usual lengths of TCP's header."""
    for words in HEADERS:
        length = f"ip length {20 + 4 * words}" if version == 4 else f"ip6 length {4 * words}"  # noqa: PLR2004
        yield f"tcp doff {words} {length}"


def over_copies(plan: FirewallPlan) -> Iterator[str]:
    """Yield the rules that copy no more requests of a source over its limit; none if there is no such limit.

    If the table is full, the rule does not match, and the request is copied.
    """
    limit = over(plan.sender_rate, plan.sender_rate)
    for version in VERSIONS if plan.limits_copies else ():
        yield f"update @copied{version} {{ {counted(version, Side.FROM)} {limit} }} return"
