"""The journal as a source: Asterisk's lines in it, followed through `journalctl`.

journalctl handles the journal's files, their rotation and its cursors (positions as text). Without it, a C
library would be needed. journalctl runs as a child process, and ends when this source ends. If it ends
earlier, it is started again, and continues after the last entry that was handled. (If ringfence is killed,
systemd ends journalctl too, because it belongs to the same unit. Without systemd, journalctl ends at the next
line that it writes.) One entry is one line of JSON, in which line ends of a message are escaped.
:class:`ringfence.parse.wrappers.LineCleaner` parses it.

Only lines of Asterisk's *units* and containers are read. The journal itself records the unit, the user and
the control group of each line (the fields that begin with ``_``). The name of the program, or of the
container, proves nothing: any user of this host, or a script of a web server, can write any text under the
name asterisk.
So these lines count:

- those of the system's units ``UNITS``.
- those of a container whose name ends with a word of ``CONTAINERS``, if Docker or root's conmon (podman)
  wrote them.
- those of a user's own unit, or of such a container of a user's conmon (podman without root), if the
  configuration names this user (``journal_users``). Any user may have a unit with that name, and listen on a
  port of Asterisk. Other users' lines do not count, and are an alarm.

Lines from before ringfence's start are old evidence, and count at the time that the journal recorded. At the
very first start no old lines are read.

The journal has a rate limit (RateLimitBurst=, 10 000 messages in 30 s by default). During a flood it loses
lines that a log file keeps. The journal records that it lost lines, and then ringfence raises an alarm. Use
the journal only for a PBX without log files.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import groupby

from ringfence.clock import Backoff
from ringfence.file_rights import user_number
from ringfence.parse.line_result import LogAlarm
from ringfence.sources.log_ingest import FollowedLog, LogIngest
from ringfence.sources.logs import Positions
from ringfence.sources.state import Condition, EndError, State
from ringfence.values.event import SourceId
from ringfence.values.text import printable

PROGRAM = ("journalctl",)
UNITS = ("asterisk.service", "freepbx.service")
IDENTIFIERS = ("asterisk", "safe_asterisk")
CONTAINERS = frozenset({b"asterisk", b"freepbx"})
"""The last words of containers' names (``systemd-freepbx``). A number may follow (``pbx-asterisk-1``)."""
DOCKER = ("docker.service", "snap.docker.dockerd.service")
DROPPED = "a596d6fe7bfa4994828e72309e95d61e"
"""The MESSAGE_ID with which journald reports lines dropped by its rate limit (SD_MESSAGE_JOURNAL_DROPPED)."""

REMEMBER_EVERY = 1.0
WELL_AFTER = 1.0
"""Seconds after which journalctl counts as working, even if it has written nothing."""
MAX_LINE = 256 * 1024
"""The greatest length of a journal entry in bytes; longer entries are skipped.

A message that is not valid UTF-8 is written as a list of numbers: a message of 8 KiB then has some 50 KiB.
"""

_CHUNK = 64 * 1024
_MAX_ERROR_OUTPUT = 200
# Quotes inside a JSON string are escaped, so the text of a message cannot imitate these fields.
_CURSOR = re.compile(rb'"__CURSOR" ?: ?"([^"\\]{1,512})"')
_TIME = re.compile(rb'"__REALTIME_TIMESTAMP" ?: ?"(\d{1,18})"')
_WHO = re.compile(
    rb'"(_UID|_TRANSPORT|_SYSTEMD_UNIT|_SYSTEMD_USER_UNIT|_SYSTEMD_CGROUP|CONTAINER_NAME)"'
    rb' ?: ?"([^"\\]{1,512})"'
)
_DROPPED = f'"MESSAGE_ID":"{DROPPED}"'.encode()
_UNITS = frozenset(unit.encode() for unit in UNITS)
_DOCKER = frozenset(unit.encode() for unit in DOCKER)
_CONMON = re.compile(rb"libpod-conmon-[0-9a-f]{64}\.scope")
_ROOT = b"0"
_HEX = "[0-9a-f]"
_IS_CURSOR = re.compile(rf"s={_HEX}{{32}};i={_HEX}+;b={_HEX}{{32}};m={_HEX}+;t={_HEX}+;x={_HEX}+")
"""The form of a cursor, a position in the journal. With any other text journalctl would fail."""


