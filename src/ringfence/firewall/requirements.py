"""Checks of the requirements that both kernel backends have, made before anything is changed."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from ringfence.errors import (
    FirewallError,
    FirewallPermissionError,
    FirewallToolError,
    FirewallUnsupportedError,
)
from ringfence.firewall.contract import Requirement

# -- finds and runs the firewall programs of this host, such as ``nft``, without a shell


_FOLDERS = ("/usr/sbin", "/sbin")
_TIMEOUT = 10.0  # seconds; a run usually takes some milliseconds


@frozen
class FinishedProgram:
    """A program that has ended.

    ``pid`` is its process ID. It is also the port of the program's netlink socket, by which the kernel names
    the author of a firewall change. ``status`` is its exit status. ``output`` and ``errors`` are its standard
    output and standard error.
    """

    pid: int
    status: int
    output: str
    errors: str


def find_program(name: str, package: str) -> str:
    """Return the path of the program ``name`` from PATH, /usr/sbin or /sbin.

    Raise FirewallUnsupportedError if it is not installed; the fix in its text names Debian's ``package``.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_FOLDERS])
    program = shutil.which(name, path=path)
    if program is None:
        raise FirewallUnsupportedError(f"{name} is not installed; fix: {_fix(package)}")
    # Links are not resolved: all names of iptables are links to one program, which acts by the name it is run
    # with.
    return os.path.abspath(program)  # noqa: PTH100 - see above


def run_program(command: list[str], text: str, package: str) -> FinishedProgram:
    """Run a program with ``text`` as its standard input, and return its result, also if the program failed.

    Raise FirewallToolError if it cannot be started now, or does not end within ten seconds. Raise
    FirewallUnsupportedError if it cannot be run; the fix in its text names Debian's ``package``.
    """
    try:
        with subprocess.Popen(  # noqa: S603 - an absolute path, no shell, no text from outside
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env={**os.environ, "LC_ALL": "C"},
        ) as process:
            try:
                output, errors = process.communicate(text, timeout=_TIMEOUT)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise FirewallToolError(f"{command[0]} did not end within {_TIMEOUT:g} s") from error
    except BlockingIOError as error:
        raise FirewallToolError(f"{command[0]} cannot be started: {error.strerror}") from error
    except OSError as error:
        raise FirewallUnsupportedError(
            f"{command[0]} cannot be run: {error}; fix: {_fix(package)}"
        ) from error
    return FinishedProgram(process.pid, process.returncode, output, errors)


def _fix(package: str) -> str:
    return f"apt-get install {package}"


_BITS = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}  # <linux/capability.h>


def require_capabilities(proc: Path, *names: str) -> None:
    """Raise FirewallPermissionError if this process lacks one of the capabilities ``names``.

    The error names the missing ones. ``proc`` is the mount point of procfs. Raises FirewallUnsupportedError
    if procfs is not mounted there.
    """
    try:
        status = (proc / "self/status").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise FirewallUnsupportedError(f"procfs is needed at {proc}: {error}") from error
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    held = int(fields.get("CapEff", "0"), 16)
    missing = [name for name in names if not held >> _BITS[name] & 1]
    if missing:
        what = f"the firewall needs {' and '.join(missing)}, which this process lacks"
        raise FirewallPermissionError(what, *missing)


def why_no_ipv6(proc: Path) -> str | None:
    """Return why this host needs no bans of IPv6, else None; ``proc`` is the mount point of procfs."""
    return None if (proc / "self/net/if_inet6").exists() else "this host has no IPv6"


def check_requirement(name: str, require: Callable[[], object]) -> Requirement:
    """Call ``require``, and return the result as a requirement with this name.

    Its ``problem`` is the text of the FirewallError that ``require`` raised; None if it raised none.
    """
    try:
        require()
    except FirewallError as error:
        return Requirement(name, str(error))
    return Requirement(name)
