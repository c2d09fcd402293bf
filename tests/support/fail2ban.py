"""A real fail2ban, run from its unpacked packages, with all its files in the folder of a test.

Nothing is installed, and the unpacked tree is only read. fail2ban changes the firewall of the network
namespace in which it is started.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.support.asterisk import DEFAULT_LAB
from tests.support.daemon import until

PYTHON = "/usr/bin/python3"
_MAIN = """
[DEFAULT]
loglevel = INFO
logtarget = {folder}/fail2ban.log
dbfile = {folder}/fail2ban.sqlite3
"""


def tree() -> Path:
    """Return the folder of the unpacked fail2ban, which may not exist yet."""
    return Path(os.environ.get("RINGFENCE_LAB", DEFAULT_LAB), "fail2ban")


def why_no_fail2ban() -> str:
    """Return why fail2ban cannot be run here; empty if it can. Its server also needs root."""
    exists = (tree() / "usr/bin/fail2ban-server").exists()
    return "" if exists else f"`make lab` unpacks it into {tree()}"


def environment() -> dict[str, str]:
    """Return the environment in which the system's Python finds fail2ban and writes nothing to its tree."""
    packages = str(tree() / "usr/lib/python3/dist-packages")
    return {**os.environ, "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}


def configure(etc: Path, files: Mapping[str, str]) -> None:
    """Write Debian's configuration of fail2ban into ``etc``, with these files in place of its ``jail.d``."""
    shutil.copytree(tree() / "etc/fail2ban", etc, dirs_exist_ok=True)
    shutil.rmtree(etc / "jail.d")
    (etc / "jail.d").mkdir()
    for name, text in files.items():
        (etc / name).parent.mkdir(exist_ok=True)
        (etc / name).write_text(text, "utf-8")


def install_client(folder: Path) -> None:
    """Write a program ``fail2ban-client`` into ``folder``, which runs the real one from its unpacked tree."""
    program = folder / "fail2ban-client"
    packages = environment()["PYTHONPATH"]
    client = tree() / "usr/bin/fail2ban-client"
    program.write_text(
        f'#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH={packages} exec {PYTHON} {client} "$@"\n', "utf-8"
    )
    program.chmod(0o755)


class Fail2ban:
    """A separate fail2ban: ``with Fail2ban(tmp_path, {"jail.local": …}) as fail2ban: …`` runs its server.

    The configuration is Debian's with these files added, except that ``jail.d`` has no other files.
    """

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        self.etc = folder / "etc"
        self.database = folder / "fail2ban.sqlite3"
        configure(self.etc, {"fail2ban.local": _MAIN.format(folder=folder), **files})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self.folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command("server"), "-f", "start"],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            until(lambda: self.answers or not self.running, "fail2ban's server", pause=0.2)
            assert self.answers, (self.folder / "server.log").read_text("utf-8", "replace")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    @property
    def running(self) -> bool:
        """Whether the server's process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def answers(self) -> bool:
        """Whether the server answers on its socket."""
        return self.client("ping").returncode == 0

    def client(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run fail2ban-client, and return the completed process."""
        return subprocess.run(
            [*self._command("client"), *arguments],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _command(self, part: str) -> list[str]:
        return [
            PYTHON,
            str(tree() / f"usr/bin/fail2ban-{part}"),
            *("-c", str(self.etc)),
            *("-s", str(self.folder / "fail2ban.sock")),
            *("-p", str(self.folder / "fail2ban.pid")),
        ]
