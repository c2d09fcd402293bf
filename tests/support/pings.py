"""Requests without credentials: pings of carriers and monitors by OPTIONS, and scans of accounts."""

import time
from collections.abc import Iterable

from tests.support.lab import Lab
from tests.support.sip_raw import Raw, calling
from tests.support.sip_wire import status_of

AN_HOUR = 124
"""The number of pings in an hour, one every 29 s."""

TRANSPORTS = ("UDP", "TCP", "TLS")


def ask(
    lab: Lab,
    source: str,
    accounts: Iterable[str],
    transport: str = "UDP",
    method: bytes = b"OPTIONS",
    pause: float = 0.02,
    port: int | None = None,
) -> int:
    """Ask once for each account, without credentials; return the number of answers until one is missing."""
    answered = 0
    with calling(lab, source, transport, port) as caller:
        for account in accounts:
            extension = b"" if method == b"REGISTER" else b"100"
            request = Raw(method=method, from_user=account.encode(), extension=extension)
            if not status_of(caller.ask(request, 2.0) or b""):
                break
            answered += 1
            time.sleep(pause)
    return answered


def ping(lab: Lab, source: str, transport: str = "UDP", port: int | None = None) -> int:
    """Ping for an hour, in fewer seconds, as an SBC that no ``identify`` matches; return the answers."""
    return ask(lab, source, ["s"] * AN_HOUR, transport, port=port)
