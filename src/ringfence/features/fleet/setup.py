"""The fleet's part of ``ringfence setup``: it joins this host to CrowdSec's local API, to share its bans.

The host needs two registrations there: a *machine*, which sends bans with a password, and a *bouncer*, which
reads them with a key. Where the API runs on this host, its program ``cscli`` makes both. Elsewhere an
administrator makes them, and gives the password and the key to setup.
"""

import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import typer
from attrs import define

from ringfence import control
from ringfence.cli.common import settings_from
from ringfence.cli.output import echo_findings
from ringfence.clock import Clock
from ringfence.config import loader
from ringfence.config.converters import read_secret, toml_of
from ringfence.errors import RingfenceError, SetupError
from ringfence.features.fleet.api import Api
from ringfence.features.fleet.cscli import (
    Cscli,
    Registration,
    commands_of,
    find_cscli,
    registrations_of,
    removal,
)
from ringfence.features.fleet.settings import Access, CrowdsecSettings
from ringfence.findings import Finding
from ringfence.host.file_changes import FileChange, FileState, file_state
from ringfence.values.secret import Secret
from ringfence.values.text import printable

SETTLE = 10.0
"""Seconds to wait until the daemon reaches the API both ways. Usually this takes less than a second."""
_PAUSE = 0.05


def withdraw(registrations: Sequence[Sequence[str]], etc: Path) -> Iterator[str]:
    """Remove this host's registrations at CrowdSec; yield a line for each one that cannot be removed.

    ``registrations`` are all that setup made, and ``etc`` is /etc.
    """
    for one in (Registration(*each) for each in reversed(registrations)):
        why = "cscli is not installed any more"
        try:
            cscli = find_cscli(_config_in(etc))
            if cscli is not None:
                cscli.remove(one)
                continue
        except SetupError as error:
            why = str(error)
        yield f"the {one.kind} {one.name} stays registered at CrowdSec: {why}; fix: {removal(one)}"


class Run(Protocol):
    """The run of setup. It records each change before it is made, so that an undo can take it back."""

    def apply(self, change: FileChange) -> None:
        """Record a change of a file, so that an undo can take it back, and make it."""

    def is_new(self, one: Registration) -> bool:
        """Whether neither this run nor one before has recorded a registration."""

    def record(self, one: Registration) -> None:
        """Record a registration that is about to be made."""


Credentials: TypeAlias = tuple[Secret, Secret]
"""The password of a machine (sends bans), and the key of a bouncer (reads them), at CrowdSec's API."""


