"""The time from a report to its ban, with feeds, a fence and CrowdSec's API on, against without.

The time is that from the bytes of the manager interface to the line of the daemon's log, which the daemon
writes after the kernel's acknowledgement. One proven guess of each address is a ban. Two daemons, with and
without, run at the same time and get their events in turn, because the speed of a machine changes within
minutes.
"""

import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from tests.bench.crowd import packet
from tests.bench.figures import Figure
from tests.bench.testbed import ATTACKER, GUARD, on_cores, only
from tests.support.crowdsec import crowdsec
from tests.support.daemon import Guard, ServedAmi, ami_server, until
from tests.support.fences import COUNTRIES, enforced, settings_in
from tests.support.guarded import preferred
from tests.support.lists import external
from tests.support.netns import inside, neighbour, netns

NUMBER = 1_500
SECONDS = 75.0
MOST_SLOWER = 1.2
"""Two equal guards differ by a tenth in one run, which is less than one thousandth of a second."""
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
    with ExitStack() as stack:
        stack.enter_context(netns())
        stack.enter_context(on_cores(os.getpid(), os.getpid()))  # CrowdSec too stays off the guards' core
        everything = _host(stack, everything=True)
        with inside(stack.enter_context(neighbour())):
            plain = _host(stack, everything=False)
        slower, faster = ban_times((everything, plain), NUMBER, SECONDS)
    long, short = statistics.median(slower), statistics.median(faster)
    ratio = long / short
    yield Figure(
        what=(
            f"{NUMBER} bans in {SECONDS:.0f} s with a feed of {NETWORKS} networks, a fence of "
            f"{len(COUNTRIES)} countries and CrowdSec's API: median time from report to ban, "
            "with against without"
        ),
        measured=f"{ratio:.2f} times ({long:.1f} ms against {short:.1f} ms)",
        must=f"≤ {MOST_SLOWER} times",
        reached=ratio <= MOST_SLOWER,
        cores=f"guards {GUARD}, attacker and CrowdSec {ATTACKER}",
    )


Host = tuple[Guard, ServedAmi]


def _host(stack: ExitStack, *, everything: bool) -> Host:
    """Start a daemon and the server of its manager interface in this namespace."""
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
        until(lambda: external() == NETWORKS, "the feed in the kernel", _PATIENCE)
        until(lambda: guard.ask("fleet")["pull"]["last"], "the first pull")
    return guard, pbx


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


def ban_times(hosts: Sequence[Host], number: int, seconds: float) -> list[list[float]]:
    """Report one guess of each address to each host, at an even rate and to one host after the other.

    Return the time of each ban in milliseconds, for each host.
    """
    with ExitStack() as stack:
        for guard, _ in hosts:
            stack.enter_context(on_cores(os.getpid(), guard.pid))
        sent = _send([pbx for _, pbx in hosts], number, seconds)
        for guard, _ in hosts:
            until(lambda guard=guard: guard.ask("status")["placed"] == number, "the bans")  # type: ignore[misc]
    return [_delays(guard, times) for (guard, _), times in zip(hosts, sent, strict=True)]


def _delays(guard: Guard, sent: Mapping[str, float]) -> list[float]:
    placed = {
        address: datetime.fromisoformat(moment).timestamp() for moment, address in _PLACED.findall(guard.log)
    }
    return [1_000 * (placed[address] - moment) for address, moment in sent.items()]


def _send(servers: Sequence[ServedAmi], number: int, seconds: float) -> list[dict[str, float]]:
    """Send the events; return the time of each address's event (wall clock), for each server."""
    sent: list[dict[str, float]] = [{} for _ in servers]
    pause = seconds * _BATCH / number / len(servers)
    due = time.monotonic()
    for start in range(0, number, _BATCH):
        addresses = [_FIRST + at for at in range(start, start + _BATCH)]
        packets = b"".join(packet(one, start + at, b"TCP") for at, one in enumerate(addresses))
        for pbx, times in zip(servers, sent, strict=True):
            time.sleep(max(0.0, due - time.monotonic()))
            due += pause
            times.update(dict.fromkeys(map(str, addresses), time.time()))
            pbx.send(packets)
    return sent
