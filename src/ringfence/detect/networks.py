"""A set of networks that answers in constant time whether it covers an address or touches a network.

Kept as one set of integers for each prefix length in use, so the cost is the number of different lengths
(a handful), not the number of networks. For networks, the same is kept a second time, cut to each length that
was ever asked for.
"""

from collections.abc import Iterable

from ringfence.model import Address, Network

_BITS = {4: 32, 6: 128}


class NetworkSet:
    """Networks of both IP versions, fixed once made."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self.networks = frozenset(networks)
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for network in self.networks:
            host_bits = network.max_prefixlen - network.prefixlen
            key = (network.version, host_bits)
            self._by_length.setdefault(key, set()).add(int(network.network_address) >> host_bits)
        self._by_version = {
            version: [(bits, found) for (of, bits), found in self._by_length.items() if of == version]
            for version in (4, 6)
        }
        self._parts: dict[tuple[int, int], frozenset[int]] = {}

    def covers(self, address: Address) -> bool:
        """Say whether ``address`` lies in one of the networks."""
        number = int(address)
        for host_bits, prefixes in self._by_version[address.version]:  # a generator takes three times as long
            if number >> host_bits in prefixes:
                return True
        return False

    def __bool__(self) -> bool:
        """Whether there is any network in it."""
        return bool(self.networks)

    def contains(self, network: Network) -> bool:
        """Say whether the whole of ``network`` lies in one of the networks."""
        return self.contains_prefix(network.version, int(network.network_address), network.prefixlen)

    def contains_prefix(self, version: int, address: int, length: int) -> bool:
        """Say the same of a network in numbers."""
        own = _BITS[version] - length
        return any(bits >= own and address >> bits in found for bits, found in self._by_version[version])

    def touches(self, network: Network) -> bool:
        """Say whether ``network`` and one of the networks have an address in common."""
        return self.covers(network.network_address) or self.has_part_of(network)

    def has_part_of(self, network: Network) -> bool:
        """Say whether one of the networks lies in ``network``, or is it."""
        host_bits = network.max_prefixlen - network.prefixlen
        key = (network.version, host_bits)
        parts = self._parts.get(key)
        if parts is None:
            parts = self._parts[key] = self._cut(network.version, host_bits)
        return int(network.network_address) >> host_bits in parts

    def _cut(self, version: int, host_bits: int) -> frozenset[int]:
        return frozenset(
            number >> (host_bits - bits)
            for (of_version, bits), prefixes in self._by_length.items()
            if of_version == version and bits <= host_bits
            for number in prefixes
        )
