r"""The bytes of one log file → readings, line by line.

Strategy: a message begins with a prefix at the start of a line, and its lines end with LF and nothing else.
What callers write can hold LF, in few places, and pretend to be messages of its own:

- A message whose end is missing (an account, an extension, a name with LF) takes the lines that follow, up to
  one without a prefix that has the end. Everything between is the sender's text.
- A line without a prefix behind a message that was whole shows that this message was inside another one: the
  event is taken back. Where the line may be its end (in messages whose address stands behind the sender's
  text) it is read again; where it may be the end of one further up, that one's event is taken back too.
- A raw packet, which pjproject logs at ERROR and ``sip set debug`` at VERBOSE, may hold whole forged lines
  and its own end mark. It reaches up to the last end mark within the greatest length of a message, unless
  another packet of the same thread begins before.
- A message is cut at 8191 bytes and loses its LF: the next one is looked for there, and nowhere else.

To decide this the lines that follow must be known. Asterisk writes a message at once, so what was fed
together is judged together; where more is needed, the lines wait until ``deadline`` at most. Feed nothing
then.

Nothing here raises for bytes; each line is looked at a bounded number of times.
"""

import re
from collections.abc import Sequence
from datetime import tzinfo

from attrs import evolve

from ringfence.model import SecurityEvent, SourceId
from ringfence.parse.custom import Custom
from ringfence.parse.dates import DateReader
from ringfence.parse.formats import FORMATS, SUSPICIOUS, Format
from ringfence.parse.jsonline import Entry, unwrap
from ringfence.parse.manager import Twins
from ringfence.parse.prefix import PLAIN, Prefix, read_prefix
from ringfence.parse.reading import NOT_UNDERSTOOD, Alarm, Level, LogCounts, Open, Reading, Said, Why

MAX_LINE = 256 * 1024
"""A container's log quotes a message of 8 KiB, at six bytes a byte at worst; a longer line is skipped."""
LOG_CUT = 8191
"""Where ``main/logger.c`` cuts a line (``BUFSIZ - 1``)."""
MAX_MESSAGE = LOG_CUT + 512
HOLD = 0.05  # seconds

_LEVELS = {str(level).encode(): str(level) for level in Level}
_SECURITY = b"SECURITY"

_DUMP = re.compile(
    rb"(?:[\w.]{1,40}+ {1,8}+)?Error processing [^\n]{0,40}packet from "
    rb"|<--- SIP read from |<--- Received SIP \w{1,16}+ \((?P<size>\d{1,6}+) bytes\)"
)
DUMP_FILES = frozenset({b"pjproject", b"res_pjsip_logger.c", b"chan_sip.c"})
_DUMP_END = re.compile(rb"-- end of packet\.\r?|<-{5,40}>\r?")

# What Asterisk writes where it opens the file, behind what stood there before (``main/logger.c``). No message
# ends so, thus nobody hides the end of one in it.
_OPENED = re.compile(
    rb"\[[^\[\]\n]{5,48}+\] Asterisk \S{1,200}+ built by \S{1,100}+ @ \S{1,255}+"
    rb" on a \S{1,100}+ running \S{1,100}+ on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
)

_ADDRESS_LIKE = re.compile(rb"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|[0-9a-f]{1,4}:[0-9a-f]{0,4}:")
_LOOKED_AT = 2048  # bytes of a message that is not known

_Line = bytes | Entry
_LONG = Entry(b"", b"", b"", b"")
"""Stands for a line that was skipped."""


