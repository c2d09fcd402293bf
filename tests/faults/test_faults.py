"""A sample of `make faults`: a system call fails, or the process is killed there, and all is as answered."""

import subprocess
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from tests.faults.bed import Bed, bed
from tests.faults.case import try_case
from tests.faults.operations import OPERATIONS, Process
from tests.faults.setup_bed import SetupBed
from tests.faults.values import AT_ANSWER, ERRORS, KILL, NOTHING, Row
from tests.support.daemon import ami_server
from tests.support.faults import injected
from tests.support.netns import netns

pytestmark = pytest.mark.kernel

SAMPLE = (
    ("ban", "pwrite64", "ENOSPC", 1),
    ("ban", "sendto", "ENOBUFS", 1),
    ("ban", "sendto", KILL, 1),
    ("unban", "pwrite64", KILL, 2),
    ("unban-all", "sendto", "EPERM", 1),
    ("fence", "pwrite64", "EIO", 1),
    ("reload", "openat", "EMFILE", 1),
    ("stop", "pwrite64", KILL, 1),
    ("start-full", "socket", "EMFILE", 2),
    ("start-empty", "clone3", "EAGAIN", 2),
    ("upgrade", "pwrite64", "ENOSPC", 2),
    ("upgrade", "pwrite64", KILL, 3),
    ("allow-command", "recvfrom", "ECONNRESET", 1),
    ("enforce-command", "sendto", KILL, 2),
    ("feeds-command", "renameat", KILL, 1),
    ("unban-alone", "sendto", "EPERM", 1),
    ("off", "pwrite64", "ENOSPC", 1),
    ("off", "sendto", "ENOBUFS", 1),
    ("on", "sendto", "EPERM", 1),
    ("guess", "pwrite64", "ENOSPC", 1),
    ("guess", "sendto", "ENOBUFS", 1),
    ("guess", "pwrite64", KILL, 1),
)
"""What `make test` tries: the operation, the call, its error, and which use of the call fails."""
CALLS = ("openat", "pwrite64", "sendto", "socket", "recvfrom")
"""The calls of which the long tests let the first use fail, during each operation."""
NEW = ("off", "on", "guess", "allow-remove", "deny-add", "fence", "rotation")
"""The operations that no other test carries out with a daemon of its own; the long tests have the others."""
KILLED = ("ban", "unban", "unban-all", "allow-add", "allow-remove", "deny-add", "fence", "off", "on", "guess")
"""The operations after which `make test` kills the daemon; the long tests have the others."""
BACKENDS = ("nftables", pytest.param("ipset", marks=pytest.mark.long))


@pytest.fixture(name="made", params=BACKENDS, scope="module")
def _made(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """Return a daemon in a network namespace of its own, the same for all cases with one backend."""
    with (
        netns(),
        ami_server() as pbx,
        tempfile.TemporaryDirectory(prefix="ringfence-faults-") as folder,
        bed(Path(folder), request.param, pbx) as made,
    ):
        yield made


@pytest.mark.parametrize(("operation", "call", "error", "number"), SAMPLE)
def test_a_call_that_fails(made: Bed, operation: str, call: str, error: str, number: int) -> None:
    """The call fails, and afterwards nothing is lost, half done, or other than answered."""
    tried = try_case(made, Row(operation, made.backend, call, error), number)

    assert tried.calls, "no call failed"
    assert tried.findings == [], tried.log


@pytest.mark.parametrize(
    "operation",
    [one if one in NEW else pytest.param(one, marks=pytest.mark.long) for one in OPERATIONS],
)
def test_an_operation_while_nothing_fails(made: Bed, operation: str) -> None:
    """An operation does what its cases are judged by, and a restart keeps it."""
    tried = try_case(made, Row(operation, made.backend, NOTHING, "EIO"), 1)

    assert tried.findings == [], tried.log


@pytest.mark.parametrize(
    "operation",
    [
        one if one in KILLED else pytest.param(one, marks=pytest.mark.long)
        for one, operation in OPERATIONS.items()
        if operation.process is not Process.ALONE
    ],
)
def test_an_operation_that_a_kill_follows(made: Bed, operation: str) -> None:
    """What an answer reports survives a kill of the daemon that follows at once."""
    tried = try_case(made, Row(operation, made.backend, NOTHING, AT_ANSWER), 1)

    assert tried.findings == [], tried.log


@pytest.mark.long
@pytest.mark.parametrize(("call", "operation"), [*product(CALLS, OPERATIONS)])
def test_the_first_call_that_fails(made: Bed, operation: str, call: str) -> None:
    """If the first of an operation's calls fails, nothing is lost, half done, or other than answered."""
    tried = try_case(made, Row(operation, made.backend, call, ERRORS[call][0]), 1)

    assert tried.findings == [], tried.log


@pytest.mark.parametrize(
    ("operation", "call", "error"), [("setup", "fsync", "EIO"), ("undo", "renameat", KILL)]
)
def test_a_setup_whose_call_fails(tmp_path: Path, operation: str, call: str, error: str) -> None:
    """Setup and its undo end as answered, and an undo restores everything."""
    tried = SetupBed(tmp_path, operation).try_case(Row(operation, "files", call, error), 2)

    assert tried.calls, "no call failed"
    assert tried.findings == [], tried.log


@pytest.mark.parametrize("programs", [True, False])
def test_programs_that_a_process_starts(tmp_path: Path, *, programs: bool) -> None:
    """With ``programs``, the calls of a program that the process starts fail; without it, they do not."""
    line = "echo ready; read line; cat /dev/null; exit $?"
    with subprocess.Popen(["sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        output = tmp_path / "strace"
        with injected(shell.pid, "openat", "error=EMFILE", "1+", output, programs=programs):
            shell.communicate(b"\n")

    assert (shell.returncode != 0) == programs
