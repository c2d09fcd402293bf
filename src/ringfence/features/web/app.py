"""The ASGI application: the handler of each URL, the security headers of every answer, and the host check."""

import secrets
from http import HTTPStatus
from urllib.parse import urlsplit

from attrs import frozen
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ringfence.clock import Clock
from ringfence.errors import DaemonUnreachableError, RingfenceError, WebError
from ringfence.features.web import LOOPBACK
from ringfence.features.web.admission import Admission
from ringfence.features.web.daemon_client import DaemonClient
from ringfence.features.web.entrance import Cookie, Entrance, WebSessions
from ringfence.features.web.pages import Pages
from ringfence.features.web.rendering import NONCE, Renderer, owners

_NO_HOST = frozenset("@/?#\\")
"""Characters that no valid Host header has. ``urlsplit`` might find a wrong host in a header that has one."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, browsers would send "Origin: null" with the forms of this site, as if from elsewhere.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex, nofollow",
}
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; script-src 'nonce-{nonce}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@frozen
class Site:
    """The URL of the live page as browsers use it, such as ``https://pbx.example.com``.

    ``client_header`` is the header in which the proxy names the address of its client; "" if it does not.
    """

    url: str
    client_header: str = ""

    @property
    def sees_clients(self) -> bool:
        """Whether people elsewhere can open the page, and the page knows their addresses."""
        return bool(self.client_header) and urlsplit(self.url).hostname not in LOOPBACK

    @property
    def secure(self) -> bool:
        """Whether browsers use HTTPS."""
        return self.url.startswith("https:")

    def is_host(self, host: str) -> bool:
        """Whether ``host``, the Host header of a request, names this site or a loopback address.

        Without this check, another site could make its own name resolve to this server. Its scripts could
        then read the pages (DNS rebinding). The port is not checked: a browser that uses an SSH tunnel sends
        the port of the tunnel.
        """
        if not _NO_HOST.isdisjoint(host):
            return False
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return name is not None and (name in LOOPBACK or name == urlsplit(self.url).hostname)


class Shield:
    """An ASGI application around ``app``: it adds the security headers to every answer.

    A request whose Host header does not name ``site`` is refused, and does not reach ``app``.
    """

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. ASGI defines the three arguments."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[NONCE] = nonce = secrets.token_urlsafe(16)

        async def send_shielded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_headers(message, nonce)]
            await send(message)

        if self._site.is_host(Request(scope).headers.get("host", "")):
            await self._app(scope, receive, send_shielded)
        else:
            wrong = PlainTextResponse(
                "This name does not lead to ringfence; see the option --url of ringfence web.\n",
                HTTPStatus.MISDIRECTED_REQUEST,
            )
            await wrong(scope, receive, send_shielded)


def _headers(message: Message, nonce: str) -> list[tuple[bytes, bytes]]:
    headers = _HEADERS | {"Content-Security-Policy": _POLICY.format(nonce=nonce)}
    if not any(name.lower() == b"cache-control" for name, _ in message.get("headers", ())):
        headers["Cache-Control"] = "no-store"
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def make_app(client: DaemonClient, sessions: WebSessions, site: Site, clock: Clock) -> ASGIApp:
    """Return the whole ASGI application of the live page."""
    renderer = Renderer()
    entrance = Entrance(sessions, renderer, Cookie(site.secure), site.url, clock)
    pages = Pages(client, renderer)
    admission = Admission(client, renderer, site.url, site.client_header, clock)
    views = {
        "/": pages.overview,
        "/bans": pages.bans,
        "/past": pages.past,
        "/log": pages.log,
        "/alarms": pages.alarms,
        "/lists": pages.lists,
        **{f"/{name}": pages.of_feature for name in owners("page.html")},
        "/why": pages.why,
        "/confirm": pages.confirm,
    }
    changes = {"/run": pages.run, "/logout": entrance.log_out}

    async def view(request: Request) -> Response:
        entered = entrance.enter(request)
        return entered if isinstance(entered, Response) else await views[request.url.path](request, entered)

    async def change(request: Request) -> Response:
        entered = await entrance.enter_form(request)
        return (
            entered if isinstance(entered, Response) else await changes[request.url.path](request, *entered)
        )

    failures = _Failures(renderer)
    app = Starlette(
        routes=[
            *(Route(path, view) for path in views),
            *(Route(path, change, methods=["POST"]) for path in changes),
            Route("/login", entrance.login_form),
            Route("/login", entrance.log_in, methods=["POST"]),
            Route("/admit", admission.form),
            Route("/admit", admission.admit, methods=["POST"]),
            Route("/static/{name}", renderer.file),
        ],
        exception_handlers={
            RingfenceError: failures.failed,
            ClientDisconnect: _disconnected,
            HTTPException: failures.refused,
            Exception: failures.defect,
        },
    )
    return Shield(app, site)


@frozen
class _Failures:
    """The answers to requests that fail: each shows an error as a page."""

    renderer: Renderer

    async def failed(self, request: Request, error: Exception) -> Response:
        """Return an error page: 503 if the daemon does not answer, 403 for a WebError, 400 otherwise."""
        status, heading = HTTPStatus.BAD_REQUEST, "Not done"
        if isinstance(error, DaemonUnreachableError):
            status, heading = HTTPStatus.SERVICE_UNAVAILABLE, "The daemon does not answer"
        elif isinstance(error, WebError):
            status = HTTPStatus.FORBIDDEN
        return self.renderer.error(request, status, heading, str(error))

    async def refused(self, request: Request, error: Exception) -> Response:
        """Return a page that shows an HTTP error, such as an unknown URL, with the error's status."""
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
        return self.renderer.error(request, status, HTTPStatus(status).phrase)

    async def defect(self, request: Request, error: Exception) -> Response:
        """Return a page with the status 500 that shows any other exception as a defect of ringfence.

        Starlette raises the exception again after the answer, and uvicorn logs its traceback.
        """
        text = f"A defect in ringfence ({type(error).__name__}); see journalctl -u ringfence-web."
        return self.renderer.error(request, HTTPStatus.INTERNAL_SERVER_ERROR, "Not done", text)


async def _disconnected(_: Request, __: Exception) -> Response:
    """Return an empty answer to a client that has disconnected before the end of its request."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)
