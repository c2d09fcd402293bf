"""Login, logout, and the check of all other requests: their session, and the token of forms.

The handlers themselves check whether the user may only read: see :func:`require_change`.
"""

import secrets
from collections import deque
from collections.abc import Mapping, MutableMapping
from hashlib import sha256
from hmac import compare_digest
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import parse_qs

import structlog
from attrs import Factory, define, frozen
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ringfence.clock import Clock
from ringfence.errors import WebError
from ringfence.features.web.rendering import SESSION, Renderer

# -- one-time login links, sessions, and the limit for failed logins. Time is an argument (monotonic seconds)
#
# Of tokens and cookies, only hashes are kept, and only in memory: a restart ends every session. If there
# are too many links or sessions, the oldest one is discarded. Failed logins of all clients are counted
# together: all of them come from this host, where one process can use any of the addresses 127.0.0.0/8.


LINK_LIFE = 300.0
"""Seconds in which a login link can be used."""
SESSION_LIFE = 12 * 3_600.0
"""Seconds after which a session ends, even if it is used."""
IDLE_LIFE = 3_600.0
"""Seconds without a request after which a session ends. A visible page that updates itself sends many."""
MOST_LINKS = 32
MOST_SESSIONS = 64
MOST_FAILURES = 10
FAILURES_WITHIN = 60.0
"""The period in seconds in which ``MOST_FAILURES`` failed logins limit what further ones may cause."""

_Value = TypeVar("_Value")


@frozen
class Person:
    """The user of a session. ``name`` was given when the login link was made.

    ``read_only``: the user may not run commands.
    """

    name: str
    read_only: bool = False


@define(eq=False)
class WebSession:
    """A session of one user. It began at ``began`` and was last used at ``used`` (monotonic seconds).

    ``csrf`` is a secret that each form on the pages of the session contains. Another site does not know it,
    and so cannot send a form in the name of the user.
    """

    person: Person
    began: float
    used: float
    csrf: str = Factory(secrets.token_urlsafe)

    def has_token(self, token: str) -> bool:
        """Whether ``token``, which comes from a form, is the secret of this session.

        The comparison takes the same time for every token, so that its time reveals nothing.
        """
        return compare_digest(self.csrf.encode(), token.encode())


@frozen
class _LoginLink:
    person: Person
    expires: float


class WebSessions:
    """The login links that are not used yet, the sessions, and the times of the latest failed logins."""

    def __init__(self) -> None:
        self._links: dict[str, _LoginLink] = {}
        self._sessions: dict[str, WebSession] = {}
        self._failures: deque[float] = deque(maxlen=MOST_FAILURES)

    def make_link(self, person: Person, now: float) -> str:
        """Make a login link for ``person`` at ``now`` (monotonic seconds), and return its token."""
        token = secrets.token_urlsafe(32)
        _put(self._links, _hash(token), _LoginLink(person, now + LINK_LIFE), MOST_LINKS)
        return token

    def is_limited(self, now: float) -> bool:
        """Whether ``MOST_FAILURES`` logins failed in the last minute before ``now`` (monotonic seconds).

        Then a client can still log in with a valid link, but further failures are not logged.
        """
        return len(self._failures) == MOST_FAILURES and now - self._failures[0] < FAILURES_WITHIN

    def log_in(self, token: str, now: float) -> tuple[str, WebSession] | None:
        """Create a session with the token of a login link. Return the cookie of the session, and the session.

        ``now`` is in monotonic seconds.
        The token cannot be used again. Return None if it is invalid or too old; this counts as a failure. A
        valid token works although logins are limited. Otherwise one client could lock out all users. This is
        safe, because a token cannot be guessed.
        """
        link = self._links.pop(_hash(token), None)
        if link is None or link.expires <= now:
            self._failures.append(now)
            return None
        cookie, session = secrets.token_urlsafe(32), WebSession(link.person, now, now)
        _put(self._sessions, _hash(cookie), session, MOST_SESSIONS)
        return cookie, session

    def find(self, cookie: str, now: float) -> WebSession | None:
        """Return the session of a cookie, and record its use at ``now`` (monotonic seconds).

        Return None if the session has ended or never existed.
        """
        session = self._sessions.get(_hash(cookie))
        if session is None:
            return None
        if now - session.began >= SESSION_LIFE or now - session.used >= IDLE_LIFE:
            self.log_out(cookie)
            return None
        session.used = now
        return session

    def log_out(self, cookie: str) -> None:
        """End the session of a cookie, if there is one."""
        self._sessions.pop(_hash(cookie), None)


