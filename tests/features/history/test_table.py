"""The history in the database: added up, bounded, and safe from a wrong clock."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ringfence.errors import StoreError
from ringfence.features.history.table import DAY, HOUR, KEPT, MINUTE, Slot, Timeline, slot_length
from ringfence.store.database import Store
from ringfence.store.file import VERSION

NOON = 1_795_262_400.0  # 2026-11-21 12:00 UTC
NAMES = [f"attempts.a-rather-long-name.{number}" for number in range(30)]
MOST = 20_000_000  # bytes


@pytest.fixture(name="timeline")
def _timeline(store: Store) -> Timeline:
    """Return an empty timeline."""
    return Timeline(store.connection)


def test_counts_are_added_to_the_minute_the_hour_and_the_day(timeline: Timeline) -> None:
    """Counts of two minutes are in two minutes, one hour and one day; a count of 0 takes no room."""
    timeline.add(NOON + 30, 60.0, {"bans.guess": 2, "unbans": 0})
    timeline.add(NOON + 90, 60.0, {"bans.guess": 3, "unbans": 1})

    both = {"bans.guess": 5, "unbans": 1}
    assert timeline.read(MINUTE, NOON, NOON + 3_600) == [
        Slot(int(NOON), 60.0, {"bans.guess": 2}),
        Slot(int(NOON) + 60, 60.0, {"bans.guess": 3, "unbans": 1}),
    ]
    assert timeline.read(HOUR, NOON, NOON) == [Slot(int(NOON), 120.0, both)]
    assert timeline.read(DAY, NOON - DAY, NOON) == [Slot(int(NOON) // DAY * DAY, 120.0, both)]


def test_a_quiet_minute_is_recorded(timeline: Timeline) -> None:
    """A minute in which nothing happened differs from a minute without a daemon."""
    timeline.add(NOON, 60.0, {})

    assert timeline.read(MINUTE, NOON - 60, NOON + 60) == [Slot(int(NOON), 60.0, {})]


def test_a_slot_is_never_watched_for_longer_than_it_lasts(timeline: Timeline) -> None:
    """If a clock that was set back makes an hour happen twice, its counts are added up."""
    for _ in range(2):
        timeline.add(NOON, 60.0, {"unbans": 1})

    assert timeline.read(MINUTE, NOON, NOON) == [Slot(int(NOON), 60.0, {"unbans": 2})]


def test_the_timeline_outlasts_a_restart(path: Path) -> None:
    """Two runs of the daemon within a minute add to the same slot."""
    for _ in range(2):
        with Store.open(path, owner=True) as store:
            Timeline(store.connection).add(NOON, 10.0, {"unbans": 1})

    with Store.open(path, owner=False) as store:
        assert Timeline(store.connection).read(MINUTE, NOON, NOON) == [Slot(int(NOON), 20.0, {"unbans": 2})]


def test_the_slots_are_bounded(timeline: Timeline) -> None:
    """After a purge there are a day of minutes, a month of hours, and a year of days: the latest."""
    for minute in range(KEPT[MINUTE] + 5):
        timeline.add(NOON + 60 * minute, 60.0, {"unbans": 1})
    timeline.purge()

    kept = timeline.read(MINUTE, 0, NOON * 2)
    assert len(kept) == KEPT[MINUTE]
    assert kept[0].start == NOON + 5 * 60
    assert sum(slot.counts["unbans"] for slot in timeline.read(DAY, 0, NOON * 2)) == KEPT[MINUTE] + 5


@pytest.mark.parametrize("wrong", [10 * 366 * DAY, -10 * 366 * DAY])
def test_a_wrong_clock_removes_nothing(timeline: Timeline, wrong: float) -> None:
    """If the clock is years ahead or behind for some minutes, the minutes before stay."""
    for minute in range(100):
        timeline.add(NOON + 60 * minute, 60.0, {"unbans": 1})
    for minute in range(5):
        timeline.add(NOON + wrong + 60 * minute, 60.0, {"unbans": 1})
        timeline.purge()

    assert len(timeline.read(MINUTE, NOON, NOON + 6_000)) == 100


def test_slots_of_a_wrong_clock_are_removed_in_their_turn(timeline: Timeline) -> None:
    """Slots in the future do not stay for ever: those that were written longest ago are removed first."""
    timeline.add(NOON + 366 * DAY, 60.0, {"unbans": 1})
    for minute in range(KEPT[MINUTE]):
        timeline.add(NOON + 60 * minute, 60.0, {"unbans": 1})
    timeline.purge()

    assert timeline.read(MINUTE, NOON + 300 * DAY, NOON * 2) == []


def test_a_full_timeline_is_small(path: Path) -> None:
    """With every slot and many names, the database has less than 20 MB."""
    counts = dict.fromkeys(NAMES, 1_000_000)
    with Store.open(path, owner=True) as store:
        for length, number in KEPT.items():
            for slot in range(number):
                Timeline(store.connection).add(NOON + length * slot, 60.0, counts)
        store.purge(NOON)
        size = store.size()

    assert size < MOST


def test_an_error_of_the_database_is_an_error_of_the_store(timeline: Timeline) -> None:
    """An error while writing leaves nothing half written."""
    with pytest.raises(StoreError):
        timeline.add(NOON, 60.0, {"unbans": 1, "bans.guess": object()})  # type: ignore[dict-item]

    assert timeline.read(MINUTE, NOON, NOON) == []


@pytest.mark.parametrize(
    ("seconds", "length"), [(60, MINUTE), (DAY, MINUTE), (DAY + 1, HOUR), (31 * DAY, HOUR), (32 * DAY, DAY)]
)
def test_the_shortest_slots_that_are_kept_as_long(seconds: float, length: int) -> None:
    """A day is shown in minutes, a month in hours, and everything longer in days."""
    assert slot_length(seconds) == length


def test_years_are_shown_in_days() -> None:
    """Longer than a year, days are the only slots."""
    assert slot_length(3_650 * DAY) == DAY


def test_the_timeline_is_copied_from_a_damaged_or_newer_database(path: Path) -> None:
    """The readable part of an unusable database includes the timeline."""
    with Store.open(path, owner=True) as store:
        Timeline(store.connection).add(NOON, 60.0, {"unbans": 1})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")

    with Store.open_or_memory(path) as store:
        assert store.memory_reason
        assert Timeline(store.connection).read(MINUTE, NOON, NOON) == [Slot(int(NOON), 60.0, {"unbans": 1})]
