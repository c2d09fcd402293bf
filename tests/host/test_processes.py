"""Processes of other programs, found in the real /proc and in a restricted one."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.netns import inside, neighbour

from ringfence.host.processes import network_of, processes, sockets_of


@pytest.fixture(name="sleeper")
def _sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Return a process with a unique name and a socket of its own."""
    program = tmp_path / f"rf{os.getpid()}"
    shutil.copy("/bin/sleep", program)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        process = subprocess.Popen([program, "60"], stdin=own.fileno(), stdout=subprocess.DEVNULL)
    try:
        until(lambda: list(processes(program.name)), "the process")
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_program_is_found_by_its_name(sleeper: subprocess.Popen[bytes]) -> None:
    """A process is found only by its full name, and only while it runs."""
    name = f"rf{os.getpid()}"
    assert list(processes(name)) == [sleeper.pid]
    assert list(processes(name[:-1])) == []
    sleeper.kill()
    sleeper.wait()
    assert list(processes(name)) == []


def test_a_long_name_is_found_as_the_kernel_keeps_it(tmp_path: Path) -> None:
    """The kernel keeps 15 characters."""
    folder = tmp_path / "4242"
    folder.mkdir()
    (folder / "comm").write_text("a-name-of-fifte\n")
    (tmp_path / "net").mkdir()
    assert list(processes("a-name-of-fifteen-and-more", tmp_path)) == [4242]


def test_its_sockets_are_known_by_their_inodes(sleeper: subprocess.Popen[bytes]) -> None:
    """Only the sockets among its open files are returned."""
    [inode] = sockets_of(sleeper.pid)
    assert Path("/proc", str(sleeper.pid), "fd", "0").stat().st_ino == inode


@pytest.mark.kernel
def test_a_network_namespace_has_a_name_that_is_the_same_for_all_in_it(
    sleeper: subprocess.Popen[bytes],
) -> None:
    """Two processes share a network namespace exactly if these names are equal."""
    assert network_of(sleeper.pid) == network_of() != ""
    with neighbour() as name, inside(name):
        assert network_of("thread-self") != network_of(sleeper.pid)


def test_hidden_processes_are_left_out(tmp_path: Path) -> None:
    """An ended process has no namespace and no sockets, and a hidden /proc has no processes."""
    assert network_of(4242, tmp_path) == ""
    assert sockets_of(4242, tmp_path) == frozenset()
    assert list(processes("asterisk", tmp_path / "none")) == []
