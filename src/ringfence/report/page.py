"""The report of a period as one page of HTML. It needs no other file, runs no script, and can be printed."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ringfence.clock import column_length, format_duration
from ringfence.plurals import counted
from ringfence.report.ticks import Tick, ticks_between
from ringfence.values.text import printable, rfc3339

TEMPLATES = Path(__file__).parent / "templates"
STYLE = TEMPLATES / "style.css"
"""The style sheet of this page, and of the live page."""
MOST_TEXT = 1_000
"""The most characters of a text that a page shows."""
MOST_NAME = 60
"""The most characters of an account in a table."""


# -- templates: what a page shows of a value


def environment(*folders: Path, **functions: object) -> Environment:
    """Return the Jinja2 environment of the templates in ``folders``, which can call ``functions`` by name.

    Each value in a template is escaped twice: ``printable`` replaces invisible characters, then Jinja2
    escapes HTML. The environment does both, so that a template cannot forget it. A text is cut after
    ``MOST_TEXT`` characters, because a sender can use a name of 64 KB.
    """
    found = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Any] = {
        "counted": counted,
        "moment": moment,
        "duration": format_duration,
        "short": short,
        "utc": lambda seconds: moment(rfc3339(seconds))[:16],
    }
    found.filters.update(filters)
    found.globals.update(functions)
    return found


def visible(value: object) -> object:
    """Return a value as a page shows it.

    A text is cut and made :func:`printable`. None becomes "". Markup (text that is already HTML) and values
    of other types are returned unchanged.
    """
    if value is None:
        return ""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return printable(value if len(value) <= MOST_TEXT else value[: MOST_TEXT - 1] + "…")


def moment(text: str | None, unknown: str = "?") -> str:
    """Return a time from the daemon's JSON as pages show it: ``2026-11-20 10:14:03``, in UTC.

    Return ``unknown`` if ``text`` is None or "".
    """
    return text.replace("T", " ").removesuffix("Z") if text else unknown


def short(text: str | None, most: int = MOST_NAME) -> str:
    """Return at most ``most`` characters of a text, for the cell of a table. A cut text ends with ``…``."""
    text = text or ""
    return text if len(text) <= most else text[: most - 1] + "…"


# -- charts of attempts and bans over time as SVG, from the daemon's answer to ``history``. No side effects
#
# A chart contains no text, because text in it would become too small on a narrow screen, where the whole
# chart shrinks. The labels of its time axis are an image of their own below it, which does not shrink. The
# page also shows the numbers as a table, which screen readers can read.


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


_COLUMNS = 60
"""The maximum number of columns of a chart."""

Document = Mapping[str, Any]


def report_page(found: Document) -> str:
    """Return a report as HTML. ``found`` is the report as ``report.summary.summary_of`` returns it."""
    history = found["history"]
    begin, end = (datetime.fromisoformat(history[key]).timestamp() for key in ("since", "until"))
    # The first slot of the history may begin up to one step (a slot's length) before the report's period.
    length = column_length(end - begin - history["step"], _COLUMNS)
    columns = columns_of(history, length)
    ticks = ticks_of(columns, length)
    return (
        environment(TEMPLATES)
        .get_template("report.html")
        .render(
            found=found,
            style=Markup(STYLE.read_text("utf-8")),  # noqa: S704 - a file of ours
            charts=_charts(history, length, ticks),
            columns=columns,
            length=length,
            missing=max(0.0, end - begin - history["watched"]),
        )
    )


def _charts(history: Document, length: int, ticks: list[Tick]) -> list[dict[str, Any]]:
    """Return a chart for each kind of attempt, and one of the bans. A column covers ``length`` seconds."""
    totals = history["totals"]
    charts = []
    for kind, parts in totals["attempts"].items():
        columns = columns_of(history, length, kind)
        series = {
            "attempts": [one.attempts for one in columns],
            "proven": [one.proven for one in columns],
        }
        charts.append(chart_of(f"Attempts: {kind}", parts["total"], columns, series, ticks))
    columns = columns_of(history, length)
    bans = {"bans": [one.bans for one in columns]}
    charts.append(chart_of("Bans", sum(totals["bans"].values()), columns, bans, ticks))
    return charts


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
