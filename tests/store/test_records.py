"""The records of bans: delayed writes, failures, and what they return then."""

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

from structlog.testing import capture_logs
from tests.support.attempts import ban_of
from tests.support.recorded import active

from ringfence.store.bans import KEEP, Records
from ringfence.store.database import Store
from ringfence.store.writer import BestEffort
from ringfence.values.ban import Scope

Action = Callable[[], object]
SUBJECT = ip_network("192.0.2.1")


def test_queued_writes_keep_their_order(store: Store, path: Path) -> None:
    """Writes wait until they are run, and keep their order."""
    waiting: list[Action] = []
    records = Records(store.bans, store.switch, BestEffort(path, waiting.append))
    records.ban([ban_of("192.0.2.1"), ban_of("192.0.2.2")])
    records.end([(SUBJECT, Scope.FULL)], 1_100.0)
    assert active(store, 1_050.0) == []

    for action in waiting:
        action()
    assert active(store, 1_050.0) == [ban_of("192.0.2.2")]


def test_offences_are_counted_until_they_are_purged(store: Store) -> None:
    """Bans by rules are counted since the given time; bans that ended long ago are deleted on request."""
    records = store.records
    records.ban([ban_of("192.0.2.1", 1_000.0, 60.0)])
    assert (records.offences(SUBJECT, 1_000.0), records.offences(SUBJECT, 1_001.0)) == (1, 0)

    store.purge(1_061.0 + KEEP)
    assert records.offences(SUBJECT, 0.0) == 0


def test_an_unreadable_ban_is_left_out_and_reported(store: Store) -> None:
    """Bans are read one by one; an invalid one is skipped and reported, and the others are returned."""
    records = store.records
    bans = [ban_of(f"192.0.2.{last}", 1_000.0 + last) for last in (1, 2, 3)]
    records.ban(bans)
    assert list(records.running(2_000.0)) == bans
    store.connection._writer.execute("UPDATE bans SET origin = 'nobody' WHERE network = '192.0.2.2/32'")
    with capture_logs() as logs:
        assert list(records.running(2_000.0)) == [bans[0], bans[2]]

    assert [entry["event"] for entry in logs] == ["store.failed"]
    assert store.best_effort.unreadable.startswith("1 ban in ")


def test_enforcement_is_on_without_a_recorded_switch(store: Store) -> None:
    """Enforcement is on without a value; if the store cannot be read, the last known value counts."""
    said = [store.records.switched_off]
    store.records.set_switched_off(True)
    said.append(store.records.switched_off)
    store.close()
    with capture_logs():
        said.append(store.records.switched_off)

    assert said == [False, True, True]


def test_a_closed_store_reads_like_an_empty_one(store: Store) -> None:
    """The records of a closed store return the values of an empty one."""
    store.close()
    with capture_logs():
        store.records.ban([ban_of("192.0.2.1")])
        store.records.end([(SUBJECT, Scope.FULL)], 1.0)

        assert store.records.offences(SUBJECT, 0.0) == 0
    assert "closed database" in store.best_effort.error
