"""The messages in the lines of one log: which lines belong to one, and which imitate one.

A message begins with a prefix (date, level, thread, file) at the start of a line, and LF ends each of its
lines. Callers' text can contain LF in a few fields, and can imitate messages:

- If the first line of a message has no end (an account, extension or name contains LF), the message goes on
  up to a line without a prefix that has the end. Everything in between is the sender's text. Without such a
  line, the end may stand on a line that imitates a message, near its beginning.
- A line without a prefix may follow a message that looked complete. If it can be the true end (its address
  stands after the sender's text), the message is parsed again up to it. If it can end an earlier message, all
  up to it is that message's text: the events are revoked.
- All other lines without a prefix are *foreign* in the log of a console, or if another program wrote them in
  a shared log. They revoke an event only if its message is short enough to be an extension. In a file,
  Asterisk writes no line without a prefix: such a line always revokes the event before it.
- A console shows packets without a prefix. A packet of PJSIP has its size, and its lines produce no events.
  One of chan_sip has an end mark only, which revokes the events since the packet's first line.
- A raw packet, which pjproject logs at ERROR and ``sip set debug`` at VERBOSE, may hold whole forged lines
  and its own end mark. The last end mark within the maximum length is the true end, unless the same thread
  logs another packet before it.
- A message is cut at 8191 bytes and loses its LF. So the next message may begin there, within a line. A cut
  message ends within the sender's text, and an address there may be this text too. So such events are marked
  ``forgeable``. A cut message may be short: an ESC makes the log leave out text after the cut was made
  (``main/logger.c``, ``main/term.c``). Then another message follows on its line, or the log ends. In a syslog
  neither shows it, and its daemon may cut each message again.
- The account in a message of ``res_security_log.c`` may imitate the message's end. The true end then follows
  in a line without a prefix, or in one that imitates a message. The wrong events up to there are revoked.
"""

import re
from functools import partial
from typing import TYPE_CHECKING

from ringfence.parse import dump, notices, security
from ringfence.parse.formats import FORMATS
from ringfence.parse.line_result import LEVELS, LineResult, LogAlarm, OpenMessage, Parsed, Reason, result_of
from ringfence.parse.prefix import ANOTHER, PLAIN, Prefix, own_prefix
from ringfence.parse.wrappers import CleanLine, JsonMessage, Line
from ringfence.values.event import SecurityEvent

if TYPE_CHECKING:
    from ringfence.parse.log import LogReader

LOG_CUT = 8191  # where ``main/logger.c`` cuts a line (``BUFSIZ - 1``)
MAX_MESSAGE = LOG_CUT + 512
LONG_MESSAGE = 800
"""The length in bytes from which a message may be cut, without its prefix.

With the prefix, ``logger``, some syslog daemons and Asterisk with musl cut at 1 KiB. Honest messages with an
address have some 450 bytes.
"""
MAX_TEXT = security.MAX_ACCOUNT
"""The maximum length (bytes) of a sender's text with newlines: a SIP user, or a name in IAX2."""
MAX_EXTENSION = 80
"""The size of an extension in bytes (``AST_MAX_EXTENSION``): a forged event does not fit into one."""
_NO_PREFIX = Prefix(None, b"", b"", b"", 0)
_EXECUTING = b"Executing ["
_EXECUTED = re.compile(rb"@[^\n@]{1,80}:\d{1,5}\] [A-Za-z]\w{0,40}\(|\"\) in new stack\Z")
_EXECUTIONS = (_EXECUTED,)
SECURITY = b"SECURITY"
LONG = JsonMessage(b"", b"", b"", b"")  # stands for a line that was too long


