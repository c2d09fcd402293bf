"""A best-effort front of the store: delayed writes, failures, and the error that it shows."""

from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.attempts import ban_of

from ringfence.errors import StoreError
from ringfence.model import AttemptCounts, Scope
from ringfence.store.best_effort import Records
from ringfence.store.database import KEEP, Store

SUBJECT = ip_network("192.0.2.1")


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    """Return an open store."""
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        yield store


def test_what_is_to_be_remembered_waits_its_turn(store: Store) -> None:
    """Writes wait until they are run, and keep their order."""
    waiting: list[Callable[[], object]] = []
    records = Records(store, waiting.append)
    records.ban([ban_of("192.0.2.1"), ban_of("192.0.2.2")])
    records.end([(SUBJECT, Scope.FULL)], 1_100.0)
    records.log_position("a", "1")
    assert (store.running(1_050.0), records.log_positions()) == ([], {})

    for action in waiting:
        action()
    assert store.running(1_050.0) == [ban_of("192.0.2.2")]
    assert records.log_positions() == {"a": "1"}


def test_offences_and_age_are_the_stores(store: Store) -> None:
    """Bans by rules are counted since the given time; bans that ended long ago are deleted on request."""
    records = Records(store)
    records.ban([ban_of("192.0.2.1", 1_000.0, 60.0)])
    assert (records.offences(SUBJECT, 1_000.0), records.offences(SUBJECT, 1_001.0)) == (1, 0)

    records.purge(1_061.0 + KEEP)
    assert records.offences(SUBJECT, 0.0) == 0


def test_a_store_that_fails_is_said_once_and_shown(store: Store) -> None:
    """Each read still returns a value; the error disappears when both a read and a write succeed."""
    records = Records(store)

    def fail() -> str:
        raise StoreError("disk full")

    with capture_logs() as logs:
        assert records.read(fail, "nothing") == "nothing"
        records.remember(fail)
        assert records.error == "disk full"
        records.ban([ban_of("192.0.2.1")])
        records.offences(SUBJECT, 0.0)

    assert records.error == ""
    assert logs == [{"event": "store.failed", "log_level": "error", "error": "disk full"}]


def test_a_full_disk_that_can_be_read_is_still_full(store: Store) -> None:
    """A failed write is shown until a write succeeds, whatever is read in between."""
    records = Records(store)

    def fail() -> str:
        raise StoreError("disk full")

    with capture_logs() as logs:
        for _ in range(2):
            records.remember(fail)
            assert records.offences(SUBJECT, 0.0) == 0
            assert "full" in records.error
    records.ban([ban_of("192.0.2.1")])

    assert records.error == ""
    assert [entry["event"] for entry in logs] == ["store.failed"]


def test_what_cannot_be_read_is_left_out(store: Store) -> None:
    """Bans are read one by one; an invalid one is skipped and reported, and the others are returned."""
    records = Records(store)
    bans = [ban_of(f"192.0.2.{last}", 1_000.0 + last) for last in (1, 2, 3)]
    records.ban(bans)
    assert list(records.running(2_000.0)) == [(ban, AttemptCounts()) for ban in bans]
    store._writer.execute("UPDATE bans SET origin = 'nobody' WHERE network = '192.0.2.2/32'")
    with capture_logs() as logs:
        assert list(records.running(2_000.0)) == [(bans[0], AttemptCounts()), (bans[2], AttemptCounts())]

    assert [entry["event"] for entry in logs] == ["store.failed"]
    assert records.unreadable.startswith("1 bans in ")


def test_nothing_is_taken_for_switched_off(store: Store) -> None:
    """Enforcement is off only if the store has that value; without a value it is on."""
    records = Records(store)
    said = [records.switched_off]
    store.switched_off = True
    said.append(records.switched_off)
    store.close()
    with capture_logs():
        said.append(records.switched_off)

    assert said == [False, True, False]


def test_a_closed_store_stops_nobody(store: Store) -> None:
    """A closed store returns the values of an empty one."""
    records = Records(store)
    store.close()
    with capture_logs():
        records.ban([ban_of("192.0.2.1")])
        records.end([(SUBJECT, Scope.FULL)], 1.0)
        records.purge(1.0)
        records.log_position("a", "1")

        assert (records.offences(SUBJECT, 0.0), records.log_positions()) == (0, {})
    assert "closed database" in records.error


def test_what_does_not_last_says_why(store: Store) -> None:
    """If the store keeps nothing, the reason is available; otherwise it is empty."""
    assert (Records(store).fleeting, Records(store, fleeting="the disk is full").fleeting) == (
        "",
        "the disk is full",
    )
