"""One log across rotation and truncation: the present file, the next file, and the position.

A :class:`Tail` reads one open file, and a :class:`RotatingLog` knows which file comes next. No function here
waits: :meth:`RotatingLog.step` passes on one piece, or returns False. These rules hold for every kind of
rotation, at any time:

- The old file is read to its end before the new one is begun. No waiting time is needed, because a
  program closes the old file before it writes to the new one. So once the new file has content, the end
  of the old file is final. As long as the new file is empty, the old one is still followed.
- A file that was created and rotated between two checks is found among the rotated files: it was written
  to after the old file, and was not read before. Several such files are read oldest first.
- A truncated file is read again from its start. Before that, its unread rest is read from the copy that
  ``copytruncate`` made. Lines written between that copy and the truncation are lost for every reader, as
  logrotate's manual states.
- A copy of the file is not read again, neither in its place (``cp`` and ``mv``) nor under a name
  of the rotation. Of a copy in its place only later lines are read.
- At a start with a stored position, reading continues in the file of that position, even if it was
  renamed. While no file exists, the position is kept, because the disk of the log may be mounted later. If
  the position fits no file, the file at the path is read from its start. Without a position, at the very
  first start, it is read from its end. Lines from before the start are not *live*: they are old evidence,
  which must count with its own time. If a configured file was never read and appears later, all its lines
  are live. A log that the search finds later is read as old up to its present end.

Compressed files are not read. So if a log is compressed at its rotation (logrotate without ``delaycompress``)
while ringfence is down, its unread lines are lost.
"""

import json
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from heapq import heappop, heappush
from pathlib import Path
from typing import Self, TypeAlias

from attrs import asdict, evolve, frozen

from ringfence.file_rights import open_regular
from ringfence.sources.log_ingest import LogIngest

# -- one open file of a log, from which whole lines are read, and the position in it
#
# A :class:`Tail` reads a regular file with pread. Each read begins with the last bytes of the read before.
# If these have changed, the file was truncated or rewritten. This check needs no system call of its own. It
# also detects a truncated file that is already longer again than what was read (``copytruncate`` under
# load). Only whole lines are returned, except that a line longer than ``CHUNK`` is returned in parts. An
# unfinished line is read again later. So the offset of a position alone describes everything that was read.
#
# A :class:`Position` identifies that position for a later process: device, inode and offset. These are not
# enough, because inodes are reused, and a copy of the file has another inode. So a position also contains a
# digest of the bytes before the offset. It contains no log text.
#
# A :class:`Fifo` is the same for a FIFO, which has no positions.
#
# ``CHUNK`` is twice the longest line that Asterisk writes (8191 bytes, `main/logger.c`). It is also the
# amount that is read before other tasks run: a millisecond's work.


CHUNK = 16 * 1024
MARK = 512
"""The number of bytes before a position in a log whose digest identifies the position.

This is more than a line of a security event has. Fewer would not suffice: the ends of two such lines about
one attacker are often the same.
"""
HEAD = 512
"""The number of bytes at the start of a log whose digest identifies the log and its copies.

This is more than the line with which Asterisk begins each log. That line would not suffice: it is the same
in two logs that were begun within a second.
"""

Key: TypeAlias = tuple[int, int]
"""Device and inode, which identify a file as long as it exists."""


class RewrittenError(Exception):
    """The log that ``tail`` reads was truncated or rewritten: the bytes read before are no longer there."""

    def __init__(self, tail: "Tail") -> None:
        super().__init__("truncated")
        self.tail = tail