class LineBatch:
    """Log lines that are parsed together; ``results`` has one result for each line that is not skipped."""

    def __init__(
        self,
        reader: "LogReader",
        lines: list[Line],
        now: float,
        *,
        final: bool,
        is_console: bool,
        unended: bool,
    ) -> None:
        self.results: list[LineResult] = []
        self.plain = 0  # the number of results that :meth:`_plain` added
        self.skipped = 0
        self.sample: bytes | None = None
        self._reader = reader
        self._skips = reader.skips_security
        self._lines = lines
        self._number, self._since_security = reader.number, reader.since_security
        self._now = now
        self._final = final
        self._unended = unended  # whether the last line has no LF
        self._split_lines = 0  # the number of lines that were split off from cut lines
        self._lines_of: list[int] = []  # the index of the first line of each result
        self._entry = -1  # the index of the result of the last message; -1 if there is none or it was skipped
        self._is_console = is_console
        self._shown_at = -1  # the line above the last packet that a console of chan_sip shows, or -1
        # By the pattern of a true end: the index of the result of the last message with this end.
        self._tailed: dict[re.Pattern[bytes], int] = {}
        # By the pattern of an end: the first lines of the last two messages that may have this end.
        self._spans: dict[re.Pattern[bytes], tuple[int, int]] = {}
        self._security_at: set[int] = set()  # the lines that begin a message of res_security_log.c
        self._starts = [0]  # for each line up to the furthest one asked for, the bytes of the lines before it

    def number_of(self, index: int) -> int:
        """Return the number that the line at ``index`` has in the log."""
        return self._number + index - self._split_lines

    @property
    def times(self) -> list[int]:
        """For each result, how often Asterisk wrote its line one after the other."""
        first = (self._lines[at] for at in self._lines_of)
        return [line.times if isinstance(line, CleanLine) else 1 for line in first]

    def run(self, *, held_back: bool) -> int:
        """Parse the lines; return the index of the first one that has to wait.

        ``held_back``: a further line is still incomplete. Lines that this one may continue wait for its end.
        """
        lines, at = self._lines, 0
        wait = self._within_reach() if held_back else 0
        while at < len(lines) - wait:
            line = lines[at]
            if (self._skips and self._skip(at, line)) or self._plain(at, line):
                at += 1
                continue
            if line is LONG:
                self._add(at, Reason.TOO_LONG)
                at += 1
                continue
            if isinstance(line, JsonMessage):
                self._begin(None)
                parsed = self._reader.parse(
                    line.level, line.file, line.message, line.date, self._now, _is_whole
                )
                self._add(at, _without_open(parsed), line.level)
                at += 1
                continue
            prefix = own_prefix(line)
            if prefix is None:
                after = self._shown_packet(at, line)
                if after == at:
                    self._without_prefix(at, line)
                    after = at + 1
            else:
                after = self._message(at, line, prefix)
            if after is None:
                return at
            at = after
        return at

    def _skip(self, at: int, line: Line) -> bool:
        """Skip ``line`` if it looks like a complete SECURITY message; return whether it does."""
        if isinstance(line, JsonMessage):
            if line.level != SECURITY or line.file != security.FILE:
                return False
            self.sample = line.message
        else:
            if len(line) > LOG_CUT or not security.is_whole(line):
                return False
            self._security_at.add(at)
            self.sample = line
        self.skipped += 1
        self._entry = -1
        return True

    def _plain(self, at: int, line: Line) -> bool:
        """Parse ``line`` if it is one complete message with an event; return whether it is.

        This is the fast way for nearly all lines of an attack. :meth:`run` parses any other line in full.
        """
        if isinstance(line, JsonMessage) or len(line) > LOG_CUT:
            return False
        found = PLAIN.match(line)
        if found is None:
            return False
        date, level, _, _, _, file, syslog = found.groups()
        form = FORMATS.get(file)
        if form is None or level not in form.levels or form.stateful:
            return False
        is_security = level == SECURITY
        # Not plain: a SECURITY message to skip that lacks its end, and a line whose quote may be that end.
        if self._skips if is_security else line.endswith(b'"'):
            return False
        start = found.end()
        may_be_cut = partial(self._may_be_cut, at, line, start, syslog is not None)
        parsed = self._reader.parse_as(form, level, line[start:], date, self._now, may_be_cut)
        if not isinstance(parsed, SecurityEvent) or parsed.tampered or parsed.readings:
            return False
        if is_security:
            self._security_at.add(at)
        self._begin(form.tail)
        if form.ends:
            self._span(at, form.ends)
        self.results.append(LineResult(self._number + at - self._split_lines, parsed, LEVELS[level]))
        self._lines_of.append(at)
        self.plain += 1
        return True

    def _within_reach(self) -> int:
        """Return how many of the last lines may belong to the message of a line that is still incomplete."""
        size = 0
        for number, line in enumerate(reversed(self._lines)):
            size += _size(line)
            if size > MAX_MESSAGE:
                return number
        return len(self._lines)

    def _message(self, at: int, line: bytes, prefix: Prefix) -> int | None:
        """Parse the message at index ``at``; return the index of the next one, None if not yet known."""
        cut = len(line) > LOG_CUT and self._split_cut_line(at, line, prefix)
        if cut:
            line = line[:cut]
        packet = dump.START.match(line, prefix.end) if prefix.file in dump.FILES else None
        if packet is not None:
            size = int(packet["size"] or 0)
            behind = dump.end_of_dump(self._lines, at, prefix, size, MAX_MESSAGE, final=self._final)
            self._begin(None)
            for index in range(at, behind or at):
                self._add(index, Reason.RAW_DUMP, prefix.level)
            return behind
        parsed = self._parse(line, prefix, at)
        end = at + 1
        if isinstance(parsed, OpenMessage) and not cut:
            found = self._end_of_message(at, parsed.end)
            if found is None:
                return None
            if found > end:
                end = found
                bare = (isinstance(one, bytes) and not own_prefix(one) for one in self._lines[at + 1 : end])
                may_span = parsed.may_span or all(bare)
                whole = self._joined(at, end)
                parsed = self._parse(whole, prefix, end - 1) if may_span else Reason.AMBIGUOUS
        form = FORMATS.get(prefix.file)
        tail = form.tail if form is not None else None
        if tail is security.LINE_END:
            self._security_at.add(at)
        elif tail is None and self._ends_security(at, line):
            parsed = Reason.INSIDE_ANOTHER
        self._begin(tail)
        self._span(at, form.ends if form is not None else _EXECUTIONS if _EXECUTING in line else ())
        self._add(at, _without_open(parsed), prefix.level)
        self._split_lines += bool(cut)
        for index in range(at + 1, end):
            self._add(index, Reason.CONTINUATION)
        return end

    def _shown_packet(self, at: int, line: bytes) -> int | None:
        """Skip a SIP packet that PJSIP shows on a console; return the index of the line after it.

        Return ``at`` if no packet begins there, None if that depends on later lines. (No extension is long
        enough for the line above a packet, its first line and a header.)
        """
        shown = dump.SHOWN.fullmatch(line) if self._is_console else None
        if shown is None:
            return at
        if not shown["size"]:
            self._shown_at = at
            return at
        start, header = at + 1, at + 2
        if header >= len(self._lines) and not self._final:
            return None
        packet = self._lines[start : header + 1]
        forms = dump.SHOWN_START.fullmatch, dump.SHOWN_HEADER.match
        matches = [isinstance(text, bytes) and form(text) for form, text in zip(forms, packet, strict=False)]
        if len(matches) < len(forms) or not all(matches):
            return at
        size = int(shown["size"])
        behind = dump.end_of_dump(self._lines, at, _NO_PREFIX, size, MAX_MESSAGE, final=self._final)
        for index in range(at, behind or at):
            self._add(index, Reason.RAW_DUMP)
        return behind

    def _ends_shown(self, at: int, line: bytes) -> None:
        """If line ``at`` ends a SIP packet that chan_sip shows on a console, revoke the events inside it."""
        if self._shown_at < 0 or not dump.END.fullmatch(line):
            return
        near = self._bytes_between(self._shown_at, at) <= MAX_MESSAGE
        index = len(self.results) - 1
        while near and self._lines_of[index] > self._shown_at:
            self._revoke(index)
            index -= 1
        self._shown_at = -1

    def _parse(self, text: bytes, prefix: Prefix, last: int) -> Parsed:
        """Parse a message with its prefix, whose last line has the index ``last``."""
        may_be_cut = partial(self._may_be_cut, last, text, prefix.end, prefix.is_of_syslog)
        values = prefix.level, prefix.file, text[prefix.end :], prefix.date, self._now
        return self._reader.parse(*values, may_be_cut)

    def _may_be_cut(self, last: int, text: bytes, start: int, is_of_syslog: bool) -> bool:  # noqa: FBT001 - private
        """Whether the message from the position ``start`` of ``text`` on may end within the sender's text.

        ``last`` is the index of its last line. In a syslog any message may be cut, and so may one that ends
        with a piece of a line: the piece may end, or stand, within the text of another message.
        """
        if is_of_syslog or len(text) - start >= LONG_MESSAGE or _is_piece(self._lines[last]):
            return True
        unended = self._unended and last == len(self._lines) - 1
        return unended or ANOTHER.search(text, start) is not None

    def _joined(self, at: int, end: int) -> bytes:
        return b"\n".join(line for line in self._lines[at:end] if isinstance(line, bytes))

    def _split_cut_line(self, at: int, line: bytes, prefix: Prefix) -> int:
        """Split a line where Asterisk cut a message, and so lost its LF; return the position of the cut.

        New releases of Asterisk cut after 8191 bytes of the whole line, older ones after 8191 bytes of the
        message. Return 0, and split nothing, unless a message begins at exactly one of these positions, and
        none before it: behind that one, a sender may have written another.
        """
        cuts = [cut for cut in (LOG_CUT, prefix.end + LOG_CUT) if own_prefix(line[cut : cut + 512])]
        if len(cuts) != 1 or ANOTHER.search(line, prefix.end, cuts[0]):
            return 0
        rest = CleanLine.of(line[cuts[0] :], is_piece=_is_piece(line))
        self._lines[at : at + 1] = [line[: cuts[0]], rest]
        return cuts[0]

    def _end_of_message(self, at: int, end: re.Pattern[bytes]) -> int | None:
        """Return the index of the line after the message at ``at``; None if later lines may belong to it.

        Asterisk writes the rest of a message right behind the sender's text. So the end may also stand on a
        line that imitates a message, if its beginning is short enough for such a text.
        """
        size, behind, own = 0, at + 1, _size(self._lines[at])
        for index in range(at, len(self._lines)):
            line = self._lines[index]
            size += _size(line)
            if size > MAX_MESSAGE:
                return behind
            if index == at or not isinstance(line, bytes):
                continue
            found = end.search(line)
            if found is not None and own_prefix(line) is None:
                return index + 1
            if found is not None and size - own - _size(line) + found.start() <= MAX_TEXT:
                behind = index + 1
        return behind if self._final else None

    def _without_prefix(self, at: int, line: bytes) -> None:
        """Handle a line without a prefix: the rest of a message, or a line that Asterisk did not write.

        If the line is the rest of an earlier message than the last one, a sender wrote the last one as text
        of that message. Then the event of the last message is revoked.
        """
        skip = not line.strip() or notices.OPENED.fullmatch(line) is not None
        foreign = isinstance(line, CleanLine) and line.is_foreign
        first = not (self.results or self.skipped)
        self._add(at, Reason.NO_PREFIX if skip or first or foreign else Reason.CONTINUATION)
        if skip:
            return
        self._ends_shown(at, line)
        again = -1
        if self._entry >= 0:
            if self._parse_again(at, line):
                again = self._lines_of[self._entry]
            elif self._is_inside_another(self._lines_of[self._entry], at, line, foreign=foreign):
                self._revoke(self._entry)
            # Revoke earlier messages that this line may end: the address read there was the sender's text.
            for tail, index in self._tailed.items():
                if index != self._entry and tail.search(line) and self._reaches(index, at):
                    self._revoke(index)
        self._ends_security(at, line, again)
        if _EXECUTING in line:  # a console writes the steps of a dialplan without a prefix
            self._span(at, _EXECUTIONS)

    def _is_inside_another(self, start: int, at: int, line: bytes, *, foreign: bool) -> bool:
        """Whether the message at ``start`` may be text inside another one, whose rest is ``line``."""
        for end, indices in self._spans.items():
            begun = next((index for index in indices if 0 <= index < start), None)
            most = MAX_TEXT if end in notices.WEAK_ENDS else MAX_MESSAGE
            if begun is None or self._bytes_between(begun + 1, at) > most:
                continue
            if end.search(line) and not (end is _EXECUTED and _EXECUTING in line):
                return True
        first = self._lines[start]
        if not isinstance(first, bytes):
            return False
        own = len(first) - (first.added if isinstance(first, CleanLine) else 0)
        # Any line may be the end of a message of unknown form.
        return own < MAX_EXTENSION or not (foreign or self._is_console)

    def _ends_security(self, at: int, line: bytes, again: int = -1) -> bool:
        """Revoke the events inside the SECURITY message that ends at ``at``; return whether one ends there.

        The message begins at the earliest SECURITY line in the ``MAX_ACCOUNT`` bytes before ``at``, because a
        sender may have written the later ones. The event of line ``again`` stays if the message begins there:
        it was just parsed again, with all lines.
        """
        if not security.ends_message(line):
            return False
        first, size = self.first_security(at)
        if size > security.MAX_ACCOUNT:
            return False
        for result in range(len(self.results) - 1, -1, -1):
            if self._lines_of[result] < first:
                break
            if not first == self._lines_of[result] == again:
                self._revoke(result)
        return True

    def first_security(self, at: int) -> tuple[int, int]:
        """Return the index of the first SECURITY line whose account may reach ``at``, and the bytes between.

        The index is -1 if an earlier batch had it. More than MAX_ACCOUNT bytes: no line reaches ``at``.
        """
        first, size = (-1, security.MAX_ACCOUNT + 1), 0
        for index in range(at - 1, -1, -1):
            if index in self._security_at:
                first = index, size
            above = self._lines[index]
            size += _size(above)
            if size > security.MAX_ACCOUNT:
                return first
        size += self._since_security
        return (-1, size) if size <= security.MAX_ACCOUNT else first

    def _parse_again(self, at: int, line: bytes) -> bool:
        """Parse the last message again, with all lines up to ``line``, which has the number ``at``.

        If that gives an event, replace the message's result by it. Return whether it does.
        """
        start = self._lines_of[self._entry]
        first = self._lines[start]
        prefix = own_prefix(first) if isinstance(first, bytes) else None
        form = FORMATS.get(prefix.file) if prefix is not None else None
        if prefix is None or form is None or form.tail is None or not form.tail.search(line):
            return False
        reaches = self._reaches(self._entry, at)
        parsed = self._parse(self._joined(start, at + 1), prefix, at) if reaches else Reason.CUT
        if not isinstance(parsed, SecurityEvent):
            return False
        number = self.results[self._entry].line
        self.results[self._entry] = result_of(number, parsed, prefix.level, standby=self._skips)
        return True

    def _reaches(self, index: int, at: int) -> bool:
        """Whether the message of result ``index`` begins at most ``MAX_MESSAGE`` bytes before line ``at``."""
        return self._bytes_between(self._lines_of[index], at) <= MAX_MESSAGE

    def _bytes_between(self, first: int, at: int) -> int:
        """Return the number of bytes of the lines from ``first`` up to ``at``, without line ``at``."""
        starts = self._starts
        for line in self._lines[len(starts) - 1 : at]:
            starts.append(starts[-1] + _size(line))
        return starts[at] - starts[first]

    def _revoke(self, index: int) -> None:
        found = self.results[index]
        if found.event is not None or found.ambiguous is not None:
            self.results[index] = LineResult(
                found.line, None, found.level, Reason.INSIDE_ANOTHER, LogAlarm.TAMPERED
            )

    def _add(self, at: int, parsed: SecurityEvent | Reason | LogAlarm, level: bytes = b"") -> None:
        self.results.append(result_of(self.number_of(at), parsed, level, standby=self._skips))
        self._lines_of.append(at)

    def _span(self, at: int, ends: tuple[re.Pattern[bytes], ...]) -> None:
        """Record that line ``at`` begins a message whose text may have newlines; ``ends`` match its end."""
        for end in ends:
            self._spans[end] = (at, self._spans.get(end, (-1, -1))[0])

    def _begin(self, tail: re.Pattern[bytes] | None) -> None:
        """Record that a message begins with the next result; ``tail`` matches its true end (None: any)."""
        self._entry = len(self.results)
        if tail is not None:
            self._tailed[tail] = self._entry


def _is_piece(line: Line) -> bool:
    return isinstance(line, CleanLine) and line.is_piece


def _size(line: Line) -> int:
    """Return the number of bytes that a line had in the log, with its newline."""
    return 1 + len(line if isinstance(line, bytes) else line.message)


def _is_whole() -> bool:
    """Return False: a message in JSON is not cut. If Asterisk cuts one, the rest is no valid JSON."""
    return False


def _without_open(parsed: Parsed) -> SecurityEvent | Reason | LogAlarm:
    return parsed.result if isinstance(parsed, OpenMessage) else parsed
