"""How many guesses a real Asterisk answers before the guesser is stopped, by ringfence and by fail2ban.

Every trial comes from an address that was never seen before. Both guards have a threshold of 5, run beside
the same Asterisk one after the other, and are given time to come to rest between trials. ringfence hears the
manager interface (AMI) alone, and then, as fail2ban does, the log alone.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen
from tests.bench.fail2ban import Fail2ban
from tests.bench.figures import Figure, spread
from tests.support.guarded import NO_LOGS, NO_WIRE, guarded
from tests.support.lab import Lab

THRESHOLD = 5
TRIALS = 20
PIPELINED_TRIALS = 10
PIPELINED = 2_000
OTHERS_TRIALS = 5
SEQUENTIAL = 3_000
"""More than fail2ban lets through; a guard that stops nobody shows as this number."""


@frozen
class Way:
    """A way to Asterisk, and the sources that its trials come from."""

    name: str
    target: str
    transport: str
    source: str

    def source_of(self, trial: int) -> str:
        """Give a source that no other trial of this way has, of either guard: one reads the other's log."""
        return self.source.format(trial, x=f"{trial:x}")


WAYS = (
    Way("UDP/IPv4", "198.18.0.1:5060", "UDP", "198.19.1.{}"),
    Way("UDP/IPv6", "[fd00:18::1]:5060", "UDP", "fd00:18::{x}"),
    # Each from a network of its own: what is proven of one address counts for those around it.
    Way("TCP, one connection", "198.18.0.1:5060", "TCP", "198.19.{}.254"),
)
LOG_ALONE = Way("UDP/IPv4", "198.18.0.1:5060", "UDP", "198.19.4.{}")
_OURS, _THEIRS = 16, 128
"""Where each guard's sources begin: the attacker's are fd00:18::a to ::ff, and the first 254 of a /24."""
Rest = Callable[[], None]


def _answered(lab: Lab, way: Way, trial: int, mode: str = "guess", number: int = SEQUENTIAL) -> int:
    """Let one guesser try, and give how many guesses were answered."""
    result = lab.attack(
        mode, "--target", way.target, "--transport", way.transport, "--number", str(number),
        "--sources", way.source_of(trial),
    )  # fmt: skip
    return result.answered


def sequential(lab: Lab, trials: range, rest: Rest) -> dict[str, list[int]]:
    """Let guessers try one guess after the other, on every way; give the answered guesses of each trial."""
    found: dict[str, list[int]] = {}
    for way in WAYS:
        for trial in trials:
            found.setdefault(way.name, []).append(_answered(lab, way, trial))
            rest()
    return found


def pipelined(lab: Lab, trials: range, rest: Rest) -> list[int]:
    """Let guessers send everything at once with one nonce; give the answered guesses of each trial."""
    way = Way("pipelined", "198.18.0.1:5060", "UDP", "198.19.3.{}")
    found = []
    for trial in trials:
        found.append(_answered(lab, way, trial, "pipeline", PIPELINED))
        rest()
    return found


def one_prefix(lab: Lab, part: str) -> int:
    """Let 1 000 addresses of one /64 make 4 guesses each; give how many were answered in all."""
    result = lab.attack(
        "guess", "--target", "[fd00:18::1]:5060", "--number", "4",
        "--sources", f"fd00:19::{part}:1-fd00:19::{part}:3e8", "--parallel", "25", "--timeout", "0.3",
    )  # fmt: skip
    return result.answered


def ours(lab: Lab) -> tuple[dict[str, list[int]], int, list[int]]:
    """Measure ringfence where it hears AMI alone."""
    alone = {"logs": NO_LOGS, "wire": NO_WIRE}
    with tempfile.TemporaryDirectory() as folder, guarded(lab, Path(folder), **alone):
        return (
            sequential(lab, range(_OURS, _OURS + TRIALS), _nothing),
            one_prefix(lab, "1"),
            pipelined(lab, range(_OURS, _OURS + PIPELINED_TRIALS), _nothing),
        )


def by_log(lab: Lab) -> list[int]:
    """Measure ringfence where it reads the log alone."""
    found = []
    alone = {"ami": {"enabled": False}, "wire": NO_WIRE}
    with tempfile.TemporaryDirectory() as folder, guarded(lab, Path(folder), **alone):
        for trial in range(_OURS, _OURS + TRIALS):
            found.append(_answered(lab, LOG_ALONE, trial))
            _nothing()
    return found


def theirs(lab: Lab, root: Path) -> tuple[dict[str, list[int]], int, list[int]]:
    """Measure fail2ban, with fewer trials: each costs seconds until it has read its log."""
    with tempfile.TemporaryDirectory() as folder, Fail2ban(lab, root, Path(folder)) as guard:
        rest = guard.settle
        trials = range(_THEIRS, _THEIRS + OTHERS_TRIALS)
        return sequential(lab, trials, rest), one_prefix(lab, "2"), pipelined(lab, trials, rest)


def figures(lab: Lab, root: Path | None) -> list[Figure]:
    """Measure both, one after the other, and give the rows."""
    by_way, prefix, pipeline = ours(lab)
    log_alone = by_log(lab)
    other_ways, other_prefix, other_pipeline = theirs(lab, root) if root else ({}, None, [])
    rows = [
        _one_by_one(f"AMI alone, {name}", found, other_ways.get(name, ())) for name, found in by_way.items()
    ]
    rows.append(
        _one_by_one(f"the log alone, {LOG_ALONE.name}", log_alone, other_ways.get(LOG_ALONE.name, ()))
    )
    rows.append(
        Figure(
            what="4 guesses from each of 1 000 addresses of one /64, answered in all: AMI alone",
            measured=str(prefix),
            must=f"≤ {THRESHOLD + 1}",
            reached=prefix <= THRESHOLD + 1,
            compared=f"fail2ban: {other_prefix}" if other_prefix is not None else "",
        )
    )
    rows.append(
        Figure(
            what=f"{PIPELINED} guesses at once with one nonce, answered: AMI alone",
            measured=spread(pipeline),
            must="median ≤ 320",
            reached=statistics.median(pipeline) <= 320,
            compared=_compared(other_pipeline),
        )
    )
    return rows


def _one_by_one(how: str, found: Sequence[int], others: Sequence[int]) -> Figure:
    return Figure(
        what=f"guesses answered one after the other: {how}",
        measured=spread(found),
        must=f"≤ {THRESHOLD + 1} in every trial, median ≤ {THRESHOLD}",
        reached=max(found) <= THRESHOLD + 1 and statistics.median(found) <= THRESHOLD,
        compared=_compared(others),
    )


def _compared(found: Sequence[int]) -> str:
    return f"fail2ban: {spread(found)}" if found else ""


def _nothing() -> None:
    time.sleep(0.05)
