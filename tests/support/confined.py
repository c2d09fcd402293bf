"""Python code run as the unit runs the daemon, where this test's own files stand in the places of the host's.

In a mount namespace of its own: everything read-only, ``/proc`` without other people's processes
(``ProtectSystem=strict``, ``ProtectProc=invisible``, ``ProcSubset=pid``), no memory that is both written and
run (``MemoryDenyWriteExecute=``), no new privileges, and the user nobody without a capability. What systemd
does beyond that with filters of system calls takes a systemd to try.
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
# PR_SET_MDWE is known from Linux 6.3 on, and stays over the exec.
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
    """Run ``imports`` as root and ``code`` as nobody; give what it printed as JSON.

    ``folder`` may hold ``sessions``, a folder in the place of logind's, and ``resolv.conf``. Without sessions
    there is no ``/run/systemd`` at all. What the code imports it imports as root: Python itself may lie where
    nobody may not go.
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
    """Give what logind writes of a session: a login of root from elsewhere, with these fields changed."""
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
