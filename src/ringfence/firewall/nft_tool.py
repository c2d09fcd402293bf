"""The platform's own ``nft``: it puts the static ruleset in, one transaction a run. Bans never start it."""

import os
import shutil
import subprocess

from ringfence.errors import FirewallError, FirewallUnsupportedError

_FOLDERS = ("/usr/sbin", "/sbin")
_MEND = "apt-get install nftables"
# A set of our name that somebody declared in another way: no transaction turns it into ours.
_FOREIGN = (
    "; somebody else made it in another way; mend: `ringfence off`, or `nft delete table inet ringfence`"
)
_TIMEOUT = 10.0  # seconds: what usually takes five milliseconds


def find_nft() -> str:
    """Find ``nft`` on PATH, /usr/sbin and /sbin, else FirewallUnsupportedError."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_FOLDERS])
    program = shutil.which("nft", path=path)
    if program is None:
        raise FirewallUnsupportedError(f"nft is not installed; mend: {_MEND}")
    return os.path.abspath(program)  # noqa: PTH100 - links stay as they are


def run_nft(program: str, text: str) -> int:
    """Carry out ``text`` in one transaction; give the process's number, which is also its netlink port.

    Raises FirewallError with what the tool said; nothing has changed then.
    """
    command = [program, "-f", "-"]
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
                said, _ = process.communicate(text, timeout=_TIMEOUT)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise FirewallError(f"{program} did not end within {_TIMEOUT:g} s") from error
    except OSError as error:
        raise FirewallUnsupportedError(f"{program} cannot be run: {error}; mend: {_MEND}") from error
    if process.returncode != 0:
        reason = _reason(said)
        mend = _FOREIGN if "File exists" in reason else ""
        raise FirewallError(f"{program} failed ({process.returncode}): {reason}{mend}")
    return process.pid


def _reason(said: str) -> str:
    """Give what the tool complains of first: it draws the place beneath, and complains of what follows."""
    lines = [line for line in said.splitlines() if line.strip()]
    return " ".join(" ".join(lines[:2]).split()) or "no reason given"
