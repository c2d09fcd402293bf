"""Templates: every value is escaped, for the eye and for HTML."""

import asyncio
from typing import Any

import pytest
from markupsafe import Markup
from starlette.requests import Request

from ringfence import street
from ringfence.features.web.entrance import Person, WebSession
from ringfence.features.web.rendering import NONCE, SESSION, Renderer, url_of
from ringfence.pages.templates import MOST_TEXT, moment, short, visible

HOSTILE = "<script>alert(1)</script>\"'\x1b[2J\u202e&"


def request_of(path: str = "/", **parameters: str) -> Request:
    """Return a request of a person that is logged in."""
    session = WebSession(Person("alice"), 0.0, 0.0)
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [],
    }
    return Request(scope | {"path_params": parameters, NONCE: "nonce", SESSION: session})


def test_a_hostile_text_is_text() -> None:
    """Markup, quotes, escape sequences and overrides are shown as visible characters."""
    answer = Renderer().error(request_of(), 400, HOSTILE, HOSTILE)
    page = bytes(answer.body).decode()

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;\\x1b[2J\\u202e&amp;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (5, 5), ("a\nb", "a\\nb"), (Markup("<b>"), Markup("<b>"))],
)
def test_values_are_made_visible(value: object, shown: object) -> None:
    """Texts lose invisible characters; markup of the templates and numbers stay."""
    assert visible(value) == shown


def test_long_texts_are_cut() -> None:
    """A name of 64 KB fills no page, and less of a table."""
    text = visible("x" * 65_536)

    assert isinstance(text, str)
    assert len(text) == MOST_TEXT
    assert len(short("x" * 65_536)) == 60
    assert (short(None), short("204")) == ("", "204")


def test_only_features_that_are_installed_have_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The links name the page of each feature that this copy has; another one is left out."""
    monkeypatch.setattr(street, "present", lambda: ("fleet", "limiter"))
    page = bytes(Renderer().error(request_of(), 404, "Not Found").body).decode()

    assert ('href="/fleet">Fleet<' in page, "/fence" in page, "/limiter" in page) == (True, False, False)


def test_addresses_of_pages_are_escaped() -> None:
    """A value in an address of a page cannot end the attribute or the parameter."""
    assert url_of("/why", about='"&<x>', none=None) == "/why?about=%22%26%3Cx%3E"
    assert url_of("/a", b=1, c=2) == "/a?b=1&amp;c=2"
    assert url_of("/") == "/"


def test_times() -> None:
    """Times are shown in UTC to the second; an unknown time is named so."""
    assert moment("2026-11-21T02:41:05Z") == "2026-11-21 02:41:05"
    assert moment(None) == "?"


@pytest.mark.parametrize("name", ["live.js", "style.css", "icon.svg"])
def test_files(name: str) -> None:
    """The script, the style sheet and the icon are served, and may be kept for ever."""
    answer = asyncio.run(Renderer().file(request_of(name=name)))

    assert (answer.status_code, answer.headers["cache-control"]) == (
        200,
        "public, max-age=31536000, immutable",
    )


@pytest.mark.parametrize("name", ["../templates/base.html", "nothing", ""])
def test_other_files_are_not_served(name: str) -> None:
    """Only the files of the folder have an address."""
    assert asyncio.run(Renderer().file(request_of(name=name))).status_code == 404
