"""The daemon's own log: one line an event on standard error, where systemd's journal picks it up.

An event has a stable dotted name and its data as fields. Text that a remote party wrote is made printable
before it gets here; what is logged never holds a secret.
"""

import logging
import sys

import structlog


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
