"""What systemd is told, and what it asks for: sd_notify(3) and the watchdog, without a library.

The protocol is one datagram of ``NAME=value`` lines to the socket in ``NOTIFY_SOCKET``. Where that is not set
(a shell, a container), nothing is sent.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send one state such as ``READY=1``; raise OSError where systemd asked for it and cannot be told."""
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
    """Tell that this is the end; nobody has to hear it."""
    with suppress(OSError):
        _send("STOPPING=1", environ, socket.MSG_DONTWAIT)


def feed_watchdog(environ: Mapping[str, str] = os.environ) -> None:
    """Tell that all is well, without waiting: whoever does not read has enough of it already."""
    with suppress(OSError):
        _send("WATCHDOG=1", environ, socket.MSG_DONTWAIT)


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Give how often ``WATCHDOG=1`` is to be sent (seconds): twice as often as asked. None: not at all."""
    asked = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(asked) / 2_000_000 if asked.isdecimal() and int(asked) and meant else None
