"""The networks of countries and autonomous systems, from databases in MaxMind's format (``mmdb.py``).

The tree of a database's networks is walked once: 300,000 networks take some seconds. So a thread of its own
reads the databases, and the lists do not wait for it. The networks that were read last are kept in a file.
Until the databases are read, and if one of them is unreadable, those networks stay: neither the start nor the
restore at boot needs a database.

A network belongs to the country where it is used (``country``), or where it is registered if that is unknown.
Local networks are left out, and so are IPv6 networks that stand for IPv4 addresses, because the IPv4 part has
these addresses.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ringfence.alarm_codes import Alarm
from ringfence.errors import ListError
from ringfence.features.geo.alarms import GeoAlarmCode
from ringfence.features.geo.mmdb import Database
from ringfence.lists import kept
from ringfence.lists.kept import identity_of
from ringfence.lists.prefixes import V4_BITS, V6_BITS, Gatherer, Prefixes
from ringfence.lists.regions import Regions
from ringfence.lists.texts import overlaps_local
from ringfence.values.network import VERSIONS, Address, Network
from ringfence.values.text import printable

MOST_NETWORKS = 600_000
"""The maximum number of networks of all regions in a database, after they are merged."""

MOST_SHRINKAGE = 10
"""The greatest factor by which a region may have fewer addresses of an IP version than were read last."""

_FIX = "[geo] database names a file in MaxMind's format, such as GeoLite2-Country.mmdb"
_MAX_NAME = 64
_V4_DEPTH = V6_BITS - V4_BITS

_Read = tuple[frozenset[str], Mapping[str, Prefixes]]
"""What was read from a database: the regions that were wanted, and the networks of each."""


class GeoDatabases(Regions):
    """The networks of regions (countries and autonomous systems), read from the database files ``paths``.

    ``kept`` is the file with the networks that were read last; None: they are not kept. A database is read
    again if it has changed, or if regions are requested that were not read. If a region has lost almost all
    addresses that ``kept`` has of it, those stay: its phones must not meet the fence because of a bad file.
    ``alarms`` are about such regions, and about the files that could not be read or written in the last call
    of :meth:`read`. ``failed``: that call failed for a reason other than a database, such as a lack of memory
    or a full disk, so another one may succeed without a change.

    One thread may call :meth:`read`, and others the other methods.
    """

    def __init__(self, paths: Sequence[Path], kept: Path | None = None) -> None:
        self.alarms: list[Alarm] = []
        self.failed = False
        self._paths = tuple(paths)
        self._kept_path = kept
        self._kept: Mapping[str, Prefixes] | None = None  # None: the file was not read
        self._wanted: frozenset[str] = frozenset()
        self._read: dict[Path, _Read] = {}
        self._refused: Mapping[str, Alarm] = {}  # by region, an alarm that its networks from before stay
        self._file_alarms: list[Alarm] = []
        self._seen: dict[Path, tuple[object, frozenset[str]]] = {}  # what was tried: the file, the regions

    @property
    def refusal(self) -> str:
        """Why no country or autonomous system can be added to a list; "" if one can."""
        why = "its networks come from a database; name it in [geo] database, and reload"
        return "" if self._paths else why

    def networks(self, regions: frozenset[str]) -> Mapping[str, Prefixes]:
        """Return the networks of each of ``regions`` (``country DE``, ``AS64496``), as far as they are known.

        This reads no database, but the next :meth:`read` reads those for ``regions``. If some were not read,
        the networks are those that the file ``kept`` has. Without ``regions``, there is no alarm, and no
        change of a file counts.
        """
        self._wanted = regions
        if not regions:
            self._file_alarms, self.failed = [], False
            self._seen.clear()
        self._set_alarms()
        return {region: self._known(region) for region in regions}

    def unknown(self, region: str) -> bool:
        """Whether networks of ``region`` may be missing: a database is not read, nor any kept from before."""
        return not self._is_read(region) and region not in self._from_before()

    @property
    def waits(self) -> bool:
        """Whether :meth:`read` has to read a database for the wanted regions, or to repeat what failed."""
        return bool(self._wanted) and (self.failed or any(self._is_due(path) for path in self._paths))

    def changed(self) -> bool:
        """Whether a database file has changed since it was last read, or since reading it failed."""
        return any(identity_of(path) != identity for path, (identity, _) in [*self._seen.items()])

    def around(self, region: str, network: Network) -> Network | None:
        """Return the network of ``region`` that contains the whole of ``network``, or None."""
        return self._known(region).containing(network)

    def read(self, *, keep: bool = True) -> None:
        """Read the databases that must be read for the regions of the last :meth:`networks`.

        With ``keep``, write the networks of these regions to the file ``kept``.
        """
        regions, alarms, failed = self._wanted, list[Alarm](), False
        found: dict[Path, _Read] = {}
        for path in self._paths if regions else ():
            if not self._is_due(path):
                alarms += [alarm for alarm in self._file_alarms if alarm.subject == str(path)]
                continue
            identity = identity_of(path)
            try:
                found[path] = regions, networks_of(path, regions)
            except ListError as error:
                alarms.append(Alarm(GeoAlarmCode.GEO_UNREADABLE, str(path), str(error)))
            except Exception as error:  # noqa: BLE001 - reported, and tried again
                text = f"{path} cannot be read now, and is tried again: {_named(error)}"
                alarms.append(Alarm(GeoAlarmCode.GEO_UNREADABLE, str(path), text))
                failed = True
                continue
            self._seen[path] = identity, regions
        self._take(found, regions)
        unkept = [*self._keep(regions)] if keep else []
        self._file_alarms, self.failed = [*alarms, *unkept], failed or bool(unkept)
        self._set_alarms()

    def _take(self, found: Mapping[Path, _Read], regions: frozenset[str]) -> None:
        """Use what was ``found`` in databases, except of ``regions`` that have lost almost everything."""
        read = {**self._read, **found}
        refused = {region: alarm for region in regions if (alarm := self._loss(region, read)) is not None}
        self._refused = {**self._refused, **refused}  # first, because other threads must not see the loss
        self._read.update(found)
        self._refused = refused

    def _loss(self, region: str, read: Mapping[Path, _Read]) -> Alarm | None:
        """Return an alarm if a region has far fewer addresses in ``read`` than were read last; else None."""
        before = self._from_before().get(region)
        if before is None or not self._has_all(region, read):
            return None
        parts = [networks.get(region, Prefixes()) for _, networks in read.values()]
        for version in VERSIONS:
            if sum(part.addresses(version) for part in parts) * MOST_SHRINKAGE < before.addresses(version):
                text = (
                    f"more than {MOST_SHRINKAGE} times fewer addresses (IPv{version}) than before, so the "
                    "networks that were read last stay; fix: look at the databases; to accept them: "
                    f"remove {self._kept_path}, and restart ringfence"
                )
                return Alarm(GeoAlarmCode.GEO_REFUSED, region, text)
        return None

    def _set_alarms(self) -> None:
        refused = (alarm for region, alarm in self._refused.items() if region in self._wanted)
        self.alarms = [*self._file_alarms, *refused]

    def _is_due(self, path: Path) -> bool:
        identity, regions = self._seen.get(path, (None, frozenset[str]()))
        return identity != identity_of(path) or not self._wanted <= regions

    def _is_read(self, region: str) -> bool:
        return self._has_all(region, self._read)

    def _has_all(self, region: str, read: Mapping[Path, _Read]) -> bool:
        found = (read.get(path) for path in self._paths)
        return all(one is not None and region in one[0] for one in found)

    def _known(self, region: str) -> Prefixes:
        if (region in self._refused or not self._is_read(region)) and region in self._from_before():
            return self._from_before()[region]
        gatherer = Gatherer()
        for _, networks in [*self._read.values()]:
            gatherer.extend(networks.get(region, Prefixes()))
        return gatherer.prefixes()

    def _from_before(self) -> Mapping[str, Prefixes]:
        if self._kept is None:
            self._kept = _read_kept(self._kept_path) if self._kept_path is not None else {}
        return self._kept

    def _keep(self, regions: frozenset[str]) -> Iterator[Alarm]:
        """Write the networks of ``regions`` to the file ``kept`` if they changed; yield an alarm on error."""
        if self._kept_path is None or not regions or not all(map(self._is_read, regions)):
            return
        try:
            networks = {region: self._known(region) for region in sorted(regions)}
            if networks != self._from_before():
                kept.write(self._kept_path, {"regions": [*networks]}, networks.values())
                self._kept = networks
        except Exception as error:  # noqa: BLE001 - reported
            text = f"cannot be written, so a restart reads the databases again: {_named(error)}"
            yield Alarm(GeoAlarmCode.GEO_UNREADABLE, str(self._kept_path), text)


def _named(error: Exception) -> str:
    """Return an error as text: the reason of an OSError, the class and the text of any other one."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(f"{type(error).__name__} {error}".strip())


