"""Databases in MaxMind's format (GeoLite2, DB-IP, IPinfo): the networks of countries and autonomous systems.

maxminddb looks up records by address. To get every network of a country, the tree of networks must be walked.
maxminddb's own walk decodes a record again for each network that has it: 300,000 networks take 17 s without
its C extension. So the tree is walked here (its format: https://maxmind.github.io/MaxMind-DB/), and maxminddb
decodes each different record once: 1.3 s.

A network belongs to the country where it is used (``country``), or where it is registered if that is unknown.
IPv6 networks that stand for IPv4 addresses are left out, because the IPv4 part has these addresses.
"""

import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.errors import ListError
from ringfence.lists.prefixes import V4_BITS, V6_BITS, Gatherer, Prefixes
from ringfence.model import Address, Network, printable

_NOT_ITS_OWN = tuple(IPv6Network(text) for text in ("::/8", "2002::/16", "2001::/32"))
"""Ranges of IPv6 that contain IPv4 addresses: mapped, 6to4 and Teredo."""

_FIX = "[geo] database names a file in MaxMind's format, such as GeoLite2-Country.mmdb"
_MAX_NAME = 64
_V4_DEPTH = V6_BITS - V4_BITS


class GeoDatabases:
    """The networks of regions (countries and autonomous systems), read from the database files ``paths``.

    A file is read again if it has changed, or if regions are requested that were not read. ``alarms`` are
    about the files that could not be read in the last call of :meth:`networks`.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.alarms: list[Alarm] = []
        self._paths = tuple(paths)
        self._read: dict[Path, tuple[frozenset[str], Mapping[str, Prefixes]]] = {}
        self._identities: dict[Path, object] = {}
        self._failed: dict[Path, str] = {}

    def networks(self, regions: frozenset[str]) -> Mapping[str, Prefixes]:
        """Return the networks of each of ``regions`` (``country DE``, ``AS64496``).

        A region that is in no file has an empty result. For a file that cannot be read there is an alarm in
        ``alarms``, and the networks that were read from it earlier are used.
        """
        self.alarms = []
        found: dict[str, Gatherer] = {region: Gatherer() for region in regions}
        for path in self._paths:
            for region, networks in self._of(path, regions).items():
                if region in found:
                    found[region].extend(networks)
        return {region: gatherer.prefixes() for region, gatherer in found.items()}

    @property
    def unread(self) -> bool:
        """Whether a file was never read, so that regions may lack networks."""
        return any(path not in self._read for path in self._failed)

    def around(self, region: str, network: Network) -> Network | None:
        """Return the network of ``region`` that contains the whole of ``network``, or None.

        Only networks that were already read are searched. So :meth:`networks` must have been called with the
        region.
        """
        read = (networks.get(region) for _, networks in self._read.values())
        found = (prefixes.containing(network) for prefixes in read if prefixes is not None)
        return next((one for one in found if one is not None), None)

    def changed(self) -> bool:
        """Whether a file has changed since it was last read, or since reading it failed."""
        return any(identity_of(path) != identity for path, identity in list(self._identities.items()))

    def _of(self, path: Path, regions: frozenset[str]) -> Mapping[str, Prefixes]:
        asked, networks = self._read.get(path, (None, {}))
        identity = identity_of(path)
        if self._identities.get(path) != identity or not (
            path in self._failed or (asked is not None and regions <= asked)
        ):
            self._identities[path] = identity
            self._failed.pop(path, None)
            try:
                networks = networks_of(path, regions)
                self._read[path] = (regions, networks)
            except ListError as error:
                self._failed[path] = str(error)
        if path in self._failed:
            self.alarms.append(Alarm(AlarmCode.GEO_UNREADABLE, str(path), self._failed[path]))
        return networks


def networks_of(path: Path, regions: frozenset[str]) -> Mapping[str, Prefixes]:
    """Read the networks of each of ``regions`` from a file; raise ListError if that is impossible."""
    import maxminddb  # noqa: PLC0415 - loaded if a region is used

    before = identity_of(path)
    try:
        with (
            closing(maxminddb.open_database(os.fspath(path))) as reader,
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as tree,
        ):
            found = _walk(reader, tree, regions)
    except OSError as error:
        raise ListError(f"{path} cannot be read: {error.strerror or error}; {_FIX}") from None
    except Exception as error:  # noqa: BLE001 - a broken file can raise anything
        raise ListError(f"{path} is broken ({type(error).__name__}: {error}); {_FIX}") from None
    if identity_of(path) != before:
        raise ListError(f"{path} was replaced while it was read; it will be read again")
    return {region: gatherer.prefixes() for region, gatherer in found.items()}


def locations_of(paths: Sequence[Path], addresses: Sequence[Address]) -> list[dict[str, str]]:
    """Return ``country``, ``asn`` and ``organisation`` of each address, as far as a database has them.

    A database that cannot be read is left out. A TimeoutError is not caught: a caller may limit the time by a
    signal whose handler raises it.
    """
    import maxminddb  # noqa: PLC0415 - loaded if there is a database

    found: list[dict[str, str]] = [{} for _ in addresses]
    for path in paths:
        try:
            with closing(maxminddb.open_database(os.fspath(path))) as reader:
                for location, address in zip(found, addresses, strict=True):
                    if address.version <= reader.metadata().ip_version:
                        location.update(_location(reader.get(address)))
        except TimeoutError:
            raise
        except Exception:  # noqa: BLE001, S112 - a broken file can raise anything
            continue
    return found


def _location(record: object) -> dict[str, str]:
    location = {}
    for region in _regions(record):
        country = region.removeprefix("country ")
        location["asn" if country == region else "country"] = country
    if isinstance(record, Mapping):
        name = record.get("autonomous_system_organization", record.get("as_name"))
        if isinstance(name, str):
            location["organisation"] = printable(name[:_MAX_NAME])
    return location


def identity_of(path: Path) -> object:
    """Return a value that changes if the file is changed or replaced, or can no longer be read."""
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_size, status.st_mtime_ns


def _walk(reader: Any, tree: mmap.mmap, regions: frozenset[str]) -> dict[str, Gatherer]:  # noqa: ANN401 - either kind of reader
    found = {region: Gatherer() for region in regions}
    version = reader.metadata().ip_version
    known: dict[int, frozenset[str]] = {}
    for pointer, number, depth in _leaves(reader.metadata(), tree):
        v4 = version == 4 or (depth >= _V4_DEPTH and not number >> V4_BITS)  # noqa: PLR2004 - the IP version
        if pointer not in known:
            address = IPv4Address(number) if v4 else IPv6Address(number)
            known[pointer] = regions & _regions(reader.get(address))
        for region in known[pointer]:
            if version == 4 or v4:  # noqa: PLR2004 - the IP version
                length = depth if version == 4 else depth - _V4_DEPTH  # noqa: PLR2004 - the IP version
                found[region].add_code(4, number << 8 | length)
            elif not any(IPv6Address(number) in other for other in _NOT_ITS_OWN):
                found[region].add_code(6, number << 8 | depth)
    return found


def _leaves(metadata: Any, tree: mmap.mmap) -> Iterator[tuple[int, int, int]]:  # noqa: ANN401 - it has no public type
    """Yield each network of the tree: the position of its record, its first address, its prefix length.

    The position only identifies the record: networks with the same position share one record. The address
    is an integer.
    """
    count = metadata.node_count
    bits = V4_BITS if metadata.ip_version == 4 else V6_BITS  # noqa: PLR2004 - the IP version
    node = _NODES[metadata.record_size]
    v4_start = 0
    for _ in range(_V4_DEPTH if bits == V6_BITS else 0):
        v4_start = node(tree, v4_start)[0] if v4_start < count else v4_start
    left = count  # a valid tree leads to each node once; more visits mean a cycle
    waiting = [(0, 0, 0)]
    while waiting:
        at, number, depth = waiting.pop()
        if at > count:
            yield at, number << (bits - depth), depth
        # Skipped: an empty leaf (``at == count``), and any second path to the IPv4 part, such as 2002::/16.
        elif at < count and not (number and at == v4_start):
            left -= 1
            if left < 0 or depth >= bits:
                raise ValueError("its tree has a cycle")
            low, high = node(tree, at)
            waiting += ((high, number << 1 | 1, depth + 1), (low, number << 1, depth + 1))


def _node_24(tree: mmap.mmap, at: int) -> tuple[int, int]:
    both = int.from_bytes(tree[at * 6 : at * 6 + 6], "big")
    return both >> 24, both & 0xFFFFFF


def _node_28(tree: mmap.mmap, at: int) -> tuple[int, int]:
    both = int.from_bytes(tree[at * 7 : at * 7 + 7], "big")
    return both >> 32 | (both >> 4 & 0xF000000), both & 0xFFFFFFF


def _node_32(tree: mmap.mmap, at: int) -> tuple[int, int]:
    both = int.from_bytes(tree[at * 8 : at * 8 + 8], "big")
    return both >> 32, both & 0xFFFFFFFF


_NODES: Mapping[int, Callable[[mmap.mmap, int], tuple[int, int]]] = {
    24: _node_24,
    28: _node_28,
    32: _node_32,
}


def _regions(record: object) -> frozenset[str]:
    """Return the regions of a record.

    Its values are nested as MaxMind and DB-IP write them, or flat as IPinfo writes them.
    """
    if not isinstance(record, Mapping):
        return frozenset()
    regions = set()
    country = _country(record.get("country")) or _country(record.get("registered_country"))
    country = country or _country(record.get("country_code"))
    if country:
        regions.add(f"country {country}")
    number = record.get("autonomous_system_number", record.get("asn"))
    if isinstance(number, int):
        regions.add(f"AS{number}")
    elif isinstance(number, str) and number:
        regions.add("AS" + number.upper().removeprefix("AS"))
    return frozenset(regions)


def _country(value: object) -> str:
    code = value.get("iso_code") if isinstance(value, Mapping) else value
    return code.upper() if isinstance(code, str) and len(code) == len("DE") else ""
