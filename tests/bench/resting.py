"""The cost of a hundred thousand bans: their restoration after a reboot, memory, periodic work and listing.

Half of the bans are prefixes, and each has its five attempts in the store. A reboot is a new network
namespace and a copy of the store with which the daemon starts; the disk's cache stays warm.
ringfence reads a manager interface without events, and the wire. The cost of the periodic check is the CPU of
a daemon with the bans, compared with that of one without bans, in the same seconds.
"""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from attrs import define, field
from tests.bench.figures import Figure, spread
from tests.bench.pace import limited, pace
from tests.support.asterisk import SECRET
from tests.support.daemon import Guard, ami_server
from tests.support.manybans import ATTEMPTS, Cost, cost_of, fill, mixed
from tests.support.netns import netns
from tests.support.process import cpu_seconds, resident

from ringfence.firewall import make_backend

NUMBER = 100_000
ROUNDS = 3
LOOKS = 20.0  # seconds
COMPARED = 70.0  # seconds after the start: the first comparison of kernel and records is done by then
MEGABYTE = 1_000_000
LISTERS = {"ipset": ("ipset", "list"), "nftables": ("nft", "-j", "list", "table", "inet", "ringfence")}
"""By backend: the tool's command; for nft it lists the sets of all prefix lengths."""


@define
class Held:
    """The measurements of one backend. ``share`` is of one core; ``listed`` has seconds and bytes.

    ``paces`` and ``paces_of_lists`` are those of the machine between the trials.
    """

    paces: list[float] = field(factory=list)
    paces_of_lists: list[float] = field(factory=list)
    ready: list[float] = field(factory=list)
    restored: list[float] = field(factory=list)
    share: float = 0.0
    resident: int = 0
    peak: int = 0
    listed: list[Cost] = field(factory=list)
    theirs: list[float] = field(factory=list)


_AT_BOOT = "so many are rare, systemd waits for 90 seconds, and half of the work is the kernel's"
_SELDOM = "a script that wants so many reads them seldom"


@contextmanager
def _daemon(folder: Path, backend: str, store: Path | None = None) -> Iterator[Guard]:
    """Yield a guard that is not started yet, with a copy of a store, in the namespace of the caller."""
    folder.mkdir()
    if store is not None:
        shutil.copy(store, folder / "ringfence.db")
    with ami_server() as pbx:
        sources: dict[str, object] = {"logs": {"paths": []}, "wire": {"enabled": True}}
        asterisk = {"name": "pbx", "ami": {"port": pbx.port, "secret": SECRET}, **sources}
        guard = Guard(folder, asterisk=[asterisk], firewall={"backend": backend})
        try:
            yield guard
        finally:
            guard.__exit__()


def _started(guard: Guard) -> float:
    """Start a daemon; return the seconds until it is READY."""
    began = time.perf_counter()
    guard.start()
    return time.perf_counter() - began


def _in_kernel(backend: str) -> int:
    with closing(make_backend(backend)) as kernel:
        return sum(1 for _ in kernel.list())


def _all_there(backend: str) -> None:
    if (inside := _in_kernel(backend)) != NUMBER:
        raise RuntimeError(f"{backend}: {inside} of {NUMBER} bans are in the kernel")


def reboots(folder: Path, backend: str, store: Path, held: Held) -> None:
    """Start the daemon with an empty kernel, and run `ringfence restore`, several times each."""
    for number in range(ROUNDS):
        held.paces.append(pace())
        with netns(), _daemon(folder / f"{backend}-reboot-{number}", backend, store) as guard:
            held.ready.append(_started(guard))
            _all_there(backend)
        with netns(), _daemon(folder / f"{backend}-restore-{number}", backend, store) as guard:
            began = time.perf_counter()
            done = guard.command("restore")
            held.restored.append(time.perf_counter() - began)
            if done.returncode:
                raise RuntimeError(f"`ringfence restore` failed: {done.stderr}")
            _all_there(backend)
        shutil.rmtree(folder / f"{backend}-reboot-{number}")
        shutil.rmtree(folder / f"{backend}-restore-{number}")


