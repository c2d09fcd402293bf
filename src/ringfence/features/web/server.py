"""The process of the live page: it serves the page by uvicorn, and makes login links.

Pages are served on a TCP port or a unix socket. On another unix socket, the command ``ringfence web login``
requests a login link.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn
from attrs import frozen
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from ringfence import control_server
from ringfence.clock import Clock
from ringfence.errors import ControlError, WebError
from ringfence.features.web.app import Site, make_app
from ringfence.features.web.daemon_client import DaemonClient
from ringfence.features.web.entrance import Person, WebSessions
from ringfence.threads import run
from ringfence.values.network import Address
from ringfence.values.text import printable

# -- the HTTP connections of the live page, with a limit of their number and of the time for a request
#
# uvicorn itself accepts any number of connections, and waits without a time limit for the requests of each.
# So any process of this host could use up the file descriptors of the page, or occupy all connections that
# uvicorn serves at a time.


MOST_CONNECTIONS = 256
"""The maximum number of connections at the same time. A browser opens at most six."""
BACKLOG = 100
"""The maximum number of connections that asyncio accepts before it handles other events.

If there are too many connections, some are aborted, but their file descriptors are closed only later. A small
number here limits how many descriptors are open until then.
"""
REQUEST_TIME = 10.0
"""Seconds that a client has to send a whole request, or to continue reading an answer.

After that, its connection is aborted.
"""


class LimitedConnection(H11Protocol):
    """A connection that is aborted if its client is too slow, or if there are too many connections.

    A connection waits for its client until the request is complete, and while the client does not read the
    answer. If there are more than MOST_CONNECTIONS, the one that has waited longest for its client is
    aborted. So new clients are served, however many connections others keep open.

    ``waits_since`` is the time of the event loop when the connection began to wait for its client, None if it
    does not wait. ``is_aborted``: the page has aborted the connection.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - those of uvicorn
        super().__init__(*arguments, **options)
        self.waits_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_aborted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request. If there are too many connections, abort one."""
        super().connection_made(transport)
        self._update()
        others = (one for one in self.connections if isinstance(one, LimitedConnection))
        counted = [one for one in others if not one.is_aborted]
        if len(counted) > MOST_CONNECTIONS:
            waiting = [one for one in counted if one.waits_since is not None]
            min(waiting, key=lambda one: one.waits_since or 0.0).abort()

    def data_received(self, data: bytes) -> None:
        """Handle received bytes, which are a part of a request."""
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Start to wait for the next request."""
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        """Start to wait for the client, which has to read the answer."""
        super().pause_writing()
        self._update()

    def resume_writing(self) -> None:
        """Continue the answer, because the client has read a part of it."""
        super().resume_writing()
        self._update()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer that limits how long the page waits for the client."""
        self._stop_timer()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once."""
        self.is_aborted = True
        self._stop_timer()
        self.transport.abort()

    def _update(self) -> None:
        """Start or stop the timer when the page begins or ends to wait for the client."""
        cycle: RequestResponseCycle | None = self.cycle
        waits = self.flow.write_paused or cycle is None or cycle.response_complete or cycle.more_body
        if not waits:
            self._stop_timer()
        elif self._timer is None and not self.is_aborted:
            self.waits_since = self.loop.time()
            self._timer = self.loop.call_later(REQUEST_TIME, self.abort)

    def _stop_timer(self) -> None:
        self.waits_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


MOST_HEAD = 16 * 1024  # bytes of the head of a request
_MOST_NAME = 64  # characters of a person's name
_IPV6 = 6


@frozen
class WebSettings:
    """The address and sockets of the live page.

    ``where``: the address and port, or the path of the unix socket, on which it listens. ``site``: its URL in
    browsers. ``daemon``: the control socket of the daemon. ``logins``: the socket for requests of login
    links.
    """

    where: tuple[Address, int] | Path
    site: Site
    daemon: Path
    logins: Path


