"""The time from a report to its ban, with feeds, a fence and CrowdSec's API on, against without.

The time is that from the bytes of the manager interface to the line of the daemon's log, which the daemon
writes after the kernel's acknowledgement. One proven guess of each address is a ban. Runs with and without
alternate.
"""

import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from tests.bench.crowd import packet
from tests.bench.figures import Figure, spread
from tests.bench.testbed import ATTACKER, GUARD, on_cores, only
from tests.support.crowdsec import crowdsec
from tests.support.daemon import Guard, ServedAmi, ami_server, until
from tests.support.fences import COUNTRIES, enforced, settings_in
from tests.support.guarded import preferred
from tests.support.lists import fetched
from tests.support.netns import netns

NUMBER = 500
SECONDS = 25.0
RUNS = 3
MOST_SLOWER = 1.1
NETWORKS = 250_000
"""The networks of the feed."""
_PATIENCE = 120.0

_BATCH = 10
_FIRST = IPv4Address("198.18.0.1")
_PLACED = re.compile(r"^timestamp=(\S+) .* event=ban\.placed address=([0-9.]+)/32 ", re.MULTILINE)

TABLES: dict[str, Any] = {
    "rules": only(guess={"attempts": 1}),
    "firewall": {"backend": "nftables", "limit": {"mode": "off"}},
}
"""The tables of a daemon whose bans are timed."""


def figures(_: Path | None) -> Iterator[Figure]:
    """Yield the row."""
    runs: dict[bool, list[float]] = {True: [], False: []}
    for _run in range(RUNS):
        for everything in (False, True):
            runs[everything].append(statistics.median(_times(everything=everything)))
    ratio = statistics.median(runs[True]) / statistics.median(runs[False])
    yield Figure(
        what=(
            f"{NUMBER} bans in {SECONDS:.0f} s with a feed of {NETWORKS} networks, a fence of "
            f"{len(COUNTRIES)} countries and CrowdSec's API: time from report to ban, with against without "
            "(the median of each run)"
        ),
        measured=f"{ratio:.2f} times ({spread(runs[True], ' ms')} against {spread(runs[False], ' ms')})",
        must=f"≤ {MOST_SLOWER} times",
        reached=ratio <= MOST_SLOWER,
        cores=f"guard {GUARD}, attacker and CrowdSec {ATTACKER}",
    )


def _times(*, everything: bool) -> list[float]:
    """Ban all addresses once, and return the times in milliseconds."""
    with ExitStack() as stack:
        stack.enter_context(netns())
        stack.enter_context(on_cores(os.getpid(), os.getpid()))  # CrowdSec too stays off the guard's core
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pbx = stack.enter_context(ami_server())
        tables = {**TABLES, **(_everything(folder, stack) if everything else {})}
        guard = stack.enter_context(Guard(folder, ami={"port": pbx.port}, **tables))
        preferred(guard)
        until(lambda: guard.source_is("listening"), "the source listens")
        if everything:
            stack.enter_context(enforced(guard))
            last = f"{_FEED + 2 * (NETWORKS - 1)}/32"
            until(lambda: guard.ask("feeds", networks=[last])[0]["denies"], "the feed", _PATIENCE)
            until(lambda: fetched() == NETWORKS, "the feed in the kernel", _PATIENCE)
            until(lambda: guard.ask("fleet")["pull"]["last"], "the first pull")
        return ban_times(guard, pbx, NUMBER, SECONDS)


_FEED = IPv4Address("32.0.0.0")
"""The first address of the feed; every second one follows."""


def _everything(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Start CrowdSec, write the feed and the database of countries, and return the daemon's tables."""
    for name in ("crowdsec", "fence"):
        (folder / name).mkdir()
    api = stack.enter_context(crowdsec(folder / "crowdsec"))
    feed = folder / "feed.txt"
    feed.write_text("".join(f"{_FEED + 2 * number}\n" for number in range(NETWORKS)), "ascii")
    os.utime(feed, (1, 1))  # at rest: the daemon need not wait
    return {
        **settings_in(folder / "fence"),
        "feeds": [{"name": "long", "file": str(feed)}],
        "crowdsec": api.node("pbx", folder, interval="10s"),
    }


def ban_times(guard: Guard, pbx: ServedAmi, number: int, seconds: float) -> list[float]:
    """Report one guess of each address at an even rate; return the time of each ban in milliseconds."""
    with on_cores(guard.pid, os.getpid()):
        sent = _send(pbx, number, seconds)
        until(lambda: guard.ask("status")["placed"] == number, "the bans")
    placed = {
        address: datetime.fromisoformat(moment).timestamp() for moment, address in _PLACED.findall(guard.log)
    }
    return [1_000 * (placed[address] - moment) for address, moment in sent.items()]


def _send(pbx: ServedAmi, number: int, seconds: float) -> dict[str, float]:
    """Send the events; return the time of each address's event (wall clock)."""
    sent: dict[str, float] = {}
    began = time.monotonic()
    for start in range(0, number, _BATCH):
        time.sleep(max(0.0, began + seconds * start / number - time.monotonic()))
        addresses = [_FIRST + at for at in range(start, start + _BATCH)]
        packets = b"".join(packet(one, start + at, b"TCP") for at, one in enumerate(addresses))
        sent |= dict.fromkeys(map(str, addresses), time.time())
        pbx.send(packets)
    return sent
