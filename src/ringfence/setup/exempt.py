"""Networks that setup proposes for the allow list: local ones, trunks, the administrator's own address.

Some addresses need no entry, because the daemon never bans them: loopback, this host's own addresses, its
gateways and resolvers, and the addresses of remote logins on this host (``host/protected.py``).
"""

import os
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network

from ringfence.audit.shown import Trunk, identifies_from, peers_from
from ringfence.errors import HostError
from ringfence.host.local_networks import read_local_networks
from ringfence.model import Network, printable
from ringfence.networks import contains
from ringfence.setup.asterisk import FoundAsterisk

MOST = 200
"""The maximum number of trunks that setup proposes. Further trunks are left out."""
_WIDEST = {4: 8, 6: 32}
"""The shortest prefix length of a trunk's network, by IP version.

Wider networks are left out, because they would exempt a large part of the Internet.
"""


def networks_to_exempt(
    asterisk: FoundAsterisk, environ: Mapping[str, str] = os.environ
) -> tuple[dict[Network, str], list[str]]:
    """Return the networks that setup proposes, each with its reason, and a line for each problem."""
    problems = []
    found: dict[Network, str] = {}
    try:
        local = read_local_networks()
    except HostError as error:
        local = {}
        problems.append(str(error))
    for network, link in local.items():
        found[network] = f"the network of {link}" if link else "a local network"
    trunks = [
        *identifies_from(asterisk.console.show("pjsip show identifies") or ""),
        *peers_from(asterisk.console.show("sip show peers") or ""),
    ]
    found.update(trunks_in(trunks))
    client = ssh_client(environ)
    if client is not None:
        found.setdefault(client, "your SSH session comes from there")
    return without_parts(found), problems


def trunks_in(trunks: Iterable[Trunk]) -> dict[Network, str]:
    """Return the networks of the first ``MOST`` trunks, each with the trunk's name as its reason.

    Networks that are too wide are left out.
    """
    kept = [trunk for trunk in trunks if trunk.network.prefixlen >= _WIDEST[trunk.network.version]][:MOST]
    return {trunk.network: f"trunk {printable(trunk.name)}" for trunk in kept}


def ssh_client(environ: Mapping[str, str]) -> Network | None:
    """Return the address of the SSH client that uses this shell.

    Return None if the shell is not used by SSH, or if the client's address is invalid or a loopback address.
    """
    host = environ.get("SSH_CONNECTION", "").partition(" ")[0].partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    address = getattr(address, "ipv4_mapped", None) or address
    return None if address.is_loopback else ip_network(address)


def without_parts(networks: Mapping[Network, str]) -> dict[Network, str]:
    """Return the networks, each with its reason. A network that lies in another of them is left out."""
    return {
        network: why
        for network, why in networks.items()
        if not any(contains(other, network) for other in networks if other != network)
    }
