"""Login, logout, and the check of every other request: its session, and for a change its token and role."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qs

import structlog
from attrs import frozen
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ringfence.errors import WebError
from ringfence.web.rendering import SESSION, Renderer
from ringfence.web.sessions import WebSession, WebSessions

MOST_FORM = 16 * 1024
"""Bytes of a form; it has a few short fields."""
_MOST_FIELDS = 16

_REASONS = {
    HTTPStatus.FORBIDDEN: "This link is not valid. A link works once, within five minutes.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many logins failed. Use a new link.",
}
"""Why a login failed."""

Form = Mapping[str, str]
Answer = Awaitable[Response]


@frozen
class Cookie:
    """The cookie of a session. Behind HTTPS its name makes browsers refuse it from anybody else."""

    secure: bool

    @property
    def name(self) -> str:
        """The name; browsers accept ``__Host-`` only with ``Secure``."""
        return "__Host-ringfence" if self.secure else "ringfence"


class Entrance:
    """The way to the pages: it checks the session of each request. ``mono`` returns monotonic seconds."""

    def __init__(
        self, sessions: WebSessions, renderer: Renderer, cookie: Cookie, mono: Callable[[], float]
    ) -> None:
        self._sessions = sessions
        self._renderer = renderer
        self._cookie = cookie
        self._mono = mono
        self._log = structlog.get_logger()

    def viewing(self, handle: Callable[[Request, WebSession], Answer]) -> Callable[[Request], Answer]:
        """Return a handler that calls ``handle`` with the session, or shows how to log in."""

        async def answer(request: Request) -> Response:
            session = self._session_of(request)
            if session is None:
                return self._login_page(request, HTTPStatus.UNAUTHORIZED)
            return await handle(request, session)

        return answer

    def changing(self, handle: Callable[[Request, WebSession, Form], Answer]) -> Callable[[Request], Answer]:
        """Return a handler of a form that changes something.

        It needs a session, its token and this site's own page.
        """

        async def answer(request: Request) -> Response:
            session = self._session_of(request)
            if session is None:
                return self._login_page(request, HTTPStatus.UNAUTHORIZED)
            form = await _form_of(request)
            if form is None:
                return self._renderer.error(
                    request, HTTPStatus.BAD_REQUEST, "Refused", "The form is not valid."
                )
            if not _is_own(request) or not session.has_token(form.get("csrf", "")):
                why = "The form does not come from this page, or is too old. Go back, reload, and try again."
                return self._renderer.error(request, HTTPStatus.FORBIDDEN, "Refused", why)
            return await handle(request, session, form)

        return answer

    async def login_form(self, request: Request) -> Response:
        """Show the button that logs in. The link alone does not: programs that look at links would use it."""
        return self._login_page(request, HTTPStatus.OK, token=request.query_params.get("token", "")[:200])

    async def log_in(self, request: Request) -> Response:
        """Begin a session with the token of a link."""
        if not _is_own(request):  # it does not count, or any page could use up the limit of its visitor
            return self._login_page(request, HTTPStatus.FORBIDDEN)
        form = await _form_of(request) or {}
        client = request.client.host if request.client else ""
        now = self._mono()
        limited = self._sessions.is_limited(client, now)
        begun = self._sessions.log_in(form.get("token", ""), client, now)
        if begun is None:
            return self._refused_login(request, client, limited=limited, now=now)
        cookie, session = begun
        self._log.info("web.login", user=session.person.name, read_only=session.person.read_only)
        response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        response.set_cookie(
            self._cookie.name, cookie, path="/", secure=self._cookie.secure, httponly=True, samesite="strict"
        )
        return response

    def _refused_login(self, request: Request, client: str, *, limited: bool, now: float) -> Response:
        """Log a failed login, and when a client becomes limited; nothing after that."""
        if not limited:
            self._log.warning("web.login_refused", client=client)
            if self._sessions.is_limited(client, now):
                self._log.warning("web.login_limited", client=client)
        status = HTTPStatus.TOO_MANY_REQUESTS if limited else HTTPStatus.FORBIDDEN
        return self._login_page(request, status)

    async def log_out(self, request: Request, session: WebSession, _: Form) -> Response:
        """End the session."""
        self._sessions.log_out(request.cookies.get(self._cookie.name, ""))
        self._log.info("web.logout", user=session.person.name)
        response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
        response.delete_cookie(
            self._cookie.name, path="/", secure=self._cookie.secure, httponly=True, samesite="strict"
        )
        return response

    def _session_of(self, request: Request) -> WebSession | None:
        session = self._sessions.find(request.cookies.get(self._cookie.name, ""), self._mono())
        if session is not None:
            request.scope[SESSION] = session
        return session

    def _login_page(self, request: Request, status: HTTPStatus, token: str = "") -> Response:
        return self._renderer.page(request, "login.html", status, token=token, reason=_REASONS.get(status))


def require_change(session: WebSession) -> None:
    """Raise WebError if the person of a session may only read."""
    if session.person.read_only:
        raise WebError("you are logged in to read only; fix: ringfence web login, without --read-only")


def _is_own(request: Request) -> bool:
    """Whether a page of this site made the request, as far as the browser reports it."""
    return request.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}


async def _form_of(request: Request) -> Form | None:
    """Return the last value of each field, None if the form is too large or not valid."""
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal()) or "transfer-encoding" in request.headers:
        return None
    if len(length) > len("1000000") or int(length) > MOST_FORM:
        return None
    try:
        text = (await request.body()).decode("ascii")
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        return None
    return {name: values[-1] for name, values in fields.items()}
