r"""Text that others put around the lines of Asterisk's log, and the clean lines without it.

A line may come through several hands: a container's log, the journal, syslog, a terminal. Each adds text, or
wraps the line in JSON. :class:`LineCleaner` removes all of it, before anything of Asterisk's own is parsed:

- **JSON.** Asterisk's ``[json]`` formatter (``main/logger.c:format_log_json``) writes one message a line,
  with its newlines escaped, so its text cannot imitate another message. A message of more than 8 KiB is
  cut, and is no valid JSON then. Docker's ``json-file`` is ``{"log": "<line>\n", "time": …}``.
  ``journalctl -o json`` has the line in ``MESSAGE``, as text or as a list of bytes.
- **Fields.** ``journalctl -o export`` has one field a line. A ``MESSAGE`` with control characters has its
  length in eight bytes before its text.
- **Prefixes** of syslog, the journal and containers (:mod:`ringfence.parse.prefix`). Their date is used if
  Asterisk's own is missing.
- **A terminal.** A console writes CR LF, colours, and its prompt before a line.
- **Ends.** CR, blanks, and the escaped line ends of syslog (``#012``, ``#015``).
- **Repetitions.** Of equal messages rsyslog writes the first, and then ``message repeated 4 times: [ … ]``.
- **Pieces.** A container's log cuts a long line into pieces. The text of a sender may begin a piece, so only
  the first piece of a line can begin a message. Docker's ``json-file`` has pieces of 16 KiB, all but the last
  without a LF. CRI (podman, Kubernetes) marks all but the last by ``P``, and the journal by
  ``CONTAINER_PARTIAL_MESSAGE``.

The first message shows the form of the log, and untrusted text cannot change it: no later line is taken out
of more nested JSON objects. Only the log of a console, or a shared log, has foreign lines.
"""

import json
import re
from collections.abc import Iterable

from attrs import frozen

from ringfence.parse.prefix import (
    CRI,
    DIALPLAN,
    PLAIN,
    names_program,
    own_prefix,
    parse_prefix,
    strip_added,
    unrepeated,
    without_added,
)


@frozen
class JsonMessage:
    """A log message of Asterisk's ``[json]`` formatter. A dialplan's message begins with the extension."""

    date: bytes
    level: bytes
    file: bytes
    message: bytes


class CleanLine(bytes):
    """A log line from which :class:`LineCleaner` has removed text, or that it marked as foreign.

    ``lost`` is the number of bytes that were removed from the line's end. ``added`` is the number of bytes of
    a date that Asterisk did not write. ``is_foreign``: another program wrote it, or a console wrote it
    between messages. ``times``: how often Asterisk wrote it one after the other. ``is_piece``: it is a piece
    of a line, not the whole.
    """

    lost = 0
    added = 0
    is_foreign = False
    times = 1
    is_piece = False

    @classmethod
    def of(
        cls,
        line: bytes,
        lost: int = 0,
        *,
        added: int = 0,
        is_foreign: bool = False,
        times: int = 1,
        is_piece: bool = False,
    ) -> bytes:
        """Return ``line`` as a CleanLine with these attributes; unchanged if all have their defaults."""
        if not (lost or added or is_foreign or times > 1 or is_piece):
            return line
        found = cls(line)
        found.lost, found.added, found.is_foreign, found.times = lost, added, is_foreign, times
        found.is_piece = is_piece
        return found


Line = bytes | JsonMessage


@frozen
class Piece:
    """The ``text`` in a JSON object: a log line, or a piece of one.

    ``stream`` is what wrote it, such as a container's stdout. ``is_open``: the stream's next piece continues
    the same line.
    """

    text: bytes
    stream: bytes
    is_open: bool


_MOST_WRAPPERS = 4
"""The maximum number of wrappers (syslog, Docker, the journal) that are removed from one log line."""
_END = re.compile(rb"(?>(?:[ \t\r]|#01[25])+)\Z")
UNCLEAN_ENDS = frozenset({b" ", b"\t", b"\r", b"2", b"5"})
"""The last bytes of log lines whose end may be no part of the line, such as a CR or a colour code."""
_LONGEST_END = 64
_TERMINAL = re.compile(rb"(?:[^\s*]{1,80}+\*CLI> )?(?>(?:\r|\x1b\[[0-9;]{0,8}[JKm]|\x1b\[\?[0-9]{1,5}[hl])*)")
_LENGTH = re.compile(rb"\x00++|[^\x00]{1,3}+\x00{4,}+")
"""Matches the length before a text in the journal's export format, or what is left of it after a LF in it.

A file that was truncated while Asterisk wrote to it begins with NULs too.
"""
_NOISE = (b"\x00", b"\r", b"\x1b")  # the first bytes of text that is removed but names no program
_FIELD = re.compile(rb"[A-Z_][A-Z0-9_]{0,63}+=")
_PIECE = 16 * 1024
"""The size in bytes of Docker's pieces. Other programs that write a ``log`` may leave out each line's LF."""
_MOST_STREAMS = 64
_MESSAGE, _TIME = b"MESSAGE=", b"__REALTIME_TIMESTAMP="
_MICROSECONDS = 6
_CONSOLE = re.compile(rb"(?:\[[^\[\]\n]{5,48}+\])? {1,12}(?:--|==|>) |<-{2,5} |<-{5,40}>\Z")
"""The marks of a console's verbose lines (``main/logger.c``), and of a packet's first and last line."""


