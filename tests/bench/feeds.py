"""Feeds: hostile lists by the thousand, and the cost of a long list that changes every minute."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.pace import limited
from tests.support.daemon import Guard, until
from tests.support.hostile_feeds import Played, play
from tests.support.lists import external
from tests.support.netns import netns
from tests.support.process import cpu_seconds

from ringfence.errors import ControlError, DaemonUnreachableError

HOSTILE = 10_000
NETWORKS = 250_000
ROUNDS = 2
MINUTE = 60.0
IDLE = 30.0  # seconds without changes, for comparison
CHANGED = 2_500
"""How many networks change in each round, as many as a busy list changes in a day."""
PATIENCE = 120.0
FEWEST_ANSWERS = 100
"""The fewest answers by which the pauses are judged."""


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure both."""
    with tempfile.TemporaryDirectory() as folder:
        yield hostile(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        yield from refreshed(Path(folder))


def hostile(folder: Path) -> Figure:
    """Feed hostile lists to the daemon's parts, and count the addresses that must pass and do not."""
    played = play(folder, HOSTILE)
    return nobody_dropped(f"{played.lists} hostile feeds ({played.taken} taken over)", played)


def nobody_dropped(what: str, played: Played) -> Figure:
    """Return the row about the addresses that must pass every list."""
    return Figure(
        f"{what}: friends, trunks, own addresses and the administrator's login dropped",
        str(len(played.dropped)),
        "0, and some lists are taken over",
        played.taken > 0 and not played.dropped,
    )


def _write(path: Path, number: int) -> None:
    """Write the list of a round: the same networks except for ``CHANGED`` of them."""
    first = 0x20000000 + number * CHANGED * 2
    lines = "".join(f"{IPv4Address(first + 2 * n)}\n" for n in range(NETWORKS))
    new = path.with_name("new")
    new.write_text(lines, "ascii")
    os.utime(new, (1, 1))  # at rest: the daemon need not wait
    new.replace(path)


def _in_force(guard: Guard, number: int) -> bool:
    """Whether the list of a round is in force."""
    last = IPv4Address(0x20000000 + number * CHANGED * 2 + 2 * (NETWORKS - 1))
    return bool(guard.ask("feeds", networks=[f"{last}/32"])[0]["denies"])


def _longest_pause(guard: Guard, path: Path) -> float:
    """Change the list once more; return the longest time until an answer meanwhile, in seconds."""
    longest, answers, done = 0.0, 0, threading.Event()

    def ask() -> None:
        nonlocal longest, answers
        while not done.wait(0.005):
            began = time.perf_counter()
            try:
                guard.ask("nothing")
            except ControlError as error:  # an unknown request: its answer needs no work
                answers += not isinstance(error, DaemonUnreachableError)
            longest = max(longest, time.perf_counter() - began)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            _write(path, ROUNDS + 1)
            until(lambda: _in_force(guard, ROUNDS + 1), "the last list is in force", PATIENCE, 0.5)
            time.sleep(10)
        finally:
            done.set()
        asking.result()
    if answers < FEWEST_ANSWERS:
        raise RuntimeError(f"the daemon gave only {answers} answers")
    return longest


def refreshed(folder: Path) -> Iterator[Figure]:
    """Change a long list every minute, and measure the daemon's CPU and the pauses of its event loop."""
    path = folder / "list.txt"
    _write(path, 0)
    feeds = [{"name": "long", "file": str(path)}]
    with netns(), Guard(folder, firewall={"backend": "nftables"}, feeds=feeds) as guard:
        until(lambda: _in_force(guard, 0), "the first list is in force", PATIENCE)
        until(lambda: external() == NETWORKS, "the first list is in the kernel", PATIENCE)
        time.sleep(20)
        idle = cpu_seconds(guard.pid)
        time.sleep(IDLE)
        idle = cpu_seconds(guard.pid) - idle
        before, began, took = cpu_seconds(guard.pid), time.monotonic(), 0.0
        for number in range(1, ROUNDS + 1):
            _write(path, number)
            start = time.monotonic()
            until(lambda number=number: _in_force(guard, number), "a list is in force", PATIENCE, 0.5)  # type: ignore[misc]
            took = max(took, time.monotonic() - start)
            time.sleep(max(0.0, number * MINUTE - (time.monotonic() - began)))
        share = (cpu_seconds(guard.pid) - before) / (time.monotonic() - began)
        longest = _longest_pause(guard, path)
    what = f"a feed of {NETWORKS} networks, of which {CHANGED} change every minute, nftables"
    yield Figure(
        f"{what}: longest pause of the event loop, ms",
        f"{1000 * longest:.0f}",
        *limited(1000 * longest, 100),
    )
    yield Figure(
        f"{what}: CPU, % of a core ({100 * idle / IDLE:.2f} without changes)",
        f"{100 * share:.2f}",
        *limited(100 * share, 2),
    )
    yield Figure(f"{what}: longest time until the daemon has taken a list over, s", f"{took:.1f}", "-", None)
