"""A new network namespace around a test, which ends with all changes that the test makes to the firewall.

Python 3.11 has neither ``os.unshare`` nor ``os.setns``, hence ctypes. Only the calling thread moves, and
/proc/self/net follows the main thread, so a test must use this in the main thread. A socket stays in the
namespace in which it was made.
"""

import ctypes
import fcntl
import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_libc = ctypes.CDLL(None, use_errno=True)
_counter = itertools.count(1)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _start_loopback() -> None:
    """Set lo up in this thread's namespace; without a process, because very many tests do it."""
    request = struct.pack("16sH22x", b"lo", _IFF_UP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


@contextmanager
def netns(*, loopback: bool = True) -> Iterator[None]:
    """Move this thread into a new network namespace, with lo up, until the block ends."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        try:
            if loopback:
                _start_loopback()
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET), "setns")
    finally:
        os.close(before)


@contextmanager
def neighbour() -> Iterator[str]:
    """Yield the name of a second namespace, for the far end of a cable."""
    name = f"rfn-{os.getpid()}-{next(_counter)}"
    run("ip", "netns", "add", name)
    try:
        with inside(name):
            _start_loopback()
        yield name
    finally:
        with suppress(AssertionError):
            run("ip", "netns", "delete", name)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Move this thread into the namespace ``name`` until the block ends; sockets made there stay there."""
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


def wait_until_up(device: str, *namespace: str) -> None:
    """Wait until the kernel carries packets by ``device``: just after both ends are up, it drops them.

    ``namespace``: the options of `ip` that name the namespace of the device.
    """
    for _ in range(1_000):
        if " state UP " in run("ip", *namespace, "-oneline", "link", "show", device):
            return
        time.sleep(0.01)
    raise AssertionError(f"{device} is not up after ten seconds")


def run(*command: str, text: str = "") -> str:
    """Run a command, which must succeed, and return its output."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} failed ({done.returncode}): {done.stderr}")
    return done.stdout
