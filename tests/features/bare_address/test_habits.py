"""What friends ask for, as it is recorded and kept in the database."""

from ipaddress import ip_address

import pytest

from ringfence.features.bare_address.habits import DAY, MOST, STEP, WATCH_FOR, Habit, Habits
from ringfence.features.bare_address.table import LOST_AFTER, HabitTable
from ringfence.store.database import Store

NOW = 1_700_006_400.0
ALICE, BOB = ip_address("192.0.2.1"), ip_address("2001:db8::1")


@pytest.fixture(name="table")
def _table(store: Store) -> HabitTable:
    """Return an empty table."""
    return HabitTable(store.connection)


def test_who_asks_for_no_name() -> None:
    """A friend is new there once in seven days, and counts so long."""
    habits = Habits(NOW)
    assert not habits.record(ALICE, "pbx.example", NOW, named=True)
    assert habits.record(BOB, "198.51.100.9", NOW, named=False)
    assert not habits.record(BOB, "198.51.100.8", NOW + WATCH_FOR - 1, named=False)
    assert habits.without_name(NOW + 2 * WATCH_FOR - 2) == [
        (BOB, Habit(bare=NOW + WATCH_FOR - 1, host="198.51.100.8"))
    ]
    assert [one for one, _ in habits.lately(NOW + WATCH_FOR - 1)] == [ALICE, BOB]
    assert [one for one, _ in habits.lately(NOW + WATCH_FOR)] == [BOB]
    assert habits.without_name(NOW + 2 * WATCH_FOR - 1) == []
    assert habits.record(BOB, "198.51.100.9", NOW + 3 * WATCH_FOR, named=False)


def test_the_phones_of_a_large_pbx_are_reported_once() -> None:
    """Ten thousand phones that ask for the address each minute are not new each time."""
    habits, phones = Habits(NOW), [ip_address(number) for number in range(10_000)]
    for phone in phones:
        habits.record(phone, "198.51.100.9", NOW, named=False)
    assert not any(habits.record(phone, "198.51.100.9", NOW + 60, named=False) for phone in phones)


def test_the_oldest_is_forgotten() -> None:
    """The number of addresses is bounded, and a later request within an hour changes nothing."""
    habits = Habits(NOW)
    for number in range(MOST + 1):
        habits.record(ip_address(number), "", NOW, named=True)
    assert len([*habits.lately(NOW)]) == MOST
    assert len(habits.take_changed()) == MOST + 1
    habits.record(ip_address(MOST), "", NOW + STEP - 1, named=True)
    assert habits.take_changed() == []
    habits.record(ip_address(MOST), "", NOW + STEP, named=True)
    assert len(habits.take_changed()) == 1


def test_a_restart_changes_nothing(table: HabitTable) -> None:
    """What was recorded within seven days is there again, the latest last."""
    assert table.load(NOW) == (NOW, [])
    alice, bob = Habit(named=NOW + 5), Habit(bare=NOW, host="198.51.100.9")
    table.save(NOW - DAY, NOW + 5, [(ALICE, alice), (BOB, bob)])
    assert table.load(NOW + 6) == (NOW - DAY, [(BOB, bob), (ALICE, alice)])
    table.save(NOW - DAY, NOW + WATCH_FOR, [])
    assert table.load(NOW + WATCH_FOR) == (NOW - DAY, [(BOB, bob), (ALICE, alice)])
    assert table.load(NOW + WATCH_FOR + 1) == (NOW - DAY, [(ALICE, alice)])


@pytest.mark.parametrize("later", [LOST_AFTER + 1, -1.0])
def test_a_gap_begins_again(table: HabitTable, later: float) -> None:
    """If nobody has watched for a day, or the clock was set back, the seven days begin again."""
    table.save(NOW - DAY, NOW, [(ALICE, Habit(named=NOW))])
    assert table.load(NOW + LOST_AFTER)[0] == NOW - DAY
    assert table.load(NOW + later) == (NOW + later, [])


def test_what_was_recorded_before_a_gap_stays_forgotten(table: HabitTable) -> None:
    """A second restart after a gap finds only what was recorded since."""
    table.save(NOW - DAY, NOW, [(ALICE, Habit(bare=NOW, host="198.51.100.9"))])
    began = NOW + 2 * LOST_AFTER
    assert table.load(began) == (began, [])
    bob = Habit(named=began)
    table.save(began, began + 1, [(BOB, bob)])
    assert table.load(began + 2) == (began, [(BOB, bob)])


def test_old_and_damaged_rows(table: HabitTable, store: Store) -> None:
    """Old rows are removed; an invalid address is left out."""
    table.save(NOW, NOW, [(ALICE, Habit(named=NOW)), (BOB, Habit(named=NOW + 1))])
    store.purge(NOW + WATCH_FOR + 1)
    with store.connection.transaction() as execute:
        execute("INSERT INTO bare_address_friends VALUES ('x', 1.0, ?, '')", (NOW + WATCH_FOR,))
    table.save(NOW, NOW + WATCH_FOR, [])
    assert [address for address, _ in table.load(NOW + WATCH_FOR)[1]] == [BOB]
