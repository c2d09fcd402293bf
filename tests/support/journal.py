"""A real journal: systemd-journald alone, without systemd, in a folder of the test.

journald has its sockets and its files below /run. In its own mount namespace that is the test's folder, so
the test can write to its socket and read its journal with ``journalctl --directory``. journald takes the
unit of an entry from the sender's control group, so a process that writes as a unit must be in a group of
that name.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.daemon import until

JOURNALD = Path("/lib/systemd/systemd-journald")
_CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_CONFIGURATION = Path("/etc/systemd/journald.conf")
_LAUNCH = 'mount --bind "$1/run" /run && mount --bind "$1/journald.conf" "$3" && exec "$2"'
_SEND = """\
import os, socket, sys
group, folder, name, program, user, *messages = sys.argv[1:]
os.chdir(folder)  # a socket's path has at most 107 bytes
with open(os.path.join(group, "cgroup.procs"), "w") as procs:
    procs.write(str(os.getpid()))
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
    connection.connect(name)
    with open("/proc/self/comm", "w") as comm:
        comm.write(program)
    os.setuid(int(user))
    for message in messages:
        connection.send(bytes.fromhex(message))
    sys.stdin.read()
"""


def cgroups() -> Path | None:
    """Return the folder in which control groups can be made, by journald's own rule, or None."""
    for folder in _CGROUPS:
        if (folder / "cgroup.procs").exists() and os.access(folder, os.W_OK):
            return folder
    return None


def why_no_journald() -> str:
    """Return why no journal can be run here; empty if one can."""
    if os.geteuid():
        return "a journal takes root"
    if not JOURNALD.exists() or shutil.which("journalctl") is None or not _CONFIGURATION.exists():
        return "systemd-journald is in the package systemd"
    return "" if cgroups() else "no control groups of version 2 can be made here"


class Journald:
    """A journal in ``folder`` that runs while the context lasts; it accepts ``burst`` messages per second."""

    def __init__(self, folder: Path, burst: int = 0) -> None:
        self.folder = folder
        self._burst = burst
        self._adopted: list[int] = []
        self._run = folder / "run"
        self._slice = Path()
        self._process: subprocess.Popen[bytes] | None = None
        (self._run / "systemd/journal").mkdir(parents=True)
        (folder / "journald.conf").write_text(
            "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRuntimeMaxUse=64M\n"
            f"RateLimitIntervalSec={'1s' if burst else '0'}\nRateLimitBurst={burst}\n"
        )

    def __enter__(self) -> Self:
        base = cgroups()
        assert base is not None, why_no_journald()
        self._slice = base / f"rf{uuid.uuid4().hex[:12]}.slice"
        self._slice.mkdir()
        launch = ["sh", "-c", _LAUNCH, "sh", str(self.folder), str(JOURNALD), str(_CONFIGURATION)]
        self._process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", *launch])
        try:
            until(self._answers, "the journal")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        for pid in self._adopted:
            with suppress(OSError):  # it has ended
                (self._slice.parent / "cgroup.procs").write_text(str(pid))
        for group, _, _ in os.walk(self._slice, topdown=False):
            Path(group).rmdir()

    @property
    def program(self) -> tuple[str, ...]:
        """The command line with which journalctl reads this journal."""
        return ("journalctl", f"--directory={self._run / 'log/journal'}")

    @property
    def sockets(self) -> Path:
        """The folder with its sockets; on an installed system that is /run/systemd."""
        return self._run / "systemd"

    def path_for(self, folder: Path) -> str:
        """Return a PATH whose journalctl, a program in ``folder``, reads this journal."""
        program = folder / "bin" / "journalctl"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shutil.which("journalctl")} {self.program[1]} "$@"\n')
        program.chmod(0o755)
        return f"{program.parent}:/usr/sbin:/usr/bin:/sbin:/bin"

    def adopt(self, pid: int, unit: str = "asterisk.service") -> None:
        """Assign a process to that unit, as long as the journal runs."""
        group = self._slice / unit
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(pid))
        self._adopted.append(pid)

    def write(self, *lines: bytes, unit: str = "asterisk.service", identifier: str = "asterisk") -> None:
        """Write these lines to syslog like a process of that unit: ``LEVEL[1]: file: message``."""
        name = identifier.encode()
        self._send("dev-log", unit, [b"<133>Nov 20 10:00:00 %b: %b" % (name, line) for line in lines])

    def write_natively(
        self, *entries: bytes, unit: str = "asterisk.service", program: str = "asterisk", user: int = 0
    ) -> None:
        """Write entries in the journal's own protocol, as that program and user; ``unit`` may be a path."""
        self._send("socket", unit, entries, program, user)

    def rotate(self) -> None:
        """Make journald begin a new file."""
        assert self._process is not None
        before = len(list((self._run / "log/journal").glob("*/*.journal")))
        self._process.send_signal(signal.SIGUSR2)
        until(lambda: len(list((self._run / "log/journal").glob("*/*.journal"))) > before, "another file")

    def read(self, *options: str) -> str:
        """Return the output of journalctl."""
        command = [*self.program, "--no-pager", *options]
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
        return done.stdout.decode("utf-8", "replace")

    def _send(
        self, name: str, unit: str, messages: Sequence[bytes], program: str = "asterisk", user: int = 0
    ) -> None:
        group = self._slice / unit
        group.mkdir(parents=True, exist_ok=True)
        folder = str(self._run / "systemd/journal")
        kept = self._burst or len(messages)
        texts = [message.hex() for message in messages]
        command = [sys.executable, "-I", "-c", _SEND, str(group), folder, name, program, str(user), *texts]
        # journald can look up a sender's group only while the sender lives, so the sender waits for journald.
        # Only the sender's entries count: journald's own messages, as those of its start, come at any time.
        with subprocess.Popen(command, stdin=subprocess.PIPE) as sender:
            until(lambda: self._entries(sender.pid) >= min(kept, len(messages)), "the entries")

    def _entries(self, pid: int) -> int:
        """Return the number of entries of one sender."""
        options = ("--quiet", "--output=json", "--output-fields=_PID", f"_PID={pid}")
        return self.read(*options).count("\n")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the journal ended"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            folder = os.open(self._run / "systemd/journal", os.O_PATH)
            try:
                connection.connect(f"/proc/self/fd/{folder}/dev-log")  # a socket's path has at most 107 bytes
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            finally:
                os.close(folder)
        return bool(list((self._run / "log/journal").glob("*/*.journal")))
