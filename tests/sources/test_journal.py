"""The journal: through a scripted journalctl, and through a real one with a real journal."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from structlog.testing import capture_logs
from tests.sources.logs import ingest_of
from tests.support.captures import FOLDER
from tests.support.journal import Journald, why_no_journald
from tests.support.sources import Written

from ringfence.clock import Backoff
from ringfence.parse.line_result import LogAlarm
from ringfence.parse.log import LogReader
from ringfence.sources import journal
from ringfence.sources.journal import UNITS, JournalSource, position_key
from ringfence.sources.state import State
from ringfence.values.event import SecurityEvent, SourceId

ID = SourceId("pbx", "journal")
CURSOR = f"s={0:032x};i={{:x}};b={1:032x};m=2ba;t=660b28;x=4f"
ONE, TWO, THREE = (CURSOR.format(number) for number in (1, 2, 3))
CAPTURE = (FOLDER / "asterisk-22" / "unknown-account-register.security.log").read_bytes()
LINES = [line.partition(b"] ")[2] for line in CAPTURE.split(b"\n")[:-1] if b"SECURITY[" in line]
"""A message as Asterisk passes it to syslog: without the date that it writes in a file."""
MESSAGE = (
    'SECURITY[1]: res_security_log.c:114 in security_event_stasis_cb: SecurityEvent="InvalidAccountID",'
    'EventTV="2026-11-20T06:05:02.730+0000",Severity="Error",Service="PJSIP",EventVersion="1",AccountID="100",'
    'SessionID="98db99297c83ce41",LocalAddress="IPV4/UDP/198.18.0.1/5060",'
    'RemoteAddress="IPV4/UDP/198.18.1.102/48147"'
)


def entry(cursor: str, message: object = MESSAGE, age: float = -60.0) -> str:
    """Return an entry as `journalctl -o json` writes it; by default one that is newer than the source."""
    fields = {
        "__CURSOR": cursor,
        "__REALTIME_TIMESTAMP": str(int((time.time() - age) * 1e6)),
        "SYSLOG_IDENTIFIER": "asterisk",
        "_SYSTEMD_UNIT": "asterisk.service",
        "MESSAGE": message,
    }
    return json.dumps(fields, separators=(",", ":"))


@define
class Recorder:
    """A running source, the events that it passed on, and the stored position."""

    source: JournalSource = field(init=False)
    events: list[SecurityEvent] = field(factory=list)
    times: list[float] = field(factory=list)
    written: Written = field(factory=Written)
    logs: Sequence[Any] = ()

    def sink(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Record events, as the source's sink."""
        self.events += events
        self.times += [now] * len(events)

    @property
    def positions(self) -> list[str]:
        """The stored positions, in order."""
        assert self.written.latest.keys() <= {position_key(ID)}
        return self.written.texts

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until ``true`` returns a true value."""
        async with asyncio.timeout(20):
            while not true():  # noqa: ASYNC110 - what is waited for knows of no event
                await asyncio.sleep(0.002)

    async def until_state(self, state: State) -> None:
        """Wait until the source is in that state."""
        await self.until(lambda: self.source.condition.state is state)


class Journal:
    """A scripted journalctl in ``folder``: it records its arguments, prints entries and runs ``then``."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "journalctl"
        self._script = folder / "script"
        self._asked = folder / "asked"

    def plays(self, *entries: str, then: str = "exec sleep 60") -> None:
        """Play these lines from its next start on."""
        self._script.write_text("".join(f"{line}\n" for line in entries))
        self.program.write_text(f'#!/bin/sh\necho "$@" >> {self._asked}\ncat {self._script}\n{then}\n')
        self.program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        """The command lines with which it was started."""
        return self._asked.read_text().splitlines() if self._asked.exists() else []


