"""CPU time and memory of a process, from /proc."""

import os
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, in user and kernel mode (seconds)."""
    return sum(_times(pid)[:2]) / _TICKS


def family_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with one thread and of its children, including the ended ones."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while True:
        before, used = children.read_text("ascii"), sum(_times(pid))
        with suppress(FileNotFoundError, ProcessLookupError):  # one has just ended
            used += sum(sum(_times(int(child))[:2]) for child in before.split())
            if children.read_text("ascii") == before:
                return used / _TICKS


def _times(pid: int) -> list[int]:
    """Return the times of a process in ticks, user and kernel mode, and those of its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return [*map(int, fields[11:15])]


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").split("\n"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no resident memory")


def most_resident(pid: int) -> int:
    """Return the largest resident memory that a process ever had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").split("\n"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no resident memory")
