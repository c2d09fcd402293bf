"""Programs of the administrator, run as children with a text on standard input and a bounded output."""

import os
import select
import subprocess
from collections.abc import Mapping, Sequence

MAX_OUTPUT = 300
_CHUNK = 64 * 1024
_LOOK_EVERY = 0.05  # seconds


def run(command: Sequence[str], text: bytes, environ: Mapping[str, str] | None = None) -> str:
    """Run a command and return the end of its output. Raise ValueError if it fails.

    It ends with the command itself. Processes that the command leaves behind may keep its output open. The
    caller bounds the time, and ends the process group at its end.
    """
    with os.fdopen(os.memfd_create("message"), "w+b") as source:  # unlike a pipe it takes all at once
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
        except BaseException:  # the time is over
            process.kill()
            raise
    words = output.decode("utf-8", "replace").strip()
    if code:
        raise ValueError(f"{command[0]} ended with {code}: {words or 'no reason given'}")
    return words


def _output_of(process: "subprocess.Popen[bytes]") -> bytes:
    """Return the end of the output of a process, when it has ended or has closed its output."""
    output = b""
    while process.stdout is not None:
        ended = process.poll() is not None
        if select.select([process.stdout], [], [], 0.0 if ended else _LOOK_EVERY)[0]:
            part = os.read(process.stdout.fileno(), _CHUNK)
            if not part:
                break
            output = (output + part)[-MAX_OUTPUT:]
        if ended:  # the last part was everything: a pipe holds 64 KiB
            break
    return output
