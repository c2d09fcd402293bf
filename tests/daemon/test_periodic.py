"""Periodic work."""

import asyncio

from ringfence.daemon.periodic import every


def test_an_action_is_repeated_until_the_task_is_cancelled() -> None:
    """The action is called after each pause, and not before the first one."""
    calls: list[int] = []

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(every(0.01, lambda: calls.append(len(calls))))
            await asyncio.sleep(0)
            assert calls == []
            while len(calls) < 3:  # noqa: ASYNC110 - it takes turns with what is tested
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(run())
    assert calls[:3] == [0, 1, 2]
