"""Receivers of notifications for tests: an SMTP server (aiosmtpd) and an HTTP server, each in a thread."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from attrs import Factory, define

PASSWORD = "correct-horse"


@define
class Mailbox:
    """The mails that a server accepted, with their recipients, and the answer to each."""

    answer: str = "250 OK"
    refused: tuple[str, ...] = ()
    port: int = 0
    mails: list[EmailMessage] = Factory(list)
    recipients: list[list[str]] = Factory(list)

    async def handle_RCPT(  # noqa: N802 - the name that aiosmtpd calls
        self, _server: object, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept a recipient, or refuse it."""
        if address in self.refused:
            return "550 no such user <b>here</b>"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, _server: object, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        """Keep a mail if the answer accepts it."""
        if self.answer.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            self.mails.append(message_from_bytes(content, policy=default))
            self.recipients.append(list(envelope.rcpt_tos))
        return self.answer


def _authenticate(*arguments: Any) -> AuthResult:  # noqa: ANN401 - aiosmtpd's values
    login = arguments[-1]
    right = isinstance(login, LoginPassword) and (login.login, login.password) == (b"u", PASSWORD.encode())
    return AuthResult(success=right, handled=right)


@contextmanager
def mail_server(
    mailbox: Mailbox, *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Mailbox]:
    """Serve a mailbox; with a TLS context a login is required."""
    encrypted = starttls is not None or tls is not None
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=free_port(),
        ready_timeout=30.0,
        server_hostname="localhost",  # otherwise aiosmtpd asks DNS for this host's own name
        ssl_context=tls,
        tls_context=starttls,
        require_starttls=starttls is not None,
        authenticator=_authenticate if encrypted else None,
        auth_required=encrypted,
        auth_require_tls=starttls is not None,
    )
    controller.start()
    mailbox.port = controller.port
    try:
        yield mailbox
    finally:
        controller.stop()


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def raw_server(behave: Callable[[socket.socket], object]) -> Iterator[int]:
    """Yield the port of a TCP server that passes each connection to ``behave``."""
    stop = threading.Event()
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                connections.append(connection)
                behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            thread.join()
            for connection in connections:
                connection.close()


@contextmanager
def web_server(status: int = 200) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield the port of an HTTP server and the JSON documents that were posted to it."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port, posted
        finally:
            server.shutdown()
            thread.join()
