"""The daemon's own log: one line per event on standard error, which systemd adds to the journal.

An event has a stable name with dots, such as ``ban.placed``, and its data as fields. This module escapes
every text, so that a remote party's text cannot begin a new line, and cuts it after ``LONGEST`` characters. A
secret is never logged.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from ringfence.model import printable

LONGEST = 4_096
"""The maximum number of characters of a field, so that a remote party's text cannot fill the log."""
_TRACEBACK = "exception"


def _escape_fields(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape every text. Write lists without brackets (``100,101``), which are easier to search."""
    for key, value in event.items():
        text = ",".join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else value
        if text is None or isinstance(text, bool | int | float):
            continue
        event[key] = _escaped_lines(str(text)) if key == _TRACEBACK else _cut(printable(str(text)))
    return event


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"


def _escaped_lines(text: str) -> str:
    """Escape each line of ``text``, and indent all lines but the first."""
    return "\n  ".join(map(printable, text.split("\n")))


class _Escaped(logging.Formatter):
    """A formatter for the log records of libraries, which this module must escape, too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as escaped text."""
        return _escaped_lines(super().format(record))


def configure(level: int = logging.INFO) -> None:
    """Set up logging for this process: formatted for people on a terminal, as ``key=value`` elsewhere.

    Lower levels than ``level`` are not logged. Commands that print their result use ``logging.CRITICAL``.
    """
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _escape_fields,
            structlog.dev.ConsoleRenderer()
            if terminal
            else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries write to Python's log: only their errors are logged. Errors of panoramisk are left out, too,
    # because they could contain the text of an AMI action.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Escaped("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    logging.getLogger("panoramisk").setLevel(logging.CRITICAL)
