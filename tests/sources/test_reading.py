"""How far the events of AMI have been read."""

import asyncio
from math import inf

import pytest

from ringfence.sources.ami import LAG_LASTS, Reading
from ringfence.sources.roster import AmiListener


class Pings:
    """A connection whose replies take some seconds."""

    def __init__(self, takes: float) -> None:
        self._takes = takes

    def request(self, headers: dict[str, str]) -> asyncio.Future[None]:
        """Answer a Ping."""
        assert headers == {"Action": "Ping"}
        loop = asyncio.get_running_loop()
        reply = loop.create_future()
        loop.call_later(self._takes, reply.set_result, None)
        return reply


class Done(AmiListener):
    """Sets an event when it is known how far events have been read."""

    def __init__(self, done: asyncio.Event) -> None:
        self._done = done

    def on_read(self) -> None:
        """Set the event."""
        self._done.set()


async def found(reading: Reading, done: asyncio.Event, *, ping_takes: float = 0.0) -> float:
    """Ask once; return the time at which it was asked."""
    done.clear()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reading.run(Pings(ping_takes)))
        at = asyncio.get_running_loop().time()
        reading.ask()
        await done.wait()
        task.cancel()
    return at


@pytest.mark.parametrize(
    ("lags", "lag"),
    [
        ([], 0.0),
        ([0.6], 0.6),
        ([0.3, 0.1], 0.3),
    ],
)
def test_the_lag_of_events_is_subtracted(lags: list[float], lag: float) -> None:
    """All events before the question are known after two Pings, less the greatest lag of late."""

    async def main() -> None:
        done = asyncio.Event()
        reading = Reading(Done(done))
        now = asyncio.get_running_loop().time()
        reading.lags.extend((now, one) for one in lags)
        at = await found(reading, done)
        assert reading.until == pytest.approx(at - lag, abs=0.05)

    asyncio.run(main())


def test_an_old_lag_no_longer_counts() -> None:
    """Neither if later events arrived sooner, nor if none arrived at all."""

    async def main() -> None:
        done = asyncio.Event()
        reading = Reading(Done(done))
        assert reading.until == -inf
        now = asyncio.get_running_loop().time()
        reading.lags.append((now - LAG_LASTS, 9.0))
        at = await found(reading, done)
        assert reading.until == pytest.approx(at, abs=0.05)
        reading.lags.append((now, 0.25))
        at = await found(reading, done)
        assert reading.until == pytest.approx(at - 0.25, abs=0.05)

    asyncio.run(main())


def test_what_happens_during_the_pings_is_not_known() -> None:
    """The time is that of the question, however late the reply comes."""

    async def main() -> None:
        done = asyncio.Event()
        reading = Reading(Done(done))
        at = await found(reading, done, ping_takes=0.1)
        assert reading.until == pytest.approx(at, abs=0.09)

    asyncio.run(main())
