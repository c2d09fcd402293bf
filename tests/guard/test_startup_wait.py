"""The wait at the start, until the friends are known."""

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.support.kept import Kept

from ringfence.friends.startup import LIMITS_IN_ALL, ROSTERS_LAST, SourceReadiness
from ringfence.guard.daemon import StartupWait


def test_decisions_are_held_until_the_rosters_are_known(kept: Kept) -> None:
    """Rules ban as soon as every roster is known or overdue; the wait ends when the limiter may drop, too."""
    order: list[str] = []
    effects: Any = SimpleNamespace(hold=lambda: order.append("hold"), release=lambda: order.append("release"))
    reloader: Any = SimpleNamespace(warn_of_decoys=lambda: order.append("decoys"))
    sources: Any = SimpleNamespace(readiness=lambda: [SourceReadiness(since=0.0, roster_ready=False)])
    wait = StartupWait(kept.side.exempt.friends, sources, effects, reloader, kept.clock)

    async def run() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(wait.run())
            await asyncio.sleep(0.1)
            order.append("overdue")
            kept.now += 4.0
            await asyncio.sleep(0.1)
            order.append("long overdue")
            kept.now += LIMITS_IN_ALL

    wait.begin()
    asyncio.run(run())
    assert order == ["hold", "overdue", "decoys", "release", "long overdue"]
    startup = kept.side.exempt.friends.startup
    assert (startup.for_limits, startup.lacks_roster) == (True, False)
    kept.now += ROSTERS_LAST
    wait.look()
    assert (startup.for_limits, startup.lacks_roster) == (True, True)
