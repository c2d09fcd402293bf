"""fail2ban compared with ringfence: the same attacks on the same Asterisk, with its best settings.

Debian's package is unpacked into a folder and run from there, so that a bench neither installs nor starts
a service on this machine. Its settings: maxretry 5, findtime and bantime as ringfence's, all ports and
protocols, its fastest backend (pyinotify), and a log with one line for each guess.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.lab import Lab

_JAIL = """
[DEFAULT]
backend = pyinotify

[asterisk]
enabled = true
filter = asterisk
action = {action}
logpath = {log}
maxretry = {maxretry}
findtime = 600
bantime = {bantime}
usedns = no
"""
_MAIN = """
[Definition]
loglevel = INFO
logtarget = {folder}/fail2ban.log
syslogsocket = auto
socket = {folder}/fail2ban.sock
pidfile = {folder}/fail2ban.pid
dbfile = {database}
dbpurgeage = 1d
dbmaxmatches = 10
allowipv6 = auto
"""
_READ_WITHIN = 120.0
_ACTION = "iptables-allports[name=asterisk, protocol=all, chain=INPUT]"
_HOUR = 3_600


class Fail2banError(Exception):
    """fail2ban is missing or does not start; the text has the reason."""


class Fail2ban:
    """fail2ban as the guard of an Asterisk, while the context lasts."""

    def __init__(
        self,
        lab: Lab,
        root: Path,
        folder: Path,
        maxretry: int = 5,
        log: str = "messages",
        *,
        action: str = _ACTION,
        bantime: int = _HOUR,
        database: str = "None",
    ) -> None:
        """Prepare it. ``log`` is the log of Asterisk that it reads; ``ringfence`` also has security lines.

        ``database`` is the path of its bans; without one it forgets them at its end.
        """
        self._lab = lab
        self._root = root
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        etc = folder / "etc"
        shutil.copytree(root / "etc/fail2ban", etc)
        (etc / "fail2ban.local").write_text(_MAIN.format(folder=folder, database=database), "utf-8")
        (etc / "jail.local").write_text(
            _JAIL.format(log=lab.asterisk.logs / log, maxretry=maxretry, action=action, bantime=bantime),
            "utf-8",
        )
        shutil.rmtree(etc / "jail.d")

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._lab.network.in_pbx(*self._command("server"), "-f", "start"),
            env=self._environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while "asterisk" not in self._client("status"):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise Fail2banError(f"fail2ban does not start: {self.log[-500:]}")
            time.sleep(0.2)
        time.sleep(1)  # it begins to watch the log a moment later
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def settle(self) -> None:
        """Wait until it has read its whole log, so that one trial does not affect the next."""
        size, deadline = -1, time.monotonic() + _READ_WITHIN
        while size != (size := len(self.log)):
            if time.monotonic() > deadline:
                raise Fail2banError(f"fail2ban still reads Asterisk's log after {_READ_WITHIN:.0f} s")
            time.sleep(1.5)

    @property
    def log(self) -> str:
        """The log of fail2ban."""
        path = self._folder / "fail2ban.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def banned(self) -> set[str]:
        """Return the addresses that it has banned and not unbanned."""
        return set(self._client("get", "asterisk", "banip").split())

    @property
    def pid(self) -> int:
        """The server's process."""
        if self._process is None:
            raise Fail2banError("fail2ban does not run")
        return self._process.pid

    def _client(self, *arguments: str) -> str:
        command = [*self._command("client"), *arguments]
        return subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, check=False
        ).stdout

    def _command(self, part: str) -> list[str]:
        program = self._root / "usr/bin" / f"fail2ban-{part}"
        etc, run = self._folder / "etc", self._folder
        return [
            "/usr/bin/python3", str(program), "-c", str(etc),
            "-s", str(run / "fail2ban.sock"), "-p", str(run / "fail2ban.pid"),
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self._root / "usr/lib/python3/dist-packages")}
