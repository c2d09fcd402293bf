"""Databases in MaxMind's format (GeoLite2, DB-IP, IPinfo): countries and autonomous systems of networks.

The format is described in https://maxmind.github.io/MaxMind-DB/. A file has a tree of networks, whose leaves
point to records, and many networks share a record. Only those fields of a record are decoded that are needed.
All others are skipped, and no pointer in them is followed.

The content is untrusted. These are bounded: the nodes of the tree, the different records, the values of each
record, and the values of all records. A file that exceeds a bound, or is damaged, raises ValueError. A file
is read in pages and not mapped into memory: its owner may make it shorter at any moment.
"""

from collections.abc import Callable, Collection, Iterator, Mapping

from attrs import Factory, define, frozen

MOST_NODES = 16_000_000
"""The maximum number of nodes of a MaxMind database's tree. GeoLite2-City has some six million."""
MOST_RECORDS = 500_000
"""The maximum number of different records of a MaxMind database that are decoded for all networks."""
MOST_VALUES = 500
"""The maximum number of values in a record of a MaxMind database. GeoIP2-Enterprise has some 150."""
MOST_WORK = 20_000_000
"""The maximum number of values that are decoded in all while a MaxMind database is open."""
MAX_TEXT = 200
"""The maximum length of a name in a MaxMind database, in bytes. A longer one is cut."""

V4_BITS, V6_BITS = 32, 128

_PAGE_BITS = 12
_PAGE = 1 << _PAGE_BITS
_MOST_PAGES = 2_048
_MARKER = b"\xab\xcd\xefMaxMind.com"
_LONGEST_METADATA = 128 * 1024
_SEPARATOR = 16
_POINTER, _TEXT, _MAP, _ARRAY, _BOOLEAN = 1, 2, 7, 11, 14
_DOUBLE, _BYTES, _SIGNED, _FLOAT = 3, 4, 8, 15
_NUMBERS = frozenset({5, 6, 9, 10})  # unsigned ones
_PLAIN = frozenset({_TEXT, _DOUBLE, _BYTES, _SIGNED, _FLOAT, *_NUMBERS})
_LONGEST_NUMBER = 16
_LONG = 29
_LONG_SIZES = (29, 285, 65_821)
_FAR = (0, 0, 2_048, 526_336, 0)
_LONGEST_KEY = 64
_V4_DEPTH = V6_BITS - V4_BITS

Read = Callable[[int, int], bytes]
"""A function (position, number) that returns so many bytes of a file from there; fewer at its end."""


@frozen
class Location:
    """Where networks are: country code, AS number and its organisation; "" for each part not known."""

    country: str = ""
    number: str = ""
    organisation: str = ""

    @property
    def regions(self) -> frozenset[str]:
        """The regions as an administrator writes them: ``country DE``, ``AS64496``."""
        country = f"country {self.country}" if self.country else ""
        return frozenset(filter(None, (country, self.number)))


@define
class _File:
    """Reads parts of a file, and keeps some pages; forgets all of these when there are too many."""

    _read: Read
    _pages: dict[int, bytes] = Factory(dict)

    def part(self, at: int, size: int) -> bytes:
        """Return ``size`` bytes (less than a page) from ``at`` on; raise ValueError if the file ends."""
        page, start = at >> _PAGE_BITS, at & _PAGE - 1
        found = self._page(page)[start : start + size]
        if len(found) < size:
            found += self._page(page + 1)[: size - len(found)]
            if len(found) < size:
                raise ValueError("it is cut")
        return found

    def _page(self, number: int) -> bytes:
        found = self._pages.get(number)
        if found is None:
            if len(self._pages) >= _MOST_PAGES:
                self._pages.clear()
            found = self._pages[number] = self._read(number << _PAGE_BITS, _PAGE)
        return found


