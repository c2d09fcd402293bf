"""One log through whatever becomes of it: which file is read now, which one is next, and what was read.

Nothing here waits: :meth:`Trail.step` hands on one piece, or says that there is none. What holds, whatever is
rotated how and when:

- The old file is drained before the new one is begun, and that is exact without waiting for any time: whoever
  writes a log closes the old file before writing to the new, so once the new one has content, reading the
  old one to its end is reading all of it. As long as the new one is empty the old one is still followed.
- What came and went between two looks is found among the rotated files: those written to after the old one
  that were not read before, oldest first.
- A truncated file is begun anew, after what is left of it in the copy that ``copytruncate`` made. What is
  written between that copy and the truncation is lost to everyone, by logrotate's own word.
- At a start with a position of before, the file that it was in is found again, also under another name, and
  read on; with a position that fits nowhere the present file is read from its start; without one, at the
  very first start, from its end. What was there before the start is handed on as not *live*: old evidence,
  which must count with its own time. A file that comes into being while it is waited for is live.

What was compressed while nobody read is not read: it has other bytes, and is a day old or more.
"""

from collections import deque
from pathlib import Path
from typing import Protocol

from attrs import evolve

from ringfence.sources.tail import (
    NOWHERE,
    Key,
    Position,
    RewrittenError,
    Stream,
    Tail,
    opened,
    rotated,
    tails,
)

MOST_PAST = 256 * 1024 * 1024
"""So much of a file written while nobody read is read later: a day of guesses at 3 a second."""


class Reader(Protocol):
    """Who is given what is read."""

    def lines(self, data: bytes, *, live: bool) -> None:
        """Take whole lines, or a piece of one that is too long to wait for."""

    def cut(self) -> None:
        """Learn that what comes next does not continue what came before: another file, or a loss."""


class Trail:
    """What is read of one path. ``position`` is that of an earlier process, or None at the first start.

    ``live`` is whether what was there at the start has been read. Every method may raise OSError, after which
    it may be called again.
    """

    def __init__(self, path: Path, reader: Reader, position: Position | None = None) -> None:
        self.path = path
        self.live = False
        self.skipped = 0
        self.present: Tail | Stream | None = None
        self.newest: Key | None = None
        self._reader = reader
        self._from = position
        self._next: Tail | Stream | None = None
        self._finished = deque(position.done if position is not None else (), maxlen=8)
        self._done: set[str] = set(self._finished)

    @property
    def position(self) -> Position | None:
        """Where to go on after a restart; None where there is nothing to remember."""
        if self.present is None:
            return self._from
        place = self.present.position
        return None if place is None else evolve(place, done=tuple(self._finished))

    def step(self) -> bool:
        """Hand on the next piece. False where there is none for now, and one should wait."""
        present = self.present if self.present is not None else self._begin()
        if present is None:
            return False
        following = self._next  # known before the read, so that the read is the last one
        try:
            data = present.read()
        except RewrittenError as rewritten:
            self._begin_anew(rewritten.tail)
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
        """Give the files back; what is read next goes on where this ended."""
        self._from = self.position
        for file in (self.present, self._next):
            if file is not None:
                file.close()
        self.present = self._next = None

    # -- where to begin ---------------------------------------------------------------------------------

    def _begin(self) -> Tail | Stream | None:
        """Find the file to begin with, or None where there is none yet."""
        first = self._from is None
        tail = self._place(self._from) if self._from is not None and self._from != NOWHERE else None
        if tail is not None:
            self.present = tail
            self._leave_out(tail)
            siblings = rotated(self.path)
            newer = set() if tail.key == self._key() else set(rotated(self.path, tail.changed))
            self._are_done([path for path in siblings if path not in newer])
            return tail
        try:
            self.present = opened(self.path)
        except FileNotFoundError:
            self.live, self._from = True, NOWHERE  # whatever comes now is new
            return None
        self._are_done(rotated(self.path))
        if isinstance(self.present, Stream):
            self.live = True
        elif first:
            self.present.go_to_last_line()
        elif not self.live:
            self._leave_out(self.present)
        return self.present

    def _place(self, position: Position) -> Tail | None:
        """Find the file that ``position`` is in: the same one, by whatever name, else a copy of it."""
        candidates = [self.path, *reversed(rotated(self.path))]
        for same in (True, False):
            for tail in tails(candidates):
                if (tail.key == position.key) is same and tail.fits(position):
                    tail.go_to(position.offset)
                    return tail
                tail.close()
        return None

    def _leave_out(self, tail: Tail) -> None:
        """Do not read more of the past than ``MOST_PAST``."""
        before = tail.offset
        if tail.size - before > MOST_PAST:
            tail.go_to_line_after(tail.size - MOST_PAST)
            self.skipped += tail.offset - before

    def _are_done(self, paths: list[Path]) -> None:
        for tail in tails(paths):
            self._done.add(tail.whole_name())
            tail.close()

    # -- what is next -----------------------------------------------------------------------------------

    def _find_next(self, present: Tail | Stream) -> bool:
        """Say whether there is a file after the present one, with something in it; it is opened then."""
        self.newest = self._key()
        if self.newest is None or self.newest == present.key:
            return False
        # The name was looked up before the rotated files are, and must still be the same file after: what is
        # renamed in between is seen as one or as the other.
        missed = self._missed(present, self.newest) if isinstance(present, Tail) else None
        if missed is not None:
            self._next = missed
            return True
        try:
            file = opened(self.path)
        except FileNotFoundError:
            return True  # a rotation is under way
        if file.key == self.newest and file.size:
            self._next = file
            return True
        file.close()
        return file.key != self.newest

    def _missed(self, present: Tail, newest: Key) -> Tail | None:
        """Give the oldest file that came and went after the present one and was never read."""
        for tail in tails(rotated(self.path, present.changed)):
            if tail.key not in {present.key, newest} and tail.size and tail.whole_name() not in self._done:
                return tail
            tail.close()
        return None

    def _switch(self, present: Tail | Stream, following: Tail | Stream) -> None:
        """Leave the present file, which is read to its end, for the following one."""
        rest = present.rest()
        if isinstance(present, Tail):
            self._finish(present)
        self.present, self._next = following, None
        present.close()
        if rest:
            self._reader.lines(rest, live=self.live)
        self._reader.cut()

    def _begin_anew(self, present: Tail) -> None:
        """Go back to the start of a file that was truncated, after what its copy has that was not read."""
        copy = self._place(present.position)
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
            about = self.path.stat()
        except FileNotFoundError:
            return None
        return about.st_dev, about.st_ino
