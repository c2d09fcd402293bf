"""``make compare``: measure ringfence and its rivals with the same attacks, in the same laboratory.

Each cell is measured separately, and a guard that fails leaves its reason in the cell. A run of all rows
writes RESULTS.md beside this file, and the table of the README. Rows can be chosen by a part of their text
(``make compare ROW=memory``); then the table is only printed. Run it on a machine that does nothing else.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context

from tests.bench.machine import described
from tests.compare.guards import Guard, guards
from tests.compare.page import Compared, table, write
from tests.compare.rows import RELEASE, ROWS, Measured, Row, shown
from tests.support.lab import why_no_asterisk

_MOST_OF_REASON = 100


def main(words: Sequence[str] | None = None) -> int:
    """Measure the chosen rows with every guard; return 1 if a cell could not be measured."""
    parser = argparse.ArgumentParser(prog="make compare", description="Compare ringfence with its rivals.")
    parser.add_argument("rows", nargs="*", metavar="TEXT", help="part of the text of a row; default: all")
    parser.add_argument("--list", action="store_true", help="print the rows")
    arguments = parser.parse_args(words)
    rows = [row for row in ROWS if all(text in row.what for text in arguments.rows)]
    if arguments.list or not rows:
        print("\n".join(row.what for row in rows or ROWS))
        return 0 if rows else 2
    if reason := why_no_asterisk(RELEASE):
        print(f"The comparison needs a real Asterisk: {reason}", file=sys.stderr)
        return 1
    found = compare(rows, guards())
    print(table(found, found.rows))
    if not arguments.rows:
        write(found)
    return 1 if any("not measured" in cell for row in found.cells.values() for cell in row) else 0


def compare(rows: Sequence[Row], of: Sequence[Guard]) -> Compared:
    """Measure each row with each guard."""
    began, day = time.monotonic(), datetime.now(UTC)
    cells = {}
    for row in rows:
        started = time.monotonic()
        if row.together:
            with ProcessPoolExecutor(len(of), get_context("fork")) as processes:
                cells[row.what] = tuple(processes.map(cell, [row.what] * len(of), range(len(of))))
        else:
            turns = [[_measured(row, guard) for guard in of] for _ in range(row.turns)]
            cells[row.what] = tuple(shown(trials) for trials in zip(*turns, strict=True))
        took = time.monotonic() - started
        print(f"{took:5.0f} s  {row.what}: {' | '.join(cells[row.what])}", file=sys.stderr, flush=True)
    return Compared(day, described([RELEASE]), time.monotonic() - began, of, rows, cells)


def cell(what: str, at: int) -> str:
    """Measure a row, by its text, with the guard at this place of all, in another process."""
    [row] = [row for row in ROWS if row.what == what]
    return shown([_measured(row, guards()[at])])


def _measured(row: Row, guard: Guard) -> Measured:
    if guard.missing:
        return f"not measured: {guard.missing}"
    try:
        return row.measure(guard)
    except Exception as error:  # noqa: BLE001 - the other cells are measured all the same
        traceback.print_exc()
        return f"not measured: {str(error)[:_MOST_OF_REASON]}"


if __name__ == "__main__":
    sys.exit(main())
