"""fail2ban as a guard that ``ringfence setup`` replaces: an additional file disables its jails for Asterisk.

If the file is removed, the jails are enabled again.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from ringfence.cli.output import echo_findings
from ringfence.errors import ConfigError, ControlError, StoreError
from ringfence.features.fail2ban.command import take_over_from
from ringfence.features.fail2ban.jails import CLIENT, DISABLING, read_configuration, to_disable
from ringfence.findings import Finding
from ringfence.host.file_changes import FileChange, FileState, file_state
from ringfence.host.processes import run_program
from ringfence.values.text import printable


class OtherGuard:
    """fail2ban on this host, which ``ringfence setup`` replaces. The file ``file`` disables its jails."""

    def __init__(self, etc: Path) -> None:
        self._folder = etc / "fail2ban"
        self._problem = ""  # why ``jails`` are not known, after they were read
        self.file = self._folder / DISABLING

    @cached_property
    def jails(self) -> tuple[str, ...]:
        """The names of fail2ban's enabled jails that guard Asterisk.

        There are none if fail2ban is not installed. If fail2ban cannot use its files, they are not known.
        """
        if not self._folder.is_dir() or shutil.which(CLIENT) is None:
            return ()
        try:
            found = read_configuration(self._folder)
        except ConfigError as error:
            self._problem = str(error)
            return ()
        return tuple(jail.name for jail in found.jails if jail.guards_asterisk)

    @property
    def found(self) -> str:
        """A line for the administrator: which of fail2ban's jails guard Asterisk."""
        if not self.jails:
            if self._problem:
                return f"fail2ban  its jails are not known, and stay: {self._problem}"
            return "fail2ban  no enabled jail guards Asterisk"
        names = ", ".join(map(printable, self.jails))
        verbs = "guards Asterisk, and is" if len(self.jails) == 1 else "guard Asterisk, and are"
        return f"fail2ban  {names} {verbs} disabled after the proof"

    def steps(self) -> Iterator[str]:
        """Yield a line that states what setup will do with fail2ban's jails that guard Asterisk, if any."""
        if self.jails:
            yield f"fail2ban: take over the bans of {', '.join(self.jails)}, then disable it"

    def kept(self, why: str) -> Iterator[str]:
        """Yield a line that fail2ban's jails, if any, stay. ``why`` is the reason, or until when."""
        if self.jails:
            yield f"fail2ban's jail {', '.join(self.jails)} stays, {why}"

    def hand_over(self, config: Path, apply: Callable[[FileChange], None]) -> bool:
        """Ban what fail2ban bans, then disable its jails for Asterisk; return whether this succeeded.

        If the bans cannot be read or sent to the daemon, the jails stay enabled. If the daemon refuses some
        of them, the jails are disabled, and False is returned. ``config`` is the daemon's configuration, and
        ``apply`` makes a change that an undo takes back.
        """
        if not self.jails:
            return True
        name = ", ".join(self.jails)
        try:
            problems = take_over_from(self._folder, self.jails, config)
        except (ConfigError, StoreError, ControlError) as error:
            return _print(False, f"jail {name} stays, because its bans cannot be taken over: {error}")
        apply(self.disabling())
        if problem := reload():
            return _print(False, f"jail {name} still runs: {problem}; fix: {CLIENT} reload")
        _print(True, f"jail {name} is disabled, its bans are taken over; the other jails stay")
        return not problems

    def disabling(self) -> FileChange:
        """Return the file change that disables fail2ban's jails: a file that fail2ban reads last."""
        earlier = file_state(self.file)
        present = earlier.content.decode("utf-8", "replace") if earlier is not None else ""
        sections = [f"[{name}]\nenabled = false\n" for name in to_disable(present, self.jails)]
        text = "\n".join(["# Made by `ringfence setup`; `ringfence setup --undo` removes it.", *sections])
        after = FileState(text.encode(), 0o644, 0, 0)
        why = "fail2ban's jail would ban for Asterisk as well"
        return FileChange(self.file, earlier, after, why)

    def enable(self) -> Iterator[str]:
        """Make fail2ban read its restored files; yield a line if it does not."""
        if problem := reload():
            yield f"fail2ban did not reload ({problem}); fix: {CLIENT} reload"

    def still_disabled(self) -> Iterator[str]:
        """Yield a line with the fix if ``file`` still disables fail2ban's jails."""
        if self.file.exists():
            yield f"{self.file} still disables fail2ban's jails; fix: remove it, and run: {CLIENT} reload"


def _print(right: bool, text: str) -> bool:
    """Print a finding about fail2ban with this text, and return ``right``, whether all is well."""
    echo_findings(Finding(right, "fail2ban", text))
    return right


def reload() -> str:
    """Make fail2ban read its files again; return "" on success, else the reason."""
    try:
        done = run_program(CLIENT, "reload")
    except FileNotFoundError:
        return f"the program {CLIENT} is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{CLIENT} reload: {error}"
    return printable(done.stderr.decode("utf-8", "replace").strip()) if done.returncode else ""
