"""The journal as a source: Asterisk's lines in it, followed through `journalctl`.

journalctl knows the journal's files, their rotation and its cursors; to read them without it takes a library
in C. It runs as a child of this task, ends with it, and is started again when it ended, after the last cursor
that was handed on. (Were ringfence killed, the next line that journalctl writes ends it.) One entry is one
line of JSON, which :mod:`ringfence.parse.jsonline` takes apart: line ends in a message are escaped there.

What the journal took before ringfence was started is old evidence and counts at its own time, by the
journal's clock, which is this host's. At the very first start nothing old is read.

A journal keeps no more than its rate limit allows (RateLimitBurst=, 10 000 messages in 30 s by default): a
flood makes it blind where a log file is not. It is the source for a PBX that has no log files.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import groupby

import structlog

from ringfence.model import SourceId, printable
from ringfence.parse.reading import LogCounts
from ringfence.sources.backoff import Backoff
from ringfence.sources.hearing import AlarmCount, Hearing, LogReader, Sink
from ringfence.sources.state import Condition, State

REMEMBER_EVERY = 1.0
WELL_AFTER = 1.0
"""A journalctl that has run so long (seconds) has found its journal, even where it has said nothing."""
MAX_LINE = 256 * 1024
"""A message of 8 KiB as a list of bytes has some 50 KiB; a longer one is none of Asterisk's: skipped."""

_CHUNK = 64 * 1024
_MAX_COMPLAINT = 200
# Quotes inside a JSON string are escaped, so neither can be written by whoever wrote the message.
_CURSOR = re.compile(rb'"__CURSOR" ?: ?"([^"\\]{1,512})"')
_TIME = re.compile(rb'"__REALTIME_TIMESTAMP" ?: ?"(\d{1,18})"')
_IS_CURSOR = re.compile(r"[\w=;:@.-]{1,512}", re.ASCII)


class JournalSource:
    """Follows the journal. :meth:`run` never ends by itself; ``condition``, ``counts``, ``alarms`` tell.

    ``unit`` is the systemd unit whose entries are read; without it, whoever calls itself asterisk.
    ``position`` is the cursor that ``remember`` was given under ``position_key`` by an earlier process.
    ``settled`` is set once it is known how it goes.
    """

    def __init__(
        self,
        source: SourceId,
        reader: LogReader,
        sink: Sink,
        unit: str | None = None,
        position: str | None = None,
        remember: Callable[[str, str], None] = lambda _key, _position: None,
        backoff: Backoff | None = None,
        program: str = "journalctl",
    ) -> None:
        self.id = source
        self.condition = Condition(State.CONNECTING)
        self.settled = asyncio.Event()
        self.position_key = f"{source} journal"
        self._reader = reader
        self._hearing = Hearing(reader, sink)
        self._unit = unit
        self._cursor = position if position is not None and _IS_CURSOR.fullmatch(position) else None
        self._remember = remember
        self._remembered = (0.0, self._cursor)
        self._backoff = backoff if backoff is not None else Backoff()
        self._program = program
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
        chosen = (
            [f"--unit={self._unit}"]
            if self._unit
            else ["--identifier=asterisk", "--identifier=safe_asterisk"]
        )
        start = [f"--after-cursor={self._cursor}", "--lines=all"] if self._cursor else ["--lines=0"]
        return [
            *(self._program, "--follow", "--output=json", "--all", "--quiet", "--no-pager"),
            *("--output-fields=MESSAGE,SYSLOG_IDENTIFIER", *chosen, *start),
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
            self._become(Condition(State.UNREADABLE, f"{self._program} cannot be run: {error.strerror}"))
            return
        complaint = bytearray()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_gather(process.stderr, complaint))
                await self._read(process.stdout)
            code = await process.wait()
            said = printable(complaint.decode("utf-8", "replace").strip())
            self._become(
                Condition(State.LOST, f"{self._program} ended with {code}: {said or 'no reason given'}")
            )
        except* Exception as errors:  # noqa: BLE001 - whatever it is, the source goes on behind that piece
            defect = Condition(State.DEFECT, f"{type(errors.exceptions[0]).__name__}; see the log")
            if defect != self.condition:
                self._log.exception("source.defect")
            self._become(defect)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        """Hand on what journalctl writes, until it ends."""
        begun, is_long, patience = b"", False, WELL_AFTER
        while stream is not None:
            try:
                async with asyncio.timeout(patience):
                    data = await stream.read(_CHUNK)
            except TimeoutError:
                self._become(Condition(State.LISTENING, "journal"))
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
        self._become(Condition(State.LISTENING, "journal"))
        for entry in reversed(entries):
            if found := _CURSOR.search(entry):
                self._cursor = found[1].decode("utf-8", "replace")
                break
        for live, group in groupby(entries, self._is_live):
            self._hearing.lines(b"\n".join(group) + b"\n", live=live)

    def _is_live(self, entry: bytes) -> bool:
        found = _TIME.search(entry)
        return found is not None and int(found[1]) / 1e6 >= self._began

    def _note_cursor(self, *, now: bool = False) -> None:
        last, known = self._remembered
        mono = time.monotonic()
        if self._cursor is not None and self._cursor != known and (now or mono - last >= REMEMBER_EVERY):
            self._remembered = (mono, self._cursor)
            self._remember(self.position_key, self._cursor)

    def _become(self, condition: Condition) -> None:
        changed, self.condition = condition.state is not self.condition.state, condition
        self.settled.set()
        if changed:
            good = condition.state is State.LISTENING
            (self._log.info if good else self._log.warning)(
                "source.state", state=str(condition.state), detail=condition.detail
            )


async def _gather(stream: asyncio.StreamReader | None, complaint: bytearray) -> None:
    """Keep the last that was said."""
    while stream is not None and (data := await stream.read(_CHUNK)):
        complaint += data
        del complaint[:-_MAX_COMPLAINT]
