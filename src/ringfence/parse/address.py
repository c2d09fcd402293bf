"""The notations in which Asterisk writes the address of a local or remote endpoint.

Security events have ``IPV4/UDP/192.0.2.1/5060`` (:func:`parse_endpoint`), other log lines have
``192.0.2.1:5060`` (:func:`parse_source`).

``main/json.c:ast_json_ipaddr``: Asterisk leaves out an unknown transport and its slash. An unset address
prints as ``(null)``. IPv6 has no brackets, and link-local addresses have a ``%zone``.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from ringfence.values.event import Endpoint, Transport
from ringfence.values.network import Address

_VERSIONS = {b"IPV4": 4, b"IPV6": 6}
_TRANSPORTS = {str(t).encode(): t for t in Transport if t is not Transport.UNKNOWN}
_LONGEST = (
    len(b"IPV6/UDP/ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%/65535") + 16
)  # 16 for the zone, which is an interface's name
_MAX_PORT = 65_535
_MAX_PORT_DIGITS = 5


def parse_endpoint(text: bytes) -> Endpoint | None:
    """Parse an address with transport and port as Asterisk's events write it; None for any other text.

    An IPv4-mapped IPv6 address (``::ffff:a.b.c.d``) becomes the IPv4 address that the packets carry. A zone
    is dropped because firewall sets do not support zones.
    """
    return _parse_endpoint(text) if len(text) <= _LONGEST else None


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
    return _parse_source(text, transport, has_port) if len(text) <= _LONGEST else None


# Cached, because attackers send many packets from one port or one host. The cached texts are short.
@lru_cache(maxsize=4096)
def _parse_endpoint(text: bytes) -> Endpoint | None:
    head, slash, digits = text.rpartition(b"/")
    if not slash or not digits.isdigit() or len(digits) > _MAX_PORT_DIGITS:
        return None
    port = int(digits)
    host = _parse_host(head)
    if host is None or port > _MAX_PORT:
        return None
    address, transport = host
    return Endpoint(address, port, transport)


@lru_cache(maxsize=4096)
def _parse_host(text: bytes) -> tuple[Address, Transport] | None:
    family, _, rest = text.partition(b"/")
    version = _VERSIONS.get(family)
    token: bytes | None
    token, slash, host = rest.partition(b"/")
    if not slash:
        token, host = None, rest
    transport = Transport.UNKNOWN if token is None else _TRANSPORTS.get(token)
    if version is None or transport is None:
        return None
    try:
        address = ip_address(host.decode("ascii"))
    except ValueError:  # includes UnicodeDecodeError
        return None
    return (unmapped(address), transport) if address.version == version else None


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
    if colon and not (digits.isdigit() and len(digits) <= _MAX_PORT_DIGITS and int(digits) <= _MAX_PORT):
        return None
    if has_port and not colon:
        return None
    try:
        address = ip_address(host.decode("ascii"))
    except ValueError:
        return None
    return Endpoint(unmapped(address), int(digits or b"0"), transport)
