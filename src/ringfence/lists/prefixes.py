"""Large numbers of networks: parsed fast, merged, and stored in few bytes each (8 for IPv4, 17 for IPv6).

An ``IPv4Network`` takes 3 µs to create and 250 bytes to store; block lists have 100,000 of them and more. So
a network is stored as a *code*: one integer with the address, and the prefix length in the lowest byte. Codes
sort like networks, a wider network before those within it.
"""

import sys
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import chain, islice

from ringfence.values.network import BITS, Network, code_from, contains, parse_network

V4_BITS = 32
V6_BITS = 128
_LENGTH = 0xFF
_V4_BYTES = 8
_V6_BYTES = 17
_OCTETS = {str(number): number for number in range(256)}
_LENGTHS = {str(number): number for number in range(V4_BITS + 1)}
_FULL = str(V4_BITS)
_HOST_BITS = [(1 << (V4_BITS - length)) - 1 for length in range(V4_BITS + 1)]

_PRIVATE: tuple[Network, ...] = (
    *(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")),
    IPv6Network("fc00::/7"),
)
"""Networks of which no packet comes from the Internet (RFC 1918, RFC 6598, RFC 4193)."""

Coded = tuple[int, int]
"""An IP version, and a network's *code*: an integer, the address times 256 plus the prefix length."""


def coded(text: str) -> Coded:
    """Parse an address or a network fast; return its IP version and code (:data:`Coded`).

    Raise ValueError if it is neither. Plain IPv4, which is nearly every line of a block list, is parsed here;
    the rest is left to ``ipaddress``.
    """
    address, _, length = text.partition("/")
    try:
        one, two, three, four = address.split(".")
        number = _OCTETS[one] << 24 | _OCTETS[two] << 16 | _OCTETS[three] << 8 | _OCTETS[four]
        bits = _LENGTHS[length or _FULL]
    except (ValueError, KeyError):
        return code_of(parse_network(text))
    if text[-1] == "/" or number & _HOST_BITS[bits]:
        return code_of(parse_network(text))  # it raises ValueError, with the reason
    return 4, number << 8 | bits


def code_of(network: Network) -> Coded:
    """Return the IP version of a network, and the network as one integer (:data:`Coded`)."""
    return network.version, int(network.network_address) << 8 | network.prefixlen


def network_of(version: int, code: int) -> Network:
    """Return the network of a code (:data:`Coded`)."""
    if version == 4:  # noqa: PLR2004 - the IP version
        return IPv4Network((code >> 8, code & _LENGTH))
    return IPv6Network((code >> 8, code & _LENGTH))


def text_of(version: int, code: int) -> str:
    """Return the text of a network's code (:data:`Coded`); a single address has no prefix length."""
    number, length = code >> 8, code & _LENGTH
    if version == 4:  # noqa: PLR2004 - the IP version
        return str(IPv4Address(number)) if length == V4_BITS else f"{IPv4Address(number)}/{length}"
    return str(IPv6Address(number)) if length == V6_BITS else f"{IPv6Address(number)}/{length}"


def summarized(first: int, last: int, bits: int) -> Iterator[int]:
    """Yield the codes of the fewest networks that have exactly the addresses ``first`` to ``last``.

    ``bits`` is the length of an address in bits.
    """
    while first <= last:
        alignment = (first & -first).bit_length() - 1 if first else bits
        host_bits = min(alignment, (last - first + 1).bit_length() - 1)
        yield first << 8 | (bits - host_bits)
        first += 1 << host_bits


def merged(codes: Iterable[int], bits: int) -> list[int]:
    """Return the fewest codes (:data:`Coded`) of networks that cover the same addresses, sorted.

    ``bits`` is the length of an address in bits.
    """
    found: list[int] = []
    end = -1  # the last covered address
    for code in sorted(codes):
        number = code >> 8
        if number <= end:
            continue
        size = 1 << bits - (code & _LENGTH)
        end = number + size - 1
        # The lower half of a network may be the last one found. Two /1 are not merged: no set accepts a /0.
        while number & size and found and found[-1] == code ^ size << 8 and code & _LENGTH > 1:
            code = found.pop() - 1  # noqa: PLW2901 - the network of both halves
            number, size = code >> 8, size << 1
        found.append(code)
    return found


class Gatherer:
    """Collects networks, unordered and with duplicates, and returns them merged as :class:`Prefixes`."""

    def __init__(self) -> None:
        self._v4 = array("Q")  # a set of integers would take ten times the memory
        self._v6: list[int] = []
        self._first: Prefixes | None = None  # the list with which the collection began

    def __len__(self) -> int:
        return len(self._v4) + len(self._v6)

    def add_v4(self, codes: Iterable[int]) -> None:
        """Add IPv4 networks by their codes (:data:`Coded`)."""
        self._v4.extend(codes)

    def add_code(self, version: int, code: int) -> None:
        """Add a network by its code (:data:`Coded`)."""
        if version == 4:  # noqa: PLR2004 - the IP version
            self._v4.append(code)
        else:
            self._v6.append(code)

    def add(self, network: Network) -> None:
        """Add a network."""
        self.add_code(*code_of(network))

    def extend(self, other: "Prefixes") -> None:
        """Add all networks of ``other``."""
        self._first = None if len(self) else other
        self._v4.extend(other._v4)  # noqa: SLF001 - a class of this module
        self._v6.extend(other._v6_codes())  # noqa: SLF001

    def compact(self) -> None:
        """Merge the networks collected so far, so that they take less memory."""
        self._first = None
        self._v4 = array("Q", merged(self._v4, V4_BITS))
        self._v6 = merged(self._v6, V6_BITS)

    def prefixes(self) -> "Prefixes":
        """Return all collected networks, merged."""
        if self._first is not None and len(self._first) == len(self):
            return self._first  # nothing else was added
        return Prefixes(merged(self._v4, V4_BITS), merged(self._v6, V6_BITS))

    def unmerged(self) -> "Prefixes":
        """Return all collected networks without merging.

        Use only :meth:`Prefixes.coded` of the result. The other methods need merged networks.
        """
        return Prefixes(sorted(self._v4), sorted(self._v6))


class Prefixes:
    """Sorted networks of both IP versions, none within another, stored compactly.

    ``v4`` and ``v6`` are codes as :func:`merged` returns them. Iteration creates the networks one by one.
    """

    __slots__ = ("_v4", "_v6")

    def __init__(self, v4: Iterable[int] = (), v6: Iterable[int] = ()) -> None:
        self._v4 = array("Q", v4)
        self._v6 = b"".join(code.to_bytes(_V6_BYTES, "big") for code in v6)

    @classmethod
    def of(cls, networks: Iterable[Network]) -> "Prefixes":
        """Return the merged ``networks``."""
        gatherer = Gatherer()
        for network in networks:
            gatherer.add(network)
        return gatherer.prefixes()

    @classmethod
    def of_packed(cls, networks: Iterable[int]) -> "Prefixes":
        """Return the merged networks of integers that :func:`ringfence.values.network.pack` returned."""
        gatherer = Gatherer()
        for packed in networks:
            gatherer.add_code(*code_from(packed))
        return gatherer.prefixes()

    @classmethod
    def unpacked(cls, v4: bytes, v6: bytes) -> "Prefixes":
        """Return the networks in the bytes of :attr:`packed`; raise ValueError if a size is wrong."""
        if len(v6) % _V6_BYTES:
            raise ValueError("the IPv6 networks are cut")
        found = cls()
        found._v4.frombytes(v4)
        found._v6 = v6
        return found

    @property
    def packed(self) -> tuple[bytes, bytes]:
        """The sorted networks as bytes, for a file that only this host reads: 8 each of IPv4, 17 of IPv6."""
        return self._v4.tobytes(), self._v6

    def __len__(self) -> int:
        return len(self._v4) + len(self._v6) // _V6_BYTES

    def __iter__(self) -> Iterator[Network]:
        return (network_of(version, code) for version, code in self.coded())

    def __contains__(self, network: object) -> bool:
        return isinstance(network, IPv4Network | IPv6Network) and self.containing(network) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefixes) and (self._v4, self._v6) == (other._v4, other._v6)

    def __hash__(self) -> int:
        return hash((self._v4.tobytes(), self._v6))

    def __repr__(self) -> str:
        return f"Prefixes({len(self)} networks)"

    def bounds(self, version: int) -> list[int]:
        """Return the ranges of addresses that the networks of an IP version cover, in order.

        The list has the first and the last address of each range, as integers, one after the other. The
        ranges are neither overlapping nor adjacent.
        """
        bits = BITS[version]
        more = [(1 << bits - length) - 1 for length in range(bits + 1)]
        codes = self._v4 if version == 4 else [*self._v6_codes()]  # noqa: PLR2004 - the IP version
        if not codes:
            return []
        firsts = [code >> 8 for code in codes]
        lasts = [first + more[code & _LENGTH] for first, code in zip(firsts, codes, strict=True)]
        gaps = [gap for gap in zip(lasts, islice(firsts, 1, None), strict=False) if gap[1] - gap[0] > 1]
        return [firsts[0], *chain.from_iterable(gaps), lasts[-1]]

    def addresses(self, version: int) -> int:
        """Return the number of addresses of an IP version that the networks cover."""
        lengths = self._v6[_V6_BYTES - 1 :: _V6_BYTES]
        if version == 4:  # noqa: PLR2004 - the IP version
            lengths = self._v4.tobytes()[0 if sys.byteorder == "little" else _V4_BYTES - 1 :: _V4_BYTES]
        return sum(number << BITS[version] - length for length, number in Counter(lengths).items())

    def coded(self) -> Iterator[Coded]:
        """Yield every network as IP version and code, sorted."""
        for code in self._v4:
            yield 4, code
        for code in self._v6_codes():
            yield 6, code

    def _v6_codes(self) -> Iterator[int]:
        for index in range(0, len(self._v6), _V6_BYTES):
            yield int.from_bytes(self._v6[index : index + _V6_BYTES], "big")

    def public_addresses(self, version: int) -> int:
        """Return how many addresses of an IP version the networks have, without those in private networks."""
        bits, total = BITS[version], 0
        private = [code_of(network)[1] for network in _PRIVATE if network.version == version]
        for found, code in self.coded():
            if found == version and not any(_is_within(code, around, bits) for around in private):
                inside = (one for one in private if _is_within(one, code, bits))
                total += _size(code, bits) - sum(_size(one, bits) for one in inside)
        return total

    def containing(self, network: Network) -> Network | None:
        """Return the network that contains or equals ``network``; None if there is none."""
        version, code = code_of(network)
        before = self._last_at_or_before(version, code)
        if before is None:
            return None
        found = network_of(version, before)
        return found if contains(found, network) else None

    def overlaps(self, network: Network) -> bool:
        """Whether the collection has an address of ``network``."""
        # The networks are apart and in order, so only the last one that begins within it, or before, matters.
        last = int(network.broadcast_address) << 8 | network.max_prefixlen
        before = self._last_at_or_before(network.version, last)
        if before is None:
            return False
        found = network_of(network.version, before)
        return contains(found, network) or contains(network, found)

    def _last_at_or_before(self, version: int, code: int) -> int | None:
        if version == 4:  # noqa: PLR2004 - the IP version
            index = bisect_right(self._v4, code)
            return self._v4[index - 1] if index else None
        wanted = code.to_bytes(_V6_BYTES, "big")
        index = bisect_right(range(len(self._v6) // _V6_BYTES), wanted, key=self._v6_at)
        return int.from_bytes(self._v6_at(index - 1), "big") if index else None

    def _v6_at(self, index: int) -> bytes:
        return self._v6[index * _V6_BYTES : (index + 1) * _V6_BYTES]


def _is_within(code: int, around: int, bits: int) -> bool:
    """Whether the network with code ``around`` contains that with ``code``; an address has ``bits`` bits."""
    length = around & _LENGTH
    shift = 8 + bits - length
    return code & _LENGTH >= length and code >> shift == around >> shift


def _size(code: int, bits: int) -> int:
    return 1 << (bits - (code & _LENGTH))
