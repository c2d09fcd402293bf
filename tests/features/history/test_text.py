"""The history as text: a chart of 80 columns."""

from typing import Any

import pytest

from ringfence.cli.plain_text import TextForm
from ringfence.clock import column_length
from ringfence.features.history.text import _COLUMNS, _chart, history_lines

HOUR, DAY = 3_600, 86_400
SLOT = {"unbans": 1}


def history(slots: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    """Return a history of a day in minutes with these slots."""
    totals = {
        "attempts": {"guess": {"total": 1_234_567, "proven": 1_000_000}},
        "bans": {"distributed": 1},
        "unbans": 2,
        "unconfirmed": 0,
    }
    span = {"since": "2026-11-20T12:00:00Z", "until": "2026-11-21T12:00:30Z"}
    return {**span, "step": 60, "watched": DAY, "totals": totals, "slots": slots, **more}


def slot(start: str, **counts: object) -> dict[str, object]:
    """Return a slot that begins at a time of the day."""
    return {"start": f"{start}:00Z", "watched": 60, "attempts": {}, "bans": {}, **counts}


def test_a_line_for_each_count() -> None:
    """Each kind of attempt and each rule has a line with its total and its chart, within 80 columns."""
    slots = [
        slot("2026-11-20T12:00", attempts={"guess": {"total": 2, "proven": 1}}),
        slot("2026-11-20T12:29", attempts={"guess": {"total": 6, "proven": 6}}),
        slot("2026-11-20T12:31", unbans=2),
        slot("2026-11-21T12:00", attempts={"guess": {"total": 4, "proven": 0}}, bans={"distributed": 1}),
    ]
    lines = list(history_lines(history(slots), TextForm()))
    blank = " " * 46

    assert lines == [
        "2026-11-20 12:00 to 2026-11-21 12:00 UTC, 30m a column",
        "",
        "                   TOTAL PROVEN OVER TIME",
        f"attempts guess   12345671000000 ·{blank}█",
        f"unconfirmed            0        ·{blank}·",
        f"bans distributed       1        ·{blank}█",
        f"unbans                 2        █{blank}·",
    ]
    assert max(map(len, lines)) <= 80


def test_the_time_without_a_daemon_is_blank_and_stated() -> None:
    """A time in which the daemon did not run is a blank in the chart, and a line states it."""
    lines = list(history_lines(history([slot("2026-11-21T12:00")], watched=60), TextForm()))

    assert lines[-1] == "ringfence did not run for 23h 59m of this time (blank in the chart)."
    assert lines[-3].endswith("2" + " " * 55 + "·")


@pytest.mark.parametrize(
    ("seconds", "length"),
    [(60, 60), (HOUR, 120), (DAY, 1_800), (7 * DAY, 4 * HOUR), (31 * DAY, DAY), (366 * DAY, 14 * DAY)],
)
def test_a_column_is_a_round_time(seconds: float, length: int) -> None:
    """A column is the shortest round time with which the chart fits the line."""
    assert column_length(seconds, _COLUMNS) == length
    assert seconds / length <= _COLUMNS


def test_a_chart_shows_shares_of_the_greatest_number() -> None:
    """The greatest number has the highest bar, a small one the lowest, zero a dot, and nothing a blank."""
    numbers: list[int] = [0, 1, 50, 99, 100, 0]
    columns: list[list[dict[str, int]]] = [*[[SLOT]] * 5, []]

    assert _chart(numbers, columns, utf8=True) == "·▁▄██ "
    assert _chart(numbers, columns, utf8=False) == ".1488 "
    assert _chart([0], [[SLOT]], utf8=True) == "·"
