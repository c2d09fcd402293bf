"""Periodic work on the database of a running daemon."""

import asyncio
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.guard.test_requests import Office
from tests.support.attempts import ban_of
from tests.support.full_disk import FullDisk
from tests.support.kept import OTHER, Kept
from tests.support.recorded import active

from ringfence import control_server
from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.errors import StoreError
from ringfence.guard.firewall_side import StoreWatch
from ringfence.guard.request_table import RequestGate, Rights
from ringfence.ledger import key_of
from ringfence.store.database import Store


def test_damage_is_an_alarm_until_it_is_fixed(kept: Kept) -> None:
    """A damaged database is an alarm with its text, which ends when the damage is repaired."""
    effort = SimpleNamespace(unreadable="", diverged=False)
    store: Any = SimpleNamespace(damage=lambda: "page 3", memory_reason="", best_effort=effort, error="")
    watch = StoreWatch(store, kept.clock)
    assert watch.alarms == [Alarm(AlarmCode.STORE_DAMAGED, "", "page 3")]
    store.damage = str
    assert watch.alarms == []


def test_a_database_that_fails(kept: Kept) -> None:
    """A full disk and unreadable bans are alarms with their texts."""

    def fail() -> None:
        raise StoreError("disk full")

    store = kept.side.common.store
    assert StoreWatch(store, kept.clock).alarms == []
    store.best_effort.write_now(fail)
    store.best_effort.report_unreadable(3)
    assert [(alarm.code, alarm.text) for alarm in StoreWatch(store, kept.clock).alarms] == [
        ("store.invalid_bans", store.best_effort.unreadable),
        ("store.not_recorded", "the latest changes are not recorded: disk full"),
    ]


@pytest.mark.parametrize("put_back", [False, True])
def test_a_database_that_is_replaced(kept: Kept, tmp_path: Path, put_back: bool) -> None:  # noqa: FBT001 - a case
    """SQLite writes to the old file, which the next start does not find."""
    path = tmp_path / "own" / "ringfence.db"
    path.parent.mkdir()
    with Store.open_or_memory(path) as store:
        watch = StoreWatch(store, kept.clock)
        assert watch.alarms == []
        path.rename(tmp_path / "away.db")
        if put_back:
            path.touch()
        [alarm] = watch.alarms
        assert (alarm.code, "was removed or replaced while it was in use" in alarm.text) == (
            "store.not_recorded",
            True,
        )


def test_a_person_learns_that_the_database_is_gone(kept: Kept, tmp_path: Path) -> None:
    """The answer to a change states that the next start will not know it."""
    friends, effort = kept.side.exempt.friends.friends, kept.store.best_effort
    handlers = RequestGate(Office(kept).handlers, Rights(999), friends, (), kept.clock, effort).handlers()
    kept.store.connection.path.rename(tmp_path / "away.db")

    async def answered() -> object:
        control_server.PEER.set(control_server.Peer(0, 1))
        answer: Any = handlers["ban"]({"networks": ["192.0.2.1"], "seconds": 60})
        return await answer

    answer = asyncio.run(answered())
    assert isinstance(answer, control_server.Unrecorded)
    assert "was removed or replaced while it was in use" in answer.why


def test_a_database_in_memory(kept: Kept, tmp_path: Path) -> None:
    """A database that cannot be opened is an alarm with the reason."""
    (tmp_path / "file").touch()
    with Store.open_or_memory(tmp_path / "file" / "ringfence.db") as store:
        assert [(alarm.code, alarm.text) for alarm in StoreWatch(store, kept.clock).alarms] == [
            ("store.in_memory", store.memory_reason)
        ]


def test_old_bans_are_purged(kept: Kept) -> None:
    """A purge removes bans that ended long ago, and keeps others."""
    kept.store.bans.record([ban_of(OTHER, kept.now - 500 * 86_400), ban_of("192.0.2.2", kept.now)])
    kept.side.common.store_watch.purge()

    past = [kept.store.bans.past(ip_network(text), 0.0, 9) for text in (OTHER, "192.0.2.2")]
    assert [len(found) for found in past] == [0, 1]


def full(*_: object) -> None:
    """Fail as on a full disk."""
    raise StoreError("disk full")


def test_dropped_writes_are_made_good_by_the_bans_in_force(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If too many writes waited, the records are compared with the bans in force when the disk has room."""
    kept.side.start()
    kept.ban("203.0.113.1", "203.0.113.2")
    watch, bans = kept.side.common.store_watch, kept.store.bans
    with monkeypatch.context() as patch:
        patch.setattr("ringfence.store.writer.MOST_KEPT", 2)
        disk = FullDisk(monkeypatch, bans, "record", "end")
        for number in range(3, 6):
            kept.ban(f"203.0.113.{number}")
        kept.enforcer.apply(kept.enforcer.book.unban([key_of(ip_network("203.0.113.1"))]))
        watch.retry(kept.enforcer)
        codes = [alarm.code for alarm in watch.alarms]
        assert codes == [AlarmCode.STORE_NOT_RECORDED, AlarmCode.STORE_SLOW]
    disk.is_full = False
    watch.retry(kept.enforcer)
    watch.retry(kept.enforcer)

    assert watch.alarms == []
    recorded = {str(ban.network) for ban in active(kept.store, kept.now)}
    assert recorded == {f"203.0.113.{number}/32" for number in range(2, 6)} == kept.banned()


def test_alarms_wait_for_the_disk(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alarm that could not be saved is saved later, in its latest state."""
    alarms, saved = kept.alarms, kept.side.common.kept_alarms
    with monkeypatch.context() as patch:
        patch.setattr(kept.store.alarms, "record", full)
        alarms.activate(AlarmCode.TASK_FAILED, "a", "first")
        saved.save()
        alarms.activate(AlarmCode.TASK_FAILED, "a", "second")
        saved.save()
        assert kept.store.best_effort.waiting == 1
    kept.store.best_effort.retry()

    assert [record.text for record in kept.store.alarms.active()] == ["second"]
