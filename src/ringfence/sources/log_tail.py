"""One open file of a log, from which whole lines are read, and the position in it.

A :class:`Tail` reads a regular file with pread. Each read begins with the last bytes of the read before. If
these have changed, the file was truncated or rewritten. This check needs no system call of its own. It also
detects a truncated file that is already longer again than what was read (``copytruncate`` under load). Only
whole lines are returned; an unfinished line is read again later. So a position is always after a line, and
its offset alone describes everything that was read.

A :class:`Position` identifies that position for a later process: device, inode and offset. These are not
enough, because inodes are reused, and a copy of the file has another inode. So a position also contains a
digest of the bytes before the offset. It contains no log text.

A :class:`Fifo` is the same for a FIFO, which has no positions.

``CHUNK`` is twice the longest line that Asterisk writes (8191 bytes, `main/logger.c`). It is also the amount
that is read before other tasks run: a millisecond's work. A longer line is returned in pieces.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Self, TypeAlias

from attrs import asdict, frozen

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
