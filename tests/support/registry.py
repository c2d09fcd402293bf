"""An RDAP server on loopback, which answers as a test wants, and answers for it (RFC 9083)."""

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from attrs import Factory, define


def jcard(*emails: object) -> list[object]:
    """Return a jCard with a name and these mail addresses; a list is a whole property."""
    properties = [one if isinstance(one, list) else ["email", {}, "text", one] for one in emails]
    return ["vcard", [["version", {}, "text", "4.0"], ["fn", {}, "text", "Abuse desk"], *properties]]


def entity(*emails: object, roles: object = ("abuse",), entities: object = ()) -> dict[str, object]:
    """Return an entity."""
    return {
        "objectClassName": "entity", "roles": roles, "vcardArray": jcard(*emails), "entities": entities
    }  # fmt: skip


def answer(*entities: object, **more: object) -> dict[str, object]:
    """Return the answer for a network."""
    return {
        "objectClassName": "ip network",
        "handle": "NET-9-0-0-0-1",
        "startAddress": "9.0.0.0",
        "endAddress": "9.0.255.255",
        "name": "EXAMPLE-NET",
        "country": "DE",
        "entities": list(entities),
        **more,
    }


Answer = tuple[int, dict[str, str], bytes]
FOUND = json.dumps(answer(entity("abuse@example.net"))).encode()


@define
class Registry:
    """An RDAP server: what it answers, and the paths that it was asked for."""

    answer: Callable[[str], Answer] = lambda _: (200, {}, FOUND)
    asked: list[str] = Factory(list)
    base: str = ""


@contextmanager
def registry(
    respond: Callable[[str], Answer] = lambda _: (200, {}, FOUND), certificate: Path | None = None
) -> Iterator[Registry]:
    """Serve an RDAP server, by TLS if there is a certificate."""
    served = Registry(respond)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            status, headers, body = served.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Ignore a client that hangs up early."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        served.base = f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