@pytest.fixture(name="played")
def _played(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def listen(
    program: Path | Sequence[str],
    then: Callable[[Recorder], Coroutine[Any, Any, None]],
    position: str | None = None,
    sink: Callable[[Sequence[SecurityEvent], float], None] | None = None,
    users: Sequence[str] = (),
) -> Recorder:
    """Run a source on that journalctl while ``then`` runs; no resource of it may be left.

    ``users`` are those whose own units count.
    """
    recorder = Recorder()

    async def session() -> None:
        recorder.source = JournalSource(
            ID,
            ingest_of(LogReader(ID), sink or recorder.sink),
            position,
            recorder.written,
            Backoff(0.01, 0.02),
            [str(program)] if isinstance(program, Path) else program,
            users,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(recorder.source.run())
            await then(recorder)
            assert not task.done()
            task.cancel()

    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    with capture_logs() as recorder.logs:
        asyncio.run(session())
    # Listing them opens one, of any number. Descriptors of earlier tests may be closed meanwhile.
    assert len({path.name for path in Path("/proc/self/fd").iterdir()} - before) <= 1
    return recorder


def test_entries_become_events(played: Journal) -> None:
    """Text and lists of bytes are events; old ones count at their age, and new ones count now."""
    played.plays(
        entry(ONE, age=3_600.0),
        entry(TWO, list(MESSAGE.encode())),
        entry(THREE, "NOTICE[1]: loader.c:1 in load: hello"),
    )

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: len(recorder.events) == 2)
        now = asyncio.get_running_loop().time()
        assert recorder.times[0] < now - 3_000
        assert recorder.times[1] > now - 3_000

    recorder = listen(played.program, then)
    assert recorder.positions[-1] == THREE
    assert recorder.source.condition.state is State.LISTENING
    assert recorder.source.counts.events == 2
    [asked] = played.asked
    assert "--after-cursor" not in asked
    assert "--since=@" in asked


def test_a_name_that_is_slow_to_look_up_stops_only_the_journal(
    played: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory server may take a minute for a name. The loop goes on, and then the user's lines count."""
    looking, answered = threading.Event(), threading.Event()

    def slow(_user: str) -> int:
        looking.set()
        answered.wait(5.0)
        return 1_000

    monkeypatch.setattr(journal, "user_number", slow)
    fields = json.loads(entry(ONE)) | {"_SYSTEMD_UNIT": "", "_SYSTEMD_USER_UNIT": UNITS[0], "_UID": "1000"}
    played.plays(json.dumps(fields, separators=(",", ":")))

    async def then(recorder: Recorder) -> None:
        await asyncio.to_thread(looking.wait)
        assert (answered.is_set(), played.asked) == (False, [])
        answered.set()
        await recorder.until(lambda: len(recorder.events) == 1)

    began = time.monotonic()
    listen(played.program, then, users=["alice"])
    assert time.monotonic() - began < 4.0


def test_it_continues_after_the_last_cursor(played: Journal) -> None:
    """A journalctl that ended is started again after its last entry; so is that of a later process."""
    played.plays(entry(ONE), then="echo gone >&2; exit 3")

    async def then(recorder: Recorder) -> None:
        await recorder.until_state(State.UNREADABLE)
        detail = (
            f"{played.program} ended with 3: gone; fix: add ringfence's user to the group systemd-journal "
        )
        assert recorder.source.condition.detail == detail + "(see the unit)"
        played.plays(entry(TWO))
        await recorder.until(
            lambda: recorder.source.condition.state is State.LISTENING and len(played.asked) > 1
        )

    zero = CURSOR.format(0)
    recorder = listen(played.program, then, zero)
    assert f"--after-cursor={zero}" in played.asked[0]
    assert f"--after-cursor={ONE}" in played.asked[1]
    assert recorder.positions[0] == ONE


@pytest.mark.parametrize("position", ["--file=/etc/shadow x", "", "s=1", f"{ONE} x", f"{ONE}\n"])
def test_an_invalid_cursor_is_no_argument(played: Journal, position: str) -> None:
    """A position that is no cursor counts as a first start."""
    played.plays()

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: played.asked)

    listen(played.program, then, position)
    assert "--after-cursor" not in played.asked[0]


def test_a_message_cannot_set_the_cursor(played: Journal) -> None:
    """The text of a message is escaped there, and is no cursor."""
    played.plays(entry(ONE, 'x", "__CURSOR": "s=9", "__CURSOR":"s=9"'))

    async def then(recorder: Recorder) -> None:
        await recorder.until_state(State.LISTENING)

    assert listen(played.program, then).positions == [ONE]


def test_an_entry_without_an_end_is_skipped(played: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: a line that is too long is skipped, and the next one is parsed."""
    monkeypatch.setattr(journal, "MAX_LINE", 100_000)
    played.plays("x" * 300_000, entry(TWO))

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: recorder.events)

    assert listen(played.program, then).positions == [TWO]


def test_a_missing_journalctl_is_named(tmp_path: Path) -> None:
    """If the program is missing, the state names it."""

    async def then(recorder: Recorder) -> None:
        await recorder.until_state(State.UNREADABLE)
        await asyncio.sleep(0.1)

    recorder = listen(tmp_path / "none", then)
    assert recorder.source.condition.detail == f"{tmp_path / 'none'} cannot be run: No such file or directory"


def test_silence_is_listening(played: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal without new entries is in the state listening."""
    monkeypatch.setattr(journal, "WELL_AFTER", 0.05)
    played.plays()

    async def then(recorder: Recorder) -> None:
        await recorder.until_state(State.LISTENING)

    assert listen(played.program, then).positions == []


def test_a_defect_loses_a_piece_and_not_the_source(played: Journal) -> None:
    """If the sink raises, the state shows it, the child is ended, and the next one continues after it."""
    played.plays(entry(ONE))
    taken: list[SecurityEvent] = []
    fails = [True]

    def sink(events: Sequence[SecurityEvent], _: float) -> None:
        if fails and fails.pop():
            raise ZeroDivisionError
        taken.extend(events)

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: taken)

    recorder = listen(played.program, then, sink=sink)
    assert [log["event"] for log in recorder.logs].count("source.defect") == 1
    assert f"--after-cursor={ONE}" in played.asked[1]


def test_a_journal_that_drops_lines_is_an_alarm(played: Journal) -> None:
    """The journal's message about its rate limit is no line of Asterisk, and an alarm."""
    dropped = entry(ONE, "Suppressed 225 messages from asterisk.service")
    fields = f'"MESSAGE_ID":"{journal.DROPPED}","_TRANSPORT":"driver","MESSAGE"'
    played.plays(dropped.replace('"MESSAGE"', fields))

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: recorder.source.alarms)

    recorder = listen(played.program, then)
    counts = {fault: alarm.count for fault, alarm in recorder.source.alarms.items()}
    assert counts == {LogAlarm.JOURNAL_DROPS: 1}
    assert recorder.source.counts.lines == 0


