"""The files that are told again: what each is, which belong together, and their bytes, packed or not.

The rotated files of one log (``messages``, ``messages.1``, ``messages.2.gz``, ``messages-20261120``) are one
source, in the order of the first times in them. Files of other names, or in other folders, are other sources
of the same Asterisk.
"""

import gzip
import lzma
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import tzinfo
from pathlib import Path
from typing import BinaryIO, Protocol

from attrs import frozen

from ringfence.errors import SourceError
from ringfence.model import SecurityEvent, SourceId
from ringfence.parse.ami import AmiDecoder
from ringfence.parse.dates import DateReader
from ringfence.parse.log import LogReader
from ringfence.parse.prefix import read_prefix

BLOCK = 256 * 1024
"""So much is read at once (bytes)."""

BANNER = b"Asterisk Call Manager/"

_HEAD = 64 * 1024
"""So much is looked at to say what a file is, and where in time it begins (bytes)."""

_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
_AMI = (BANNER, b"Event: ", b"Response: ")
_ROTATED = re.compile(r"(.+?)(?:\.(\d{1,14})|-\d{8,14}(?:[-_.]\d{2,10})?)(\.log|\.ami)?")
_CONTROLS = bytes({*range(1, 32)} - {*b"\t\n\v\f\r\x1b"})
_MOST_CONTROLS = 0.02  # in bytes at random it is a tenth
_NOBODY = SourceId("", "")


@frozen
class File:
    """One file. ``first`` is the first time in it, where one is near its beginning.

    ``written`` is when it was last written; ``size`` is as it lies there, packed or not. ``known``: a line or
    a packet of Asterisk's is near its beginning, or it is empty.
    """

    path: Path
    is_ami: bool
    known: bool
    size: int
    written: float
    first: float | None


class _Unpacked(Protocol):
    """What gives bytes as they are unpacked, up to a size, and all that it has before it raises."""

    def read1(self, size: int = -1, /) -> bytes: ...


class Reading:
    """A file that is being read. ``cut`` is set where a packed one turned out to end before its end."""

    def __init__(self, path: Path, raw: BinaryIO, unpacked: _Unpacked) -> None:
        self.cut = False
        self._path = path
        self._raw = raw
        self._unpacked = unpacked

    @property
    def position(self) -> int:
        """How far it is read, of its size."""
        return self._raw.tell()

    def read(self, size: int = BLOCK) -> bytes:
        """Give what comes next, ``size`` bytes at most; nothing at the end."""
        try:
            return self._unpacked.read1(size)
        except EOFError:
            self.cut = True
            return b""
        except (OSError, lzma.LZMAError, zlib.error) as error:
            raise _unreadable(self._path, error) from None


@contextmanager
def reading(path: Path) -> Iterator[Reading]:
    """Open a file, and unpack it where it is packed. Raises SourceError, as reading does."""
    try:
        with path.open("rb") as raw:
            if not stat.S_ISREG(path.stat().st_mode):
                raise SourceError(f"{path}: is not a file; give the logs themselves")
            start = raw.read(len(_XZ))
            raw.seek(0)
            if path.suffix == ".gz" or start.startswith(_GZIP):
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield Reading(path, raw, unpacked)
            elif path.suffix == ".xz" or start == _XZ:
                with lzma.LZMAFile(raw) as unpacked:
                    yield Reading(path, raw, unpacked)
            else:
                yield Reading(path, raw, raw)
    except OSError as error:
        raise _unreadable(path, error) from None


def look_at(path: Path, timezone: tzinfo | None) -> File:
    """Say what a file is; SourceError where it cannot be read or is nothing of Asterisk's."""
    with reading(path) as opened:
        state = path.stat()
        head = b""
        while len(head) < _HEAD and (more := opened.read(_HEAD - len(head))):
            head += more
    head = head.lstrip(b"\0")  # what was cut to nothing while it was written to begins with NULs
    is_ami = head.startswith(_AMI)
    known, first = _first_of_ami(head) if is_ami else _first_of_log(head, timezone, state.st_mtime)
    if head and not known and len(head.translate(None, _CONTROLS)) < len(head) * (1 - _MOST_CONTROLS):
        raise SourceError(f"{path}: is neither a log nor a recording of AMI")
    return File(
        path=path,
        is_ami=is_ami,
        known=known or not head,
        size=state.st_size,
        written=state.st_mtime,
        first=first,
    )


def original(path: Path) -> tuple[Path, int]:
    """Give what a file was called before it was rotated and packed, and the number that it has since."""
    name = path.name.removesuffix(".gz").removesuffix(".xz")
    rotated = _ROTATED.fullmatch(name)
    if rotated is None:
        return path.with_name(name), 0
    return path.with_name(rotated[1] + (rotated[3] or "")), int(rotated[2] or 0)


def in_order(files: Iterable[File]) -> list[tuple[File, ...]]:
    """Put together what was one file before it was rotated, the oldest first.

    Where a file shows no time, the higher number is the older one.
    """
    together: dict[Path, dict[Path, File]] = {}
    for file in files:
        path = file.path.resolve()  # a file that is named twice is read once
        together.setdefault(original(path)[0], {})[path] = file
    return [tuple(sorted(group.values(), key=_age(group.values()))) for group in together.values()]


def _age(files: Iterable[File]) -> Callable[[File], float]:
    """Give what sorts them: the first time in each, or else the number, of which the highest is oldest."""
    if all(file.first is not None for file in files if file.size):
        return lambda file: file.first or 0.0
    return lambda file: -original(file.path)[1]


def _first_of_ami(head: bytes) -> tuple[bool, float | None]:
    decoder = AmiDecoder(_NOBODY)
    greeting = b"" if head.startswith(BANNER) else BANNER + b"\r\n"
    heard = [*decoder.feed(greeting + head, 0.0), *decoder.tick(1.0)]
    return True, next((one.time for one in heard if isinstance(one, SecurityEvent)), None)


def _first_of_log(head: bytes, timezone: tzinfo | None, written: float) -> tuple[bool, float | None]:
    """Say whether a line of Asterisk's is in the beginning of a log, and give the first time in it."""
    dates = DateReader(timezone)
    lines = head.split(b"\n")[:-1] or [head]
    prefixes = [prefix for prefix in map(read_prefix, lines) if prefix is not None]
    for prefix in prefixes:
        seconds = dates.seconds(prefix.date, written) if prefix.date else None
        if seconds is not None:
            return True, seconds
    readings = LogReader(_NOBODY, timezone=timezone).feed(b"\n".join(lines) + b"\n", written)
    times = [one.event.time for one in readings if one.event is not None and one.event.time != written]
    return any(one.level for one in readings), times[0] if times else None


def _unreadable(path: Path, error: Exception) -> SourceError:
    if isinstance(error, OSError) and error.strerror:
        return SourceError(f"{path}: {error.strerror}")
    return SourceError(f"{path}: is damaged, or not packed as its name says: {error}")
