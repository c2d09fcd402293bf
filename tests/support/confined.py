"""Python code run as the unit runs the daemon, with files of the test in place of the host's.

The code runs in its own mount namespace: everything is read-only, ``/proc`` hides the processes of others
(``ProtectSystem=strict``, ``ProtectProc=invisible``, ``ProcSubset=pid``), no memory is writable and
executable (``MemoryDenyWriteExecute=``), there are no new privileges, and the user is ``nobody`` without
capabilities. The unit's filters of system calls are not covered: they need a running systemd.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ringfence

_MOUNTS = """\
set -eu
if [ -d "$1/sessions" ]; then
    mkdir -p /run/systemd/sessions
    mount --bind "$1/sessions" /run/systemd/sessions
else
    mount -t tmpfs none /run
fi
if [ -f "$1/resolv.conf" ]; then mount --bind "$1/resolv.conf" /etc/resolv.conf; fi
mount -t proc -o subset=pid,hidepid=invisible proc /proc
mount -o remount,bind,ro /
shift
exec setpriv --no-new-privs "$@"
"""
# 65 is PR_SET_MDWE; it exists since Linux 6.3 and survives the exec.
_DENY = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
_DROP = """\
import os
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
"""


def confined(imports: str, code: str, folder: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Run ``imports`` as root and ``code`` as the user ``nobody``; return the JSON that it printed.

    ``folder`` may contain ``sessions``, a folder in place of logind's, and ``resolv.conf``. Without sessions
    there is no ``/run/systemd`` at all. Root does the imports, because the user ``nobody`` may lack access
    to the folders of Python.
    """
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", _MOUNTS, "sh", str(folder)),
            *(sys.executable, "-c", _DENY, f"{imports}\n{_DROP}\n{code}"),
        ],
        env=os.environ | {"PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def session(**fields: object) -> str:
    """Return logind's file of a session: a remote login of root, with these fields changed."""
    known: dict[str, object] = {
        "UID": 0,
        "USER": "root",
        "ACTIVE": 1,
        "IS_DISPLAY": 0,
        "STATE": "active",
        "REMOTE": 1,
        "TYPE": "tty",
        "CLASS": "user",
        "SCOPE": "session-1.scope",
        "TTY": "pts/0",
        "REMOTE_HOST": "203.0.113.5",
        "SERVICE": "sshd",
        "LEADER": 4242,
    }
    lines = (f"{name}={value}\n" for name, value in {**known, **fields}.items() if value is not None)
    return "# This is private data. Do not parse.\n" + "".join(lines)
