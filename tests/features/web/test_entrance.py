"""Login, logout, and the check of every other request."""

from urllib.parse import urlsplit

import pytest
from tests.features.web.conftest import Served
from tests.support.web import Browser

from ringfence.features.web.entrance import MOST_FORM, Cookie

PAGES = (
    "/",
    "/bans",
    "/past",
    "/log",
    "/alarms",
    "/lists",
    "/why?about=1",
    "/confirm?do=unban&what=100.64.7.1",
)


@pytest.mark.parametrize("target", PAGES)
def test_nothing_is_shown_before_the_login(served: Served, target: str) -> None:
    """Without a session, or with a wrong cookie, every page explains how to log in."""
    for cookies in ({}, {"ringfence": "wrong"}):
        answer = Browser(served.web.socket, dict(cookies)).get(target)
        assert answer.status == 401
        assert "ringfence web login" in answer.words
        assert "198.18.1.101" not in answer.text


def test_a_link_logs_in_once(served: Served) -> None:
    """Opening a link changes nothing; its button begins a session, once."""
    link = urlsplit(served.web.link("bob"))
    first, second = Browser(served.web.socket), Browser(served.web.socket)
    pages = [first.get(link.path) for _ in range(3)]
    assert [(page.status, page.form("/login").fields) for page in pages] == [(200, {"token": ""})] * 3
    assert first.cookies == {}
    answer = first.submit(pages[0].form("/login"), token=link.fragment)
    cookie = answer.headers["Set-Cookie"]

    assert (answer.status, answer.headers["Location"]) == (303, "/")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "bob" in first.get("/").words
    again = second.submit(second.get(link.path).form("/login"), token=link.fragment)
    assert again.status == 403
    assert "works once" in again.words
    assert second.cookies == {}
    assert "user=bob" in served.web.log
    assert link.fragment not in served.web.log


def test_no_log_of_a_proxy_has_the_token(served: Served) -> None:
    """The token stands after the sign # of the link, which browsers do not send; a query has no effect."""
    link = urlsplit(served.web.link("bob"))
    browser = Browser(served.web.socket)

    assert (link.path, link.query, len(link.fragment)) == ("/login", "", 43)
    for target in (link.path, f"{link.path}?token={link.fragment}"):
        assert link.fragment not in browser.get(target).text


def test_logging_out_ends_the_session(served: Served) -> None:
    """After logging out the cookie is worth nothing."""
    browser = served.web.browser()
    kept = dict(browser.cookies)
    answer = browser.submit(browser.get("/").form("/logout"))

    assert answer.status == 303
    assert Browser(served.web.socket, kept).get("/").status == 401


@pytest.mark.parametrize("changed", [{"csrf": ""}, {"csrf": "wrong"}])
def test_a_form_needs_the_token_of_its_session(served: Served, changed: dict[str, str]) -> None:
    """A form without the token, or with that of another session, changes nothing."""
    form = served.browser.get("/confirm?do=unban&what=198.18.1.101").form("/run")
    other = served.reader.get("/").form("/logout").fields["csrf"]

    for token in (changed["csrf"], other):
        assert served.browser.submit(form, csrf=token).status == 403
    assert served.guard.banned() == {"198.18.1.101"}


def test_a_form_of_another_site_is_refused(served: Served) -> None:
    """A request that the browser marks as another site's changes nothing, even with the token."""
    form = served.browser.get("/confirm?do=unban&what=198.18.1.101").form("/run")
    answer = served.browser.post("/run", form.fields, **{"Sec-Fetch-Site": "cross-site"})

    assert answer.status == 403
    assert "event=web.form_refused user=alice path=/run" in served.web.log
    assert served.guard.banned() == {"198.18.1.101"}


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://evil.example", 403),
        ("http://localhost:3000", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://localhost", 303),
    ],
)
def test_a_login_of_another_origin_is_refused(served: Served, origin: str, status: int) -> None:
    """A browser that sends no Sec-Fetch-Site still names the site whose form logs in."""
    link = urlsplit(served.web.link("bob"))
    browser = Browser(served.web.socket)

    assert browser.post("/login", {"token": link.fragment}, Origin=origin).status == status


def test_a_new_login_ends_the_session_before(served: Served) -> None:
    """The browser forgets its cookie at a login, and so does the page."""
    browser = served.web.browser()
    before = dict(browser.cookies)
    browser.log_in(served.web.link("bob"))

    assert Browser(served.web.socket, before).get("/").status == 401
    assert browser.get("/").status == 200


def test_a_change_needs_a_session(served: Served) -> None:
    """Without a session a form changes nothing."""
    form = served.browser.get("/confirm?do=unban&what=198.18.1.101").form("/run")

    assert Browser(served.web.socket).post("/run", form.fields).status == 401
    assert served.guard.banned() == {"198.18.1.101"}


@pytest.mark.parametrize(
    "body", [b"a=1&" * 20, b"\xff=1", b"x" * (MOST_FORM + 1), b"=", b""], ids=lambda body: str(len(body))
)
def test_a_bad_form_is_refused(served: Served, body: bytes) -> None:
    """A form that is too large, has too many fields or is not text is refused."""
    answer = served.browser.request("POST", "/run", body)

    assert answer.status in {400, 403}


def test_another_site_cannot_use_up_the_limit(served: Served) -> None:
    """Logins that a page of another site attempts do not count as failures."""
    for _ in range(15):
        answer = served.browser.post("/login", {"token": "wrong"}, **{"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 403

    assert served.web.browser().get("/").status == 200


def test_logins_are_limited(served: Served) -> None:
    """After ten wrong tokens in a minute others are refused without a line in the log; a link still works."""
    stranger, before = Browser(served.web.socket), served.web.log.count("web.login_refused")
    statuses = [stranger.post("/login", {"token": "wrong"}).status for _ in range(15)]

    assert statuses[-5:] == [429] * 5
    assert set(statuses) == {403, 429}
    assert served.web.log.count("web.login_limited") == 1
    assert served.web.log.count("web.login_refused") - before <= 10
    assert served.web.browser().get("/").status == 200


def test_the_cookie_of_https() -> None:
    """Behind HTTPS the name of the cookie makes browsers bind it to this host."""
    assert (Cookie(secure=True).name, Cookie(secure=False).name) == ("__Host-ringfence", "ringfence")