class JournalSource(FollowedLog):
    """A source that follows the journal. Each session runs one journalctl.

    ``ingest`` parses the lines and passes on their events. ``position`` is the cursor that an earlier process
    recorded in ``positions`` under position_key(), None at the very first start. A text that is not a cursor
    counts as None. ``program`` is the command of journalctl. ``users`` are the names or numbers of the users
    whose units and containers count.
    """

    good_after = WELL_AFTER

    def __init__(
        self,
        source: SourceId,
        ingest: LogIngest,
        position: str | None = None,
        positions: Positions | None = None,
        backoff: Backoff | None = None,
        program: Sequence[str] = PROGRAM,
        users: Iterable[str] = (),
    ) -> None:
        super().__init__(source, ingest, backoff)
        self._cursor = position if position is not None and _IS_CURSOR.fullmatch(position) else None
        self._positions = positions or Positions()
        self._remembered = (0.0, self._cursor)
        self._program = tuple(program)
        self._names = tuple(users)
        self._users: frozenset[str] = frozenset()  # their numbers, which :meth:`run` looks up
        self._refused = ""
        self._began = time.time()

    def command(self) -> list[str]:
        """Return the command line of journalctl.

        journalctl reads the entries after the cursor, or without a cursor those since this source was made.
        """
        start = f"--after-cursor={self._cursor}" if self._cursor else f"--since=@{self._began:.6f}"
        fields = "MESSAGE,MESSAGE_ID,SYSLOG_IDENTIFIER,PRIORITY,CONTAINER_NAME,CONTAINER_PARTIAL_MESSAGE"
        proofs = "_UID,_TRANSPORT,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT,_SYSTEMD_CGROUP"
        names = [f"SYSLOG_IDENTIFIER={name}" for name in IDENTIFIERS]
        return [
            *self._program,
            *("--follow", "--no-tail", "--output=json", "--all", "--quiet", "--no-pager"),
            *(f"--output-fields={fields},{proofs}", start),
            *(f"_SYSTEMD_UNIT={unit}" for unit in UNITS),
            *names,
            *("+", *(f"_SYSTEMD_USER_UNIT={unit}" for unit in UNITS)),
            *names,
            *("+", "_UID=0", *(f"_SYSTEMD_UNIT={unit}" for unit in DOCKER)),
            *("+", "_COMM=conmon"),
            *("+", "_TRANSPORT=driver", f"MESSAGE_ID={DROPPED}"),
            *(f"OBJECT_SYSTEMD_UNIT={unit}" for unit in (*UNITS, *DOCKER)),
        ]

    async def run(self) -> None:
        """Follow the journal until cancelled; then store the position.

        Before that, look up the users in a thread: their names may be on a slow server (LDAP).
        """
        try:
            numbers = await asyncio.to_thread(lambda: [*map(user_number, self._names)])
            self._users = frozenset(str(number) for number in numbers if number is not None)
            await super().run()
        finally:
            self._ingest.close()
            self._save_cursor(now=True)

    async def _session(self) -> None:
        """Run one journalctl until it ends; raise EndError with the reason."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except (OSError, RuntimeError) as error:
            # RuntimeError: without pidfd_open(2), Python starts a thread for the child, and that may fail.
            detail = f"{self._program[0]} cannot be run: {getattr(error, 'strerror', error)}"
            raise EndError(State.UNREADABLE, detail) from None
        error_output = bytearray()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_collect_errors(process.stderr, error_output))
                await self._read(process.stdout)
            raise self._end(await process.wait(), error_output)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _end(self, code: int, error_output: bytearray) -> EndError:
        """Return the error that reports the end of journalctl, which had the exit status ``code``.

        If ``code`` is negative, a signal ended journalctl. With any other code, journalctl is not allowed to
        read the journal, or does not work.
        """
        reason = printable(error_output.decode("utf-8", "replace").strip()) or "no reason given"
        detail = f"{self._program[0]} ended with {code}: {reason}"
        if code < 0:
            return EndError(State.LOST, detail)
        fix = "add ringfence's user to the group systemd-journal (see the unit)"
        return EndError(State.UNREADABLE, f"{detail}; fix: {fix}")

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        """Read the lines that journalctl writes and pass them on, until it ends."""
        begun, is_long, wait = b"", False, WELL_AFTER
        while stream is not None:
            try:
                async with asyncio.timeout(wait):
                    data = await stream.read(_CHUNK)
            except TimeoutError:
                self._set_condition(Condition(State.LISTENING, self._detail()))
                self._ingest.tick()
            else:
                if not data:
                    return
                whole, end, begun = (begun + data).rpartition(b"\n")
                if whole or end:
                    self._pass_on((whole.partition(b"\n")[2] if is_long else whole).split(b"\n"))
                    is_long = False
                if len(begun) > MAX_LINE:
                    begun, is_long = b"", True
            self._save_cursor()
            due_in = self._ingest.due_in
            wait = REMEMBER_EVERY if due_in is None else min(REMEMBER_EVERY, due_in)

    def _pass_on(self, entries: list[bytes]) -> None:
        """Pass the log lines of Asterisk in ``entries`` to ``ingest``, in groups of old and of live ones.

        Before that, the cursor moves to the last entry. So if an entry causes an exception, the entries are
        not read again, and the same exception does not repeat.
        """
        for entry in reversed(entries):
            if found := _CURSOR.search(entry):
                self._cursor = found[1].decode("utf-8", "replace")
                break
        lines = []
        for entry in entries:
            who = dict(_WHO.findall(entry))
            if who.get(b"_TRANSPORT") == b"driver":  # the journal's own message: no program can write one
                if _DROPPED in entry:
                    self._ingest.alarm(LogAlarm.JOURNAL_DROPS, time.time())
            elif self._counts(who):
                lines.append(entry)
        for live, group in groupby(lines, self._is_live):
            self._ingest.lines(b"\n".join(group) + b"\n", live=live)
        self._set_condition(Condition(State.LISTENING, self._detail()))

    def _counts(self, who: dict[bytes, bytes]) -> bool:
        """Whether the fields ``who`` of a journal entry prove that Asterisk's unit or container wrote it.

        If they do not only because the user is not among ``users``, count an alarm.
        """
        unit, own_unit = who.get(b"_SYSTEMD_UNIT", b""), who.get(b"_SYSTEMD_USER_UNIT", b"")
        user = who.get(b"_UID", b"")
        if unit in _UNITS:
            return True
        if own_unit not in _UNITS:
            if not _is_named_asterisk(who.get(b"CONTAINER_NAME", b"")):
                return False
            if user == _ROOT and (unit in _DOCKER or _is_of_conmon(unit, who.get(b"_SYSTEMD_CGROUP", b""))):
                return True
            if not _CONMON.fullmatch(own_unit):
                return False
        if user.decode("utf-8", "replace") in self._users:
            return True
        self._ingest.alarm(LogAlarm.JOURNAL_USER, time.time())
        self._refused = f"{own_unit.decode('utf-8', 'replace')} of user {user.decode('utf-8', 'replace')}"
        return False

    def _detail(self) -> str:
        if self._refused:
            return (
                f"journal; {printable(self._refused)} does not count; fix: if Asterisk runs as this user, "
                "add the user to journal_users in [asterisk.logs]"
            )
        if self.counts.lines:
            return "journal"
        return f"journal, nothing in it from {' or '.join(UNITS)}, or such a container, so far"

    def _is_live(self, entry: bytes) -> bool:
        found = _TIME.search(entry)
        return found is not None and int(found[1]) / 1e6 >= self._began

    def _save_cursor(self, *, now: bool = False) -> None:
        last, known = self._remembered
        mono = time.monotonic()
        if self._cursor is not None and self._cursor != known and (now or mono - last >= REMEMBER_EVERY):
            self._remembered = (mono, self._cursor)
            self._positions.record(position_key(self.id), self._cursor)


def _is_named_asterisk(container: bytes) -> bool:
    words = container.replace(b"_", b"-").split(b"-")
    return (words[-2] if words[-1].isdigit() and len(words) > 1 else words[-1]) in CONTAINERS


def _is_of_conmon(unit: bytes, group: bytes) -> bool:
    """Whether podman's conmon, and not a program in a container, wrote an entry with this systemd unit.

    A container may be in the unit of the service that runs podman too, but in a control ``group`` of its own.
    """
    if _CONMON.fullmatch(unit):
        return True
    return unit.endswith(b".service") and group.removesuffix(b"/supervisor").endswith(b"/" + unit)


def position_key(source: SourceId) -> str:
    """Return the key under which the position in the journal is stored."""
    return f"{source} journal"


async def _collect_errors(stream: asyncio.StreamReader | None, error_output: bytearray) -> None:
    """Read journalctl's error output; keep its last ``_MAX_ERROR_OUTPUT`` bytes in ``error_output``."""
    while stream is not None and (data := await stream.read(_CHUNK)):
        error_output += data
        del error_output[:-_MAX_ERROR_OUTPUT]
