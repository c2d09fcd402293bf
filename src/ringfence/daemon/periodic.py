"""Periodic work."""

import asyncio
from collections.abc import Callable


async def every(seconds: float, action: Callable[[], object]) -> None:
    """Wait for ``seconds`` and call ``action``, again and again until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        action()
