"""The store as others see it: what waits, what fails, and what is shown of it."""

from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.attempts import ban_of

from ringfence.errors import StoreError
from ringfence.model import Scope
from ringfence.records import Records
from ringfence.store import KEEP, Store

SUBJECT = ip_network("192.0.2.1")


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    """Give an open store."""
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        yield store


def test_what_is_to_be_remembered_waits_its_turn(store: Store) -> None:
    """Nothing is written before its time has come, and then in the order in which it was said."""
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
    """Bans by rules are counted since then; what ended long ago is forgotten when asked."""
    records = Records(store)
    records.ban([ban_of("192.0.2.1", 1_000.0, 60.0)])
    assert (records.offences(SUBJECT, 1_000.0), records.offences(SUBJECT, 1_001.0)) == (1, 0)

    records.purge(1_061.0 + KEEP)
    assert records.offences(SUBJECT, 0.0) == 0


def test_a_store_that_fails_is_said_once_and_shown(store: Store) -> None:
    """Each question has an answer all the same; the error is gone with the first success."""
    records = Records(store)

    def fail() -> str:
        raise StoreError("disk full")

    with capture_logs() as logs:
        assert records.read(fail, "nothing") == "nothing"
        records.remember(fail)
        assert records.error == "disk full"
        records.ban([ban_of("192.0.2.1")])

    assert records.error == ""
    assert logs == [{"event": "store.failed", "log_level": "error", "error": "disk full"}]


def test_a_closed_store_stops_nobody(store: Store) -> None:
    """Whoever asks gets what is true of an empty one."""
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
    """Where nothing in the store lasts, the reason goes with it; else it is empty."""
    assert (Records(store).fleeting, Records(store, fleeting="the disk is full").fleeting) == (
        "",
        "the disk is full",
    )
