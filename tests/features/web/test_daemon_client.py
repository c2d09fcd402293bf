"""The requests of the pages to the daemon."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.clock import SetClock

from ringfence import control_server
from ringfence.errors import ControlError, DaemonUnreachableError, NoAnswerError
from ringfence.features.web.daemon_client import OUTDATED_FOR, DaemonClient


class _Daemon:
    """Counts requests."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.arrived = asyncio.Event()

    async def count(self, request: Mapping[str, Any]) -> int:
        """Return how many requests there were, after a moment."""
        self.asked.append(request)
        self.arrived.set()
        await asyncio.sleep(0.05)
        return len(self.asked)

    def refuse(self, _: Mapping[str, Any]) -> int:
        """Refuse."""
        raise ControlError("no")


def test_pages_share_an_answer(tmp_path: Path) -> None:
    """Requests at the same time, and within the seconds, are one request; each argument has its own."""
    daemon, moment = _Daemon(), [0.0]

    async def scenario() -> None:
        async with control_server.serve(tmp_path / "socket", {"count": daemon.count}):
            client = DaemonClient(tmp_path / "socket", SetClock(mono=lambda: moment[0]))
            assert await asyncio.gather(*(client.recent(5.0, "count") for _ in range(3))) == [1, 1, 1]
            assert await client.recent(5.0, "count", of="x") == 2
            moment[0] = 4.9
            assert await client.recent(5.0, "count") == 1
            moment[0] = 5.0
            assert await client.recent(5.0, "count") == 3
            client.forget()
            assert await client.recent(5.0, "count") == 4
            assert await client.ask("count") == 5

    asyncio.run(scenario())
    assert daemon.asked[1] == {"of": "x"}


def test_an_answer_from_before_a_command_is_not_kept(tmp_path: Path) -> None:
    """A request that was under way while a command changed something is asked again by the next page."""
    daemon = _Daemon()

    async def scenario() -> None:
        async with control_server.serve(tmp_path / "socket", {"count": daemon.count}):
            client = DaemonClient(tmp_path / "socket", SetClock(mono=lambda: 0.0))
            async with asyncio.TaskGroup() as group:
                under_way = group.create_task(client.recent(5.0, "count"))
                await daemon.arrived.wait()
                client.forget()
            assert under_way.result() == 1
            assert await client.recent(5.0, "count") == 2

    asyncio.run(scenario())


def test_an_update_does_not_wait(tmp_path: Path) -> None:
    """An outdated answer is returned at once for some seconds, until a command changes something."""
    daemon, moment = _Daemon(), [0.0]

    async def scenario() -> None:
        async with control_server.serve(tmp_path / "socket", {"count": daemon.count}):
            client = DaemonClient(tmp_path / "socket", SetClock(mono=lambda: moment[0]))
            assert await client.latest(5.0, "count") == 1
            moment[0] = 5.0 + OUTDATED_FOR - 1
            assert await client.latest(5.0, "count") == 1
            assert await client.recent(5.0, "count") == 2
            assert await client.latest(5.0, "count") == 2
            client.forget()
            assert await client.latest(5.0, "count") == 3
            moment[0] += 5.0 + OUTDATED_FOR
            assert await client.latest(5.0, "count") == 4

    asyncio.run(scenario())


def test_an_update_does_not_wait_for_a_slow_answer(tmp_path: Path) -> None:
    """An answer that took so long that it is kept for 20 seconds is still returned at once after that."""
    daemon, moments = _Daemon(), iter([0.0, 0.4, 20.0 + OUTDATED_FOR - 1])

    async def scenario() -> None:
        async with control_server.serve(tmp_path / "socket", {"count": daemon.count}):
            client = DaemonClient(tmp_path / "socket", SetClock(mono=lambda: next(moments)))
            assert await client.recent(5.0, "count") == 1
            assert await client.latest(5.0, "count") == 1

    asyncio.run(scenario())


