"""Asterisk's own console, asked as an administrator would: ``asterisk -rx COMMAND``.

It tells what is in force, where the files tell what was written. Root may use it, and whoever may write to
Asterisk's control socket. Only commands that show something are ever given. An answer takes its time from an
Asterisk that hangs, and may be as long as the dialplan of a large company: both are bounded.
"""

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from threading import Timer
from typing import Protocol

PROGRAM = "asterisk"
PATIENCE = 5.0
"""How long an answer may take (seconds)."""
MOST_BYTES = 4 * 1024 * 1024

_PLACES = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin"
_NO_COMMAND = "No such command '"
_FAILED = "Command '"


class Console(Protocol):
    """Something that answers a command of Asterisk's console."""

    def show(self, what: str) -> str | None:
        """Give what ``what`` shows; None where there is no such command here, or no answer."""


class AsteriskConsole:
    """The console of the Asterisk that runs here. ``lack`` says why it cannot be asked, once it is known."""

    def __init__(self, program: str | None = None, patience: float = PATIENCE) -> None:
        self._program = program or shutil.which(PROGRAM) or shutil.which(PROGRAM, path=_PLACES)
        self._patience = patience
        self.lack = "" if self._program else f"there is no program {PROGRAM} here"

    def show(self, what: str) -> str | None:
        """Give what a command shows; None where this Asterisk does not know it, or nobody answers.

        Who does not answer once is not asked again: each time would take as long.
        """
        if self.lack or self._program is None:
            return None
        try:
            text, code = _answer(self._program, what, self._patience)
        except OSError as error:
            self.lack = f"{self._program} cannot be run: {error.strerror}"
            return None
        if code < 0:
            self.lack = f"no answer within {self._patience:.0f} s, or one of more than {MOST_BYTES} bytes"
        elif code and not (
            text.startswith(_NO_COMMAND) or _FAILED in text
        ):  # with 16 and 22 those end with 0
            self.lack = "asterisk -rx is not let in (be root), or no Asterisk runs here"
        elif not text.startswith(_NO_COMMAND):
            return text
        return None


def _answer(program: str, command: str, patience: float) -> tuple[str, int]:
    """Run the command; give what it printed and its exit code, which is negative where it was ended."""
    with subprocess.Popen(  # noqa: S603 - the administrator's own program, and commands of ours
        [program, "-rx", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        overdue = Timer(patience, _end, [process])
        overdue.start()
        try:
            data = process.stdout.read(MOST_BYTES + 1) if process.stdout else b""
            if len(data) > MOST_BYTES:
                _end(process)
            process.wait()
        finally:
            overdue.cancel()
    return data.decode("utf-8", "replace"), process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program, and what it has started: where it is a script, that would hold the answer open."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
