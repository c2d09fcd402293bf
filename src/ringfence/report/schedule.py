"""When a weekly report is due: each Monday at 06:00 local time."""

from datetime import datetime, time, timedelta, tzinfo

WEEK = 7 * 86_400.0
_TIME = time(6)


def next_report(after: float, zone: tzinfo | None = None) -> float:
    """Return the time of the first Monday at 06:00 after ``after``, both in seconds since the epoch.

    ``zone`` is the time zone, None for that of this host.
    """
    day = datetime.fromtimestamp(after, zone).date()
    monday = day - timedelta(days=day.weekday())
    first, second = (
        datetime.combine(date, _TIME, zone).timestamp() for date in (monday, monday + timedelta(weeks=1))
    )
    return first if first > after else second


class WeeklySchedule:
    """The times of the reports of one channel. ``last`` is the time of the last one, or of the first start.

    If the clock is set back, no report is repeated. If it is set back by more than a week, ``last`` was a
    wrong time: then the reports begin again, for as long as the clock remains so. Some hosts start with a
    clock that is years behind, until a time server corrects it.
    """

    def __init__(self, last: float, zone: tzinfo | None = None) -> None:
        self.last = last
        self._zone = zone
        self._begun_again: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether a report is due."""
        if self.last <= now + WEEK:
            self._begun_again = None
        elif self._begun_again is None or self._begun_again > now + WEEK:
            self._begun_again = now
        since = self.last if self._begun_again is None else self._begun_again
        return next_report(since, self._zone) <= now

    def done(self, now: float) -> None:
        """Record that a report was sent, or was dropped after several failures."""
        self.last, self._begun_again = now, None
