"""Tries every n of rows, in a network namespace of their own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from attrs import define, frozen
from tests.faults.bed import Bed, bed
from tests.faults.case import Tried, try_case, uses
from tests.faults.operations import OPERATIONS
from tests.faults.values import Row
from tests.support import warm
from tests.support.daemon import ami_server
from tests.support.netns import netns

_DENSE = 12
"""Up to this number, each n is tried, from there on each fourth part more."""


@define
class Result:
    """How many n of a row were tried, and how many of them found something: both times, or only once."""

    row: Row
    tried: int = 0
    found: int = 0
    doubtful: int = 0


@frozen
class Work:
    """The rows of one operation with one backend, which share a daemon's folder."""

    rows: tuple[Row, ...]
    most: int
    every: bool
    findings: Path


def numbers(most: int, *, every: bool) -> Iterator[int]:
    """Yield the n of a row in ascending order: all up to ``most``, or a sample."""
    n = 1
    while n <= most:
        yield n
        n = n + 1 if every or n < _DENSE else n * 5 // 4


def work(task: Work) -> list[Result]:
    """Try rows in a network namespace of their own."""
    first = task.rows[0]
    with (
        warm.warmed(),
        netns(),
        ami_server() as pbx,
        tempfile.TemporaryDirectory(prefix="ringfence-faults-") as folder,
        bed(Path(folder), first.backend, pbx) as made,
    ):
        used = uses(made, OPERATIONS[first.operation])
        return [_try_row(made, row, task) for row in task.rows if used.get(row.call)]


def _try_row(made: Bed, row: Row, task: Work) -> Result:
    """Try each n of a row until no call fails any more."""
    result = Result(row)
    for n in numbers(task.most, every=task.every):
        tried = _try(made, row, n)
        if not tried.calls and not tried.is_artefact:
            break
        result.tried += 1
        if tried.findings:
            again = _try(made, row, n)
            if again.findings:
                result.found += 1
                with task.findings.open("a", encoding="utf-8") as file:
                    file.write(_text(row, n, tried) + "\n")
            else:
                result.doubtful += 1
    print(f"{row}: {result.tried} tried, {result.found} found, {result.doubtful} doubtful", flush=True)
    return result


def _try(made: Bed, row: Row, n: int) -> Tried:
    try:
        return try_case(made, OPERATIONS[row.operation], row, n)
    except Exception as error:  # noqa: BLE001 - the next cases go on, and the finding has the error
        return Tried(calls=["?"], findings=[f"runner: {type(error).__name__}: {error}"], trace="?")


def _text(row: Row, n: int, tried: Tried) -> str:
    calls = "\n".join(f"    {line[:300]}" for line in tried.calls[:4])
    found = "\n".join(f"  {line}" for line in tried.findings)
    log = "\n".join(f"    | {line[:300]}" for line in tried.log.split("\n")[-25:])
    return f"{row}, n = {n}\n{found}\n{calls}\n{log}\n"
