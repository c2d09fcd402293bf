"""The counts of accounts and addresses by hour."""

import pytest

from ringfence.features.tops import table as module
from ringfence.features.tops.table import HOUR, KEEP_HOURS, Top, TopTable
from ringfence.store.database import Store

LATER = 1_000_000.0 * HOUR


@pytest.fixture(name="table")
def _table(store: Store) -> TopTable:
    """Return an empty table."""
    return TopTable(store.connection)


def test_counts_are_added_up_over_a_period(table: TopTable) -> None:
    """Counts of one hour are added, and those of a period are summed by name, the highest first."""
    table.add("accounts", 10, [("204", 3), ("205", 1)])
    table.add("accounts", 10, [("205", 1)])
    table.add("accounts", 12, [("205", 7)])
    table.add("addresses", 12, [("192.0.2.1", 99)])

    assert table.top("accounts", 10.5 * HOUR, 12.9 * HOUR, 9) == [
        Top("205", 9, 12.0 * HOUR),
        Top("204", 3, 10.0 * HOUR),
    ]
    assert table.top("accounts", 11.0 * HOUR, 12.0 * HOUR, 9) == [Top("205", 7, 12.0 * HOUR)]
    assert table.top("accounts", 0.0, LATER, 1) == [Top("205", 9, 12.0 * HOUR)]


def test_the_table_is_bounded(table: TopTable, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an hour that is over only the highest counts are kept, and old hours are removed."""
    monkeypatch.setattr(module, "MOST_OF_HOUR", 2)
    for hour in (10, 11):
        table.add("accounts", hour, [(str(n), n) for n in range(1, 6)])
    store.purge(11.5 * HOUR)
    assert [one.name for one in table.top("accounts", 0.0, LATER, 9)] == ["5", "4", "3", "2", "1"]
    assert [one.attempts for one in table.top("accounts", 0.0, LATER, 9)] == [10, 8, 3, 2, 1]
    store.purge((KEEP_HOURS + 12) * HOUR)
    assert table.top("accounts", 0.0, LATER, 9) == []


def test_hours_of_a_wrong_clock_do_not_count(
    table: TopTable, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of hours after the present one are not shown, but kept as those of a past hour are."""
    monkeypatch.setattr(module, "MOST_OF_HOUR", 2)
    for hour in (10, 500):
        table.add("accounts", hour, [(str(n), n) for n in range(1, 6)])

    assert [one.attempts for one in table.top("accounts", 9.0 * HOUR, 10.5 * HOUR, 9)] == [5, 4, 3, 2, 1]
    store.purge(10.5 * HOUR)
    assert [one.attempts for one in table.top("accounts", 9.0 * HOUR, LATER, 9)] == [10, 8, 3, 2, 1]
    assert [one.name for one in table.top("accounts", 499.0 * HOUR, LATER, 9)] == ["5", "4"]
