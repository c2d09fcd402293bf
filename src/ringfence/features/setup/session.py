"""One run of setup on this host: records each change in the journal before it is made, and can restore it."""

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ringfence import CONFIG_VARIABLE, DEFAULT_CONFIG, street
from ringfence.errors import FirewallError, SetupError
from ringfence.features.setup.find import FoundAsterisk, find_asterisk
from ringfence.features.setup.journal import (
    Journal,
    JournalRecord,
    Produced,
    Registration,
    Unit,
    restore_files,
)
from ringfence.features.setup.manager import USER, checked_state
from ringfence.features.setup.other_guards import give_back, other_guards
from ringfence.features.setup.plan import Plan
from ringfence.features.setup.texts import LOGGER, MANAGER, HostPaths
from ringfence.findings import Finding
from ringfence.firewall.cleanup import flush_everything
from ringfence.host.console import Console
from ringfence.host.file_changes import Change, FileChange, file_state, folder_state
from ringfence.host.owned_files import names_in
from ringfence.host.processes import run_program
from ringfence.values.text import printable

# -- enables and starts ringfence's systemd units with ``systemctl``, and restores their state before setup


EARLY, SERVICE = "ringfence-early.service", "ringfence.service"
NAMES = (EARLY, SERVICE)
START = "systemctl enable --now ringfence-early ringfence"
_LINES = 5
"""The number of lines of the service's log in an error message."""


class Systemd:
    """systemd on this host. The folder ``marker`` exists if systemd manages the host (see sd_booted(3))."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    @property
    def runs(self) -> bool:
        """Whether systemd manages this host."""
        return self._marker.is_dir()

    def states(self) -> tuple[Unit, ...]:
        """Return the present state of each of ringfence's systemd units; () without systemd."""
        return tuple(self._state(name) for name in NAMES) if self.runs else ()

    def require_config(self, config: Path) -> None:
        """Raise SetupError if one of the systemd units reads another configuration than ``config``."""
        for name in NAMES if self.runs else ():
            shown = _lines("systemctl", "show", "--property=Environment", "--value", name)
            variables = dict(word.partition("=")[::2] for word in " ".join(shown).split())
            read = variables.get(CONFIG_VARIABLE) or DEFAULT_CONFIG
            if Path(read).resolve() != config.resolve():
                raise SetupError(
                    f"{name} reads {read}, not {config}; fix: ringfence setup --config {read}, or add "
                    f"Environment={CONFIG_VARIABLE}={config.absolute()} to [Service] of both units by: "
                    f"systemctl edit {' '.join(NAMES)}"
                )

    def start(self, *, restart: bool) -> None:
        """Enable and start ringfence's two systemd units. Return when the daemon reports that it is ready.

        With ``restart``, a daemon that runs already is restarted. If the daemon does not start, raise
        SetupError with the last lines of its log.
        """
        active = restart and self._state(SERVICE).active
        problem = self._run("enable", "--now", *NAMES)
        if active and not problem:
            problem = self._run("restart", SERVICE)
        if problem:
            log = _lines(
                "journalctl", "--unit", SERVICE, "--lines", str(_LINES), "--output", "cat", "--no-pager"
            )
            why = "; ".join([problem, *log])
            raise SetupError(f"the service does not start: {why}; see: journalctl -u ringfence")

    def restore(self, units: Sequence[Unit]) -> Iterator[str]:
        """Restore the states that ringfence's systemd units had before setup.

        Stop each unit that was not active before setup, and disable each one that was not enabled. Yield a
        line for each change that fails.
        """
        if not self.runs:
            return
        for unit in reversed(units):
            if not unit.active:
                yield from self._change("stop", unit.name)
            if not unit.enabled:
                yield from self._change("disable", unit.name)
            self._run("reset-failed", unit.name)

    def restart(self) -> Iterator[str]:
        """Restart the daemon by systemd, so that it reads a restored configuration.

        Yield a line if it fails.
        """
        if self.runs:
            yield from self._change("restart", SERVICE)

    def _change(self, verb: str, name: str) -> Iterator[str]:
        """Run ``systemctl VERB NAME``; yield a line with the fix if that fails, and the unit exists."""
        problem = self._run(verb, name)
        if problem and _lines("systemctl", "show", "--property=LoadState", "--value", name) != ["not-found"]:
            yield f"{problem}; fix: systemctl {verb} {name}"

    def _state(self, name: str) -> Unit:
        return Unit(name, not self._run("is-enabled", name), not self._run("is-active", name))

    def _run(self, verb: str, *names: str) -> str:
        """Run ``systemctl VERB NAMES``; return "" if it succeeded, else the reason."""
        try:
            done = run_program("systemctl", "--quiet", verb, *names)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"systemctl {verb}: {error}"
        if not done.returncode:
            return ""
        return printable(done.stderr.decode("utf-8", "replace").strip()) or f"systemctl {verb} failed"


def _lines(*command: str) -> list[str]:
    try:
        done = run_program(*command)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [printable(line) for line in done.stdout.decode("utf-8", "replace").split("\n") if line]


DATABASE = "ringfence.db"
_NO_USER = "There is no manager called "


