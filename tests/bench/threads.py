"""Refusals of the kernel, and hangs: threads, child processes, pipes, and a daemon that is stopped."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench.figures import Figure, spread
from tests.support.daemon import Guard, ServedAmi, ami_server
from tests.support.netns import netns
from tests.support.refusals import CHANGES, CHILDREN, OURS, THREADS, refusals

BACKENDS = ("memory", "nftables", "ipset")
SECONDS = 5.0
"""The longest time until a command returns."""
COMMANDS = (
    *CHANGES,
    ("status",),
    ("bans",),
    ("why", OURS),
    ("history",),
    ("report",),
    ("alarms",),
    ("friends",),
    ("feeds", "list"),
    ("fence", "status"),
    ("check",),
)
"""Commands while the daemon hangs. The first ones change something."""


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder, netns(), ami_server() as pbx:
            yield from _refused(Path(folder), pbx, backend)
    with tempfile.TemporaryDirectory() as folder, netns(), ami_server() as pbx:
        yield _piped(Path(folder), pbx)
    with tempfile.TemporaryDirectory() as folder, netns(), ami_server() as pbx:
        yield from _hanging(Path(folder), pbx, "nftables")


def _refused(folder: Path, pbx: ServedAmi, backend: str) -> Iterator[Figure]:
    """Measure starts, bans, list entries and reloads with each thread and child process refused.

    The daemon starts its threads before READY. With the backend memory it starts no child process.
    """
    for calls, what in ((THREADS, "thread"), (CHILDREN, "child process"))[: 1 if backend == "memory" else 2]:
        found = [*refusals(folder, pbx, calls, firewall={"backend": backend})]
        faults = [fault for one in found for fault in one.faults]
        late, late_too = sum(one.is_ready for one in found), calls == CHILDREN
        where = "starts, bans, entries, reloads" if late_too else "starts"
        yield Figure(
            what=f"each {what} refused once (EAGAIN), in {where}, {backend}: "
            "ends without a sentence, dead daemons, wrong answers",
            measured=f"{len(faults)} of {len(found)} runs ({late} refused after READY)"
            + "".join(f"; {fault}" for fault in faults[:2]),
            must="0, and some refused after READY" if late_too else "0, and none refused after READY",
            reached=bool(found) and not faults and bool(late) == late_too,
        )


def _piped(folder: Path, pbx: ServedAmi) -> Figure:
    """Measure how long `fence enforce | cat` takes, with a trial of a minute."""
    fence = {"mode": "enforce", "countries": [], "networks": ["198.18.0.0/15"]}
    with Guard(folder, ami={"port": pbx.port}, firewall={"backend": "nftables"}, fence=fence) as guard:
        line = [sys.executable, "-m", "ringfence", "fence", "enforce", "--for", "1m", "--force"]
        command = shlex.join([*line, "--config", str(guard.config)])
        began = time.monotonic()
        done = subprocess.run(
            ["sh", "-c", f"{command} 2>&1 | cat"], capture_output=True, text=True, check=False, timeout=90
        )
        took = time.monotonic() - began
    begun = "the fence drops packets until" in done.stdout
    return Figure(
        what="`fence enforce | cat`, with a trial of a minute: seconds until it returns",
        measured=f"{took:.1f}" if begun else f"not begun: {done.stdout}",
        must=f"≤ {SECONDS:.0f}",
        reached=begun and took <= SECONDS,
    )


def _hanging(folder: Path, pbx: ServedAmi, backend: str) -> Iterator[Figure]:
    """Measure commands while the daemon is stopped, and what it does when it goes on."""
    took, silent = [], []
    kernel = {"backend": backend}
    with Guard(folder, ami={"port": pbx.port}, firewall=kernel) as guard, ExitStack() as stack:
        guard.must("ban", OURS)
        os.kill(guard.pid, signal.SIGSTOP)
        stack.callback(os.kill, guard.pid, signal.SIGCONT)
        for at, command in enumerate(COMMANDS):
            began = time.monotonic()
            done = guard.command(*command)
            took.append(time.monotonic() - began)
            if "hangs" not in done.stderr + done.stdout or (at < len(CHANGES) and not done.returncode):
                silent.append(" ".join(command))
        stack.close()
        time.sleep(1.0)
        lists = [row for side in ("allow", "deny") for row in guard.ask("lists", side=side)]
        later = len(guard.banned() ^ {OURS}) + len(lists)
    yield Figure(
        what=f"a daemon that hangs (SIGSTOP), {len(COMMANDS)} commands, {backend}: seconds until each ends",
        measured=spread(took, " s") + "".join(f"; no word of it: {one}" for one in silent),
        must=f"≤ {SECONDS:.0f}, each names it",
        reached=max(took) <= SECONDS and not silent,
    )
    yield Figure(
        what=f"requests that were given up and carried out later, {backend}",
        measured=f"{later} of {len(CHANGES)}",
        must="0",
        reached=later == 0,
    )
