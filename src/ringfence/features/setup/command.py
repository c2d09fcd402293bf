"""``ringfence setup``: connect ringfence to the Asterisk of this host and test this, or undo the changes."""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from ringfence.cli.common import DEFAULT_CONFIG, ConfigOption, settings_from
from ringfence.cli.options import read_options, with_options
from ringfence.cli.output import echo, echo_document, echo_findings, echo_stderr, errors_reported
from ringfence.errors import ConfigError, Exit, OutputError, RingfenceError, SetupError
from ringfence.features.setup.find import Found, FoundAsterisk, find, found_lines
from ringfence.features.setup.journal import JournalRecord, open_journal, read_journal
from ringfence.features.setup.manager import text_of
from ringfence.features.setup.plan import Plan, ami_host, plan
from ringfence.features.setup.proof import (
    LoginTarget,
    ManagerTarget,
    SipListener,
    failed_login,
    failed_manager_login,
    guest_lines,
    is_reachable,
    prove,
    targets_of,
    wait_for_sources,
    why_another_guard_stays,
)
from ringfence.features.setup.session import (
    DATABASE,
    SERVICE,
    START,
    Part,
    SetupSession,
    Systemd,
    reload_asterisk,
    require_manager_user,
    require_valid_files,
)
from ringfence.features.setup.texts import HostPaths, is_untouched
from ringfence.findings import Finding
from ringfence.guard.process import configure_logging
from ringfence.host.file_changes import FileChange, FileState
from ringfence.host.owned_files import exists

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the changes, and make none.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Make the changes without a question.")]
UndoOption = Annotated[
    bool, typer.Option("--undo", help="Restore what setup has changed, stop ringfence, and remove its data.")
]


@with_options
def setup(
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    undo: UndoOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    **options: Any,  # noqa: ANN401 - the values of options that features bring
) -> None:
    """Connect ringfence to the local Asterisk, start ringfence, and test it with a harmless failed login."""
    parts = [part for part in read_options("setup", options) if part is not None]
    if undo and parts:
        raise typer.BadParameter("it takes back everything, what features add too", param_hint="--undo")
    with errors_reported():
        run = SetupRun(HostPaths(config=config), dry_run=dry_run, yes=yes, parts=parts)
        right = run.undo() if undo else run.setup()
    if not right:
        raise typer.Exit(Exit.PROBLEM)


# -- the steps of ``ringfence setup``: show the changes, ask, make them, and test the result; or undo them
#
# The test is a harmless failed login, which every source of ringfence must report.


