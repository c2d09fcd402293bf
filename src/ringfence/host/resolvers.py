"""The DNS resolvers of this host: who answers when a name is looked up here.

``/etc/resolv.conf`` names them, or names a server on this host itself (systemd-resolved at 127.0.0.53,
dnsmasq), which asks others: those are in a file of that server's. Read as the C library reads it
(``resolv.conf(5)``): a line ``nameserver ADDRESS`` from its beginning, the rest of no meaning here. The
library asks the first three only, but which program asks whom is its own affair: all count.
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
"""Where a server on this host says whom it asks."""

_REASON = "a DNS resolver of this host"
_MOST_BYTES = 64 * 1024


def read_resolvers(path: Path = RESOLV_CONF, upstream: Sequence[Path] = UPSTREAM) -> dict[Network, str]:
    """Give the resolvers, each with what it is to people; HostError where they cannot be read.

    None is on this host itself. No file is no resolver.
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
            # A zone (fe80::1%eth0) says by which link; firewall sets know none.
            text = words[1].partition(b"%")[0].decode("ascii", "replace")
            try:
                yield ip_address(text)
            except ValueError:
                continue
