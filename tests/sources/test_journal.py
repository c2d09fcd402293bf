"""The journal through a journalctl that plays what it is told, and the options of the real one."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from structlog.testing import capture_logs

from ringfence.model import SecurityEvent, SourceId
from ringfence.parse.log import LogReader
from ringfence.sources import journal
from ringfence.sources.backoff import Backoff
from ringfence.sources.journal import JournalSource
from ringfence.sources.state import State

ID = SourceId("pbx", "journal")
MESSAGE = (
    'SECURITY[1]: res_security_log.c:114 in security_event_stasis_cb: SecurityEvent="InvalidAccountID",'
    'EventTV="2026-11-20T06:05:02.730+0000",Severity="Error",Service="PJSIP",EventVersion="1",AccountID="100",'
    'SessionID="98db99297c83ce41",LocalAddress="IPV4/UDP/198.18.0.1/5060",'
    'RemoteAddress="IPV4/UDP/198.18.1.102/48147"'
)


def entry(cursor: str, message: object = MESSAGE, age: float = -60.0) -> str:
    """Write an entry as `journalctl -o json` does; by default one that is newer than the source."""
    return json.dumps(
        {
            "__CURSOR": cursor,
            "__REALTIME_TIMESTAMP": str(int((time.time() - age) * 1e6)),
            "SYSLOG_IDENTIFIER": "asterisk",
            "MESSAGE": message,
        }
    )


@define
class Heard:
    """A source at work, what it handed on, and what it wants remembered."""

    source: JournalSource = field(init=False)
    events: list[SecurityEvent] = field(factory=list)
    times: list[float] = field(factory=list)
    places: list[str] = field(factory=list)
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

    async def until_state(self, state: State) -> None:
        """Wait for the source to be in that state."""
        await self.until(lambda: self.source.condition.state is state)


class Journal:
    """A journalctl in ``folder``: it notes its arguments, prints ``script`` and does what ``then`` says."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "journalctl"
        self._said = folder / "said"
        self._asked = folder / "asked"

    def plays(self, *entries: str, then: str = "exec sleep 60") -> None:
        """Play these lines from its next start on."""
        self._said.write_text("".join(f"{line}\n" for line in entries))
        self.program.write_text(f'#!/bin/sh\necho "$@" >> {self._asked}\ncat {self._said}\n{then}\n')
        self.program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        """The command lines it was started with."""
        return self._asked.read_text().splitlines() if self._asked.exists() else []


