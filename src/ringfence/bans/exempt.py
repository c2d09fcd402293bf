"""The networks that are not banned, and why: allowed by an administrator, or needed by this host."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_network

from attrs import field, frozen

from ringfence.firewall.contract import PROBE_NETWORKS
from ringfence.values.network import SHORTEST, Network, NetworkSet, format_network, overlap, without_all

ITSELF: Mapping[Network, str] = {
    ip_network("127.0.0.0/8"): "this host itself",
    ip_network("::1/128"): "this host itself",
}

# The probe (``firewall/probe.py``) tests bans with packets of these networks: IPv4 bans with the first one,
# IPv6 bans with the second one, which is a part of the range for documentation.
_RESERVED = (ip_network("127.0.0.0/8"), ip_network("2001:db8:5246::/48"))
PROBED = tuple(map(ip_network, PROBE_NETWORKS.values()))
"""The networks of the probe's addresses, which no list may let pass."""


@frozen
class Exempt:
    """The exempt networks: those that an administrator has allowed, and those that this host needs.

    Packets of ``allowed`` networks are never dropped, even if a wider network is banned. ``protected`` has
    the networks that this host needs, each with the reason. A network that overlaps one of them is not
    banned, unless an administrator forces the ban.
    """

    allowed: NetworkSet = field(factory=NetworkSet)
    protected: Mapping[Network, str] = ITSELF

    @property
    def never_banned(self) -> NetworkSet:
        """All exempt networks."""
        return NetworkSet([*self.allowed.networks, *self.protected])

    def refusal(self, network: Network, *, force: bool = False) -> str | None:
        """Return why ``network`` must not be banned; None if it may be.

        With ``force``, protected networks may be banned. Networks on the allow list and a /0 may not.
        """
        if not network.prefixlen:
            return "is every address, which is never banned"
        if self.allowed.contains(network):
            return "is allowed (see: ringfence allow list)"
        if force:
            return None
        for kept, reason in self.protected.items():
            if overlap(kept, network):
                inside = "" if kept == network else f"{format_network(kept)}, "
                return f"is never banned: {inside}{reason}; --force bans it anyway"
        return None


def too_wide(network: Network) -> str | None:
    """Return why an administrator's ban of ``network`` needs ``--force``; None if it is not too wide."""
    if network.prefixlen >= SHORTEST[network.version]:
        return None
    return "is a large part of the internet, so it is not banned; --force bans it anyway"


def without_reserved(network: Network) -> Iterator[Network]:
    """Return the parts of an allowed network without the ranges of the probe's addresses.

    The probe bans addresses in these ranges for a moment, and tests whether packets are dropped. If the
    kernel's allow list contained these addresses, no packet would be dropped.
    """
    return without_all(network, _RESERVED)
