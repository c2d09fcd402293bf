"""A log file as a source: it is read line by line, across rotation and truncation, and never twice.

From the bottom to the top: a :class:`LogIngest` parses lines and passes their events on, a :class:`Tail`
reads one open file, a :class:`RotatingLog` knows which file comes next, and a :class:`LogFileSource` waits
for changes. The journal uses :class:`LogIngest` too.
"""

import asyncio
import errno
import json
import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Self, TypeAlias

import structlog
from asyncinotify import Inotify, Mask, Watch
from attrs import asdict, evolve, frozen

from ringfence.clock import Backoff
from ringfence.parse.line_result import LogAlarm, LogCounts
from ringfence.sources.standby import LogPart, Sink, StandbyLog
from ringfence.sources.state import Condition, State, SupervisedSource
from ringfence.values.event import SecurityEvent, SourceId

# -- conversion of a log's bytes to events, with the time at which they count, and to alarms
#
# An event is *live* if its line was written while ringfence ran. A live event counts at its arrival, whatever
# time the line has. So a wrong time zone cannot make today's guesses count as yesterday's. (It raises an
# alarm.)
#
# An event that was written while ringfence was down counts at its own age: a guess of an hour ago counts as
# received an hour ago. So the rules count it at its true time, and it causes no ban if it is too old. An old
# line with a date in the future has no plausible age. It counts as older than the sliding window of any rule.
#
# Asterisk may report in a line that its log or its events are incomplete. That is an alarm too, with the
# parser's text.


CLOCK_OFF = 120.0
"""Seconds. A live line whose time differs by more from the present time raises an alarm."""

ANCIENT = 400 * 86_400.0
"""The age (seconds) of events without a plausible age: longer than the sliding window of any rule."""

SHORTEST_WAIT = 0.005
"""The minimum time (seconds) for which lines wait for later lines of the same message.

They wait so long even if their deadline has already passed.
"""

Remember = Callable[[str, str], None]
"""A function that stores how far a log was read.

Its arguments are the key under which the position is stored (one for each log), and the position, as texts.
"""


@frozen
class AlarmCount:
    """The number of times that an alarm was raised, and the last time (seconds since the epoch)."""

    count: int
    last: float


def effective_time(written: float, wall: float, mono: float, *, live: bool) -> float:
    """Return the time at which an event counts (monotonic seconds).

    ``written`` is the time of its line, and ``wall`` is now, both in seconds since the epoch. ``mono`` is the
    monotonic time at which the line was read. ``live``: the line was written while ringfence ran. An old line
    with a time in the future counts as ``ANCIENT`` seconds old.
    """
    if live:
        return mono
    age = wall - written
    return mono - (age if age >= 0 else ANCIENT)


