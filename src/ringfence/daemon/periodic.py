"""Periodic work. If it fails, an alarm says so, and it is tried again: it never ends the daemon."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable

import structlog

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms


async def every(
    seconds: float, name: str, action: Callable[[], object | Awaitable[object]], alarms: Alarms
) -> None:
    """Wait for ``seconds`` and call ``action``, again and again until cancelled.

    ``name`` is the subject of the alarm if ``action`` raises an exception. The alarm clears when the action
    succeeds again.
    """
    log = structlog.get_logger()
    failed = False
    while True:
        await asyncio.sleep(seconds)
        try:
            result = action()
            if isawaitable(result):
                await result
        except Exception as error:
            if not failed:  # once, and not every second
                log.exception("task.failed", task=name)
            failed = True
            text = f"{type(error).__name__}: {error}"
            alarms.activate(AlarmCode.TASK_FAILED, name, text)
        else:
            if failed:
                log.info("task.works", task=name)
                alarms.clear(AlarmCode.TASK_FAILED, name)
            failed = False
