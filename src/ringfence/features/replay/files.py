"""Files to replay: formats, groups of rotated files, and contents, compressed or not.

The rotated files of one log (``messages``, ``messages.1``, ``messages.2.gz``, ``messages-20261120``) are one
source, ordered by the first times in them. Files with other names, or in other folders, are other sources of
the same Asterisk.
"""

import bz2
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import tzinfo
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Protocol

from attrs import frozen

from ringfence.errors import SourceError
from ringfence.file_rights import open_regular
from ringfence.parse.ami import AmiDecoder
from ringfence.parse.custom import Custom
from ringfence.parse.dates import DateReader
from ringfence.parse.log import LogReader
from ringfence.parse.prefix import parse_prefix
from ringfence.values.event import SecurityEvent, SourceId

BLOCK = 256 * 1024
"""The maximum number of bytes in one read of a replayed file."""

TRUNCATED = "is truncated; the existing part was read"

BANNER = b"Asterisk Call Manager/"

_HEAD = 64 * 1024
"""The number of bytes (unpacked) in which the format and the first time of a file are searched."""

_GZIP, _XZ, _BZIP2 = b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh"
_SUFFIXES = (".gz", ".xz", ".bz2")
_UNREAD = {
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; fix: unpack it with zstd -d",
    b"\x04\x22\x4d\x18": "is compressed with lz4; fix: unpack it with lz4 -d",
    b"PK\x03\x04": "is an archive; fix: unpack it with unzip, and give the logs in it",
    b"7z\xbc\xaf\x27\x1c": "is an archive; fix: unpack it with 7z x, and give the logs in it",
}
"""The first bytes of kinds of files that cannot be read, each with a text: what it is, and the fix."""
_TAR, _TAR_AT = b"ustar", 257
_IS_TAR = "is an archive; fix: unpack it with tar -xf, and give the logs in it"
_EOL = b"\r\n"
_AMI = (BANNER, b"Event: ", b"Response: ")
_ROTATED = re.compile(r"(.+?)(?:\.(\d{1,14})|-\d{8,14}(?:[-_.]\d{2,10})?)(\.log|\.ami)?")
_CONTROLS = bytes({*range(1, 32)} - {*b"\t\n\v\f\r\x1b"})
_MAX_CONTROLS = 0.02  # the maximum share of control characters in text; in random bytes it is 0.1
_NO_SOURCE = SourceId("", "")


@frozen
class File:
    """A file to replay. ``is_ami``: it is a recording of an AMI connection, not a log.

    ``known``: the file is empty, or has a line or packet of Asterisk near its beginning. ``size`` is the
    number of bytes on disk, compressed or not. ``written`` is its modification time, and ``first`` the first
    time in it, both in seconds since the epoch. ``first`` is None if there is no time near the beginning.
    """

    path: Path
    is_ami: bool
    known: bool
    size: int
    written: float
    first: float | None


class _Unpacked(Protocol):
    """A reader of decompressed bytes that returns all available data before it raises an error."""

    def read1(self, size: int = -1, /) -> bytes: ...


class OpenFile:
    """An open file to replay. ``cut``: it is compressed, and its end turned out to be missing."""

    def __init__(self, path: Path, raw: BinaryIO, unpacked: _Unpacked) -> None:
        self.cut = False
        self._path = path
        self._raw = raw
        self._unpacked = unpacked
        self._begun = False

    @property
    def position(self) -> int:
        """The number of bytes read so far, of the file as it is on disk (compressed or not)."""
        return self._raw.tell()

    @property
    def status(self) -> os.stat_result:
        """The stat(2) values of the file on disk."""
        return os.fstat(self._raw.fileno())

    def read(self, size: int = BLOCK) -> bytes:
        """Return the next bytes, at most ``size``; empty at the end. Raise SourceError if unreadable."""
        try:
            data = self._unpacked.read1(size)
        except EOFError:
            self.cut = True
            return b""
        except (OSError, lzma.LZMAError, zlib.error) as error:
            raise _unreadable(self._path, error) from None
        if not self._begun and data.startswith(_TAR, _TAR_AT):
            raise SourceError(f"{self._path}: {_IS_TAR}")
        self._begun = True
        return data


@contextmanager
def open_file(path: Path, *, pipe: bool = False) -> Iterator[OpenFile]:
    """Open a file, and decompress it if necessary. Raise SourceError on errors, also while reading.

    With ``pipe``, an administrator named ``path``, which may be of any kind.
    """
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(path.open("rb") if pipe else os.fdopen(open_regular(path), "rb"))
            start = raw.peek(len(_XZ))[: len(_XZ)]  # not read: bytes read from a pipe cannot be read again
        except OSError as error:
            raise _unreadable(path, error) from None
        reason = next((why for begin, why in _UNREAD.items() if start.startswith(begin)), None)
        if reason is not None:
            raise SourceError(f"{path}: {reason}")
        unpacked: _Unpacked = raw
        if path.suffix == ".gz" or start.startswith(_GZIP):
            unpacked = stack.enter_context(gzip.GzipFile(fileobj=raw))
        elif path.suffix == ".xz" or start == _XZ:
            unpacked = stack.enter_context(lzma.LZMAFile(raw))
        elif path.suffix == ".bz2" or start.startswith(_BZIP2):
            unpacked = stack.enter_context(bz2.BZ2File(raw))
        yield OpenFile(path, raw, unpacked)


