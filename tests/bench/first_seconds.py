"""The guesses that are answered in the demo, and in the first second of a daemon that knows no friend yet."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.attacks import THRESHOLD
from tests.bench.figures import Figure, spread
from tests.support import phones
from tests.support.first_seconds import BACKENDS, OFFICE, TRANSPORTS, guess_at_once, register_at_once
from tests.support.lab import Lab

DEMOS = 10
MOST = 8
"""The most answered guesses: four at once, two in each second until the ban, and some for a busy host."""
TRIALS = 3
"""The trials with each backend and transport."""
_ANSWERED = "answered after"
"""The words of the demo's line about one answered guess."""


def demo() -> int:
    """Run the demo, which shows the ban for one second; return how many guesses it shows as answered."""
    command = [sys.executable, "-m", "tests.demo", "attack", "--watch", "1"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return sum(_ANSWERED in line for line in done.stdout.split("\n"))


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    shown = [demo() for _ in range(DEMOS)]
    yield Figure(
        what="answered guesses in the demo",
        measured=spread(shown),
        must=f"1 to {THRESHOLD} in each",
        reached=min(shown) > 0 and max(shown) <= THRESHOLD,
    )
    with Lab.made("22") as lab:
        for number, (backend, transport) in enumerate((one, way) for one in BACKENDS for way in TRANSPORTS):
            found = [
                guess_at_once(lab, f"198.19.{90 + number}.{1 + trial}", transport, backend).answered
                for trial in range(TRIALS)
            ]
            yield Figure(
                what="answers to a guesser from the first second of a daemon without friends: "
                f"{transport}, {backend}",
                measured=spread(found),
                must=f"1 to {MOST} in every trial",
                reached=min(found) >= 1 and max(found) <= MOST,
            )
    for backend in BACKENDS:
        yield _office(backend)


def _office(backend: str) -> Figure:
    """Register an office's phones in that second, which Asterisk knows already."""
    with Lab.made("22", phones.configured()) as lab:
        seconds, banned = register_at_once(lab, "198.19.94.1", backend, known=True)
    return Figure(
        what=f"{OFFICE} registered phones behind one address that register again in that second, {backend}: "
        "not registered; bans",
        measured=f"{OFFICE - len(seconds)}; {len(banned)}; seconds to register: {spread(seconds)}",
        must="0; 0",
        reached=(len(seconds), len(banned)) == (OFFICE, 0),
    )