@frozen
class Form:
    """How a log wraps Asterisk's lines, as its first message shows.

    ``objects`` is the number of JSON objects around the message. ``is_json``: the last of them is Asterisk's.
    ``is_console``: the message has the form of a console. ``is_shared``: a prefix was added to it.
    ``is_named``: this prefix names the program.
    """

    objects: int = 0
    is_json: bool = False
    is_console: bool = False
    is_shared: bool = False
    is_named: bool = False


class LineCleaner:
    """Removes what other programs (Docker, syslog, the journal) added to the lines of one log.

    ``clean`` accepts any bytes, a line without its LF. ``form`` is None before the first message.
    ``repeats``: a line was a repetition, so the log may have more of them. ``open_streams`` are the streams
    whose last line is incomplete: the next piece of such a stream begins no message.
    """

    def __init__(self, open_streams: Iterable[bytes] = ()) -> None:
        self.form: Form | None = None
        self.repeats = False
        self.open_streams = tuple(open_streams)
        self._time = b""  # of the present entry in the journal's export format

    def clean(self, line: bytes) -> Line:
        """Return a log line without the text that other programs added to it.

        If the line begins a message, the result begins with Asterisk's own prefix. A line that Asterisk did
        not write is marked as foreign (:class:`CleanLine`).
        """
        form = self.form
        line, times = unrepeated(line)
        raw, self.repeats = line, self.repeats or times > 1
        foreign, shared, lost, objects = False, False, 0, 0
        piece = CRI.match(line)
        is_open = piece is not None and piece[2] == b"P"
        continues = piece is not None and self._continues(piece[1], is_open=is_open)
        for _ in range(_MOST_WRAPPERS):
            size = len(line)
            line = _without_end(line)
            lost = lost or size - len(line)
            if line[:1] == b"{" and (form is None or objects < form.objects) and not continues:
                inside = unwrap(line)
                objects += 1
                if not isinstance(inside, Piece):
                    message = self._message(inside, objects)
                    return message or CleanLine.of(line, lost, is_foreign=inside is None)
                continues = self._continues(inside.stream, is_open=inside.is_open)
                line, lost, is_open = inside.text, 0, is_open or inside.is_open
                if line[:1] != b"[" or line[-1:] in UNCLEAN_ENDS or b"\x1b" in line:
                    continue
            found = without_added(line)
            if found is not None and not continues:
                if form is None:
                    self._learn(objects, line, found, shared=shared)
                own = found is line and not (objects or self._time)
                added = 0 if own else _date_added(raw, found)
                return CleanLine.of(found, lost, added=added, times=times, is_piece=is_open)
            inner, foreign = self._remove_wrapper(line)
            if foreign or inner == line:
                break
            shared = shared or line[:1] not in _NOISE
            line = inner
        found = without_added(line) if continues else None
        if found is not None:
            line = b" " + found  # so it begins no message
        # After a removed prefix that names Asterisk, what looks like another program's is untrusted text.
        foreign = foreign and not shared and (form is None or form.is_shared)
        marked = (form is None or form.is_console) and _CONSOLE.match(line) is not None
        return CleanLine.of(line, lost, is_foreign=foreign or marked, is_piece=is_open or continues)

    def _continues(self, stream: bytes, *, is_open: bool) -> bool:
        """Whether the next piece of ``stream`` continues a line. ``is_open``: this piece does not end it."""
        before = self.open_streams
        if is_open or stream in before:
            others = tuple(other for other in before if other != stream)
            self.open_streams = (*others, stream)[-_MOST_STREAMS:] if is_open else others
        return stream in before

    def _learn(self, objects: int, line: bytes, clean: bytes, *, shared: bool) -> None:
        """Record how the log wraps lines; its first message ``line`` was inside ``objects`` JSON objects."""
        prefix, own = parse_prefix(line), own_prefix(clean)
        shared = shared or bool(self._time) or (prefix is not None and prefix.start > 0)
        is_console = own is not None and own.is_of_console
        self.form = Form(objects, is_console=is_console, is_shared=shared, is_named=names_program(line))

    def _message(self, message: JsonMessage | None, objects: int) -> JsonMessage | None:
        """Return ``message`` if this log's first message was Asterisk's JSON too, else None."""
        if message is not None and self.form is None:
            self.form = Form(objects, is_json=True)
        return message if self.form is not None and self.form.is_json else None

    def _remove_wrapper(self, line: bytes) -> tuple[bytes, bool]:
        """Remove one wrapper from a log line; return the rest, and whether another program wrote it."""
        terminal = _TERMINAL.match(line)
        if terminal is not None and terminal.end():
            return line[terminal.end() :], False
        length = _LENGTH.match(line)
        if length is not None:
            return line[length.end() :], False
        if line.startswith(_MESSAGE):
            return _dated(self._time, line[len(_MESSAGE) :]), False
        field = _FIELD.match(line)
        if field is not None:
            if line.startswith(_TIME):
                self._time = _seconds(line[len(_TIME) :])
            return line, True
        return strip_added(line, named=self.form is not None and self.form.is_named)


