"""One log across rotation and truncation: the present file, the next file, and the position.

No function here waits: :meth:`RotatingLog.step` passes on one piece, or returns False. These rules hold for
every kind of rotation, at any time:

- The old file is read to its end before the new one is begun. No waiting time is needed, because a program
  closes the old file before it writes to the new one. So once the new file has content, the end of the old
  file is final. As long as the new file is empty, the old one is still followed.
- A file that was created and rotated between two checks is found among the rotated files: it was written to
  after the old file, and was not read before. Several such files are read oldest first.
- A truncated file is read again from its start. Before that, its unread rest is read from the copy that
  ``copytruncate`` made. Lines written between that copy and the truncation are lost for every reader, as
  logrotate's manual states.
- At a start with a stored position, reading continues in the file of that position, even if it was renamed.
  If the position fits no file, the file at the path is read from its start. Without a position, at the very
  first start, it is read from its end. Lines from before the start are not *live*: they are old evidence,
  which must count with its own time. All lines of a file that appears later are live.

Compressed files are not read: their bytes differ, and they are usually a day old or more.
"""

from collections import deque
from pathlib import Path
from typing import Protocol

from attrs import evolve

from ringfence.sources.log_tail import (
    NOWHERE,
    Fifo,
    Key,
    Position,
    RewrittenError,
    Tail,
    open_log,
    open_tails,
    rotated_files,
)

MOST_PAST = 256 * 1024 * 1024
"""The maximum number of bytes that are read of a file written while ringfence was down.

Earlier lines are skipped. This is about a day of guesses at 3 a second.
"""


class LineConsumer(Protocol):
    """The interface of an object that receives the lines of a log."""

    def lines(self, data: bytes, *, live: bool) -> None:
        """Handle whole lines, or a piece of a very long line.

        ``live``: they were written while ringfence ran.
        """

    def cut(self) -> None:
        """Handle a break (a loss, or another file): the next lines do not continue the last ones."""


class RotatingLog:
    """Reads the log at ``path`` across rotation and truncation, and passes its lines to ``reader``.

    The argument ``position`` is where an earlier process stopped, None at the very first start. The attribute
    of this name is where the next process continues.

    ``live``: all lines from before the start have been read. ``skipped`` is the number of bytes of old lines
    that were left out, because there were too many. ``present`` is the open file that is read now, None if
    there is none. ``newest`` identifies the file that was at ``path`` at the last check, None if there was
    none. Every method may raise OSError, and may be called again afterwards.
    """

    def __init__(self, path: Path, reader: LineConsumer, position: Position | None = None) -> None:
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
