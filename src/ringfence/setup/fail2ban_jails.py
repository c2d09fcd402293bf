"""Disables fail2ban's jails for Asterisk by an additional file. If it is removed, they are enabled again.

The package runs this module before it is removed, so that the PBX is not without any guard afterwards:

    python -m ringfence.setup.fail2ban_jails
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ringfence.errors import SetupError
from ringfence.model import printable
from ringfence.setup.changes import Change, FileChange, FileState, file_state
from ringfence.setup.journal import JournalRecord, read_journal, restore_files
from ringfence.setup.texts import HostPaths, jails_disabled

_NAME = "zz-ringfence.local"
_SECONDS = 60


def disabling(folder: Path, jails: tuple[str, ...]) -> FileChange:
    """Return the change that disables jails: a file in ``folder/jail.d`` that fail2ban reads last.

    ``folder`` is the folder of fail2ban's configuration.
    """
    path = folder / "jail.d" / _NAME
    after = FileState(jails_disabled(jails).encode(), 0o644, 0, 0)
    return FileChange(path, file_state(path), after, "fail2ban's jail would ban for Asterisk as well")


def is_disabling(change: Change) -> bool:
    """Whether setup disables jails by ``change``."""
    return isinstance(change, FileChange) and change.path.name == _NAME


def restore(changes: Iterable[Change]) -> Iterator[str]:
    """Enable fail2ban's jails again, if ``changes`` disabled them; yield a line for each problem.

    Call this before ringfence is stopped, so that one of both always guards Asterisk.
    """
    jails = tuple(change for change in changes if is_disabling(change))
    if not jails:
        return
    yield from restore_files(JournalRecord(jails))
    problem = reload()
    if problem:
        yield f"fail2ban did not reload ({problem}); fix: fail2ban-client reload"


def reload() -> str:
    """Make fail2ban read its files again; return "" on success, else the reason."""
    if shutil.which("fail2ban-client") is None:
        return "the program fail2ban-client is not installed"
    try:
        done = subprocess.run(
            ["fail2ban-client", "reload"],  # noqa: S607 - as found in root's own PATH
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"fail2ban-client reload: {error}"
    return printable(done.stderr.decode("utf-8", "replace").strip()) if done.returncode else ""


def give_back(paths: HostPaths) -> Iterator[str]:
    """Enable the jails that setup disabled on this host; yield a line for each problem."""
    try:
        yield from restore(read_journal(paths.state).changes)
    except SetupError as error:
        yield str(error)
    file = paths.fail2ban / "jail.d" / _NAME
    if file.exists():
        yield f"{file} still disables fail2ban's jails; fix: remove it, and run: fail2ban-client reload"


def main() -> int:
    """Give the jails back, and print each problem; return the exit code."""
    problems = [*give_back(HostPaths())]
    if problems:
        head = "after the removal of ringfence, nothing may guard Asterisk:"
        print(head, *map(printable, problems), sep="\n    ", file=sys.stderr)  # noqa: T201 - for dpkg's terminal
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
