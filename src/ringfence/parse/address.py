"""Asterisk's ways to write an end of a conversation.

In security events ``IPV4/UDP/192.0.2.1/5060``, in other log lines ``192.0.2.1:5060`` (:func:`parse_source`).

``main/json.c:ast_json_ipaddr``. The transport and its slash are left out where Asterisk does not know it;
an address that is not set prints as ``(null)``; IPv6 stands without brackets, link-local with ``%zone``.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from ringfence.model import Address, Endpoint, Transport

_VERSIONS = {b"IPV4": 4, b"IPV6": 6}
_TRANSPORTS = {str(t).encode(): t for t in Transport if t is not Transport.UNKNOWN}
_LONGEST = (
    len(b"IPV6/UDP/ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%/65535") + 16
)  # a zone is an interface name
_MAX_PORT = 65_535
_MAX_PORT_DIGITS = 5


def parse_endpoint(text: bytes) -> Endpoint | None:
    """Read one end, or None where ``text`` is anything but exactly that.

    An IPv4 address in IPv6 clothes (``::ffff:a.b.c.d``) becomes the IPv4 address that the packets carry; a
    zone is dropped, since firewall sets know none.
    """
    return _parse_endpoint(text) if len(text) <= _LONGEST else None


def unmapped(address: Address) -> Address:
    """Give the address as packets carry it: IPv4 out of its IPv6 clothes, without a zone."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv6Address(int(address)) if address.scope_id is not None else address


def parse_source(
    text: bytes, transport: Transport = Transport.UNKNOWN, *, ported: bool = False
) -> Endpoint | None:
    """Read ``192.0.2.1``, ``192.0.2.1:5060``, ``2001:db8::1`` or ``[2001:db8::1]:5060``; None for any other.

    ``ported`` is for the wordings that print ``%s:%d``: what follows the last colon is the port, also behind
    an IPv6 address without brackets. Without a port it is 0. A host's name is no address: nothing is
    resolved.
    """
    return _parse_source(text, transport, ported) if len(text) <= _LONGEST else None


# An attacker sends many packets from one port, and from one host by many. What is remembered is short.
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
    except ValueError:  # UnicodeDecodeError is one too
        return None
    return (unmapped(address), transport) if address.version == version else None


@lru_cache(maxsize=4096)
def _parse_source(text: bytes, transport: Transport, ported: bool) -> Endpoint | None:  # noqa: FBT001 - a key
    host, digits = text, b""
    if text.startswith(b"["):
        host, bracket, rest = text[1:].partition(b"]")
        if not bracket or (rest and not rest.startswith(b":")) or b":" not in host:
            return None
        colon, digits = bool(rest), rest[1:]
    elif ported or text.count(b":") == 1:
        host, separator, digits = text.rpartition(b":")
        colon = bool(separator)
    else:
        colon = False
    if colon and not (digits.isdigit() and len(digits) <= _MAX_PORT_DIGITS and int(digits) <= _MAX_PORT):
        return None
    if ported and not colon:
        return None
    try:
        address = ip_address(host.decode("ascii"))
    except ValueError:
        return None
    return Endpoint(unmapped(address), int(digits or b"0"), transport)