def _hash(token: str) -> str:
    """Return the hash of a token or cookie. They have 256 random bits, so the hash needs no salt."""
    return sha256(token.encode("utf-8", "replace")).hexdigest()


def _put(table: MutableMapping[str, _Value], key: str, value: _Value, most: int) -> None:
    """Set ``table[key]`` to ``value``. If the table has ``most`` entries, discard the oldest one first."""
    while len(table) >= most:
        del table[next(iter(table))]
    table[key] = value


MOST_FORM = 16 * 1024
"""The maximum number of bytes of a form. Forms have a few short fields."""
_MOST_FIELDS = 16

_REASONS = {
    HTTPStatus.FORBIDDEN: "This login is not valid. A link works once, within five minutes.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many logins failed. Use a new link.",
}
"""The texts with the reason why a login failed, by HTTP status."""

Form = Mapping[str, str]


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

    ``url`` is the URL of the site as browsers use it.
    """

    def __init__(
        self,
        sessions: WebSessions,
        renderer: Renderer,
        cookie: Cookie,
        url: str,
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._renderer = renderer
        self._cookie = cookie
        self._url = url
        self._clock = clock
        self._log = structlog.get_logger()

    def enter(self, request: Request) -> WebSession | Response:
        """Return the request's session; without one, return the page that shows how to log in (401)."""
        return self._session_of(request) or self._login_page(request, HTTPStatus.UNAUTHORIZED)

    async def enter_form(self, request: Request) -> tuple[WebSession, Form] | Response:
        """Return the session and the form of a request that changes something; or the page that refuses it.

        Refuse a request without a session, without the session's token, or from a page of another site.
        """
        session = self._session_of(request)
        if session is None:
            return self._login_page(request, HTTPStatus.UNAUTHORIZED)
        form = await form_of(request)
        if form is None:
            return self._renderer.error(request, HTTPStatus.BAD_REQUEST, "Refused", "The form is not valid.")
        if not is_own(request, self._url) or not session.has_token(form.get("csrf", "")):
            self._log.warning("web.form_refused", user=session.person.name, path=request.url.path)
            why = "The form does not come from this page, or is too old. Go back, reload, and try again."
            return self._renderer.error(request, HTTPStatus.FORBIDDEN, "Refused", why)
        return session, form

    async def login_form(self, request: Request) -> Response:
        """Return the page with a button that logs in with the token of the link.

        The token stands in the fragment of the link (after #), which browsers do not send: so no log of a
        proxy has it. A script of the page puts it into the form. Opening the link does not log in, because a
        link works only once, and mail and chat programs open links to check them.
        """
        return self._login_page(request, HTTPStatus.OK)

    async def log_in(self, request: Request) -> Response:
        """Create a session with the token of a login link, and redirect to the overview page.

        This ends the browser's old session, if any. If the login fails, return the page that shows why.
        """
        # A request from another site does not count as a failed login. Otherwise a site could make the
        # browsers of its visitors send such requests until they reach the limit.
        if not is_own(request, self._url):
            return self._login_page(request, HTTPStatus.FORBIDDEN)
        form = await form_of(request) or {}
        now = self._clock.mono()
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
        """End the session, and return the redirection to the login page."""
        self._sessions.log_out(request.cookies.get(self._cookie.name, ""))
        self._log.info("web.logout", user=session.person.name)
        response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
        response.delete_cookie(
            self._cookie.name, path="/", secure=self._cookie.secure, httponly=True, samesite="strict"
        )
        return response

    def _session_of(self, request: Request) -> WebSession | None:
        session = self._sessions.find(request.cookies.get(self._cookie.name, ""), self._clock.mono())
        if session is not None:
            request.scope[SESSION] = session
        return session

    def _login_page(self, request: Request, status: HTTPStatus) -> Response:
        return self._renderer.page(request, "login.html", status, reason=_REASONS.get(status))


def require_change(session: WebSession) -> None:
    """Raise WebError if the user of the session may only read."""
    if session.person.read_only:
        raise WebError("you are logged in to read only; fix: ringfence web login, without --read-only")


def is_own(request: Request, url: str) -> bool:
    """Whether the request was made by a page of the site ``url`` or by the user, not by another site.

    Browsers report this in the headers Sec-Fetch-Site and Origin. Old browsers send only Origin, and so do
    all browsers that use plain HTTP, except to a loopback address. If both headers are missing, return True.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site not in {None, "same-origin", "none"}:
        return False
    if origin is None or (origin == "null" and site is not None):
        return True
    # A proxy may change the Host header, but not the Origin, which is still the URL of the site.
    return origin == url or origin.partition("://")[2] == request.headers.get("host")


async def form_of(request: Request) -> Form | None:
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