@frozen
class Position:
    """A position in a file, after a line or a part of a long one.

    ``mark`` is the digest of the bytes before ``offset``. ``done`` are the digests (:attr:`Tail.name`) of the
    last files that were read to their end, so that these are not read again. Their times alone may not
    distinguish them from the files that followed.
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
        """Return the next whole lines of the file; b"" until there is a whole line.

        Of a line longer than ``CHUNK`` bytes, return parts. Raises RewrittenError, and OSError if the disk
        fails.
        """
        data = self._following()
        return self._consume(data[: _end_of_lines(data)])

    def rest(self) -> bytes:
        """Return the unfinished last line; call this when nothing more will be written to the file.

        Return b"" if there is no such line, or if the file was truncated, was rewritten or cannot be read.
        """
        with suppress(RewrittenError, OSError):
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
        """A digest of the file's first ``HEAD`` bytes, as far as they were read: that of a copy is equal."""
        return _digest(self._head)

    @property
    def position(self) -> Position:
        """The position after the last line that was returned."""
        return Position(*self.key, self.offset, _digest(self._before))

    def fits(self, position: Position) -> bool:
        """Whether ``position`` is one of this file: the bytes before its offset have the recorded digest.

        A position at the start has no bytes before it. It fits only the file with its device and inode.
        """
        if position.offset == 0:
            return position.key == self.key
        length = min(MARK, position.offset)
        before = os.pread(self.fd, length, position.offset - length)
        return len(before) == length and _digest(before) == position.mark

    def go_to(self, offset: int) -> None:
        """Continue at ``offset``, which must be after a line or a part of a long one."""
        before = os.pread(self.fd, min(MARK, offset), max(0, offset - MARK))
        head = os.pread(self.fd, min(HEAD, offset), 0)
        self.offset, self._before, self._head = offset, before, head  # all or, after a read error, none

    def go_to_last_line(self) -> None:
        """Continue after the last whole line. An unfinished line after it is read when it is complete."""
        size = self.size
        start = max(0, size - CHUNK)
        end = os.pread(self.fd, CHUNK, start).rfind(b"\n") + 1
        self.go_to(start + end if end or not start else size)

    def go_to_line_after(self, offset: int) -> None:
        """Continue at the first line that begins after ``offset``."""
        self.go_to(offset + os.pread(self.fd, CHUNK, offset).find(b"\n") + 1)

    def skip_copied(self, original: "Tail") -> None:
        """Continue after the lines that were read of ``original``, if this file is a copy of that file."""
        if self.copies(original):
            self.go_to(original.offset)

    def copies(self, original: "Tail") -> bool:
        """Whether this file has what was read of ``original``, so it is a copy of that file."""
        return original.offset > 0 and self.fits(original.position)

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
        """Return the next whole lines of the FIFO; b"" until there is a whole line.

        Of a line longer than ``CHUNK`` bytes, return parts.
        """
        try:
            data = os.read(self.fd, CHUNK)
        except BlockingIOError:  # the writer writes nothing now; without a writer, read returns no bytes
            return b""
        data = self._begun + data
        end = _end_of_lines(data)
        self._begun = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """Return the bytes after the last line end, and forget them."""
        rest, self._begun = self._begun, b""
        return rest

    def close(self) -> None:
        """Close the FIFO."""
        os.close(self.fd)


def _end_of_lines(data: bytes) -> int:
    """Return how many bytes of ``data`` are whole lines; all, if it is a part of a line over ``CHUNK``."""
    end = data.rfind(b"\n") + 1
    return len(data) if not end and len(data) >= CHUNK else end


def open_log(path: Path) -> Tail | Fifo:
    """Open a log, a regular file or a FIFO, at its beginning; raise OSError if that fails."""
    descriptor = open_regular(path, fifo=True)
    try:
        return Tail(descriptor) if stat.S_ISREG(os.fstat(descriptor).st_mode) else Fifo(descriptor)
    except OSError:
        os.close(descriptor)
        raise


MOST_ROTATED = 1_000
"""The maximum number of rotated files of a log that count: those that were written last.

Asterisk's user may make any number of such names. The files that ringfence has not read yet are among the
last ones, unless the log was rotated more often than this while ringfence was down.
"""


