"""Login, logout, and the check of all other requests: their session, and the token of forms.

The handlers themselves check whether the user may only read: see :func:`require_change`.
"""

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
"""The maximum number of bytes of a form. Forms have a few short fields."""
_MOST_FIELDS = 16

_REASONS = {
    HTTPStatus.FORBIDDEN: "This login is not valid. A link works once, within five minutes.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many logins failed. Use a new link.",
}
"""The texts that say why a login failed, by HTTP status."""

Form = Mapping[str, str]
Answer = Awaitable[Response]


@frozen
class Cookie:
    """The cookie that identifies a session. ``secure``: browsers send it only by HTTPS.

    The name of a secure cookie begins with ``__Host-``. Browsers accept a cookie with such a name only from
    this host itself, so no other host of the domain can replace it.
    """

    secure: bool

    @property
    def name(self) -> str:
        """The name of the cookie. Browsers accept the prefix ``__Host-`` only for a secure cookie."""
        return "__Host-ringfence" if self.secure else "ringfence"


class Entrance:
    """Handles logins and logouts, and checks that every other request belongs to a session.

    ``url`` is the URL of the site as browsers use it. ``mono`` returns monotonic seconds.
    """

    def __init__(
        self,
        sessions: WebSessions,
        renderer: Renderer,
        cookie: Cookie,
        url: str,
        mono: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._renderer = renderer
        self._cookie = cookie
        self._url = url
        self._mono = mono
        self._log = structlog.get_logger()

    def viewing(self, handle: Callable[[Request, WebSession], Answer]) -> Callable[[Request], Answer]:
        """Return a handler for a page: it calls ``handle`` with the request's session.

        Without a session it shows how to log in, with status 401.
        """

        async def answer(request: Request) -> Response:
            session = self._session_of(request)
            if session is None:
                return self._login_page(request, HTTPStatus.UNAUTHORIZED)
            return await handle(request, session)

        return answer

    def changing(self, handle: Callable[[Request, WebSession, Form], Answer]) -> Callable[[Request], Answer]:
        """Return a handler for a form that changes something: it calls ``handle`` with session and form.

        It refuses a request without a session, without the session's token, or from a page of another site.
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
            if not self._is_own(request) or not session.has_token(form.get("csrf", "")):
                self._log.warning("web.form_refused", user=session.person.name, path=request.url.path)
                why = "The form does not come from this page, or is too old. Go back, reload, and try again."
                return self._renderer.error(request, HTTPStatus.FORBIDDEN, "Refused", why)
            return await handle(request, session, form)

        return answer

    async def login_form(self, request: Request) -> Response:
        """Show a button that logs in with the token of the link.

        Opening the link does not log in, because a link works only once, and mail and chat programs open
        links to check them.
        """
        return self._login_page(request, HTTPStatus.OK, token=request.query_params.get("token", "")[:200])

    async def log_in(self, request: Request) -> Response:
        """Begin a session with the token of a login link, and redirect to the overview page.

        If the login fails, show why.
        """
        # A request from another site does not count as a failed login. Otherwise a site could make the
        # browsers of its visitors send such requests until they reach the limit.
        if not self._is_own(request):
            return self._login_page(request, HTTPStatus.FORBIDDEN)
        form = await _form_of(request) or {}
        now = self._mono()
        limited = self._sessions.is_limited(now)
        begun = self._sessions.log_in(form.get("token", ""), now)
        if begun is None:
            return self._refused_login(request, limited=limited, now=now)
        cookie, session = begun
        self._sessions.log_out(request.cookies.get(self._cookie.name, ""))  # ends the browser's old session
        self._log.info("web.login", user=session.person.name, read_only=session.person.read_only)
        response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        response.set_cookie(
            self._cookie.name, cookie, path="/", secure=self._cookie.secure, httponly=True, samesite="strict"
        )
        return response

    def _refused_login(self, request: Request, *, limited: bool, now: float) -> Response:
        """Return the page that shows why a login failed, and log the failure.

        When the failures reach the limit, this is logged too. Failures beyond the limit are not logged.
        """
        if not limited:
            client = request.client.host if request.client else ""
            self._log.warning("web.login_refused", client=client)
            if self._sessions.is_limited(now):
                self._log.warning("web.login_limited", client=client)
        status = HTTPStatus.TOO_MANY_REQUESTS if limited else HTTPStatus.FORBIDDEN
        return self._login_page(request, status)

    async def log_out(self, request: Request, session: WebSession, _: Form) -> Response:
        """End the session, and redirect to the login page."""
        self._sessions.log_out(request.cookies.get(self._cookie.name, ""))
        self._log.info("web.logout", user=session.person.name)
        response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
        response.delete_cookie(
            self._cookie.name, path="/", secure=self._cookie.secure, httponly=True, samesite="strict"
        )
        return response

    def _is_own(self, request: Request) -> bool:
        """Whether the request was made by a page of this site or by the user directly, not by another site.

        Browsers report this in the headers Sec-Fetch-Site and Origin. Old browsers send only Origin, and so
        do all browsers that use plain HTTP, except to a loopback address. If both headers are missing, return
        True.
        """
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site not in {None, "same-origin", "none"}:
            return False
        if origin is None or (origin == "null" and site is not None):
            return True
        # A proxy may change the Host header, but not the Origin, which is still the URL of the site.
        return origin == self._url or origin.partition("://")[2] == request.headers.get("host")

    def _session_of(self, request: Request) -> WebSession | None:
        session = self._sessions.find(request.cookies.get(self._cookie.name, ""), self._mono())
        if session is not None:
            request.scope[SESSION] = session
        return session

    def _login_page(self, request: Request, status: HTTPStatus, token: str = "") -> Response:
        return self._renderer.page(request, "login.html", status, token=token, reason=_REASONS.get(status))


def require_change(session: WebSession) -> None:
    """Raise WebError if the user of the session may only read."""
    if session.person.read_only:
        raise WebError("you are logged in to read only; fix: ringfence web login, without --read-only")


async def _form_of(request: Request) -> Form | None:
    """Return the fields of the form in a request; None if the form is too large or invalid.

    If a field appears several times, its last value counts.
    """
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
