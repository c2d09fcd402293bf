"""A small HTTP/1.1 server in the daemon's event loop: for the page ``/metrics``, and the list for routers.

A client cannot use much memory or time: a request's head has at most ``MOST_HEAD`` bytes, request and answer
together take at most ``EXCHANGE_WITHIN`` seconds, and there are at most ``MOST_CONNECTIONS`` connections with
one request each. If there are more, the oldest connection is aborted. So a client that sends its request at
once is served, however many connections others keep open.

The Host header of a request must be an address, ``localhost``, the name of this host, or a configured name.
Otherwise a web site could make its own name resolve to this host, and its scripts could read the metrics in
the browser of an administrator (DNS rebinding). If the server cannot listen, there is an alarm, and it tries
again. The daemon keeps running.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from ipaddress import ip_address
from itertools import chain

import structlog

from ringfence.alarm_codes import Alarm
from ringfence.config.converters import ListenAddress
from ringfence.features.metrics.alarms import MetricsAlarmCode
from ringfence.guard.feature import Feature
from ringfence.guard.http_page import Answer, Page, values_of

MOST_HEAD = 8 * 1024
MOST_CONNECTIONS = 64
BACKLOG = 16
"""The maximum number of connections that asyncio accepts before it reads from those that are open."""
EXCHANGE_WITHIN = 5.0  # maximum seconds for a request and its answer together
RETRY_EVERY = 30.0  # seconds until the server tries again to listen

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# RFC 9112 section 3: method, target and version, separated by one blank each.
_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,1000}) HTTP/1\.([01])")
# RFC 9110 section 7.2: a name or an address, and perhaps a port.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::[0-9]{0,5})?")


class MetricsServer(Feature):
    """An HTTP server of the metrics (the text that ``render`` returns), on the address ``where``.

    ``hosts`` are more names that the Host header of a request may have. ``features`` have
    further pages.
    """

    def __init__(
        self,
        where: ListenAddress,
        render: Callable[[], bytes],
        hosts: Iterable[str] = (),
        features: Sequence[Feature] = (),
    ) -> None:
        self._where = where
        self._features = features
        self._render = render
        self._hosts = {"localhost", socket.gethostname().lower(), *hosts}
        self._error = ""
        self._clients: dict[asyncio.StreamWriter, None] = {}  # the oldest one first
        self._log = structlog.get_logger()

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that serves the metrics and the pages of features by HTTP."""
        return [self.run()]

    def alarms(self) -> list[Alarm]:
        """Return the alarm that the metrics cannot be served; [] if there is no such error."""
        code = MetricsAlarmCode.METRICS_UNAVAILABLE
        return [Alarm(code, str(self._where), self._error)] if self._error else []

    async def run(self) -> None:
        """Serve the metrics and the pages of features by HTTP until cancelled."""
        while True:
            try:
                server = await asyncio.start_server(
                    self._on_client,
                    str(self._where.address),
                    self._where.port,
                    limit=MOST_HEAD,
                    backlog=BACKLOG,
                )
            except OSError as error:
                self._error = f"the metrics cannot be served: {error.strerror}; see [metrics] listen"
                await asyncio.sleep(RETRY_EVERY)
                continue
            self._error = ""
            self._log.info("metrics.served", at=str(self._where))
            async with server:
                try:
                    await server.serve_forever()
                finally:
                    self._abort()

    def _abort(self) -> None:
        """Abort all connections, so that the daemon's shutdown does not wait for a client."""
        for writer in self._clients:
            writer.transport.abort()

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a client, and close its connection."""
        while len(self._clients) >= MOST_CONNECTIONS:
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            oldest.transport.abort()
        self._clients[writer] = None
        try:
            async with asyncio.timeout(EXCHANGE_WITHIN):
                head = await _head_of(reader)
                answer = await self._answer(head)
                writer.write(answer.encoded(body=head is None or not head.startswith(b"HEAD ")))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (ConnectionError, TimeoutError):
            pass  # the client has disconnected, sends too slowly, or does not read
        finally:
            self._clients.pop(writer, None)
            writer.transport.abort()

    async def _answer(self, head: bytes | None) -> Answer:
        """Return the answer to a request. ``head`` is the request's head; None if it is too long."""
        if head is None:
            return Answer("431 Request Header Fields Too Large")
        request = _REQUEST.fullmatch(head.partition(b"\r\n")[0])
        if request is None:
            return Answer("400 Bad Request")
        method, target, minor = request.groups()
        if not self._is_own(head, required=minor == b"1"):
            return Answer("421 Misdirected Request", b"Not a name of this host; see [metrics] hosts.\n")
        return await self._answer_for(method, target, head)

    async def _answer_for(self, method: bytes, target: bytes, head: bytes) -> Answer:
        page = self._all_pages().get(target.partition(b"?")[0])
        if page is None:
            return Answer("404 Not Found", b"The metrics are at /metrics.\n")
        if method not in {b"GET", b"HEAD"}:
            return Answer("405 Method Not Allowed", more="Allow: GET, HEAD\r\n")
        try:
            return await page(head)
        except Exception:  # noqa: BLE001 - a defect is logged in full, and does not stop the daemon
            self._log.exception("metrics.defect")
            return Answer("500 Internal Server Error")

    def _all_pages(self) -> dict[bytes, Page]:
        others = (feature.pages().items() for feature in self._features)
        return {b"/metrics": self._metrics, **dict(chain.from_iterable(others))}

    async def _metrics(self, _: bytes) -> Answer:
        return Answer("200 OK", self._render(), kind=_CONTENT_TYPE)

    def _is_own(self, head: bytes, *, required: bool) -> bool:
        """Whether the Host header of a request names this host, or is missing and not ``required``."""
        found = [value.decode("latin-1") for value in values_of(head, b"host")]
        if not found:
            return not required
        parts = _HOST.fullmatch(found[0]) if len(found) == 1 else None
        if parts is None:
            return False
        name = (parts[1] or parts[2]).lower()
        return name in self._hosts or _is_address(name)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


async def _head_of(reader: asyncio.StreamReader) -> bytes | None:
    """Read and return a request's head; None if it is too long.

    Raise ConnectionError if the client disconnects before the end of the head.
    """
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None
    except asyncio.IncompleteReadError:
        raise ConnectionError("the client has disconnected") from None
