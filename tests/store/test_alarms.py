"""The table of alarms."""

import pytest
from attrs import evolve

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import AlarmRecord
from ringfence.store import tables
from ringfence.store.database import Store
from ringfence.store.tables import KEEP_ALARMS

ONE = AlarmRecord(1, AlarmCode.PHONE_BROKEN, "204 at 192.0.2.1", "wrong", 100.0, 160.0, 700.0, 3)


def test_an_alarm_is_kept_until_long_after_it_cleared(store: Store) -> None:
    """An alarm replaces its earlier record, is past when it has cleared, and is purged in the end."""
    other = AlarmRecord(2, AlarmCode.FIREWALL_OFF, "", "off", 100.0, 100.0, held=True)
    store.alarms.record([ONE, other])
    assert store.alarms.active() == [ONE, other]
    assert store.alarms.next_number() == 3

    cleared = evolve(ONE, cleared=200.0, dismissed=190.0, dismissed_by="alice")
    store.alarms.record([cleared])
    assert store.alarms.active() == [other]
    assert store.alarms.past(0.0, 10) == [cleared]
    assert store.alarms.past(201.0, 10) == []
    store.purge(200.0 + KEEP_ALARMS + 1.0)
    assert store.alarms.past(0.0, 10) == []
    assert store.alarms.active() == [other]


def test_the_history_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarms that cleared first are removed beyond the maximum."""
    monkeypatch.setattr(tables, "MOST_ALARMS", 3)
    store.alarms.record(evolve(ONE, number=n, cleared=200.0 + n) for n in range(1, 8))
    store.purge(300.0)

    assert [one.number for one in store.alarms.past(0.0, 10)] == [7, 6, 5]


def test_a_hostile_subject_and_an_unknown_code(store: Store) -> None:
    """A text that SQLite refuses is escaped, and a row of another version is left out."""
    store.alarms.record([evolve(ONE, subject="\ud800\x1b" + "x" * 65_536)])
    [found] = store.alarms.active()
    assert found.subject.startswith("\\ud800\\x1bx")
    assert len(found.subject) == tables.MAX_SUBJECT
    with store.connection.transaction() as execute:
        execute("UPDATE alarms SET code = 'alarm.of_the_future'")
    assert store.alarms.active() == []
