"""The history as text: a line with a chart for each kind of count, such as unbans. No side effects.

The daemon counts by *slots*: a slot is a minute, an hour or a day of the period. A column of a chart shows
the sum of one or more slots.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ringfence.cli.plain_text import TextForm, sparkline
from ringfence.clock import column_length, format_duration

_COLUMNS = 48
"""The maximum number of columns of a chart. With so many, a whole line has 80 columns."""
_ZERO = {True: "·", False: "."}  # the character for 0 in a chart, with and without UTF-8

Slots = Sequence[Mapping[str, Any]]


def history_lines(found: Mapping[str, Any], form: TextForm) -> Iterator[str]:
    """Yield a line for each kind of count, with its total and its chart.

    ``found`` is the history of a period, as the daemon returns it.
    """
    begin, end = (datetime.fromisoformat(found[key]).timestamp() for key in ("since", "until"))
    # The first slot may begin up to one step (the length of a slot) before the period that was asked for. The
    # step is subtracted, because this small part must not make the columns longer.
    length = column_length(end - begin - found["step"], _COLUMNS)
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
    """Yield four values for each kind of count in ``totals``: label, total, how many are proven, and path.

    The third is None for counts other than attempts. The path has the keys, from the outer to the inner one,
    under which a slot (the counts of a short period) has this count.
    """
    for kind, parts in totals["attempts"].items():
        yield f"attempts {kind}", parts["total"], parts["proven"], ("attempts", kind, "total")
    yield "unconfirmed", totals["unconfirmed"], None, ("unconfirmed",)
    for rule, number in totals["bans"].items():
        yield f"bans {rule}", number, None, ("bans", rule)
    yield "unbans", totals["unbans"], None, ("unbans",)


def _columns(slots: Slots, begin: float, end: float, length: int) -> list[Slots]:
    """Return the slots (counts of short periods) of each chart column. A column is ``length`` seconds long.

    The period is from ``begin`` to ``end`` (seconds since the epoch). Return the latest ``_COLUMNS`` columns.
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
    """Return a character for each number, by its share of the greatest number.

    If the number's column has no slots, the character is a blank, because ringfence did not run then.
    """
    marks = sparkline(numbers, blocks=utf8, zero=_ZERO[utf8])
    return "".join(mark if slots else " " for mark, slots in zip(marks, columns, strict=True))
