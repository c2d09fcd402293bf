"""The daemon's own log: one line an event on standard error, where systemd's journal picks it up.

An event has a stable dotted name and its data as fields. Text that a remote party wrote is made printable
before it gets here; what is logged never holds a secret.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog


def _plainly(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write lists as people do, ``100,101``, and not as Python does: this is for grep."""
    for key, value in event.items():
        if isinstance(value, list | tuple):
            event[key] = ",".join(map(str, value))
    return event


def configure(level: int = logging.INFO) -> None:
    """Set up logging for this process: for people on a terminal, as ``key=value`` elsewhere.

    A command that answers by what it prints asks for ``logging.CRITICAL``.
    """
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _plainly,
            structlog.dev.ConsoleRenderer()
            if terminal
            else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # asyncio's and panoramisk's own records: only what somebody should act on, and never an action's text.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("panoramisk").setLevel(logging.CRITICAL)