def inspect(path: Path, timezone: tzinfo | None) -> File:
    """Return the format and first time of a file; raise SourceError if it is unreadable or not Asterisk's."""
    with open_file(path) as opened:
        state = opened.status
        head = b""
        while len(head) < _HEAD and (more := opened.read(_HEAD - len(head))):
            head += more
    head = head.lstrip(b"\0")  # a log truncated while Asterisk writes to it begins with NULs
    is_ami = head.startswith(_AMI)
    known, first = _first_of_ami(head) if is_ami else _first_of_log(head, timezone, state.st_mtime)
    if head and not known and len(head.translate(None, _CONTROLS)) < len(head) * (1 - _MAX_CONTROLS):
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
    """Return the path of the log that was rotated to this file, and the number that the rotation added.

    For ``messages.2.gz`` these are ``messages`` and 2. The number is 0 if the name has none, or only a date.
    """
    name = path.name.removesuffix(path.suffix) if path.suffix in _SUFFIXES else path.name
    rotated = _ROTATED.fullmatch(name)
    if rotated is None:
        return path.with_name(name), 0
    return path.with_name(rotated[1] + (rotated[3] or "")), int(rotated[2] or 0)


def in_order(files: Iterable[File]) -> list[tuple[File, ...]]:
    """Return one group for each log: its files, the oldest first.

    The files are ordered by the first times in them. If one of them contains no time, they are ordered by the
    numbers in their names: a higher number is older.
    """
    groups: dict[Path, dict[Path, File]] = {}
    for file in files:
        path = Path(os.path.realpath(file.path))  # a file that was named twice is read once
        groups.setdefault(original(path)[0], {})[path] = file
    return [tuple(sorted(group.values(), key=_age(group.values()))) for group in groups.values()]


def _age(files: Iterable[File]) -> Callable[[File], float]:
    """Return the sort key for the files of a log: a function that returns a number, lower for older files.

    It returns the first time in a file if all files have one (apart from empty files). Otherwise it returns
    the negative of the number in the file's name, so that the highest number comes first.
    """
    if all(file.first is not None for file in files if file.size):
        return lambda file: file.first or 0.0
    return lambda file: -original(file.path)[1]


def _first_of_ami(head: bytes) -> tuple[bool, float | None]:
    decoder = AmiDecoder(_NO_SOURCE)
    head = head if _EOL in head else head.replace(b"\n", _EOL)
    greeting = b"" if head.startswith(BANNER) else BANNER + _EOL
    items = [*decoder.receive(greeting + head, 0.0), *decoder.tick(1.0)]
    return True, next((one.time for one in items if isinstance(one, SecurityEvent)), None)


def _first_of_log(head: bytes, timezone: tzinfo | None, written: float) -> tuple[bool, float | None]:
    """Return whether ``head``, a log's beginning, has a line of Asterisk, and the first time in it, or None.

    Times are in seconds since the epoch. ``written``, the log's last change, decides the year of a date.
    """
    dates = DateReader(timezone)
    lines = head.split(b"\n")[:-1] or [head]
    prefixes = [prefix for prefix in map(parse_prefix, lines) if prefix is not None]
    for prefix in prefixes:
        seconds = dates.seconds(prefix.date, written) if prefix.date else None
        if seconds is not None:
            return True, seconds
    results = LogReader(_NO_SOURCE, timezone=timezone).receive(b"\n".join(lines) + b"\n", written)
    times = [one.event.time for one in results if one.event is not None and one.event.time != written]
    return any(one.level for one in results), times[0] if times else None


def _unreadable(path: Path, error: Exception) -> SourceError:
    if isinstance(error, OSError) and error.strerror:
        return SourceError(f"{path}: {error.strerror}")
    return SourceError(f"{path}: is damaged, or not compressed as its name suggests: {error}")


# -- reader of one source from its first file to its last, in batches of events


FAR = 600.0
"""The difference in seconds between times of adjacent lines that shows a wrong time zone.

A log has lines with their own time zone (security events) and lines without (notices).
If the times of adjacent lines of different kinds always differ by more than ``FAR``, the time zone given for
the log is wrong.
"""

_ENOUGH = 10  # fewer pairs of adjacent lines of the two kinds say nothing about the time zone
_APART = "the times of lines and of events in them differ by hours; fix: give the time zone with --timezone"
_PERHAPS_FORGED = (
    "has failed logins of managers; if Asterisk served AMI over HTTP then, a client of it may have written "
    "the events that follow them"
)
_LONG_AGO, _LATER = 0.0, 1.0