@pytest.fixture(name="played")
def _played(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def listen(
    program: Path,
    then: Callable[[Heard], Coroutine[Any, Any, None]],
    position: str | None = None,
    sink: Callable[[Sequence[SecurityEvent], float], None] | None = None,
) -> Heard:
    """Have a source listen to that journalctl while ``then`` runs; nothing may be left of it."""
    heard = Heard()

    async def session() -> None:
        heard.source = JournalSource(
            ID,
            LogReader(ID),
            sink or heard.take,
            None,
            position,
            lambda _, cursor: heard.places.append(cursor),
            Backoff(0.01, 0.02),
            str(program),
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(heard.source.run())
            await then(heard)
            assert not task.done()
            task.cancel()

    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    with capture_logs() as heard.logs:
        asyncio.run(session())
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before
    return heard


def test_entries_become_events(played: Journal) -> None:
    """Text and lists of bytes; what is old counts at its age, what is new counts now."""
    played.plays(
        entry("s=1", age=3_600.0),
        entry("s=2", list(MESSAGE.encode())),
        entry("s=3", "NOTICE[1]: loader.c:1 in load: hello"),
    )

    async def then(heard: Heard) -> None:
        await heard.until(lambda: len(heard.events) == 2)
        now = asyncio.get_running_loop().time()
        assert heard.times[0] < now - 10
        assert heard.times[1] > now - 10

    heard = listen(played.program, then)
    assert heard.places[-1] == "s=3"
    assert heard.source.condition.state is State.LISTENING
    assert heard.source.counts.events == 2
    assert [asked.split()[-1] for asked in played.asked] == ["--lines=0"]


def test_it_goes_on_after_the_last_cursor(played: Journal) -> None:
    """A journalctl that ended is started again behind what it said; so is the one of a later process."""
    played.plays(entry("s=1"), then="echo gone >&2; exit 3")

    async def then(heard: Heard) -> None:
        await heard.until_state(State.LOST)
        assert heard.source.condition.detail == f"{played.program} ended with 3: gone"
        played.plays(entry("s=2"))
        await heard.until(lambda: heard.source.condition.state is State.LISTENING and len(played.asked) > 1)

    heard = listen(played.program, then, "s=0")
    assert "--after-cursor=s=0 --lines=all" in played.asked[0]
    assert "--after-cursor=s=1 --lines=all" in played.asked[1]
    assert heard.places[0] == "s=1"


@pytest.mark.parametrize("position", ["--file=/etc/shadow x", "", "a b", 'x"'])
def test_what_is_no_cursor_is_no_argument(played: Journal, position: str) -> None:
    """A position that the journal never gave is a first start."""
    played.plays()

    async def then(heard: Heard) -> None:
        await heard.until(lambda: played.asked)

    listen(played.program, then, position)
    assert "--after-cursor" not in played.asked[0]


def test_a_message_cannot_set_the_cursor(played: Journal) -> None:
    """What stands in a message is escaped there, and no cursor."""
    played.plays(entry("s=1", 'x", "__CURSOR": "s=9", "__CURSOR":"s=9"'))

    async def then(heard: Heard) -> None:
        await heard.until_state(State.LISTENING)

    assert listen(played.program, then).places == ["s=1"]


def test_an_entry_without_an_end_is_left_out(played: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: a line that is too long is skipped, and the next one is read."""
    monkeypatch.setattr(journal, "MAX_LINE", 100_000)
    played.plays("x" * 300_000, entry("s=2"))

    async def then(heard: Heard) -> None:
        await heard.until(lambda: heard.events)

    assert listen(played.program, then).places == ["s=2"]


def test_a_host_without_journalctl_is_told_so(tmp_path: Path) -> None:
    """Where the program is missing the state says which."""

    async def then(heard: Heard) -> None:
        await heard.until_state(State.UNREADABLE)
        await asyncio.sleep(0.1)

    heard = listen(tmp_path / "none", then)
    assert heard.source.condition.detail == f"{tmp_path / 'none'} cannot be run: No such file or directory"


def test_silence_is_listening(played: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal in which nothing happens is one that is heard."""
    monkeypatch.setattr(journal, "WELL_AFTER", 0.05)
    played.plays()

    async def then(heard: Heard) -> None:
        await heard.until_state(State.LISTENING)

    assert listen(played.program, then).places == []


def test_a_defect_costs_a_piece_and_not_the_source(played: Journal) -> None:
    """Where the sink raises, the state tells, the child is ended, and the next one goes on behind it."""
    played.plays(entry("s=1"))
    taken: list[SecurityEvent] = []
    fails = [True]

    def sink(events: Sequence[SecurityEvent], _: float) -> None:
        if fails and fails.pop():
            raise ZeroDivisionError
        taken.extend(events)

    async def then(heard: Heard) -> None:
        await heard.until(lambda: taken)

    heard = listen(played.program, then, sink=sink)
    assert [log["event"] for log in heard.logs].count("source.defect") == 1
    assert "--after-cursor=s=1" in played.asked[1]


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="journalctl is in the package systemd")
def test_journalctl_knows_the_options(tmp_path: Path) -> None:
    """The real program takes every option, on a journal that is empty."""
    source = JournalSource(ID, LogReader(ID), lambda _events, _now: None, "asterisk.service", None)
    command = [option for option in source.command() if option != "--follow"]
    done = subprocess.run(
        [*command, f"--directory={tmp_path}"], capture_output=True, text=True, check=False, env=os.environ
    )

    assert "option" not in done.stderr
    assert done.stdout == ""
