"""When a weekly report is due."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from ringfence.features.report.guard import WEEK, WeeklySchedule, next_report

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE, DAY = 60.0, 86_400.0


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    """Return a local time as seconds since the epoch."""
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("after", "due"),
    [
        ("2026-11-20T12:00", "2026-11-23T06:00"),  # a Friday
        ("2026-11-23T05:59:59", "2026-11-23T06:00"),
        ("2026-11-23T06:00", "2026-11-30T06:00"),
        ("2026-11-29T23:59", "2026-11-30T06:00"),
        ("2026-12-28T07:00", "2027-01-04T06:00"),
        ("2026-03-28T12:00", "2026-03-30T06:00"),  # summer time begins on the 29th
        ("2026-10-24T12:00", "2026-10-26T06:00"),  # and ends on the 25th
    ],
)
def test_a_report_is_due_on_monday_morning(after: str, due: str) -> None:
    """It is the first Monday at 06:00 local time after the last report, also over a change of the clock."""
    assert next_report(at(after), BERLIN) == at(due)


def test_a_week_with_a_change_of_the_clock_has_another_length() -> None:
    """Two reports are an hour less or more than a week apart when summer time begins or ends."""
    spring, autumn = at("2026-03-23T06:00"), at("2026-10-19T06:00")

    assert next_report(spring, BERLIN) - spring == WEEK - 3_600
    assert next_report(autumn, BERLIN) - autumn == WEEK + 3_600


def test_a_day_that_does_not_exist() -> None:
    """A change of the time zone by a whole day neither repeats nor loses a report."""
    apia = ZoneInfo("Pacific/Apia")  # there was no 30 December 2011
    last = at("2011-12-26T06:00", apia)

    assert next_report(last, apia) == at("2012-01-02T06:00", apia)


def test_each_monday_once() -> None:
    """A report that was sent is not due again before the next Monday."""
    schedule = WeeklySchedule(at("2026-11-20T12:00"), BERLIN)
    monday = at("2026-11-23T06:00")

    assert not schedule.is_due(monday - 1)
    assert schedule.is_due(monday)
    schedule.done(monday + MINUTE)
    assert not schedule.is_due(monday + 6 * DAY)
    assert schedule.is_due(monday + WEEK)


def test_a_monday_that_was_missed() -> None:
    """If the daemon did not run on a Monday or on several, one report is due when it runs again."""
    schedule = WeeklySchedule(at("2026-11-02T06:01"), BERLIN)
    now = at("2026-11-25T15:00")

    assert schedule.is_due(now)
    schedule.done(now)
    assert not schedule.is_due(at("2026-11-30T05:59"))
    assert schedule.is_due(at("2026-11-30T06:00"))


@pytest.mark.parametrize("back", [MINUTE, 3_600.0, 2 * DAY])
def test_a_clock_that_is_set_back_repeats_no_report(back: float) -> None:
    """After a correction of up to a week, the next report is that of the next Monday."""
    sent = at("2026-11-23T06:00:05")
    schedule = WeeklySchedule(sent, BERLIN)

    assert not schedule.is_due(sent - back)
    assert not schedule.is_due(at("2026-11-23T06:00"))
    assert schedule.is_due(at("2026-11-30T06:00"))


def test_a_last_report_far_in_the_future_ends_no_reports() -> None:
    """If the clock was wrong by years when a report was sent, the next one comes on the next Monday."""
    schedule = WeeklySchedule(at("2031-01-06T06:00"), BERLIN)

    assert not schedule.is_due(at("2026-11-20T12:00"))
    assert not schedule.is_due(at("2026-11-23T05:59"))
    assert schedule.is_due(at("2026-11-23T06:00"))


def test_a_clock_that_is_wrong_after_the_boot_repeats_no_report() -> None:
    """A host without a clock begins in 1970, until a time server corrects it."""
    schedule = WeeklySchedule(at("2026-11-23T06:00"), BERLIN)

    assert not schedule.is_due(30.0)
    assert not schedule.is_due(at("2026-11-25T12:00"))
    assert schedule.is_due(at("2026-11-30T06:00"))


def test_the_time_zone_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a time zone, the local time of this host counts."""
    now = at("2026-11-20T12:00")

    assert datetime.fromtimestamp(next_report(now)).strftime("%A %H:%M") == "Monday 06:00"  # noqa: DTZ006
