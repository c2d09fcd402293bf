"""Networks by the hundred thousand: read quickly, merged, and held in eight bytes each.

An ``IPv4Network`` takes 3 µs to make and 250 bytes to hold; block lists have 100 000 of them and more, and
mostly nobody looks. Here a network is a *code*, one integer that sorts as networks do (wider ones before what
lies in them): the address, and its prefix length in the lowest byte.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ringfence.model import Network, network_from

V4_BITS = 32
V6_BITS = 128
_LENGTH = 0xFF
_V6_BYTES = 17
_OCTETS = {str(number): number for number in range(256)}
_LENGTHS = {str(number): number for number in range(V4_BITS + 1)}
_FULL = str(V4_BITS)
_HOST_BITS = [(1 << (V4_BITS - length)) - 1 for length in range(V4_BITS + 1)]

Coded = tuple[int, int]
"""An IP version and a code."""


def coded(text: str) -> Coded:
    """Read an address or a network as :func:`ringfence.model.network_from` does; ValueError where it is none.

    What nearly every line of a block list is, plain IPv4, is read here; the rest is left to ``ipaddress``.
    """
    address, _, length = text.partition("/")
    try:
        one, two, three, four = address.split(".")
        number = _OCTETS[one] << 24 | _OCTETS[two] << 16 | _OCTETS[three] << 8 | _OCTETS[four]
        bits = _LENGTHS[length or _FULL]
    except (ValueError, KeyError):
        return code_of(network_from(text))
    if text[-1] == "/" or number & _HOST_BITS[bits]:
        return code_of(network_from(text))  # which says what is wrong with it
    return 4, number << 8 | bits


def code_of(network: Network) -> Coded:
    """Give the code of a network."""
    return network.version, int(network.network_address) << 8 | network.prefixlen


def network_of(version: int, code: int) -> Network:
    """Give the network of a code."""
    if version == 4:  # noqa: PLR2004 - the IP version
        return IPv4Network((code >> 8, code & _LENGTH))
    return IPv6Network((code >> 8, code & _LENGTH))


def text_of(version: int, code: int) -> str:
    """Write a code as people write it: an address without its prefix length."""
    number, length = code >> 8, code & _LENGTH
    if version == 4:  # noqa: PLR2004 - the IP version
        return str(IPv4Address(number)) if length == V4_BITS else f"{IPv4Address(number)}/{length}"
    return str(IPv6Address(number)) if length == V6_BITS else f"{IPv6Address(number)}/{length}"


def summarized(first: int, last: int, bits: int) -> Iterator[int]:
    """Give the codes of the fewest networks that make up the addresses from ``first`` to ``last``."""
    while first <= last:
        alignment = (first & -first).bit_length() - 1 if first else bits
        host_bits = min(alignment, (last - first + 1).bit_length() - 1)
        yield first << 8 | (bits - host_bits)
        first += 1 << host_bits


def merged(codes: Iterable[int], bits: int) -> list[int]:
    """Give the fewest codes that cover the same addresses, in order."""
    found: list[int] = []
    end = -1  # the last address that is covered
    for code in sorted(codes):
        number, length = code >> 8, code & _LENGTH
        if number <= end:
            continue
        end = number | ((1 << (bits - length)) - 1)
        while length > 1 and found:  # two halves of everything stay two: no set takes a /0
            half = 1 << (bits - length)
            if not number & half or found[-1] != (number ^ half) << 8 | length:
                break
            found.pop()
            number, length = number ^ half, length - 1
        found.append(number << 8 | length)
    return found


class Gatherer:
    """Takes networks of every kind, the same ones also twice, then gives them merged as :class:`Prefixes`."""

    def __init__(self) -> None:
        self._v4 = array("Q")  # a set of integers would take ten times as much
        self._v6: list[int] = []

    def __len__(self) -> int:
        return len(self._v4) + len(self._v6)

    def take(self, version: int, code: int) -> None:
        """Take a code."""
        if version == 4:  # noqa: PLR2004 - the IP version
            self._v4.append(code)
        else:
            self._v6.append(code)

    def add(self, network: Network) -> None:
        """Take a network."""
        self.take(*code_of(network))

    def extend(self, other: "Prefixes") -> None:
        """Take all of these."""
        for version, code in other.coded():
            self.take(version, code)

    def prefixes(self) -> "Prefixes":
        """Give all that were taken."""
        return Prefixes(merged(self._v4, V4_BITS), merged(self._v6, V6_BITS))

    def exactly(self) -> "Prefixes":
        """Give all that were taken as they are, to be asked by :meth:`Prefixes.has` alone."""
        return Prefixes(sorted(self._v4), sorted(self._v6))


class Prefixes:
    """Networks of both IP versions in order, none within another: a collection of ``Network`` in few bytes.

    ``v4`` and ``v6`` are codes as :func:`merged` gives them. Iterating makes the networks one by one.
    """

    __slots__ = ("_v4", "_v6")

    def __init__(self, v4: Iterable[int] = (), v6: Iterable[int] = ()) -> None:
        self._v4 = array("Q", v4)
        self._v6 = b"".join(code.to_bytes(_V6_BYTES, "big") for code in v6)

    @classmethod
    def of(cls, networks: Iterable[Network]) -> "Prefixes":
        """Give these networks, merged."""
        gatherer = Gatherer()
        for network in networks:
            gatherer.add(network)
        return gatherer.prefixes()

    def __len__(self) -> int:
        return len(self._v4) + len(self._v6) // _V6_BYTES

    def __iter__(self) -> Iterator[Network]:
        return (network_of(version, code) for version, code in self.coded())

    def __contains__(self, network: object) -> bool:
        return isinstance(network, IPv4Network | IPv6Network) and self.around(network) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefixes) and (self._v4, self._v6) == (other._v4, other._v6)

    def __hash__(self) -> int:
        return hash((self._v4.tobytes(), self._v6))

    def __repr__(self) -> str:
        return f"Prefixes({len(self)} networks)"

    def coded(self) -> Iterator[Coded]:
        """Give every network as IP version and code, in order."""
        for code in self._v4:
            yield 4, code
        for place in range(0, len(self._v6), _V6_BYTES):
            yield 6, int.from_bytes(self._v6[place : place + _V6_BYTES], "big")

    def has(self, version: int, code: int) -> bool:
        """Say whether this very network is one of them."""
        return self._last_at_or_before(version, code) == code

    def around(self, network: Network) -> Network | None:
        """Give the one that ``network`` lies in, or is; None where there is none."""
        version, code = code_of(network)
        before = self._last_at_or_before(version, code)
        if before is None:
            return None
        found = network_of(version, before)
        return found if network.subnet_of(found) else None  # type: ignore[arg-type] # of one version

    def _last_at_or_before(self, version: int, code: int) -> int | None:
        if version == 4:  # noqa: PLR2004 - the IP version
            place = bisect_right(self._v4, code)
            return self._v4[place - 1] if place else None
        wanted = code.to_bytes(_V6_BYTES, "big")
        place = bisect_right(range(len(self._v6) // _V6_BYTES), wanted, key=self._v6_at)
        return int.from_bytes(self._v6_at(place - 1), "big") if place else None

    def _v6_at(self, place: int) -> bytes:
        return self._v6[place * _V6_BYTES : (place + 1) * _V6_BYTES]