# -- a real journal ---------------------------------------------------------------------------------------

needs_journald = pytest.mark.skipif(bool(why_no_journald()), reason=why_no_journald())


@pytest.fixture(name="journald")
def _journald(tmp_path: Path) -> Iterator[Journald]:
    with Journald(tmp_path) as running:
        yield running


def children() -> list[int]:
    """Return the journalctls of this process."""
    of = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
    return [int(pid) for pid in of if Path(f"/proc/{pid}/comm").read_text("ascii") == "journalctl\n"]


async def say(journald: Journald, *lines: bytes, **options: str) -> None:
    """Write to the journal, while the source reads."""
    await asyncio.to_thread(journald.write, *lines, **options)


@needs_journald
def test_a_real_journal_is_read(journald: Journald) -> None:
    """Lines of Asterisk's unit become events, also from the journal's next file; no old line does."""
    journald.write(*LINES)

    async def then(recorder: Recorder) -> None:
        await say(journald, *LINES)
        await recorder.until(lambda: len(recorder.events) == len(LINES))
        await asyncio.to_thread(journald.rotate)
        await say(journald, *LINES, unit="freepbx.service", identifier="safe_asterisk")
        await recorder.until(lambda: len(recorder.events) == 2 * len(LINES))

    recorder = listen(journald.program, then)
    assert recorder.source.condition.state is State.LISTENING
    assert recorder.source.condition.detail == "journal"
    assert {str(event.remote.address) for event in recorder.events} == {"198.18.1.102"}