def test_a_slow_answer_is_kept_for_longer(tmp_path: Path) -> None:
    """An answer that took half a second is asked for again after 25 seconds, and none is kept for long."""
    daemon, moments = _Daemon(), iter([0.0, 0.5, 24.9, 25.0, 35.0, 84.9, 85.0, 85.0])

    async def scenario() -> None:
        async with control_server.serve(tmp_path / "socket", {"count": daemon.count}):
            client = DaemonClient(tmp_path / "socket", SetClock(mono=lambda: next(moments)))
            assert [await client.recent(5.0, "count") for _ in range(5)] == [1, 1, 2, 2, 3]

    asyncio.run(scenario())


def test_a_daemon_that_hangs_fails_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that wait for one answer fail together, and not one after the other."""
    monkeypatch.setattr("ringfence.features.web.daemon_client.PATIENCE", 0.5)
    asked = []

    async def hang(request: Mapping[str, Any]) -> None:
        asked.append(request)
        await asyncio.sleep(60)

    async def scenario() -> None:
        async with control_server.serve(tmp_path / "socket", {"hang": hang}):
            client = DaemonClient(tmp_path / "socket", SetClock(mono=lambda: 0.0))
            async with asyncio.timeout(20):
                waiting = (client.recent(5.0, "hang") for _ in range(70))
                failures = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(failure) for failure in failures} == {NoAnswerError}

    asyncio.run(scenario())
    assert len(asked) == 1


def test_a_page_that_leaves_takes_no_answer_away(tmp_path: Path) -> None:
    """If one of the pages that wait for an answer is cancelled, the others get an answer or an error."""
    daemon = _Daemon()

    async def scenario() -> None:
        async with control_server.serve(tmp_path / "socket", {"count": daemon.count}):
            client = DaemonClient(tmp_path / "socket", SetClock(mono=lambda: 0.0))
            async with asyncio.TaskGroup() as group:
                first, second, third = (group.create_task(client.recent(5.0, "count")) for _ in range(3))
                await daemon.arrived.wait()
                second.cancel()
            assert (first.result(), third.result()) == (1, 1)
            client.forget()
            daemon.arrived.clear()
            async with asyncio.TaskGroup() as group:
                first = group.create_task(client.recent(5.0, "count"))
                await daemon.arrived.wait()
                asyncio.get_running_loop().call_later(0.01, first.cancel)
                with pytest.raises(NoAnswerError):
                    await client.recent(5.0, "count")
            assert await client.recent(5.0, "count") == 3

    asyncio.run(scenario())


def test_costly_requests_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most two costly requests run at the same time, and others do not wait for ever."""
    monkeypatch.setattr("ringfence.features.web.daemon_client.PATIENCE", 20.0)
    running, most = 0, 0

    async def explain(request: Mapping[str, Any]) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(request["seconds"])
        running -= 1
        return True

    async def scenario() -> None:
        async with control_server.serve(tmp_path / "socket", {"why": explain}):
            client = DaemonClient(tmp_path / "socket", SetClock(mono=lambda: 0.0))
            quick = (client.ask_costly("why", seconds=0.05) for _ in range(10))
            assert await asyncio.gather(*quick) == [True] * 10
            assert most == 2
            monkeypatch.setattr("ringfence.features.web.daemon_client.PATIENCE", 1.0)
            hanging = (client.ask_costly("why", seconds=60) for _ in range(20))
            async with asyncio.timeout(20):
                failures = await asyncio.gather(*hanging, return_exceptions=True)
            assert sum("too many requests" in str(failure) for failure in failures) >= 16

    asyncio.run(scenario())


def test_errors_are_raised(tmp_path: Path) -> None:
    """A refusal of the daemon, and its absence, are errors, and are not kept."""

    async def scenario() -> None:
        client = DaemonClient(tmp_path / "socket", SetClock(mono=lambda: 0.0))
        with pytest.raises(DaemonUnreachableError):
            await client.recent(5.0, "refuse")
        async with control_server.serve(tmp_path / "socket", {"refuse": _Daemon().refuse}):
            with pytest.raises(ControlError, match="no"):
                await client.recent(5.0, "refuse")

    asyncio.run(scenario())
