"""The journal as a source: Asterisk's lines in it, followed through `journalctl`.

journalctl knows the journal's files, their rotation and its cursors; to read them without it takes a library
in C. It runs as a child of this task, ends with it, and is started again when it ended, after the last cursor
that was handed on. (Were ringfence killed, systemd ends it with the unit, and anywhere else the next line
that it writes does.) One entry is one line of JSON, which :mod:`ringfence.parse.jsonline` takes apart: line
ends in a message are escaped there.

Read is what the *units* of Asterisk wrote, by the journal's own word for who did. Whoever has an account on
this host may call himself asterisk and write what he likes, and a web server's script may.

What the journal took before ringfence was started is old evidence and counts at its own time, by the
journal's clock, which is this host's. At the very first start nothing old is read.

A journal keeps no more than its rate limit allows (RateLimitBurst=, 10 000 messages in 30 s by default): a
flood makes it blind where a log file is not, and then it says so, which is an alarm. It is the source for a
PBX that has no log files.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby

import structlog

from ringfence.model import SourceId, printable
from ringfence.parse.reading import LogCounts
from ringfence.sources.backoff import Backoff
from ringfence.sources.hearing import AlarmCount, Hearing, LogReader, Sink
from ringfence.sources.state import Condition, State, log_condition

PROGRAM = ("journalctl",)
UNITS = ("asterisk.service", "freepbx.service")
IDENTIFIERS = ("asterisk", "safe_asterisk")
DROPPED = "a596d6fe7bfa4994828e72309e95d61e"
"""What journald says where it drops lines for its rate limit (SD_MESSAGE_JOURNAL_DROPPED)."""
DROPPED_ALARM = "the journal drops lines: raise its RateLimitBurst="

REMEMBER_EVERY = 1.0
WELL_AFTER = 1.0
"""A journalctl that has run so long (seconds) has found its journal, even where it has said nothing."""
MAX_LINE = 256 * 1024
"""A message of 8 KiB as a list of bytes has some 50 KiB; a longer entry is skipped."""

_CHUNK = 64 * 1024
_MAX_COMPLAINT = 200
# Quotes inside a JSON string are escaped, so none of these can be written by whoever wrote the message.
_CURSOR = re.compile(rb'"__CURSOR" ?: ?"([^"\\]{1,512})"')
_TIME = re.compile(rb'"__REALTIME_TIMESTAMP" ?: ?"(\d{1,18})"')
_DROPPED = f'"MESSAGE_ID":"{DROPPED}"'.encode()
_HEX = "[0-9a-f]"
_IS_CURSOR = re.compile(rf"s={_HEX}{{32}};i={_HEX}+;b={_HEX}{{32}};m={_HEX}+;t={_HEX}+;x={_HEX}+")
"""What journalctl takes for a cursor; another text would end each that is started."""


class JournalSource:
    """Follows the journal. :meth:`run` never ends by itself; ``condition``, ``counts``, ``alarms`` tell.

    ``position`` is the cursor that ``remember`` was given under position_key() by an earlier process.
    ``program`` is how journalctl is called. ``settled`` is set once it is known how it goes.
    """

    def __init__(
        self,
        source: SourceId,
        reader: LogReader,
        sink: Sink,
        position: str | None = None,
        remember: Callable[[str, str], None] = lambda _key, _position: None,
        backoff: Backoff | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.id = source
        self.condition = Condition(State.CONNECTING)
        self.settled = asyncio.Event()
        self._reader = reader
        self._hearing = Hearing(reader, sink)
        self._cursor = position if position is not None and _IS_CURSOR.fullmatch(position) else None
        self._remember = remember
        self._remembered = (0.0, self._cursor)
        self._backoff = backoff if backoff is not None else Backoff()
        self._program = tuple(program)
        self._began = time.time()
        self._log = structlog.get_logger().bind(source=str(source))

    @property
    def counts(self) -> LogCounts:
        """What was read since the start."""
        return self._reader.counts

    @property
    def alarms(self) -> Mapping[str, AlarmCount]:
        """What is wrong with the journal as a witness, in words, with how often and when last."""
        return self._hearing.alarms

    def command(self) -> list[str]:
        """Give the command line that goes on where we are."""
        start = f"--after-cursor={self._cursor}" if self._cursor else f"--since=@{self._began:.6f}"
        return [
            *self._program,
            *("--follow", "--no-tail", "--output=json", "--all", "--quiet", "--no-pager"),
            *("--output-fields=MESSAGE,MESSAGE_ID,SYSLOG_IDENTIFIER", start),
            *(f"_SYSTEMD_UNIT={unit}" for unit in UNITS),
            *(f"SYSLOG_IDENTIFIER={name}" for name in IDENTIFIERS),
            *("+", "_TRANSPORT=driver", f"MESSAGE_ID={DROPPED}"),
            *(f"OBJECT_SYSTEMD_UNIT={unit}" for unit in UNITS),
        ]

    async def run(self) -> None:
        """Follow the journal until cancelled."""
        try:
            while True:
                began = time.monotonic()
                await self._follow()
                if time.monotonic() - began > WELL_AFTER:
                    self._backoff.reset()
                await asyncio.sleep(self._backoff.next())
        finally:
            self._hearing.cut()
            self._note_cursor(now=True)

    async def _follow(self) -> None:
        """Have one journalctl run to its end."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            self._become(Condition(State.UNREADABLE, f"{self._program[0]} cannot be run: {error.strerror}"))
            return
        complaint = bytearray()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_gather(process.stderr, complaint))
                await self._read(process.stdout)
            self._become(self._end(await process.wait(), complaint))
        except* Exception as errors:  # noqa: BLE001 - whatever it is, the source goes on behind that piece
            defect = Condition(State.DEFECT, f"{type(errors.exceptions[0]).__name__}; see the log")
            if defect != self.condition:
                self._log.exception("source.defect")
            self._become(defect)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _end(self, code: int, complaint: bytearray) -> Condition:
        """Say how it is without a journalctl: one that ended by itself may not read, or does not work."""
        said = printable(complaint.decode("utf-8", "replace").strip()) or "no reason given"
        told = f"{self._program[0]} ended with {code}: {said}"
        if code < 0:
            return Condition(State.LOST, told)
        return Condition(
            State.UNREADABLE, f"{told} (to read the journal takes the group systemd-journal, see the unit)"
        )

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        """Hand on what journalctl writes, until it ends."""
        begun, is_long, patience = b"", False, WELL_AFTER
        while stream is not None:
            try:
                async with asyncio.timeout(patience):
                    data = await stream.read(_CHUNK)
            except TimeoutError:
                self._become(Condition(State.LISTENING, self._detail()))
                self._hearing.tick()
            else:
                if not data:
                    return
                whole, end, begun = (begun + data).rpartition(b"\n")
                if whole or end:
                    self._take((whole.partition(b"\n")[2] if is_long else whole).split(b"\n"))
                    is_long = False
                if len(begun) > MAX_LINE:
                    begun, is_long = b"", True
            self._note_cursor()
            waits = self._hearing.patience
            patience = REMEMBER_EVERY if waits is None else min(REMEMBER_EVERY, waits)

    def _take(self, entries: list[bytes]) -> None:
        """Hand on entries, old ones apart from live ones; where we are is behind the last, come what may."""
        for entry in reversed(entries):
            if found := _CURSOR.search(entry):
                self._cursor = found[1].decode("utf-8", "replace")
                break
        for entry in entries:
            if _DROPPED in entry:
                self._hearing.alarm(DROPPED_ALARM, time.time())
        told = [entry for entry in entries if entry and _DROPPED not in entry]
        for live, group in groupby(told, self._is_live):
            self._hearing.lines(b"\n".join(group) + b"\n", live=live)
        self._become(Condition(State.LISTENING, self._detail()))

    def _detail(self) -> str:
        return "journal" if self.counts.lines else f"journal, nothing in it from {' or '.join(UNITS)} so far"

    def _is_live(self, entry: bytes) -> bool:
        found = _TIME.search(entry)
        return found is not None and int(found[1]) / 1e6 >= self._began

    def _note_cursor(self, *, now: bool = False) -> None:
        last, known = self._remembered
        mono = time.monotonic()
        if self._cursor is not None and self._cursor != known and (now or mono - last >= REMEMBER_EVERY):
            self._remembered = (mono, self._cursor)
            self._remember(position_key(self.id), self._cursor)

    def _become(self, condition: Condition) -> None:
        changed, self.condition = condition.state is not self.condition.state, condition
        self.settled.set()
        if changed:
            log_condition(self._log, condition)


def position_key(source: SourceId) -> str:
    """Give the name under which it is remembered how far the journal was read."""
    return f"{source} journal"


async def _gather(stream: asyncio.StreamReader | None, complaint: bytearray) -> None:
    """Keep the last that was said."""
    while stream is not None and (data := await stream.read(_CHUNK)):
        complaint += data
        del complaint[:-_MAX_COMPLAINT]