def _read_kept(path: Path) -> Mapping[str, Prefixes]:
    """Return the networks of each region that an earlier run of the daemon wrote to the file ``path``.

    Return {} if the file is missing or damaged.
    """
    head, networks = kept.read(path)
    try:
        return dict(zip(map(str, head["regions"]), networks, strict=True))
    except (KeyError, TypeError, ValueError):
        return {}


@contextmanager
def _database(path: Path) -> Iterator[Database]:
    """Yield the open database ``path``. Raise OSError if it is unreadable, ValueError if it is broken."""
    with kept.opened(path, follow=True) as file:
        descriptor = file.fileno()

        def read(at: int, size: int) -> bytes:
            return os.pread(descriptor, size, at)

        yield Database(read, os.fstat(descriptor).st_size)


def networks_of(path: Path, regions: frozenset[str]) -> Mapping[str, Prefixes]:
    """Read the networks of each of ``regions`` from a file; raise ListError if that is impossible."""
    before = identity_of(path)
    try:
        with _database(path) as database:
            found = _walk(database, regions)
    except OSError as error:
        raise ListError(f"{path} cannot be read: {error.strerror or error}; {_FIX}") from None
    except ValueError as error:
        raise ListError(f"{path} is broken: {error}; {_FIX}") from None
    if identity_of(path) != before:
        raise ListError(f"{path} was replaced while it was read; it will be read again")
    return {region: gatherer.prefixes() for region, gatherer in found.items()}


