"""One-time login links, sessions, and the limit for failed logins. Time is an argument (monotonic seconds).

Of tokens and cookies, only hashes are kept, and only in memory: a restart ends every session. If there are
too many links or sessions, the oldest one is discarded. Failed logins of all clients are counted together:
all of them come from this host, where one process can use any of the addresses 127.0.0.0/8.
"""

import secrets
from collections import deque
from collections.abc import MutableMapping
from hashlib import sha256
from hmac import compare_digest
from typing import TypeVar

from attrs import Factory, define, frozen

LINK_LIFE = 300.0
"""Seconds in which a login link can be used."""
SESSION_LIFE = 12 * 3_600.0
"""Seconds after which a session ends, even if it is used."""
IDLE_LIFE = 3_600.0
"""Seconds without a request after which a session ends. An open page sends a request every few seconds."""
MOST_LINKS = 32
MOST_SESSIONS = 64
MOST_FAILURES = 10
FAILURES_WITHIN = 60.0
"""Logins are *limited* if there were ``MOST_FAILURES`` failed ones within this time (seconds)."""

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
    csrf: str = Factory(lambda: secrets.token_urlsafe(32))

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
        """Make a login link for ``person``, and return its token."""
        token = secrets.token_urlsafe(32)
        _put(self._links, _hash(token), _LoginLink(person, now + LINK_LIFE), MOST_LINKS)
        return token

    def is_limited(self, now: float) -> bool:
        """Whether there were ``MOST_FAILURES`` failed logins in the last ``FAILURES_WITHIN`` seconds.

        Then a client can still log in with a valid link, but further failures are not logged.
        """
        return len(self._failures) == MOST_FAILURES and now - self._failures[0] < FAILURES_WITHIN

    def log_in(self, token: str, now: float) -> tuple[str, WebSession] | None:
        """Begin a session with the token of a login link. Return the cookie of the session, and the session.

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
        """Return the session of a cookie, and record its use; None if it has ended or never existed."""
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
    """Add an entry to a table. If the table has ``most`` entries, discard the oldest one first."""
    while len(table) >= most:
        del table[next(iter(table))]
    table[key] = value