_INDENT = 4
_SIP_PORT = 5060
_UNDO_AGAIN = "fix this, then run: ringfence setup --undo"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a run: for Ctrl-C, for ``kill``, and for a lost SSH connection."""


class SetupRun:
    """One run of ``ringfence setup``. Its public methods return whether everything succeeded.

    ``dry_run``: changes are shown and not made. ``yes``: changes are made without a question. ``parts`` are
    what features do in this run.
    """

    def __init__(self, paths: HostPaths, *, dry_run: bool, yes: bool, parts: Sequence[Part] = ()) -> None:
        self._paths = paths
        self._parts = parts
        self._dry_run = dry_run
        self._yes = yes
        self._systemd = Systemd(paths.systemd)
        configure_logging(logging.CRITICAL)  # the command prints the results itself

    def setup(self) -> bool:
        """Show the changes, make them if the administrator agrees, and test the result by a failed login.

        If an error or a signal ends the run, the state before the run is restored. If only the test fails,
        the changes stay, and False is returned. Return True if nothing was to be changed.
        """
        if exists(self._paths.config):
            settings_from(self._paths.config)  # raises ConfigError if the configuration is invalid
        _require_root()
        self._systemd.require_config(self._paths.config)
        record = read_journal(self._paths.state)
        found = find(self._paths)
        planned = plan(found, self._paths, _last_written(record))
        asks = self._dry_run or not self._yes
        changed = [
            part.plan(self._paths.config, self._paths.etc, record.registrations, asks=asks)
            for part in self._parts
        ]
        echo(*found_lines(found))
        if self._is_reachable():  # an earlier run has started the daemon
            echo(*guest_lines(settings_from(self._paths.config).control.socket))
        if record.changes and not record.complete:
            echo("An earlier setup was interrupted: this run goes on.")
        self._show(found, planned, more=any(changed))
        if self._dry_run:
            return True
        if not self._yes and not typer.confirm("Make these changes?"):
            echo("Nothing was changed.")
            return True
        with ExitStack() as stack:
            with _signals_wait():  # one that kills the run here would leave the folder of an empty journal
                journal = stack.enter_context(open_journal(self._paths.state))
                session = SetupSession(self._paths, journal, self._systemd, self._is_reachable)
                stack.enter_context(_taken_back_on_error(session))
            session.begin(planned)
            for change in planned.changes:
                session.apply(change)
            for part in self._parts:
                part.make(session, found.owner.gid)
            self._activate(found.asterisk, planned, restart=bool(planned.changes) or any(changed))
            right = self._prove(session, found, planned)
            session.complete()
        return right

    def undo(self) -> bool:
        """Restore the files, folders and systemd units that setup has changed, and end its registrations.

        Ask first, unless the administrator answered with ``--yes``. Return False if something could not be
        undone, which is then printed; True otherwise, also if nothing had to be or should be undone.
        """
        _require_root()
        record = read_journal(self._paths.state)
        if record == JournalRecord():
            if self._paths.state.exists() and not self._dry_run:
                # An earlier run was killed before its first change. It left the folder of an empty journal.
                # Opening and closing this journal removes the folder.
                with open_journal(self._paths.state):
                    pass
            echo("There is nothing to undo: setup has changed nothing on this host.")
            return True
        paths = list(dict.fromkeys(str(change.path) for change in reversed(record.changes)))
        for kind, name, place in reversed(record.registrations):
            echo(f"This registration at {place} ends: {kind} {name}")
        echo("These files and folders become as they were before setup:", *(f"  {path}" for path in paths))
        echo(*_removed_by_undo(record))
        if self._dry_run:
            return True
        if not self._yes and not typer.confirm("Undo setup?"):
            echo("Nothing was changed.")
            return True
        with open_journal(self._paths.state) as journal, _uninterrupted():
            session = SetupSession(self._paths, journal, self._systemd, self._is_reachable)
            problems: list[str] = []
            try:
                problems.extend(session.undo())
            except SetupError as error:
                raise SetupError(f"setup is not undone completely: {error}; {_UNDO_AGAIN}") from None
            finally:  # an error keeps the lines before it
                echo_stderr(*problems)
        echo("Setup is undone." if not problems else "Setup is undone, except for the lines above.")
        return not problems

    def _show(self, found: Found, planned: Plan, *, more: bool) -> None:
        """Show the planned changes, and the steps after them. ``more``: features change something too."""
        for number, change in enumerate(planned.changes, 1):
            echo("", f"{number}. {change.path}: {change.reason}", indent=3)
            echo_document("\n".join([*change.shown(), ""]))
        echo("")
        for note in planned.notes:
            echo(f"note: {note}", indent=_INDENT)
        if not planned.changes and not more:
            echo("No file has to be changed.")
        for part in self._parts:
            echo(*part.shown())
        steps = ["asterisk -rx 'manager reload'", "asterisk -rx 'logger reload'"] if planned.changes else []
        steps += [START] if self._systemd.runs else []
        steps.append("one failed SIP login from this host, which every source must report")
        steps += [step for other in found.others for step in other.steps()]
        echo("Then:", *(f"  {step}" for step in steps), "")

    def _activate(self, asterisk: FoundAsterisk, planned: Plan, *, restart: bool) -> None:
        """Make Asterisk read the files, and start the daemon. With ``restart``, restart one that runs."""
        if planned.changes:
            require_valid_files(asterisk)
            reload_asterisk(asterisk.console)
        require_manager_user(asterisk.console)
        echo_findings(Finding(True, "files", f"{len(planned.changes)} changed"))
        if self._systemd.runs:
            self._systemd.start(restart=restart)

    def _prove(self, session: SetupSession, found: Found, planned: Plan) -> bool:
        if not self._is_reachable():
            if self._systemd.runs:
                raise SetupError("the daemon does not answer; see: journalctl -u ringfence")
            start = "systemd does not run here; start it: ringfence run; then prove it: ringfence setup"
            echo_findings(Finding(None, "daemon", start))
            return True
        control = settings_from(self._paths.config).control.socket
        report = wait_for_sources(control, log=planned.log is not None)
        echo_findings(Finding(True, "daemon", "ready, and logged in to AMI"))
        findings = prove(
            control, lambda: _failed_login(found), contained=not found.asterisk.server.same_network
        )
        findings += [part.proof(control) for part in self._parts]
        echo_findings(*findings)
        wrong = any(finding.right is False for finding in findings)
        why = "until every source works" if wrong else why_another_guard_stays(report)
        if not why:
            return all(other.hand_over(self._paths.config, session.apply) for other in found.others)
        kept = [line for other in found.others for line in other.kept(why)]
        echo_stderr(*kept)
        return not (wrong or kept)

    def _is_reachable(self) -> bool:
        try:
            return is_reachable(settings_from(self._paths.config).control.socket)
        except ConfigError:
            return False


def _failed_login(found: Found) -> LoginTarget | None:
    """Cause a failed login at Asterisk by SIP, or by AMI if SIP is not answered.

    Return the target that answered; None if none did. The login by SIP comes from a loopback address. If
    Asterisk is in another network namespace (a container), such packets do not reach it. Then the kernel
    chooses the source address.
    """
    asterisk = found.asterisk
    host = ami_host(found)
    if asterisk.server.same_network:
        done = failed_login(targets_of(asterisk.server.pid, found.manager.port))
    else:
        targets = [SipListener(host, _SIP_PORT, udp=True), SipListener(host, _SIP_PORT, udp=False)]
        done = failed_login(targets, source="")
    return done or failed_manager_login(ManagerTarget(host, found.manager.port))


def _removed_by_undo(record: JournalRecord) -> Iterator[str]:
    """Yield lines about what ends with an undo, except for what it restores."""
    if not any(unit.active for unit in record.units if unit.name == SERVICE):
        yield "ringfence stops, and its rules and bans are removed from the kernel."
    for one in record.produced:
        if one.prefix not in one.names:  # a file that was there before setup stays
            content = (
                "the database, with bans, lists, friends and history" if one.prefix == DATABASE else "the log"
            )
            yield f"This is removed: {one.folder}/{one.prefix}* ({content})"


def _last_written(record: JournalRecord) -> dict[Path, FileState]:
    """Return the state in which setup last wrote each file, by the file's path.

    Only files that setup wrote as a whole are returned: those that were new, came with the package, or were
    setup's own before. To other files setup has only added lines.
    """
    written: dict[Path, FileState] = {}
    for change in record.changes:
        if not isinstance(change, FileChange):
            continue
        before, path = change.before, change.path
        if before is None or before == written.get(path) or is_untouched(text_of(before)):
            written[path] = change.after
        else:
            written.pop(path, None)
    return written


def _require_root() -> None:
    if os.geteuid() != 0:
        raise SetupError("setup reads and changes files of root and of Asterisk; fix: run it as root (sudo)")


@contextmanager
def _taken_back_on_error(session: SetupSession) -> Iterator[None]:
    """If the block fails or is interrupted, restore the state before this run, and raise the error again.

    After a signal, a SetupError is raised instead of KeyboardInterrupt.
    """
    with _interruptible():
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            with _uninterrupted():
                # A terminal that is gone or a full disk must not keep this run from restoring.
                with suppress(OSError, OutputError):
                    echo_stderr("setup did not come to its end: restoring everything as it was")
                problems: list[str] = []
                try:
                    problems.extend(session.take_back())
                except RingfenceError as second:
                    problems.append(f"{second}; {_UNDO_AGAIN}")
                with suppress(OSError, OutputError):
                    echo_stderr(*problems)
            if isinstance(error, KeyboardInterrupt):
                kept = "all but the lines above" if problems else "everything"
                raise SetupError(f"interrupted: {kept} is as before") from None
            raise


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block when a signal arrives that ends a run (one of _SIGNALS).

    So the caller can restore the files before the run ends.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt):
        yield


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore the signals that end a run while the block runs.

    The block restores files, and must not be interrupted.
    """
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Delay the signals that end a run until the end of the block."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@contextmanager
def _handled(handler: "signal._HANDLER") -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
