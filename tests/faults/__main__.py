"""Lets each system call of each operation fail, or kills the process there: ``make faults``.

Prints a line for each row that is done, and a table at the end. A file has the findings, with the call and
the daemon's log. Each finding is tried twice: one that is not found again counts as doubtful.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

from tests.faults.operations import OPERATIONS, Process
from tests.faults.setup_bed import SETUPS
from tests.faults.sweep import Result, Work, work
from tests.faults.values import rows


def main() -> int:
    """Try all rows that were asked for; return 1 if there are findings, or if nothing was tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=400, help="the largest n")
    parser.add_argument("--every", action="store_true", help="try each n, not a sample of the large ones")
    parser.add_argument("--only", default="*", help="rows that match, such as 'ban, nftables, *'")
    parser.add_argument("--workers", type=int, default=2, help="how many cases at the same time")
    parser.add_argument("--findings", type=Path, default=Path("faults.txt"), help="the file of findings")
    options = parser.parse_args()
    lasting = frozenset(name for name, one in OPERATIONS.items() if one.process is Process.RUNNING)
    every = [*rows(SETUPS, ("files",)), *rows(OPERATIONS, ("nftables", "ipset"), lasting)]
    chosen = [row for row in every if fnmatchcase(str(row), options.only)]
    chosen.sort(key=lambda row: (row.operation, row.backend))
    tasks = [
        Work(tuple(group), options.most, options.every, options.findings.absolute())
        for _, group in groupby(chosen, key=lambda row: (row.operation, row.backend))
    ]
    options.findings.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context, max_tasks_per_child=1) as pool:
        results = [result for part in pool.map(work, tasks) for result in part]
    _report(results)
    print(f"findings: {options.findings}" if options.findings.exists() else "no findings")
    return int(options.findings.exists() or not any(result.tried for result in results))


def _report(results: Sequence[Result]) -> None:
    """Print the table."""
    print(f"\n{'operation':12} {'backend':9} {'call':18} {'error':13} n tried  found  doubtful")
    for result in results:
        row = result.row
        print(
            f"{row.operation:12} {row.backend:9} {row.call:18} {row.error + '+' * row.lasts:13} "
            f"{result.tried:7} {result.found:6} {result.doubtful:9}"
        )
    tried, found = sum(one.tried for one in results), sum(one.found for one in results)
    unfinished = sum(one.goes_on for one in results)
    print(f"{len(results)} rows, {tried} cases: {found} findings; larger n are left in {unfinished} rows")


if __name__ == "__main__":
    sys.exit(main())
