"""What the kernel's side costs: bans put into it, beside the platform's own tools for the same elements.

Both put the same networks into an empty set of the same kind, by turns, each timed alone. ringfence is handed
networks, the tools a file that is written already. The backend is open all the while, and with it whatever it
listens to; it is given as many changes in one call as the daemon gives it.

Everything is done in network namespaces of its own.
"""

import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

from attrs import frozen
from tests.bench import restarts, resting
from tests.bench.figures import Figure, spread
from tests.support.lab import Lab
from tests.support.manybans import addresses, mixed
from tests.support.netns import netns, run

from ringfence.bans.enforce import CHUNK
from ringfence.calm import calm_collector
from ringfence.firewall import make_backend
from ringfence.firewall.contract import Add, Backend
from ringfence.model import Network

NUMBER = 100_000
ROUNDS = 5
TIMEOUT = 3_600


@frozen
class Tool:
    """The platform's own way of putting elements in: its text, its command, and how they go again."""

    name: str
    text: Callable[[Sequence[Network]], str]
    command: tuple[str, ...]
    remove: tuple[tuple[str, ...], ...]
    most: float


def _ipset_text(networks: Sequence[Network]) -> str:
    """Write what `ipset restore` reads, into sets made as ringfence makes its own."""
    sets = (("bench4", "inet"), ("bench6", "inet6"))
    made = [
        f"create {name} hash:net family {family} timeout 0 counters maxelem 262144" for name, family in sets
    ]
    return "\n".join(
        [*made, *(f"add bench{network.version} {network} timeout {TIMEOUT}" for network in networks), ""]
    )


def _nft_text(networks: Sequence[Network]) -> str:
    """Write what `nft -f` reads, into one hash set for each length of prefix."""
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
        0.6,
    ),
    "nftables": Tool("nft -f", _nft_text, ("nft", "-f"), (("nft", "delete", "table", "inet", "bench"),), 0.7),
}


@frozen
class Taken:
    """What one of them took once: seconds on the clock, and of a processor, which others do not lengthen."""

    wall: float
    cpu: float


@frozen
class Race:
    """What each took, round by round."""

    ours: list[Taken]
    theirs: list[Taken]

    @property
    def ratio(self) -> float:
        """Our median of theirs, on the clock."""
        return _median(taken.wall for taken in self.ours) / _median(taken.wall for taken in self.theirs)

    @property
    def cpu_ratio(self) -> float:
        """The same of the processors' time."""
        return _median(taken.cpu for taken in self.ours) / _median(taken.cpu for taken in self.theirs)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _put(backend: Backend, networks: Sequence[Network]) -> Taken:
    """Time the ban of all of them, as the daemon does it."""
    changes = [Add(network, TIMEOUT) for network in networks]
    calm_collector()  # as the daemon does once it is up
    began, worked = time.perf_counter(), time.thread_time()
    failed = 0
    for start in range(0, len(changes), CHUNK):
        outcomes = backend.apply(changes[start : start + CHUNK])
        failed += sum(outcome.error is not None for outcome in outcomes)
    taken = Taken(time.perf_counter() - began, time.thread_time() - worked)
    inside = sum(1 for _ in backend.list())
    if failed or inside != len(networks):
        raise RuntimeError(
            f"{backend.name}: {failed} bans refused, {inside} of {len(networks)} in the kernel"
        )
    return taken


def _put_by_tool(tool: Tool, path: Path) -> Taken:
    began, worked = time.perf_counter(), _cpu_of_children()
    subprocess.run([*tool.command, str(path)], check=True, timeout=60)
    taken = Taken(time.perf_counter() - began, _cpu_of_children() - worked)
    for command in tool.remove:
        run(*command)
    return taken


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def race(name: str, networks: Sequence[Network]) -> Race:
    """Put the same networks in by both, by turns, always into empty sets."""
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


def races() -> list[Figure]:
    """Measure both backends, with addresses alone and with prefixes among them."""
    rows = []
    for name, tool in TOOLS.items():
        for what, networks, most in (
            ("bans of addresses", addresses(NUMBER), tool.most),
            ("bans, half of them prefixes,", mixed(NUMBER), None),
        ):
            found = race(name, networks)
            rows.append(
                Figure(
                    what=f"{NUMBER} {what} into the kernel, {name}: seconds",
                    measured=f"{_walls(found.ours)}: {found.ratio:.2f} times (CPU: {found.cpu_ratio:.2f})",
                    must=f"≤ {most} times `{tool.name}`" if most else "",
                    reached=found.ratio <= most if most else None,
                    compared=f"`{tool.name}`: {_walls(found.theirs)}",
                )
            )
    return rows


def _walls(taken: Sequence[Taken]) -> str:
    return spread([one.wall for one in taken])


def figures(_: Lab, root: Path | None) -> list[Figure]:
    """Measure all that takes no Asterisk, and give the rows."""
    return [*races(), *restarts.figures(root), *resting.figures()]
