"""A daemon whose N-th thread or child process the kernel refuses, by strace.

strace follows the daemon as a process of its own (``-D``), so that the daemon keeps its process id.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import Factory, frozen
from tests.support.daemon import Guard, ServedAmi

THREADS, CHILDREN = "clone3", "vfork,clone,fork"
"""The system calls that start a thread, and those that start a child process."""
OURS, OTHER = "198.18.0.1", "198.18.0.2"
CHANGES = (
    ("ban", OTHER),
    ("unban", OURS),
    ("unban", "all"),
    ("deny", "add", OTHER),
    ("allow", "add", OTHER),
    ("reload",),
)
"""Commands that change something."""
_MORE = 30


@frozen
class Refusal:
    """The effects of a refused ``number``-th call. ``is_refused``: the daemon made that many calls."""

    number: int
    is_refused: bool
    is_ready: bool
    faults: Sequence[str] = Factory(tuple)


def refusals(folder: Path, pbx: ServedAmi, calls: str, **settings: Any) -> Iterator[Refusal]:  # noqa: ANN401 - whatever TOML holds
    """Start and command daemons, each with one more call that is refused, until one needs no more calls."""
    for number in range(1, _MORE):
        with tempfile.TemporaryDirectory(dir=folder) as own:
            found = _with_refusal(Path(own), pbx, calls, number, settings)
        if not found.is_refused:
            assert found.is_ready, found.faults
            return
        yield found


def _with_refusal(folder: Path, pbx: ServedAmi, calls: str, number: int, settings: dict[str, Any]) -> Refusal:
    trace = folder / "trace"
    inject = f"inject={calls}:error=EAGAIN:when={number}"
    strace = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", str(trace), "-e", f"trace={calls}"]
    guard = Guard(folder, ami={"port": pbx.port}, prefix=[*strace, "-e", inject], may_fail=True, **settings)
    try:
        guard.start()
    except AssertionError:
        return Refusal(number, _is_refused(trace), is_ready=False, faults=_faults_of_start(guard.log))
    commands = Guard(folder, ami={"port": pbx.port}, **settings)  # without strace
    with ExitStack() as stack:
        stack.push(guard.__exit__)
        faults = [*_faults_of_commands(commands)]
        if not guard.running:
            faults.append("the daemon ended")
        elif guard.stop():
            faults.append("the daemon did not stop well")
    if "Traceback" in guard.log or "defect" in guard.log:
        faults.append(guard.log[-500:])
    return Refusal(number, _is_refused(trace), is_ready=True, faults=faults)


def _is_refused(trace: Path) -> bool:
    return "(INJECTED)" in trace.read_text("utf-8", "replace")


def _faults_of_start(log: str) -> list[str]:
    """Return what is wrong with a start that failed: it must print one clear sentence."""
    last = log.strip().splitlines()[-1:]
    clear = [line for line in last if "cannot" in line and "level=" not in line]
    return [] if clear and "Traceback" not in log else [log[-500:]]


def _faults_of_commands(guard: Guard) -> Iterator[str]:
    """Yield the commands that failed without a sentence, or whose "done" the list of bans denies."""
    lines = (("ban", OURS), ("ban", OTHER), ("deny", "add", "198.18.0.3"), ("reload",), ("unban", OTHER))
    for line in lines:
        done = guard.command(*line)
        if "defect" in done.stderr or "Traceback" in done.stderr or (done.returncode and not done.stderr):
            yield f"{' '.join(line)}: {done.stderr}"
    banned = {row["address"] for row in json.loads(guard.must("bans", "--json"))}
    if banned != {OURS}:
        yield f"banned: {sorted(banned)}"
