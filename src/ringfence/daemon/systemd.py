"""Notifications to systemd: sd_notify(3) and the watchdog, without a library.

A notification is one datagram with lines ``NAME=value``, sent to the socket that the environment variable
``NOTIFY_SOCKET`` names. If the variable is not set (in a shell or a container), nothing is sent.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send one state such as ``READY=1``. Raise OSError if sending fails."""
    _send(state, environ)


def _send(state: str, environ: Mapping[str, str], flags: int = 0) -> None:
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), flags, address)


def stopping(environ: Mapping[str, str] = os.environ) -> None:
    """Report that the daemon is stopping; errors are ignored."""
    with suppress(OSError):
        _send("STOPPING=1", environ, socket.MSG_DONTWAIT)


def feed_watchdog(environ: Mapping[str, str] = os.environ) -> None:
    """Report that the daemon is alive, without waiting. Errors are ignored.

    If the socket's buffer is full, this report is lost. The next call sends another one.
    """
    with suppress(OSError):
        _send("WATCHDOG=1", environ, socket.MSG_DONTWAIT)


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how many seconds to wait between calls of :func:`feed_watchdog`: half of what systemd allows.

    Return None if systemd has set no watchdog for this process.
    """
    asked = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(asked) / 2_000_000 if asked.isdecimal() and int(asked) and meant else None
