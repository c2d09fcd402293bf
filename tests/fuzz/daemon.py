"""Readers of what clients send: the control socket, the live page, and the page of metrics."""

import asyncio
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

from structlog.testing import capture_logs
from tests.fuzz.promises import Target, require
from tests.support.clock import SetClock
from tests.support.users import VALID
from uvicorn.server import ServerState

from ringfence import control
from ringfence.config.converters import ListenAddress
from ringfence.control_server import MAX_REQUEST_OF_OTHERS, _Connection, _share
from ringfence.errors import ControlError, DaemonUnreachableError, NoAnswerError
from ringfence.features.metrics.server import MOST_HEAD, MetricsServer, _head_of
from ringfence.features.publish.guard import PublishedList, _is_known, _token_of
from ringfence.features.web.app import Site, make_app
from ringfence.features.web.daemon_client import DaemonClient
from ringfence.features.web.entrance import Person, WebSessions
from ringfence.features.web.server import LimitedConnection, config_of
from ringfence.guard.http_page import Answer, values_of
from ringfence.guard.request_fields import PeerRole
from ringfence.guard.request_table import REQUESTS, check_request
from ringfence.lists.entries import Addition

NOW = 1_000.0
_SPINS = 5
_WITHIN = 20.0  # seconds for the rest of a request


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


# -- the control socket


