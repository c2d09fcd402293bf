"""The cost of long lists, busy neighbours and listings, with nftables and tens of thousands of bans.

The longest pause of the event loop is the longest answer to a request that needs no work. A neighbour is a
process that adds an element to its own table and removes it again. Everything runs in separate namespaces.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import Factory, define
from tests.bench.figures import Figure
from tests.bench.pace import limited
from tests.support.daemon import Guard
from tests.support.lists import external
from tests.support.manybans import addresses, fill
from tests.support.netns import netns, run
from tests.support.process import cpu_seconds
from tests.support.usernamespace import in_user_namespace

from ringfence.errors import ControlError, FirewallIncompleteError
from ringfence.firewall import make_backend
from ringfence.firewall.contract import Add
from ringfence.firewall.nftables import elements as nft_elements
from ringfence.netlink.connection import NetlinkConnection

if TYPE_CHECKING:
    from ringfence.values.network import Network

BANS = 50_000
NETWORKS = 250_000
QUIET = 20.0  # seconds before the CPU is measured
WATCHED = 60.0
"""Seconds of the guard's CPU time that a row measures."""
PATIENCE = 120.0  # seconds until a long feed must be in the kernel
LISTINGS = 60
_FILL = """
import json, time
from ipaddress import ip_network
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.firewall import network_lists
backend = NftablesBackend()
backend.open()
networks = [ip_network((0x20000000 + 512 * n, 24)) for n in range({number})]
began = time.perf_counter()
for call in backend.replace_list_in_steps(network_lists.DENY, networks):
    if call is not None:
        call()
print(json.dumps(time.perf_counter() - began))
"""


@define
class Waited:
    """By request: the longest answer in seconds, and the number of answers."""

    longest: dict[str, float] = Factory(dict)
    answers: dict[str, int] = Factory(dict)

    def record(self, what: str, action: Callable[[], object]) -> None:
        """Time and record one answer."""
        began = time.perf_counter()
        action()
        self.longest[what] = max(self.longest.get(what, 0.0), time.perf_counter() - began)


@contextmanager
def _guarding(folder: Path) -> Iterator[Guard]:
    """Yield a daemon with its bans, in a separate namespace."""
    fill(folder / "ringfence.db", addresses(BANS))
    with netns(), Guard(folder, firewall={"backend": "nftables"}) as guard:
        time.sleep(5)
        yield guard


def _beside(guard: Guard, waited: Waited, done: threading.Event) -> list[threading.Thread]:
    """Send the daemon requests until ``done``: for nothing, for its status, for bans."""

    def asking(what: str, every: float, action: Callable[[int], object]) -> threading.Thread:
        def ask() -> None:
            number = 0
            while not done.wait(every):
                number += 1
                waited.record(what, partial(action, number))
                waited.answers[what] = number

        thread = threading.Thread(target=ask)
        thread.start()
        return thread

    def nothing(_: int) -> None:
        with suppress(ControlError):  # an unknown request: its answer needs no work
            guard.ask("nothing")

    def ban(number: int) -> None:
        answer = guard.ask("ban", networks=[f"198.19.{number // 250}.{number % 250}"], seconds=600)
        if answer["problems"]:
            raise RuntimeError(f"a ban was refused: {answer['problems']}")

    return [
        asking("pause", 0.005, nothing),
        asking("status", 0.5, lambda _: guard.ask("status")),
        asking("ban", 0.2, ban),
    ]


