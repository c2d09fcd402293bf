"""Runs a command of the administrator with a text on its standard input; returns the end of its output."""

import os
import select
import subprocess
from collections.abc import Mapping, Sequence

MAX_OUTPUT = 300  # bytes
_CHUNK = 64 * 1024
_LOOK_EVERY = 0.05  # seconds: how often to look whether the process has ended


def run(command: Sequence[str], text: bytes, environ: Mapping[str, str] | None = None) -> str:
    """Run a command with ``text`` on its standard input; return the end of its output.

    Raise ValueError if the command cannot be run or fails. If it leaves processes behind that keep its output
    open, do not wait for them. The caller limits the time, and kills the process group afterwards.
    """
    # A pipe would block if the command does not read a long text. This file in memory takes all of it.
    with os.fdopen(os.memfd_create("message"), "w+b") as source:
        source.write(text)
        source.flush()
        source.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 - the administrator's own command, without a shell
                list(command), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ
            )
        except OSError as error:
            raise ValueError(f"{command[0]} cannot be run: {error.strerror}") from None
    with process:
        try:
            output = _output_of(process)
            code = process.wait()
        except BaseException:  # for example the TimeoutError that the caller's handler of SIGALRM raises
            process.kill()
            raise
    words = output.decode("utf-8", "replace").strip()
    if code:
        raise ValueError(f"{command[0]} ended with {code}: {words or 'no reason given'}")
    return words


def _output_of(process: "subprocess.Popen[bytes]") -> bytes:
    """Wait until a process has ended or closed its output; return the last bytes of its output."""
    output = b""
    while process.stdout is not None:
        ended = process.poll() is not None
        if select.select([process.stdout], [], [], 0.0 if ended else _LOOK_EVERY)[0]:
            part = os.read(process.stdout.fileno(), _CHUNK)
            if not part:
                break
            output = (output + part)[-MAX_OUTPUT:]
        if ended:  # a pipe holds 64 KiB, so one read has emptied it
            break
    return output
