"""The journal: through a journalctl that plays what it is told, and through a real one of a real journal."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from structlog.testing import capture_logs
from tests.support.captures import FOLDER
from tests.support.journal import Journald, why_no_journald

from ringfence.model import SecurityEvent, SourceId
from ringfence.parse.log import LogReader
from ringfence.sources import journal
from ringfence.sources.backoff import Backoff
from ringfence.sources.journal import DROPPED_ALARM, JournalSource, position_key
from ringfence.sources.state import State

ID = SourceId("pbx", "journal")
CURSOR = f"s={0:032x};i={{:x}};b={1:032x};m=2ba;t=660b28;x=4f"
ONE, TWO, THREE = (CURSOR.format(number) for number in (1, 2, 3))
CAPTURE = (FOLDER / "asterisk-22" / "unknown-account-register.security.log").read_bytes()
LINES = [line.partition(b"] ")[2] for line in CAPTURE.split(b"\n")[:-1] if b"SECURITY[" in line]
"""What Asterisk hands to syslog: without the date that it writes in a file."""
MESSAGE = (
    'SECURITY[1]: res_security_log.c:114 in security_event_stasis_cb: SecurityEvent="InvalidAccountID",'
    'EventTV="2026-11-20T06:05:02.730+0000",Severity="Error",Service="PJSIP",EventVersion="1",AccountID="100",'
    'SessionID="98db99297c83ce41",LocalAddress="IPV4/UDP/198.18.0.1/5060",'
    'RemoteAddress="IPV4/UDP/198.18.1.102/48147"'
)


def entry(cursor: str, message: object = MESSAGE, age: float = -60.0) -> str:
    """Write an entry as `journalctl -o json` does; by default one that is newer than the source."""
    fields = {
        "__CURSOR": cursor,
        "__REALTIME_TIMESTAMP": str(int((time.time() - age) * 1e6)),
        "SYSLOG_IDENTIFIER": "asterisk",
        "MESSAGE": message,
    }
    return json.dumps(fields, separators=(",", ":"))


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

    def remember(self, key: str, place: str) -> None:
        """Be the store."""
        assert key == position_key(ID)
        self.places.append(place)

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
    program: Path | Sequence[str],
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
            position,
            heard.remember,
            Backoff(0.01, 0.02),
            [str(program)] if isinstance(program, Path) else program,
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
        entry(ONE, age=3_600.0),
        entry(TWO, list(MESSAGE.encode())),
        entry(THREE, "NOTICE[1]: loader.c:1 in load: hello"),
    )

    async def then(heard: Heard) -> None:
        await heard.until(lambda: len(heard.events) == 2)
        now = asyncio.get_running_loop().time()
        assert heard.times[0] < now - 3_000
        assert heard.times[1] > now - 3_000

    heard = listen(played.program, then)
    assert heard.places[-1] == THREE
    assert heard.source.condition.state is State.LISTENING
    assert heard.source.counts.events == 2
    [asked] = played.asked
    assert "--after-cursor" not in asked
    assert "--since=@" in asked


def test_it_goes_on_after_the_last_cursor(played: Journal) -> None:
    """A journalctl that ended is started again behind what it said; so is the one of a later process."""
    played.plays(entry(ONE), then="echo gone >&2; exit 3")

    async def then(heard: Heard) -> None:
        await heard.until_state(State.UNREADABLE)
        told = f"{played.program} ended with 3: gone (to read the journal takes the group systemd-journal, "
        assert heard.source.condition.detail == told + "see the unit)"
        played.plays(entry(TWO))
        await heard.until(lambda: heard.source.condition.state is State.LISTENING and len(played.asked) > 1)

    zero = CURSOR.format(0)
    heard = listen(played.program, then, zero)
    assert f"--after-cursor={zero}" in played.asked[0]
    assert f"--after-cursor={ONE}" in played.asked[1]
    assert heard.places[0] == ONE


@pytest.mark.parametrize("position", ["--file=/etc/shadow x", "", "s=1", f"{ONE} x", f"{ONE}\n"])
def test_what_is_no_cursor_is_no_argument(played: Journal, position: str) -> None:
    """A position that the journal never gave is a first start."""
    played.plays()

    async def then(heard: Heard) -> None:
        await heard.until(lambda: played.asked)

    listen(played.program, then, position)
    assert "--after-cursor" not in played.asked[0]


def test_a_message_cannot_set_the_cursor(played: Journal) -> None:
    """What stands in a message is escaped there, and no cursor."""
    played.plays(entry(ONE, 'x", "__CURSOR": "s=9", "__CURSOR":"s=9"'))

    async def then(heard: Heard) -> None:
        await heard.until_state(State.LISTENING)

    assert listen(played.program, then).places == [ONE]


def test_an_entry_without_an_end_is_left_out(played: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: a line that is too long is skipped, and the next one is read."""
    monkeypatch.setattr(journal, "MAX_LINE", 100_000)
    played.plays("x" * 300_000, entry(TWO))

    async def then(heard: Heard) -> None:
        await heard.until(lambda: heard.events)

    assert listen(played.program, then).places == [TWO]


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
    played.plays(entry(ONE))
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
    assert f"--after-cursor={ONE}" in played.asked[1]


def test_a_journal_that_drops_lines_is_an_alarm(played: Journal) -> None:
    """What journald says of its rate limit is no line of Asterisk's, and an alarm."""
    dropped = entry(ONE, "Suppressed 225 messages from asterisk.service")
    played.plays(dropped.replace('"MESSAGE"', f'"MESSAGE_ID":"{journal.DROPPED}","MESSAGE"'))

    async def then(heard: Heard) -> None:
        await heard.until(lambda: heard.source.alarms)

    heard = listen(played.program, then)
    assert {name: alarm.count for name, alarm in heard.source.alarms.items()} == {DROPPED_ALARM: 1}
    assert heard.source.counts.lines == 0


