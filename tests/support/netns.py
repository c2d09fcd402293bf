"""A fresh network namespace around a test: what it does to the firewall is gone when it ends.

Python 3.11 has neither ``os.unshare`` nor ``os.setns``, hence ctypes. Only the calling thread moves, and
/proc/self/net follows the main thread, so a test uses this in the main thread. Sockets made before stay where
they were made.
"""

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_counter = itertools.count(1)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@contextmanager
def netns(*, loopback: bool = True) -> Iterator[None]:
    """Move this thread into a network namespace of its own, with lo up, until the block ends."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        try:
            if loopback:
                run("ip", "link", "set", "lo", "up")
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET), "setns")
    finally:
        os.close(before)


@contextmanager
def neighbour() -> Iterator[str]:
    """Give the name of a second namespace, the one at the end of a cable."""
    name = f"rfn-{os.getpid()}-{next(_counter)}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        with suppress(AssertionError):
            run("ip", "netns", "delete", name)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Move this thread into the namespace of that name until the block ends; sockets made there stay."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(there, _CLONE_NEWNET), "setns")
        try:
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET), "setns")
    finally:
        os.close(there)
        os.close(before)


def run(*command: str, text: str = "") -> str:
    """Run a command, which must succeed, and give what it prints."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} failed ({done.returncode}): {done.stderr}")
    return done.stdout
