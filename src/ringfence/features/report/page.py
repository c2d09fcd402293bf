"""The report of a period as one page of HTML. It needs no other file, runs no script, and can be printed."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ringfence.clock import column_length
from ringfence.pages.charts import chart_of, columns_of, ticks_of
from ringfence.pages.templates import STYLE, environment
from ringfence.pages.ticks import Tick

_COLUMNS = 60
"""The maximum number of columns of a chart."""

Document = Mapping[str, Any]


def report_page(found: Document) -> str:
    """Return a report as HTML. ``found`` is the report as ``summary_of`` returns it."""
    history = found["history"]
    begin, end = (datetime.fromisoformat(history[key]).timestamp() for key in ("since", "until"))
    # The first slot of the history may begin up to one step (a slot's length) before the report's period.
    length = column_length(end - begin - history["step"], _COLUMNS)
    columns = columns_of(history, length)
    ticks = ticks_of(columns, length)
    return (
        environment(Path(__file__).parent)
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
