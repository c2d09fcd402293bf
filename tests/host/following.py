"""Runs a script while the reports of a follower of this host are recorded."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import TypeVar

from ringfence.errors import HostError

_T = TypeVar("_T")


async def followed_by(
    following: AsyncIterator[_T | HostError],
    seen: list[_T],
    failed: list[HostError],
    script: Coroutine[None, None, None],
) -> None:
    """Run ``script``. Meanwhile append what the follower yields to ``seen``, or its errors to ``failed``."""

    async def record() -> None:
        async for found in following:
            if isinstance(found, HostError):
                failed.append(found)
            else:
                seen.append(found)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(record())
        await script
        task.cancel()
