"""Networks: the network of one sender, the prefix around it, and sets of networks.

The network of an IPv4 sender is its address. The network of an IPv6 sender is its /64, because a host usually
has all addresses of a /64.

*Addresses of NAT64* are IPv6 addresses that stand for IPv4 hosts (RFC 6052, RFC 8215): ``64:ff9b::/96`` and,
for local use, ``64:ff9b:1::/48``. There a single /64 may contain the whole IPv4 Internet. So the network of
such a sender is its address. (The kernel's limit of packets has no such exception: it counts the /64.)

Rules also count the attempts from the *prefix* around a sender: the /24 for IPv4, the /48 for IPv6, and the
/120 for addresses of NAT64. Usually the last 32 bits of these are the IPv4 address, and the /120 is the IPv4
/24. In ``64:ff9b:1::/48`` an administrator may put the IPv4 address elsewhere. Then a /120 contains only one
host. The rule for prefixes needs attempts of several senders (three by default), so it bans no such /120.
That is better than a wider prefix, which could contain unrelated hosts.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol, TypeAlias, runtime_checkable

Address: TypeAlias = IPv4Address | IPv6Address

Network: TypeAlias = IPv4Network | IPv6Network

_IPV4_IN_IPV6 = IPv6Network("::ffff:0:0/96")


def parse_network(text: str) -> Network:
    """Parse an address or a network; raise ValueError if ``text`` is neither, or has a zone (``%eth0``).

    IPv4-mapped IPv6 addresses are converted to IPv4, because packets carry the IPv4 address.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone; leave it out")
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_IN_IPV6):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def is_single(network: Network) -> bool:
    """Whether ``network`` is one address."""
    return network.prefixlen == network.max_prefixlen


def format_network(network: Network) -> str:
    """Return the text of a network; a single address is written without its prefix length."""
    return str(network.network_address if is_single(network) else network)


_CUSTOMERS = (60, 56, 52)
_LENGTH_BITS = 8  # bits of a number that hold a prefix length

PREFIX_LENGTHS = frozenset({24, 48, *_CUSTOMERS, 120})
"""The prefix lengths of the networks that :func:`prefix_of` and :func:`narrowest` return."""

SHORTEST: Mapping[int, int] = {4: 8, 6: 16}
"""The shortest prefix length that is banned or denied without --force, by IP version.

No registry assigns a wider network.
"""

PAGE_SHORTEST: Mapping[int, int] = {4: 24, 6: 48}
"""The shortest prefix length that the web page may ban, allow, deny or remove, by IP version."""

PAGE_UNBAN_SHORTEST: Mapping[int, int] = {4: 16, 6: 32}
"""The shortest prefix length that the web page may unban, by IP version: no rule bans a wider network."""

VERSIONS = (4, 6)
BITS: Mapping[int, int] = {4: 32, 6: 128}
"""The length of an address in bits, by IP version."""

IPV6_SENDER = 64
"""The prefix length of an IPv6 sender's network, except for addresses of NAT64."""

SENDER_LENGTHS: Mapping[int, int] = {4: 32, 6: IPV6_SENDER}
"""The prefix length of a sender's network by IP version, except for addresses of NAT64."""

_IPV4_PREFIX, _IPV6_PREFIX, _TRANSLATED_PREFIX = 24, 48, 120
_HOST_BITS = BITS[6] - IPV6_SENDER
_WELL_KNOWN, _WELL_KNOWN_SHIFT = 0x64FF9B << 64, 32  # 64:ff9b::/96
_LOCAL, _LOCAL_SHIFT = 0x64FF9B0001, 80  # 64:ff9b:1::/48


_V6 = 1 << (BITS[6] + 8)


def pack(network: Network) -> int:
    """Return a network as one integer, because a network object takes 700 bytes, and some 3 µs to make."""
    code = int(network.network_address) << 8 | network.prefixlen
    return code if network.version == 4 else code | _V6  # noqa: PLR2004 - the IP version


def unpack(packed: int) -> Network:
    """Return the network that :func:`pack` packed into this integer."""
    version, code = code_from(packed)
    place = code >> 8, code & 0xFF
    return IPv4Network(place) if version == 4 else IPv6Network(place)  # noqa: PLR2004 - the IP version


