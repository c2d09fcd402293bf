"""One-time login links, sessions, and the limit of failed logins. Time is an argument (monotonic seconds).

Only hashes of tokens and cookies are kept, in memory: a restart ends every session. Everything is bounded:
the oldest link, session or client is dropped when there are too many.
"""

import secrets
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
"""Seconds without a request after which a session ends. An open page makes one every few seconds."""
MOST_LINKS = 32
MOST_SESSIONS = 64
MOST_CLIENTS = 1_024
MOST_FAILURES = 10
FAILURES_WITHIN = 60.0
"""After ``MOST_FAILURES`` failed logins in this time (seconds), a client is limited."""

_Value = TypeVar("_Value")


@frozen
class Person:
    """The user of a session, by the name that the login link has, and whether it may only read."""

    name: str
    read_only: bool = False


@define(eq=False)
class WebSession:
    """A session of one person. ``csrf`` is the token that each of its forms carries."""

    person: Person
    began: float
    used: float
    csrf: str = Factory(lambda: secrets.token_urlsafe(32))

    def has_token(self, token: str) -> bool:
        """Whether a form carries the token of this session."""
        return compare_digest(self.csrf.encode(), token.encode())


@frozen
class _LoginLink:
    person: Person
    expires: float


class WebSessions:
    """The login links that were made, and the sessions that began with them."""

    def __init__(self) -> None:
        self._links: dict[str, _LoginLink] = {}
        self._sessions: dict[str, WebSession] = {}
        self._failures: dict[str, list[float]] = {}

    def make_link(self, person: Person, now: float) -> str:
        """Return the token of a new login link."""
        token = secrets.token_urlsafe(32)
        _put(self._links, _hash(token), _LoginLink(person, now + LINK_LIFE), MOST_LINKS)
        return token

    def is_limited(self, client: str, now: float) -> bool:
        """Whether a client has failed too often: its further failures are not worth a line in the log."""
        recent = [moment for moment in self._failures.get(client, ()) if now - moment < FAILURES_WITHIN]
        return len(recent) >= MOST_FAILURES

    def log_in(self, token: str, client: str, now: float) -> tuple[str, WebSession] | None:
        """Begin a session with a token, which is then used up; return its cookie, None if it is not valid.

        A valid token works for a limited client too: its random bits cannot be guessed. Otherwise one sender
        could lock out all people behind the same proxy.
        """
        link = self._links.pop(_hash(token), None)
        if link is None or link.expires <= now:
            recent = [*self._failures.pop(client, ())][-MOST_FAILURES + 1 :]
            _put(self._failures, client, [*recent, now], MOST_CLIENTS)
            return None
        cookie, session = secrets.token_urlsafe(32), WebSession(link.person, now, now)
        _put(self._sessions, _hash(cookie), session, MOST_SESSIONS)
        return cookie, session

    def find(self, cookie: str, now: float) -> WebSession | None:
        """Return the session of a cookie, and record its use; None if it has ended."""
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
    """Return the form in which a token is kept. A token has 256 random bits, so it needs no salt."""
    return sha256(token.encode("utf-8", "replace")).hexdigest()


def _put(table: MutableMapping[str, _Value], key: str, value: _Value, most: int) -> None:
    """Add to a table; drop its oldest entry if it is full."""
    while len(table) >= most:
        del table[next(iter(table))]
    table[key] = value
