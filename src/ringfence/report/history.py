"""What happened over time as text: a line with a chart for each kind of count.

A *slot* is a part of the period (such as an hour) for which the daemon has its own counts. A column of a
chart shows the sum of one or more slots. This module performs no I/O.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ringfence.clock import column_length, format_duration
from ringfence.report.layout import TextForm
from ringfence.report.sparkline import sparkline

_COLUMNS = 48
"""The maximum number of columns of a chart; a line then has 80 columns."""
_ZERO = {True: "·", False: "."}  # with and without UTF-8

Slots = Sequence[Mapping[str, Any]]


def history_lines(found: Mapping[str, Any], form: TextForm) -> Iterator[str]:
    """Yield a line for each kind of count, with its total and its chart."""
    begin, end = (datetime.fromisoformat(found[key]).timestamp() for key in ("since", "until"))
    length = column_length(end - begin - found["step"], _COLUMNS)  # the first slot may begin earlier
    columns = _columns(found["slots"], begin, end, length)
    span = f"{form.moment(found['since'])} to {form.moment(found['until'])} {form.zone}"
    yield f"{span}, {format_duration(length)} a column"
    yield ""
    yield f"{'':<17}{'TOTAL':>7}{'PROVEN':>7} OVER TIME"
    for label, total, proven, path in _rows(found["totals"]):
        shown = "" if proven is None else str(proven)
        chart = _chart([_sum_of(slots, path) for slots in columns], columns, utf8=form.utf8)
        yield f"{label:<17}{total:>7}{shown:>7} {chart}".rstrip()
    missing = end - begin - found["watched"]
    if missing >= 2 * found["step"]:
        yield ""
        yield f"ringfence did not run for {format_duration(missing)} of this time (blank in the chart)."


def _rows(totals: Mapping[str, Any]) -> Iterator[tuple[str, int, int | None, tuple[str, ...]]]:
    """Yield for each count its label, its total, and how many of it are proven (None if not counted).

    The fourth value is the path: the keys under which a slot has this count.
    """
    for kind, parts in totals["attempts"].items():
        yield f"attempts {kind}", parts["total"], parts["proven"], ("attempts", kind, "total")
    yield "unconfirmed", totals["unconfirmed"], None, ("unconfirmed",)
    for rule, number in totals["bans"].items():
        yield f"bans {rule}", number, None, ("bans", rule)
    yield "unbans", totals["unbans"], None, ("unbans",)


def _columns(slots: Slots, begin: float, end: float, length: int) -> list[Slots]:
    """Return the slots of each column, for the latest ``_COLUMNS`` columns of ``length`` seconds.

    ``begin`` and ``end`` are those of the period, in seconds since the epoch.
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
    """Return a character for each number, by its share of the greatest one.

    It is blank if the column has no slot, because ringfence did not run then.
    """
    marks = sparkline(numbers, blocks=utf8, zero=_ZERO[utf8])
    return "".join(mark if slots else " " for mark, slots in zip(marks, columns, strict=True))