class _Client:
    """The daemon's writer to a client that reads everything."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.transport = self
        self._ends = socket.socketpair()

    def write(self, data: bytes) -> None:
        """Keep an answer."""
        self.sent.append(data)

    async def drain(self) -> None:
        """Wait for nothing."""

    def is_closing(self) -> bool:
        """Return False: the client stays."""
        return False

    def abort(self) -> None:
        """End the connection: only a timeout does that here."""

    def get_extra_info(self, _: str) -> socket.socket:
        """Return a connected socket."""
        return self._ends[0]


def _handle(do: str, request: Mapping[str, Any]) -> str:
    """Check a request as each role, and as the lists do."""
    accepted = False
    for role in PeerRole:
        with suppress(ControlError):
            check_request(role, do, request)
            accepted = True
    if do in {"allow_add", "deny_add"}:
        Addition.of(request)
    if not accepted:
        raise ControlError("nobody may send this")
    return "accepted"


_HANDLERS = {do: partial(_handle, do) for do in REQUESTS}


@cache
def _client() -> _Client:
    return _Client()


async def _serve(data: bytes) -> _Client:
    client, reader = _client(), asyncio.StreamReader()
    client.sent = []
    reader.feed_data(data)
    reader.feed_eof()
    share = _share(1, 1 << 30, 1 << 30, 1 << 30, 1 << 30)
    writer = cast("asyncio.StreamWriter", client)
    await _Connection(_HANDLERS, [share], reader, writer, MAX_REQUEST_OF_OTHERS).serve()
    require(share.held == 0, "the bytes of a client that is gone")
    return client


def read_control(data: bytes) -> None:
    """Read what a client sends to the control socket: each line gets one answer, in JSON."""
    with capture_logs() as logged:
        client = _runner().run(_serve(data))
    require(not logged, f"a defect is logged: {logged[:1]}")
    answers = b"".join(client.sent).split(b"\n")
    require(answers.pop() == b"", "the last answer is whole")
    require(len(answers) <= data.count(b"\n") + 1, "the number of answers")
    require(all(isinstance(json.loads(one), dict) for one in answers), "an answer is JSON")


def control_requests() -> Iterator[bytes]:
    """Yield each request with valid fields, and all of them."""
    every = [json.dumps({"do": do, **VALID.get(do, {})}).encode() + b"\n" for do in sorted(REQUESTS)]
    yield from every
    yield b"".join(every)
    yield b'{"do": "deny_add", "what": ["country DE", "a.example"], "note": "x", "seconds": null}\n'


def read_control_answer(data: bytes) -> None:
    """Read an answer of the daemon."""
    control._result(data, Path("/run/x.sock"), [])


def control_answers() -> Iterator[bytes]:
    """Yield a result, an error, and a change that is not recorded."""
    yield b'{"ok": [1, {"a": null}]}\n'
    yield b'{"error": "no"}\n'
    yield b'{"ok": true, "not_recorded": "the disk is full"}\n'
    yield b"[" * 100_000


# -- the page of metrics, and the list for routers

_LIST = PublishedList.of("192.0.2.7\n")


class _Publisher:
    """Stands for the feature that serves the list for routers."""

    def pages(self) -> dict[bytes, Any]:
        """Return the page of the list."""

        async def page(head: bytes) -> Answer:
            for value in values_of(head, b"authorization"):
                _token_of(value)
            return Answer("304 Not Modified" if _is_known(head, _LIST.tag) else "200 OK", _LIST.text)

        return {b"/bans": page}


@cache
def _metrics() -> MetricsServer:
    features: Any = [_Publisher()]
    return MetricsServer(ListenAddress(ip_address("127.0.0.1"), 9100), lambda: b"a 1\n", features=features)


async def _answered(data: bytes) -> Answer:
    reader = asyncio.StreamReader(limit=MOST_HEAD)
    reader.feed_data(data)
    reader.feed_eof()
    head = await _head_of(reader)
    require(head is None or len(head) <= MOST_HEAD + 4, "the length of a head")
    return await _metrics()._answer(head)


def read_metrics(data: bytes) -> None:
    """Read a request for the metrics or the list for routers."""
    with capture_logs() as logged:
        answer = _runner().run(_answered(data))
    require(not logged, f"a defect is logged: {logged[:1]}")
    answer.encoded()


def metrics_requests() -> Iterator[bytes]:
    """Yield requests for each page, with tokens and tags."""
    yield b"GET /metrics HTTP/1.1\r\nHost: localhost:9100\r\n\r\n"
    yield (
        b"HEAD /bans?x HTTP/1.0\r\nAuthorization: Basic eDp0b2tlbg==\r\nIf-None-Match: W/"
        + _LIST.tag
        + b"\r\n\r\n"
    )
    yield b"GET /bans HTTP/1.1\r\nHost: [::1]\r\nAuthorization: Bearer token\r\nIf-None-Match: *\r\n\r\n"


# -- the live page

_COOKIE, _CSRF, _TOKEN = b"COOKIE", b"CSRF", b"TOKEN"
"""Words that stand in an input for a valid session, for the secret of its forms, and for a login link."""


class _Daemon(DaemonClient):
    """A daemon that has no bans, and accepts every command."""

    async def ask(self, do: str, /, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return an empty list, or raise an error as a daemon that is stopped."""
        if do in {"bans", "past_bans", "latest", "alarms", "friends"}:
            return []
        raise DaemonUnreachableError("no daemon listens")

    async def command(self, do: str, /, **arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return that everything is done."""
        json.dumps(arguments)
        return {"problems": [], "notes": [], "not_banned": [], "unknown": []}


class _Site:
    """The live page, with a session."""

    def __init__(self) -> None:
        clock = SetClock(wall=lambda: NOW, mono=lambda: NOW)
        self._sessions = WebSessions()
        begun = self._sessions.log_in(self._sessions.make_link(Person("ann"), NOW), NOW)
        assert begun is not None
        cookie, session = begun
        self._words = {_COOKIE: b"__Host-ringfence=" + cookie.encode(), _CSRF: session.csrf.encode()}
        site = Site("https://pbx.example.com", "X-Real-IP")
        self.app = make_app(_Daemon(Path("/nowhere"), clock), self._sessions, site, clock)
        self.config = config_of(self.app)
        self.config.load()

    def filled(self, data: bytes) -> bytes:
        """Return an input with the values that its words stand for."""
        words = dict(self._words)
        if _TOKEN in data:
            words[_TOKEN] = self._sessions.make_link(Person("bob"), NOW).encode()
        for word, value in words.items():
            data = data.replace(word, value)
        return data


@cache
def _site() -> _Site:
    return _Site()


class _Transport:
    """The transport of a browser that reads everything."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        """Keep a part of an answer."""
        self.sent += data

    def close(self) -> None:
        """Close the connection."""
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        """Return whether the page has closed the connection."""
        return self.closed

    def get_extra_info(self, _: str, default: object = None) -> object:
        """Return the default: no address is known."""
        return default

    def pause_reading(self) -> None:
        """Change nothing."""

    def resume_reading(self) -> None:
        """Change nothing."""


async def _browse(data: bytes) -> bytes:
    site, state, transport = _site(), ServerState(), _Transport()
    protocol = LimitedConnection(config=site.config, server_state=state, app_state={})
    protocol.connection_made(cast("asyncio.Transport", transport))
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        if piece and not transport.closed:
            protocol.data_received(piece)
        for _ in range(_SPINS):
            await asyncio.sleep(0)
    protocol.connection_lost(None)
    if state.tasks:
        _, left = await asyncio.wait([*state.tasks], timeout=_WITHIN)
        require(not left, "a request of a browser that is gone ends")
    return bytes(transport.sent)


def read_page(data: bytes) -> None:
    """Read what a browser sends to the live page."""
    with capture_logs():
        sent = _runner().run(_browse(_site().filled(data)))
    require(not sent or sent.startswith(b"HTTP/1.1 "), "an answer is HTTP")
    require(b" 500 " not in sent.partition(b"\r\n")[0], "no answer reports a defect")


def page_requests() -> Iterator[bytes]:
    """Yield requests for each page, commands, logins, and the button of a link."""
    head = b"Host: pbx.example.com\r\nCookie: COOKIE\r\n"
    targets = (
        "/",
        "/bans?order=until&q=192.0.2.7&page=2",
        "/past",
        "/log?kind=ban",
        "/alarms",
        "/lists",
        "/x",
    )
    more = (
        "/why?about=192.0.2.7",
        "/why?about=alice",
        "/confirm?do=ban&what=192.0.2.7",
        "/static/live.js?v=1",
    )
    for target in (*targets, *more, "/fence", "/login"):
        yield b"GET %b HTTP/1.1\r\n%b\r\n" % (target.encode(), head)
    forms = (
        (b"/run", b"csrf=CSRF&do=ban&what=192.0.2.7&length=1+hour&note=a%0Ab"),
        (b"/run", b"csrf=CSRF&do=allow-remove&what=192.0.2.0%2F24"),
        (b"/run", b"csrf=CSRF&do=dismiss&what=1"),
        (b"/login", b"token=TOKEN"),
        (b"/admit", b"token=abc"),
        (b"/logout", b"csrf=CSRF"),
    )
    for path, form in forms:
        size = len(_site().filled(form))
        yield b"POST %b HTTP/1.1\r\n%bX-Real-IP: 192.0.2.7\r\nContent-Length: %d\r\n\r\n%b" % (
            path,
            head,
            size,
            form,
        )
    yield b"GET / HTTP/1.1\r\nHost: [::1]:8721\r\nOrigin: null\r\nSec-Fetch-Site: none\r\n\r\n" * 2


TARGETS = (
    Target(
        "control",
        read_control,
        control_requests,
        (
            *("control_server.py", "lists/handlers.py", "lists/entries.py"),
            *("guard/request_fields.py", "guard/request_table.py"),
        ),
        per_byte=1_000,
        slowest=400e-6,
        tries=200,
    ),
    Target(
        "control-answer",
        read_control_answer,
        control_answers,
        ("control.py",),
        (ControlError, NoAnswerError),
        tries=500,
    ),
    Target(
        "metrics",
        read_metrics,
        metrics_requests,
        ("features/metrics/server.py", "features/publish/guard.py", "guard/http_page.py"),
        (ConnectionError,),
        tries=200,
    ),
    Target(
        "page",
        read_page,
        page_requests,
        tuple(
            f"features/web/{name}.py"
            for name in ("app", "admission", "entrance", "pages", "commands", "server")
        ),
        per_byte=200,
        slowest=400e-6,
        tries=100,
    ),
)
