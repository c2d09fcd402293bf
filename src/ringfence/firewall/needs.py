"""What a backend of the kernel needs, asked for before anything is changed: the same way for each of them."""

from collections.abc import Callable
from pathlib import Path

from ringfence.errors import FirewallError, FirewallPermissionError, FirewallUnsupportedError
from ringfence.firewall.contract import Part

_BITS = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}  # <linux/capability.h>


def require_capabilities(proc: Path, *names: str) -> None:
    """Raise FirewallPermissionError naming which of these capabilities this process lacks.

    ``proc`` is where procfs is mounted; FirewallUnsupportedError where it is not.
    """
    try:
        status = (proc / "self/status").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise FirewallUnsupportedError(f"procfs is needed at {proc}: {error}") from error
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    held = int(fields.get("CapEff", "0"), 16)
    lacking = [name for name in names if not held >> _BITS[name] & 1]
    if lacking:
        raise FirewallPermissionError(
            f"the firewall needs {' and '.join(lacking)}, which this process lacks; "
            "the systemd unit grants it (AmbientCapabilities=), by hand: run as root"
        )


def need(what: str, require: Callable[[], object]) -> Part:
    """Say of one need whether it is met, by what ``require`` raises where it is not."""
    try:
        require()
    except FirewallError as error:
        return Part(what, str(error))
    return Part(what)
