"""Runs the program ``nft``, which writes the rules, one transaction per run.

A ban starts it only if it is the first one of a prefix length that has no set yet.
"""

from ringfence.errors import FirewallError
from ringfence.firewall.programs import find_program, run_program

_PACKAGE = "nftables"
# The end of the error message if another program declared a set with one of our names differently. ``nft``
# cannot change a declaration, so the administrator must remove the table.
_FOREIGN_SET = (
    "; another program declared it differently; fix: `ringfence off`, or `nft delete table inet ringfence`"
)


def find_nft() -> str:
    """Return the path of ``nft`` from PATH, /usr/sbin or /sbin; else raise FirewallUnsupportedError."""
    return find_program("nft", _PACKAGE)


def run_nft(program: str, text: str, *, check: bool = False) -> int:
    """Carry out ``text`` in one transaction; return the process ID of ``nft``, which is its netlink port.

    ``program`` is the path of ``nft``. With ``check`` the kernel examines the transaction, and changes
    nothing.

    Raises FirewallError with the output of ``nft`` if it fails. In that case nothing has changed.
    """
    done = run_program([program, *(["--check"] if check else []), "-f", "-"], text, _PACKAGE)
    if done.status != 0:
        reason = _reason(done.errors or done.output)
        fix = _FOREIGN_SET if "File exists" in reason else ""
        raise FirewallError(f"{program} failed ({done.status}): {reason}{fix}")
    return done.pid


def _reason(output: str) -> str:
    """Return the first error of the output. Later lines only mark its position, or are consequences of it."""
    lines = [line for line in output.splitlines() if line.strip()]
    return " ".join(" ".join(lines[:2]).split()) or "no reason given"
