"""Joins this host to CrowdSec's local API, so that it shares its bans with other hosts.

The host needs two registrations there: a *machine*, which sends bans with a password, and a *bouncer*, which
reads them with a key. Where the API runs on this host, its program ``cscli`` makes both. Elsewhere an
administrator makes them, and gives the password and the key to setup.

``cscli`` chooses the password and the key and prints them, so no command line has one.
"""

import json
import re
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from ringfence import street
from ringfence.clock import Clock
from ringfence.config.converters import HOOKS, ApiUrl, Name, crosses_in_clear, read_secret
from ringfence.errors import RingfenceError, SetupError
from ringfence.features.setup.journal import Registration
from ringfence.features.setup.texts import HostPaths, appended, crowdsec_text
from ringfence.host.file_changes import FileChange, FileState, file_state
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


@frozen
class Credentials:
    """The password of a machine (sends bans), and the key of a bouncer (reads them), at CrowdSec's API."""

    password: Secret
    key: Secret


@frozen
class Wanted:
    """The wishes of the administrator: the address of the API, the name of this host there, and credentials.

    The files have the password and the key of registrations that exist already. They are None if setup makes
    the registrations, or asks for both.
    """

    url: str
    machine: str
    password_file: Path | None = None
    key_file: Path | None = None

    def require_valid(self) -> None:
        """Raise SetupError without the fleet, or if the configuration would refuse the address or name."""
        if "fleet" not in street.present():
            raise SetupError("--crowdsec: the fleet is not installed")
        for kind, option, text in (
            (ApiUrl | None, "--crowdsec", self.url),
            (Name | None, "--crowdsec-machine", self.machine),
        ):
            try:
                HOOKS[kind](text, None)
            except ValueError as error:
                raise SetupError(f"{option}: {printable(text)} {error}") from None
        if crosses_in_clear(self.url):
            raise SetupError(
                f"--crowdsec: {self.url} must begin with https, because anybody between the hosts could read "
                "the password and invent bans; if a tunnel protects the connection, write [crowdsec] with "
                "allow_http = true into the configuration"
            )

    def credentials(self) -> Credentials | None:
        """Return the credentials in the named files; None without files. Raise SetupError."""
        if self.password_file is None and self.key_file is None:
            return None
        if self.password_file is None or self.key_file is None:
            raise SetupError("--crowdsec-password-file and --crowdsec-key-file are needed both")
        try:
            return Credentials(
                read_secret(self.password_file, "--crowdsec-password-file"),
                read_secret(self.key_file, "--crowdsec-key-file"),
            )
        except ValueError as error:
            raise SetupError(str(error)) from None


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
        """Raise SetupError if CrowdSec has a registration of this kind and name: setup did not make it."""
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

    Raise SetupError if another user than root can change one of both: setup would run their commands as root.
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
            f"{path} is not root's alone, so setup does not use it as root; fix: find out who may change it"
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


def withdraw(registrations: tuple[Registration, ...], config: Path) -> Iterator[str]:
    """Remove this host's registrations at CrowdSec; yield a line for each one that cannot be removed."""
    for one in reversed(registrations):
        why = "cscli is not installed any more"
        try:
            cscli = find_cscli(config)
            if cscli is not None:
                cscli.remove(one)
                continue
        except SetupError as error:
            why = str(error)
        yield f"the {one.kind} {one.name} stays registered at CrowdSec: {why}; fix: {removal(one)}"