@define
class _Values:
    """Decodes at most ``left`` more values of a MaxMind database. Pointers count from ``base``."""

    _file: _File
    _base: int
    left: int

    def members(self, at: int, names: Collection[str]) -> dict[str, int]:
        """Return the positions of the values of ``names`` in the map at ``at``, by name; {} if no map."""
        kind, pairs, at = self._target(at)
        found: dict[str, int] = {}
        for _ in range(pairs if kind == _MAP else 0):
            key = self.text(at, _LONGEST_KEY)
            at = self._after(at)
            if key in names:
                found[key] = at
            at = self._after(at)
        return found

    def text(self, at: int, longest: int = MAX_TEXT) -> str:
        """Return the text at position ``at``, cut after ``longest`` bytes; "" if the value is no text."""
        kind, size, at = self._target(at)
        return self._file.part(at, min(size, longest)).decode("utf-8", "replace") if kind == _TEXT else ""

    def number(self, at: int) -> int | None:
        """Return the unsigned number at position ``at``; None if the value is no number."""
        kind, size, at = self._target(at)
        if kind not in _NUMBERS or size > _LONGEST_NUMBER:
            return None
        return int.from_bytes(self._file.part(at, size), "big")

    def _target(self, at: int) -> tuple[int, int, int]:
        """Return type, size and content position of the value at ``at``, or of the one it points to."""
        kind, size, after = self._head(at)
        return self._head(size) if kind == _POINTER else (kind, size, after)

    def _after(self, at: int) -> int:
        """Return the position (bytes) of the value after the one at ``at``; pointers are not followed."""
        waiting = 1
        while waiting:
            waiting -= 1
            kind, size, at = self._head(at)
            if kind == _MAP:
                waiting += 2 * size
            elif kind == _ARRAY:
                waiting += size
            elif kind in _PLAIN:
                at += size
            elif kind not in (_POINTER, _BOOLEAN):
                raise ValueError("a value has an unknown type")
        return at

    def _head(self, at: int) -> tuple[int, int, int]:
        """Return the type and the size of the value at ``at``, and the position of its content.

        The size of a pointer is the position that it points to.
        """
        self.left -= 1
        if self.left < 0:
            raise ValueError("a record has too many values")
        part = self._file.part
        control = part(at, 1)[0]
        kind, size, at = control >> 5, control & 0x1F, at + 1
        if kind == _POINTER:
            length = (size >> 3) + 1
            target = int.from_bytes(part(at, length), "big") + _FAR[length]
            if length < 4:  # noqa: PLR2004 - the longest form ignores these bits
                target += (size & 7) << 8 * length
            return kind, self._base + target, at + length
        if not kind:
            kind, at = 7 + part(at, 1)[0], at + 1
        if size >= _LONG:
            length = size - _LONG + 1
            size = _LONG_SIZES[length - 1] + int.from_bytes(part(at, length), "big")
            at += length
        return kind, size, at


_METADATA = "node_count", "record_size", "ip_version"
_COUNTRIES = "country", "registered_country", "country_code"
_FIELDS = (
    *_COUNTRIES,
    *("autonomous_system_number", "asn"),
    *("autonomous_system_organization", "as_name"),
)


