"""Dates in the formats that administrators configure; the corpus (prefixes.txt) has one of each form."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.worst import is_linear

from ringfence.parse.dates import DateReader

NOW = 1795154722.0
BERLIN = ZoneInfo("Europe/Berlin")
SINCE_1975 = datetime.fromisoformat("1975-01-01"), datetime.fromisoformat("2090-01-01")
TWO_YEARS = datetime.fromisoformat("2026-01-01"), datetime.fromisoformat("2027-12-31")


@given(st.datetimes(*SINCE_1975), st.booleans())
@settings(deadline=None)
def test_iso_is_exact(moment: datetime, compact: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """Any moment with its offset is parsed exactly, whatever the log's zone."""
    aware = moment.replace(tzinfo=UTC)
    text = aware.strftime("%Y-%m-%d %H:%M:%S.%f%z") if compact else aware.isoformat()
    assert DateReader(BERLIN).seconds(text.encode(), NOW) == pytest.approx(aware.timestamp(), abs=1e-5)


@given(st.datetimes(*TWO_YEARS), st.floats(0, 300 * 86400))
@settings(deadline=None)
def test_without_a_year_it_is_the_last_one(moment: datetime, age: float) -> None:
    """A date without a year, parsed within most of a year after it, is that of its own year."""
    then = moment.replace(microsecond=0, tzinfo=UTC)
    text = then.strftime("%b %e %H:%M:%S").encode()
    assert DateReader(UTC).seconds(text, then.timestamp() + age) == then.timestamp()


def test_a_remembered_date_does_not_outlive_its_year() -> None:
    """The same text means another date a year later."""
    reader = DateReader(UTC)
    first = reader.seconds(b"Nov 20 06:05:22", NOW)
    later = reader.seconds(b"Nov 20 06:05:22", NOW + 365 * 86400)
    assert (first, later) == (NOW, NOW + 365 * 86400)


def test_memory_is_bounded() -> None:
    """Of any number of dates, few are kept."""
    reader = DateReader(UTC)
    for minute in range(5_000):
        reader.seconds(datetime.fromtimestamp(NOW + 60 * minute, UTC).strftime("%F %T").encode(), NOW)
    assert len(reader._known) <= 514


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"yesterday",
        b"2026-13-01 00:00:00",
        b"2026-02-30 00:00:00",
        b"2026-11-20 25:00:00",
        b"2026-11-20 06:05:",
        b"Foo 20 06:05:22",
        b"2026-11-20 06:05:22 +9999",
        b"0000-01-01 00:00:00",
        b"9" * 48,
        b"9" * 1_000_000,
    ],
)
def test_no_date(text: bytes) -> None:
    """Text that only looks like a date gives None."""
    assert DateReader(UTC).seconds(text, NOW) is None


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_no_bytes_raise(text: bytes) -> None:
    """A date is a number or None."""
    assert isinstance(DateReader(None).seconds(text, NOW), float | None)


def test_it_takes_linear_time() -> None:
    """Text that is too long for a date is not parsed."""
    assert is_linear(lambda text: DateReader(UTC).seconds(text, NOW), b"", b"1")


def test_a_repeated_hour_is_the_one_that_passes_now() -> None:
    """A cached minute does not outlive the clock change: 02:30:05 CET is 59 minutes after 02:30:59 CEST."""
    dates = DateReader(BERLIN)
    first = datetime(2026, 10, 25, 0, 30, 59, tzinfo=UTC).timestamp()
    second = datetime(2026, 10, 25, 1, 30, 5, tzinfo=UTC).timestamp()
    assert dates.seconds(b"Oct 25 02:30:59", first) == first
    assert dates.seconds(b"Oct 25 02:30:05", second) == second


def test_a_line_of_a_repeated_hour_that_is_read_late_is_past() -> None:
    """A line of 02:10 CEST, read at 02:55 CEST, is no line of 02:10 CET."""
    dates = DateReader(BERLIN)
    written = datetime(2026, 10, 25, 0, 10, tzinfo=UTC).timestamp()
    assert dates.seconds(b"2026-10-25 02:10:00", written + 45 * 60) == written
