"""Faults of the machine: system calls that fail, and logs that cannot be written."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tests.support.daemon import Guard, until
from tests.support.netns import run

import ringfence
from ringfence import control

Log = Callable[[], AbstractContextManager[IO[bytes]]]


Injected = Callable[[], list[str]]
"""Returns strace's lines about the calls that it changed."""


@contextmanager
def injected(
    pid: int,
    call: str,
    fault: str,
    when: str,
    output: Path,
    path: Path | None = None,
    *,
    programs: bool = True,
) -> Iterator[Injected]:
    """Let strace do ``fault`` at system calls of a process while the block runs.

    ``fault`` is ``error=ENOSPC`` or ``signal=KILL``, for example. ``when`` is the number of the call in its
    thread, such as ``3``, or ``3+`` for all from this one. Only calls for the file ``path`` count, if it is
    set. Without ``programs``, strace leaves a program that the process starts alone. strace writes to
    ``output``.
    """
    inject = [f"--inject={call}:{fault}:when={when}", *(["-P", str(path)] if path is not None else [])]
    follow = ["-f"] if programs else ["-f", "--detach-on=execve"]
    tracer = subprocess.Popen(
        ["strace", *follow, "-q", "-yy", "-o", str(output), "-p", str(pid), "-e", f"trace={call}", *inject],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def lines() -> list[str]:
        text = output.read_text("utf-8", "replace")
        return [line for line in text.split("\n") if line.endswith(("(INJECTED)", "killed by SIGKILL +++"))]

    try:
        until(lambda: tracer.poll() is not None or _is_traced(pid), "strace", pause=0.01)
        assert tracer.poll() is None, "strace has ended"
        yield lines
    finally:
        tracer.terminate()
        try:
            tracer.wait(_LETTING_GO)
        except subprocess.TimeoutExpired:  # it waits for a thread, which waits for its child by vfork
            tracer.kill()
            tracer.wait()


_LETTING_GO = 2.0
"""Seconds that strace has to let a process go."""

_OPEN = """
import sys, time
from pathlib import Path
from ringfence.errors import StoreError
from ringfence.store.database import Store
with Store.open_or_memory(Path(sys.argv[1])) as store:
    try:
        print(len(list(store.records.running(time.time()))))
    except StoreError:
        print(0)
"""


def opened_under_fault(path: Path, call: str, error: str, when: str) -> int:
    """Open the database at ``path`` as the daemon does, while system calls for its files fail.

    Return the number of its active bans that could be read.
    """
    output = path.with_name("strace")
    files = [word for suffix in ("", "-wal") for word in ("-P", f"{path}{suffix}")]
    done = subprocess.run(
        [
            *("strace", "-f", "-q", "-o", str(output), *files, "-e", f"trace={call}"),
            *(f"--inject={call}:error={error}:when={when}", sys.executable, "-c", _OPEN, str(path)),
        ],
        env=os.environ | {"PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not _has_missed(when, output), f"no {call} failed"
    return int(done.stdout.split("\n")[-2])


def _has_missed(when: str, output: Path) -> bool:
    """Whether no call failed, by the output of strace, although the first call should."""
    return when.rstrip("+") == "1" and "(INJECTED)" not in output.read_text("utf-8", "replace")


def _is_traced(pid: int) -> bool:
    """Whether every thread of a process has a tracer."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            if "\nTracerPid:\t0\n" in (thread / "status").read_text("ascii"):
                return False
    return True


@contextmanager
def _full() -> Iterator[IO[bytes]]:
    with open("/dev/full", "wb", buffering=0) as log:  # noqa: PTH123 - a device
        yield log


@contextmanager
def _closed_pipe() -> Iterator[IO[bytes]]:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as log:
        yield log


@contextmanager
def _full_pipe() -> Iterator[IO[bytes]]:
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        with os.fdopen(writer, "wb", buffering=0) as log:
            yield log
    finally:
        os.close(reader)


@contextmanager
def _dead_terminal() -> Iterator[IO[bytes]]:
    near, far = pty.openpty()
    with os.fdopen(far, "wb", buffering=0) as log:
        os.close(near)
        yield log


@contextmanager
def _read_only() -> Iterator[IO[bytes]]:
    with open(os.devnull, "rb") as log:  # noqa: PTH123 - a device
        yield log


LOGS: Mapping[str, Log] = {
    "full device": _full,
    "pipe without a reader": _closed_pipe,
    "pipe whose reader hangs": _full_pipe,
    "dead terminal": _dead_terminal,
    "descriptor for reading": _read_only,
}
"""Standard errors that cannot be written, by what is wrong with them."""


def wait_for(seconds: float, true: Callable[[], object]) -> bool:
    """Wait until ``true`` returns something true, at most some seconds; return whether it did."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


MANY = tuple(f"198.18.1.{n}" for n in range(1, 30))
"""The addresses that are banned before a change."""
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "ban": {"networks": ["198.18.2.1"], "seconds": 3_600.0},
    "unban": {"networks": ["198.18.1.1"]},
    "unban all": {"all": True},
}
"""The arguments of requests that change bans, by the request's name, and what it concerns."""


def change_under_fault(folder: Path, change: str, when: str, backend: str = "memory") -> str:
    """Send a request of ``CHANGES`` while writes to the write-ahead log fail; return what is wrong, or "".

    If the answer does not report that the change is unrecorded, it must be recorded at once; otherwise when
    the alarm has cleared. The daemon is killed, and starts as after a reboot.
    """
    with Guard(folder, firewall={"backend": backend}) as guard:
        guard.ask("ban", networks=list(MANY), seconds=3_600.0)
        reasons: list[str] = []
        output = folder / "strace"
        with injected(guard.pid, "pwrite64", "error=ENOSPC", when, output, folder / "ringfence.db-wal"):
            socket, do = Path(guard.settings["control"]["socket"]), change.partition(" ")[0]
            control.ask(socket, do, unrecorded=reasons, **CHANGES[change])
            banned = guard.banned()
            if not reasons:
                guard.kill()
        if _has_missed(when, output):
            return "no write failed"
        if reasons and not wait_for(10.0, lambda: "store.not_recorded" not in str(guard.status()["alarms"])):
            return "not recorded later"
        if guard.running:
            guard.kill()
        if backend == "nftables":
            run("nft", "flush", "ruleset")
        guard.start()
        lost = guard.banned() ^ banned
        return f"{len(lost)} differ after the restart{'' if reasons else ', without a word'}" if lost else ""
