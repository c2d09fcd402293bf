"""The names and addresses in ``/etc/hosts``. The file is read again only when it has changed.

On some hosts the file has a megabyte, because it lists the servers of advertisers to block them. So it is
parsed in a thread, and once for all names.
"""

import asyncio
import os
from pathlib import Path

HOSTS_FILE = Path("/etc/hosts")
MAX_SIZE = 1024 * 1024  # bytes that are read

_State = tuple[int, int, int, int]


class HostsFile:
    """The content of the file ``path``. ``reads`` counts how often it was parsed."""

    def __init__(self, path: Path = HOSTS_FILE) -> None:
        self.reads = 0
        self._path = path
        self._state: _State | None = None
        self._addresses: dict[str, list[str]] = {}
        self._turn = asyncio.Lock()

    async def addresses(self, name: str) -> list[str]:
        """Return the addresses of ``name`` (in lower case) as written in the file.

        Return [] if the file lacks the name or cannot be read.
        """
        async with self._turn:
            try:
                state = _state(self._path.stat())
                if state != self._state:
                    self._addresses = await asyncio.to_thread(_parsed, self._path)
                    self._state = state
                    self.reads += 1
            except OSError:
                self._state, self._addresses = None, {}
            return self._addresses.get(name, [])


def _state(found: os.stat_result) -> _State:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _parsed(path: Path) -> dict[str, list[str]]:
    with path.open("rb") as file:
        text = file.read(MAX_SIZE).decode("utf-8", "replace")
    addresses: dict[str, list[str]] = {}
    for line in text.split("\n"):
        address, *names = line.partition("#")[0].split() or [""]
        for name in dict.fromkeys(map(str.lower, names)):
            addresses.setdefault(name, []).append(address)
    return addresses