def _date_added(raw: bytes, line: bytes) -> int:
    """Return the size of the date that begins ``line`` if the log's own line ``raw`` lacks it, else 0."""
    date = line[: line.find(b"] ") + 2] if line[:1] == b"[" else b""
    return 0 if date in raw else len(date)


def _without_end(line: bytes) -> bytes:
    found = _END.search(line, max(0, len(line) - _LONGEST_END)) if line[-1:] in UNCLEAN_ENDS else None
    return line if found is None else line[: found.start()]


def _dated(time: bytes, line: bytes) -> bytes:
    """Return a wrapped line with the wrapper's ``time`` before it, if Asterisk's own time is missing."""
    found = PLAIN.match(line) if time and line[:1] != b"[" else None
    return b"[" + time + b"] " + line if found is not None else line


def _seconds(micros: bytes) -> bytes:
    """Return the journal's time (microseconds) as the date of a log line; b"" if it is not a number."""
    return micros[:-_MICROSECONDS] + b"." + micros[-_MICROSECONDS:] if micros.isdigit() else b""


def unwrap(line: bytes) -> JsonMessage | Piece | None:
    """Parse a line that is a JSON object: return Asterisk's JSON message, or the log line inside it.

    The line of a journal entry begins with the journal's time, if there is one, and the name of its program.
    Return None for any other text.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    text = found.get("log")
    if isinstance(text, str):
        line, stream = _encoded(text), _encoded(found.get("stream"))
        is_open = len(line) >= _PIECE and line[-1:] != b"\n"
        return Piece(_dated(_encoded(found.get("time")), line.removesuffix(b"\n")), stream, is_open)
    if "MESSAGE" in found:
        return _journals_line(found)
    return _asterisks_message(found)


def _asterisks_message(found: dict[str, object]) -> JsonMessage | None:
    entry = found.get("logmsg")
    location = entry.get("location") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(location, dict):
        return None
    values = (
        found.get("timestamp"),
        entry.get("level"),
        location.get("filename"),
        entry.get("message"),
    )
    date, level, file, message = map(_encoded, values)
    if not (level and file):
        return None
    message = _without_end(message.removesuffix(b"\n")).lstrip(b" \t")
    if file.startswith(DIALPLAN):
        file, message = DIALPLAN, file[len(DIALPLAN) :].lstrip() + b": " + message
    return JsonMessage(date, level, file, message)


def _journals_line(found: dict[str, object]) -> Piece | None:
    message = found["MESSAGE"]
    try:
        line = bytes(message) if isinstance(message, list) else _encoded(str(message))
    except (TypeError, ValueError):
        return None
    name = found.get("SYSLOG_IDENTIFIER", found.get("CONTAINER_NAME"))
    if not isinstance(name, str):
        return None
    stamp = _seconds(_encoded(found.get("__REALTIME_TIMESTAMP")))
    line = b"%s%s: %s" % (stamp + b" " if stamp else b"", _encoded(name), line.removesuffix(b"\n"))
    # The priority differs between a container's stdout and its stderr.
    stream = _encoded(name) + b" " + _encoded(found.get("PRIORITY"))
    return Piece(line, stream, found.get("CONTAINER_PARTIAL_MESSAGE") == "true")


def _encoded(value: object) -> bytes:
    """Return the bytes of a text in JSON; b"" for any other value."""
    return value.encode(errors="surrogatepass") if isinstance(value, str) else b""