class LogIngest:
    """Passes a log's bytes to ``log``, which parses them, and the events to ``sink``.

    ``sink`` also gets the time at which the events count. The attribute ``alarms`` counts each alarm.
    """

    def __init__(self, log: StandbyLog, sink: Sink) -> None:
        self.alarms: dict[LogAlarm, AlarmCount] = {}
        self.last_sign: float | None = None
        """The monotonic time at which a line was read last; None before the first line."""
        self._log = log
        self._sink = sink
        self._live = False
        self._due: float | None = None

    @property
    def counts(self) -> LogCounts:
        """Counters of the log since the start."""
        return self._log.counts

    @property
    def standing_by(self) -> bool:
        """Whether SECURITY lines are skipped now, because AMI delivers their events."""
        return self._log.standing_by

    def lines(self, data: bytes, *, live: bool) -> None:
        """Parse new lines. ``live``: they were written while ringfence ran."""
        self._live = live
        wall, mono = time.time(), _monotonic()
        self.last_sign = mono
        self._pass_on(self._log.feed(data, wall, mono, live=live), wall)

    def cut(self) -> None:
        """Parse the lines that wait for later lines of their message: the next lines do not belong to it."""
        wall, mono = time.time(), _monotonic()
        self._pass_on(self._log.end(wall, mono, live=self._live), wall)

    def close(self) -> None:
        """Pass on everything that waits, because this log is read no further.

        SECURITY lines whose events AMI has not delivered yet are parsed too.
        """
        wall, mono = time.time(), _monotonic()
        self._pass_on(self._log.release(wall, mono), wall)
        self.cut()

    @property
    def due_in(self) -> float | None:
        """The seconds until :meth:`tick` has something to do; None if nothing waits."""
        due = None if self._due is None else max(0.0, self._due - _monotonic())
        return min((wait for wait in (due, self._log.due_in) if wait is not None), default=None)

    def tick(self) -> None:
        """Pass on lines that have waited long enough: for later lines, or for AMI to deliver their events."""
        deadline, wall, mono = self._log.deadline, time.time(), _monotonic()
        if deadline is not None and self._due is not None and mono >= self._due:
            wall = max(wall, deadline)  # the deadline has passed, even if the wall clock was set back
            self._pass_on(self._log.feed(b"", wall, mono, live=self._live), wall)
        else:
            if parts := self._log.end_if_over(wall, mono):
                self._pass_on(parts, wall)
            self._log.resume(mono)

    def _pass_on(self, parts: Iterable[LogPart], wall: float) -> None:
        deadline = self._log.deadline
        self._due = None if deadline is None else _monotonic() + max(SHORTEST_WAIT, deadline - wall)
        for part in parts:
            self._pass_on_part(part, wall)

    def _pass_on_part(self, part: LogPart, wall: float) -> None:
        events: list[SecurityEvent] = []
        for result in part.results:
            if result.alarm is not None:
                self.alarm(result.alarm, wall)
            event = result.event or result.ambiguous
            if event is not None:
                events.append(event)
                if part.live and abs(wall - event.time) > CLOCK_OFF:
                    self.alarm(LogAlarm.CLOCK, wall)
        mono, live = part.at, part.live
        for when, group in groupby(events, lambda event: effective_time(event.time, wall, mono, live=live)):
            self._sink(list(group), when)

    def alarm(self, alarm: LogAlarm, wall: float) -> None:
        """Count an alarm that was raised at ``wall`` (seconds since the epoch)."""
        known = self.alarms.get(alarm)
        self.alarms[alarm] = AlarmCount(known.count + 1 if known else 1, wall)


def _monotonic() -> float:
    return asyncio.get_running_loop().time()


class FollowedLog(SupervisedSource):
    """The base class of logs as sources: a file or the journal. ``ingest`` gets the lines."""

    def __init__(self, source: SourceId, ingest: LogIngest, backoff: Backoff | None) -> None:
        super().__init__(structlog.get_logger().bind(source=str(source)), backoff)
        self.id = source
        self._ingest = ingest

    @property
    def counts(self) -> LogCounts:
        """Counters since the start."""
        return self._ingest.counts

    @property
    def last_sign(self) -> float | None:
        """The monotonic time at which a line was read last; None before the first line."""
        return self._ingest.last_sign

    @property
    def standing_by(self) -> bool:
        """Whether SECURITY lines are skipped now, because AMI delivers their events."""
        return self._ingest.standing_by

    @property
    def alarms(self) -> Mapping[LogAlarm, AlarmCount]:
        """The alarms about the log as a source: how often each was raised, and when last."""
        return self._ingest.alarms


