"""The report of a period as one page of HTML. It needs no other file, runs no script, and can be printed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from markupsafe import Markup

from ringfence.clock import column_length
from ringfence.web.chart import Column, columns_of, drawing
from ringfence.web.rendering import FOLDER, environment

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
    return (
        environment()
        .get_template("report.html")
        .render(
            found=found,
            style=Markup((FOLDER / "static/style.css").read_text("utf-8")),  # noqa: S704 - a file of ours
            charts=_charts(history, length),
            columns=columns,
            length=length,
            missing=max(0.0, end - begin - history["watched"]),
        )
    )


def _charts(history: Document, length: int) -> list[dict[str, Any]]:
    """Return a chart for each kind of attempt, and one of the bans. A column covers ``length`` seconds."""
    totals = history["totals"]
    charts = []
    for kind, parts in totals["attempts"].items():
        columns = columns_of(history, length, kind)
        series = {
            "attempts": [one.attempts for one in columns],
            "proven": [one.proven for one in columns],
        }
        charts.append(_chart(f"Attempts: {kind}", parts["total"], columns, series))
    columns = columns_of(history, length)
    charts.append(
        _chart("Bans", sum(totals["bans"].values()), columns, {"bans": [one.bans for one in columns]})
    )
    return charts


def _chart(title: str, total: int, columns: list[Column], series: dict[str, list[int]]) -> dict[str, Any]:
    return {
        "title": title,
        "total": total,
        "most": max(max(numbers) for numbers in series.values()),
        "svg": Markup(drawing(columns, series)),  # noqa: S704 - numbers only
    }
