"""The parts of a run so far, in a file: a run that was interrupted can go on (``--resume``)."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, frozen
from tests.bench.figures import Figure

_ROOT = Path(__file__).parents[2]
KEPT = _ROOT / "build" / "bench.json"
RESULTS = Path(__file__).with_name("RESULTS.md")


@frozen
class Measured:
    """A part's rows, the time when it began (UTC) and its seconds; ``whole`` if it did not fail."""

    began: str
    seconds: float
    rows: tuple[Figure, ...]
    whole: bool = True


def sources(root: Path = _ROOT) -> str:
    """Return the commit and Git's name of all files as they are now, RESULTS.md aside."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "GIT_INDEX_FILE": f"{folder}/index"}

        def git(*arguments: str) -> str:
            done = subprocess.run(
                ["git", *arguments], cwd=root, env=environ, capture_output=True, text=True, check=False
            )
            return done.stdout.strip() or f"unknown at {time.time()}"  # not even the next call knows it

        git("add", "--all", "--", ":/", f":!{RESULTS.relative_to(_ROOT)}")
        return f"{git('rev-parse', 'HEAD')} {git('write-tree')}"


def write(of: str, parts: Mapping[str, Measured]) -> None:
    """Keep the parts so far of a run; ``of`` names what is measured."""
    KEPT.parent.mkdir(exist_ok=True)
    new = KEPT.with_suffix(".new")
    rows = {name: asdict(part) for name, part in parts.items()}
    new.write_text(json.dumps({"of": of, "parts": rows}), "utf-8")
    new.replace(KEPT)


def read(of: str) -> dict[str, Measured]:
    """Return the whole parts of the last run; raise a ValueError if it measured something else."""
    found: dict[str, Any] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {"of": "nothing"}
    if found["of"] != of:
        raise ValueError(f"the last run measured {found['of']}, and this one would measure {of}")
    parts = {
        name: Measured(**{**part, "rows": tuple(Figure(**row) for row in part["rows"])})
        for name, part in found["parts"].items()
    }
    return {name: part for name, part in parts.items() if part.whole}
