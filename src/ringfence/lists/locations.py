"""Where the addresses in answers to commands are: country and operator, from the databases of ``[geo]``."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path
from threading import Lock
from typing import Any

from ringfence.lists.geo import identity_of, locations_of
from ringfence.values.network import Address

MOST = 4_096
"""The maximum number of addresses that are remembered."""
UNKNOWN: Mapping[str, str] = {"country": "", "asn": "", "organisation": ""}
"""The location of an address that no database has. A location always has these keys."""

Location = Mapping[str, str]


class Locations:
    """The locations of addresses, read from the files ``databases``.

    Locations are remembered until a file changes. The live display asks for the same addresses each second.
    """

    def __init__(self, databases: Sequence[Path] = ()) -> None:
        self._databases = tuple(databases)
        self._files: list[object] = []
        self._known: dict[Address, Location] = {}
        self._lock = Lock()

    def configure(self, databases: Sequence[Path]) -> None:
        """Use the databases of a configuration."""
        self._databases = tuple(databases)

    async def of(self, addresses: Sequence[Address]) -> list[Location]:
        """Return the location of each address. A thread reads the files."""
        if not self._databases or not addresses:
            return [UNKNOWN] * len(addresses)
        return await asyncio.to_thread(self.read, addresses)

    async def with_countries(self, rows: Iterable[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
        """Return rows with the ``country`` of the address or network that each has under ``key``.

        The country of a network is that of its first address; "" if it is unknown.
        """
        rows = list(rows)
        found = await self.of([ip_interface(row[key]).ip for row in rows])
        return [{**row, "country": one["country"]} for row, one in zip(rows, found, strict=True)]

    def read(self, addresses: Sequence[Address]) -> list[Location]:
        """Return the location of each address, and remember it. Leave out a database that cannot be read."""
        databases = self._databases
        files: list[object] = [(path, identity_of(path)) for path in databases]
        with self._lock:
            if files != self._files or len(self._known) + len(addresses) > MOST:
                self._files, self._known = files, {}
            new = [address for address in {*addresses} if address not in self._known]
            found = locations_of(databases, new) if new else []
            self._known |= {one: {**UNKNOWN, **known} for one, known in zip(new, found, strict=True)}
            return [self._known[address] for address in addresses]
