"""SIP over TLS and WebSocket; ``sip_wire`` has UDP and TCP.

A WebSocket message is a binary frame: a text frame may contain only UTF-8, and Asterisk accepts both.
"""

import socket
import ssl
import struct
from functools import cache

from tests.support.sip_wire import Wire, connect, must_be_in_the_laboratory, own_name

_SEND_SECONDS = 0.3
_FIN, _FIN_BINARY, _CONTINUED, _MASKED = 0x80, 0x82, 0, 0x80
_SHORT, _LONG = 126, 127
_MASK = b"\0\0\0\0"
"""A mask of zeros, which leaves the payload unchanged."""
_UPGRADE = (
    "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: {protocol}\r\n{more}\r\n"
)
LONGER = "x," + " " * 40 + "sip"
"""Protocols of which Asterisk takes the second, and repeats its blanks in a longer answer."""


class StreamWire:
    """One connection for SIP: TCP, or TLS if ``encrypted``; ``gone`` once the peer has closed it."""

    def __init__(
        self,
        target: tuple[str, int],
        source: str,
        seconds: float,
        *,
        encrypted: bool = False,
        port: int = 0,
        window: int = 0,
    ) -> None:
        self.gone = False
        self.piece = 0
        """The number of bytes that are sent together; 0 means all."""
        self._buffer = b""
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.settimeout(seconds)
        if window:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self._socket.bind((source, port))
        self.contact = own_name(self._socket)
        try:
            self._socket.connect(target)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if encrypted:
                self._socket = _any_certificate().wrap_socket(self._socket)
        except OSError:
            self.gone = True

    def send(self, message: bytes) -> None:
        """Send one message, unless the connection is gone; it counts as gone if it accepts no more data."""
        if not self.gone:
            self._socket.settimeout(_SEND_SECONDS)
            try:
                size = self.piece or len(message)
                for start in range(0, len(message), size):
                    self._socket.sendall(message[start : start + size])
            except OSError:
                self.gone = True

    def fileno(self) -> int:
        """Return the file descriptor, for poll()."""
        return self._socket.fileno()

    def receive(self, seconds: float) -> bytes | None:
        """Return the next message; None if none came in time or the peer is gone."""
        if not self.gone:
            self._socket.settimeout(max(seconds, 0.001))
        while not self.gone:
            message = self._framed()
            if message is not None:
                return message
            try:
                received = self._socket.recv(65_535)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError:
                received = b""
            self.gone = not received
            self._buffer += received
        return None

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _framed(self) -> bytes | None:
        """Return one complete message; Asterisk's answers to these requests have no body."""
        self._buffer = self._buffer.lstrip(b"\r\n")
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        self._buffer = rest
        return head + end


class WebSocketWire(StreamWire):
    """One WebSocket to Asterisk's HTTP server, with the subprotocol ``sip``."""

    def __init__(
        self,
        target: tuple[str, int],
        source: str,
        seconds: float,
        *,
        encrypted: bool = False,
        protocol: str = "sip",
        window: int = 0,
        origin: str = "",
    ) -> None:
        self.fragments = 1
        """The number of frames of each message."""
        super().__init__(target, source, seconds, encrypted=encrypted, window=window)
        more = f"Origin: {origin}\r\n" if origin else ""
        super().send(_UPGRADE.format(host=target[0], protocol=protocol, more=more).encode())
        self._upgraded = False
        accepted = super().receive(seconds)
        self._upgraded = accepted is not None and accepted.startswith(b"HTTP/1.1 101")
        if not self._upgraded and not self.gone:
            self.close()
            raise ConnectionError(f"no WebSocket for SIP: {accepted!r}")

    def send(self, message: bytes) -> None:
        """Send one message, in one frame or several."""
        size = -(-len(message) // self.fragments)
        parts = [message[start : start + size] for start in range(0, len(message), size)]
        for number, part in enumerate(parts):
            kind = _CONTINUED if number else _FIN_BINARY & ~_FIN
            super().send(_frame(kind | (_FIN if number == len(parts) - 1 else 0), part))

    def _framed(self) -> bytes | None:
        if not self._upgraded:
            return super()._framed()
        if len(self._buffer) < 2:
            return None
        size, start = self._buffer[1] & ~_MASKED, 2
        if size == _SHORT:
            size, start = int.from_bytes(self._buffer[2:4]), 4
        elif size == _LONG:
            size, start = int.from_bytes(self._buffer[2:10]), 10
        if len(self._buffer) < start + size:
            return None
        message, self._buffer = self._buffer[start : start + size], self._buffer[start + size :]
        return message


def _frame(kind: int, content: bytes) -> bytes:
    """Return a frame of a client, whose first byte is ``kind``."""
    size = len(content)
    if size < _SHORT:
        head = struct.pack("!BB", kind, _MASKED | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", kind, _MASKED | _SHORT, size)
    else:
        head = struct.pack("!BBQ", kind, _MASKED | _LONG, size)
    return head + _MASK + content


def open_wire(
    transport: str,
    target: tuple[str, int],
    source: str,
    seconds: float = 2.0,
    *,
    protocol: str = "sip",
    window: int = 0,
    origin: str = "",
) -> Wire:
    """Return a wire by UDP, TCP, TLS, WS or WSS; refuse a target outside the laboratory.

    ``protocol`` is what a WebSocket asks for, and ``origin`` the web page that opens it; "" for no browser.
    ``window`` is the receive buffer of a stream (0: the default).
    """
    must_be_in_the_laboratory(target[0])
    if transport in {"WS", "WSS"}:
        encrypted = transport == "WSS"
        more = {"protocol": protocol, "origin": origin}
        return WebSocketWire(target, source, seconds, encrypted=encrypted, window=window, **more)
    if transport in {"TCP", "TLS"}:
        return StreamWire(target, source, seconds, encrypted=transport == "TLS", window=window)
    return connect(transport, target, source, seconds)


@cache
def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
