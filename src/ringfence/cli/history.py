"""``ringfence history``: show how many attempts, bans and unbans there were over time."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli import times
from ringfence.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ask_daemon,
    duration_from,
    errors_reported,
    settings_from,
)
from ringfence.cli.output import echo, echo_json, echo_stderr
from ringfence.cli.sparkline import has_blocks, sparkline
from ringfence.cli.times import short_time
from ringfence.clock import column_length, format_duration
from ringfence.errors import DaemonUnreachableError

_COLUMNS = 48
"""The maximum number of columns of a chart. With the text before the chart, a line then has 80 columns."""
_ZERO = {True: "·", False: "."}  # the character for 0, with and without UTF-8

Slots = Sequence[Mapping[str, Any]]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line ``app``."""
    app.command()(history)


def history(
    config: ConfigOption = DEFAULT_CONFIG,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="How far to look back, such as 6h, 7d or 52w.")
    ] = "24h",
    local: times.LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show attempts and bans over time, up to a year back."""
    times.choose(local=local)
    seconds = duration_from("--since", since)
    with errors_reported():
        found = _found(config, seconds)
    if as_json:
        echo_json(found)
    else:
        echo(*history_lines(found, utf8=has_blocks(sys.stdout.encoding)))


def _found(path: Path, seconds: float) -> Mapping[str, Any]:
    """Return the history from the daemon, or from the database if the daemon does not run."""
    try:
        found: Mapping[str, Any] = ask_daemon(path, "history", seconds=seconds)
    except DaemonUnreachableError:
        from ringfence.daemon.timeline_json import read_history  # noqa: PLC0415 - loaded when the command runs
        from ringfence.store.database import Store  # noqa: PLC0415 - loaded when the command runs

        database = settings_from(path).store.path
        if not database.exists():
            raise
        with Store.open(database, owner=False) as store:
            found = read_history(store.timeline, seconds, time.time())
        echo_stderr("The daemon is not running: this is what it has recorded.")
    return found


def history_lines(found: Mapping[str, Any], *, utf8: bool) -> Iterator[str]:
    """Yield the lines of a history: a head, and for each count its total, its proven part and its chart.

    ``found`` is the daemon's answer to ``history``. ``utf8``: the terminal can show characters beyond ASCII.
    """
    begin, end = (datetime.fromisoformat(found[key]).timestamp() for key in ("since", "until"))
    length = column_length(end - begin - found["step"], _COLUMNS)  # the first slot may begin earlier
    columns = _columns(found["slots"], begin, end, length)
    span = f"{short_time(found['since'])} to {short_time(found['until'])} {times.zone()}"
    yield f"{span}, {format_duration(length)} a column"
    yield ""
    yield f"{'':<17}{'TOTAL':>7}{'PROVEN':>7} OVER TIME"
    for label, total, proven, path in _rows(found["totals"]):
        shown = "" if proven is None else str(proven)
        chart = _chart([_sum_of(slots, path) for slots in columns], columns, utf8=utf8)
        yield f"{label:<17}{total:>7}{shown:>7} {chart}".rstrip()
    missing = end - begin - found["watched"]
    if missing >= 2 * found["step"]:
        yield ""
        yield f"ringfence did not run for {format_duration(missing)} of this time (blank in the chart)."


def _rows(totals: Mapping[str, Any]) -> Iterator[tuple[str, int, int | None, tuple[str, ...]]]:
    """Yield for each count its label, its total, its proven part, and its path.

    The proven part is None for counts without one. The path is the keys that lead to the count in a slot.
    """
    for kind, parts in totals["attempts"].items():
        yield f"attempts {kind}", parts["total"], parts["proven"], ("attempts", kind, "total")
    yield "unconfirmed", totals["unconfirmed"], None, ("unconfirmed",)
    for rule, number in totals["bans"].items():
        yield f"bans {rule}", number, None, ("bans", rule)
    yield "unbans", totals["unbans"], None, ("unbans",)


def _columns(slots: Slots, begin: float, end: float, length: int) -> list[Slots]:
    """Return the slots of each column of the chart, for the latest columns, at most _COLUMNS.

    A slot has the counts of a short time, such as a minute. A column has ``length`` seconds, and contains the
    slots that begin in it. ``begin`` and ``end`` are seconds since the epoch.
    """
    columns: list[list[Mapping[str, Any]]] = [[] for _ in range(-int((begin - end) // length))]
    for slot in slots:
        number = int((datetime.fromisoformat(slot["start"]).timestamp() - begin) // length)
        if 0 <= number < len(columns):
            columns[number].append(slot)
    return [*columns[-_COLUMNS:]]


def _sum_of(slots: Slots, path: tuple[str, ...]) -> int:
    total = 0
    for slot in slots:
        value: Any = slot
        for part in path:
            value = value.get(part, {})
        total += value or 0
    return total


def _chart(numbers: Sequence[int], columns: Sequence[Slots], *, utf8: bool) -> str:
    """Return a chart: a character for each number, by its share of the greatest one.

    The character is blank for a column without slots, because ringfence did not run then.
    """
    marks = sparkline(numbers, blocks=utf8, zero=_ZERO[utf8])
    return "".join(mark if slots else " " for mark, slots in zip(marks, columns, strict=True))
