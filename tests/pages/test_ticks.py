"""The labels of the time axis of a chart."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.pages.charts import PERIODS
from ringfence.pages.ticks import MOST_TICKS, ticks_between

END = datetime(2026, 11, 25, 1, 17, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "labels"),
    [
        ("hour", ["00:20", "00:30", "00:40", "00:50", "01:00", "01:10"]),
        ("day", ["04:00", "08:00", "12:00", "16:00", "20:00", "11-25"]),
        ("week", ["11-19", "11-20", "11-21", "11-22", "11-23", "11-24", "11-25"]),
        ("month", ["10-29", "11-03", "11-08", "11-13", "11-18", "11-23"]),
        ("year", ["2026-01", "2026-03", "2026-05", "2026-07", "2026-09", "2026-11"]),
    ],
)
def test_labels_are_round_times(period: str, labels: list[str]) -> None:
    """Each period has labels at round times: minutes, hours, days or months."""
    found = ticks_between(END - PERIODS[period].seconds, END)

    assert [one.label for one in found] == labels
    assert all(0 <= one.at <= 1 for one in found)


def test_a_label_stands_at_its_time() -> None:
    """In an hour from 00:17, the label 00:20 stands at three sixtieths of the axis."""
    first = ticks_between(END - 3_600, END)[0]

    assert (first.label, round(first.at, 6)) == ("00:20", 0.05)


@given(seconds=st.integers(60, 40 * 365 * 86_400), end=st.integers(2 * 10**9, 3 * 10**9))
def test_every_axis_has_a_few_labels(seconds: int, end: int) -> None:
    """An axis of any length has labels, not too many, in order and inside."""
    found = ticks_between(end - seconds, end)

    assert 1 <= len(found) <= MOST_TICKS
    places = [one.at for one in found]
    assert places == sorted({*places})
    assert all(0 <= one <= 1 for one in places)
