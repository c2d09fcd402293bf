"""What a SIP request asks for: the hosts in its request line and in its To header.

Scanners ask for the bare address (``OPTIONS sip:100@198.51.100.9``), phones for a name. Only requests that
begin something count: REGISTER, INVITE, OPTIONS and SUBSCRIBE outside of a dialog (RFC 3261 §12.2: within
one, To has a tag, and the request line the Contact, which is often an address).

The sender wrote the whole request. What is not surely read names no host, and unknown is not wrong: a second
To, a folded or unusual one, an escape in a host, a ``tel:`` URI, a request that is cut off. So is a URI with
the parameter ``line``: PJSIP registers such a Contact at a carrier (``line = yes``), and knows a call of the
carrier by this parameter alone, from any address. A stranger can hide so, as it can by asking for the name:
the other rules still count what it does.
"""

import re
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from itertools import islice

from ringfence.parse.address import unmapped
from ringfence.parse.packet import (
    IPV6_ADDRESS,
    TCP,
    UDP,
    ip_payload,
    packed_address,
    tcp_segment,
    udp_datagram,
)
from ringfence.values import fast
from ringfence.values.event import Endpoint, Transport
from ringfence.values.network import Address

METHODS = frozenset((b"REGISTER", b"INVITE", b"OPTIONS", b"SUBSCRIBE"))

_LINE = re.compile(rb"(?>(?:\r\n){0,8})([A-Za-z]{6,9}+) ([^\s\0<>]{1,512}+) SIP/2\.0\r?\n", re.IGNORECASE)
_TO = re.compile(rb"\n(?:to|t)[ \t]*+:([^\r\n\0]{0,1024}+)((?=\r?+\n(?![ \t])))?", re.IGNORECASE)
_END = re.compile(rb"\n\r?+\n")
_ADDRESS = re.compile(
    rb'[ \t]*+(?:(?:"(?>(?:[^"\\]|\\.)*)"|[^"<>]*+)[ \t]*+<([^\s<>"]{1,512}+)>|([^\s;,?<>"]{1,512}+))'
    rb"([^<>]*+)"
)
_TAG = re.compile(rb";[ \t]*+tag[ \t]*+=", re.IGNORECASE)
_URI = re.compile(
    rb"sips?:(?>(?:[^@]{1,256}+@)?)(\[[0-9a-f:.]{2,64}+\]|[a-z0-9_.-]{1,254}+)"
    rb"(?>(?::[0-9]{0,5}+)?)((?>(?:[;?][^@]*+)?))",
    re.IGNORECASE,
)
_REGISTERED = re.compile(rb";line=", re.IGNORECASE)


@fast.frozen
class Target:
    """The two hosts that a request asks for, as :func:`host_of` returns them."""

    line: str
    to: str

    def names(self, hosts: Collection[str]) -> bool:
        """Whether one of the two hosts is among ``hosts``."""
        return self.line in hosts or self.to in hosts


@fast.frozen
class Asked:
    """A copied request: its sender, and what it asks for."""

    remote: Endpoint
    target: Target


def parse_copy(packet: bytes) -> Asked | None:
    """Parse a copied IP packet; return None if it has no request that counts, or not surely."""
    whole = ip_payload(packet)
    if whole is None:
        return None
    protocol, source, to, payload, may_be_cut = whole
    if protocol == UDP:
        datagram = udp_datagram(payload, may_be_cut=may_be_cut, jumbo=len(source) == IPV6_ADDRESS)
        port, text, transport = (datagram[0], datagram[2], Transport.UDP) if datagram else (0, b"", None)
    else:
        segment = tcp_segment(source, to, payload) if protocol == TCP else None
        port, text, transport = (segment.port, segment.data, Transport.TCP) if segment else (0, b"", None)
    target = parse_target(text)
    if target is None or transport is None:
        return None
    return Asked(Endpoint(packed_address(source), port, transport), target)


def parse_target(request: bytes) -> Target | None:
    """Return what a request asks for; None if it does not count, or if that is unknown."""
    line = _LINE.match(request)
    if line is None or line[1].upper() not in METHODS:
        return None
    end = _END.search(request, line.end() - 1)
    head = request[line.end() - 1 : end.end() if end is not None else None]
    found = list(islice(_TO.finditer(head), 2))
    if len(found) != 1 or found[0][2] is None:
        return None
    to = _ADDRESS.fullmatch(found[0][1])
    if to is None or _TAG.search(to[3]) is not None:
        return None
    hosts = host_of(line[2]), host_of(to[1] or to[2])
    return Target(*hosts) if all(hosts) else None


def host_of(uri: bytes) -> str:
    """Return the host of a ``sip:`` or ``sips:`` URI, "" if it is unknown.

    A name is in lower case, without a dot at its end, and an address in its usual form.
    """
    found = _URI.fullmatch(uri)
    if found is None or _REGISTERED.search(found[2]) is not None:
        return ""
    text = found[1].decode("ascii").lower()
    labels = text.removesuffix(".").split(".")
    if text.startswith("[") or labels[-1].isdigit():
        address = address_in(text)
        return "" if address is None else str(address)
    return ".".join(labels) if all(labels) else ""


@lru_cache(maxsize=256)
def address_in(host: str) -> Address | None:
    """Return the address that is written as ``host``; None if it is a name.

    The latest results are kept, because parsing takes as long as all else here, and most ask for the same.
    """
    with suppress(ValueError):
        return unmapped(ip_address(host.strip("[]")))
    return None
