"""Reader of one source from its first file to its last, in batches of events."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from itertools import pairwise
from operator import attrgetter, itemgetter
from typing import Any

from attrs import frozen

from ringfence.model import Address, SecurityEvent, SourceId
from ringfence.parse.ami import AmiDecoder
from ringfence.parse.custom import Custom
from ringfence.parse.lone import LoneChallenges
from ringfence.parse.many import ManyReader
from ringfence.parse.ordinary import FIELDS, Values, values_of
from ringfence.replay.files import BANNER, File, open_file

FAR = 600.0
"""Seconds: if the times of adjacent lines are always further apart, the time zone is wrong."""

_ENOUGH = 10  # pairs of adjacent lines
_CUT = "is truncated; the existing part was read"
_APART = "the times of lines and of events in them differ by hours; fix: give the time zone with --timezone"
_LONG_AGO, _LATER = 0.0, 1.0
_SOURCE, _TIME = FIELDS.index("source"), FIELDS.index("time")
_source, _remote = itemgetter(_SOURCE), itemgetter(FIELDS.index("remote"))
_address = attrgetter("address")


@frozen
class ReplayInput:
    """One source: its files in order, the time zone of its dates (None: this host's), and custom patterns."""

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
    """The next part of a source: its events as columns, and the number of events of each address.

    Irrelevant events are counted and left out. All numbers concern this batch alone. ``tampered``: messages
    outside of Asterisk's grammar; ``read``: bytes read of the files as stored on disk.
    """

    columns: Sequence[Sequence[Any]] = ()
    senders: Sequence[tuple[Address, int]] = ()
    lines: int = 0
    tampered: int = 0
    read: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def events(self) -> list[SecurityEvent]:
        """The events; they are created on access."""
        return [*map(SecurityEvent, *self.columns)] if self.columns else []


def read_batches(replay_input: ReplayInput) -> Iterator[Batch]:
    """Read a source. Raise SourceError if a file cannot be read to its end."""
    lone = LoneChallenges()
    log = ManyReader(
        replay_input.source, timezone=replay_input.timezone, customs=replay_input.customs, lone=lone
    )
    for file in replay_input.files:
        reader = _Recording(replay_input.source) if file.is_ami else log
        lines, tampered, position = reader.lines, reader.tampered, 0
        apart: bool | None = None
        with open_file(file.path) as opened:
            more = True
            while more:
                data = opened.read()
                more = bool(data)
                events = reader.feed(data, file.written) if data else reader.end(file.written)
                warnings = [_CUT] if opened.cut else []
                if apart is None:
                    apart = _are_apart(events)
                    warnings += [_APART] if apart else []
                yield Batch(
                    [*zip(*events, strict=True)],
                    [*_senders(events), *lone.counted()],
                    reader.lines - lines,
                    reader.tampered - tampered,
                    opened.position - position,
                    tuple(f"{file.path}: {warning}" for warning in warnings),
                )
                lines, tampered, position = reader.lines, reader.tampered, opened.position


def _are_apart(events: Sequence[Values]) -> bool | None:
    """Whether the times of a log's two kinds of lines never match; None if undecided.

    One kind has times with a zone, the other the log's local times.
    """
    if len({*map(id, map(_source, events))}) == 1:
        return None
    steps = [
        abs(one[_TIME] - other[_TIME])
        for one, other in pairwise(events)
        if one[_SOURCE].name != other[_SOURCE].name
    ]
    return min(steps) > FAR if len(steps) >= _ENOUGH else None


class _Recording:
    """A recorded AMI connection with the interface of :class:`ManyReader`.

    The recording has no arrival times, so events that wait for a following one wait until it comes.
    """

    def __init__(self, source: SourceId) -> None:
        self.lines = 0
        self._greeted = False
        self._decoder = AmiDecoder(source)

    @property
    def tampered(self) -> int:
        return self._decoder.counts.tampered

    def feed(self, data: bytes, _: float) -> list[Values]:
        if not self._greeted and not data.startswith(BANNER):
            self._decoder.feed(BANNER + b"\r\n", _LONG_AGO)
        self._greeted = True
        self.lines += data.count(b"\n")
        return _values(self._decoder.feed(data, _LONG_AGO))

    def end(self, _: float) -> list[Values]:
        return _values(self._decoder.tick(_LATER))


def _values(items: Sequence[object]) -> list[Values]:
    return [values_of(one) for one in items if isinstance(one, SecurityEvent)]


def _senders(events: Sequence[Values]) -> list[tuple[Address, int]]:
    """Count the events of each address. Equal addresses may be distinct objects, listed one by one."""
    addresses = [*map(_address, map(_remote, events))]
    known = {id(address): address for address in addresses}
    return [(known[name], number) for name, number in Counter(map(id, addresses)).items()]