def rotated_files(path: Path, since: int = 0) -> list[Path]:
    """Return the last ``MOST_ROTATED`` files that ``path`` was rotated to, the last written file last.

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
                    heappush(found, (entry.stat().st_mtime_ns, entry.name))
                if len(found) > MOST_ROTATED:
                    heappop(found)
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


MOST_PAST = 256 * 1024 * 1024
"""The maximum number of bytes that are read of each file written while ringfence was down.

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
        """Where the next process should continue in the log; None if that cannot be stored, as for a FIFO."""
        if self.present is None:
            return self._from
        position = self.present.position
        return None if position is None else evolve(position, done=tuple(self._finished))

    def step(self) -> bool:
        """Pass the log's next lines on; return False if there are none until more is written."""
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
        except OSError:  # a file that cannot be read is left as soon as another one follows
            if following is not None:
                self._switch(present, following)
            elif not self._find_next(present):
                raise
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
        """Open the file where reading starts, the log or an older one, and return it; None without a file."""
        first = self._from is None
        tail = self._find_position(self._from) if self._from is not None and self._from != NOWHERE else None
        if tail is not None:
            self.present = tail
            self._skip_old(tail)
            siblings = rotated_files(self.path)
            newer = set() if tail.key == self._key() else set(rotated_files(self.path, tail.changed))
            self._mark_done([path for path in siblings if path not in newer])
            return tail
        try:
            self.present = open_log(self.path)
        except FileNotFoundError:
            if first or self._from == NOWHERE:  # otherwise the disk of the file may come later
                self.live, self._from = True, NOWHERE
            return None
        self._mark_done(rotated_files(self.path))
        if isinstance(self.present, Fifo):
            self.live = True
        elif first:
            self.present.go_to_last_line()
        elif not self.live:
            self._skip_old(self.present)
        return self.present

    def _find_position(self, position: Position) -> Tail | None:
        """Open the file in which ``position`` is, go to that position, and return the file.

        The file may have another name by now. If it no longer exists, a copy of it is opened. Return None if
        there is no copy either. A rotated file that cannot be read is left out.
        """
        candidates = [self.path, *reversed(rotated_files(self.path))]
        for same in (True, False):
            for tail in open_tails(candidates):
                try:
                    if (tail.key == position.key) is same and tail.fits(position):
                        tail.go_to(position.offset)
                        return tail
                except OSError:
                    tail.close()
                    # The position may be in the log itself, which may be readable again later.
                    if tail.key == self._key():
                        raise
                else:
                    tail.close()
        return None

    def _skip_old(self, tail: Tail) -> None:
        """Skip the oldest unread lines of a file if more than ``MOST_PAST`` bytes are unread."""
        before = tail.offset
        if tail.size - before > MOST_PAST:
            tail.go_to_line_after(tail.size - MOST_PAST)
            self.skipped += tail.offset - before

    def _mark_done(self, paths: list[Path]) -> None:
        """Record that the rotated files ``paths`` have been read, or are older than what is to be read."""
        for tail in open_tails(paths):
            with suppress(OSError):
                self._done.add(tail.whole_name())
            tail.close()

    # -- the file that is read next ---------------------------------------------------------------------

    def _find_next(self, present: Tail | Fifo) -> bool:
        """Look for the file to read after ``present``, and open it as ``_next`` if it has content.

        Return False if no file follows, or if the following file is still empty. Otherwise return True: the
        caller should call :meth:`step` again at once. True without a ``_next`` means that the log is being
        rotated at this moment. Then the next step searches again.
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
        try:
            if file.key == self.newest and file.size:
                if isinstance(file, Tail) and isinstance(present, Tail):
                    file.skip_copied(present)
                self._next = file
                return True
        except OSError:
            file.close()
            raise
        file.close()
        return file.key != self.newest

    def _missed(self, present: Tail, newest: Key) -> Tail | None:
        """Open the oldest unread file that was created and rotated after ``present``, and return it.

        Return None if there is no such file. A file that cannot be read is left out. ``newest`` identifies
        the file that is at the path now, and so was not rotated.
        """
        others = {present.key, newest}
        try:
            since = present.changed
        except OSError:  # a stale handle of NFS
            return None
        for tail in open_tails(rotated_files(self.path, since)):
            with suppress(OSError):
                new = tail.key not in others and tail.size and tail.whole_name() not in self._done
                if new and not tail.copies(present):  # an administrator may have copied the present file
                    return tail
            tail.close()
        return None

    def _switch(self, present: Tail | Fifo, following: Tail | Fifo) -> None:
        """Close the present file, which was read as far as possible, and continue with the following one."""
        rest = present.rest()
        if isinstance(present, Tail):
            self._finish(present)
        self.present, self._next = following, None
        present.close()
        if rest:
            self._reader.lines(rest, live=self.live)
        self._reader.cut()
        if not self.live and isinstance(following, Tail):
            self._skip_old(following)

    def _restart(self, present: Tail) -> None:
        """Continue after a truncation of ``present``.

        First the unread lines are read from the copy of the old content, if there is one, and then the file
        from its start.
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
