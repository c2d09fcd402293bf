"""Periodic work: it is repeated, also after a failure."""

import asyncio

from structlog.testing import capture_logs

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
