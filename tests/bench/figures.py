"""What a bench gives: rows of a table, each a figure with what it must be and what others reach."""

import statistics
from collections.abc import Sequence

from attrs import field, frozen


@frozen
class Figure:
    """One row. ``reached`` is None where nothing is demanded."""

    what: str
    measured: str
    must: str = ""
    reached: bool | None = None
    compared: str = ""
    notes: tuple[str, ...] = field(default=())


def spread(values: Sequence[float], unit: str = "") -> str:
    """Write a series as its median and its range."""
    ordered = sorted(values)
    if not ordered:
        return "none"
    median = statistics.median(ordered)
    return (
        f"median {_number(median)}{unit} ({_number(ordered[0])} to {_number(ordered[-1])}, n={len(ordered)})"
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"


def table(figures: Sequence[Figure]) -> str:
    """Write the rows as a Markdown table."""
    lines = [
        "| what | measured | must be | reached | for comparison, in the same run |",
        "|---|---|---|---|---|",
    ]
    for figure in figures:
        reached = {True: "yes", False: "NO", None: ""}[figure.reached]
        cells = (figure.what, figure.measured, figure.must, reached, figure.compared)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
