"""Periodic work: it is repeated, also after a failure."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.guard.test_reload import Reloading
from tests.support.clock import SetClock

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.clock import Clock
from ringfence.guard.process import every


def test_an_action_is_repeated_until_the_task_is_cancelled() -> None:
    """The action is called after each pause, and not before the first one."""
    calls: list[int] = []
    alarms = Alarms(Clock())

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(every(0.01, "calls", lambda: calls.append(len(calls)), alarms))
            await asyncio.sleep(0)
            assert calls == []
            while len(calls) < 3:  # noqa: ASYNC110 - it takes turns with what is tested
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(run())
    assert calls[:3] == [0, 1, 2]
    assert alarms.active == []


def test_a_success_ends_the_alarm_of_an_earlier_run() -> None:
    """If the work failed before a restart, its first success after it clears the restored alarm."""
    before, alarms, active = Alarms(Clock()), Alarms(Clock()), list[int]()
    before.activate(AlarmCode.TASK_FAILED, "counters", "OSError: [Errno 24] Too many open files")
    alarms.restore(before.records(), None)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            work = every(0.01, "counters", lambda: active.append(len(alarms.active)), alarms)
            task = group.create_task(work)
            while len(active) < 2:  # noqa: ASYNC110 - it takes turns with what is tested
                await asyncio.sleep(0.01)
            task.cancel()

    with capture_logs():
        asyncio.run(run())
    assert active[:2] == [1, 0]


def test_a_failed_action_is_an_alarm_and_is_tried_again() -> None:
    """An exception is logged once and raises an alarm, which clears when the action succeeds again."""
    alarms, seen = Alarms(Clock()), list[list[str]]()

    async def action() -> None:
        seen.append([f"{alarm.code} {alarm.subject}: {alarm.text}" for alarm in alarms.active])
        if len(seen) < 4:
            raise OSError(24, "Too many open files")

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(every(0.01, "counters", action, alarms))
            while len(seen) < 6:  # noqa: ASYNC110 - it takes turns with what is tested
                await asyncio.sleep(0.01)
            task.cancel()

    with capture_logs() as logs:
        asyncio.run(run())
    failing = f"{AlarmCode.TASK_FAILED} counters: OSError: [Errno 24] Too many open files"
    assert seen[:6] == [[], [failing], [failing], [failing], [], []]
    assert [one["event"] for one in logs if one["event"].startswith("task.")] == ["task.failed", "task.works"]


def test_a_dismissed_failure_stays_dismissed_until_the_action_succeeds() -> None:
    """Each call that fails activates the alarm again, with the same text."""
    active, shown = list[list[int]](), list[int]()

    def now() -> float:
        return 60.0 * len(shown)

    alarms = Alarms(SetClock(now, now))

    async def action() -> None:
        active.append([alarm.times for alarm in alarms.records()])
        shown.append(len(alarms.active))
        for alarm in alarms.active:
            alarms.dismiss(alarm.number, "alice")
        if len(shown) < 4:
            raise OSError(24, "Too many open files")

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(every(0.01, "purge", action, alarms))
            while len(shown) < 5:  # noqa: ASYNC110 - it takes turns with what is tested
                await asyncio.sleep(0.01)
            task.cancel()

    with capture_logs():
        asyncio.run(run())
    assert active[:5] == [[], [1], [2], [3], []]
    assert shown[:5] == [0, 1, 0, 0, 0]


def test_the_daemon_follows_the_hosts_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library looks at the time zone once; periodic work makes it look again, without a restart."""
    actions: dict[str, Callable[[], object]] = {}

    async def nothing() -> None:
        """Do nothing: the test calls the action itself."""

    def recorded(
        _seconds: float, name: str, action: Callable[[], object], _alarms: Alarms
    ) -> Coroutine[None, None, None]:
        actions[name] = action
        return nothing()

    monkeypatch.setattr("ringfence.guard.daemon.every", recorded)
    for work in Reloading(tmp_path).daemon._work():
        work.close()
    before = time.localtime(0).tm_hour
    after = (before + 1) % 24
    try:
        monkeypatch.setenv("TZ", f"TST-{after}")  # so many hours east of Greenwich
        assert time.localtime(0).tm_hour == before
        actions["time zone"]()
        assert time.localtime(0).tm_hour == after
    finally:
        monkeypatch.undo()
        time.tzset()
