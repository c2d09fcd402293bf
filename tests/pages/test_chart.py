"""The graph of attempts and bans over time."""

import re
from typing import Any

from ringfence.pages.charts import HEIGHT, PERIODS, Column, axis, columns_of, drawing, ticks_of
from ringfence.pages.ticks import Tick


def slot(minute: int, total: int = 0, proven: int = 0, bans: int = 0) -> dict[str, Any]:
    """Return a slot of the daemon's history, a minute long."""
    return {
        "start": f"2026-11-21T02:{minute:02}:00Z",
        "watched": 60,
        "attempts": {"guess": {"total": total, "proven": proven}, "probe": {"total": 1, "proven": 0}},
        "bans": {"guess": bans, "slow": 1},
        "unbans": 0,
        "unconfirmed": 0,
    }


def history(*slots: dict[str, Any]) -> dict[str, Any]:
    """Return a history of ten minutes."""
    return {"since": "2026-11-21T02:00:00Z", "until": "2026-11-21T02:09:30Z", "step": 60, "slots": [*slots]}


def test_slots_become_columns() -> None:
    """A column has the counts of all its slots; a column without a slot was not watched."""
    columns = columns_of(history(slot(0, 2, 1, 3), slot(1, 4, 4), slot(9, 1)), 120)

    assert [(one.attempts, one.proven, one.bans) for one in columns] == [
        (8, 5, 5),
        (0, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
        (2, 0, 1),
    ]
    assert [one.watched for one in columns] == [True, False, False, False, True]
    assert columns[1].start - columns[0].start == 120


def test_no_period_has_too_many_columns() -> None:
    """Each period has at most 60 columns, of whole slots as the daemon keeps them."""
    for period in PERIODS.values():
        assert 48 <= period.seconds / period.column <= 60
        assert period.column % 60 == 0


def test_the_drawing_has_a_bar_for_each_number() -> None:
    """The highest number is as high as the drawing, a small one is visible, and zero has no bar."""
    columns = [Column(0.0, watched=True)] * 3
    svg = drawing(columns, {"attempts": [0, 1, 10_000]})

    assert 'viewBox="0 0 3 100"' in svg
    assert re.findall(r"M(\d+) 100v-([\d.]+)", svg) == [("1", "1.0"), ("2", str(float(HEIGHT)))]
    assert "gap" not in svg
    assert "script" not in svg


def test_the_axis_has_a_line_and_a_label_for_each_tick() -> None:
    """The lines stand in the drawing, and the labels below it, unless an edge would cut a label."""
    ticks = [Tick(0.0, "04:00"), Tick(0.5, "08:00"), Tick(0.94, "12:00")]
    svg, labels = drawing([Column(0.0)] * 3, {"bans": [0, 0, 0]}, ticks), axis(ticks)

    assert '<path class="tick" d="M0.0 0v100M1.5 0v100M2.82 0v100"/>' in svg
    assert re.findall(r'x="([\d.]+)%" y="1em" text-anchor="middle">([\d:]+)<', labels) == [
        ("50.0", "08:00"),
        ("94.0", "12:00"),
    ]
    assert "style=" not in svg + labels


def test_the_ticks_of_a_chart() -> None:
    """The ticks of a chart stand at round times between its begin and its end."""
    found = ticks_of([Column(60.0 * at) for at in range(10)], 60)

    assert [(one.at, one.label) for one in found] == [(0.0, "01-01"), (0.5, "00:05"), (1.0, "00:10")]


def test_gaps_are_drawn_once() -> None:
    """Adjacent columns in which ringfence did not run are one gap."""
    columns = [Column(0.0), Column(1.0), Column(2.0, watched=True), Column(3.0)]
    svg = drawing(columns, {"bans": [0, 0, 0, 0]})

    assert re.findall(r"M(\d+) 100v-100h(\d+)v", svg.partition('class="bans"')[0]) == [("0", "2"), ("3", "1")]
