"""The state that the daemon leaves when it is killed many times under load.

And its start with a damaged database: each kind of damage to each page of a small one.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.support.daemon import ami_server
from tests.support.damage import Starts, start_over_damage
from tests.support.killing import Account, kill_often
from tests.support.netns import netns

BACKENDS = ("ipset", "nftables")
ROUNDS = 25
"""The number of kills of each backend."""

DAMAGE_SECONDS = 30.0
"""Seconds after which the rest of the damage is skipped, as the row then states."""


def kills(backend: str) -> Account:
    """Kill the daemon many times at random moments; return the results."""
    with tempfile.TemporaryDirectory() as folder, netns(), ami_server() as pbx:
        return kill_often(Path(folder), pbx, rounds=ROUNDS, backend=backend, seed=1)


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    for backend in BACKENDS:
        yield _killed(backend, kills(backend))
    with tempfile.TemporaryDirectory() as folder:
        yield _damaged(start_over_damage(Path(folder) / "ringfence.db", DAMAGE_SECONDS))


def _damaged(starts: Starts) -> Figure:
    failed = f": {'; '.join(starts.failed[:3])}" if starts.failed else ""
    return Figure(
        what="damage to each page of a small database (zeros, ones, noise, swapped, cut): starts that fail",
        measured=f"{len(starts.failed)} of {starts.tried} ({starts.wanted} in all; "
        f"{starts.noticed} starts found the damage){failed}",
        must="0",
        reached=starts.tried > 0 and not starts.failed,
    )


def _killed(backend: str, account: Account) -> Figure:
    end = f"{account.recorded} bans recorded and {account.elements} in force at the end"
    return Figure(
        what=f"SIGKILL at random moments under load, {account.rounds} times: what must not be, {backend}",
        measured=f"{len(account.failures)} ({account.lost} bans lost, {end})",
        must="0",
        reached=account.rounds == ROUNDS and not account.failures,
    )
