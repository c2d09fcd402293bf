"""Programs that attack a PBX from an address of the attacker's side, such as the scanners of SIPVicious."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.asterisk import DEFAULT_LAB
from tests.support.network import PBX_IPV4, Network

NEIGHBOURS: Mapping[str, object] = {"prefix": {"enabled": False}, "distributed": {"enabled": False}}
"""The rules that are off: the programs are neighbours, and try one account."""


def of_sipvicious(name: str) -> str | None:
    """Return the path of a program of SIPVicious, of the laboratory or on the path; None without it."""
    unpacked = Path(os.environ.get("RINGFENCE_LAB", DEFAULT_LAB), "sipvicious/usr/share/sipvicious")
    folders = os.pathsep.join((str(unpacked), os.environ.get("PATH", "")))
    return shutil.which(f"sipvicious_{name}", path=folders)


def run_from(network: Network, source: str, command: Sequence[str], seconds: float) -> str:
    """Run a program from an address until its end, or for some seconds; return the end of what it said.

    Not every program can choose its address, so the route to the PBX does. Its own result says nothing: it
    fails if it is banned.
    """
    route = network.in_attacker("ip", "route", "replace", PBX_IPV4, "dev", "lan", "src", source)
    subprocess.run(route, capture_output=True, check=True)
    with tempfile.TemporaryDirectory() as home:
        alone = ("env", "-C", home, "PYTHONDONTWRITEBYTECODE=1", f"HOME={home}", "TERM=dumb")
        limited = ("timeout", "--kill-after=2", str(seconds))
        done = subprocess.run(
            network.in_attacker(*alone, *limited, *command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    return (done.stderr or done.stdout).decode("utf-8", "replace")[-500:]
