r"""Lines that are JSON: Asterisk's ``[json]`` formatter, and the wrappers of containers and the journal.

- Asterisk (``main/logger.c:format_log_json``): one message a line, with its line feeds escaped. Its text
  cannot imitate another message. A message of more than 8 KiB is cut, and is no valid JSON then.
- docker's ``json-file``: ``{"log": "<line>\n", "stream": …, "time": …}``: the line is parsed as any other.
- ``journalctl -o json``: ``MESSAGE`` is the line, as text or as a list of bytes. A line without a date has
  the journal's time.
"""

import json
import re
from collections.abc import Sequence

from attrs import frozen

from ringfence.parse.prefix import Prefix, parse_prefix


@frozen
class JsonMessage:
    """A message of the ``[json]`` formatter."""

    date: bytes
    level: bytes
    file: bytes
    message: bytes


def unwrap(line: bytes) -> JsonMessage | bytes | None:
    """Parse a JSON object: return a JsonMessage of Asterisk, or the log line inside a wrapper.

    The line of a journal entry begins with the journal's time, if there is one, and ``asterisk: ``. Return
    None for any other text, and for a journal entry of a program other than Asterisk.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    if isinstance(found.get("log"), str):
        return _bytes(found["log"]).removesuffix(b"\n").removesuffix(b"\r")
    if "MESSAGE" in found:
        return _journal(found)
    return _asterisk(found)


def _asterisk(found: dict[str, object]) -> JsonMessage | None:
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
    date, level, file, message = (_bytes(value) if isinstance(value, str) else b"" for value in values)
    return JsonMessage(date, level, file, message.removesuffix(b"\n")) if level and file else None


def _journal(found: dict[str, object]) -> bytes | None:
    message, micros = found["MESSAGE"], found.get("__REALTIME_TIMESTAMP")
    try:
        line = bytes(message) if isinstance(message, list) else _bytes(str(message))
    except (TypeError, ValueError):
        return None
    if found.get("SYSLOG_IDENTIFIER") not in ("asterisk", "safe_asterisk"):
        return None
    stamp = f"{micros[:-6]}.{micros[-6:]} " if isinstance(micros, str) and micros.isdecimal() else ""
    return _bytes(stamp) + b"asterisk: " + line


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# -- raw SIP packets in a log: pjproject writes them at ERROR, ``sip set debug`` at VERBOSE


DUMP_FILES = frozenset({b"pjproject", b"res_pjsip_logger.c", b"chan_sip.c"})
START = re.compile(
    rb"(?:[\w.]{1,40}+ {1,8}+)?Error processing [^\n]{0,40}packet from "
    rb"|<--- SIP read from |<--- Received SIP \w{1,16}+ \((?P<size>\d{1,6}+) bytes\)"
)
"""The beginning of a message that holds a packet, with the packet's size if Asterisk states it."""
END = re.compile(rb"-- end of packet\.\r?|<-{5,40}>\r?")


def begins_dump(line: bytes, first: Prefix) -> bool:
    """Whether ``line`` begins another packet, logged by the same thread and source file as the previous one.

    ``first`` is the prefix of the previous packet's first line. A sender cannot forge such a line, because
    the sender does not know the number of the thread.
    """
    prefix = parse_prefix(line)
    same = prefix is not None and (prefix.thread, prefix.file) == (first.thread, first.file)
    return same and prefix is not None and START.match(line, prefix.end) is not None


def end_of_dump(
    lines: Sequence[bytes | JsonMessage], at: int, first: Prefix, stated: int, most: int, *, final: bool
) -> int | None:
    """Return the index of the first line after the packet that begins at line ``at``.

    Return None if the lines so far do not show where the packet ends. ``first`` is the prefix of its first
    line. ``stated`` is the packet's size if Asterisk states it, else 0. ``most`` is the maximum length of a
    message, both in bytes. ``final``: no more lines follow.
    """
    size, end = 0, None
    for index in range(at + 1, len(lines)):
        line = lines[index]
        size += len(line) + 1 if isinstance(line, bytes) else most
        if size > most or (stated and size > stated):
            return (end or index) if not stated else index
        if stated or not isinstance(line, bytes):
            continue
        if END.fullmatch(line):
            end = index + 1
        elif end is not None and begins_dump(line, first):
            return end
    return (end or len(lines)) if final else None
