"""The judge of tests/judge: which known faults it notices, and what it finds in the code as it is."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.bench.figures import Figure

SECONDS = 90
_PUT_BACK = re.compile(r"findings put back: ([0-9]+) of ([0-9]+) noticed")
_PARTS = 2  # random worlds, and all orders of small ones
_PLAYED = re.compile(r"(.+): ([0-9]+) failed")


def figures(_other: Path | None) -> Iterable[Figure]:
    """Yield the rows about faults that are put back, random worlds, and all orders of small worlds.

    Raise RuntimeError if the judge did not print them all.
    """
    command = [sys.executable, "-m", "tests.judge", "--seconds", str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.split("\n")
    put_back = next(filter(None, map(_PUT_BACK.match, lines)), None)
    played = [*filter(None, map(_PLAYED.fullmatch, lines))]
    if put_back is None or len(played) != _PARTS:
        raise RuntimeError(f"the judge ended with {done.returncode}: {done.stderr[-500:]}")
    what = "findings put back: noticed by the judge"
    yield Figure(what, f"{put_back[1]} of {put_back[2]}", "all", put_back[1] == put_back[2])
    for part in played:
        what = f"an invariant violated within {SECONDS} s of `make prove`: {part[1]}"
        yield Figure(what, part[2], "0", part[2] == "0")
