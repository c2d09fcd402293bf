"""Whether anything is left behind that must not be, when the daemon is killed a hundred times under load."""

import tempfile
from pathlib import Path

from tests.bench.figures import Figure
from tests.support.daemon import ami_server
from tests.support.killing import Account, kill_often
from tests.support.lab import Lab
from tests.support.netns import netns

BACKENDS = ("ipset", "nftables")
ROUNDS = 50
"""Of each backend."""


def kills(backend: str) -> Account:
    """Kill the daemon many times at random moments; give the account of it."""
    with tempfile.TemporaryDirectory() as folder, netns(), ami_server() as pbx:
        return kill_often(Path(folder), pbx, rounds=ROUNDS, backend=backend, seed=1)


def figures(_: Lab, __: Path | None) -> list[Figure]:
    """Measure, and give the rows."""
    return [_killed(backend, kills(backend)) for backend in BACKENDS]


def _killed(backend: str, account: Account) -> Figure:
    end = f"{account.recorded} bans recorded and {account.elements} in force at the end"
    return Figure(
        what=f"SIGKILL at random moments under load, {account.rounds} times: what must not be, {backend}",
        measured=f"{len(account.troubles)} ({end})",
        must="0",
        reached=account.rounds == ROUNDS and not account.troubles,
    )