def code_from(packed: int) -> tuple[int, int]:
    """Return the IP version of a packed network, and its address and prefix length in one integer."""
    return (6, packed ^ _V6) if packed & _V6 else (4, packed)


@runtime_checkable
class RangedNetworks(Protocol):
    """A collection of networks that can also return the ranges of addresses that it covers.

    250 000 network objects take a second to make, the bounds of their ranges a tenth of it.
    """

    def __len__(self) -> int:
        """Return the number of networks."""

    def __iter__(self) -> Iterator[Network]:
        """Yield each network."""

    def bounds(self, version: int) -> list[int]:
        """Return the first and the last address of each range, one after the other, in order.

        The ranges are neither overlapping nor adjacent.
        """


def is_one_host(address: Address) -> bool:
    """Whether the sender with ``address`` has only this one (IPv4 and NAT64), and not a whole /64."""
    if isinstance(address, IPv4Address):
        return True
    number = int(address)
    return number >> _WELL_KNOWN_SHIFT == _WELL_KNOWN or number >> _LOCAL_SHIFT == _LOCAL


def is_loopback(host: str) -> bool:
    """Whether ``host`` is ``localhost`` or a loopback address; other names are not resolved."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


# Cached, because a phone's login asks for its network five times, and making one takes 4 µs. An IPv6 address
# is no key: Python's hash of its number is not secret, so attackers could choose addresses that collide.
_ipv4_network = lru_cache(maxsize=2048)(IPv4Network)


def sender_of(address: Address) -> Network:
    """Return the network of the sender that has ``address``.

    It is the address itself for IPv4 and for NAT64, otherwise the /64 around it.
    """
    if isinstance(address, IPv4Address):
        return _ipv4_network(int(address))
    if is_one_host(address):
        return IPv6Network(int(address))
    return IPv6Network((int(address) >> _HOST_BITS << _HOST_BITS, IPV6_SENDER))


def sender_key(address: Address) -> Address | int:
    """Return a dictionary key that is the same for all addresses of one sender (:func:`sender_of`)."""
    return address if is_one_host(address) else int(address) >> _HOST_BITS


def prefix_of(address: Address) -> Network:
    """Return the network around ``address`` that rules count as its prefix: /24, IPv6 /48 or NAT64 /120."""
    if isinstance(address, IPv4Address):
        length = _IPV4_PREFIX
    else:
        length = _TRANSLATED_PREFIX if is_one_host(address) else _IPV6_PREFIX
    return ip_network((address, length), strict=False)


def narrowest(prefix: Network, members: Iterable[Network]) -> Network:
    """Return the narrowest network within ``prefix`` that contains all of its ``members``.

    Customers of IPv6 have a /48, a /56 or a /60 (RFC 6177), so a /48 is narrowed to the network of one. Other
    prefixes are returned as they are.
    """
    if (prefix.version, prefix.prefixlen) != (6, _IPV6_PREFIX):
        return prefix
    addresses = [int(member.network_address) for member in members]
    for length in _CUSTOMERS:
        bits = prefix.max_prefixlen - length
        if len({address >> bits for address in addresses}) == 1:
            return IPv6Network((addresses[0] >> bits << bits, length))
    return prefix


def overlap(one: Network, other: Network) -> bool:
    """Whether two networks have an address in common."""
    if one.version != other.version:
        return False
    bits = one.max_prefixlen - min(one.prefixlen, other.prefixlen)
    return int(one.network_address) >> bits == int(other.network_address) >> bits


def contains(wide: Network, narrow: Network) -> bool:
    """Whether ``wide`` contains the whole of ``narrow``."""
    return wide.prefixlen <= narrow.prefixlen and overlap(wide, narrow)


def without(network: Network, part: Network) -> tuple[Network, ...]:
    """Return networks that together cover ``network`` except ``part``.

    Return () if ``part`` is not inside ``network``, or is all of it.
    """
    if part.prefixlen <= network.prefixlen or not overlap(network, part):
        return ()
    return tuple(network.address_exclude(part))  # type: ignore[arg-type]  # same IP version


def without_all(network: Network, parts: Sequence[Network]) -> Iterator[Network]:
    """Yield networks that together cover ``network`` except ``parts``."""
    own = next((part for part in parts if overlap(part, network)), None)
    if own is None:
        yield network
    else:
        for rest in without(network, own):
            yield from without_all(rest, parts)


def whole_sender(network: Network) -> Network:
    """Return the /64 around ``network`` if ``network`` is only a part of one sender's /64.

    Otherwise return ``network``: for IPv4, a wider network, or addresses of NAT64.
    """
    if (
        isinstance(network, IPv6Network)
        and network.prefixlen > IPV6_SENDER
        and not is_one_host(network.network_address)
    ):
        return network.supernet(new_prefix=IPV6_SENDER)
    return network


def senders_in(network: Network, most: int) -> Iterable[Network]:
    """Return the network of each sender in ``network``; only ``network`` if they are more than ``most``."""
    length = sender_of(network.network_address).prefixlen
    few = network.prefixlen < length and 1 << (length - network.prefixlen) <= most
    return network.subnets(new_prefix=length) if few else (network,)


def exempts_friends(network: Network) -> bool:
    """Whether a ban of ``network`` exempts the friends in it: it then drops none of their packets.

    The answer is true for an IPv6 /64, and for a part of a /64 that is more than one address. An IPv6 sender
    has a whole /64, so the /64 is counted and banned. But a phone may share that /64 with an attacker.

    Three kinds of bans do drop a friend's packets: a ban of exactly its IPv6 address, a ban of an IPv6
    network wider than a /64, and every IPv4 ban. The scope of the ban makes no difference.
    """
    return isinstance(network, IPv6Network) and IPV6_SENDER <= network.prefixlen < network.max_prefixlen


def affects(network: Network, *, friend: bool) -> bool:
    """Whether a ban of ``network`` drops packets of an address in it; ``friend``: the address is a friend."""
    return not (friend and exempts_friends(network))


class NetworkSet:
    """An immutable set of networks of both IP versions. Look-ups take constant time.

    It keeps one set of integers for each prefix length of its networks, and a look-up checks all these sets.
    There are usually few different lengths. :meth:`contains_part_of` and :meth:`overlaps` take longer when
    they are called for the first time: then they sort the networks.
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self.networks = frozenset(networks)
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for network in self.networks:
            host_bits = network.max_prefixlen - network.prefixlen
            key = (network.version, host_bits)
            self._by_length.setdefault(key, set()).add(int(network.network_address) >> host_bits)
        self._by_version = {
            version: [(bits, found) for (of, bits), found in self._by_length.items() if of == version]
            for version in VERSIONS
        }
        self._sorted: dict[int, list[int]] = {}

    def covers(self, address: Address) -> bool:
        """Whether ``address`` lies in a network of this set."""
        number = int(address)
        for host_bits, prefixes in self._by_version[address.version]:  # any() takes three times as long
            if number >> host_bits in prefixes:
                return True
        return False

    def __bool__(self) -> bool:
        """Whether the set has any network."""
        return bool(self.networks)

    def contains(self, network: Network) -> bool:
        """Whether a network of this set contains the whole of ``network``."""
        return self.contains_prefix(network.version, int(network.network_address), network.prefixlen)

    def contains_prefix(self, version: int, address: int, length: int) -> bool:
        """Whether a network of this set contains the whole of a given network.

        The given network has the IP version ``version``, the first address ``address`` (a number), and the
        prefix length ``length``.
        """
        own = BITS[version] - length
        return any(bits >= own and address >> bits in found for bits, found in self._by_version[version])

    def overlaps(self, network: Network) -> bool:
        """Whether ``network`` and a network of this set have an address in common."""
        return self.covers(network.network_address) or self.contains_part_of(network)

    def contains_part_of(self, network: Network) -> bool:
        """Whether a network of this set lies inside ``network`` or is equal to it."""
        codes = self._sorted.get(network.version)
        if codes is None:
            codes = self._sorted[network.version] = sorted(
                prefix << bits + _LENGTH_BITS | BITS[network.version] - bits
                for bits, prefixes in self._by_version[network.version]
                for prefix in prefixes
            )
        # The first network from here on begins at the same address and is not wider, or begins later. It lies
        # inside if its first address does, because networks do not overlap in part.
        first = int(network.network_address) << _LENGTH_BITS
        after = first + (1 << network.max_prefixlen - network.prefixlen + _LENGTH_BITS)
        at = bisect_left(codes, first | network.prefixlen)
        return at < len(codes) and codes[at] < after