class LogReader:
    """One log file's reader: feed it bytes as they come, with the time on the wall clock.

    ``zone`` is the time zone that the log is written in, None for this host's. ``deadline`` is when to feed
    again, were it nothing, since lines wait for what follows them; or None.
    """

    def __init__(
        self, source: SourceId, *, timezone: tzinfo | None = None, customs: Sequence[Custom] = ()
    ) -> None:
        self.counts = LogCounts()
        self.deadline: float | None = None
        self._security = evolve(source, witness=source.witness + "#security")
        self._notice = evolve(source, witness=source.witness + "#notice")
        self._dates = DateReader(timezone)
        self._customs = tuple(customs)
        self._twins = Twins()
        self._buffer = bytearray()
        self._skipping = False
        self._waiting: list[_Line] = []
        self._number = 1  # of the first line that waits, or comes next

    def feed(self, data: bytes, now: float) -> list[Reading]:
        """Take what was added to the log, and give what became of the lines that it completes, in order."""
        lines = self._split(data)
        overdue = self.deadline is not None and now >= self.deadline and not data
        return self._judge(self._waiting + lines, now, final=overdue) if lines or overdue else []

    def end(self, now: float) -> list[Reading]:
        """Give what became of the rest, where nothing more will come."""
        rest: list[_Line] = [self._unwrapped(bytes(self._buffer))] if self._buffer else []
        rest += [_LONG] if self._skipping else []
        self._skipping = False
        self._buffer.clear()
        return self._judge(self._waiting + rest, now, final=True)

    def _split(self, data: bytes) -> list[_Line]:
        """Give the lines that ``data`` completes, as they were before a container wrapped them."""
        self._buffer += data
        if b"\n" not in data:
            self._bound()
            return []
        parts = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(parts.pop())
        lines = [self._unwrapped(part) for part in parts]
        if self._skipping:
            self._skipping = False
            self.counts.dropped_bytes += len(parts[0])
            lines[0] = _LONG
        self._bound()
        return lines

    def _bound(self) -> None:
        if self._skipping or len(self._buffer) > MAX_LINE:
            self.counts.dropped_bytes += len(self._buffer)
            self._skipping = True
            self._buffer.clear()

    def _unwrapped(self, line: bytes) -> _Line:
        if len(line) > MAX_LINE:
            self.counts.dropped_bytes += len(line)
            return _LONG
        if line[:1] == b"\x00":
            line = line.lstrip(b"\x00")  # where a file was cut to nothing while it was written to
        if line[:1] != b"{":
            return line
        inner = unwrap(line)
        return line if inner is None else inner

    def _judge(self, lines: list[_Line], now: float, *, final: bool) -> list[Reading]:
        """Read what can be read; what needs the lines that have not come stays, until the deadline."""
        judged = _Judged(self, lines, self._number, now, final=final)
        stop = judged.run(held_back=bool(self._buffer) and not final)
        self._waiting = lines[stop:]
        self._number = judged.number_of(stop)
        self.deadline = now + HOLD if self._waiting else None
        self._count(judged.readings, judged.plain)
        return judged.readings

    def _count(self, readings: list[Reading], plain: int) -> None:
        """Count what was read; of ``plain`` ones there is nothing more to say."""
        self.counts.lines += len(readings)
        if plain == len(readings):
            self.counts.events += plain
            return
        for reading in readings:
            self.counts.events += reading.event is not None
            self.counts.tampered += reading.alarm is Alarm.TAMPERED
            self.counts.garbled += reading.why in NOT_UNDERSTOOD

    def message(self, level: bytes, file: bytes, text: bytes, date: bytes | None, now: float) -> Said:
        """Read one message that a prefix was taken from."""
        form = FORMATS.get(file)
        said: Said = Why.NOT_EVIDENCE
        if form is not None and level in form.levels:
            said = self.said(form, level, text, date, now)
            if form.stateful and isinstance(said, SecurityEvent):
                said = self._twins.once(said)
        if not isinstance(said, Why):
            return said
        for custom in self._customs:
            own = custom.read(level, file, text, self._notice, self._time(date, now))
            if own is not Why.NOT_EVIDENCE:
                return own
        return (
            self._looked_at(said, level, text, known=form is not None) if said is Why.NOT_EVIDENCE else said
        )

    def said(self, form: Format, level: bytes, text: bytes, date: bytes | None, now: float) -> Said:
        """Read one message in its format."""
        if level == _SECURITY:
            return form.read(text, self._security, now)  # its own time is in it
        return form.read(text, self._notice, self._time(date, now))

    def _time(self, date: bytes | None, now: float) -> float:
        time = self._dates.seconds(date, now) if date else None
        return now if time is None else time

    def _looked_at(self, said: Why, level: bytes, text: bytes, *, known: bool) -> Why:
        """Say of a message that nobody knows whether it looks like evidence."""
        if level not in _LEVELS:
            return said
        text = text[:_LOOKED_AT]
        named = known or _ADDRESS_LIKE.search(text)
        return Why.UNKNOWN_WORDING if named and SUSPICIOUS.search(text) else said


