"""The program ``nft``, which writes the static ruleset, one transaction per run. Bans never start it."""

import os
import shutil
import subprocess

from ringfence.errors import FirewallError, FirewallUnsupportedError

_FOLDERS = ("/usr/sbin", "/sbin")
_FIX = "apt-get install nftables"
# A set of our name with another declaration: no transaction changes a declaration.
_FOREIGN_SET = (
    "; another program declared it differently; fix: `ringfence off`, or `nft delete table inet ringfence`"
)
_TIMEOUT = 10.0  # seconds; a run usually takes five milliseconds


def find_nft() -> str:
    """Return the path of ``nft`` from PATH, /usr/sbin or /sbin; else raise FirewallUnsupportedError."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_FOLDERS])
    program = shutil.which("nft", path=path)
    if program is None:
        raise FirewallUnsupportedError(f"nft is not installed; fix: {_FIX}")
    return os.path.abspath(program)  # noqa: PTH100 - links stay as they are


def run_nft(program: str, text: str, *, check: bool = False) -> int:
    """Carry out ``text`` in one transaction; return the process ID, which is also its netlink port.

    With ``check`` the kernel examines the transaction, and changes nothing.

    Raises FirewallError with the output of the tool. In that case nothing has changed.
    """
    command = [program, *(["--check"] if check else []), "-f", "-"]
    try:
        with subprocess.Popen(  # noqa: S603 - an absolute path, no shell, no text from outside
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            env={**os.environ, "LC_ALL": "C"},
        ) as process:
            try:
                output, _ = process.communicate(text, timeout=_TIMEOUT)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise FirewallError(f"{program} did not end within {_TIMEOUT:g} s") from error
    except OSError as error:
        raise FirewallUnsupportedError(f"{program} cannot be run: {error}; fix: {_FIX}") from error
    if process.returncode != 0:
        reason = _reason(output)
        fix = _FOREIGN_SET if "File exists" in reason else ""
        raise FirewallError(f"{program} failed ({process.returncode}): {reason}{fix}")
    return process.pid


def _reason(output: str) -> str:
    """Return the first error of the tool's output: later lines mark its position, or are consequences."""
    lines = [line for line in output.splitlines() if line.strip()]
    return " ".join(" ".join(lines[:2]).split()) or "no reason given"
