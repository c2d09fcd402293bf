"""The number of guesses that a real Asterisk answers before ringfence or fail2ban stops the guesser.

Both guards have a threshold of 5. Each row has its own Asterisk and guard, and each trial its own network
(an IPv4 /24, an IPv6 /64). ringfence reads AMI alone, the log alone (as fail2ban does), or all sources.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from tests.bench.figures import Figure, spread, unrationed
from tests.bench.pace import slowness
from tests.bench.testbed import GUESS, PLACED, bed, in_prefix, peer_bed, route_prefixes
from tests.support.guarded import NO_LOGS, NO_WIRE
from tests.support.lab import Lab

THRESHOLD = 5
TRIALS = 5
PIPELINED_TRIALS = 5
PIPELINED = 2_000
PREFIX_TRIALS = 5
OTHERS_TRIALS = 3
SEQUENTIAL = 3_000
"""More than fail2ban passes; the result of a guard that stops no guesser."""
PAUSE = 0.002
"""Seconds between the guesses of a slow attacker."""
_RACE = 0.02
"""Seconds in which the reports of a guess are written and read, at pace 1."""
_REST = 0.05
_AT_ONCE = 100
"""Addresses of one prefix that guess at the same time, each one guess after the other."""
_MOST_OF_PREFIX = 15
"""More than for one guesser: many guesses are on their way when the fifth one is read."""


@frozen
class Way:
    """A transport and port of Asterisk, and the network of the trials' senders."""

    name: str
    target: str = "198.18.0.1:5060"
    transport: str = "UDP"
    version: int = 4

    def source(self, trial: int) -> str:
        """Return the sender of a trial."""
        return f"198.19.{trial}.7" if self.version == 4 else in_prefix(trial, "7")


UDP = Way("UDP/IPv4")
WAYS = (
    UDP,
    Way("UDP/IPv6", target="[fd00:18::1]:5060", version=6),
    Way("TCP, one connection", transport="TCP"),
)
AMI_ALONE: Mapping[str, Any] = {"logs": NO_LOGS, "wire": NO_WIRE}
LOG_ALONE: Mapping[str, Any] = {"ami": {"enabled": False}, "wire": NO_WIRE}
ALL: Mapping[str, Any] = {}

Trial = Callable[[Lab, int], int]
"""One trial of an attack, by its number; returns the number of answered guesses."""


def guessing(way: Way, pause: float = 0.0) -> Trial:
    """Return a trial that makes one guess after another."""
    return lambda lab, trial: (
        lab.attack(
            *("guess", "--number", str(SEQUENTIAL), "--pause", str(pause)),
            *("--target", way.target, "--transport", way.transport, "--sources", way.source(trial)),
        ).answered
    )


def pipelined(lab: Lab, trial: int) -> int:
    """Send all guesses at once with one nonce."""
    return lab.attack("pipeline", "--number", str(PIPELINED), "--sources", UDP.source(trial)).answered


def one_prefix(lab: Lab, trial: int) -> int:
    """Make 4 guesses from each of 1 000 addresses of one /64."""
    return lab.attack(
        *("guess", "--target", "[fd00:18::1]:5060", "--number", "4", "--timeout", "0.3"),
        *("--parallel", str(_AT_ONCE)),
        *("--sources", f"{in_prefix(trial, '1')}-{in_prefix(trial, '3e8')}"),
    ).answered


def ours(trial: Trial, trials: int, sources: Mapping[str, Any]) -> list[int]:
    """Measure ringfence with these sources."""
    found = []
    with bed(GUESS, **sources) as here:
        route_prefixes(here.lab)
        for number in range(1, trials + 1):
            found.append(trial(here.lab, number))
            time.sleep(_REST)
    return found


def theirs(root: Path | None, trial: Trial) -> list[int]:
    """Measure fail2ban if it is there; each trial waits until fail2ban has read its log."""
    found: list[int] = []
    if root is not None:
        with peer_bed(root) as (lab, guard):
            route_prefixes(lab)
            for number in range(1, OTHERS_TRIALS + 1):
                found.append(trial(lab, number))
                guard.settle()
    return found


def figures(root: Path | None) -> Iterator[Figure]:
    """Measure both, and yield the rows."""
    for way in WAYS:
        trial = guessing(way)
        others = theirs(root, trial)
        yield _one_by_one(f"AMI alone, {way.name}", ours(trial, TRIALS, AMI_ALONE), others)
        if way is UDP:
            yield _one_by_one(f"the log alone, {way.name}", ours(trial, TRIALS, LOG_ALONE), others)
    for way in WAYS:
        yield _paced(way, ours(guessing(way, PAUSE), TRIALS, ALL))
    yield _prefix(ours(one_prefix, PREFIX_TRIALS, AMI_ALONE), theirs(root, one_prefix))
    yield _pipelined(ours(pipelined, PIPELINED_TRIALS, AMI_ALONE), theirs(root, pipelined))


def _one_by_one(how: str, found: Sequence[int], others: Sequence[int]) -> Figure:
    must, reached = unrationed(found, THRESHOLD)
    return Figure(
        what=f"guesses answered one after the other at full speed: {how}",
        measured=spread(found),
        must=must,
        reached=reached,
        compared=_compared(others),
        cores=PLACED,
    )


def _paced(way: Way, found: Sequence[int]) -> Figure:
    most = THRESHOLD + int(_RACE * slowness() / PAUSE)
    return Figure(
        what=f"guesses answered with {PAUSE * 1000:.0f} ms between them: all sources, {way.name}",
        measured=spread(found),
        must=(
            f"median ≤ {THRESHOLD}; 1 to {most} in each: {THRESHOLD} and those of some "
            f"{_RACE * 1000:.0f} ms, without the ration"
        ),
        reached=statistics.median(found) <= THRESHOLD and 1 <= min(found) <= max(found) <= most,
        cores=PLACED,
    )


def _prefix(found: Sequence[int], others: Sequence[int]) -> Figure:
    must, reached = unrationed(found, _MOST_OF_PREFIX)
    return Figure(
        what=(
            f"4 guesses from each of 1 000 addresses of one /64, {_AT_ONCE} at a time, answered in all: "
            "AMI alone"
        ),
        measured=spread(found),
        must=must,
        reached=reached,
        compared=_compared(others),
        cores=PLACED,
    )


def _pipelined(found: Sequence[int], others: Sequence[int]) -> Figure:
    return Figure(
        what=f"{PIPELINED} guesses at once with one nonce, answered: AMI alone",
        measured=spread(found),
        must="median ≤ 320, and 1 or more in each",
        reached=min(found) >= 1 and statistics.median(found) <= 320,
        compared=_compared(others),
        cores=PLACED,
    )


def _compared(found: Sequence[int]) -> str:
    return f"fail2ban: {spread(found)}" if found else ""
