"""The cost of bans in the kernel, compared with the platform's own tools for the same elements.

Both add the same networks to an empty set of the same kind, in turn, each timed alone. ringfence gets network
objects, the tools get a prepared file. The backend is open the whole time, with its notification sockets. It
gets as many changes in one call as from the daemon.

Everything runs in separate network namespaces.
"""

import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from attrs import frozen
from tests.bench import freepbx, restarts, resting
from tests.bench.figures import Figure, spread
from tests.support.manybans import addresses, mixed
from tests.support.netns import netns, run

from ringfence.bans.book import CHUNK
from ringfence.firewall import make_backend
from ringfence.firewall.contract import Add, Backend
from ringfence.guard.process import tune_collector
from ringfence.values.network import Network

NUMBER = 100_000
ROUNDS = 3
TIMEOUT = 3_600
MOST = 1.0
"""The longest time of bans of addresses, in times of the tool, which gets them as a file that is ready.

A start with 100 000 bans takes less than a second with either, so nobody needs more.
"""


@frozen
class Tool:
    """The platform's own tool: its text and command to add elements, and its command to remove them."""

    name: str
    text: Callable[[Sequence[Network]], str]
    command: tuple[str, ...]
    remove: tuple[tuple[str, ...], ...]


def _ipset_text(networks: Sequence[Network]) -> str:
    """Return the input of `ipset restore`, with sets like those of ringfence."""
    sets = (("bench4", "inet"), ("bench6", "inet6"))
    created = [
        f"create {name} hash:net family {family} timeout 0 counters maxelem 262144" for name, family in sets
    ]
    return "\n".join(
        [*created, *(f"add bench{network.version} {network} timeout {TIMEOUT}" for network in networks), ""]
    )


def _nft_text(networks: Sequence[Network]) -> str:
    """Return the input of `nft -f`, with one hash set for each prefix length."""
    kinds: dict[tuple[int, int], list[str]] = {}
    for network in networks:
        of = kinds.setdefault((network.version, network.prefixlen), [])
        of.append(f"{network.network_address} timeout {TIMEOUT}s")
    lines = ["add table inet bench"]
    for (version, length), elements in kinds.items():
        name = f"b{version}_{length}"
        lines.append(
            f"add set inet bench {name} {{ type ipv{version}_addr; flags dynamic,timeout; counter; "
            "size 262144; }"
        )
        lines.append(f"add element inet bench {name} {{ {', '.join(elements)} }}")
    return "\n".join([*lines, ""])


TOOLS = {
    "ipset": Tool(
        "ipset restore",
        _ipset_text,
        ("ipset", "restore", "-file"),
        (("ipset", "destroy", "bench4"), ("ipset", "destroy", "bench6")),
    ),
    "nftables": Tool("nft -f", _nft_text, ("nft", "-f"), (("nft", "delete", "table", "inet", "bench"),)),
}


@frozen
class Times:
    """The duration of one run: seconds on the clock, and of a processor, which other load does not change."""

    wall: float
    cpu: float


@frozen
class Race:
    """The times of both, round by round."""

    ours: list[Times]
    theirs: list[Times]

    @property
    def ratio(self) -> float:
        """Our median divided by theirs, on the clock."""
        return _median(times.wall for times in self.ours) / _median(times.wall for times in self.theirs)

    @property
    def cpu_ratio(self) -> float:
        """The same ratio of the processor times."""
        return _median(times.cpu for times in self.ours) / _median(times.cpu for times in self.theirs)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _put(backend: Backend, networks: Sequence[Network]) -> Times:
    """Time the ban of all networks, as the daemon makes it."""
    changes = [Add(network, TIMEOUT) for network in networks]
    tune_collector()  # as the daemon does once it is up
    began, worked = time.perf_counter(), time.thread_time()
    failed = 0
    for start in range(0, len(changes), CHUNK):
        outcomes = backend.apply(changes[start : start + CHUNK])
        failed += sum(outcome.error is not None for outcome in outcomes)
    times = Times(time.perf_counter() - began, time.thread_time() - worked)
    inside = sum(1 for _ in backend.list())
    if failed or inside != len(networks):
        raise RuntimeError(
            f"{backend.name}: {failed} bans refused, {inside} of {len(networks)} in the kernel"
        )
    return times


def _put_by_tool(tool: Tool, path: Path) -> Times:
    began, worked = time.perf_counter(), _cpu_of_children()
    subprocess.run([*tool.command, str(path)], check=True, timeout=60)
    times = Times(time.perf_counter() - began, _cpu_of_children() - worked)
    for command in tool.remove:
        run(*command)
    return times


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def race(name: str, networks: Sequence[Network]) -> Race:
    """Add the same networks with both, in turn, always to empty sets."""
    tool, found = TOOLS[name], Race([], [])
    with tempfile.TemporaryDirectory() as folder, netns(), closing(make_backend(name)) as backend:
        path = Path(folder) / "elements"
        path.write_text(tool.text(networks), "ascii")
        for _ in range(ROUNDS):
            backend.open()
            found.ours.append(_put(backend, networks))
            backend.flush()
            backend.open()
            found.theirs.append(_put_by_tool(tool, path))
            backend.flush()
    return found


def races() -> Iterator[Figure]:
    """Measure both backends, with addresses alone and with prefixes too."""
    for name, tool in TOOLS.items():
        for what, networks, most in (
            ("bans of addresses", addresses(NUMBER), MOST),
            ("bans, half of them prefixes,", mixed(NUMBER), None),
        ):
            found = race(name, networks)
            yield Figure(
                what=f"{NUMBER} {what} into the kernel, {name}: seconds",
                measured=f"{_walls(found.ours)}: {found.ratio:.2f} times (CPU: {found.cpu_ratio:.2f})",
                must=f"median ≤ {most:.0f} times `{tool.name}`" if most else "",
                reached=found.ratio <= most if most else None,
                compared=f"`{tool.name}`: {_walls(found.theirs)}",
            )


def _walls(runs: Sequence[Times]) -> str:
    return spread([one.wall for one in runs])


def figures(root: Path | None) -> Iterator[Figure]:
    """Measure without an Asterisk, and yield the rows."""
    yield from races()
    yield from restarts.figures(root)
    yield from resting.figures()
    yield from freepbx.figures()
