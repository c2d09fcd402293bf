"""One log of one Asterisk as a source: from written lines to events, alarms, positions and states."""

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from structlog.testing import capture_logs
from tests.sources.logs import ingest_of
from tests.support.captures import FOLDER
from tests.support.lab import Lab

from ringfence.clock import Backoff
from ringfence.parse.log import LogReader
from ringfence.sources import log_rotation
from ringfence.sources.log_file import LogFileSource
from ringfence.sources.log_rotation import NOWHERE
from ringfence.sources.logs import Positions
from ringfence.sources.state import State
from ringfence.values.event import SecurityEvent, SourceId

ID = SourceId("pbx", "log")
CAPTURE = (FOLDER / "asterisk-22" / "unknown-account-register.security.log").read_bytes()
QUEUE = (
    b"[2026-11-20 06:05:02.731] WARNING[17114] logger.c: "
    b"Log queue threshold (1000) exceeded.  Discarding new messages.\n"
)


@define
class Recorder:
    """A running source, the events that it passed on, and the stored position."""

    source: LogFileSource = field(init=False)
    events: list[SecurityEvent] = field(factory=list)
    times: list[float] = field(factory=list)
    positions: dict[str, str] = field(factory=dict)
    logs: Sequence[Any] = ()

    def sink(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Record events, as the source's sink."""
        self.events += events
        self.times += [now] * len(events)

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until ``true`` returns a true value."""
        async with asyncio.timeout(20):
            while not true():  # noqa: ASYNC110 - what is waited for knows of no event
                await asyncio.sleep(0.002)


def listen(
    path: Path,
    then: Callable[[Recorder], Coroutine[Any, Any, None]],
    position: str | None = None,
    sink: Callable[[Sequence[SecurityEvent], float], None] | None = None,
) -> Recorder:
    """Run a source on ``path`` while ``then`` runs."""
    recorder = Recorder()

    async def session() -> None:
        positions = Positions()
        positions.latest = recorder.positions
        recorder.source = LogFileSource(
            ID,
            path,
            ingest_of(LogReader(ID), sink or recorder.sink),
            position,
            positions,
            Backoff(0.01, 0.02),
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(recorder.source.run())
            await recorder.source.settled.wait()
            await then(recorder)
            assert not task.done()
            task.cancel()

    with capture_logs() as recorder.logs:
        asyncio.run(session())
    return recorder


def append(path: Path, data: bytes) -> None:
    """Write at the log's end."""
    with path.open("ab") as file:
        file.write(data)


def test_events_of_a_log_are_passed_on(tmp_path: Path) -> None:
    """A recording of Asterisk written to a followed log gives its events, at their arrival."""
    path = tmp_path / "ringfence"
    path.write_bytes(CAPTURE)

    async def then(recorder: Recorder) -> None:
        now = asyncio.get_running_loop().time()
        append(path, CAPTURE)
        await recorder.until(lambda: len(recorder.events) == CAPTURE.count(b"SECURITY["))
        assert all(now <= time <= now + 20 for time in recorder.times)

    recorder = listen(path, then)
    assert recorder.source.counts.events == len(recorder.events) > 0
    assert recorder.source.condition.state is State.LISTENING
    assert recorder.source.skipped == 0


def test_lines_written_while_it_was_down_count_at_their_age(tmp_path: Path) -> None:
    """After a restart old lines are passed on once, with a time long before now."""
    path = tmp_path / "ringfence"
    path.touch()

    async def nothing(_: Recorder) -> None:
        pass

    positions = listen(path, nothing).positions
    append(path, CAPTURE)

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: len(recorder.events) == CAPTURE.count(b"SECURITY["))
        now = asyncio.get_running_loop().time()
        assert all(time < now for time in recorder.times)

    recorder = listen(path, then, positions[f"{ID} {path}"])
    assert listen(path, nothing, recorder.positions[f"{ID} {path}"]).events == []


def test_skipped_old_lines_are_a_number_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status shows how many bytes of old lines were skipped."""
    monkeypatch.setattr(log_rotation, "MOST_PAST", 100)
    path = tmp_path / "ringfence"
    path.write_bytes(CAPTURE)

    async def nothing(_: Recorder) -> None:
        pass

    source = listen(path, nothing, NOWHERE.to_text()).source
    assert source.numbers["skipped_bytes"] == source.skipped >= len(CAPTURE) - 100


def test_asterisks_own_alarms_are_the_sources(tmp_path: Path) -> None:
    """A full log queue is counted as an alarm, because evidence is lost then."""
    path = tmp_path / "ringfence"
    path.touch()

    async def then(recorder: Recorder) -> None:
        append(path, QUEUE)
        await recorder.until(lambda: recorder.source.alarms)

    recorder = listen(path, then)
    assert {name: count.count for name, count in recorder.source.alarms.items()} == {
        "the log's queue is full, lines are lost": 1
    }


def test_a_defect_loses_a_piece_and_not_the_source(tmp_path: Path) -> None:
    """If the sink raises, the state and the log show it; later events are passed on."""
    path = tmp_path / "ringfence"
    path.touch()
    taken: list[SecurityEvent] = []
    fails = [True]

    def sink(events: Sequence[SecurityEvent], _: float) -> None:
        if fails.pop() if fails else False:
            raise ZeroDivisionError
        taken.extend(events)

    async def then(recorder: Recorder) -> None:
        append(path, CAPTURE)
        await recorder.until(lambda: recorder.source.condition.state is State.DEFECT)
        append(path, CAPTURE)
        await recorder.until(lambda: taken)
        await recorder.until(lambda: recorder.source.condition.state is State.LISTENING)

    recorder = listen(path, then, sink=sink)
    assert [entry["event"] for entry in recorder.logs].count("source.defect") == 1
    assert len(taken) == CAPTURE.count(b"SECURITY[")


@pytest.mark.asterisk
def test_a_real_asterisk_rotates_its_log(each_asterisk: Lab) -> None:
    """Lines before, between and after rotations and a truncation are passed on, each once."""
    pbx = each_asterisk.asterisk
    path = pbx.logs / "ringfence"

    def attack() -> None:
        each_asterisk.attack("guess", "--number", "20")

    def written() -> int:
        return sum(file.read_bytes().count(b"res_security_log.c:") for file in pbx.logs.glob("ringfence*"))

    before = written()

    def reported(recorder: Recorder) -> int:
        return sum(event.source.name.endswith("#security") for event in recorder.events)

    async def quiet(recorder: Recorder) -> None:
        """Wait until Asterisk has written nothing for half a second, and everything was passed on."""
        last = -1
        while last != (last := written()) or reported(recorder) != last - before:  # noqa: ASYNC110
            await asyncio.sleep(0.5)

    async def then(recorder: Recorder) -> None:
        for command in ("logger rotate", "logger rotate", "logger reload"):
            await asyncio.to_thread(attack)
            await asyncio.to_thread(pbx.cli, command)
        await asyncio.to_thread(attack)
        await quiet(recorder)
        shutil.copy(path, path.with_name("ringfence.99"))
        os.truncate(path, 0)
        await asyncio.to_thread(attack)
        await quiet(recorder)

    assert len(listen(path, then).events) >= 100
