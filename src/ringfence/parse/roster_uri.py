"""The host to which Asterisk sends requests for a SIP URI (``pjsip/src/pjsip/sip_parser.c``).

A phone chooses the URI of its contact. A malicious URI may make Asterisk send to one host, while a parser
finds another one in the text: by ``maddr``, by headers (``?Route=``), by an ``@`` within a parameter, or by
an escaped parameter name. A URI that can be read in two ways has no target.
"""

import re
from ipaddress import ip_address

from attrs import frozen

from ringfence.model import Address, Transport
from ringfence.parse.address import unmapped

_LONGEST = 1024
_MAX_PORT = 65_535
_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45}+)\]|(?P<host>[A-Za-z0-9._-]{1,255}+))(?::(?P<port>[0-9]{1,5}+))?"
)
_TRANSPORTS = {str(transport).lower(): transport for transport in Transport}
_SCHEMES = {"sip": Transport.UDP, "sips": Transport.TLS}


@frozen
class SipTarget:
    """Where Asterisk sends requests: a host name or address, a port (None if none is named), a transport."""

    host: str
    port: int | None
    transport: Transport


def target_of(uri: str) -> SipTarget | None:
    """Return where Asterisk sends requests for ``uri``; None if ``uri`` is no SIP URI, or is ambiguous."""
    uri = uri.removeprefix("<").removesuffix(">")
    scheme, _, rest = uri.partition(":")
    default = _SCHEMES.get(scheme.lower())
    if default is None or len(uri) > _LONGEST or rest.count("@") > 1 or "?" in rest:
        return None
    where, *parameters = rest.rpartition("@")[2].split(";")
    found = _HOST_AND_PORT.fullmatch(where)
    names = {name.lower(): value for name, _, value in (text.partition("=") for text in parameters)}
    if found is None or "maddr" in names or any("%" in name for name in names):
        return None
    port = None if found["port"] is None else int(found["port"])
    if port is not None and not 0 < port <= _MAX_PORT:
        return None
    transport = _TRANSPORTS.get(names["transport"].lower()) if "transport" in names else default
    return SipTarget(found["v6"] or found["host"], port, transport or Transport.UNKNOWN)


def address_of(uri: str) -> Address | None:
    """Return the address of the target of ``uri``.

    Return None if ``uri`` has no target, if the target is a host name, or if it is not the address of a
    single host.
    """
    target = target_of(uri)
    return None if target is None else host_address(target.host)


def host_address(host: str) -> Address | None:
    """Parse the address of one host; None for other text, and for an unspecified or multicast address."""
    try:
        address = unmapped(ip_address(host))
    except ValueError:
        return None
    return None if address.is_unspecified or address.is_multicast else address