@needs_journald
def test_another_unit_with_asterisks_name_is_ignored(journald: Journald) -> None:
    """Another unit's process may use Asterisk's name and write its lines: they name no address."""

    async def then(recorder: Recorder) -> None:
        await say(journald, *LINES, unit="apache2.service")
        await say(journald, b"NOTICE[1]: x.c: the last one")
        await recorder.until(lambda: recorder.source.counts.lines)

    recorder = listen(journald.program, then)
    assert (recorder.events, recorder.source.counts.lines) == ([], 1)


@needs_journald
def test_bytes_that_are_not_utf8_stay_unchanged(journald: Journald) -> None:
    """Such a message comes as a list of numbers, and is an event all the same."""
    line = (
        b"NOTICE[9]: res_pjsip/pjsip_distributor.c:673 in log_failed_request: "
        b"Request 'REGISTER' from '<sip:a@b>' failed for '198.18.1.9:5060' (callid: \xff\xfe) "
        b"- Failed to authenticate"
    )

    async def then(recorder: Recorder) -> None:
        await say(journald, line)
        await recorder.until(lambda: recorder.events)

    [event] = listen(journald.program, then).events
    assert (str(event.remote.address), event.session) == ("198.18.1.9", b"\xff\xfe")


@needs_journald
def test_nothing_is_read_twice_across_a_restart(journald: Journald) -> None:
    """A later process begins after the last cursor; entries in between count at their own age."""

    async def first(recorder: Recorder) -> None:
        await say(journald, *LINES)
        await recorder.until(lambda: len(recorder.events) == len(LINES))

    position = listen(journald.program, first).positions[-1]
    journald.write(*LINES)

    async def second(recorder: Recorder) -> None:
        await recorder.until(lambda: len(recorder.events) == len(LINES))
        now = asyncio.get_running_loop().time()
        assert all(when < now for when in recorder.times)
        await say(journald, *LINES)
        await recorder.until(lambda: len(recorder.events) == 2 * len(LINES))

    position = listen(journald.program, second, position).positions[-1]

    async def third(recorder: Recorder) -> None:
        await recorder.until_state(State.LISTENING)

    assert listen(journald.program, third, position).events == []


@needs_journald
def test_a_journalctl_that_dies_is_replaced(journald: Journald) -> None:
    """Killed at any moment, it is started again at its position: nothing is lost or repeated."""

    async def then(recorder: Recorder) -> None:
        for _ in range(2):
            await recorder.until(children)
            os.kill(children()[0], signal.SIGKILL)
            awaited = len(recorder.events) + len(LINES)
            await say(journald, *LINES)
            await recorder.until(partial(lambda number: len(recorder.events) == number, awaited))

    recorder = listen(journald.program, then)
    assert [log["detail"] for log in recorder.logs if log.get("state") == "lost"]
    assert len(recorder.events) == 2 * len(LINES)
    assert children() == []


