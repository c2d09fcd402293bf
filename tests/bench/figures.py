"""The rows of a benchmark: each is a figure with its goal and with the figure of others."""

import statistics
from collections.abc import Sequence

from attrs import frozen
from tests.bench.pace import slowness

RACE = 20
"""The guesses that arrive within some 20 ms, at full speed on a machine of pace 1."""


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

    ``answered`` is the number of answers in each trial. Their median counts. Beyond the ``most`` that a rule
    permits, the guesses are answered that arrive while the reports of the first ones are written and read:
    ``RACE``, and more on a slow machine. No rule can stop these; the ration is for them. With the ration, the
    kernel bounds each trial (the part ``rations``). A trial without an answer tests nothing.
    """
    here = most + RACE * slowness()
    must = f"median ≤ {here:.0f}: {most} and those of some 20 ms, without the ration; 1 or more in each"
    return must, statistics.median(answered) <= here and min(answered) >= 1


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