def serve(settings: WebSettings, ready: Callable[[], object]) -> None:
    """Serve the live page until SIGTERM or SIGINT. ``ready`` is called when its sockets exist.

    Raise WebError or ControlError if a socket cannot be created.
    """
    clock, sessions = Clock(), WebSessions()
    app = make_app(DaemonClient(settings.daemon, clock), sessions, settings.site, clock)
    server = uvicorn.Server(config_of(app))
    links = LoginLinks(sessions, settings.site, clock)

    def stop(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    # While uvicorn runs, it has its own handlers. At its end it restores the ones set here, and raises the
    # signal again. With the default handlers this would end the process as if it had failed. A signal that
    # comes before uvicorn runs must end the page, too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    run(_serve(settings, server, links, ready))


async def _serve(
    settings: WebSettings, server: uvicorn.Server, links: "LoginLinks", ready: Callable[[], object]
) -> None:
    with _listening(settings.where) as listener:
        async with control_server.serve(settings.logins, {"login": links.make, "site": links.describe}):
            ready()
            await server.serve(sockets=[listener])


def config_of(app: ASGIApp) -> uvicorn.Config:
    """Return uvicorn's configuration for the live page.

    Only errors are logged: any process of this host can send invalid requests, and uvicorn warns about each.
    """
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=LimitedConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        # Connections that are being closed count too, so this is above the limit of open connections.
        limit_concurrency=2 * MOST_CONNECTIONS,
        h11_max_incomplete_event_size=MOST_HEAD,
        timeout_graceful_shutdown=3,
    )


class LoginLinks:
    """Makes login links, if root or the user of this process requests them."""

    def __init__(self, sessions: WebSessions, site: Site, clock: Clock) -> None:
        self._sessions = sessions
        self._site = site
        self._clock = clock

    def make(self, request: Mapping[str, Any]) -> str:
        """Handle ``{"do": "login", "name": "alice", "read_only": false}``: return a link that logs in once.

        Raise ControlError if another user requests it, or if the name is invalid.
        """
        _require_root()
        name, read_only = request.get("name"), request.get("read_only") is True
        if not isinstance(name, str) or not 0 < len(name) <= _MOST_NAME or printable(name) != name:
            raise ControlError(f"a person needs a name of at most {_MOST_NAME} visible characters")
        token = self._sessions.make_link(Person(name, read_only), self._clock.mono())
        structlog.get_logger().info("web.link", user=name, read_only=read_only)
        return f"{self._site.url}/login#{token}"

    def describe(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Handle ``{"do": "site"}``: return the URL, and whether the page sees people's addresses.

        Raise ControlError if another user requests it.
        """
        _require_root()
        return {"url": self._site.url, "sees_clients": self._site.sees_clients}


def _require_root() -> None:
    peer = control_server.PEER.get()
    if peer is None or peer.user not in {0, os.geteuid()}:
        raise ControlError("only root can make links")


@contextmanager
def _listening(where: tuple[Address, int] | Path) -> Iterator[socket.socket]:
    """Listen while the block runs; raise WebError if this is impossible.

    A unix socket can be used by its owner and group. It is removed at the end.
    """
    try:
        listener = _unix_socket(where) if isinstance(where, Path) else _tcp_socket(*where)
    except OSError as error:
        name = where if isinstance(where, Path) else f"{where[0]} port {where[1]}"
        raise WebError(f"cannot listen on {name}: {error.strerror or error}") from None
    with listener:
        try:
            yield listener
        finally:
            if isinstance(where, Path):
                where.unlink(missing_ok=True)


def _tcp_socket(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == _IPV6 else socket.AF_INET
    return socket.create_server((str(address), port), family=family)


def _unix_socket(path: Path) -> socket.socket:
    """Create a unix socket. If there is one on which no process listens any more, replace it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _is_alive(path):
            path.unlink()
        before = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True
