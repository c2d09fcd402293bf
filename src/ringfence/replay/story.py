"""One source from its first file to its last: what it tells, a batch at a time."""

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
from ringfence.replay.files import BANNER, File, reading

FAR = 600.0
"""Where the times of lines that stand side by side are always further apart (seconds), a zone is wrong."""

_ENOUGH = 10  # such pairs of lines
_CUT = "ends too early; what is there was read"
_APART = "its lines and the events in them are hours apart; give the log's time zone with --timezone"
_LONG_AGO, _LATER = 0.0, 1.0
_SOURCE, _TIME = FIELDS.index("source"), FIELDS.index("time")
_source, _remote = itemgetter(_SOURCE), itemgetter(FIELDS.index("remote"))
_address = attrgetter("address")


@frozen
class Story:
    """One source: its files in order, the time zone of its dates (None: this host's), and own patterns."""

    source: SourceId
    files: tuple[File, ...]
    timezone: tzinfo | None = None
    customs: Sequence[Custom] = ()

    @property
    def size(self) -> int:
        """How much there is to read (bytes)."""
        return sum(file.size for file in self.files)


@frozen
class Batch:
    """What a source tells next: the columns of its events, and how many of them each address made.

    Events that tell of nothing are counted and left out. The numbers are of this batch alone. ``tampered``:
    messages outside of Asterisk's grammar; ``read``: bytes of the files, as they lie there.
    """

    columns: Sequence[Sequence[Any]] = ()
    senders: Sequence[tuple[Address, int]] = ()
    lines: int = 0
    tampered: int = 0
    read: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def events(self) -> list[SecurityEvent]:
        """The events; they are made when they are asked for."""
        return [*map(SecurityEvent, *self.columns)] if self.columns else []


def told(story: Story) -> Iterator[Batch]:
    """Read a source. Raises SourceError where a file cannot be read to its end."""
    lone = LoneChallenges()
    log = ManyReader(story.source, timezone=story.timezone, customs=story.customs, lone=lone)
    for file in story.files:
        reader = _Recording(story.source) if file.is_ami else log
        lines, tampered, position = reader.lines, reader.tampered, 0
        apart: bool | None = None
        with reading(file.path) as opened:
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
    """Say whether the two kinds of lines of a log never tell of the same time; None where that does not show.

    The one has its own times with their zone, the other the log's.
    """
    if len({*map(id, map(_source, events))}) == 1:
        return None
    steps = [
        abs(one[_TIME] - other[_TIME])
        for one, other in pairwise(events)
        if one[_SOURCE].witness != other[_SOURCE].witness
    ]
    return min(steps) > FAR if len(steps) >= _ENOUGH else None


class _Recording:
    """One recorded connection to AMI, read as :class:`ManyReader` reads a log.

    When its bytes came was not recorded, so what waits for what follows waits until that comes.
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


def _values(heard: Sequence[object]) -> list[Values]:
    return [values_of(one) for one in heard if isinstance(one, SecurityEvent)]


def _senders(events: Sequence[Values]) -> list[tuple[Address, int]]:
    """Count the events of each address. One may come twice: they are told apart as objects."""
    addresses = [*map(_address, map(_remote, events))]
    known = {id(address): address for address in addresses}
    return [(known[name], number) for name, number in Counter(map(id, addresses)).items()]
