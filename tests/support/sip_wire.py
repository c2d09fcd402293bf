"""SIP on the wire: requests as bytes, a parser of answers, and UDP and TCP sockets.

TLS and WebSocket are in ``sip_streams``.

It contains only what an attacker's tool needs, and uses only the standard library. An answer is matched to
its request by the Via branch: the branch is unique, and Asterisk returns it unchanged, whatever bytes the
Call-ID contains. Destinations outside the laboratory's networks are refused before a socket is made.
"""

import hashlib
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Protocol

_ALLOWED = tuple(ip_network(text) for text in ("198.18.0.0/15", "fd00::/8", "127.0.0.0/8", "::1/128"))
_RECEIVE_BUFFER = 16 * 2**20
_SEND_SECONDS = 1.0
_BRANCH = re.compile(rb"branch=(z9hG4bK[^;,\s]+)")
_LENGTH = re.compile(rb"\r\n(?:content-length|l)[ \t]*:[ \t]*(\d+)", re.IGNORECASE)
_TO = re.compile(rb"\r\n(To:[^\r]*)")
_NONCE = re.compile(rb'nonce="([^"]*)"')
_REALM = re.compile(rb'realm="([^"]*)"')


@dataclass(frozen=True)
class Challenge:
    """The challenge of a 401 or 407."""

    status: int
    realm: str
    nonce: str


