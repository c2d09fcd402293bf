"""Processes of other programs: those that ``/proc`` shows, and those that commands start.

The daemon's systemd unit hides other processes from it (``ProtectProc=invisible``), and only root sees the
open files and namespaces of other users' processes. So callers must handle missing answers.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

PROC = Path("/proc")
SECONDS = 60
"""The longest time that a program of :func:`run_program` may run, in seconds."""

_LONGEST = 15  # characters: the kernel cuts a process's name (TASK_COMM_LEN)
_SOCKET = re.compile(r"socket:\[([0-9]{1,20})\]")


def processes(name: str, proc: Path = PROC) -> Iterator[int]:
    """Yield the ids of visible processes whose program has this name, in all network namespaces."""
    wanted = name[:_LONGEST].encode() + b"\n"
    try:
        folders = [folder for folder in proc.iterdir() if folder.name.isdecimal()]
    except OSError:
        return
    for folder in folders:
        try:
            found = (folder / "comm").read_bytes()
        except OSError:  # the process has ended or is hidden
            continue
        if found == wanted:
            yield int(folder.name)


def network_of(process: int | str = "self", proc: Path = PROC) -> str:
    """Return a text that identifies the network namespace of a process; "" if it is hidden."""
    try:
        return str((proc / str(process) / "ns" / "net").readlink())
    except OSError:
        return ""


def sockets_of(process: int, proc: Path = PROC) -> frozenset[int]:
    """Return the inodes of a process's sockets; empty if they are hidden."""
    found = set()
    try:
        for file in (proc / str(process) / "fd").iterdir():
            try:
                target = str(file.readlink())
            except OSError:  # the process has closed this file meanwhile
                continue
            if match := _SOCKET.fullmatch(target):
                found.add(int(match[1]))
    except OSError:
        pass
    return frozenset(found)


def run_program(*command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a program without input for ``SECONDS`` at most; raise OSError or TimeoutExpired.

    A program without a folder is searched in PATH, so only commands that root types may name one.
    """
    return subprocess.run(  # noqa: S603 - no shell
        [*command], env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=SECONDS
    )