@define
class Joining:
    """How this host joins CrowdSec's local API at ``url`` under the name ``machine``.

    The files have the password and the key of registrations that exist already. They are None if setup makes
    the registrations, or asks for both.

    :meth:`plan` sets the rest. ``joins``: the configuration does not use the API yet. ``source`` makes the
    credentials, or has them. It is None if the administrator must enter them at the terminal. ``config`` is
    the daemon's configuration, and ``etc`` is /etc.
    """

    url: str
    machine: str
    password_file: Path | None = None
    key_file: Path | None = None
    joins: bool = False
    source: Cscli | Credentials | None = None
    config: Path = Path()
    etc: Path = Path()

    def plan(self, config: Path, etc: Path, registered: Iterable[Sequence[str]], *, asks: bool) -> bool:
        """Decide how this host joins the API; return False if its configuration uses this API already.

        ``registered`` are the registrations that an earlier run made. ``asks``: the administrator can be
        asked. Raise ConfigError if the configuration would refuse the address or the name, SetupError if it
        names another API, or if the name is taken there.
        """
        self.config, self.etc = config, etc
        if table := _table(config):
            for key, text in (("url", self.url), ("machine", self.machine)):
                # A slash at the end of a URL makes no difference, and a machine's name cannot have one.
                if str(table.get(key)).rstrip("/") != text.rstrip("/"):
                    raise SetupError(
                        f"{config} has a table [crowdsec] already, whose {key} is "
                        f"{printable(str(table.get(key)))}, not {text}; fix: remove that table"
                    )
            return False
        loader.parse({"crowdsec": self._keys}, f"{self.url}, as {self.machine}", {}, secrets=False)
        self.joins = True
        self.source = self._credentials()
        if self.source is None and (cscli := find_cscli(_config_in(etc))):
            self.source = cscli
            for one in registrations_of(self.machine):
                if one not in registered:
                    cscli.require_free(one)
        if self.source is None and not asks:
            raise SetupError(
                f"no cscli is on this host; fix: run {' and '.join(commands_of(self.machine))} where "
                "CrowdSec's local API runs, write the password and the key that they print into files, and "
                "name these: --crowdsec-password-file, --crowdsec-key-file"
            )
        return True

    def shown(self) -> Iterator[str]:
        """Yield the lines about the changes, for the administrator."""
        if not self.joins:
            return
        commands = [f"  {command}" for command in commands_of(self.machine)]
        if self.source is None:
            yield (
                "This host cannot register itself. Run these where CrowdSec's local API runs; they print the "
                "password and the key:"
            )
            yield from commands
        yield "To share bans:"
        if isinstance(self.source, Cscli):
            yield from commands
        for path, what in zip(self._files, ("password", "key"), strict=True):
            yield f"  write the {what} to {path}, which only root and the service can read"
        yield f"  prove {self.url} with a decision about an address that nobody has"
        yield f"  add [crowdsec] to {self.config}, and restart ringfence"

    def make(self, run: Run, group: int) -> None:
        """Join the API, or test the configured access if the host has joined. Raise SetupError on failure.

        ``group`` is the group id of the service, which reads the credentials.
        """
        if self.joins:
            known = self._known(run)
            access = Access(self.url, self.machine, lambda: known[0], lambda: known[1])
            for change in self._credential_files(known, group):
                run.apply(change)
        else:
            sharing = settings_from(self.config).of(CrowdsecSettings).sharing
            if sharing is None:
                raise SetupError(f"[crowdsec] of {self.config} is not in force")
            access = sharing.access
        prove_access(access)
        text = f"{access.url} stores and returns decisions of {access.machine}"
        echo_findings(Finding(True, "crowdsec", text))
        if self.joins:
            run.apply(self._configuration())

    def proof(self, path: Path, wait: float = SETTLE) -> Finding:
        """Wait at most ``wait`` seconds until the daemon reaches the API both ways; return the finding.

        ``path`` is the control socket.
        """
        deadline = time.monotonic() + wait
        while True:
            report: dict[str, Any] = control.ask(path, "fleet")
            ways = [report[name] for name in ("push", "pull")] if report else []
            if ways and all(way["last"] is not None for way in ways):
                return Finding(True, "fleet", f"the daemon sends to {report['url']}, and reads from it")
            if time.monotonic() >= deadline:
                why = "; ".join(way["problem"] for way in ways if way["problem"]) or "no answer yet"
                return Finding(False, "fleet", f"{why}; see: ringfence fleet status")
            time.sleep(_PAUSE)

    @property
    def _files(self) -> tuple[Path, Path]:
        """The files with the password and the key, which setup writes."""
        return self.etc / "ringfence/crowdsec.password", self.etc / "ringfence/crowdsec.key"

    @property
    def _keys(self) -> dict[str, str]:
        """The table ``[crowdsec]`` that setup adds to the configuration."""
        password, key = map(str, self._files)
        return {"url": self.url, "machine": self.machine, "password_file": password, "key_file": key}

    def _credentials(self) -> Credentials | None:
        """Return the credentials in the named files; None without files; SetupError if one is unusable."""
        if self.password_file is None and self.key_file is None:
            return None
        if self.password_file is None or self.key_file is None:
            raise SetupError("--crowdsec-password-file and --crowdsec-key-file are needed both")
        try:
            return (
                read_secret(self.password_file, "--crowdsec-password-file"),
                read_secret(self.key_file, "--crowdsec-key-file"),
            )
        except ValueError as error:
            raise SetupError(str(error)) from None

    def _known(self, run: Run) -> Credentials:
        """Return the credentials: from files, from registrations that are made now, or from the terminal.

        A registration of an interrupted run is made again, because its password is lost. Raise SetupError if
        somebody else has made one of this name.
        """
        if self.source is None:
            return (
                Secret(typer.prompt("The password that the first command printed", hide_input=True)),
                Secret(typer.prompt("The key that the second command printed", hide_input=True)),
            )
        if not isinstance(self.source, Cscli):
            return self.source
        machine, bouncer = registrations_of(self.machine)
        return self._registered(self.source, run, machine), self._registered(self.source, run, bouncer)

    @staticmethod
    def _registered(cscli: Cscli, run: Run, one: Registration) -> Secret:
        if run.is_new(one):
            cscli.require_free(one)
            run.record(one)
        else:
            cscli.remove(one)
        return cscli.add(one)

    def _credential_files(self, known: Credentials, group: int) -> Iterator[FileChange]:
        """Yield the file changes that write the credentials; ``group`` (an id) is that of the service."""
        texts = "the password of this host's machine", "the key of this host's bouncer"
        for path, secret, what in zip(self._files, known, texts, strict=True):
            after = FileState(f"{secret.reveal()}\n".encode(), 0o640, 0, group)
            yield FileChange(path, file_state(path), after, f"{what} at CrowdSec", secret=True)

    def _configuration(self) -> FileChange:
        """Return the change that adds ``[crowdsec]`` to the configuration file; SetupError without a file."""
        now = file_state(self.config)
        if now is None:
            raise SetupError(f"{self.config} is missing; fix: run setup again")
        rows = [f"{key} = {toml_of(value)}\n" for key, value in self._keys.items()]
        text = "".join(["\n# Bans are shared with other hosts: docs/fleet.md\n[crowdsec]\n", *rows])
        end = b"" if not now.content or now.content.endswith(b"\n") else b"\n"
        after = FileState(now.content + end + text.encode(), now.mode, now.uid, now.gid)
        return FileChange(self.config, now, after, "bans are shared")


def prove_access(access: Access) -> None:
    """Send a test decision to the API, and read it back; raise SetupError if that fails."""
    try:
        Api(access, Clock()).prove()
    except RingfenceError as error:
        raise SetupError(
            f"CrowdSec's local API at {access.url}: {error}; if it runs on another host, register this host "
            "there and name the files: --crowdsec-password-file, --crowdsec-key-file"
        ) from None


def _config_in(etc: Path) -> Path:
    """Return the path of CrowdSec's configuration; ``etc`` is /etc."""
    return etc / "crowdsec/config.yaml"


def _table(config: Path) -> dict[str, Any]:
    """Return the table ``[crowdsec]`` of the configuration file; {} if none. Raise SetupError if invalid."""
    state = file_state(config)
    text = "" if state is None else state.content.decode("utf-8", "surrogateescape")
    try:
        table = tomllib.loads(text).get("crowdsec", {})
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"{config}: {error}") from None
    return table if isinstance(table, dict) else {}
