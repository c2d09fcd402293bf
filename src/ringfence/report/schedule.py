"""When a weekly report is due: each Monday at 06:00 local time."""

from datetime import datetime, time, timedelta, tzinfo

WEEK = 7 * 86_400.0
_TIME = time(6)


def next_report(after: float, zone: tzinfo | None = None) -> float:
    """Return the first Monday at 06:00 that is later than ``after``. Times are seconds since the epoch.

    ``zone`` is the time zone of 06:00; None means the time zone of this host.
    """
    day = datetime.fromtimestamp(after, zone).date()
    monday = day - timedelta(days=day.weekday())
    first, second = (
        datetime.combine(date, _TIME, zone).timestamp() for date in (monday, monday + timedelta(weeks=1))
    )
    return first if first > after else second


class WeeklySchedule:
    """Decides when the reports of one channel are due. Times are seconds since the epoch.

    ``last`` is the time of the last report. Before the first report, it is the time when the channel was new.
    A report is due at the first Monday, 06:00, after ``last``. So a clock that is set back repeats no report.

    If ``last`` is more than a week in the future, either ``last`` or the present clock is wrong. Then the
    weeks are counted from now. ``last`` is not changed before the next report, because it may be right: some
    hosts start with a clock that is years behind, until a time server corrects it.
    """

    def __init__(self, last: float, zone: tzinfo | None = None) -> None:
        self.last = last
        self._zone = zone
        self._begun_again: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether a report is due at ``now``."""
        if self.last <= now + WEEK:
            self._begun_again = None
        elif self._begun_again is None or self._begun_again > now + WEEK:
            self._begun_again = now
        since = self.last if self._begun_again is None else self._begun_again
        return next_report(since, self._zone) <= now

    def done(self, now: float) -> None:
        """Record that a report was sent at ``now``, or was dropped after several failures."""
        self.last, self._begun_again = now, None