# -- one open file of a log, from which whole lines are read, and the position in it
#
# A :class:`Tail` reads a regular file with pread. Each read begins with the last bytes of the read before.
# If these have changed, the file was truncated or rewritten. This check needs no system call of its own. It
# also detects a truncated file that is already longer again than what was read (``copytruncate`` under
# load). Only whole lines are returned; an unfinished line is read again later. So a position is always
# after a line, and its offset alone describes everything that was read.
#
# A :class:`Position` identifies that position for a later process: device, inode and offset. These are not
# enough, because inodes are reused, and a copy of the file has another inode. So a position also contains a
# digest of the bytes before the offset. It contains no log text.
#
# A :class:`Fifo` is the same for a FIFO, which has no positions.
#
# ``CHUNK`` is twice the longest line that Asterisk writes (8191 bytes, `main/logger.c`). It is also the
# amount that is read before other tasks run: a millisecond's work. A longer line is returned in pieces.


CHUNK = 16 * 1024
MARK = 512
"""The number of bytes before a position that identify it.

It is more than a line of a security event. The end of such a line would not suffice: it is often the same in
two lines about one attacker.
"""
HEAD = 512
"""The number of bytes at the start of a log that identify it and its copies.

It is more than the line with which Asterisk begins each log. That line would not suffice: it is the same in
two logs that were begun within a second.
"""

Key: TypeAlias = tuple[int, int]
"""Device and inode, which identify a file as long as it exists."""

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class RewrittenError(Exception):
    """The bytes that were read are no longer in ``tail``'s file: it was truncated or rewritten."""

    def __init__(self, tail: "Tail") -> None:
        super().__init__("truncated")
        self.tail = tail


@frozen
class Position:
    """A position in a file, after a line: ``mark`` is the digest of the bytes before ``offset``.

    ``done`` are the digests (:attr:`Tail.name`) of the last files that were read to their end, so that these
    are not read again. Their times alone may not distinguish them from the files that followed.
    """

    device: int
    inode: int
    offset: int
    mark: str
    done: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """The device and inode of the file."""
        return self.device, self.inode

    def to_text(self) -> str:
        """Return the position as text for the store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | None) -> Self | None:
        """Parse the text of :meth:`to_text`; return None for any other text."""
        try:
            fields = json.loads(text or "")
            device, inode, offset = (fields[name] for name in ("device", "inode", "offset"))
            if not all(isinstance(number, int) and number >= 0 for number in (device, inode, offset)):
                return None
            return cls(device, inode, offset, str(fields["mark"]), tuple(map(str, fields["done"])))
        except (ValueError, TypeError, KeyError):
            return None


NOWHERE = Position(0, 0, 0, "")
"""The position if there is no file: the next file is read from its start."""


class Tail:
    """An open regular file and the offset up to which it was read. Close it with :meth:`close`."""

    def __init__(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.fd = descriptor
        self.key: Key = (status.st_dev, status.st_ino)
        self.go_to(0)

    def read(self) -> bytes:
        """Return the next whole lines; empty until there is a whole line.

        Raises RewrittenError, and OSError if the disk fails.
        """
        data = self._following()
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= CHUNK:
            end = len(data)
        return self._consume(data[:end])

    def rest(self) -> bytes:
        """Return the unfinished last line; call this when nothing more will be written to the file.

        Return b"" if there is no such line, or if the file was truncated or rewritten.
        """
        with suppress(RewrittenError):
            return self._consume(self._following())
        return b""

    @property
    def size(self) -> int:
        """The current length of the file."""
        return os.fstat(self.fd).st_size

    @property
    def changed(self) -> int:
        """The time of the last write, as the file system recorded it (nanoseconds since the epoch)."""
        return os.fstat(self.fd).st_mtime_ns

    @property
    def name(self) -> str:
        """A digest of the first ``HEAD`` bytes, as far as they were read. A copy has the same digest."""
        return _digest(self._head)

    @property
    def position(self) -> Position:
        """The position after the last returned line."""
        return Position(*self.key, self.offset, _digest(self._before))

    def fits(self, position: Position) -> bool:
        """Whether ``position`` is in this file: the bytes before its offset have the digest ``mark``.

        A position at the start has no bytes before it. It fits only the file with its device and inode.
        """
        if position.offset == 0:
            return position.key == self.key
        length = min(MARK, position.offset)
        before = os.pread(self.fd, length, position.offset - length)
        return len(before) == length and _digest(before) == position.mark

    def go_to(self, offset: int) -> None:
        """Continue at ``offset``, which must be after a line."""
        self.offset = offset
        self._before = os.pread(self.fd, min(MARK, offset), max(0, offset - MARK))
        self._head = os.pread(self.fd, min(HEAD, offset), 0)

    def go_to_last_line(self) -> None:
        """Continue after the last whole line. An unfinished line after it is read when it is complete."""
        size = self.size
        start = max(0, size - CHUNK)
        end = os.pread(self.fd, CHUNK, start).rfind(b"\n") + 1
        self.go_to(start + end if end or not start else size)

    def go_to_line_after(self, offset: int) -> None:
        """Continue at the first line that begins after ``offset``."""
        self.go_to(offset + os.pread(self.fd, CHUNK, offset).find(b"\n") + 1)

    def whole_name(self) -> str:
        """Return a digest of the file's first ``HEAD`` bytes, whether they were read or not."""
        return _digest(os.pread(self.fd, HEAD, 0))

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def _following(self) -> bytes:
        before = self._before
        data = os.pread(self.fd, len(before) + CHUNK, self.offset - len(before))
        if not data.startswith(before):
            raise RewrittenError(self)
        return data[len(before) :]

    def _consume(self, data: bytes) -> bytes:
        if data:
            self._head += data[: HEAD - len(self._head)]
            self.offset += len(data)
            self._before = (self._before + data[-MARK:])[-MARK:]
        return data


