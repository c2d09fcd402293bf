"""The DNS resolvers of this host.

``/etc/resolv.conf`` lists them, or it lists a server on this host itself (systemd-resolved at 127.0.0.53,
dnsmasq). Such a server queries other servers, and another file lists these (``UPSTREAM``). Only lines
``nameserver ADDRESS`` are read, as in the C library (``resolv.conf(5)``). The library uses only the first
three, but other programs may use more, so all count.
"""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

from ringfence.errors import HostError
from ringfence.model import Address, Network

RESOLV_CONF = Path("/etc/resolv.conf")
UPSTREAM = (
    Path("/run/systemd/resolve/resolv.conf"),
    Path("/run/NetworkManager/no-stub-resolv.conf"),
    Path("/run/dnsmasq/resolv.conf"),
)
"""Files that list the servers which a DNS server on this host queries."""

_REASON = "a DNS resolver of this host"
_MOST_BYTES = 64 * 1024


def read_resolvers(path: Path = RESOLV_CONF, upstream: Sequence[Path] = UPSTREAM) -> dict[Network, str]:
    """Return the resolvers, each with its role; raise HostError if they cannot be read.

    Servers on this host itself are left out, but the servers that they query are included. If the file does
    not exist, there are no resolvers.
    """
    found = set(_servers(path))
    if any(address.is_loopback for address in found):
        found.update(address for file in upstream for address in _servers(file))
    return {
        ip_network(address): _REASON
        for address in sorted(found, key=str)
        if not (address.is_loopback or address.is_unspecified)
    }


def _servers(path: Path) -> Iterator[Address]:
    try:
        with path.open("rb") as file:
            lines = file.read(_MOST_BYTES).split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise HostError(f"the DNS resolvers of this host cannot be read: {path}: {error.strerror}") from error
    for line in lines:
        words = line.split(None, 2)
        if len(words) > 1 and words[0] == b"nameserver" and line.startswith(b"n"):
            # A zone (fe80::1%eth0) names the link; firewall sets do not support zones.
            text = words[1].partition(b"%")[0].decode("ascii", "replace")
            try:
                yield ip_address(text)
            except ValueError:
                continue
