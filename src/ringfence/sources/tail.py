"""What is followed, one open file at a time: bytes from an offset on, whole lines, and where one is.

A :class:`Tail` reads a regular file with pread and begins each read with the last bytes of the one before.
Are they not there any more, the file was truncated or written anew. That costs no call of its own, and also
shows a file that has grown beyond the old place again before anybody looked (``copytruncate`` under load).
Only whole lines are handed out; a line that is not finished stays in the file and is read again. So a place
is always after a line, and what a reader was given can be told by one number.

A :class:`Position` names that place for a later process: device and inode, and since inodes are given out
again and copies have others, a digest of the bytes before it. No log text is kept in it.

A :class:`Stream` is the same for a FIFO, which has no places.

``CHUNK`` is twice the longest line that Asterisk writes (8191 bytes, `main/logger.c`), and what is read at a
time before others have their turn: a millisecond's work. A longer line is handed out in pieces.
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
"""So many bytes before a place say whether it is still the same: a line of a security event with its time in
front, for the ends of two lines that tell of one attacker are often alike."""
HEAD = 512
"""So many of its first bytes say which log a file is, also as a copy: more than the line that Asterisk begins
each with, which is the same in two that were begun within a second."""

Key: TypeAlias = tuple[int, int]
"""Device and inode: one file, as long as it exists."""

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class RewrittenError(Exception):
    """What was read is not in ``tail``'s file any more: it was truncated, or written anew in place."""

    def __init__(self, tail: "Tail") -> None:
        super().__init__("truncated")
        self.tail = tail


@frozen
class Position:
    """A place in a file, after a line: ``mark`` is the digest of the bytes before ``offset``.

    ``done`` names the files that were finished last, which times alone do not always tell from the next ones.
    """

    device: int
    inode: int
    offset: int
    mark: str
    done: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Say which file it was, when it was."""
        return self.device, self.inode

    def dumped(self) -> str:
        """Write it as text, for the store."""
        return json.dumps(asdict(self))

    @classmethod
    def loaded(cls, text: str | None) -> Self | None:
        """Read what :meth:`dumped` wrote; None for anything else, which is then a file never seen."""
        try:
            fields = json.loads(text or "")
            device, inode, offset = (fields[name] for name in ("device", "inode", "offset"))
            if not all(isinstance(number, int) and number >= 0 for number in (device, inode, offset)):
                return None
            return cls(device, inode, offset, str(fields["mark"]), tuple(map(str, fields["done"])))
        except (ValueError, TypeError, KeyError):
            return None


NOWHERE = Position(0, 0, 0, "")
"""Where one is while there is no file: whatever comes is to be read from its start."""


class Tail:
    """An open regular file and how far it was read. Closes with :meth:`close`."""

    def __init__(self, descriptor: int) -> None:
        about = os.fstat(descriptor)
        self.fd = descriptor
        self.key: Key = (about.st_dev, about.st_ino)
        self.go_to(0)

    def read(self) -> bytes:
        """Give the next whole lines, or nothing where there are none yet.

        Raises RewrittenError, and OSError where the disk fails.
        """
        data = self._following()
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= CHUNK:
            end = len(data)
        return self._took(data[:end])

    def rest(self) -> bytes:
        """Give what is left without a line's end: the file is finished, and so is its last line."""
        with suppress(RewrittenError):
            return self._took(self._following())
        return b""

    @property
    def size(self) -> int:
        """How long the file is now."""
        return os.fstat(self.fd).st_size

    @property
    def changed(self) -> int:
        """When it was last written to, in nanoseconds as the file system has it."""
        return os.fstat(self.fd).st_mtime_ns

    @property
    def name(self) -> str:
        """Name the log by what was read of its first bytes, which never change: a copy has the same name."""
        return _digest(self._head)

    @property
    def position(self) -> Position:
        """The place after what was handed out."""
        return Position(*self.key, self.offset, _digest(self._before))

    def fits(self, position: Position) -> bool:
        """Say whether ``position`` is a place in this file, by what stands before it."""
        if position.offset == 0:
            return position.key == self.key
        length = min(MARK, position.offset)
        before = os.pread(self.fd, length, position.offset - length)
        return len(before) == length and _digest(before) == position.mark

    def go_to(self, offset: int) -> None:
        """Read on from ``offset``, which must be after a line."""
        self.offset = offset
        self._before = os.pread(self.fd, min(MARK, offset), max(0, offset - MARK))
        self._head = os.pread(self.fd, min(HEAD, offset), 0)

    def go_to_last_line(self) -> None:
        """Read on from the end; a line that is being written there is read when it is finished."""
        size = self.size
        start = max(0, size - CHUNK)
        end = os.pread(self.fd, CHUNK, start).rfind(b"\n") + 1
        self.go_to(start + end if end or not start else size)

    def go_to_line_after(self, offset: int) -> None:
        """Read on from the first line that begins after ``offset``."""
        self.go_to(offset + os.pread(self.fd, CHUNK, offset).find(b"\n") + 1)

    def whole_name(self) -> str:
        """Name the log by its first bytes, read or not."""
        return _digest(os.pread(self.fd, HEAD, 0))

    def close(self) -> None:
        """Give the file back."""
        os.close(self.fd)

    def _following(self) -> bytes:
        before = self._before
        data = os.pread(self.fd, len(before) + CHUNK, self.offset - len(before))
        if not data.startswith(before):
            raise RewrittenError(self)
        return data[len(before) :]

    def _took(self, data: bytes) -> bytes:
        if data:
            self._head += data[: HEAD - len(self._head)]
            self.offset += len(data)
            self._before = (self._before + data[-MARK:])[-MARK:]
        return data


