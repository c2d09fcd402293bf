"""Login links, sessions, and the limit of failed logins."""

from ringfence.features.web.entrance import (
    FAILURES_WITHIN,
    IDLE_LIFE,
    LINK_LIFE,
    MOST_FAILURES,
    MOST_LINKS,
    MOST_SESSIONS,
    SESSION_LIFE,
    Person,
    WebSessions,
)

ALICE = Person("alice")


def begun(sessions: WebSessions, now: float = 0.0, person: Person = ALICE) -> str:
    """Return the cookie of a new session."""
    found = sessions.log_in(sessions.make_link(person, now), now)
    assert found is not None
    return found[0]


def test_a_link_works_once() -> None:
    """A link begins one session of its person; a second use is refused."""
    sessions = WebSessions()
    token = sessions.make_link(Person("bob", read_only=True), 0.0)
    found = sessions.log_in(token, 1.0)

    assert found is not None
    assert found[1].person == Person("bob", read_only=True)
    assert sessions.find(found[0], 2.0) is found[1]
    assert sessions.log_in(token, 1.0) is None


def test_a_link_ends() -> None:
    """After five minutes a link is not valid any more."""
    sessions = WebSessions()
    token = sessions.make_link(ALICE, 0.0)

    assert LINK_LIFE == 300
    assert sessions.log_in(token, 300.0) is None


def test_a_session_ends() -> None:
    """A session ends after an hour without a request, after twelve hours, and by logging out."""
    sessions = WebSessions()
    idle, used, ended = (begun(sessions) for _ in range(3))
    sessions.log_out(ended)
    assert sessions.find(ended, 1.0) is None
    assert sessions.find(idle, IDLE_LIFE) is None
    moment = 0.0
    while moment < SESSION_LIFE - IDLE_LIFE / 2:
        assert sessions.find(used, moment) is not None
        moment += IDLE_LIFE / 2
    assert sessions.find(used, SESSION_LIFE) is None


def test_tokens_and_cookies_are_kept_as_hashes() -> None:
    """A dump of the memory of the sessions has no token and no cookie."""
    sessions = WebSessions()
    token, cookie = sessions.make_link(ALICE, 0.0), begun(sessions)
    kept = repr(vars(sessions))

    assert token not in kept
    assert cookie not in kept


def test_failed_logins_are_limited() -> None:
    """After ten failures within a minute, of whatever clients, logins are limited; a valid link works."""
    sessions = WebSessions()
    for number in range(MOST_FAILURES):
        assert not sessions.is_limited(float(number))
        assert sessions.log_in("wrong", float(number)) is None

    assert sessions.is_limited(10.0)
    assert sessions.log_in(sessions.make_link(ALICE, 10.0), 10.0) is not None
    assert not sessions.is_limited(FAILURES_WITHIN + MOST_FAILURES)


def test_memory_is_bounded() -> None:
    """The oldest link and the oldest session are dropped if there are too many."""
    sessions = WebSessions()
    first = sessions.make_link(ALICE, 0.0)
    for _ in range(MOST_LINKS):
        sessions.make_link(ALICE, 0.0)
    assert sessions.log_in(first, 0.0) is None

    cookies = [begun(sessions) for _ in range(MOST_SESSIONS + 1)]
    assert sessions.find(cookies[0], 0.0) is None
    assert sessions.find(cookies[1], 0.0) is not None
    for _ in range(3_000):
        sessions.log_in("wrong", 0.0)
    assert len(sessions._failures) == MOST_FAILURES


def test_the_token_of_a_form_is_that_of_its_session() -> None:
    """A form with another token, or none, is refused; so is text that is not ASCII."""
    sessions = WebSessions()
    session = sessions.find(begun(sessions), 0.0)
    assert session is not None

    assert session.has_token(session.csrf)
    assert not any(
        session.has_token(token) for token in ("", "wrong", "ä", "\udc80".encode("utf-8", "replace").decode())
    )
