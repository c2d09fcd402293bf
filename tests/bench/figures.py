"""The rows of a benchmark: each is a figure with its goal and with the figure of others."""

import statistics
from collections.abc import Sequence

from attrs import frozen
from tests.bench.pace import limited


@frozen
class Figure:
    """One row. ``reached`` is None without a goal; ``cores`` names the cores of the processes, if set."""

    what: str
    measured: str
    must: str = ""
    reached: bool | None = None
    compared: str = ""
    cores: str = ""


def spread(values: Sequence[float], unit: str = "") -> str:
    """Return a series as text: its median and its range."""
    ordered = sorted(values)
    if not ordered:
        return "none"
    median = statistics.median(ordered)
    return (
        f"median {_number(median)}{unit} ({_number(ordered[0])} to {_number(ordered[-1])}, n={len(ordered)})"
    )


def unrationed(answered: Sequence[int], most: int) -> tuple[str, bool]:
    """Return what is promised about answers to an attacker whom no ration limits, and whether it is kept.

    ``answered`` is the number of answers in each trial. Their median counts: the guesses that arrive before a
    busy machine has read the first ones are answered too, so the limit follows the pace of the machine. With
    the ration, the kernel bounds each trial (the part ``rations``). A trial without an answer tests nothing.
    """
    must, reached = limited(statistics.median(answered), most, "without the ration", number=True)
    return f"median {must}, and 1 or more in each", reached and min(answered) >= 1


def percent(values: Sequence[float]) -> str:
    """Return a series of shares as text in percent."""
    return spread([round(100 * value) for value in values], " %")


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"


def table(figures: Sequence[Figure]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| what | measured | must be | reached | cores | for comparison, in the same run |",
        "|---|---|---|---|---|---|",
    ]
    for figure in figures:
        reached = {True: "yes", False: "NO", None: ""}[figure.reached]
        cells = (figure.what, figure.measured, figure.must, reached, figure.cores, figure.compared)
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
