"""The service that runs the program of a channel (Apprise or a hook) for the daemon, once for each message.

systemd accepts a connection to ``ringfence-notify.socket`` and starts this module as an instance of
``ringfence-notify@.service``. The connection is its standard input and output. Only the user ``ringfence``
can open the socket. The instance has a user of its own, so the program can use neither the daemon's control
socket nor its files. systemd kills everything that the program leaves behind in the instance's cgroup.

The job comes with everything that the program needs, also secrets, and nothing of it is stored. The module
imports only the standard library, because it starts for each message.
"""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

MAX_JOB = 16 * 2**20  # bytes
MAX_OUTPUT = 300  # bytes
LONGEST = 600.0
"""The maximum run time of a program (seconds), also if the channel's timeout is longer."""

_CHUNK = 64 * 1024
_LOOK_EVERY = 50  # milliseconds: how often to look whether the process has ended
_OWN_VARIABLES = ("PYTHON", "LISTEN_", "RINGFENCE_", "NOTIFY_")
"""The beginnings of the names of environment variables that a channel's program does not get."""


class RunnerError(Exception):
    """The program of a channel cannot be run, or it had to be killed."""


def main() -> None:
    """Read a job (JSON) from standard input, run its program, and send the result back as JSON.

    The result has ``code`` and ``output`` of the program, or ``error`` if it could not run or was killed.
    """
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as connection:
        try:
            refuse_wrong_user(connection)
            code, output = run(json.loads(_received(connection)), connection)
            result = {"code": code, "output": output}
        except RunnerError as error:
            result = {"error": str(error)}
        connection.settimeout(1.0)
        with suppress(BrokenPipeError):  # the daemon no longer waits, and has counted a failure
            connection.sendall(json.dumps(result).encode())


def refuse_wrong_user(connection: socket.socket) -> None:
    """Raise RunnerError if a program would run as root, or as the user of the daemon.

    ``connection`` comes from the daemon, whose user the kernel names. In the unit's user namespace that user
    has no number, and so differs from the user of this process.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, peer, _ = struct.unpack("3i", credentials)
    if os.getuid() in (0, peer):
        raise RunnerError("the service for programs needs a user of its own, neither root nor the daemon's")


def _received(connection: socket.socket) -> bytes:
    job = bytearray()
    while part := connection.recv(_CHUNK):
        job += part
        if len(job) > MAX_JOB:
            raise RunnerError("the message is too long")
    return bytes(job)


def run(job: Mapping[str, Any], connection: socket.socket) -> tuple[int, str]:
    """Run the program of a job; return its exit code and the end of its output, or raise RunnerError.

    ``command``, ``input`` and ``variables`` are for the program. If ``config`` is a text, the program gets it
    as a file in memory. Its last argument ``--config=`` is the URL of this file, with ``config_query``. If
    the program does not end within ``timeout`` seconds, or the daemon closes the connection, the program is
    killed.
    """
    with _file(job["input"]) as source, _file(job["config"] or "") as config:
        url = f"file:///proc/self/fd/{config}{job['config_query']}"
        command = [*job["command"], *([f"--config={url}"] if job["config"] is not None else [])]
        with _limit(min(job["timeout"], LONGEST)):
            try:
                process = subprocess.Popen(  # noqa: S603 - the administrator's own command, without a shell
                    command,
                    stdin=source,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**_environment(), **job["variables"]},
                    pass_fds=(config,) if job["config"] is not None else (),
                )
            except OSError as error:
                raise RunnerError(f"cannot be run: {error.strerror}") from None
            with process:
                try:
                    output = _output_of(process, connection)
                    return process.wait(), output.decode("utf-8", "replace").strip()
                finally:
                    process.kill()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}


@contextmanager
def _file(text: str) -> Iterator[int]:
    """Yield the descriptor of a file in memory with ``text``; a pipe could block if the text is long."""
    with os.fdopen(os.memfd_create("ringfence"), "w+b") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
        file.flush()
        file.seek(0)
        yield file.fileno()


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise RunnerError in the block when ``seconds`` are over."""

    def end(_: int, __: FrameType | None) -> None:
        raise RunnerError(f"no end within {seconds:.0f} s")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _output_of(process: "subprocess.Popen[bytes]", connection: socket.socket) -> bytes:
    """Wait until a process has ended or closed its output; return the last bytes of its output.

    Processes that it leaves behind are not waited for. Raise RunnerError if the daemon closes the connection.
    """
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    output = b""
    poll = select.poll()
    poll.register(connection, 0)  # POLLHUP, when the other end is closed
    poll.register(process.stdout, select.POLLIN)
    while True:
        ended = process.poll() is not None
        ready = {number for number, _ in poll.poll(0 if ended else _LOOK_EVERY)}
        if connection.fileno() in ready:
            raise RunnerError("the daemon has closed the connection")
        if process.stdout.fileno() in ready:
            part = os.read(process.stdout.fileno(), _CHUNK)
            if not part:
                return output
            output = (output + part)[-MAX_OUTPUT:]
        if ended:  # a pipe holds 64 KiB, so one read has emptied it
            return output


if __name__ == "__main__":
    main()