def long_feed(folder: Path) -> list[Figure]:
    """Add a long list in addition to the bans."""
    lines = folder / "list.txt"
    lines.write_text("".join(f"{ip_network((0x20000000 + 512 * n, 24))}\n" for n in range(NETWORKS)), "ascii")
    waited, done = Waited(), threading.Event()
    with _guarding(folder) as guard:
        threads = _beside(guard, waited, done)
        try:
            began = time.perf_counter()
            guard.must("feeds", "add", "long", "--file", str(lines))
            while external() != NETWORKS:
                if time.perf_counter() - began > PATIENCE:
                    raise RuntimeError(f"the list is not in the kernel after {PATIENCE:.0f} s")
                time.sleep(0.1)
            took = time.perf_counter() - began
            time.sleep(5)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        placed, inside = (
            waited.answers["ban"],
            sum(row["address"].startswith("198.19.") for row in guard.bans()),
        )
        if inside != placed:
            raise RuntimeError(f"{placed} bans were placed, and {inside} of them are listed")
        time.sleep(QUIET)
        before, looked = cpu_seconds(guard.pid), time.monotonic()
        time.sleep(WATCHED)
        share = (cpu_seconds(guard.pid) - before) / (time.monotonic() - looked)
    what = f"`feeds add` of {NETWORKS} networks beside {BANS} bans, nftables"
    pause, status, ban = (waited.longest[name] for name in ("pause", "status", "ban"))
    return [
        Figure(f"{what}: seconds until it is in force", f"{took:.1f}", "-", None),
        Figure(
            f"{what}: longest pause of the event loop, ms", f"{1000 * pause:.0f}", *limited(1000 * pause, 100)
        ),
        Figure(
            f"{what}: longest `status` and `ban` meanwhile, s",
            f"{status:.2f}, {ban:.2f} ({waited.answers['status']} and {placed} of them)",
            *limited(max(status, ban), 0.5),
        ),
        Figure(
            f"{what}: CPU in the {WATCHED:.0f} s after, % of a core",
            f"{100 * share:.2f}",
            *limited(100 * share, 2, "it changes seldom"),
        ),
    ]


def containers() -> list[Figure]:
    """Load the list as root of the host, and as root of a user namespace."""
    code = _FILL.format(number=NETWORKS)
    ours = float(in_user_namespace(code))
    with netns():
        host = float(run(sys.executable, "-c", code))
    return [
        Figure(
            f"{NETWORKS} networks loaded by the root of a user namespace, times as long as by the host's",
            f"{ours / host:.2f} ({ours:.1f} s)",
            "≤ 2",
            ours <= 2 * host,
        )
    ]


def neighbours(folder: Path) -> list[Figure]:
    """Change another table five times a second, like another program."""
    with _guarding(folder) as guard:
        run("nft", "add table inet theirs; add set inet theirs s { type ipv4_addr; }")
        time.sleep(QUIET)
        before, began, number = cpu_seconds(guard.pid), time.monotonic(), 0
        while (passed := time.monotonic() - began) < WATCHED:
            run("nft", f"{('add', 'delete')[number % 2]} element inet theirs s {{ 192.0.2.1 }}")
            number += 1
            time.sleep(max(0.0, number / 5 - passed))
        share = (cpu_seconds(guard.pid) - before) / (time.monotonic() - began)
    return [
        Figure(
            f"{number} transactions of others in {WATCHED:.0f} s with {BANS} bans, CPU, % of a core",
            f"{100 * share:.2f}",
            *limited(100 * share, 3, "few programs change as often"),
        )
    ]


def listings() -> list[Figure]:
    """List the bans while another program changes their set a hundred times a second."""
    networks = addresses(BANS)
    missing = warned = 0
    with netns(), closing(make_backend("nftables")) as backend:
        backend.open()
        for start in range(0, BANS, 2_000):
            backend.apply([Add(network, 86_400) for network in networks[start : start + 2_000]])
        done = threading.Event()
        other = ThreadPoolExecutor(1)
        changing = other.submit(_disturb, done)
        try:
            for _ in range(LISTINGS):
                found: set[Network] = set()
                known = ((one, Add(one, 1).scope) for one in networks if one not in found)
                try:
                    for element in backend.list(known):
                        found.add(element.network)
                except FirewallIncompleteError:
                    warned += 1
                missing += len(set(networks) - found)
        finally:
            done.set()
            other.shutdown()
        changes = changing.result()
    return [
        Figure(
            f"{LISTINGS} listings of {BANS} bans under 100 transactions a second: missing without a word",
            f"{missing} ({warned} said that they may lack what nobody knows; {changes} transactions)",
            f"0, during {LISTINGS} transactions or more",
            missing == 0 and changes >= LISTINGS,
        )
    ]


def _disturb(done: threading.Event) -> int:
    """Change a set of bans until ``done``; return the number of transactions."""
    with NetlinkConnection(extended=True) as kernel:
        number = 0
        while not done.wait(0.01):
            one = ip_network((0xC6130000 + number // 2 % 1000, 32))
            part = (
                nft_elements.delete_elements("ringfence", "ban4_32", [one])
                if number % 2
                else nft_elements.add_elements("ringfence", "ban4_32", [(one, 600)])
            )
            kernel.transact(part)
            number += 1
    return number


def figures(_root: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        yield from long_feed(Path(one))
        yield from containers()
        yield from neighbours(Path(two))
        yield from listings()
