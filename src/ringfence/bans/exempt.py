"""Who is not banned, and why: by an administrator's word, and by what he is to this host."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network

from attrs import field, frozen

from ringfence.detect.networks import NetworkSet
from ringfence.model import Network, shown

ITSELF: Mapping[Network, str] = {
    ip_network("127.0.0.0/8"): "this host itself",
    ip_network("::1/128"): "this host itself",
}

# The second is documentation's, where bans of IPv6 are tried (``firewall/probe.py``).
_OF_THIS_HOST = (ip_network("127.0.0.0/8"), ip_network("2001:db8:5246::/48"))


@frozen
class Exempt:
    """Who is not banned: ``allowed`` by an administrator, and ``protected`` with the reason for each.

    Whom a list allows is never dropped, and a ban around him bans the others. What is protected is not
    banned, nor what is around it, unless an administrator insists.
    """

    allowed: NetworkSet = field(factory=NetworkSet)
    protected: Mapping[Network, str] = ITSELF

    @property
    def never(self) -> NetworkSet:
        """All of them."""
        return NetworkSet([*self.allowed.networks, *self.protected])

    def refusal(self, network: Network, *, force: bool = False) -> str | None:
        """Say why ``network`` is not banned; None where it may be."""
        if self.allowed.contains(network):
            return "is allowed (see: ringfence allow list)"
        if force:
            return None
        for kept, reason in self.protected.items():
            if overlap(kept, network):
                inside = "" if kept == network else f"{shown(kept)}, "
                return f"is never banned: {inside}{reason}; --force bans it all the same"
        return None


def reachable(network: Network) -> Iterator[Network]:
    """Give a network without what this host keeps for itself: by it bans are tried, and nobody is let in."""
    own = next((kept for kept in _OF_THIS_HOST if overlap(kept, network)), None)
    if own is None:
        yield network
    elif own.prefixlen > network.prefixlen:
        parts: Iterable[Network] = network.address_exclude(own)  # type: ignore[arg-type]  # of one version
        for part in parts:
            yield from reachable(part)


def overlap(one: Network, other: Network) -> bool:
    """Say whether two networks have an address in common."""
    if one.version != other.version:
        return False
    bits = one.max_prefixlen - min(one.prefixlen, other.prefixlen)
    return int(one.network_address) >> bits == int(other.network_address) >> bits