@needs_journald
def test_a_missing_right_to_read_is_named(journald: Journald) -> None:
    """Without the right to read it, the journal is unreadable, and the group that helps is named."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

    async def then(recorder: Recorder) -> None:
        await recorder.until_state(State.UNREADABLE)
        assert "systemd-journal" in recorder.source.condition.detail

    listen((*nobody, *journald.program), then)


@needs_journald
def test_a_real_journal_reports_dropped_lines(tmp_path: Path) -> None:
    """Beyond its rate limit a journal loses lines; its own message about that is an alarm."""
    with Journald(tmp_path, burst=20) as journald:

        async def then(recorder: Recorder) -> None:
            await say(journald, *[b"NOTICE[1]: x.c: number %d" % number for number in range(200)])
            # journald reports it with the next message that it keeps
            async with asyncio.timeout(30):
                while not recorder.source.alarms:
                    await asyncio.sleep(1.1)
                    await say(journald, b"NOTICE[1]: x.c: more")

        recorder = listen(journald.program, then)
    assert list(recorder.source.alarms) == [LogAlarm.JOURNAL_DROPS]


# -- containers and users' units: Docker and podman do not run here, so their entries are made by the
# journal's own protocol, with their fields (conmon's ctr_logging.c, Docker's daemon/logger/journald)

HEX = "0123456789abcdef" * 4
CONMON = f"machine.slice/libpod-conmon-{HEX}.scope"
USER = 65_501
MANAGER = f"user.slice/user-{USER}.slice/user@{USER}.service"
LAST = b"NOTICE[1]: x.c: the last one"
DATED = [b"[2026-11-20 06:05:02] " + line for line in LINES]


def container_entries(name: str, identifier: str = "") -> list[bytes]:
    """Return Asterisk's lines as conmon and Docker write them; conmon leaves the line feed."""
    known = (
        f"CONTAINER_NAME={name}\nCONTAINER_ID_FULL={HEX}\nSYSLOG_IDENTIFIER={identifier or name}\n".encode()
    )
    texts = [line + b"\n" for line in DATED]
    return [known + b"MESSAGE\n" + len(text).to_bytes(8, "little") + text + b"\n" for text in texts]


@needs_journald
@pytest.mark.parametrize(
    ("container", "unit", "program", "user"),
    [
        ("asterisk", CONMON, "conmon", 0),
        ("systemd-freepbx", "system.slice/pbx.service/supervisor", "conmon", 0),
        ("asterisk", "system.slice/container-asterisk.service", "conmon", 0),
        ("pbx", "system.slice/asterisk.service/supervisor", "conmon", 0),
        ("office_asterisk_1", "system.slice/docker.service", "dockerd", 0),
        ("asterisk", f"{MANAGER}/user.slice/libpod-conmon-{HEX}.scope", "conmon", USER),
        ("pbx", f"{MANAGER}/app.slice/asterisk.service/supervisor", "conmon", USER),
    ],
    ids=["podman", "quadlet", "generated", "its-unit", "docker", "rootless", "rootless-quadlet"],
)
def test_a_container_is_read(journald: Journald, container: str, unit: str, program: str, user: int) -> None:
    """Asterisk's container counts if root's conmon, Docker, or a conmon of a named user wrote it."""

    async def then(recorder: Recorder) -> None:
        entries = container_entries(container)
        await asyncio.to_thread(journald.write_natively, *entries, unit=unit, program=program, user=user)
        await recorder.until(lambda: len(recorder.events) == len(LINES))

    recorder = listen(journald.program, then, users=[str(USER)])
    assert {str(event.remote.address) for event in recorder.events} == {"198.18.1.102"}
    assert recorder.source.counts.tampered == 0


@needs_journald
def test_a_piece_of_a_line_of_a_container_begins_no_message(journald: Journald) -> None:
    """A later piece is sure evidence of nobody; an entry of stderr in between ends no line of stdout."""
    honest = b"PRIORITY=6\n" + container_entries("asterisk")[0]
    forged = honest.replace(b"198.18.1.102", b"198.18.1.103")
    error = honest.replace(b"PRIORITY=6", b"PRIORITY=3")
    entries = [honest, b"CONTAINER_PARTIAL_MESSAGE=true\n" + honest, error, forged, honest]

    async def then(recorder: Recorder) -> None:
        await asyncio.to_thread(journald.write_natively, *entries, unit=CONMON, program="conmon")
        await recorder.until(lambda: len(recorder.events) >= 4)

    recorder = listen(journald.program, then)
    sure = {str(event.remote.address) for event in recorder.events if not event.forgeable}
    assert sure == {"198.18.1.102"}


