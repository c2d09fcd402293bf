"""The program ``cscli`` of a CrowdSec on this host: it makes and removes registrations.

``cscli`` chooses the password and the key and prints them, so no command line has one.
"""

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

from ringfence.errors import SetupError
from ringfence.host.owned_files import opened_parent
from ringfence.host.processes import SECONDS, run_program
from ringfence.values.secret import Secret
from ringfence.values.text import printable

_MOST = 200
"""The maximum number of characters of an error of ``cscli`` that a message has."""
_MACHINE_PASSWORD = re.compile(r"password: ([A-Za-z0-9]{16,256})")
_KEY = re.compile(r"[A-Za-z0-9+/=_-]{16,256}")
_LISTED_AS = {"machine": "machineId", "bouncer": "name"}
_GROUPS = {"machine": "machines", "bouncer": "bouncers"}


class Registration(NamedTuple):
    """A registration of this host at CrowdSec's local API: a ``machine`` or a ``bouncer``, and its name."""

    kind: str
    name: str
    place: str = "CrowdSec"


class Cscli:
    """The program ``cscli`` of a CrowdSec on this host, with the path of its configuration."""

    def __init__(self, program: Path, config: Path) -> None:
        self._program = program
        self._config = config

    def names(self, kind: str) -> frozenset[str]:
        """Return the names of all registrations of ``kind`` (machine, bouncer), or raise SetupError."""
        text = self._run(_GROUPS[kind], "list", "--output", "json")
        try:
            return frozenset(str(row[_LISTED_AS[kind]]) for row in json.loads(text) or [])
        except (ValueError, LookupError, TypeError):
            raise SetupError(f"cscli {_GROUPS[kind]} list: its output cannot be read") from None

    def require_free(self, one: Registration) -> None:
        """Raise SetupError if CrowdSec already has a registration of this kind and name."""
        if one.name in self.names(one.kind):
            raise SetupError(
                f"CrowdSec has a {one.kind} {one.name} already; fix: choose another name with "
                f"--crowdsec-machine, or remove it: {removal(one)}"
            )

    def add(self, one: Registration) -> Secret:
        """Make a registration at CrowdSec; return its password or key. Raise SetupError if that fails."""
        if one.kind == "machine":
            lines = self._run("machines", "add", one.name, "--auto", "--file", "-").split("\n")
            found = next(filter(None, map(_MACHINE_PASSWORD.fullmatch, lines)), None)
            text = found[1] if found else ""
        else:
            text = self._run("bouncers", "add", one.name, "--output", "raw").strip()
        if not _KEY.fullmatch(text):
            raise SetupError(f"cscli {_GROUPS[one.kind]} add: its output cannot be read")
        return Secret(text)

    def remove(self, one: Registration) -> None:
        """Remove a registration from CrowdSec, if it exists. Raise SetupError if that fails."""
        if one.name in self.names(one.kind):
            self._run(_GROUPS[one.kind], "delete", one.name)

    def _run(self, *arguments: str) -> str:
        try:
            done = run_program(str(self._program), "--config", str(self._config), *arguments)
        except (OSError, subprocess.TimeoutExpired) as error:
            why = error.strerror if isinstance(error, OSError) else f"no end after {SECONDS} seconds"
            raise SetupError(f"cscli {arguments[0]} {arguments[1]}: {why}") from None
        if done.returncode:
            why = printable(done.stderr.decode("utf-8", "replace").strip())[:_MOST] or "it failed"
            raise SetupError(f"cscli {arguments[0]} {arguments[1]}: {why}")
        return done.stdout.decode("utf-8", "replace")


def find_cscli(config: Path) -> Cscli | None:
    """Return the ``cscli`` of this host; None without one, or without its configuration file ``config``.

    Raise SetupError if another user than root can change one of both: their commands would run as root.
    """
    program = shutil.which("cscli")
    if program is None or not config.exists():
        return None
    for path in (Path(program), config):
        _require_of_root(path)
    return Cscli(Path(program), config)


def _require_of_root(path: Path) -> None:
    try:
        with opened_parent(path) as (folder, name):
            found = folder.state(name)
            own = folder.user is None and found.st_uid == 0 and not found.st_mode & 0o022
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}") from None
    if not own or not stat.S_ISREG(found.st_mode):
        raise SetupError(
            f"{path} is not root's alone, so it is not run as root; fix: find out who may change it"
        )


def registrations_of(machine: str) -> tuple[Registration, Registration]:
    """Return a host's two registrations at CrowdSec, machine and bouncer, both with the name ``machine``."""
    return Registration("machine", machine), Registration("bouncer", machine)


def removal(one: Registration) -> str:
    """Return the ``cscli`` command that removes a registration."""
    return f"cscli {_GROUPS[one.kind]} delete {one.name}"


def commands_of(machine: str) -> tuple[str, str]:
    """Return the two ``cscli`` commands that register the host ``machine``: they print password and key."""
    return f"cscli machines add {machine} --auto --file -", f"cscli bouncers add {machine}"