class SetupSession:
    """One run of setup, which can undo its changes. ``reachable`` returns whether a daemon answers now."""

    def __init__(
        self, paths: HostPaths, journal: Journal, systemd: Systemd, reachable: Callable[[], bool]
    ) -> None:
        self._paths = paths
        self._journal = journal
        self._systemd = systemd
        self._reachable = reachable

    def begin(self, plan: Plan) -> None:
        """Record in the journal that the run starts, and the state of what other programs will change.

        These are the systemd units, and the files that Asterisk and the daemon will write.
        """
        folders = [(self._paths.data, DATABASE)]
        if plan.log is not None:
            folders.append((plan.log.file.parent, plan.log.file.name))
        self._journal.begin(
            [self._produced(folder, prefix) for folder, prefix in folders], self._systemd.states()
        )

    def apply(self, change: Change) -> None:
        """Record a change in the journal, and make it. Raise SetupError if others have changed the file."""
        now = file_state(change.path) if isinstance(change, FileChange) else folder_state(change.path)
        if now != change.before:
            raise SetupError(f"{change.path} was changed by somebody else just now; fix: run setup again")
        self._journal.add(change)
        change.apply()

    def is_new(self, one: Registration) -> bool:
        """Whether neither this run nor one before has recorded a registration."""
        return one not in self._journal.record.registrations

    def record(self, one: Registration) -> None:
        """Record a registration that is about to be made, so that an undo ends it."""
        self._journal.add_registration(one)

    def complete(self) -> None:
        """Record in the journal that the run has ended without an interruption."""
        self._journal.complete()

    def take_back(self) -> Iterator[str]:
        """Restore the host's state before this run of setup, and before interrupted runs that it continued.

        Yield a line for each thing that could not be restored completely.
        """
        yield from self._take_back(self._journal.record.kept)

    def undo(self) -> Iterator[str]:
        """Restore the host's state before the first run of setup; yield lines as :meth:`take_back` does."""
        yield from self._take_back(None)

    def _take_back(self, kept: tuple[int, int] | None) -> Iterator[str]:
        record = self._journal.record
        if record == JournalRecord():
            return  # the run did not begin: nothing was changed, and the state of the units is unknown
        whole = kept is None
        made, registered = kept or (0, 0)
        changes = record.changes[made:]
        units = record.units if whole else ()
        was_active = any(unit.active for unit in units if unit.name == SERVICE)
        others = other_guards(self._paths.etc)
        yield from give_back(others, changes)
        if whole:
            yield from self._systemd.restore(units)
            if not was_active:
                yield from self._remove_rules()
        disabling = {other.file for other in others}
        rest = tuple(change for change in changes if change.path not in disabling)
        yield from restore_files(JournalRecord(rest, record.produced if whole else (), units))
        if rest:
            yield from _reload_restored()
        if was_active or (not whole and changes and self._systemd.runs):
            yield from self._systemd.restart()
        for withdraw in street.functions("setup", "withdraw"):
            yield from withdraw(record.registrations[registered:], self._paths.etc)
        if whole:
            self._journal.remove()
        else:
            self._journal.keep()

    def _remove_rules(self) -> Iterator[str]:
        """Remove ringfence's rules and bans from the kernel, unless a daemon still runs.

        Such a daemon was started by hand, or systemd did not stop it. Yield a line if rules and bans stay.
        """
        if self._reachable():
            yield "a ringfence still runs; fix: stop it, then run: ringfence off"
            return
        try:
            flush_everything()
        except FirewallError as error:
            yield f"the rules of ringfence stay in the kernel until a reboot: {error}"

    @staticmethod
    def _produced(folder: Path, prefix: str) -> Produced:
        try:
            names = tuple(name for name in names_in(folder) if name.startswith(prefix))
        except FileNotFoundError:
            return Produced(folder, prefix, existed=False, names=())
        except OSError as error:
            raise SetupError(f"cannot read {folder}: {error.strerror}") from None
        return Produced(folder, prefix, existed=True, names=names)


class Part(Protocol):
    """A feature's part of one run of setup (``street.py``)."""

    def plan(self, config: Path, etc: Path, registered: Iterable[Sequence[str]], *, asks: bool) -> bool:
        """Decide what to change, and return whether anything is; raise SetupError if that is impossible.

        ``config`` is the daemon's configuration, and ``etc`` is /etc. ``registered`` are the registrations
        that setup has made. ``asks``: the part can ask the administrator.
        """

    def shown(self) -> Iterator[str]:
        """Yield the lines about the changes, for the administrator."""

    def make(self, run: SetupSession, group: int) -> None:
        """Make the changes by ``run``, and test them; raise SetupError if one fails.

        ``group`` is the group id of the service.
        """

    def proof(self, path: Path) -> Finding:
        """Return whether the part works in the daemon that answers at the control socket ``path``."""


def require_valid_files(asterisk: FoundAsterisk) -> None:
    """Raise SetupError if Asterisk would refuse manager.conf or logger.conf at the next reload.

    Asterisk would then lose the settings of the refused file: AMI, or the log channels.
    """
    for name in (MANAGER, LOGGER):
        checked_state(asterisk.files, name, asterisk.reader)


def reload_asterisk(console: Console) -> None:
    """Make Asterisk read its manager users and log channels again; raise SetupError if it does not answer."""
    for module in ("manager", "logger"):
        if console.show(f"{module} reload") is None:
            raise SetupError(f"Asterisk does not reload its {module}: {console.problem or 'unknown command'}")


def require_manager_user(console: Console) -> None:
    """Raise SetupError unless Asterisk now knows the manager user."""
    shown = console.show(f"manager show user {USER}") or ""
    if shown.startswith(_NO_USER) or f"username: {USER}" not in shown:
        raise SetupError(
            f"Asterisk did not accept the manager user {USER}; its log has the reason (Unable to open AMI "
            "configuration, if it may not read a file)"
        )


def _reload_restored() -> Iterator[str]:
    """Make Asterisk read its restored files again. If that fails, yield a line with the reason."""
    try:
        asterisk = find_asterisk()
        reload_asterisk(asterisk.console)
    except SetupError as error:
        yield f"Asterisk reads the restored files at its next start ({error})"
