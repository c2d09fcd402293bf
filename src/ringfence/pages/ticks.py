"""The labels of the time axis of a chart, at round times in UTC. No side effects."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from attrs import frozen

MOST_TICKS = 8
"""The maximum number of labels of an axis, so that they fit next to each other on a phone."""
_MOST_MONTHS = 6
"""The maximum number of labels of an axis if they have months, because these are longer."""
_DAY = 86_400
_STEPS = (
    60,
    300,
    600,
    1_800,
    3_600,
    2 * 3_600,
    4 * 3_600,
    6 * 3_600,
    12 * 3_600,
    _DAY,
    2 * _DAY,
    5 * _DAY,
    7 * _DAY,
)
"""The possible seconds between two labels. For longer periods there are labels at first days of months."""
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)
"""The possible numbers of months between two labels."""


@frozen
class Tick:
    """A label of a chart's time axis. ``at`` is its place: 0 is the start of the axis, and 1 its end."""

    at: float
    label: str


def ticks_between(begin: float, end: float) -> list[Tick]:
    """Return the labels of an axis from ``begin`` to ``end`` (seconds since the epoch), oldest first.

    A label is a time of day, or a date at midnight. On long axes it is a date or a month.
    """
    for times, is_long in _choices(begin, end):
        if len(times) <= (_MOST_MONTHS if is_long else MOST_TICKS):
            return [Tick((time - begin) / (end - begin), _label(time, is_long=is_long)) for time in times]
    return []


def _choices(begin: float, end: float) -> Iterator[tuple[Sequence[float], bool]]:
    """Yield the times of the labels for each step between two of them, the shortest step first.

    The second value: the labels are months.
    """
    for step in _STEPS:
        if end - begin <= step * MOST_TICKS:
            yield range(-int(-begin // step) * step, int(end) + 1, step), False
    first, last = (datetime.fromtimestamp(time, UTC) for time in (begin, end))
    for step in _MONTHS:
        months = range(first.year * 12 // step * step, last.year * 12 + last.month, step)
        times = (datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp() for month in months)
        yield [time for time in times if begin <= time <= end], True


def _label(time: float, *, is_long: bool) -> str:
    moment = datetime.fromtimestamp(time, UTC)
    if is_long:
        return f"{moment:%Y-%m}"
    return f"{moment:%m-%d}" if time % _DAY == 0 else f"{moment:%H:%M}"
