"""Addresses as Asterisk's log lines write them: ``192.0.2.1:5060``. ``security`` has the other notation."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from ringfence.values.event import Endpoint, Transport
from ringfence.values.network import Address

LONGEST = len("IPV6/UDP/ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%/65535") + 16
"""The greatest length of an address in either notation; 16 are for the zone, the name of an interface."""
MAX_PORT, MAX_PORT_DIGITS = 65_535, 5


def unmapped(address: Address) -> Address:
    """Return the address as packets carry it: IPv4 if it is IPv4-mapped, and without a zone."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv6Address(int(address)) if address.scope_id is not None else address


def parse_source(
    text: bytes, transport: Transport = Transport.UNKNOWN, *, has_port: bool = False
) -> Endpoint | None:
    """Parse ``192.0.2.1``, ``192.0.2.1:5060``, ``2001:db8::1`` or ``[2001:db8::1]:5060``; None for any other.

    Some releases of res_pjsip_session write brackets around IPv4 too: ``[192.0.2.1]:5060``. A missing port
    becomes 0. A host name gives None, because nothing is resolved.

    ``has_port`` is for messages that always print a port (``%s:%d``), also after an IPv6 address without
    brackets. Then the text after the last colon is the port, and a missing port gives None.
    """
    return _parse_source(text, transport, has_port) if len(text) <= LONGEST else None


# Cached, because attackers send many packets from one port or one host. The cached texts are short.
@lru_cache(maxsize=4096)
def _parse_source(text: bytes, transport: Transport, has_port: bool) -> Endpoint | None:  # noqa: FBT001 - a key
    host, digits = text, b""
    if text.startswith(b"["):
        host, bracket, rest = text[1:].partition(b"]")
        if not bracket or (rest and not rest.startswith(b":")):
            return None
        colon, digits = bool(rest), rest[1:]
    elif has_port or text.count(b":") == 1:
        host, separator, digits = text.rpartition(b":")
        colon = bool(separator)
    else:
        colon = False
    if colon and not (digits.isdigit() and len(digits) <= MAX_PORT_DIGITS and int(digits) <= MAX_PORT):
        return None
    if has_port and not colon:
        return None
    try:
        address = ip_address(host.decode("ascii"))
    except ValueError:
        return None
    return Endpoint(unmapped(address), int(digits or b"0"), transport)