def locations_of(paths: Sequence[Path], addresses: Sequence[Address]) -> list[dict[str, str]]:
    """Return ``country``, ``asn`` and ``organisation`` of each address, as far as a database has them.

    A database that cannot be read is left out. A TimeoutError is not caught: a caller may limit the time by a
    signal whose handler raises it.
    """
    found: list[dict[str, str]] = [{} for _ in addresses]
    for path in paths:
        try:
            with _database(path) as database:
                for location, address in zip(found, addresses, strict=True):
                    one = database.location_of(int(address), address.version)
                    known = {
                        "country": printable(one.country),
                        "asn": printable(one.number[:_MAX_NAME]),
                        "organisation": printable(one.organisation[:_MAX_NAME]),
                    }
                    location.update({name: text for name, text in known.items() if text})
        except TimeoutError:
            raise
        except (OSError, ValueError):
            continue
    return found


def _walk(database: Database, regions: frozenset[str]) -> dict[str, Gatherer]:
    found = {region: Gatherer() for region in regions}
    v4_only, waiting = database.version == 4, 0  # noqa: PLR2004 - the IP version
    for some, number, depth in database.networks(regions):
        if v4_only or (depth >= _V4_DEPTH and not number >> V4_BITS):
            version, code = 4, number << 8 | (depth if v4_only else depth - _V4_DEPTH)
        else:
            version, code = 6, number << 8 | depth
        if not code & 0xFF:
            raise ValueError("a record of it covers the whole internet")
        if overlaps_local(version, code):
            continue
        for region in some:
            found[region].add_code(version, code)
        waiting += len(some)
        if waiting > MOST_NETWORKS:
            waiting = 0
            _check_room(found)
    _check_room(found)
    return found


def _check_room(found: Mapping[str, Gatherer]) -> None:
    """Merge the networks of all regions in ``found``; raise ValueError if there are too many."""
    for gatherer in found.values():
        gatherer.compact()
    if sum(map(len, found.values())) > MOST_NETWORKS:
        raise ValueError(f"it has more than {MOST_NETWORKS} networks of these regions")


def files_of(settings: Any) -> tuple[Path, ...]:  # noqa: ANN401 - the child that sends loads no settings
    """Return the paths of the country and network databases that a configuration names."""
    return tuple(settings.geo.database or ())


build = GeoDatabases
"""The class that reads the networks of regions (countries, autonomous systems) for the lists."""
UNKNOWN = GeoAlarmCode.LIST_UNKNOWN_REGION
"""The code of the alarm that no database has a network of a listed region (country, autonomous system)."""
