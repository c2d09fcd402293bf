"""One log of one Asterisk as a source: from written lines to events, alarms, places and states."""

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from structlog.testing import capture_logs
from tests.support.captures import FOLDER
from tests.support.lab import Lab

from ringfence.model import SecurityEvent, SourceId
from ringfence.parse.log import LogReader
from ringfence.sources.backoff import Backoff
from ringfence.sources.logfile import LogFileSource
from ringfence.sources.state import State

ID = SourceId("pbx", "log")
CAPTURE = (FOLDER / "asterisk-22" / "unknown-account-register.security.log").read_bytes()
QUEUE = (
    b"[2026-11-20 06:05:02.731] WARNING[17114] logger.c: "
    b"Log queue threshold (1000) exceeded.  Discarding new messages.\n"
)


@define
class Heard:
    """A source at work, what it handed on, and what it wants remembered."""

    source: LogFileSource = field(init=False)
    events: list[SecurityEvent] = field(factory=list)
    times: list[float] = field(factory=list)
    places: dict[str, str] = field(factory=dict)
    logs: Sequence[Any] = ()

    def take(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Be the source's sink."""
        self.events += events
        self.times += [now] * len(events)

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for something to become true."""
        async with asyncio.timeout(20):
            while not true():  # noqa: ASYNC110 - what is waited for knows of no event
                await asyncio.sleep(0.002)


def listen(
    path: Path,
    then: Callable[[Heard], Coroutine[Any, Any, None]],
    position: str | None = None,
    sink: Callable[[Sequence[SecurityEvent], float], None] | None = None,
) -> Heard:
    """Have a source listen to ``path`` while ``then`` runs."""
    heard = Heard()

    async def session() -> None:
        heard.source = LogFileSource(
            ID,
            path,
            LogReader(ID),
            sink or heard.take,
            position,
            heard.places.__setitem__,
            Backoff(0.01, 0.02),
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(heard.source.run())
            await heard.source.settled.wait()
            await then(heard)
            assert not task.done()
            task.cancel()

    with capture_logs() as heard.logs:
        asyncio.run(session())
    return heard


def append(path: Path, data: bytes) -> None:
    """Write at the log's end."""
    with path.open("ab") as file:
        file.write(data)


def test_what_a_log_tells_is_handed_on(tmp_path: Path) -> None:
    """A recording of Asterisk written to a followed log gives its events, at the time they arrive."""
    path = tmp_path / "ringfence"
    path.write_bytes(CAPTURE)

    async def then(heard: Heard) -> None:
        now = asyncio.get_running_loop().time()
        append(path, CAPTURE)
        await heard.until(lambda: len(heard.events) == CAPTURE.count(b"SECURITY["))
        assert all(now <= time <= now + 20 for time in heard.times)

    heard = listen(path, then)
    assert heard.source.counts.events == len(heard.events) > 0
    assert heard.source.condition.state is State.LISTENING
    assert heard.source.skipped == 0


def test_what_was_written_while_it_was_down_counts_at_its_age(tmp_path: Path) -> None:
    """After a restart old lines are handed on once, with a time long before now."""
    path = tmp_path / "ringfence"
    path.touch()

    async def nothing(_: Heard) -> None:
        pass

    places = listen(path, nothing).places
    append(path, CAPTURE)

    async def then(heard: Heard) -> None:
        await heard.until(lambda: len(heard.events) == CAPTURE.count(b"SECURITY["))
        now = asyncio.get_running_loop().time()
        assert all(time < now for time in heard.times)

    heard = listen(path, then, places[f"{ID} {path}"])
    assert listen(path, nothing, heard.places[f"{ID} {path}"]).events == []


def test_asterisks_own_alarms_are_the_sources(tmp_path: Path) -> None:
    """A full log queue is counted as an alarm, since evidence is lost then."""
    path = tmp_path / "ringfence"
    path.touch()

    async def then(heard: Heard) -> None:
        append(path, QUEUE)
        await heard.until(lambda: heard.source.alarms)

    heard = listen(path, then)
    assert {name: count.count for name, count in heard.source.alarms.items()} == {
        "the log's queue is full, lines are lost": 1
    }


def test_a_defect_costs_a_piece_and_not_the_source(tmp_path: Path) -> None:
    """Where the sink raises, the state tells and the log has it; what comes after is heard."""
    path = tmp_path / "ringfence"
    path.touch()
    taken: list[SecurityEvent] = []
    fails = [True]

    def sink(events: Sequence[SecurityEvent], _: float) -> None:
        if fails.pop() if fails else False:
            raise ZeroDivisionError
        taken.extend(events)

    async def then(heard: Heard) -> None:
        append(path, CAPTURE)
        await heard.until(lambda: heard.source.condition.state is State.DEFECT)
        append(path, CAPTURE)
        await heard.until(lambda: taken)
        await heard.until(lambda: heard.source.condition.state is State.LISTENING)

    heard = listen(path, then, sink=sink)
    assert [entry["event"] for entry in heard.logs].count("source.defect") == 1
    assert len(taken) == CAPTURE.count(b"SECURITY[")


@pytest.mark.asterisk
def test_a_real_asterisk_rotates_its_log(each_asterisk: Lab) -> None:
    """What Asterisk writes before, between and after rotations and a truncation is heard, each line once."""
    pbx = each_asterisk.asterisk
    path = pbx.logs / "ringfence"

    def attack() -> None:
        each_asterisk.attack("guess", "--number", "20")

    def written() -> int:
        return sum(file.read_bytes().count(b"res_security_log.c:") for file in pbx.logs.glob("ringfence*"))

    before = written()

    async def then(heard: Heard) -> None:
        for command in ("logger rotate", "logger rotate", "logger reload"):
            await asyncio.to_thread(attack)
            await asyncio.to_thread(pbx.cli, command)
        await asyncio.to_thread(attack)
        await asyncio.sleep(0.2)
        shutil.copy(path, path.with_name("ringfence.99"))
        os.truncate(path, 0)
        await asyncio.to_thread(attack)
        await asyncio.sleep(0.2)
        told = [event for event in heard.events if event.source.witness.endswith("#security")]
        assert len(told) == written() - before

    assert len(listen(path, then).events) >= 100
