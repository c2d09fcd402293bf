"""Tries every n of rows, in a network namespace of their own."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from attrs import define, frozen
from tests.faults.bed import bed, listed
from tests.faults.case import Tried, most_uses, try_case
from tests.faults.operations import OPERATIONS, Process
from tests.faults.setup_bed import SETUPS, SetupBed
from tests.faults.values import AT_ANSWER, ERRORS, NOTHING, Row
from tests.support import warm
from tests.support.daemon import ami_server
from tests.support.netns import netns

_NEVER = 65_535
"""The largest n that strace accepts."""
_DENSE = 12
"""Up to this number, each n is tried, from there on each fourth part more."""


@define
class Result:
    """How many n of a row were tried, and how many of them found something: both times, or only once.

    ``goes_on``: a call still failed at the largest n that may be tried.
    """

    row: Row
    tried: int = 0
    found: int = 0
    doubtful: int = 0
    goes_on: bool = False


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


Trying = Callable[[Row, int], Tried]
"""Tries one n of a row."""


@contextmanager
def trying(operation: str, backend: str) -> Iterator[Trying]:
    """Yield what tries an operation, in a network namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="ringfence-faults-") as folder, netns():
        if operation in SETUPS:
            yield SetupBed(Path(folder), operation).try_case
            return
        with warm.warmed(), ami_server() as pbx, bed(Path(folder), backend, pbx) as made:
            yield partial(try_case, made)


def work(task: Work) -> list[Result]:
    """Try the rows of a task, of the calls that its operation uses."""
    first = task.rows[0]
    with trying(first.operation, first.backend) as try_one:
        every = Row(first.operation, first.backend, ",".join(ERRORS), "EIO")
        whole = [_try_row(try_one, Row(first.operation, first.backend, NOTHING, "EIO"), task)]
        if first.operation in OPERATIONS and OPERATIONS[first.operation].process is not Process.ALONE:
            whole.append(_try_row(try_one, Row(first.operation, first.backend, NOTHING, AT_ANSWER), task))
        used = most_uses(try_one(every, _NEVER).trace)
        unknown = {row.call for row in task.rows} - used.keys()
        print(f"{first.operation}, {first.backend}: not used, so not tried: {listed(unknown)}", flush=True)
        return [*whole, *(_try_row(try_one, row, task) for row in task.rows if used.get(row.call))]


def _try_row(try_one: Trying, row: Row, task: Work) -> Result:
    """Try each n of a row until no call fails any more."""
    result = Result(row)
    for n in numbers(task.most, every=task.every):
        tried = _try(try_one, row, n)
        is_fault = bool(tried.calls) or tried.is_artefact
        if not is_fault and row.call != NOTHING:
            break
        result.tried += is_fault or row.error == AT_ANSWER
        if tried.findings:
            again = _try(try_one, row, n)
            if again.findings:
                result.found += 1
            else:  # a race that is lost now and then is a fault, too
                result.doubtful += 1
            doubt = "" if again.findings else "DOUBTFUL, the second try found nothing: "
            with task.findings.open("a", encoding="utf-8") as file:
                file.write(doubt + _text(row, n, tried) + "\n")
        if row.call == NOTHING:
            break
    else:
        result.goes_on = True
    rest = ", and larger n are left" if result.goes_on else ""
    print(f"{row}: {result.tried} tried, {result.found} found, {result.doubtful} doubtful{rest}", flush=True)
    return result


def _try(try_one: Trying, row: Row, n: int) -> Tried:
    try:
        return try_one(row, n)
    except Exception as error:  # noqa: BLE001 - the next cases go on, and the finding has the error
        return Tried(calls=["?"], findings=[f"runner: {type(error).__name__}: {error}"], trace="?")


def _text(row: Row, n: int, tried: Tried) -> str:
    calls = "\n".join(f"    {line[:300]}" for line in tried.calls[:4])
    found = "\n".join(f"  {line}" for line in tried.findings)
    log = "\n".join(f"    | {line[:300]}" for line in tried.log.split("\n")[-25:])
    return f"{row}, n = {n}\n{found}\n{calls}\n{log}\n"
