"""Reader of one log file: bytes → one result for each line.

What a line means depends on the lines that follow (``log_messages``). Asterisk writes a message at once, so
lines that arrive together are handled together. If more lines are needed, the last ones wait: call
``receive`` again at ``deadline``.

While AMI delivers the same events, SECURITY messages are *skipped* (:attr:`LogReader.skips_security`). If one
looks complete, only its head and its last bytes are read. In any other, the end is searched as usual, so that
no text in it becomes a message. Nothing here raises for bytes; each line is read a bounded number of times.
"""

from collections.abc import Callable, Sequence
from datetime import tzinfo

from attrs import evolve

from ringfence.parse import security
from ringfence.parse.custom import Custom
from ringfence.parse.dates import DateReader
from ringfence.parse.formats import FORMATS, Format, looks_like_evidence
from ringfence.parse.line_result import (
    LEVELS,
    NOT_UNDERSTOOD,
    LineResult,
    LogAlarm,
    LogCounts,
    Parsed,
    Reason,
)
from ringfence.parse.log_messages import LONG, SECURITY, LineBatch
from ringfence.parse.notices import LoginDeduplicator
from ringfence.parse.wrappers import UNCLEAN_ENDS, Line, LineCleaner
from ringfence.values.event import SecurityEvent, SourceId

MAX_LINE = 256 * 1024
"""The maximum length of a line in bytes; longer ones are skipped. A container's log may write 8 KiB as 48."""
HOLD = 0.05  # seconds that lines wait for later lines
_UNCLEAN = (b"\r", b"\x1b", b"\x00")  # bytes of which some lines need to be cleaned


