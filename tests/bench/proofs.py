"""The judge of tests/judge: which known faults it notices, and what it finds in the code as it is."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.bench.figures import Figure

SECONDS = 180
_PUT_BACK = re.compile(r"findings put back: ([0-9]+) of ([0-9]+) noticed")
_PLAYED = re.compile(r"(.+): ([0-9]+) failed")


def figures(_other: Path | None) -> Iterable[Figure]:
    """Yield the rows about faults that are put back, random worlds, and all orders of small worlds."""
    command = [sys.executable, "-m", "tests.judge", "--seconds", str(SECONDS)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")
    for line in lines:
        if (back := _PUT_BACK.match(line)) is not None:
            what = "findings put back: noticed by the judge, of those that its worlds can show"
            yield Figure(what, f"{back[1]} of {back[2]}", "all", back[1] == back[2])
        elif (played := _PLAYED.fullmatch(line)) is not None:
            what = f"F, C, P, E violated within {SECONDS} s of `make prove`: {played[1]}"
            yield Figure(what, played[2], "0", played[2] == "0")
