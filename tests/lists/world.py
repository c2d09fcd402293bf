"""Lists over a database in a folder, with a clock that the test sets."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.clock import SetClock

from ringfence.control_server import Encoded
from ringfence.lists.entries import CONFIGURATION, Configured
from ringfence.lists.handlers import ListRequests
from ringfence.lists.manager import Lists, OtherNetworks
from ringfence.lists.prefixes import Prefixes
from ringfence.lists.regions import Regions
from ringfence.store.database import Store
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.network import Network

if TYPE_CHECKING:
    from ringfence.lists.compose import ListNetworks

PATIENCE = 20.0


class At:
    """Lists with a database in a folder, a clock that the test sets, and the networks that they reported."""

    def __init__(
        self, folder: Path, configured: Configured | None = None, others: Sequence[OtherNetworks] = ()
    ) -> None:
        self.now = 1_000.0
        self.told: list[ListNetworks] = []
        self.followed: list[frozenset[str]] = []
        self.store = Store.open(folder / "db", owner=False)
        self.lists = Lists(
            self.store.entries,
            configured if configured is not None else Configured(),
            self.told.append,
            now=lambda: self.now,
            follow=self.followed.append,
            others=others,
        )
        self.lists.load()
        if configured is not None and configured.databases:
            self.lists.read_databases()
            self.lists.load()
        self.handlers = ListRequests(self.lists, self.store.entries, SetClock(lambda: self.now)).handlers()

    def ask(self, do: str, **arguments: object) -> Any:  # noqa: ANN401 - as JSON has it
        """Send a request as a command does."""
        return asyncio.run(self._answer(do, arguments))

    async def _answer(self, do: str, arguments: Mapping[str, object]) -> object:
        answer = self.handlers[do](arguments)
        if isinstance(answer, Encoded):
            return json.loads(b"".join(answer.parts))
        return await answer if inspect.isawaitable(answer) else answer

    def run(self, script: Callable[[], Awaitable[None]]) -> None:
        """Run the lists in the background while the script runs."""

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.lists.run())
                await script()
                task.cancel()

        asyncio.run(both())

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until a condition is true."""
        async with asyncio.timeout(PATIENCE):
            while not true():  # noqa: ASYNC110 - what is waited for is a condition, not an event
                await asyncio.sleep(0.01)


class KnownRegions(Regions):
    """Regions with these networks."""

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self._texts = texts

    def networks(self, regions: frozenset[str]) -> dict[str, Prefixes]:
        """Return the networks of each region."""
        return {region: prefixes(*self._texts.get(region, ())) for region in regions}

    def around(self, region: str, network: Network) -> Network | None:
        """Return the network of a region that contains ``network``, or None."""
        return prefixes(*self._texts.get(region, ())).containing(network)


def configured(
    *entries: tuple[ListKind, str], databases: tuple[Path, ...] = (), most: int = 1_000
) -> Configured:
    """Return a configuration."""
    said = (ListEntry(kind, value, "", 0.0, None, CONFIGURATION) for kind, value in entries)
    return Configured(tuple(said), databases, most)


def prefixes(*texts: str) -> Prefixes:
    """Return the networks of these texts."""
    return Prefixes.of(ip_network(text) for text in texts)
