"""The server of the metrics: its answers, and requests that are hostile, slow or many."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address

import pytest
from structlog.testing import capture_logs

from ringfence.config.converters import ListenAddress
from ringfence.features.metrics import server as module
from ringfence.features.metrics.server import MOST_CONNECTIONS, MOST_HEAD, MetricsServer

PAGE = b"ringfence_friends 3.0\n"
GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(name="where")
def _where() -> Iterator[ListenAddress]:
    """Return an address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with capture_logs():
        yield ListenAddress(ip_address("127.0.0.1"), port)


def serving(server: MetricsServer, client: Callable[[], Awaitable[None]]) -> None:
    """Run ``client`` while ``server`` runs."""

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(server.run())
            await asyncio.sleep(0.05)
            await asyncio.wait_for(client(), 10)
            task.cancel()

    asyncio.run(both())


async def exchange(where: ListenAddress, request: bytes) -> tuple[str, bytes]:
    """Send a request, and return the head and the body of the answer."""
    reader, writer = await asyncio.open_connection(str(where.address), where.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


def test_the_page_is_served(where: ListenAddress) -> None:
    """A GET of /metrics is answered with the page, its type and its length, and the connection ends."""

    async def client() -> None:
        head, body = await exchange(where, GET)
        assert body == PAGE
        assert head.split("\r\n") == [
            "HTTP/1.1 200 OK",
            "Content-Type: text/plain; version=0.0.4; charset=utf-8",
            f"Content-Length: {len(PAGE)}",
            "Connection: close",
        ]

    serving(MetricsServer(where, lambda: PAGE), client)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", "421"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        (b"GET /metrics/../secret HTTP/1.0\r\n\r\n", "404"),
        (b"GET /metrics?name=x HTTP/1.0\r\n\r\n", "200"),
        (b"POST /metrics HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 0\r\n\r\n", "405"),
        (b"GET /metrics\r\n\r\n", "400"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", "400"),
        (b"\x16\x03\x01\xff\x00\r\n\r\n", "400"),
        (b"GET /" + b"a" * 2_000 + b" HTTP/1.1\r\n\r\n", "400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 3 * MOST_HEAD + b"\r\n\r\n", "431"),
    ],
)
def test_each_other_request_has_its_status(where: ListenAddress, request_: bytes, status: str) -> None:
    """A request that is not a GET of /metrics in HTTP/1 is refused with the status for the reason."""

    async def client() -> None:
        head, _ = await exchange(where, request_)
        assert head.split(" ")[1] == status

    serving(MetricsServer(where, lambda: PAGE), client)


@pytest.mark.parametrize(
    ("path", "status", "length"), [("/metrics", "200", len(PAGE)), ("/other", "404", 29)]
)
def test_an_answer_to_head_has_no_body(where: ListenAddress, path: str, status: str, length: int) -> None:
    """A HEAD gets the head that a GET gets, with the length of the body, and no body (RFC 9110)."""
    request = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    async def client() -> None:
        head, body = await exchange(where, request)
        assert head.split(" ")[1] == status
        assert f"Content-Length: {length}" in head.split("\r\n")
        assert body == b""

    serving(MetricsServer(where, lambda: PAGE), client)


def test_a_slow_client_is_cut_off(where: ListenAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not finish its request in time is disconnected without an answer."""
    monkeypatch.setattr(module, "EXCHANGE_WITHIN", 0.2)

    async def client() -> None:
        reader, writer = await asyncio.open_connection(str(where.address), where.port)
        writer.write(GET[:-1])
        assert await reader.read() == b""
        writer.close()

    serving(MetricsServer(where, lambda: PAGE), client)


def test_a_client_that_does_not_read_is_cut_off(
    where: ListenAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that does not read its answer in time is disconnected, and its connection is free again."""
    monkeypatch.setattr(module, "EXCHANGE_WITHIN", 0.2)
    server = MetricsServer(where, lambda: b"x" * 50_000_000)

    async def client() -> None:
        _, writer = await asyncio.open_connection(str(where.address), where.port, limit=1)
        writer.write(GET)
        await asyncio.sleep(0.1)
        assert len(server._clients) == 1
        await asyncio.sleep(0.5)
        assert not server._clients
        writer.transport.abort()

    serving(server, client)


def test_idle_connections_stop_no_scrape(where: ListenAddress) -> None:
    """However many connections others keep open, a client that sends its request at once is served."""
    server = MetricsServer(where, lambda: PAGE)

    async def client() -> None:
        idle = [
            await asyncio.open_connection(str(where.address), where.port) for _ in range(2 * MOST_CONNECTIONS)
        ]
        assert (await exchange(where, GET))[1] == PAGE
        assert len(server._clients) <= MOST_CONNECTIONS
        for _, writer in idle:
            writer.transport.abort()

    serving(server, client)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"127.0.0.1:9721", "200"),
        (b"[::1]:9721", "200"),
        (b"localhost", "200"),
        (b"LOCALHOST:1", "200"),
        (b"pbx.example.com", "200"),
        (socket.gethostname().encode(), "200"),
        (b"evil.example.com", "421"),
        (b"evil.example.com:9721", "421"),
        (b"localhost@evil.example.com", "421"),
        (b"evil.example.com\r\nHost: localhost", "421"),
        (b"", "421"),
        (b"\xff", "421"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(where: ListenAddress, host: bytes, status: str) -> None:
    """A request must name this host, so that no site can read the metrics by a name of its own."""

    async def client() -> None:
        head, body = await exchange(where, b"GET /metrics HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert head.split(" ")[1] == status
        assert (PAGE in body) is (status == "200")

    serving(MetricsServer(where, lambda: PAGE, ["pbx.example.com"]), client)


def test_a_defect_does_not_end_the_server(where: ListenAddress) -> None:
    """If the page cannot be made, the answer is an error, and the next request is answered."""
    pages = [PAGE]

    async def client() -> None:
        assert (await exchange(where, GET))[1] == PAGE
        assert (await exchange(where, GET))[0].startswith("HTTP/1.1 500 ")
        pages.append(PAGE)
        assert (await exchange(where, GET))[1] == PAGE

    serving(MetricsServer(where, pages.pop), client)


def test_a_busy_port_is_an_alarm_until_it_is_free(
    where: ListenAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another program has the port, there is an alarm, and the server tries again."""
    monkeypatch.setattr(module, "RETRY_EVERY", 0.1)
    server = MetricsServer(where, lambda: PAGE)
    other = socket.create_server((str(where.address), where.port))

    async def client() -> None:
        assert [(alarm.code, alarm.subject) for alarm in server.alarms()] == [
            ("metrics.unavailable", str(where))
        ]
        other.close()
        await asyncio.sleep(0.3)
        assert server.alarms() == []
        assert (await exchange(where, GET))[1] == PAGE

    serving(server, client)