def rest(folder: Path, store: Path, held: dict[str, Held]) -> None:
    """Run all daemons side by side, with the bans and without; measure them."""
    with ExitStack() as stack:
        full: dict[str, Guard] = {}
        empty: dict[str, Guard] = {}
        for backend in held:
            for kind, name, guards in ((store, "full", full), (None, "empty", empty)):
                with netns():
                    guard = stack.enter_context(_daemon(folder / f"{backend}-{name}", backend, kind))
                    guard.start()
                guards[backend] = guard
        began = time.monotonic()
        time.sleep(5)
        before = {guard.pid: cpu_seconds(guard.pid) for guard in (*full.values(), *empty.values())}
        looked = time.monotonic()
        time.sleep(LOOKS)
        passed = time.monotonic() - looked
        took = {pid: cpu_seconds(pid) - seconds for pid, seconds in before.items()}
        time.sleep(max(0.0, began + COMPARED - time.monotonic()))
        for backend, found in held.items():
            guard = full[backend]
            found.share = (took[guard.pid] - took[empty[backend].pid]) / passed
            found.resident = resident(guard.pid)
            _list(guard, backend, found)


def _list(guard: Guard, backend: str, held: Held) -> None:
    """List the bans with ringfence and with the platform's own tool, in turn."""
    output = guard.folder / "listed"
    listing = (sys.executable, "-m", "ringfence", "bans", "--json", "--config", str(guard.config))
    enter = ("nsenter", f"--net=/proc/{guard.pid}/ns/net")
    for _ in range(ROUNDS):
        held.paces_of_lists.append(pace())
        held.listed.append(cost_of(output, *listing))
        held.theirs.append(cost_of(output, *enter, *LISTERS[backend]).seconds)
    held.peak = _peak_of(guard.pid)


def _peak_of(pid: int) -> int:
    """Return the largest resident memory that a process ever had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").split("\n"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no memory")


def figures() -> list[Figure]:
    """Measure, and return the rows."""
    held = {backend: Held() for backend in LISTERS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "filled.db"
        fill(store, mixed(NUMBER))
        for backend, found in held.items():
            reboots(folder, backend, store, found)
        rest(folder, store, held)
    return [row for backend, found in held.items() for row in _rows(backend, found)]


def _rows(backend: str, held: Held) -> list[Figure]:
    many = f"{NUMBER} bans, half of them prefixes, {backend}"
    seconds = [one.seconds for one in held.listed]
    peak = max(one.peak for one in held.listed)
    ratio = statistics.median(seconds) / statistics.median(held.theirs)
    ready, restored, listed, resting = (
        limited(statistics.median(held.ready), 6, _AT_BOOT, held.paces),
        limited(statistics.median(held.restored), 6, _AT_BOOT, held.paces),
        limited(statistics.median(seconds), 6, _SELDOM, held.paces_of_lists),
        limited(100 * held.share, 1),
    )
    tool = "`ipset list`" if backend == "ipset" else "`nft -j list table`"
    return [
        Figure(
            what=f"after a reboot until READY, seconds: {many}, each with {ATTEMPTS} attempts",
            measured=spread(held.ready),
            must=f"median {ready.must}",
            reached=ready.reached,
        ),
        Figure(
            what=f"`ringfence restore`, seconds: {many}",
            measured=spread(held.restored),
            must=f"median {restored.must}",
            reached=restored.reached,
        ),
        Figure(
            what=f"`bans --json`, seconds: {many}",
            measured=f"{spread(seconds)}: {ratio:.1f} times",
            must=f"median {listed.must}",
            reached=listed.reached,
            compared=f"{tool}: {spread(held.theirs)}",
        ),
        Figure(
            what=f"most memory then, of the command and of the daemon since its start: {backend}",
            measured=f"{_megabytes(peak)} and {_megabytes(held.peak)}",
            must="≤ 200 MB each",
            reached=max(peak, held.peak) <= 200 * MEGABYTE,
        ),
        Figure(
            what=f"resident memory of the daemon after a minute: {many}",
            measured=_megabytes(held.resident),
            must="≤ 125 MB: 60 without a ban, and 650 bytes for each",
            reached=held.resident <= 125 * MEGABYTE,
        ),
        Figure(
            what=f"CPU of the daemon at rest beside that with no ban, of one core in {LOOKS:.0f} s: {many}",
            measured=f"{held.share:.2%}",
            must=resting.must,
            reached=resting.reached,
        ),
    ]


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.0f} MB"