@needs_journald
def test_a_unit_of_a_named_user_is_read(journald: Journald) -> None:
    """An Asterisk in a unit of a user counts if the configuration names this user, after a missing one."""
    entries = [b"SYSLOG_IDENTIFIER=asterisk\nMESSAGE=" + line + b"\n" for line in LINES]

    async def then(recorder: Recorder) -> None:
        unit = f"{MANAGER}/app.slice/asterisk.service"
        await asyncio.to_thread(journald.write_natively, *entries, unit=unit, user=USER)
        await recorder.until(lambda: len(recorder.events) == len(LINES))

    recorder = listen(journald.program, then, users=["no-such-user", str(USER)])
    assert LogAlarm.JOURNAL_USER not in recorder.source.alarms


@needs_journald
@pytest.mark.parametrize("users", [[], ["root", str(USER + 1)]], ids=["nobody", "others"])
@pytest.mark.parametrize(
    "unit",
    [f"{MANAGER}/app.slice/asterisk.service", f"{MANAGER}/user.slice/libpod-conmon-{HEX}.scope"],
    ids=["unit", "podman"],
)
def test_a_unit_of_another_user_is_an_alarm(journald: Journald, unit: str, users: list[str]) -> None:
    """Any user may have a unit of Asterisk's name. It does not count, and the state goes on to name it."""

    async def then(recorder: Recorder) -> None:
        entries = container_entries("asterisk")
        await asyncio.to_thread(journald.write_natively, *entries, unit=unit, program="conmon", user=USER)
        await recorder.until(lambda: recorder.source.condition.detail.startswith("journal;"))
        detail = recorder.source.condition.detail
        assert f"{unit.rpartition('/')[2]} of user {USER} does not count" in detail
        await say(journald, LAST)
        await recorder.until(lambda: recorder.source.counts.lines)

    recorder = listen(journald.program, then, users=users)
    assert (recorder.events, recorder.source.counts.lines) == ([], 1)
    assert {fault: alarm.count for fault, alarm in recorder.source.alarms.items()} == {
        LogAlarm.JOURNAL_USER: len(LINES)
    }
    assert f"of user {USER} does not count" in recorder.source.condition.detail


@needs_journald
def test_a_forged_container_is_ignored(journald: Journald) -> None:
    """A name is no proof: not of other programs and containers, with forged fields, or given twice."""
    named = container_entries("asterisk")
    dropped = f"MESSAGE_ID={journal.DROPPED}\n".encode()
    forged = [
        b"_SYSTEMD_UNIT=docker.service\n_UID=0\n_TRANSPORT=driver\n" + dropped + entry for entry in named
    ]
    twice = [b"CONTAINER_NAME=web\n" + entry for entry in named]
    session = f"user.slice/user-{USER}.slice/session-1.scope"
    writers: list[tuple[list[bytes], str, str, int]] = [
        (forged, session, "conmon", USER),
        (named, "system.slice/apache2.service", "conmon", USER),
        (named, "system.slice/docker.service", "dockerd", USER),
        (named, f"machine.slice/libpod-{HEX}.scope/supervisor", "conmon", 0),
        (named, f"system.slice/pbx.service/libpod-payload-{HEX}", "conmon", 0),
        (named, f"system.slice/docker-{HEX}.scope", "conmon", 0),
        (twice, "system.slice/docker.service", "dockerd", 0),
        (container_entries("asterisk-web"), "system.slice/docker.service", "dockerd", 0),
        (container_entries("1", "asterisk"), CONMON, "conmon", 0),
    ]

    async def then(recorder: Recorder) -> None:
        for entries, unit, program, user in writers:
            await asyncio.to_thread(journald.write_natively, *entries, unit=unit, program=program, user=user)
        await say(journald, LAST)
        await recorder.until(lambda: recorder.source.counts.lines)

    recorder = listen(journald.program, then, users=[str(USER)])
    assert (recorder.events, recorder.source.counts.lines) == ([], 1)
    assert not recorder.source.alarms
