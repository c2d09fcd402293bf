"""Checks of the requirements that both kernel backends have, made before anything is changed."""

from collections.abc import Callable
from pathlib import Path

from ringfence.errors import FirewallError, FirewallPermissionError, FirewallUnsupportedError
from ringfence.firewall.contract import Requirement
from ringfence.netlink.connection import grant_fix

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
        raise FirewallPermissionError(
            f"the firewall needs {' and '.join(missing)}, which this process lacks; {grant_fix(*missing)}"
        )


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
