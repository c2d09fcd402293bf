"""Reader of one source from its first file to its last, in batches of events."""

from collections.abc import Iterator, Sequence
from datetime import tzinfo
from itertools import pairwise

from attrs import frozen

from ringfence.model import SecurityEvent, SourceId
from ringfence.parse.ami import AmiDecoder
from ringfence.parse.custom import Custom
from ringfence.parse.log import LogReader
from ringfence.replay.files import BANNER, TRUNCATED, File, open_file

FAR = 600.0
"""Seconds. A log has lines with their own time zone (security events) and lines without (notices).

If the times of adjacent lines of different kinds always differ by more than this, the time zone given for the
log is wrong.
"""

_ENOUGH = 10  # fewer pairs of adjacent lines of the two kinds say nothing about the time zone
_APART = "the times of lines and of events in them differ by hours; fix: give the time zone with --timezone"
_LONG_AGO, _LATER = 0.0, 1.0


@frozen
class ReplayInput:
    """One source to replay: its files in order, and how to parse them.

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
    """The next part of a source. All numbers concern this batch alone.

    ``tampered``: messages that break Asterisk's grammar. ``read``: bytes read of the files as stored on disk.
    ``warnings`` are about the files, for the administrator.
    """

    events: Sequence[SecurityEvent] = ()
    lines: int = 0
    tampered: int = 0
    read: int = 0
    warnings: tuple[str, ...] = ()


def read_batches(replay_input: ReplayInput) -> Iterator[Batch]:
    """Yield the batches of a source, from its first file to its last.

    Raise SourceError if a file cannot be read. A compressed file that is cut off only gives a warning.
    """
    log = _Log(replay_input)
    for file in replay_input.files:
        reader = _Recording(replay_input.source) if file.is_ami else log
        tampered, position = reader.tampered, 0
        begun = False  # whether the last block ended within a line
        apart: bool | None = None
        with open_file(file.path) as opened:
            more = True
            while more:
                data = opened.read()
                more = bool(data)
                events = reader.feed(data, file.written) if more else reader.end(file.written)
                lines = data.count(b"\n") if more else int(begun)
                begun = more and not data.endswith(b"\n")
                warnings = [TRUNCATED] if opened.cut else []
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
    """Whether the times of security events and of notices in a log always differ by more than ``FAR``.

    Then the time zone given for the log is wrong. Return None if there are too few lines to decide.
    """
    steps = [abs(one.time - other.time) for one, other in pairwise(events) if one.source is not other.source]
    return min(steps) > FAR if len(steps) >= _ENOUGH else None


class _Log:
    """The log files of one source."""

    def __init__(self, replay_input: ReplayInput) -> None:
        self._reader = LogReader(
            replay_input.source, timezone=replay_input.timezone, customs=replay_input.customs
        )

    @property
    def tampered(self) -> int:
        return self._reader.counts.tampered

    def feed(self, data: bytes, written: float) -> list[SecurityEvent]:
        return [one.event for one in self._reader.feed(data, written) if one.event is not None]

    def end(self, written: float) -> list[SecurityEvent]:
        return [one.event for one in self._reader.end(written) if one.event is not None]


class _Recording:
    """A recorded AMI connection with the interface of :class:`_Log`.

    The decoder holds some events for a moment, because their text may continue in the next packet. A
    recording does not show when bytes arrived. So here such an event is held until the next security event,
    or the end.
    """

    def __init__(self, source: SourceId) -> None:
        self._greeted = False
        self._decoder = AmiDecoder(source)

    @property
    def tampered(self) -> int:
        return self._decoder.counts.tampered

    def feed(self, data: bytes, _: float) -> list[SecurityEvent]:
        if not self._greeted and not data.startswith(BANNER):
            self._decoder.feed(BANNER + b"\r\n", _LONG_AGO)
        self._greeted = True
        return _events(self._decoder.feed(data, _LONG_AGO))

    def end(self, _: float) -> list[SecurityEvent]:
        return _events(self._decoder.tick(_LATER))


def _events(items: Sequence[object]) -> list[SecurityEvent]:
    return [one for one in items if isinstance(one, SecurityEvent)]
