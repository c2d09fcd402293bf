"""Matches of packets in the notation of iptables-save, from which the rules are built."""

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from ringfence.firewall.contract import BanAction
from ringfence.firewall.ipset.sets import list_set_name
from ringfence.firewall.limits import FRAME, MOST_LIMITED, NEAR_LENGTHS
from ringfence.firewall.network_lists import NetworkList
from ringfence.values.network import BITS, SENDER_LENGTHS, VERSIONS

# The maximum number of ports in one multiport match.
_PORTS_A_RULE = 15
BUCKETS = 65_536
_CHUNK = 16  # bytes: hashlimit's unit
_KIBI = 1024
# Rates in packets a second that iptables-save prints as they were written. It prints others rounded.
_PRINTABLE = (50_000, 25_000, 20_000, 10_000, 5_000, 2_000, 1_000, 500, 200, 100, 50, 20, 10, 5, 2, 1)
# In iptables-save's notation of u32 tests: the offset of the transport header (an IPv4 header has options),
# and that of the TCP payload.
HEADER = "0x0>>0x16&0x3c@"
STREAM = {4: f"{HEADER}0xc>>0x1a&0x3c@", 6: "0x34>>0x1a&0x3c@"}
_IPV4 = 4
_WORD = 4  # bytes that u32 compares at once
DATAGRAM, IPV6_HEADER = 8, 40  # bytes: a header of UDP, and one of IPv6
ELSEWHERE = "-m addrtype ! --dst-type LOCAL "
TO_THIS_HOST = "-m addrtype --dst-type LOCAL "  # without packets of bridged containers to other hosts
# In IPv6 an address of this host is UNICAST too (net/netfilter/xt_addrtype.c), so FORWARDED excludes LOCAL.
FORWARDED = {
    4: "-m rpfilter -m addrtype --dst-type UNICAST ",
    6: "-m rpfilter -m addrtype --dst-type UNICAST -m addrtype ! --dst-type LOCAL ",
}
NO_RST = "-m tcp ! --tcp-flags RST RST "
# By IP version and action: iptables' name of the rejection, and two matches. Every outgoing packet
# satisfies one of the two, except the ICMP error or RST of such a rejection.
REJECTIONS: Mapping[tuple[int, BanAction], tuple[str, tuple[str, str]]] = {
    **{
        (version, action): (name, (f"! -p {protocol} ", f"-p {protocol} -m {match} ! --{match[:4]}{option} "))
        for version, protocol, match, action, name, option in (
            (4, "icmp", "icmp", BanAction.PORT_UNREACHABLE, "icmp-port-unreachable", "-type 3/3"),
            (4, "icmp", "icmp", BanAction.ADMIN_PROHIBITED, "icmp-admin-prohibited", "-type 3/13"),
            (6, "ipv6-icmp", "icmp6", BanAction.PORT_UNREACHABLE, "icmp6-port-unreachable", "v6-type 1/4"),
            (6, "ipv6-icmp", "icmp6", BanAction.ADMIN_PROHIBITED, "icmp6-adm-prohibited", "v6-type 1/1"),
        )
    },
    **{
        (version, BanAction.TCP_RESET): ("tcp-reset", ("! -p tcp ", f"-p tcp {NO_RST}"))
        for version in VERSIONS
    },
}


@frozen
class IptablesRule:
    """An iptables rule: its text after ``-A CHAIN``, and the name by which its packets count (``kind``)."""

    text: str
    kind: str = ""


def not_on(version: int, side: str, *lists: NetworkList) -> str:
    """Return the matches of packets whose address ``side`` ("src" or "dst") is on none of ``lists``."""
    return "".join(f"-m set ! --match-set {list_set_name(one, version)} {side} " for one in lists)


def port_matches(protocol: str, ports: Sequence[int], side: str) -> list[str]:
    """Return the matches for packets to or from ``ports`` of this host, at most 15 ports in each.

    ``side`` is where the remote address of a packet is. "src" is for packets to this host, whose target ports
    are compared. "dst" is for packets from this host, whose source ports are compared. The range of the ports
    is compared first, which takes a third of the time, because packets of media have other ports.
    """
    option, found = "--dport" if side == "src" else "--sport", []
    for part in (ports[at : at + _PORTS_A_RULE] for at in range(0, len(ports), _PORTS_A_RULE)):
        near = f"-p {protocol} -m {protocol} {option} {part[0]}"
        several = f":{part[-1]} -m multiport {option}s {','.join(map(str, part))}"
        found.append(f"{near}{several if len(part) > 1 else ''} ")
    return found


def begins(way: str, position: int, text: bytes) -> str:
    """Return the expression of iptables' u32 match for packets that have ``text`` at byte ``position``.

    ``way`` is the part of u32's expression that skips headers of variable length; "" if it skips none.
    """
    if len(text) < _WORD:
        return f"{way}{position:#x}>>{8 * (_WORD - len(text)):#x}=0x{text.hex()}"
    starts = [*range(0, len(text) - _WORD, _WORD), len(text) - _WORD]
    words = ((start, text[start : start + _WORD].hex().lstrip("0")) for start in starts)
    return "&&".join(f"{way}{position + start:#x}=0x{word}" for start, word in words)