class Stream:
    """An open FIFO. Its writer waits for whoever reads it, or loses what it says: no past and no place."""

    position = None
    size = 1  # always worth reading

    def __init__(self, descriptor: int) -> None:
        about = os.fstat(descriptor)
        self.fd = descriptor
        self.key: Key = (about.st_dev, about.st_ino)
        self._begun = b""

    def read(self) -> bytes:
        """Give the next whole lines, or nothing where there are none yet."""
        try:
            data = os.read(self.fd, CHUNK)
        except BlockingIOError:  # there is a writer, and it says nothing; without one a read gives nothing
            return b""
        data = self._begun + data
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= CHUNK:
            end = len(data)
        self._begun = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """Give what is left without a line's end."""
        rest, self._begun = self._begun, b""
        return rest

    def close(self) -> None:
        """Give the FIFO back."""
        os.close(self.fd)


def opened(path: Path) -> Tail | Stream:
    """Open a log, a regular file or a FIFO, and stand at its beginning. Raises OSError."""
    descriptor = os.open(path, _FLAGS)
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISREG(kind):
            return Tail(descriptor)
        if stat.S_ISFIFO(kind):
            return Stream(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is neither a file nor a FIFO", str(path))


def rotated(path: Path, since: int = 0) -> list[Path]:
    """Give the files that ``path`` was rotated to, those last written to last.

    ``since`` leaves out those last written to before (nanoseconds). Asterisk's strategies append ``.NUMBER``,
    a count or a time; logrotate appends ``.NUMBER`` or ``-DATE``. What was compressed since has other bytes
    and is none of them. A folder that may not be listed has none.
    """
    name = re.compile(re.escape(path.name) + r"[.-][0-9][0-9.-]*")
    found: list[tuple[int, str]] = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if name.fullmatch(entry.name):
                with suppress(OSError):
                    found.append((entry.stat().st_mtime_ns, entry.name))
    return [path.with_name(name) for changed, name in sorted(found) if changed >= since]


def tails(paths: Iterable[Path]) -> Iterator[Tail]:
    """Open one file after the other, where one is and may be read; the caller closes them."""
    for path in paths:
        try:
            file = opened(path)
        except OSError:
            continue
        if isinstance(file, Tail):
            yield file
        else:
            file.close()


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()
