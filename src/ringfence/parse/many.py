"""Fast reader of old logs: bytes → the values of events, many lines at once.

It returns the same events as :class:`ringfence.parse.log.LogReader` in a third of the time, and nothing else.
Ordinary lines (:mod:`ringfence.parse.ordinary`) are parsed together. Any other line may belong to the lines
around it, or they to it. So it goes to a LogReader, with all lines within reach before and after it. No
message is longer than ``MAX_MESSAGE``.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from itertools import accumulate

from ringfence.model import SourceId
from ringfence.parse.custom import Custom
from ringfence.parse.line_result import LineResult
from ringfence.parse.log import MAX_LINE, MAX_MESSAGE, LogReader
from ringfence.parse.lone import LoneChallenges
from ringfence.parse.ordinary import OTHER, Ordinary, Parts, Values, other_of, parts_of, values_of

REACH = 2 * MAX_MESSAGE
"""Lines within this distance of a line that is not ordinary are read together with it (bytes)."""

_MOST_AT_ONCE = 1024 * 1024
"""At most this many bytes are handled together; a longer stretch is handled as if it came in parts."""


class ManyReader:
    """The reader of one log: feed it bytes in large pieces, with the time at which its file was last written.

    ``lines`` counts the lines so far. ``lone`` drops irrelevant events, if it is set.
    """

    def __init__(
        self,
        source: SourceId,
        *,
        timezone: tzinfo | None = None,
        customs: Sequence[Custom] = (),
        lone: LoneChallenges | None = None,
    ) -> None:
        self.lines = 0
        self._reader = LogReader(source, timezone=timezone, customs=customs)
        self._ordinary = Ordinary(source, timezone)
        self._any_is_evidence = bool(customs)
        self._lone = lone
        self._rest = b""  # ordinary lines that the next line may change, and the beginning of that line
        self._within_line = False  # the LogReader has the beginning of a line that is too long to wait here
        self._pieces: list[bytes] = []  # bytes for the LogReader, until all of them are known
        self._size = 0
        # How many bytes of ordinary lines the LogReader got after all others; None: it needs no more.
        self._since: int | None = None

    @property
    def tampered(self) -> int:
        """How many messages were outside Asterisk's grammar, or a sender's text."""
        return self._reader.counts.tampered

    def feed(self, data: bytes, now: float) -> list[Values]:
        """Return the events that ``data`` completes, in order."""
        self.lines += data.count(b"\n")
        events: list[Values] = []
        data, self._rest = self._rest + data, b""
        if self._within_line:
            end = data.find(b"\n") + 1 or len(data)
            self._within_line = data[end - 1 : end] != b"\n"
            events += self._read(data[:end], now)
            data = data[end:]
        end = data.rfind(b"\n") + 1
        begun = data[end:]
        self._within_line |= len(begun) > MAX_LINE
        events += self._judge(data[:end], now, long_line=self._within_line)
        if self._within_line:
            events += self._read(begun, now)
        else:
            self._rest += begun
        return events

    def end(self, now: float) -> list[Values]:
        """Return the remaining events of a file; nothing more will come."""
        rest, self._rest = self._rest, b""
        if rest and not rest.endswith(b"\n"):
            rest += b"\n"
            self.lines += 1
        self.lines += self._within_line
        self._within_line = False
        return self._judge(rest, now, last=True) + self._close(now)

    def _judge(self, data: bytes, now: float, *, long_line: bool = False, last: bool = False) -> list[Values]:
        """Parse whole lines. Lines that have to wait for those that follow become the rest.

        ``long_line``: a line that is not ordinary follows. ``last``: nothing follows.
        """
        lines = parts_of(data)
        if self._any_is_evidence:
            lines = [(*line[:OTHER], b"\n") for line in lines]
        if self._since is not None or long_line or any(map(other_of, lines)):
            return self._judge_mixed(data, lines, now, long_line=long_line, last=last)
        keep = len(data) if last else data.rfind(b"\n", 0, max(0, len(data) - REACH)) + 1
        self._rest = data[keep:]
        return self._read_ordinary(lines[: len(lines) - self._rest.count(b"\n")], now)

    def _judge_mixed(
        self, data: bytes, lines: Sequence[Parts], now: float, *, long_line: bool, last: bool
    ) -> list[Values]:
        """Parse lines of which some are not ordinary; those and all within reach go to the LogReader."""
        starts = [0, *accumulate(len(line) + 1 for line in data.split(b"\n")[:-1])]
        end = starts[-1]
        marks = [] if self._since is None else [(-self._since, -self._since)]
        marks += [(starts[at], starts[at + 1]) for at, line in enumerate(lines) if line[OTHER]]
        marks += [(end, end)] if long_line else []
        events: list[Values] = []
        at, reached = 0, -REACH
        for begin, stop in _islands(marks):
            first = bisect_right(starts, max(0, begin)) - 1
            if first > at:
                events += self._close(now) + self._read_ordinary(lines[at:first], now)
                at = first
            behind = max(at, bisect_left(starts, stop, hi=len(lines)))
            events += self._read(data[starts[at] : starts[behind]], now)
            at, reached = behind, stop
        if not last and reached + REACH >= end:
            self._since = end + REACH - reached
            return events + self._read(data[starts[at] :], now)
        keep = len(lines) if last else max(at, bisect_right(starts, end - REACH) - 1)
        self._rest = data[starts[keep] :]
        return events + self._close(now) + self._read_ordinary(lines[at:keep], now)

    def _read(self, data: bytes, now: float) -> list[Values]:
        """Keep what the LogReader is to parse, until its last line is known or it is too much."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size <= _MOST_AT_ONCE:
            return []
        data = b"".join(self._pieces)
        # Without the last LF: the last lines wait for those that follow.
        keep = data[-1:] if data.endswith(b"\n") else b""
        self._pieces, self._size = [keep], len(keep)
        return self._values(self._reader.feed(data.removesuffix(b"\n"), now))

    def _close(self, now: float) -> list[Values]:
        """Finish the LogReader: no later line belongs to its message."""
        data = b"".join(self._pieces)
        self._pieces, self._size, self._since = [], 0, None
        return self._values((self._reader.feed(data, now) if data else []) + self._reader.end(now))

    def _read_ordinary(self, lines: Sequence[Parts], now: float) -> list[Values]:
        return self._ordinary.events(lines if self._lone is None else self._lone.without(lines), now)

    def _values(self, results: Iterable[LineResult]) -> list[Values]:
        events = [values_of(result.event) for result in results if result.event is not None]
        if self._lone is not None:
            self._lone.note(events)
        return events


def _islands(marks: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges within reach of the marks; what lies between two ranges is out of reach of both."""
    islands: list[tuple[int, int]] = []
    for begin, end in marks:
        if islands and begin - REACH <= islands[-1][1]:
            islands[-1] = islands[-1][0], end + REACH
        else:
            islands.append((begin - REACH, end + REACH))
    return islands
