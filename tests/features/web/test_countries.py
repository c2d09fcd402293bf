"""The countries of addresses on the live page."""

from collections.abc import Iterator

import pytest
from tests.features.web.conftest import GUESSES
from tests.support.amiserver import Script
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.mmdb import write
from tests.support.web import Browser, web_server

GUESSER = "198.18.1.101"


@pytest.fixture(name="browser", scope="module")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser at the page of a daemon that knows the country of a guesser and of an ended ban."""
    folder = tmp_path_factory.mktemp("countries")
    record = {"country": {"iso_code": "NL"}, "as_name": "<b>Example</b>"}
    database = write(folder / "geo.mmdb", [("198.18.0.0/15", record)])
    with (
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(folder, ami={"port": pbx.port}, geo={"database": [str(database)]}) as guard,
    ):
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        guard.ask("ban", networks=[GUESSER, "198.18.1.9", "203.0.113.9"], seconds=3_600)
        guard.ask("unban", networks=["198.18.1.9"])
        with web_server(folder / "web", folder / "control.sock") as web:
            yield web.browser()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/", f"{GUESSER} NL 3 alice"),
        ("/bans", f"{GUESSER} NL admin"),
        ("/bans", "203.0.113.9 admin"),
        ("/past", "198.18.1.9 NL admin"),
        (f"/why?about={GUESSER}", "NL, <b>Example</b>"),
        ("/why?about=alice", f"{GUESSER} NL wrong password"),
    ],
)
def test_an_address_has_its_country(browser: Browser, target: str, words: str) -> None:
    """The tables show the country after the address, and `why` also the operator, as text."""
    assert words in browser.get(target).words
