"""The wait at the start, until the friends of this PBX are known."""

import asyncio

import structlog

from ringfence.clock import Clock
from ringfence.daemon.effects import EffectHandler
from ringfence.daemon.reload import Reloader
from ringfence.daemon.source_manager import SourceManager
from ringfence.friends.registry import FriendRegistry

LOOK_EVERY = 0.05  # seconds between two checks whether the phones are known


class StartupWait:
    """Delays bans until the registered phones are known: before that, a rule could ban one of them."""

    def __init__(
        self,
        friends: FriendRegistry,
        sources: SourceManager,
        effects: EffectHandler,
        reloader: Reloader,
        clock: Clock,
    ) -> None:
        self._friends = friends
        self._sources = sources
        self._effects = effects
        self._reloader = reloader
        self._clock = clock
        self._log = structlog.get_logger()

    def begin(self) -> None:
        """Keep decisions to ban from now on; :meth:`run` carries them out."""
        self._effects.hold()

    async def run(self) -> None:
        """Carry out the kept decisions when the phones are known.

        Return as soon as the limiter (the kernel's limit of packets per address) may drop packets, too.
        """
        startup, waits = self._friends.startup, True
        while waits or not startup.for_limiter:
            startup.update(self._sources.readiness(), self._clock.mono())
            if waits and startup.for_bans:
                waits = False
                self._log.info("friends.known", friends=len(self._friends.friends))
                self._reloader.warn_of_decoys()
                self._effects.release()
            await asyncio.sleep(LOOK_EVERY)
