"""The child drops its ambient capabilities, also under the unit's filter of system calls."""

import json
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.features.notify.samples import WALL, ban, content
from tests.support.peers import raw_server

from ringfence.features.notify import notifications

CHILD = (sys.executable, "-P", "-m", "ringfence.features.notify.unprivileged")
AMBIENT = ("setpriv", "--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin")

# capset, setpriority and chown fail as in the unit (SystemCallFilter=~@privileged @resources).
_FILTERED = """\
import ctypes, os, struct, sys
denied = (126, 141, 92, 93, 94)
code = struct.pack("HBBI", 0x20, 0, 0, 0)
for at, number in enumerate(denied):
    code += struct.pack("HBBI", 0x15, len(denied) - at, 0, number)
code += struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000) + struct.pack("HBBI", 0x06, 0, 0, 0x00050001)
buffer = ctypes.create_string_buffer(code, len(code))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(denied) + 3, ctypes.addressof(buffer))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""
FILTERED = (sys.executable, "-c", _FILTERED)


def ambient_of_the_child(*prefix: str) -> int:
    """Return the ambient capabilities of the child while it waits for a mail server."""
    connected = threading.Event()
    with raw_server(lambda _: connected.set()) as port:
        server = {"host": "127.0.0.1", "port": port, "security": "none", "username": None}
        request: dict[str, object] = {
            "channel": {"kind": "mail", "to": ["root"], "sender": None, "timeout": 60.0, **server},
            "content": content(notifications.of_ban(ban(), WALL)),
            "host": "h",
            "databases": [],
        }
        child = subprocess.Popen([*prefix, *CHILD], stdin=subprocess.PIPE)  # each of them executes the next
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
            assert connected.wait(30.0)
            status = Path(f"/proc/{child.pid}/status").read_text("ascii")
        finally:
            child.kill()
            child.wait()
    return int(status.partition("CapAmb:")[2].split()[0], 16)


def test_the_child_has_no_ambient_capability() -> None:
    """Without capabilities there is nothing to drop, and the message is sent too."""
    assert ambient_of_the_child() == 0


@pytest.mark.kernel
def test_the_capability_of_the_unit_is_dropped() -> None:
    """The unit gives the daemon CAP_NET_ADMIN as an ambient capability, so every child would have it."""
    inherited = subprocess.run(
        [*AMBIENT, "grep", "CapAmb", "/proc/self/status"], capture_output=True, text=True, check=True
    )
    assert int(inherited.stdout.split()[1], 16) == 1 << 12

    assert ambient_of_the_child(*AMBIENT) == 0


@pytest.mark.kernel
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter has the numbers of x86_64")
def test_it_is_dropped_under_the_filter_of_the_unit() -> None:
    """The filter forbids capset(2), so that setpriv fails; the child needs only prctl(2)."""
    setpriv = subprocess.run([*FILTERED, "setpriv", "--ambient-caps=-all", "true"], check=False)
    assert setpriv.returncode != 0

    assert ambient_of_the_child(*AMBIENT, *FILTERED) == 0
