"""Periodic work."""

import asyncio
from collections.abc import Callable


async def every(seconds: float, action: Callable[[], object]) -> None:
    """Call ``action`` every ``seconds``, for the first time after that time, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        action()