# -- a real journal ---------------------------------------------------------------------------------------

needs_journald = pytest.mark.skipif(bool(why_no_journald()), reason=why_no_journald())


@pytest.fixture(name="journald")
def _journald(tmp_path: Path) -> Iterator[Journald]:
    with Journald(tmp_path) as running:
        yield running


def children() -> list[int]:
    """Give the journalctls that this process has."""
    of = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
    return [int(pid) for pid in of if Path(f"/proc/{pid}/comm").read_text("ascii") == "journalctl\n"]


async def say(journald: Journald, *lines: bytes, **options: str) -> None:
    """Write to the journal, while the source reads."""
    await asyncio.to_thread(journald.say, *lines, **options)


@needs_journald
def test_a_real_journal_is_heard(journald: Journald) -> None:
    """What Asterisk's unit writes becomes events, also from the journal's next file; nothing old does."""
    journald.say(*LINES)

    async def then(heard: Heard) -> None:
        await say(journald, *LINES)
        await heard.until(lambda: len(heard.events) == len(LINES))
        await asyncio.to_thread(journald.rotate)
        await say(journald, *LINES, unit="freepbx.service", identifier="safe_asterisk")
        await heard.until(lambda: len(heard.events) == 2 * len(LINES))

    heard = listen(journald.program, then)
    assert heard.source.condition.state is State.LISTENING
    assert heard.source.condition.detail == "journal"
    assert {str(event.remote.address) for event in heard.events} == {"198.18.1.102"}


@needs_journald
def test_whoever_calls_himself_asterisk_is_not_heard(journald: Journald) -> None:
    """Another unit's process may take Asterisk's name and write its lines: nobody is blamed by them."""

    async def then(heard: Heard) -> None:
        await say(journald, *LINES, unit="apache2.service")
        await say(journald, b"NOTICE[1]: x.c: the last one")
        await heard.until(lambda: heard.source.counts.lines)

    heard = listen(journald.program, then)
    assert (heard.events, heard.source.counts.lines) == ([], 1)


@needs_journald
def test_bytes_that_are_not_utf8_come_as_they_were(journald: Journald) -> None:
    """Such a message comes as a list of numbers; who hides so is heard all the same."""
    line = (
        b"NOTICE[9]: res_pjsip/pjsip_distributor.c:673 in log_failed_request: "
        b"Request 'REGISTER' from '<sip:a@b>' failed for '198.18.1.9:5060' (callid: \xff\xfe) "
        b"- Failed to authenticate"
    )

    async def then(heard: Heard) -> None:
        await say(journald, line)
        await heard.until(lambda: heard.events)

    [event] = listen(journald.program, then).events
    assert (str(event.remote.address), event.session) == ("198.18.1.9", b"\xff\xfe")


@needs_journald
def test_nothing_is_heard_twice_over_a_restart(journald: Journald) -> None:
    """A later process begins after the last cursor, with what came in between at its own age."""

    async def first(heard: Heard) -> None:
        await say(journald, *LINES)
        await heard.until(lambda: len(heard.events) == len(LINES))

    position = listen(journald.program, first).places[-1]
    journald.say(*LINES)

    async def second(heard: Heard) -> None:
        await heard.until(lambda: len(heard.events) == len(LINES))
        now = asyncio.get_running_loop().time()
        assert all(when < now for when in heard.times)
        await say(journald, *LINES)
        await heard.until(lambda: len(heard.events) == 2 * len(LINES))

    position = listen(journald.program, second, position).places[-1]

    async def third(heard: Heard) -> None:
        await heard.until_state(State.LISTENING)

    assert listen(journald.program, third, position).events == []


@needs_journald
def test_a_journalctl_that_dies_is_replaced(journald: Journald) -> None:
    """Killed at any moment, it is started again where it was: nothing is lost and nothing comes twice."""

    async def then(heard: Heard) -> None:
        for _ in range(2):
            await heard.until(children)
            os.kill(children()[0], signal.SIGKILL)
            awaited = len(heard.events) + len(LINES)
            await say(journald, *LINES)
            await heard.until(partial(lambda number: len(heard.events) == number, awaited))

    heard = listen(journald.program, then)
    assert [log["detail"] for log in heard.logs if log.get("state") == "lost"]
    assert len(heard.events) == 2 * len(LINES)
    assert children() == []


@needs_journald
def test_who_may_not_read_is_told_what_it_takes(journald: Journald) -> None:
    """Without the right to read it, the journal is unreadable, and the group that helps is named."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

    async def then(heard: Heard) -> None:
        await heard.until_state(State.UNREADABLE)
        assert "systemd-journal" in heard.source.condition.detail

    listen((*nobody, *journald.program), then)


@needs_journald
def test_a_real_journal_tells_what_it_drops(tmp_path: Path) -> None:
    """Beyond its rate limit a journal loses lines; its own word of that is an alarm."""
    with Journald(tmp_path, burst=20) as journald:

        async def then(heard: Heard) -> None:
            await say(journald, *[b"NOTICE[1]: x.c: number %d" % number for number in range(200)])
            # journald tells of it with the next message that it keeps
            async with asyncio.timeout(30):
                while not heard.source.alarms:
                    await asyncio.sleep(1.1)
                    await say(journald, b"NOTICE[1]: x.c: more")

        heard = listen(journald.program, then)
    assert list(heard.source.alarms) == [DROPPED_ALARM]