@dataclass(frozen=True)
class Request:
    """One SIP request with its claimed account and its identifiers."""

    method: str
    account: str
    host: str
    contact: str
    transport: str
    branch: str
    call_id: bytes
    sequence: int
    extension: str = ""
    via: str = ";rport"
    extra: bytes = b""
    display: bytes = b""
    to_tail: bytes = b""
    username: str = ""

    @property
    def uri(self) -> str:
        """The request URI: the registrar for REGISTER, else the extension there."""
        return f"sip:{self.extension}@{self.host}" if self.method != "REGISTER" else f"sip:{self.host}"

    def encode(self) -> bytes:
        """Return the request's bytes."""
        target = self.account if self.method == "REGISTER" else self.extension
        lines = [
            f"{self.method} {self.uri} SIP/2.0".encode(),
            f"Via: SIP/2.0/{self.transport} {self.contact}{self.via};branch={self.branch}".encode(),
            b"Max-Forwards: 70",
            b"From: " + self.display + f"<sip:{self.account}@{self.host}>;tag={self.branch[7:]}".encode(),
            f"To: <sip:{target}@{self.host}>".encode() + self.to_tail,
            f"CSeq: {self.sequence} {self.method}".encode(),
            f"Contact: <sip:{self.account}@{self.contact}>".encode(),
            b"Call-ID: " + self.call_id,
            *([b"Expires: 3600"] if self.method == "REGISTER" else []),
            self.extra + b"Content-Length: 0",
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def authorized(self, challenge: Challenge, password: str, branch: str, before: bytes = b"") -> "Request":
        """Return the same request with a digest of ``password`` that answers ``challenge``.

        ``before`` are header lines in front of the digest.
        """
        ha1 = md5(f"{self.account}:{challenge.realm}:{password}")
        ha2 = md5(f"{self.method}:{self.uri}")
        header = "Authorization" if challenge.status == 401 else "Proxy-Authorization"
        extra = (
            f'{header}: Digest username="{self.username or self.account}", realm="{challenge.realm}", '
            f'nonce="{challenge.nonce}", uri="{self.uri}", '
            f'response="{md5(f"{ha1}:{challenge.nonce}:{ha2}")}", algorithm=MD5\r\n'
        )
        return replace(self, branch=branch, sequence=self.sequence + 1, extra=before + extra.encode())

    def acknowledged(self, answer: bytes) -> bytes:
        """Return the ACK to a final answer of an INVITE."""
        encoded = replace(self, method="ACK", extra=b"").encode()
        to = _TO.search(answer)
        return encoded if to is None else _TO.sub(lambda _: b"\r\n" + to[1], encoded, count=1)


def status_of(message: bytes) -> int:
    """Return an answer's status; 0 for a request."""
    return int(message[8:11]) if message.startswith(b"SIP/2.0 ") else 0


def branch_of(message: bytes) -> str:
    """Return the branch of the topmost Via."""
    match = _BRANCH.search(message)
    return match[1].decode("latin-1") if match else ""


def challenge_of(message: bytes) -> Challenge | None:
    """Return the challenge of an answer, or None."""
    status = status_of(message)
    nonce, realm = _NONCE.search(message), _REALM.search(message)
    if status not in {401, 407} or nonce is None or realm is None:
        return None
    return Challenge(status, realm[1].decode("latin-1"), nonce[1].decode("latin-1"))


class Wire(Protocol):
    """A socket that carries whole SIP messages."""

    contact: str

    def send(self, message: bytes) -> None:
        """Send one message."""

    def receive(self, seconds: float) -> bytes | None:
        """Return the next message; None if none came in time or the peer is gone."""

    def fileno(self) -> int:
        """Return the file descriptor, for poll()."""

    def close(self) -> None:
        """Close the socket."""


class UdpWire:
    """One UDP socket; a message is a datagram. ``open_to_all``: from wherever it comes."""

    def __init__(self, target: tuple[str, int], source: str, *, open_to_all: bool = False) -> None:
        self._target = target
        self._socket = _socket(target[0], socket.SOCK_DGRAM)
        with suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, 33, _RECEIVE_BUFFER)  # SO_RCVBUFFORCE
        self._socket.bind((source, 0))
        if not open_to_all:
            self._socket.connect(target)
        self.contact = own_name(self._socket)
        self._timeout = -1.0

    def send(self, message: bytes) -> None:
        """Send one datagram; ignore an ICMP error about the one before."""
        self._wait(_SEND_SECONDS)
        with suppress(ConnectionRefusedError):
            self._socket.sendto(message, self._target)

    def receive(self, seconds: float) -> bytes | None:
        """Return the next datagram, or None."""
        self._wait(seconds)
        try:
            return self._socket.recv(65535)
        except (TimeoutError, BlockingIOError, ConnectionRefusedError):
            return None

    def fileno(self) -> int:
        """Return the file descriptor, for poll()."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _wait(self, seconds: float) -> None:
        if seconds != self._timeout:
            self._timeout = seconds
            self._socket.settimeout(seconds)


class TcpWire:
    """One TCP connection; messages are framed by Content-Length."""

    def __init__(self, target: tuple[str, int], source: str, seconds: float) -> None:
        self._socket = _socket(target[0], socket.SOCK_STREAM)
        self._buffer = b""
        self._gone = False
        self._stuck = False
        self._socket.settimeout(seconds)
        self._socket.bind((source, 0))
        try:
            self._socket.connect(target)
        except OSError:
            self._gone = True
        else:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.contact = own_name(self._socket)

    def send(self, message: bytes) -> None:
        """Send one message; do nothing if the connection is dead or accepts no more data.

        Earlier answers can still be received.
        """
        if self._gone or self._stuck:
            return
        self._socket.settimeout(_SEND_SECONDS)
        try:
            self._socket.sendall(message)
        except OSError:
            self._stuck = True

    def receive(self, seconds: float) -> bytes | None:
        """Return the next message, or None."""
        self._socket.settimeout(seconds)
        while not self._gone:
            message = self._framed()
            if message is not None:
                return message
            try:
                received = self._socket.recv(65535)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError:
                received = b""
            self._gone = not received
            self._buffer += received
        return None

    def fileno(self) -> int:
        """Return the file descriptor, for poll()."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _framed(self) -> bytes | None:
        self._buffer = self._buffer.lstrip(b"\r\n")
        head, end, _ = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        length = _LENGTH.search(head)
        size = len(head) + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) < size:
            return None
        message, self._buffer = self._buffer[:size], self._buffer[size:]
        return message


def must_be_in_the_laboratory(host: str) -> None:
    """Raise ValueError if ``host`` is outside the laboratory's networks."""
    if not any(ip_address(host) in network for network in _ALLOWED):
        raise ValueError(f"{host} is outside the laboratory: nothing is sent there")


def connect(transport: str, target: tuple[str, int], source: str, seconds: float) -> Wire:
    """Return a wire from ``source`` to ``target``; refuse a target outside the laboratory."""
    must_be_in_the_laboratory(target[0])
    if transport == "TCP":
        return TcpWire(target, source, seconds)
    return UdpWire(target, source)


def bracketed(host: str) -> str:
    """Return a host as written in a SIP URI: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _socket(host: str, kind: socket.SocketKind) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)


def own_name(bound: socket.socket) -> str:
    """Return ``HOST:PORT`` of a socket's local end."""
    host, port, *_ = bound.getsockname()
    return f"{bracketed(host)}:{port}"


def md5(text: str) -> str:
    """Return the MD5 of a text in hexadecimal."""
    return hashlib.md5(text.encode("latin-1"), usedforsecurity=False).hexdigest()
