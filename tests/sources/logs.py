"""A log as Asterisk and logrotate treat it: numbered lines, written, rotated in every way, truncated."""

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

from ringfence.parse.log import LogReader
from ringfence.sources.log_ingest import LogIngest
from ringfence.sources.standby import Sink, Standby, StandbyLog

LINE = 90
"""Bytes of a line."""


class Log:
    """A log at ``path`` with numbered lines, and the operations of Asterisk and logrotate on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0
        self._names = count(1_000)  # none that `rotate` will have
        self._fd = -1
        self.reopen()

    def reopen(self) -> None:
        """Open the file at the path again, as `logger reload` does."""
        self.close()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def close(self) -> None:
        """Stop writing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def write(self, number: int = 1) -> None:
        """Write ``number`` lines, in one call."""
        self.write_bytes(b"".join(self._line() for _ in range(number)))

    def write_in_two(self, between: Callable[[], None] = lambda: None) -> None:
        """Write a line in two parts, and call ``between`` in between."""
        line = self._line()
        self.write_bytes(line[:40])
        between()
        self.write_bytes(line[40:])

    def write_bytes(self, data: bytes) -> None:
        """Write these bytes."""
        os.write(self._fd, data)

    def rotate_sequential(self) -> None:
        """Asterisk's default: the newest old file has the highest number."""
        self.path.rename(f"{self.path}.{next(self._names)}")
        self.reopen()

    def rotate_rotate(self) -> None:
        """Asterisk's `rotate`, and logrotate's way: the newest old file is .0, and the others move up."""
        self._move_up()
        self.path.rename(f"{self.path}.0")
        self.reopen()

    def rotate_rotate_over(self) -> None:
        """Keep one old file: the one before it is removed."""
        self.path.rename(f"{self.path}.0")
        self.reopen()

    def rotate_timestamp(self) -> None:
        """Asterisk's `timestamp`."""
        self.path.rename(f"{self.path}.{1_700_000_000 + next(self._names)}")
        self.reopen()

    def rotate_late(self) -> None:
        """Rotate as logrotate with `create` does: Asterisk writes to the old file until its reload."""
        self.path.rename(f"{self.path}-{20_260_000 + next(self._names)}")
        self.path.touch()
        self.write(2)
        self.reopen()

    def copy_and_truncate(self) -> None:
        """Do the same as logrotate with `copytruncate`."""
        self._move_up()
        shutil.copy(self.path, f"{self.path}.0")
        os.truncate(self.path, 0)

    def _move_up(self) -> None:
        number = 0
        while Path(f"{self.path}.{number}").exists():
            number += 1
        for last in range(number, 0, -1):
            Path(f"{self.path}.{last - 1}").rename(f"{self.path}.{last}")

    def _line(self) -> bytes:
        self.written += 1
        return f"{self.written:08} ".encode().ljust(LINE - 1, b".") + b"\n"


def ingest_of(reader: LogReader, sink: Sink) -> LogIngest:
    """Return the ingest of a log at an Asterisk without AMI."""
    return LogIngest(StandbyLog(Standby(sink, ami=False), reader), sink)


ROTATIONS = ("rotate_sequential", "rotate_rotate", "rotate_timestamp", "rotate_late")


class Numbers(LogIngest):
    """Consumes the lines of a log, and keeps their numbers."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.lives: list[bool] = []
        self.cuts = 0

    def lines(self, data: bytes, *, live: bool) -> None:
        """Consume lines."""
        for line in data.splitlines():
            assert len(line) == LINE - 1, line
            self.read.append(int(line[:8]))
            self.lives.append(live)

    def cut(self) -> None:
        """Record the end of a file."""
        self.cuts += 1