@frozen
class ReplayInput:
    """One log (with its rotated files) or recording to replay: its files in order, and how to parse them.

    ``timezone`` is the time zone of the dates in a log, None for this host's. ``customs`` are the
    administrator's own patterns of log lines.
    """

    source: SourceId
    files: tuple[File, ...]
    timezone: tzinfo | None = None
    customs: Sequence[Custom] = ()

    @property
    def size(self) -> int:
        """Total size of the files (bytes)."""
        return sum(file.size for file in self.files)


@frozen
class Batch:
    """A part of a replayed log or recording: its events, and the numbers of lines and bytes of this part.

    ``tampered``: messages that break Asterisk's grammar. ``read``: bytes read of the files as stored on disk.
    ``warnings`` are about the files, for the administrator.
    """

    events: Sequence[SecurityEvent] = ()
    lines: int = 0
    tampered: int = 0
    read: int = 0
    warnings: tuple[str, ...] = ()


def read_batches(replay_input: ReplayInput) -> Iterator[Batch]:
    """Yield the events of a log or recording in parts, from its first file to its last.

    Raise SourceError if a file cannot be read. A compressed file that is cut off only gives a warning.
    """
    log = _Log(replay_input)
    for file in replay_input.files:
        reader = _Recording(replay_input.source) if file.is_ami else log
        tampered, position = reader.tampered, 0
        warned = False
        begun = False  # whether the last block ended within a line
        apart: bool | None = None
        with open_file(file.path) as opened:
            more = True
            while more:
                data = opened.read()
                more = bool(data)
                events = reader.receive(data, file.written) if more else reader.end(file.written)
                lines = data.count(b"\n") if more else int(begun)
                begun = more and not data.endswith(b"\n")
                warnings = [TRUNCATED] if opened.cut else []
                if reader.perhaps_forged and not warned:
                    warned = True
                    warnings.append(_PERHAPS_FORGED)
                if apart is None:
                    apart = _are_apart(events)
                    warnings += [_APART] if apart else []
                yield Batch(
                    events,
                    lines,
                    reader.tampered - tampered,
                    opened.position - position,
                    tuple(f"{file.path}: {warning}" for warning in warnings),
                )
                tampered, position = reader.tampered, opened.position


def _are_apart(events: Sequence[SecurityEvent]) -> bool | None:
    """Whether the times of security events and of notices in a log always differ by more than ten minutes.

    Then the time zone given for the log is wrong. Return None if there are too few lines to decide.
    """
    steps = [abs(one.time - other.time) for one, other in pairwise(events) if one.source is not other.source]
    return min(steps) > FAR if len(steps) >= _ENOUGH else None


class _Log:
    """Parses the files of one log to events, as one continuous log."""

    def __init__(self, replay_input: ReplayInput) -> None:
        self._reader = LogReader(
            replay_input.source, timezone=replay_input.timezone, customs=replay_input.customs
        )

    perhaps_forged = False

    @property
    def tampered(self) -> int:
        return self._reader.counts.tampered

    def receive(self, data: bytes, written: float) -> list[SecurityEvent]:
        return [one.event for one in self._reader.receive(data, written) if one.event is not None]

    def end(self, written: float) -> list[SecurityEvent]:
        return [one.event for one in self._reader.end(written) if one.event is not None]


class _Recording:
    """A recorded AMI connection with the interface of :class:`_Log`.

    The decoder holds some events for a moment, because their text may continue in the next packet. A
    recording does not show when bytes arrived. So here such an event is held until the next security event,
    or the end. An editor, or a copy through a terminal, may have left LF in place of CR LF.
    """

    def __init__(self, source: SourceId) -> None:
        self._greeted = self._has_lf_alone = False
        self._decoder = AmiDecoder(source, recorded=True)

    @property
    def perhaps_forged(self) -> bool:
        """Whether a client of AMI over HTTP may have forged some of the recorded events."""
        return self._decoder.http.recorded_manager

    @property
    def tampered(self) -> int:
        return self._decoder.counts.tampered

    def receive(self, data: bytes, _: float) -> list[SecurityEvent]:
        if not self._greeted:
            self._has_lf_alone = _EOL not in data
            if not data.startswith(BANNER):
                self._decoder.receive(BANNER + _EOL, _LONG_AGO)
        self._greeted = True
        if self._has_lf_alone:
            data = data.replace(b"\n", _EOL)
        return _events(self._decoder.receive(data, _LONG_AGO))

    def end(self, _: float) -> list[SecurityEvent]:
        return _events(self._decoder.tick(_LATER))


def _events(items: Sequence[object]) -> list[SecurityEvent]:
    return [one for one in items if isinstance(one, SecurityEvent)]