@frozen
class Joining:
    """How this host joins CrowdSec's local API at ``url`` under the name ``machine``.

    ``source`` makes the credentials, or has them. It is None if the administrator must enter them at the
    terminal.
    """

    url: str
    machine: str
    paths: HostPaths
    source: Cscli | Credentials | None

    @property
    def steps(self) -> Iterator[str]:
        """The changes that setup will make, as lines for the administrator."""
        if isinstance(self.source, Cscli):
            yield from commands_of(self.machine)
        for path, what in ((self.paths.crowdsec_password, "password"), (self.paths.crowdsec_key, "key")):
            yield f"write the {what} to {path}, which only root and the service can read"
        yield f"prove {self.url} with a decision about an address that nobody has"
        yield f"add [crowdsec] to {self.paths.config}, and restart ringfence"

    @property
    def by_hand(self) -> str:
        """A text: how the administrator registers this host on the host where the API runs."""
        return (
            f"run {' and '.join(commands_of(self.machine))} where CrowdSec's local API runs, write the "
            "password and the key that they print into files, and name these: --crowdsec-password-file, "
            "--crowdsec-key-file"
        )

    def access(self, credentials: Credentials) -> Any:  # noqa: ANN401 - a value of the API's client
        """Return the access (URL, name and credentials) by which the client uses CrowdSec's local API."""
        [api] = street.modules("api")
        return api.Access(self.url, self.machine, lambda: credentials.password, lambda: credentials.key)

    def credential_files(self, credentials: Credentials, group: int) -> Iterator[FileChange]:
        """Yield the file changes that write the credentials; ``group`` (an id) is that of the service."""
        for path, secret, what in (
            (self.paths.crowdsec_password, credentials.password, "the password of this host's machine"),
            (self.paths.crowdsec_key, credentials.key, "the key of this host's bouncer"),
        ):
            after = FileState(f"{secret.reveal()}\n".encode(), 0o640, 0, group)
            yield FileChange(path, file_state(path), after, f"{what} at CrowdSec", secret=True)

    def configuration(self) -> FileChange:
        """Return the file change that adds ``[crowdsec]`` to the present configuration file."""
        path = self.paths.config
        now = file_state(path)
        if now is None:
            raise SetupError(f"{path} is missing; fix: run setup again")
        table = {
            "url": self.url,
            "machine": self.machine,
            "password_file": str(self.paths.crowdsec_password),
            "key_file": str(self.paths.crowdsec_key),
        }
        text = appended(now.content.decode("utf-8", "surrogateescape"), crowdsec_text(table))
        after = FileState(text.encode("utf-8", "surrogateescape"), now.mode, now.uid, now.gid)
        return FileChange(path, now, after, "bans are shared")


def plan_joining(wanted: Wanted, paths: HostPaths, registered: tuple[Registration, ...]) -> Joining | None:
    """Return how this host joins CrowdSec's local API; None if its configuration uses this API already.

    ``registered`` are the registrations that an earlier run made. Raise SetupError if the configuration names
    another API, or if the host's name is taken there.
    """
    wanted.require_valid()
    table = _table(paths.config)
    if table:
        for key, text in (("url", wanted.url), ("machine", wanted.machine)):
            if table.get(key) != text:
                raise SetupError(
                    f"{paths.config} has a table [crowdsec] already, whose {key} is "
                    f"{printable(str(table.get(key)))}, not {text}; fix: remove that table"
                )
        return None
    source: Cscli | Credentials | None = wanted.credentials()
    if source is None:
        source = find_cscli(paths.crowdsec)
        for one in registrations_of(wanted.machine):
            if source is not None and one not in registered:
                source.require_free(one)
    return Joining(wanted.url, wanted.machine, paths, source)


def prove_access(access: Any) -> None:  # noqa: ANN401 - as above
    """Send a test decision to the API, and read it back; raise SetupError if that fails."""
    try:
        for api in street.modules("api"):
            api.Api(access, Clock()).prove()
    except RingfenceError as error:
        raise SetupError(
            f"CrowdSec's local API at {access.url}: {error}; if it runs on another host, register this host "
            "there and name the files: --crowdsec-password-file, --crowdsec-key-file"
        ) from None


def _table(config: Path) -> dict[str, Any]:
    """Return the table ``[crowdsec]`` of the configuration file; {} if it has none."""
    state = file_state(config)
    text = "" if state is None else state.content.decode("utf-8", "surrogateescape")
    try:
        table = tomllib.loads(text).get("crowdsec", {})
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"{config}: {error}") from None
    return table if isinstance(table, dict) else {}
