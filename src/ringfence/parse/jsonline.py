r"""Lines that are JSON: Asterisk's ``[json]`` formatter, and the wrappers of containers and the journal.

- Asterisk (``main/logger.c:format_log_json``): one message a line, with its line feeds escaped. Its text
  cannot imitate another message. A message of more than 8 KiB is cut, and is no valid JSON then.
- docker's ``json-file``: ``{"log": "<line>\n", "stream": …, "time": …}``: the line is parsed as any other.
- ``journalctl -o json``: ``MESSAGE`` is the line, as text or as a list of bytes. A line without a date has
  the journal's time.
"""

import json

from attrs import frozen


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
