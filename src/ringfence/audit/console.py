"""Asterisk's console, used as an administrator does: ``asterisk -rx COMMAND``.

The console shows the settings in force; Asterisk may not have reloaded its files since they were changed.
Root can use it, and any user who may write to Asterisk's control socket. Only commands that display something
are executed. Answers are limited in time and length: Asterisk may hang, and the dialplan of a large company
is long.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from threading import Timer
from typing import Protocol

PROGRAM = "asterisk"
TIMEOUT = 5.0
"""The time limit for an answer in seconds."""
MAX_BYTES = 4 * 1024 * 1024

_PROGRAM_PATH = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin"
NO_COMMAND = "No such command '"
_FAILED = "Command '"


class Console(Protocol):
    """An object that answers commands of Asterisk's console."""

    def show(self, what: str) -> str | None:
        """Return the output of the command ``what``.

        Return None if Asterisk does not know the command or does not answer.
        """


class AsteriskConsole:
    """The console of the Asterisk on this host.

    ``program`` is the path of the program ``asterisk``, or the beginning of a command line that runs it: with
    options, or through another program such as ``nsenter``. ``timeout`` is the limit for one answer in
    seconds. ``problem`` is why the console cannot be used; "" until a problem is known.
    """

    def __init__(self, program: str | Sequence[str] | None = None, timeout: float = TIMEOUT) -> None:
        found = program or shutil.which(PROGRAM) or shutil.which(PROGRAM, path=_PROGRAM_PATH) or ()
        self._program = (found,) if isinstance(found, str) else tuple(found)
        self._timeout = timeout
        self.problem = "" if self._program else f"the program {PROGRAM} is not installed"

    def show(self, what: str) -> str | None:
        """Return the output of the command ``what``; None if Asterisk does not know it or does not answer.

        After a problem, such as a timeout, no further command is executed, because each would fail in the
        same way.
        """
        if self.problem:
            return None
        try:
            text, code = _answer(self._program, what, self._timeout)
        except OSError as error:
            self.problem = f"{self._program[0]} cannot be run: {error.strerror}"
            return None
        if code < 0:
            self.problem = f"no answer within {self._timeout:.0f} s, or one of more than {MAX_BYTES} bytes"
        elif code and not (
            text.startswith(NO_COMMAND) or _FAILED in text
        ):  # Asterisk itself answered (unknown or failed command), so the console works
            self.problem = "asterisk -rx got no access (fix: run this as root), or Asterisk is not running"
        elif not text.startswith(NO_COMMAND):
            return text
        return None


def _answer(program: Sequence[str], command: str, timeout: float) -> tuple[str, int]:
    """Run a command on the console; return its output and exit code.

    The code is negative if the program was killed, because its answer took too long or was too long.
    """
    with subprocess.Popen(  # noqa: S603 - the administrator's own program, and commands of ours
        [*program, "-rx", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        timer = Timer(timeout, _kill, [process])
        timer.start()
        try:
            data = process.stdout.read(MAX_BYTES + 1) if process.stdout else b""
            if len(data) > MAX_BYTES:
                _kill(process)
            process.wait()
        finally:
            timer.cancel()
    return data.decode("utf-8", "replace"), process.returncode


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the program and its children.

    If the program is a script, a child that lives on would keep the pipe open.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
