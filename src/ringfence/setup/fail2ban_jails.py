"""Disables fail2ban's jails for Asterisk by an additional file. If it is removed, they are enabled again."""

import shutil
import subprocess
from pathlib import Path

from ringfence.model import printable
from ringfence.setup.changes import FileChange, FileState, file_state
from ringfence.setup.texts import jails_disabled

_NAME = "zz-ringfence.local"
_SECONDS = 60


def disabling(folder: Path, jails: tuple[str, ...]) -> FileChange:
    """Return the change that disables jails: a file in ``folder/jail.d`` that fail2ban reads last.

    ``folder`` is the folder of fail2ban's configuration.
    """
    path = folder / "jail.d" / _NAME
    after = FileState(jails_disabled(jails).encode(), 0o644, 0, 0)
    return FileChange(path, file_state(path), after, "fail2ban's jail would ban for Asterisk as well")


def is_disabling(path: Path) -> bool:
    """Whether ``path`` has the name of the file by which setup disables jails."""
    return path.name == _NAME


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
