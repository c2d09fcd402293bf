r"""What others put around the lines of Asterisk's log, and the clean lines without it.

A line may come through several hands: a container's log, the journal, syslog, a terminal. Each adds text, or
wraps the line in JSON. :class:`LineCleaner` removes all of it, before anything of Asterisk's own is parsed:

- **JSON.** Asterisk's ``[json]`` formatter (``main/logger.c:format_log_json``) writes one message a line,
  with its line feeds escaped, so its text cannot imitate another message. A message of more than 8 KiB is
  cut, and is no valid JSON then. Docker's ``json-file`` is ``{"log": "<line>\n", "time": …}``.
  ``journalctl -o json`` has the line in ``MESSAGE``, as text or as a list of bytes.
- **Fields.** ``journalctl -o export`` has one field a line. A ``MESSAGE`` with control characters has its
  length in eight bytes before its text.
- **Prefixes** of syslog, the journal and containers (:mod:`ringfence.parse.prefix`). Their date is used if
  Asterisk's own is missing.
- **A terminal.** A console writes CR LF, colours, and its prompt before a line.
- **Ends.** CR, blanks, and the escaped line ends of syslog (``#012``, ``#015``).
"""

import json
import re

from attrs import frozen

from ringfence.parse.prefix import DIALPLAN, PLAIN, strip_added, without_added


@frozen
class JsonMessage:
    """A message of the ``[json]`` formatter. A dialplan's message begins with the extension, as in a file."""

    date: bytes
    level: bytes
    file: bytes
    message: bytes


class CleanLine(bytes):
    """A line from which something was removed, or that is foreign.

    ``lost`` is the number of bytes that were removed from its end. ``is_foreign``: another program wrote it,
    or a console wrote it between Asterisk's messages.
    """

    lost = 0
    is_foreign = False

    @classmethod
    def of(cls, line: bytes, lost: int, *, is_foreign: bool) -> bytes:
        """Return ``line`` with what is known of it; unchanged if there is nothing to know."""
        if not lost and not is_foreign:
            return line
        found = cls(line)
        found.lost, found.is_foreign = lost, is_foreign
        return found


Line = bytes | JsonMessage

_MOST_WRAPPERS = 4
"""The number of wrappers around a line that are removed: syslog in a container's log in the journal."""
_END = re.compile(rb"(?:[ \t\r]|#01[25])++\Z")
UNCLEAN_ENDS = frozenset({b" ", b"\t", b"\r", b"2", b"5"})
"""The last bytes of lines whose end may have to be removed."""
_LONGEST_END = 64
_TERMINAL = re.compile(rb"(?:[^\s*]{1,80}+\*CLI> )?(?:\r|\x1b\[[0-9;]{0,8}[JKm]|\x1b\[\?[0-9]{1,5}[hl])*+")
_LENGTH = re.compile(rb"\x00++|[^\x00]{1,3}+\x00{4,}+")
"""The length before a text in the journal's export format, or what is left of it after a LF in it.

A file that was truncated while Asterisk wrote to it begins with NULs too.
"""
_FIELD = re.compile(rb"[A-Z_][A-Z0-9_]{0,63}+=")
_MESSAGE, _TIME = b"MESSAGE=", b"__REALTIME_TIMESTAMP="
_MICROSECONDS = 6
_CONSOLE = re.compile(rb"(?:\[[^\[\]\n]{5,48}+\])? {1,12}(?:--|==|>) |<-{2,5} |<-{5,40}>\Z")
"""The marks of a console's verbose lines (``main/logger.c``), and of a packet's first and last line."""


class LineCleaner:
    """The wrappers of one log. ``clean`` may be called with any bytes; a line has no LF at its end."""

    def __init__(self) -> None:
        self._time = b""  # of the present entry in the journal's export format

    def clean(self, line: bytes) -> Line:
        """Return the line without all that was added to it.

        A line that begins a message begins with Asterisk's own prefix then. A line that Asterisk's log does
        not contain is foreign (:class:`CleanLine`).
        """
        foreign, lost = False, 0
        for _ in range(_MOST_WRAPPERS):
            size = len(line)
            line = _without_end(line)
            lost = lost or size - len(line)
            if line[:1] == b"{":
                inner = _unwrapped(line)
                if not isinstance(inner, bytes):
                    return inner or CleanLine.of(line, lost, is_foreign=True)
                if inner[:1] == b"[" and inner[-1:] not in UNCLEAN_ENDS and b"\x1b" not in inner:
                    return inner  # nearly all lines of an attack
                line, lost = inner, 0
                continue
            found = without_added(line)
            if found is not None:
                return CleanLine.of(found, lost, is_foreign=False)
            inner, foreign = self._once(line)
            if foreign or inner == line:
                line = inner
                break
            line = inner
        return CleanLine.of(line, lost, is_foreign=foreign or _CONSOLE.match(line) is not None)

    def _once(self, line: bytes) -> tuple[bytes, bool]:
        """Remove one wrapper; return the rest, and whether another program wrote it."""
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
        return strip_added(line)


def _without_end(line: bytes) -> bytes:
    found = _END.search(line, max(0, len(line) - _LONGEST_END)) if line[-1:] in UNCLEAN_ENDS else None
    return line if found is None else line[: found.start()]


def _dated(time: bytes, line: bytes) -> bytes:
    """Return a line of a wrapper that knows its time, with this time if Asterisk's own is missing."""
    found = PLAIN.match(line) if time and line[:1] != b"[" else None
    return b"[" + time + b"] " + line if found is not None else line


def _seconds(micros: bytes) -> bytes:
    """Return the journal's time as the date of a line; empty if it is not a number."""
    return micros[:-_MICROSECONDS] + b"." + micros[-_MICROSECONDS:] if micros.isdigit() else b""


def unwrap(line: bytes) -> JsonMessage | bytes | None:
    """Parse a JSON object: return a JsonMessage of Asterisk, or the log line inside a wrapper.

    The line of a journal entry begins with the journal's time, if there is one, and the name of its program.
    Return None for any other text.
    """
    inner = _unwrapped(line)
    return _without_end(inner) if isinstance(inner, bytes) else inner


def _unwrapped(line: bytes) -> JsonMessage | bytes | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    text = found.get("log")
    if isinstance(text, str):
        line, time = _encoded(text).removesuffix(b"\n"), found.get("time")
        return _dated(_encoded(time), line) if line[:1] != b"[" and isinstance(time, str) else line
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
    date, level, file, message = (_encoded(value) if isinstance(value, str) else b"" for value in values)
    if not (level and file):
        return None
    message = _without_end(message.removesuffix(b"\n")).lstrip(b" \t")
    if file.startswith(DIALPLAN):
        file, message = DIALPLAN, file[len(DIALPLAN) :].lstrip() + b": " + message
    return JsonMessage(date, level, file, message)


def _journals_line(found: dict[str, object]) -> bytes | None:
    message, micros = found["MESSAGE"], found.get("__REALTIME_TIMESTAMP")
    try:
        line = bytes(message) if isinstance(message, list) else _encoded(str(message))
    except (TypeError, ValueError):
        return None
    name = found.get("SYSLOG_IDENTIFIER", found.get("CONTAINER_NAME"))
    if not isinstance(name, str):
        return None
    stamp = _seconds(_encoded(micros)) if isinstance(micros, str) else b""
    return b"%s%s: %s" % (stamp + b" " if stamp else b"", _encoded(name), line.removesuffix(b"\n"))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