def status_line(way: str, position: int, texts: Sequence[bytes] = ()) -> str:
    """Return the expression of iptables' u32 match for a SIP answer with one of ``texts``, or any code.

    ``texts`` are as long as "SIP/2.0 401". ``way`` and ``position`` are as in :func:`begins`.
    """
    start = f"{way}{position:#x}=0x5349502f&&{way}{position + 4:#x}=0x322e3020"
    codes = ",".join(f"0x{text[-_WORD:].hex()}" for text in texts)
    return f"{start}&&{way}{position + 7:#x}={codes}" if codes else start


def status_line_tests(version: int, texts: Sequence[bytes]) -> list[str]:
    """Return u32's tests for TCP segments that begin with one of ``texts``, bare or in a WebSocket frame.

    They assume IPv6 packets without extension headers, as Asterisk sends them. A text frame begins with
    0x81, then a length below 126, or 126 and a length of 16 bits; a server does not mask (RFC 6455).
    """
    begin, stream = 0 if version == _IPV4 else IPV6_HEADER, STREAM[version]
    return [
        status_line(stream, begin, texts),
        f"{stream}{begin:#x}>>0x10=0x817e&&{status_line(stream, begin + 4, texts)}",
        f"{stream}{begin:#x}>>0x10=0x8100:0x817d&&{status_line(stream, begin + 2, texts)}",
    ]


def without_data(version: int, plain: str) -> Iterator[str]:
    """Yield the matches of TCP segments without data, for both usual lengths of TCP's header.

    ``plain`` is u32's test for a packet without extension headers, "" if none is needed.
    """
    header, words = (20, f"{HEADER}0xc>>0x1c") if version == _IPV4 else (IPV6_HEADER, "0x34>>0x1c")
    yield f"-p tcp -m length --length {header + 20} "
    yield f'-p tcp -m length --length {header + 32} -m u32 --u32 "{plain}{words}=0x8" '


def over_all(name: str, seconds: int) -> str:
    """Return the match of packets that would fill a hashlimit table.

    A full table drops packets. ``seconds`` is how long the table ``name`` remembers an address. With the
    permitted rate and burst, it becomes at most 90 % full, even if each packet has a new address. The burst
    is large, so that the limit still holds each address during a short storm of many. The kernel forgets the
    count of this match only when the whole burst is there again. Otherwise a pause would bring a second one.
    """
    most = MOST_LIMITED * 6 // 10 // (seconds + 1)
    rate = next((rate for rate in _PRINTABLE if rate <= most), 1)
    burst = max(rate, MOST_LIMITED * 9 // 10 - rate * (seconds + 1))
    above = f"--hashlimit-above {rate}/sec --hashlimit-burst {burst}"
    whole_in = 1000 * -(-burst // rate)
    own = f"--hashlimit-name ringfence-{name}-{rate}-{burst}-{seconds} --hashlimit-htable-expire {whole_in}"
    return f"-m hashlimit {above} {own} "


def over_each(
    version: int, name: str, above: str, burst: str, seconds: int, mode: str = "srcip", *, near: bool = False
) -> str:
    """Return the hashlimit match of packets over a limit of their address, IPv6 /64, or (``near``) prefix.

    ``above`` is the limit in iptables' notation (``20/sec``), and ``burst`` what may come at once, "" if the
    limit has none. ``mode`` is what hashlimit counts by, and ``seconds`` how long it remembers that. The
    table keeps what it was made with, so ``name`` must contain the limits. The seconds are added to it.
    """
    length = (NEAR_LENGTHS if near else SENDER_LENGTHS)[version]
    mask = "" if length == BITS[version] else f"--hashlimit-{mode[:3]}mask {length} "
    at_once = f"--hashlimit-burst {burst} " if burst else ""
    return (
        f"-m hashlimit --hashlimit-above {above} {at_once}--hashlimit-mode {mode} "
        f"--hashlimit-name ringfence-{name}-{seconds} --hashlimit-htable-size {BUCKETS} "
        f"--hashlimit-htable-max {MOST_LIMITED} --hashlimit-htable-expire {seconds * 1000} {mask}"
    )


def byte_limit(at_once: int, a_second: int) -> tuple[int, int]:
    """Return hashlimit's limit for bytes: the budget of a second, and the number of refills.

    The wanted limit is ``a_second`` bytes a second, and after a pause ``at_once`` bytes. A sender may use the
    budget each second, and once also the refills, which return after some silent seconds. The budget is at
    least a frame: otherwise no full frame would ever pass, and TCP would repeat it without end. With refills
    it has whole kilobytes, because iptables-save prints a burst in these.
    """
    refills = max(at_once // max(a_second, 2 * _KIBI) - 1, 0)
    return (at_once // (refills + 1) // _KIBI * _KIBI if refills else max(at_once, FRAME)), refills


def in_bytes(budget: int, refills: int) -> tuple[str, str]:
    """Return a limit for bytes and its burst as iptables reads them; the burst is "" without refills.

    ``budget`` (bytes a second) and ``refills`` are a result of :func:`byte_limit`.
    """
    if refills:
        return f"{budget // _KIBI}kb/s", f"{budget // _KIBI * refills}kb"
    return f"{-(-budget // _CHUNK) * _CHUNK}b/s", ""