class _Judged:
    """One go over some lines; ``readings`` is what became of them.

    ``_glued`` counts the lines that were cut out of others, ``_lines_of`` gives each reading's index in
    ``lines``.
    """

    def __init__(
        self, reader: LogReader, lines: list[_Line], number: int, now: float, *, final: bool
    ) -> None:
        self.readings: list[Reading] = []
        self.plain = 0
        self._reader = reader
        self._lines = lines
        self._number = number
        self._now = now
        self._final = final
        self._glued = 0
        self._lines_of: list[int] = []
        # The indices of readings: of the last message, and of the last one that each of the tails may end.
        self._entry = -1
        self._tailed: dict[re.Pattern[bytes], int] = {}

    def number_of(self, index: int) -> int:
        """Give the number that the line at ``index`` has in the log."""
        return self._number + index - self._glued

    def run(self, *, held_back: bool) -> int:
        """Read the lines; give the index of the first one that has to wait.

        ``held_back``: part of another line has come already. What it may belong to waits for the rest of it.
        """
        lines, at = self._lines, 0
        wait = self._within_reach() if held_back else 0
        while at < len(lines) - wait:
            line = lines[at]
            if self._plain(at, line):
                at += 1
                continue
            if line is _LONG:
                self._add(at, Why.TOO_LONG)
                at += 1
                continue
            if isinstance(line, Entry):
                self._begin(None)
                said = self._reader.message(line.level, line.file, line.message, line.date, self._now)
                self._add(at, _settled(said), line.level)
                at += 1
                continue
            prefix = read_prefix(line)
            if prefix is None:
                self._headless(at, line)
                at += 1
                continue
            after = self._message(at, line, prefix)
            if after is None:
                return at
            at = after
        return at

    def _plain(self, at: int, line: _Line) -> bool:
        """Read a line that is a whole message with an event in it, as nearly all are when it matters."""
        if isinstance(line, Entry) or len(line) > LOG_CUT:
            return False
        found = PLAIN.match(line)
        if found is None:
            return False
        date, level, _, _, file = found.groups()
        form = FORMATS.get(file)
        if form is None or level not in form.levels or form.stateful:
            return False
        said = self._reader.said(form, level, line[found.end() :], date, self._now)
        if not isinstance(said, SecurityEvent) or said.tampered:
            return False
        self._begin(form.tail)
        self.readings.append(Reading(self._number + at - self._glued, said, _LEVELS[level]))
        self._lines_of.append(at)
        self.plain += 1
        return True

    def _within_reach(self) -> int:
        """Say how many of the last lines may be part of a message that is not yet whole."""
        size = 0
        for number, line in enumerate(reversed(self._lines)):
            size += 1 + len(line if isinstance(line, bytes) else line.message)
            if size > MAX_MESSAGE:
                return number
        return len(self._lines)

    def _message(self, at: int, line: bytes, prefix: Prefix) -> int | None:
        """Read a message that begins at ``at``; give where the next does, None where that is not known."""
        cut = len(line) > LOG_CUT and self._unglue(at, line, prefix)
        if cut:
            line = line[:cut]
        form = FORMATS.get(prefix.file)
        if prefix.file in DUMP_FILES:
            dump = _DUMP.match(line, prefix.end)
            if dump is not None:
                behind = self._end_of_dump(at, prefix, int(dump["size"] or 0))
                self._begin(None)
                for index in range(at, behind or at):
                    self._add(index, Why.RAW_DUMP, prefix.level)
                return behind
        said = self._read(line, prefix)
        end = at + 1
        if isinstance(said, Open) and not cut:
            found = self._end_of_message(at, said.ends)
            if found is None:
                return None
            if found > end:
                end = found
                over = said.over or all(self._is_headless(index) for index in range(at + 1, end))
                said = self._read(self._joined(at, end), prefix) if over else Why.AMBIGUOUS
        self._begin(form.tail if form is not None else None)
        self._add(at, _settled(said), prefix.level)
        self._glued += bool(cut)
        for index in range(at + 1, end):
            self._add(index, Why.CONTINUATION)
        return end

    def _read(self, line: bytes, prefix: Prefix) -> Said:
        return self._reader.message(prefix.level, prefix.file, line[prefix.end :], prefix.date, self._now)

    def _is_headless(self, index: int) -> bool:
        line = self._lines[index]
        return isinstance(line, bytes) and read_prefix(line) is None

    def _joined(self, at: int, end: int) -> bytes:
        return b"\n".join(line for line in self._lines[at:end] if isinstance(line, bytes))

    def _unglue(self, at: int, line: bytes, prefix: Prefix) -> int:
        """Make two lines of one that was cut without its LF, and give where; 0 where that is not sure.

        Asterisk cuts the line, older ones the message. A message behind the cut begins there and nowhere
        else.
        """
        places = [
            place for place in (LOG_CUT, prefix.end + LOG_CUT) if read_prefix(line[place : place + 512])
        ]
        if len(places) != 1:
            return 0
        self._lines[at : at + 1] = [line[: places[0]], line[places[0] :]]
        return places[0]

    def _end_of_message(self, at: int, ends: re.Pattern[bytes]) -> int | None:
        """Find the line without a prefix that ends the message at ``at``, else the next line."""
        size = 0
        for index in range(at, len(self._lines)):
            line = self._lines[index]
            size += 1 + len(line if isinstance(line, bytes) else line.message)
            if size > MAX_MESSAGE:
                return at + 1
            if index > at and isinstance(line, bytes) and ends.search(line) and read_prefix(line) is None:
                return index + 1
        return at + 1 if self._final else None

    def _end_of_dump(self, at: int, prefix: Prefix, told: int) -> int | None:
        """Find where the raw packet at ``at`` ends; ``told`` is its size where Asterisk tells it."""
        size, end = 0, None
        for index in range(at + 1, len(self._lines)):
            line = self._lines[index]
            size += len(line) + 1 if isinstance(line, bytes) else MAX_MESSAGE
            if size > MAX_MESSAGE or (told and size > told):
                return (end or index) if not told else index
            if told or not isinstance(line, bytes):
                continue
            if _DUMP_END.fullmatch(line):
                end = index + 1
            elif end is not None and self._begins_dump(line, prefix):
                return end
        return (end or len(self._lines)) if self._final else None

    def _begins_dump(self, line: bytes, first: Prefix) -> bool:
        """Say whether another packet of the same thread begins: no caller knows a thread's number."""
        prefix = read_prefix(line)
        same = prefix is not None and (prefix.thread, prefix.file) == (first.thread, first.file)
        return same and prefix is not None and _DUMP.match(line, prefix.end) is not None

    def _headless(self, at: int, line: bytes) -> None:
        """Read a line without a prefix: it shows that the message before it was not whole, or was none."""
        aside = not line.strip() or _OPENED.fullmatch(line) is not None
        self._add(at, Why.NO_PREFIX if aside or not self.readings else Why.CONTINUATION)
        if aside or self._entry < 0:
            return
        if self.readings[self._entry].level and not self._read_again(at, line):
            self._take_back(self._entry)
        # The line may be the true end of a message further up, whose address then was the sender's text.
        for tail, index in self._tailed.items():
            if index != self._entry and tail.search(line) and self._reaches(index, at):
                self._take_back(index)

    def _read_again(self, at: int, line: bytes) -> bool:
        """Read the last message again with all up to the line at ``at``, where that may be its end."""
        start = self._lines_of[self._entry]
        first = self._lines[start]
        prefix = read_prefix(first) if isinstance(first, bytes) else None
        form = FORMATS.get(prefix.file) if prefix is not None else None
        if prefix is None or form is None or form.tail is None or not form.tail.search(line):
            return False
        said = self._read(self._joined(start, at + 1), prefix) if self._reaches(self._entry, at) else Why.CUT
        if not isinstance(said, SecurityEvent):
            return False
        self.readings[self._entry] = self._reading(self.readings[self._entry].line, said, prefix.level)
        return True

    def _reaches(self, index: int, at: int) -> bool:
        """Say whether the message of the reading at ``index`` can reach to the line at ``at``."""
        size = 0
        for line in reversed(self._lines[max(self._lines_of[index], at - MAX_MESSAGE) : at]):
            size += 1 + len(line if isinstance(line, bytes) else line.message)
            if size > MAX_MESSAGE:
                return False
        return True

    def _take_back(self, index: int) -> None:
        if self.readings[index].event is not None:
            self.readings[index] = evolve(
                self.readings[index], event=None, why=Why.INSIDE_ANOTHER, alarm=Alarm.TAMPERED
            )

    def _add(self, at: int, said: SecurityEvent | Why | Alarm, level: bytes = b"") -> None:
        self.readings.append(self._reading(self.number_of(at), said, level))
        self._lines_of.append(at)

    def _begin(self, tail: re.Pattern[bytes] | None) -> None:
        """Remember that the next reading is of a message, and what may end it."""
        self._entry = len(self.readings)
        if tail is not None:
            self._tailed[tail] = self._entry

    def _reading(self, number: int, said: SecurityEvent | Why | Alarm, level: bytes) -> Reading:
        name = _LEVELS.get(level) or level.decode("ascii", "replace")
        if isinstance(said, SecurityEvent):
            return Reading(number, said, name, None, Alarm.TAMPERED if said.tampered else None)
        if isinstance(said, Alarm):
            return Reading(number, None, name, None, said)
        return Reading(number, None, name, said)


def _settled(said: Said) -> SecurityEvent | Why | Alarm:
    """Give what is said where no more comes."""
    return said.said if isinstance(said, Open) else said
