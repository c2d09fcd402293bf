"""A daemon that banned a guesser, and the live page in front of it, for all tests of a file."""

from collections.abc import Iterator

import pytest
from attrs import frozen
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.web import Browser, WebServer, web_server

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()


@frozen
class Served:
    """A daemon and its live page; ``browser`` is logged in, ``reader`` to read only."""

    guard: Guard
    web: WebServer
    browser: Browser
    reader: Browser


@pytest.fixture(name="served", scope="module")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a daemon that banned 198.18.1.101 for guesses at alice's password, and its page."""
    folder = tmp_path_factory.mktemp("web")
    with (
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(folder, ami={"port": pbx.port}, rules={"guess": {"attempts": 3}}) as guard,
    ):
        until(lambda: guard.banned() == {"198.18.1.101"}, "the ban")
        with web_server(folder / "web", folder / "control.sock") as web:
            yield Served(guard, web, web.browser(), web.browser(read_only=True))