class Fifo:
    """An open FIFO.

    It has no old lines and no position: without a reader its writer waits, or loses lines.
    """

    position = None
    size = 1  # a FIFO has no size, but 0 would mean that it is empty

    def __init__(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.fd = descriptor
        self.key: Key = (status.st_dev, status.st_ino)
        self._begun = b""

    def read(self) -> bytes:
        """Return the next whole lines; empty until there is a whole line."""
        try:
            data = os.read(self.fd, CHUNK)
        except BlockingIOError:  # the writer writes nothing now; without a writer, read returns no bytes
            return b""
        data = self._begun + data
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= CHUNK:
            end = len(data)
        self._begun = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """Return the bytes after the last line end, and forget them."""
        rest, self._begun = self._begun, b""
        return rest

    def close(self) -> None:
        """Close the FIFO."""
        os.close(self.fd)


def open_log(path: Path) -> Tail | Fifo:
    """Open a log, a regular file or a FIFO, at its beginning. Raises OSError."""
    descriptor = os.open(path, _FLAGS)
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISREG(kind):
            return Tail(descriptor)
        if stat.S_ISFIFO(kind):
            return Fifo(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is neither a file nor a FIFO", str(path))


def rotated_files(path: Path, since: int = 0) -> list[Path]:
    """Return the files that ``path`` was rotated to, the last written file last.

    Files that were last written to before ``since`` (nanoseconds, as in ``st_mtime_ns``) are left out.
    Asterisk appends ``.NUMBER``, a count or a time (its option ``rotatestrategy``); logrotate appends
    ``.NUMBER`` or ``-DATE``.
    Compressed files have other bytes and are left out. If the folder may not be read, no file is returned.
    """
    name = re.compile(re.escape(path.name) + r"[.-][0-9][0-9.-]*")
    found: list[tuple[int, str]] = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if name.fullmatch(entry.name):
                with suppress(OSError):
                    found.append((entry.stat().st_mtime_ns, entry.name))
    return [path.with_name(name) for changed, name in sorted(found) if changed >= since]


def open_tails(paths: Iterable[Path]) -> Iterator[Tail]:
    """Yield each file, open at its start, if it is a regular file and may be read; the caller closes it."""
    for path in paths:
        try:
            file = open_log(path)
        except OSError:
            continue
        if isinstance(file, Tail):
            yield file
        else:
            file.close()


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


# -- one log across rotation and truncation: the present file, the next file, and the position
#
# No function here waits: :meth:`RotatingLog.step` passes on one piece, or returns False. These rules hold
# for every kind of rotation, at any time:
#
# - The old file is read to its end before the new one is begun. No waiting time is needed, because a
#   program closes the old file before it writes to the new one. So once the new file has content, the end
#   of the old file is final. As long as the new file is empty, the old one is still followed.
# - A file that was created and rotated between two checks is found among the rotated files: it was written
#   to after the old file, and was not read before. Several such files are read oldest first.
# - A truncated file is read again from its start. Before that, its unread rest is read from the copy that
#   ``copytruncate`` made. Lines written between that copy and the truncation are lost for every reader, as
#   logrotate's manual states.
# - At a start with a stored position, reading continues in the file of that position, even if it was
#   renamed. If the position fits no file, the file at the path is read from its start. Without a position,
#   at the very first start, it is read from its end. Lines from before the start are not *live*: they are
#   old evidence, which must count with its own time. All lines of a file that appears later are live.
#
# Compressed files are not read: their bytes differ, and they are usually a day old or more.


MOST_PAST = 256 * 1024 * 1024
"""The maximum number of bytes that are read of a file written while ringfence was down.

Earlier lines are skipped. This is about a day of guesses at 3 a second.
"""


class RotatingLog:
    """Reads the log at ``path`` across rotation and truncation, and passes its lines to ``reader``.

    The argument ``position`` is where an earlier process stopped, None at the very first start. The attribute
    of this name is where the next process continues.

    ``live``: all lines from before the start have been read. ``skipped`` is the number of bytes of old lines
    that were left out, because there were too many. ``present`` is the open file that is read now, None if
    there is none. ``newest`` identifies the file that was at ``path`` at the last check, None if there was
    none. Every method may raise OSError, and may be called again afterwards.
    """

    def __init__(self, path: Path, reader: LogIngest, position: Position | None = None) -> None:
        self.path = path
        self.live = False
        self.skipped = 0
        self.present: Tail | Fifo | None = None
        self.newest: Key | None = None
        self._reader = reader
        self._from = position
        self._next: Tail | Fifo | None = None
        self._finished = deque(position.done if position is not None else (), maxlen=8)
        self._done: set[str] = set(self._finished)

    @property
    def position(self) -> Position | None:
        """Where the next process should continue; None if there is nothing to store, as for a FIFO."""
        if self.present is None:
            return self._from
        position = self.present.position
        return None if position is None else evolve(position, done=tuple(self._finished))

    def step(self) -> bool:
        """Pass on the next lines. Return False if the caller should wait until more is written."""
        present = self.present if self.present is not None else self._begin()
        if present is None:
            return False
        # If there is a next file, an earlier step found it with content, before this read. Then no program
        # writes to the present file any more. So if this read returns nothing, the present file is finished.
        following = self._next
        try:
            data = present.read()
        except RewrittenError as rewritten:
            self._restart(rewritten.tail)
            return True
        if data:
            self._reader.lines(data, live=self.live)
        elif following is not None:
            self._switch(present, following)
        elif not self._find_next(present):
            self.live = True
            return False
        return True

    def close(self) -> None:
        """Close the files; the next step continues at the last position."""
        self._from = self.position
        for file in (self.present, self._next):
            if file is not None:
                file.close()
        self.present = self._next = None

    # -- the file that is read first --------------------------------------------------------------------

    def _begin(self) -> Tail | Fifo | None:
        """Open the file that is read first, and return it; None if there is no file yet."""
        first = self._from is None
        tail = self._find_position(self._from) if self._from is not None and self._from != NOWHERE else None
        if tail is not None:
            self.present = tail
            self._skip_old(tail)
            siblings = rotated_files(self.path)
            newer = set() if tail.key == self._key() else set(rotated_files(self.path, tail.changed))
            self._are_done([path for path in siblings if path not in newer])
            return tail
        try:
            self.present = open_log(self.path)
        except FileNotFoundError:
            self.live, self._from = True, NOWHERE  # a file that appears later is read from its start
            return None
        self._are_done(rotated_files(self.path))
        if isinstance(self.present, Fifo):
            self.live = True
        elif first:
            self.present.go_to_last_line()
        elif not self.live:
            self._skip_old(self.present)
        return self.present

    def _find_position(self, position: Position) -> Tail | None:
        """Open the file of ``position``, go to that position in it, and return the file.

        The file may have another name by now. If it no longer exists, a copy of it is opened. Return None if
        there is no copy either.
        """
        candidates = [self.path, *reversed(rotated_files(self.path))]
        for same in (True, False):
            for tail in open_tails(candidates):
                if (tail.key == position.key) is same and tail.fits(position):
                    tail.go_to(position.offset)
                    return tail
                tail.close()
        return None

    def _skip_old(self, tail: Tail) -> None:
        """Skip the oldest unread lines of a file if more than ``MOST_PAST`` bytes are unread."""
        before = tail.offset
        if tail.size - before > MOST_PAST:
            tail.go_to_line_after(tail.size - MOST_PAST)
            self.skipped += tail.offset - before

    def _are_done(self, paths: list[Path]) -> None:
        for tail in open_tails(paths):
            self._done.add(tail.whole_name())
            tail.close()

    # -- the file that is read next ---------------------------------------------------------------------

    def _find_next(self, present: Tail | Fifo) -> bool:
        """Look for the file to read after the present one, and open it as ``_next`` if it has content.

        Return False if no file follows, or if that file is still empty. Otherwise return True: the caller
        should call :meth:`step` again at once. True without a ``_next`` means that the log is being rotated
        at this moment. Then the next step searches again.
        """
        self.newest = self._key()
        if self.newest is None or self.newest == present.key:
            return False
        # The path was looked up before the rotated files. It must still lead to the same file afterwards.
        # Otherwise a file that was renamed in between would be missed or found twice.
        missed = self._missed(present, self.newest) if isinstance(present, Tail) else None
        if missed is not None:
            self._next = missed
            return True
        try:
            file = open_log(self.path)
        except FileNotFoundError:
            return True  # the log is being rotated now: the next step searches again
        if file.key == self.newest and file.size:
            self._next = file
            return True
        file.close()
        return file.key != self.newest

    def _missed(self, present: Tail, newest: Key) -> Tail | None:
        """Open the oldest unread file that was created and rotated after the present one, and return it.

        Return None if there is no such file. ``newest`` identifies the file that is at the path now, and so
        was not rotated.
        """
        for tail in open_tails(rotated_files(self.path, present.changed)):
            if tail.key not in {present.key, newest} and tail.size and tail.whole_name() not in self._done:
                return tail
            tail.close()
        return None

    def _switch(self, present: Tail | Fifo, following: Tail | Fifo) -> None:
        """Close the present file, which was read to its end, and continue with the following one."""
        rest = present.rest()
        if isinstance(present, Tail):
            self._finish(present)
        self.present, self._next = following, None
        present.close()
        if rest:
            self._reader.lines(rest, live=self.live)
        self._reader.cut()

    def _restart(self, present: Tail) -> None:
        """Continue after a truncation of ``present``.

        The unread rest is read from the copy of the old content, if there is one, and then the file from its
        start.
        """
        copy = self._find_position(present.position)
        self._finish(present)
        if copy is None:
            present.go_to(0)
        else:
            self.present = copy
            present.close()
        self._reader.cut()

    def _finish(self, tail: Tail) -> None:
        self._finished.append(tail.name)
        self._done.add(tail.name)

    def _key(self) -> Key | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino


# -- one log file of one Asterisk as a source: it waits for changes, reports the condition, and stores the
# position
#
# inotify (asyncinotify, 70 µs from a write to the wake-up) reports writes to the file, and new names in its
# folder. The file is also checked every
# ``LOOK_EVERY`` seconds, because inotify misses some changes (network file systems, an overflow, a folder
# that does not exist yet). So a missed change only delays the lines. If the kernel allows this user no more
# instances or watches of inotify, the file is checked every ``LOOK_BLIND`` seconds, and the condition
# reports it.
#
# While AMI and the wire deliver everything that a log could add, lines may gather for ``GATHER`` seconds:
# each wake-up costs more than the line that caused it. A line that counts ends this, and so does a set
# ``hurry``.
#
# After each piece of the log other tasks may run. So reading a log of gigabytes does not delay the manager
# interface.


LOOK_EVERY = 1.0
LOOK_BLIND = 0.1
GATHER = 0.1
REMEMBER_EVERY = 1.0

_NAMES = Mask.CREATE | Mask.MOVED_TO | Mask.ATTRIB | Mask.ONLYDIR
_WRITING = Mask.MODIFY


class LogFileSource(FollowedLog):
    """A source that follows the log at ``path``.

    ``ingest`` parses the lines and passes on their events. It is called as soon as new lines are read, and
    not in another task, so that a ban is not delayed. If it raises an exception, which is a defect of
    ringfence, only the piece of the log that was being parsed is lost.

    ``remember`` gets the position at most once a second, and at the end. ``position`` is the text that an
    earlier process passed to ``remember`` under position_key(), None at the very first start. If that text is
    invalid, the file is read from its start. ``hurry`` is set while each line must be read at once, although
    AMI delivers; None: always.
    """

    def __init__(
        self,
        source: SourceId,
        path: Path,
        ingest: LogIngest,
        position: str | None = None,
        remember: Remember = lambda _key, _position: None,
        backoff: Backoff | None = None,
        hurry: asyncio.Event | None = None,
    ) -> None:
        super().__init__(source, ingest, backoff)
        self._hurry = hurry
        self._log = self._log.bind(path=str(path))
        start = None if position is None else Position.from_text(position) or NOWHERE
        self._rotating = RotatingLog(path, ingest, start)
        self._path = path
        self._remember = remember
        self._key = position_key(source, path)
        self._remembered = (0.0, start)
        self._inotify: Inotify | None = None
        self._watches: dict[str, Watch] = {}
        self._seen: tuple[object, object] = (None, None)
        self._blind = False
        self._idle = False

    @property
    def skipped(self) -> int:
        """The number of bytes of old lines that were skipped, because there were too many."""
        return self._rotating.skipped

    async def run(self) -> None:
        """Follow the log until cancelled.

        At the end, lines that wait for later lines or for AMI are passed on, and the position is stored.
        """
        try:
            await super().run()
        finally:
            try:
                self._ingest.close()
            finally:
                self._save_position(now=True)
                self._rotating.close()

    async def _session(self) -> None:
        """Read present and future lines until cancelled."""
        with self._watching():
            while True:
                before = self.counts.events
                try:
                    await self._catch_up()
                except OSError as error:
                    self._set_condition(_unreadable(self._path, error))
                self._ingest.tick()
                await self._wake()
                if self.standing_by and self.counts.events == before:
                    await self._gather()

    # -- reading ----------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Read all lines that are there now. Other tasks run after each piece."""
        while True:
            while self._rotating.step():
                self._save_position()
                await asyncio.sleep(0)
            # inotify does not report writes from before the watch, so the file is read again after a watch
            # was added.
            if not self._watch_files():
                break
        self._save_position()
        self._set_condition(self._current_condition())

    def _save_position(self, *, now: bool = False) -> None:
        """Store the position if it has changed: at once with ``now``, else at most once a second."""
        last, known = self._remembered
        at = asyncio.get_running_loop().time()
        if not now and at - last < REMEMBER_EVERY:
            return
        position = self._rotating.position
        if position is not None and position != known:
            self._remembered = (at, position)
            self._remember(self._key, position.to_text())

    # -- waking up --------------------------------------------------------------------------------------

    @contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            self._inotify = Inotify()
            self._blind = False
        except OSError:  # the kernel allows this user no more instances
            self._blind = True
        try:
            self._watch_folders()
            yield
        finally:
            self._watches.clear()
            self._seen = (None, None)
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None

    async def _wake(self) -> None:
        """Wait for an event of inotify, for the reader's next tick, or for the next check."""
        look = LOOK_BLIND if self._blind else LOOK_EVERY
        due_in = self._ingest.due_in
        self._idle = False
        try:
            async with asyncio.timeout(look if due_in is None else min(look, due_in)):
                await (self._inotify.get() if self._inotify is not None else asyncio.Future())
        except TimeoutError:
            self._idle = due_in is None
            self._watch_folders()

    async def _gather(self) -> None:
        """Let more lines arrive, unless there is a hurry."""
        if self._hurry is not None and not self._hurry.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await self._hurry.wait()

    def _watch_folders(self) -> None:
        """Watch the log's folder for new names. If the log is a link, also watch the linked file's folder."""
        self._watch("names", self._path.parent, _NAMES)
        target = Path(os.path.realpath(self._path)).parent
        if target != self._path.parent:
            self._watch("target", target, _NAMES)

    def _watch_files(self) -> bool:
        """Watch two files for writes: the one that is read (even if renamed), and the one now at the path.

        Return whether one of them is another file than at the last call.
        """
        present, newest = self._rotating.present, self._rotating.newest
        seen = (present and present.key, newest)
        if seen == self._seen:
            return False
        self._seen = seen
        self._watch_folders()
        if present is not None:
            self._watch("present", Path(f"/proc/self/fd/{present.fd}"), _WRITING)
        if newest is not None:
            self._watch("newest", self._path, _WRITING)
        return True

    def _watch(self, name: str, path: Path, mask: Mask) -> None:
        if self._inotify is None:
            return
        try:
            watch = self._inotify.add_watch(path, mask)
        except OSError as error:  # the file is gone or unreadable: the regular check handles it
            self._blind = self._blind or error.errno == errno.ENOSPC  # no more watches are allowed
            return
        old, self._watches[name] = self._watches.get(name), watch
        if old is not None and all(old.wd != kept.wd for kept in self._watches.values()):
            with suppress(OSError):  # the kernel has removed the watch with its file
                self._inotify.rm_watch(old)

    # -- what is reported -------------------------------------------------------------------------------

    def _current_condition(self) -> Condition:
        present = self._rotating.present
        if present is None:
            return Condition(State.WAITING, f"{self._path} does not exist yet")
        if self._idle and self._rotating.newest is None:
            return Condition(State.WAITING, f"{self._path} was removed and not replaced")
        disk = os.fstatvfs(present.fd)
        if disk.f_blocks and not disk.f_bavail:
            return Condition(State.FULL, f"the disk of {self._path} is full; fix: make room on it")
        if self._blind:
            return Condition(
                State.LISTENING, f"{self._path}, slowly; fix: raise the limits of fs.inotify (sysctl)"
            )
        return Condition(State.LISTENING, str(self._path))


def _unreadable(path: Path, error: OSError) -> Condition:
    """Return the condition of a log that cannot be read, with the fix."""
    if error.errno in {errno.EACCES, errno.EPERM}:
        detail = f"{path} cannot be read: permission denied; fix: give ringfence's user an ACL on it"
        return Condition(State.UNREADABLE, detail)
    return Condition(State.UNREADABLE, f"{path} cannot be read: {error.strerror}")


def position_key(source: SourceId, path: Path) -> str:
    """Return the key under which the position in a log is stored."""
    return f"{source} {path}"
