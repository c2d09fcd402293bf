"""Charts of attempts and bans over time as SVG, from the daemon's answer to ``history``. No side effects.

A chart contains no text, because text in it would become too small on a narrow screen, where the whole chart
shrinks. The labels of its time axis are an image of their own below it, which does not shrink. The page also
shows the numbers as a table, which screen readers can read.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from attrs import evolve, frozen
from markupsafe import Markup

from ringfence.pages.ticks import Tick, ticks_between

HEIGHT = 100
"""The height of a chart in units of its viewBox. A column is one unit wide; the page stretches the chart."""
_CHARACTER = 0.023  # the part of an axis that a character of a label takes on a phone, 360 pixels wide
_BAR = 0.8  # the width of a bar; a column is 1 wide


@frozen
class ChartPeriod:
    """A period that the overview page offers.

    ``seconds`` is its length, and ``column`` the length of each column of its charts (seconds).
    """

    name: str
    seconds: int
    column: int


PERIODS = {
    period.name: period
    for period in (
        ChartPeriod("hour", 3_600, 60),
        ChartPeriod("day", 86_400, 1_800),
        ChartPeriod("week", 7 * 86_400, 3 * 3_600),
        ChartPeriod("month", 30 * 86_400, 12 * 3_600),
        ChartPeriod("year", 365 * 86_400, 7 * 86_400),
    )
}


@frozen
class Column:
    """The counts of one column of a chart, which begins at ``start`` (seconds since the epoch).

    ``proven`` is the number of those ``attempts`` whose source address is verified. ``watched``: ringfence
    ran during at least a part of the column.
    """

    start: float
    attempts: int = 0
    proven: int = 0
    bans: int = 0
    watched: bool = False


def columns_of(found: Mapping[str, Any], length: int, kind: str | None = None) -> list[Column]:
    """Return the columns of a chart, oldest first, including those in which nothing happened.

    ``found`` is the daemon's answer to ``history``, and ``length`` the seconds of a column. With a ``kind``,
    attempts of other kinds are not counted; bans are always counted.
    """
    begin, end = (datetime.fromisoformat(found[key]).timestamp() for key in ("since", "until"))
    columns = [Column(begin + number * length) for number in range(max(1, -int((begin - end) // length)))]
    for slot in found["slots"]:
        number = int((datetime.fromisoformat(slot["start"]).timestamp() - begin) // length)
        if 0 <= number < len(columns):
            columns[number] = _with_slot(columns[number], slot, kind)
    return columns


def _with_slot(column: Column, slot: Mapping[str, Any], kind: str | None) -> Column:
    attempts = [parts for name, parts in slot["attempts"].items() if kind in {None, name}]
    return evolve(
        column,
        attempts=column.attempts + sum(parts["total"] for parts in attempts),
        proven=column.proven + sum(parts["proven"] for parts in attempts),
        bans=column.bans + sum(slot["bans"].values()),
        watched=column.watched or slot["watched"] > 0,
    )


def drawing(
    columns: Sequence[Column], series: Mapping[str, Sequence[int]], ticks: Sequence[Tick] = ()
) -> str:
    """Return a bar chart as SVG.

    ``series`` maps each CSS class to its numbers, one for each column. The bars of a later class are drawn
    over those of the earlier ones. Columns in which ringfence did not run are filled in the class ``gap``.
    There is a vertical line at each of ``ticks``.
    """
    most = max((number for numbers in series.values() for number in numbers), default=0) or 1
    gaps = "".join(_bar(at, HEIGHT, length) for at, length in _gaps(columns))
    paths = [f'<path class="gap" d="{gaps}"/>'] if gaps else []
    lines = "".join(f"M{round(tick.at * len(columns), 3)} 0v{HEIGHT}" for tick in ticks)
    paths += [f'<path class="tick" d="{lines}"/>'] if lines else []
    for name, numbers in series.items():
        bars = (_bar(at, number * HEIGHT / most, _BAR) for at, number in enumerate(numbers) if number)
        paths.append(f'<path class="{name}" d="{"".join(bars)}"/>')
    return (
        f'<svg class="chart" viewBox="0 0 {len(columns)} {HEIGHT}" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false">{"".join(paths)}</svg>'
    )


def ticks_of(columns: Sequence[Column], length: int) -> list[Tick]:
    """Return the labels of the time axis of a chart whose columns are ``length`` seconds long."""
    return ticks_between(columns[0].start, columns[0].start + len(columns) * length)


def axis(ticks: Iterable[Tick]) -> str:
    """Return the labels of the time axis as SVG. The page places it below its charts.

    A label so near to an edge that a phone would cut it is left out.
    """
    labels = "".join(
        f'<text x="{round(100 * tick.at, 2)}%" y="1em" text-anchor="middle">{tick.label}</text>'
        for tick in ticks
        if _CHARACTER * len(tick.label) <= 2 * min(tick.at, 1 - tick.at)
    )
    return f'<svg class="ticks" aria-hidden="true" focusable="false">{labels}</svg>'


def _gaps(columns: Iterable[Column]) -> list[tuple[int, int]]:
    """Return the periods in which ringfence did not run: for each, its first column and number of columns."""
    runs = groupby(enumerate(columns), key=lambda pair: pair[1].watched)
    found = [[at for at, _ in run] for watched, run in runs if not watched]
    return [(run[0], len(run)) for run in found]


def _bar(at: int, height: float, width: float) -> str:
    height = max(1.0, round(height, 1))  # so that one attempt in a chart of thousands is visible
    return f"M{at} {HEIGHT}v-{height}h{width}v{height}z"


def chart_of(
    title: str,
    total: int,
    columns: Sequence[Column],
    series: Mapping[str, Sequence[int]],
    ticks: Sequence[Tick],
) -> dict[str, Any]:
    """Return a chart's values for a template, with its SVG (:func:`drawing`); ``total`` is for its title."""
    return {
        "title": title,
        "total": total,
        "most": max(max(numbers) for numbers in series.values()),
        "svg": Markup(drawing(columns, series, ticks)),  # noqa: S704 - numbers only
        "axis": Markup(axis(ticks)),  # noqa: S704 - numbers only
    }
