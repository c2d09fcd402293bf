"""Stories as text: what a failed seed prints is a file of ``cases/``."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.judge.asterisk import Act
from tests.simulate.step import Step

FINDINGS = Path(".fuzz/findings/simulate")
"""The folder of the stories that failed."""
_HEAD = re.compile(r"seed ([0-9]+), ")


def read(text: str) -> tuple[int, Sequence[Step]]:
    """Return the seed and the steps of a story. Lines after the first that begin with neither are ignored."""
    head, *lines = text.splitlines()
    found = _HEAD.match(head)
    if found is None:
        raise ValueError("the first line of a story has its seed")
    names = {"Step": Step, "Act": Act}
    steps = [eval(line, names)[0] for line in lines if line.startswith("Step(")]  # noqa: S307 - our own file
    return int(found[1]), steps


def keep(text: str, folder: Path = FINDINGS) -> Path:
    """Write a story that failed as a file for ``cases/``, and return its path."""
    seed, _ = read(text)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed-{seed}.txt"
    path.write_text(f"{text}\n", "utf-8")
    return path
