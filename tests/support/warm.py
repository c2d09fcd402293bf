"""Programs of ringfence that start at once, as processes of their own.

Python needs half a second to import the daemon or a command, and the tests start some thousand of them. So
one process imports them once (:mod:`tests.support.warm_server`), and forks itself for each program. The fork
has its own process id, environment, streams, folder and namespaces, and ends with the program's exit status.

Only the tests use it (:func:`warmed`). Benchmarks and the demonstration start programs in the usual way, and
so do tests of the start itself (fixture ``cold``).
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

_PYTHON = (sys.executable, "-m")
_NETNS = ("ip", "netns", "exec")
_COLD = ("PYTHON", "LANG", "LC_")
"""Variables of the environment that the interpreter reads at its start."""
_MODULES = ("ringfence", "tests.support.sip")

_PATIENCE = 120.0
"""Seconds until the server has answered: on a busy machine it imports for long."""

_server: "_Server | None" = None


class Process:
    """A forked program; as much of :class:`subprocess.Popen` as the tests use."""

    def __init__(self, status: int) -> None:
        self._status = status
        self._answer = b""
        self.returncode: int | None = None
        if not self._read(_PATIENCE):
            raise RuntimeError("the server of warm processes does not answer")
        self.pid = int(self._answer.partition(b"\n")[0])
        self.poll()

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        if self.returncode is None and self._answer.count(b"\n") < 2:
            self._read(0)
        if self.returncode is None and self._answer.count(b"\n") == 2:
            self.returncode = int(self._answer.split(b"\n")[1])
            os.close(self._status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit status; raise TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._read(left):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _read(self, seconds: float | None) -> bool:
        if not select.select([self._status], [], [], seconds)[0]:
            return False
        part = os.read(self._status, 4096)
        if not part:
            raise RuntimeError("the server of warm processes has ended")
        self._answer += part
        return True


class _Server:
    """The server's process, which starts with the first program."""

    def __init__(self, copy: Path | None) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*_PYTHON, "tests.support.warm_server", str(theirs.fileno()), *(["all"] if copy else [])],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ if copy is None else {**os.environ, "PYTHONPATH": str(copy)},
            )

    def fork(
        self,
        arguments: Sequence[str],
        namespace: str,
        environ: Mapping[str, str],
        streams: Sequence[int],
        *,
        stopped: bool,
    ) -> Process:
        """Start ``python -m *arguments`` in the caller's network namespace or the named one."""
        umask = os.umask(0o77)
        os.umask(umask)
        request = {
            "arguments": list(arguments),
            "namespace": namespace,
            "environ": dict(environ),
            "umask": umask,
            "stopped": stopped,
        }
        with ExitStack() as opened:
            fds = [*streams]
            for path in ("/proc/thread-self/ns/net", "."):
                fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                opened.callback(os.close, fds[-1])
            status, theirs = os.pipe()
            opened.callback(os.close, theirs)
            socket.send_fds(self._control, [json.dumps(request).encode()], [*fds, theirs])
        return Process(status)

    def close(self) -> None:
        """End the server; programs that it forked go on."""
        self._control.close()
        self._process.wait(_PATIENCE)


@contextmanager
def warmed(copy: Path | None = None) -> Iterator[None]:
    """Make :func:`start` fork programs while the block runs; those of a copy of ringfence, if given.

    Every module of a copy must be importable.
    """
    global _server  # noqa: PLW0603 - one for each process of tests
    before, _server = _server, _Server(copy)
    try:
        yield
    finally:
        _server.close()
        _server = before


@contextmanager
def cold() -> Iterator[None]:
    """Make :func:`start` start programs in the usual way while the block runs."""
    global _server  # noqa: PLW0603 - as above
    before, _server = _server, None
    try:
        yield
    finally:
        _server = before


def start(
    command: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
    stopped: bool = False,
) -> "Process | subprocess.Popen[bytes]":
    """Start a command; fork it if it is a program of ours, in a network namespace or in none.

    A stream that is left out is /dev/null for the input, and that of this process for the output. If
    ``stopped``, a forked program waits for SIGCONT before its first step.
    """
    environ = os.environ if environ is None else environ
    namespace, rest = "", tuple(command)
    if rest[:3] == _NETNS:
        namespace, rest = rest[3], rest[4:]
    ours = rest[:2] == _PYTHON and rest[2] in _MODULES and _is_warm(environ)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        if _server is None or not ours or _is_special(rest[3:]):
            return subprocess.Popen(
                command, env=environ, stdin=stdin or nothing, stdout=stdout, stderr=stderr
            )
        streams = ((stdin or nothing).fileno(), *(1 if o is None else o.fileno() for o in (stdout,)))
        last = 2 if stderr is None else stderr.fileno()
        process = _server.fork(rest[2:], namespace, environ, [*streams, last], stopped=stopped)
    while stopped and process.poll() is None and not _is_stopped(process.pid):
        time.sleep(0.002)
    return process


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(") ")[2][:1] == "T"


def _is_special(arguments: Sequence[str]) -> bool:
    """Whether the command replaces itself with a new process: ``run`` with options."""
    return arguments[:1] == ("run",) and (len(arguments) != 3 or arguments[1] != "--config")


def _is_warm(environ: Mapping[str, str]) -> bool:
    changed = {name for name in {*environ, *os.environ} if environ.get(name) != os.environ.get(name)}
    return not any(name.startswith(_COLD) and name != "PYTHONPATH" for name in changed)
