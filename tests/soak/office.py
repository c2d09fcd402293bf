"""The phones of an office in the attacker's namespace: ``python -m tests.soak.office --seconds 3600``.

Each phone renews its registration every minute, and every second a random phone calls extension 100. Each
failure is one line of output: the time at which the request began (seconds since the epoch), and what it was.
The last line has the number of successes.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Awaitable

from tests.support.company import RENEW, Phone

PHONES = 50
MOST_SECONDS = 12 * 3_600.0
CALL_EVERY = 1.0


class Office:
    """The phones, and the number of requests that Asterisk accepted."""

    def __init__(self) -> None:
        self.accepted = 0
        self._phones = [Phone(number) for number in range(PHONES)]

    async def run(self, seconds: float) -> None:
        """Register and call for so many seconds."""
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for number, phone in enumerate(self._phones):
                await phone.start()
                group.create_task(self._register(phone, number * RENEW / PHONES))
            await asyncio.sleep(RENEW)
            while True:
                group.create_task(self._try("call", random.choice(self._phones).call()))  # noqa: S311 - no secret
                await asyncio.sleep(CALL_EVERY)

    async def _register(self, phone: Phone, after: float) -> None:
        await asyncio.sleep(after)
        while True:
            await asyncio.gather(self._try("registration", phone.register()), asyncio.sleep(RENEW))

    async def _try(self, what: str, request: Awaitable[bool]) -> None:
        began = time.time()
        if await request:
            self.accepted += 1
        else:
            print(f"{began:.1f} {what}", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    seconds = min(parser.parse_args().seconds, MOST_SECONDS)
    office = Office()
    try:
        asyncio.run(office.run(seconds))
    except TimeoutError:
        print(office.accepted, flush=True)


if __name__ == "__main__":
    main()
