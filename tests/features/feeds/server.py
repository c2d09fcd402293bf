"""A web server by HTTPS for tests, which answers as a test wants."""

import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from attrs import Factory, define
from tests.support.certificate import certificate_in


@define
class Reply:
    """An answer. ``cut``: only so many bytes of the body are sent. ``slow``: seconds between its bytes.

    ``length`` false leaves the length out; ``chunked`` sends the body in one chunk, without an end if cut.
    """

    status: int = 200
    body: bytes = b"198.51.100.1\n"
    headers: Mapping[str, str] = Factory(dict)
    cut: int | None = None
    slow: float = 0.0
    length: bool = True
    chunked: bool = False


@define
class Publisher:
    """The server: its answers by path, and the requests that it got (path and headers)."""

    port: int
    certificate: Path
    replies: dict[str, Reply]
    requests: list[tuple[str, dict[str, str]]] = Factory(list)

    def url(self, path: str = "/list") -> str:
        """Return the address of a path."""
        return f"https://127.0.0.1:{self.port}{path}"

    def context(self) -> ssl.SSLContext:
        """Return a context that trusts the server's certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))


def _handler(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers with the reply of the path."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer a request."""
            publisher.requests.append(
                (self.path, {name.lower(): text for name, text in self.headers.items()})
            )
            reply = publisher.replies.get(self.path, Reply(404, b"no such page"))
            self.close_connection = True
            self.send_response(reply.status)
            for name, text in reply.headers.items():
                self.send_header(name, text)
            if reply.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif reply.length:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            body = reply.body if reply.cut is None else reply.body[: reply.cut]
            if reply.chunked:
                body = f"{len(reply.body):x}\r\n".encode() + body
                body += b"\r\n0\r\n\r\n" if reply.cut is None else b""
            with suppress(OSError):
                for at in range(0, len(body), 1 if reply.slow else len(body) or 1):
                    self.wfile.write(body[at : at + 1] if reply.slow else body)
                    self.wfile.flush()
                    time.sleep(reply.slow)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    return Handler


@contextmanager
def publisher(folder: Path, **replies: Reply) -> Iterator[Publisher]:
    """Run a server; ``replies`` are its answers by the name of the path (``list`` for ``/list``)."""
    certificate = certificate_in(folder)
    found = Publisher(0, certificate, {f"/{name}": reply for name, reply in replies.items()})
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(found)) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
