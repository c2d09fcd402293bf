"""Confirmation of log lines by a TCP connection from the address and port that they name.

A sender can make Asterisk write a line with any address and port, but only a host at that address can
complete a handshake. However, a sender that forges lines can guess ports, and a victim may have many
connections. So the lines of each address with and without a connection are counted. A line with a connection
is confirmed only if at most ``UNBACKED`` times as many lines had none. A forger fails this test, because it
must try some 28 000 ports for one match. A sender could also forge lines about its own address, to keep its
true lines unconfirmed. But it needs ten forged lines for each hidden guess, and an alarm names it.

A line without a connection is counted as soon as it arrives. The count is reduced again if another source
confirms the line. If lines were counted later, a forger could try a thousand ports before the first one
counts.

The counts are part of the sender (``sessions.py``), and so are their bounds. Times are monotonic seconds.
"""

from typing import Protocol

from ringfence.detect.sessions import LineCounts, Senders
from ringfence.model import Address, Endpoint, Service, Transport

WITHIN = 3_600.0
"""The period in which the lines of an address are counted (seconds)."""

UNBACKED = 10
"""The number of lines without a connection that are allowed for each line with one."""

GUESS = 250
"""The least number of bytes of a guess by a SIP connection; real guesses have 300 or more."""

LOGIN = 14
"""The least number of bytes of a login by a manager connection: ``Action:Login`` and two line feeds."""


class Connections(Protocol):
    """A table of the TCP connections to this host, as the kernel reported them last.

    The detector only reads it, and asks no kernel: its caller brings the table up to date before it passes an
    input (:meth:`Detector.queries`).
    """

    def has(self, remote: Endpoint, now: float) -> bool:
        """Whether the kernel has, or had within a minute, a connection from that address and port."""

    def backs(self, remote: Endpoint, length: int, now: float) -> bool:
        """Whether a connection of ``remote`` confirms a line about a request of at least ``length`` bytes.

        The remote end must have sent this number of bytes that have confirmed no other line. The call uses
        them up.
        """

    def had_any(self, address: Address, now: float) -> bool | None:
        """Whether that address has or had any connection within a minute; None if that is unknown."""


class NoConnections:
    """A substitute for the kernel, for replays: it knows no connections."""

    def has(self, remote: Endpoint, now: float) -> bool:  # noqa: ARG002 - the protocol's
        """Return False: no connection is known."""
        return False

    def backs(self, remote: Endpoint, length: int, now: float) -> bool:  # noqa: ARG002 - the protocol's
        """Return False: no connection is known, so no line is confirmed."""
        return False

    def had_any(self, address: Address, now: float) -> bool | None:  # noqa: ARG002 - the protocol's
        """Return None: it is unknown whether the address had a connection."""
        return None


Query = tuple[Endpoint, int]
"""A remote address and port, and the least number of bytes of its requests."""


def least_bytes(service: Service) -> int:
    """Return the least number of bytes of a request to ``service``."""
    return LOGIN if service is Service.AMI else GUESS


class Backing:
    """Checks whether a connection confirms a line."""

    def __init__(self, connections: Connections, senders: Senders) -> None:
        self._connections = connections
        self._senders = senders

    def confirms(self, remote: Endpoint, service: Service, now: float) -> bool:
        """Whether a TCP connection of ``remote`` confirms a line of ``service``.

        Return False for UDP, without a port, or if too many lines of this address had no connection. If there
        is a connection, count the line as one with a connection, and use up the bytes of one request.
        """
        if not remote.port or remote.transport is Transport.UDP:
            return False
        if not self._connections.backs(remote, least_bytes(service), now):
            return False
        lines = self._lines(remote.address, now)
        lines.backed += 1
        return lines.unbacked <= UNBACKED * lines.backed

    def has(self, remote: Endpoint, now: float) -> bool:
        """Whether the kernel has, or had within a minute, a connection of ``remote``; False for port 0."""
        return bool(remote.port) and self._connections.has(remote, now)

    def excludes(self, address: Address, now: float) -> bool:
        """Whether the kernel knows that an address had no connection within a minute."""
        return self._connections.had_any(address, now) is False

    def record_unbacked(self, remote: Endpoint, now: float) -> None:
        """Count a log line for whose address and port the kernel has no TCP connection.

        A line that names no port is not counted, nor one about a request by UDP.
        """
        if remote.port and remote.transport is not Transport.UDP:
            self._lines(remote.address, now).unbacked += 1

    def forgive(self, remote: Endpoint, now: float) -> None:
        """Undo :meth:`record_unbacked`, because another source confirms the line."""
        if remote.port and remote.transport is not Transport.UDP:
            lines = self._lines(remote.address, now)
            lines.unbacked = max(0, lines.unbacked - 1)

    def _lines(self, address: Address, now: float) -> LineCounts:
        sender = self._senders.of(address, now)
        if sender.lines is None or now - sender.lines.since >= WITHIN:
            sender.lines = LineCounts(now)
            sender.keep(now + WITHIN)
        return sender.lines
