"""Where a SIP URI leads, as Asterisk sends to it (``pjsip/src/pjsip/sip_parser.c``).

A phone chooses the URI of its contact, and may try to have Asterisk send to one host while another is read
out of the text: by ``maddr``, by headers (``?Route=``), by an ``@`` within a parameter, or by escaping the
name of one. What could be read in two ways leads nowhere.
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
class Place:
    """A host, which is a name or an address; a port, where one is named; and a transport."""

    host: str
    port: int | None
    transport: Transport


def place_of(uri: str) -> Place | None:
    """Say where ``uri`` leads; None where it is no SIP URI, or leads somewhere else than its host says."""
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
    return Place(found["v6"] or found["host"], port, transport or Transport.UNKNOWN)


def address_of(uri: str) -> Address | None:
    """Give the address that ``uri`` leads to; None where it is a name, or no single host's address."""
    place = place_of(uri)
    return None if place is None else host_address(place.host)


def host_address(host: str) -> Address | None:
    """Read an address of one host; None for any other text."""
    try:
        address = unmapped(ip_address(host))
    except ValueError:
        return None
    return None if address.is_unspecified or address.is_multicast else address