class Database:
    """A MaxMind database of ``size`` bytes, which ``read`` reads. Each method raises ValueError if broken."""

    def __init__(self, read: Read, size: int) -> None:
        self._file = _File(read)
        start = max(0, size - _LONGEST_METADATA)
        tail = b"".join(read(at, min(_PAGE, size - at)) for at in range(start, size, _PAGE))
        marker = tail.rfind(_MARKER)
        if marker < 0:
            raise ValueError("it has no metadata")
        begin = start + marker + len(_MARKER)
        values = _Values(self._file, begin, MOST_VALUES)
        found = {name: values.number(at) for name, at in values.members(begin, _METADATA).items()}
        count, bits, version = (found.get(name) for name in _METADATA)
        if count is None or bits not in (24, 28, 32) or version not in (4, 6):
            raise ValueError("its metadata is damaged")
        if count > MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES} nodes")
        self.version: int = version
        self._count, self._bits = count, bits
        self._node = bits // 4  # bytes of a node, which has two records
        self._data = count * self._node + _SEPARATOR
        self._left = MOST_WORK

    def location_of(self, address: int, version: int) -> Location:
        """Return the location of an address, an integer of IP ``version``; "" for each part not known."""
        if version > self.version:
            return Location()
        bits, at = (V4_BITS if self.version == 4 else V6_BITS), 0  # noqa: PLR2004 - the IP version
        for bit in range(bits - 1, -1, -1):
            if at >= self._count:
                break
            at = self._children(at)[address >> bit & 1]
        return self._location(at) if at > self._count else Location()

    def networks(self, regions: frozenset[str]) -> Iterator[tuple[frozenset[str], int, int]]:
        """Yield the regions, first address (an integer) and prefix length of each network in ``regions``."""
        known: dict[int, frozenset[str]] = {}
        shared: dict[frozenset[str], frozenset[str]] = {}
        for record, number, depth in self._leaves():
            found = known.get(record)
            if found is None:
                if len(known) >= MOST_RECORDS:
                    raise ValueError(f"it has more than {MOST_RECORDS} different records")
                found = self._location(record).regions & regions
                found = known[record] = shared.setdefault(found, found)
            if found:
                yield found, number, depth

    def _leaves(self) -> Iterator[tuple[int, int, int]]:
        """Yield the record, the first address and the prefix length of each network of the tree."""
        bits = V4_BITS if self.version == 4 else V6_BITS  # noqa: PLR2004 - the IP version
        v4_start = 0
        for _ in range(_V4_DEPTH if bits == V6_BITS else 0):
            v4_start = self._children(v4_start)[0] if v4_start < self._count else v4_start
        left = self._count  # a valid tree leads to each node once; more visits mean a cycle
        waiting = [(0, 0, 0)]
        while waiting:
            at, number, depth = waiting.pop()
            if at > self._count:
                yield at, number << (bits - depth), depth
            # Skipped: an empty leaf, and any second path to the IPv4 part, such as 2002::/16.
            elif at < self._count and not (number and at == v4_start):
                left -= 1
                if left < 0 or depth >= bits:
                    raise ValueError("its tree has a cycle")
                low, high = self._children(at)
                waiting += ((high, number << 1 | 1, depth + 1), (low, number << 1, depth + 1))

    def _children(self, at: int) -> tuple[int, int]:
        """Return the two records (left, right) of the tree's node ``at``."""
        both = int.from_bytes(self._file.part(at * self._node, self._node), "big")
        if self._bits == 28:  # noqa: PLR2004 - the middle byte has four bits of each
            return both >> 32 | (both >> 4 & 0xF000000), both & 0xFFFFFFF
        return both >> self._bits, both & (1 << self._bits) - 1

    def _location(self, record: int) -> Location:
        """Return the location in a record, nested as MaxMind and DB-IP write it, or flat as IPinfo does."""
        values = _Values(self._file, self._data, min(MOST_VALUES, self._left))
        found = values.members(record - self._count - _SEPARATOR + self._data, _FIELDS)
        country = next(filter(None, (self._country(values, found, name) for name in _COUNTRIES)), "")
        number = ""
        at = found.get("autonomous_system_number", found.get("asn"))
        if at is not None:
            as_number = values.number(at)
            text = values.text(at).upper().removeprefix("AS") if as_number is None else str(as_number)
            number = f"AS{text}" if text else ""
        at = found.get("autonomous_system_organization", found.get("as_name"))
        organisation = values.text(at) if at is not None else ""
        self._left -= min(MOST_VALUES, self._left) - values.left
        return Location(country, number, organisation)

    def _country(self, values: _Values, found: Mapping[str, int], name: str) -> str:
        if name not in found:
            return ""
        inner = values.members(found[name], ("iso_code",))
        code = values.text(inner.get("iso_code", found[name]))
        return code.upper() if len(code) == len("DE") else ""
