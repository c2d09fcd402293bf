"""The locations of the addresses in answers to commands (``values/location.py``). A feature looks them up."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path
from threading import Lock
from typing import Any

from ringfence.lists.kept import identity_of
from ringfence.lists.regions import known_locations
from ringfence.values.location import UNKNOWN, Location, row_of
from ringfence.values.network import Address

MOST = 4_096
"""The maximum number of addresses whose location is remembered."""


class Locator:
    """Looks up the locations of addresses in ``files``.

    The locations are remembered until a file changes. The live display asks for the same addresses each
    second.
    """

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self._sources = tuple(files)
        self._files: list[tuple[Path, object]] = []
        self._known: dict[Address, Location] = {}
        self._lock = Lock()

    def configure(self, files: Sequence[Path]) -> None:
        """Look up locations in ``files`` from now on."""
        self._sources = tuple(files)

    async def of(self, addresses: Sequence[Address]) -> list[Location]:
        """Return the location of each address. A thread reads the files."""
        if not self._sources or not addresses:
            return [UNKNOWN] * len(addresses)
        return await asyncio.to_thread(self.read, addresses)

    async def add_to(self, rows: Iterable[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
        """Return rows with the location of the address or network that each has under ``key``.

        The location of a network is that of its first address.
        """
        rows = list(rows)
        found = await self.of([ip_interface(row[key]).ip for row in rows])
        return [{**row, **row_of(one)} for row, one in zip(rows, found, strict=True)]

    async def state(self) -> list[tuple[Path, object]]:
        """Return the files, each with a value that changes if the file changes. A thread looks at them."""
        return await asyncio.to_thread(self._state) if self._sources else []

    def _state(self) -> list[tuple[Path, object]]:
        return [(path, identity_of(path)) for path in self._sources]

    def read(self, addresses: Sequence[Address]) -> list[Location]:
        """Return and remember the location of each address, in order; leave out files that cannot be read."""
        files = self._state()
        with self._lock:
            if files != self._files or len(self._known) + len(addresses) > MOST:
                self._files, self._known = files, {}
            new = [address for address in {*addresses} if address not in self._known]
            found = known_locations([path for path, _ in files], new) if new else []
            self._known |= {one: {**UNKNOWN, **known} for one, known in zip(new, found, strict=True)}
            return [self._known[address] for address in addresses]