class LogReader:
    """Parses the lines of one log, whose bytes come in parts of any size. Times are of the wall clock.

    ``timezone`` is the log's, None for this host's. ``open_streams`` are those whose line is incomplete
    before the log's first line (:class:`~ringfence.parse.wrappers.LineCleaner`). ``deadline`` is when to
    call ``receive`` even without data, because lines wait; None if no line waits. ``skips_security``:
    SECURITY messages are skipped, because AMI delivers their events. Set it between two calls. If the last
    call skipped messages, ``sample`` is one of them.
    """

    def __init__(
        self,
        source: SourceId,
        *,
        timezone: tzinfo | None = None,
        customs: Sequence[Custom] = (),
        open_streams: Sequence[bytes] = (),
    ) -> None:
        self.counts = LogCounts()
        self.deadline: float | None = None
        self.skips_security = False
        self.sample: bytes | None = None
        self._source, self._timezone = source, timezone
        self._security = evolve(source, name=source.name + "#security")
        self._notice = evolve(source, name=source.name + "#notice")
        self._dates = DateReader(timezone)
        self._customs = tuple(customs)
        self._logins = LoginDeduplicator()
        self._cleaner = LineCleaner(open_streams)
        self._buffer = bytearray()
        self._skipping = False
        self._waiting: list[Line] = []
        self.number = 1  # the number of the first waiting line, or of the next line
        self.since_security = security.MAX_ACCOUNT + 1  # bytes from a SECURITY line to line ``number``

    def receive(self, data: bytes, now: float) -> list[LineResult]:
        """Return the results of the lines in ``data``, and of earlier ones, that need no later line.

        With b"" at the deadline, return the results of all lines. ``now`` is in seconds since the epoch.
        """
        lines = self._split(data)
        overdue = self.deadline is not None and now >= self.deadline and not data
        return self._handle(self._waiting + lines, now, final=overdue) if lines or overdue else []

    def end(self, now: float) -> list[LineResult]:
        """Return the results of the remaining lines at ``now`` (epoch); no more data will follow."""
        rest: list[Line] = [self._clean(bytes(self._buffer))] if self._buffer else []
        rest += [LONG] if self._skipping else []
        self._skipping = False
        self._buffer.clear()
        return self._handle(self._waiting + rest, now, final=True, unended=bool(rest))

    def fresh(self, open_streams: Sequence[bytes] = ()) -> "LogReader":
        """Return a reader for the same log that has read nothing, from where ``open_streams`` were open."""
        return LogReader(
            self._source, timezone=self._timezone, customs=self._customs, open_streams=open_streams
        )

    @property
    def open_streams(self) -> Sequence[bytes]:
        """The streams of containers whose last line is incomplete."""
        return self._cleaner.open_streams

    @property
    def is_console(self) -> bool:
        """Whether the log is the output of Asterisk's console, which also has lines without a prefix."""
        return self._cleaner.form is not None and self._cleaner.form.is_console

    @property
    def waiting(self) -> int:
        """The number of lines that wait for later lines; the last of them may be incomplete."""
        return len(self._waiting) + bool(self._buffer or self._skipping)

    def _split(self, data: bytes) -> list[Line]:
        """Return the lines that ``data`` completes, without text that another program added to them."""
        self._buffer += data
        if b"\n" not in data:
            self._bound()
            return []
        whole = bytes(self._buffer)
        parts = whole.split(b"\n")
        self._buffer = bytearray(parts.pop())
        clean = self._clean
        lines: list[Line] = []
        while self._cleaner.form is None and len(lines) < len(parts):
            lines.append(clean(parts[len(lines)]))
        # Nearly all lines of a log file begin with Asterisk's date, and need no cleaning.
        first = b"" if any(text in whole for text in _UNCLEAN) else b"["
        lines += [
            part
            if part[:1] == first and part[-1:] not in UNCLEAN_ENDS and len(part) <= MAX_LINE
            else clean(part)
            for part in (parts[len(lines) :] if lines else parts)
        ]
        if self._skipping:
            self._skipping = False
            self.counts.dropped_bytes += len(parts[0])
            lines[0] = LONG
        self._bound()
        return lines

    def _bound(self) -> None:
        if self._skipping or len(self._buffer) > MAX_LINE:
            self.counts.dropped_bytes += len(self._buffer)
            self._skipping = True
            self._buffer.clear()

    def _clean(self, line: bytes) -> Line:
        """Return a line without the text that another program, such as syslog or Docker, added to it.

        If the line is too long, count its bytes as dropped and return ``LONG`` instead.
        """
        if len(line) > MAX_LINE:
            self.counts.dropped_bytes += len(line)
            return LONG
        return self._cleaner.clean(line)

    def _handle(
        self, lines: list[Line], now: float, *, final: bool, unended: bool = False
    ) -> list[LineResult]:
        """Return the results of ``lines``, read at ``now`` (epoch seconds).

        Lines that depend on later lines wait until the deadline, unless these are the last (``final``).
        ``unended``: the last one has no LF.
        """
        batch = LineBatch(self, lines, now, final=final, is_console=self.is_console, unended=unended)
        stop = batch.run(held_back=bool(self._buffer) and not final)
        self.sample = batch.sample
        self.since_security = batch.first_security(stop)[1]
        self._waiting = lines[stop:]
        self.number = batch.number_of(stop)
        self.deadline = now + HOLD if self._waiting else None
        self.counts.lines += batch.skipped
        self.counts.standby += batch.skipped
        self._count(batch.results, batch.plain)
        return self._with_repetitions(batch) if self._cleaner.repeats else batch.results

    def _with_repetitions(self, batch: LineBatch) -> list[LineResult]:
        """Return the results of a batch, each event as often as a syslog daemon reports its message."""
        found: list[LineResult] = []
        for result, times in zip(batch.results, batch.times, strict=True):
            again = times - 1 if result.event is not None else 0
            found += [result] * (1 + again)
            self.counts.events += again
        return found

    def _count(self, results: list[LineResult], plain_events: int) -> None:
        self.counts.lines += len(results)
        if plain_events == len(results):
            self.counts.events += plain_events
            return
        for result in results:
            self.counts.events += result.event is not None
            self.counts.tampered += result.alarm is LogAlarm.TAMPERED
            self.counts.garbled += result.reason in NOT_UNDERSTOOD
            self.counts.standby += result.reason is Reason.STANDBY

    def parse(
        self,
        level: bytes,
        file: bytes,
        text: bytes,
        date: bytes | None,
        now: float,
        may_be_cut: Callable[[], bool],
    ) -> Parsed:
        """Parse one log message: ``text`` follows the prefix with ``level``, source ``file`` and ``date``.

        Return its event, or why it gives none. ``now`` (epoch seconds) is its time if it has no valid date.
        If ``may_be_cut``, an address after the sender's text may be a part of it, so the event is forgeable.
        It is called only if there is such an address.
        """
        form = FORMATS.get(file)
        parsed: Parsed = Reason.NOT_EVIDENCE
        if form is not None and level in form.levels:
            parsed = self.parse_as(form, level, text, date, now, may_be_cut)
            if form.stateful and isinstance(parsed, SecurityEvent):
                parsed = self._logins.deduplicate(parsed)
        if not isinstance(parsed, Reason):
            return parsed
        for custom in self._customs:
            time = self._time(date, now)
            found = custom.parse(level, file, text, self._notice, time, may_be_cut=may_be_cut())
            if found is not Reason.NOT_EVIDENCE:
                return found
        if parsed is not Reason.NOT_EVIDENCE:
            return parsed
        unknown = level in LEVELS and looks_like_evidence(text, known=form is not None)
        return Reason.UNKNOWN_WORDING if unknown else parsed

    def parse_as(
        self,
        form: Format,
        level: bytes,
        text: bytes,
        date: bytes | None,
        now: float,
        may_be_cut: Callable[[], bool],
    ) -> Parsed:
        """Parse one log message with the parser of its Asterisk source file, ``form`` (see :meth:`parse`)."""
        if level == SECURITY:
            parsed = form.parse(text, self._security, now)  # the message contains its own time
        else:
            parsed = form.parse(text, self._notice, self._time(date, now))
        if isinstance(parsed, SecurityEvent) and text.startswith(form.after_text) and may_be_cut():
            return evolve(parsed, forgeable=True, password=False)
        return parsed

    def _time(self, date: bytes | None, now: float) -> float:
        time = self._dates.seconds(date, now) if date else None
        return now if time is None else time
