"""The cost of metrics: the time in which the daemon makes a page, and its memory.

The daemon has 100,000 bans in the kernel, and each of its pages is fresh. The time of a page is that of the
whole request, as a scraper on the same host measures it. The memory is compared without bans, because with
them it varies by more than metrics need.
"""

import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field
from tests.bench.figures import Figure, spread
from tests.bench.pace import limited
from tests.support.asterisk import SECRET
from tests.support.daemon import Guard, ami_server, until
from tests.support.manybans import fill, mixed
from tests.support.netns import netns
from tests.support.process import resident

NUMBER = 100_000
PAGES, ROUNDS = 30, 3
EVERY = 1.2  # seconds: a page is made again after one second
LISTEN = "127.0.0.1:9721"
MEGABYTE = 1_000_000


@define
class Costs:
    """The measurements: of each page in milliseconds, of memory in MB, of the last page in bytes."""

    pages: list[float] = field(factory=list)
    memory: list[float] = field(factory=list)
    size: int = 0


@contextmanager
def _daemon(folder: Path, metrics: Mapping[str, str], store: Path | None = None) -> Iterator[Guard]:
    """Run a daemon with the bans of a store in a network namespace of its own."""
    folder.mkdir()
    if store is not None:
        store.rename(folder / "ringfence.db")
    with netns(), ami_server() as pbx:
        sources: dict[str, object] = {"logs": {"paths": []}, "wire": {"enabled": True}}
        asterisk = {"name": "pbx", "ami": {"port": pbx.port, "secret": SECRET}, **sources}
        with Guard(folder, asterisk=[asterisk], firewall={"backend": "nftables"}, metrics=metrics) as guard:
            if metrics:
                until(lambda: "metrics.served" in guard.log, "the metrics")
            yield guard


def measure(folder: Path) -> Costs:
    """Read pages of a daemon with bans, and compare the memory of daemons without."""
    costs = Costs()
    store = folder / "filled.db"
    fill(store, mixed(NUMBER))
    with _daemon(folder / "full", {"listen": LISTEN}, store):
        time.sleep(5)
        for _ in range(PAGES):
            time.sleep(EVERY)
            began = time.perf_counter()
            page = _page()
            costs.pages.append(1_000 * (time.perf_counter() - began))
            costs.size = len(page)
            if f"ringfence_bans_expected {NUMBER:.1f}".encode() not in page:
                raise RuntimeError(f"the page does not have {NUMBER} bans")
    for number in range(ROUNDS):
        with _daemon(folder / f"with-{number}", {"listen": LISTEN}) as guard:
            _page()
            served = resident(guard.pid)
        with _daemon(folder / f"without-{number}", {}) as guard:
            guard.status()
            costs.memory.append((served - resident(guard.pid)) / MEGABYTE)
    return costs


def _page() -> bytes:
    with urllib.request.urlopen(f"http://{LISTEN}/metrics", timeout=10) as answer:
        page: bytes = answer.read()
    return page


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    with tempfile.TemporaryDirectory() as folder:
        costs = measure(Path(folder))
    yield from _rows(costs)


def _rows(costs: Costs) -> Sequence[Figure]:
    bans = f"{NUMBER} bans, nftables"
    limit = limited(statistics.median(costs.pages), 20)
    return [
        Figure(
            what=f"a scrape of the metrics, milliseconds from the request to its end: {bans}",
            measured=f"{spread(costs.pages)}; {costs.size / 1_000:.0f} kB",
            must=f"median {limit.must}",
            reached=limit.reached,
        ),
        Figure(
            what="memory of the daemon with metrics beside that without, MB",
            measured=spread(costs.memory),
            must="median ≤ 5",
            reached=statistics.median(costs.memory) <= 5,
        ),
    ]
